"""A run's lease on its manifest: a lock of the kernel on a file beside the ledger."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from orchestrator.errors import LedgerError, LockHeld
from orchestrator.ledger.sqlite import place


@contextmanager
def lease(ledger: Path, manifest: str, holder: Mapping[str, str]) -> Iterator[place.Held]:
    """Hold *manifest* in *ledger* for as long as the block runs; the kernel frees it when the process dies.

    *holder* is ``command`` and ``since``, for whoever is kept out. Raises LockHeld, naming the holder, when another
    process has it. The lock file is never removed: removing it would let two processes hold "the" lock.
    """
    path = ledger.with_name(f"{ledger.name}.{manifest}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = place.open_lock(path)
    except OSError as error:
        raise LedgerError(f"{path}: {error.strerror}") from error
    try:
        if not _locked(descriptor):
            raise LockHeld(f"another run holds manifest {manifest!r}: {_holder(descriptor)}")
        note = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), **holder}).encode()
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, note, 0)
        except OSError as error:
            raise LedgerError(f"{path}: {error.strerror}") from error
        yield place.Held.of(path, os.fstat(descriptor))
    finally:
        os.close(descriptor)


def holder(ledger: Path, manifest: str) -> str | None:
    """The holder of *manifest* right now, in words; None when nobody does. Raises LedgerError."""
    path = ledger.with_name(f"{ledger.name}.{manifest}.lock")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LedgerError(f"{path}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(descriptor)
    finally:
        os.close(descriptor)
    return None


def _locked(descriptor: int) -> bool:
    """Whether the lock is ours now. ``holder`` has it for an instant at times: that is no other run."""
    for attempt in range(3):
        if attempt:
            time.sleep(0.02)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        return True
    return False


def _holder(descriptor: int) -> str:
    try:
        note = json.loads(os.pread(descriptor, 4096, 0))
        return f"pid {note['pid']} on {note['host']}, {note['command']} since {note['since']}"
    except (ValueError, KeyError, TypeError):
        return "it has just begun"
