"""Turns at one ledger: a writer waits until no other process writes, and never longer than it has patience."""

from __future__ import annotations

import fcntl
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from orchestrator.errors import LedgerBusy

T = TypeVar("T")

#: How long a transaction waits for other writers by default. Theirs take milliseconds, and the plan of
#: a million files half a minute.
PATIENCE_S = 120.0

#: The pauses between two looks, the first and the longest.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.001, 0.02


def lock(descriptor: int, path: Path, patience_s: float) -> None:
    """Take the lock of all writers to the ledger at *path*. Raises LedgerBusy after *patience_s*."""

    def take() -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    in_turn(take, path, patience_s)


def in_turn(take: Callable[[], T], path: Path, patience_s: float) -> T:
    """Return *take*'s result once nobody else holds what it takes. Raises LedgerBusy after *patience_s*.

    No call of the system's or SQLite's is left to wait by itself: those know neither deadline nor signal.
    """
    until, pause_s = time.monotonic() + patience_s, FIRST_PAUSE_S
    while True:
        try:
            return take()
        except (BlockingIOError, sqlite3.OperationalError) as error:
            if not _is_busy(error):
                raise
            left_s = until - time.monotonic()
            if left_s <= 0:
                words = "another process is writing to it and does not finish; is it stopped?"
                raise LedgerBusy(f"{path}: {words}") from error
        time.sleep(min(pause_s, left_s))
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _is_busy(error: BlockingIOError | sqlite3.OperationalError) -> bool:
    """Whether somebody else has the lock, and nothing worse is the matter."""
    if isinstance(error, BlockingIOError):
        return True
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
