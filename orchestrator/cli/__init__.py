"""The command line: arguments in, exit code out. The only room that prints; heavy modules load where they are used."""

from orchestrator.cli import running, looking, deciding, nightly, documents, workers  # noqa: I001 - in the order of --help
from orchestrator.cli.app import app
from orchestrator.cli.console import main

__all__ = ["app", "deciding", "documents", "looking", "main", "nightly", "running", "workers"]
