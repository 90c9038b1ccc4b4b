"""The command line: arguments in, exit code out. The only room that prints; heavy modules load where they are used."""

from orchestrator.cli import running, looking, deciding, nights  # noqa: I001 - the order in which --help lists their commands
from orchestrator.cli.app import app
from orchestrator.cli.console import main

__all__ = ["app", "deciding", "looking", "main", "nights", "running"]
