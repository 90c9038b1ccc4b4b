"""Where a ledger is, whether there is one, opening it, and the lease of a run: the one place that picks a database."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from orchestrator.ledger.sqlite import backup as backups
from orchestrator.ledger.sqlite import lease as leases
from orchestrator.ledger.sqlite import place
from orchestrator.ledger.sqlite.database import ENGINE, Description, Ledger
from orchestrator.ledger.sqlite.place import Room, locate, refuse_gone, require
from orchestrator.ledger.sqlite.turns import PATIENCE_S

__all__ = [
    "ENGINE",
    "PATIENCE_S",
    "Description",
    "Lease",
    "Ledger",
    "Location",
    "Room",
    "backup",
    "exists",
    "holder",
    "in_memory",
    "lease",
    "locate",
    "open",
    "refuse_gone",
    "require",
    "room",
]

#: Where a ledger is, as ``locate`` reads it from an option.
Location = Path

#: A run's hold on its manifest. Its owner only hands it to ``open``, which refuses to write once it is lost.
Lease = place.Held


def open(  # noqa: A001 - called as ledger.open
    location: Location,
    *,
    read_only: bool = False,
    lease: Lease | None = None,
    rebuilding: bool = False,
    patience_s: float = PATIENCE_S,
) -> Ledger:
    """The ledger at *location*, made if need be unless *read_only*. Raises LedgerError.

    *lease* is the run's: nothing is written once it is lost. *rebuilding* allows a new ledger where one has
    disappeared, and an older copy of it; otherwise they are refused, because they would buy again what they lack.
    ``Ledger.rebuilt`` ends that state. *patience_s*: how long each transaction waits while other processes write.
    """
    return Ledger(location, read_only=read_only, lease=lease, rebuilding=rebuilding, patience_s=patience_s)


def in_memory() -> Ledger:
    """An empty ledger that is never written anywhere."""
    return Ledger.in_memory()


def lease(location: Location, manifest: str, holder: Mapping[str, str]) -> AbstractContextManager[Lease]:
    """Keep every other run of *manifest* out while the block runs. *holder*: the ``command``, and ``since`` when.

    Raises LockHeld, which names the holder, and LedgerError.
    """
    return leases.lease(location, manifest, holder)


def holder(location: Location, manifest: str) -> str | None:
    """Who holds the lease of *manifest* right now, in words; None when nobody does. Raises LedgerError."""
    return leases.holder(location, manifest)


def exists(location: Location) -> bool:
    """Whether a ledger is at *location*; it may still be unreadable. An empty file is none."""
    return place.exists(location)


def room(location: Location) -> Room:
    """Say whether a run could write a ledger at *location*, and how much."""
    return place.room(location)


def backup(location: Location, target: Path, *, force: bool) -> int:
    """Copy the ledger at *location* to *target* while it is in use; its size in bytes. See ``sqlite.backup``."""
    return backups.backup(location, target, force=force)
