"""`move-ledger`: a ledger goes to another place, and perhaps another kind of database, while nothing runs on it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from orchestrator import ledger
from orchestrator.clock import Clock, timestamp
from orchestrator.commands.access import lock_name
from orchestrator.errors import InputError
from orchestrator.ledger import move_ledger as moving


@dataclass(frozen=True, slots=True)
class Moved:
    """A ledger that is somewhere else now."""

    source: str
    target: str
    rows: int
    manifests: list[str]


def move(source: ledger.Location, target: ledger.Location, *, clock: Clock) -> Moved:
    """Copy all that the ledger at *source* knows to *target*, compare row by row, and retire the ledger at *source*.

    Raises LockHeld when a run holds a manifest of it, InputError when both are the same, and LedgerError when *target*
    holds another ledger or one of the two can't be used; then *source* stays what it was.
    """
    ledger.require(source)
    if _full(source) == _full(target):
        raise InputError(f"{source}: the ledger is there already; name another place")
    with ExitStack() as stack:
        with ledger.open(source, read_only=True) as old, old.transaction() as rows:
            names = moving.names(rows)
        holder = {"command": "orchestrator move-ledger", "since": timestamp(clock.now(), "seconds")}
        for name, rehearsal in names:
            stack.enter_context(ledger.lease(source, lock_name(name, rehearsal=rehearsal), holder))
        old = stack.enter_context(ledger.open(source))
        was = stack.enter_context(old.transaction())
        new = stack.enter_context(ledger.open(target))
        with new.transaction() as now:
            count = moving.copy(was, now)
        moving.retire(was, to=_full(target), at=timestamp(clock.now(), "seconds"))
    return Moved(_full(source), _full(target), count, sorted({name for name, _ in names}))


def _full(location: ledger.Location) -> str:
    return str(location.resolve()) if isinstance(location, Path) else str(location)
