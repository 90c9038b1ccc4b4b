"""Workers, tasks and schedules for commands that also work without them: the extra need not be installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from orchestrator.ledger import Location


def lines(location: Location) -> list[str]:
    """The crew of the ledger at *location* as a person reads it; nothing where there is none. Raises LedgerError."""
    if isinstance(location, Path) or find_spec("procrastinate") is None:
        return []
    from orchestrator.workers import view

    return view.look(location).crew_lines()
