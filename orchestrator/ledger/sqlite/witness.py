"""How far the ledger had come, written down beside it: an emptied file or an older copy in its place is found out.

The lock of all writers is never removed by us, so it is the witness. After each commit it gets the ledger's identity
and counters, always after the ledger itself: whatever a crash loses, the witness is never ahead of the true ledger.
"""

from __future__ import annotations

import os
import re
import secrets
import sqlite3
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection

from orchestrator.clock import timestamp
from orchestrator.plaintext import counted

_LINE = re.compile(rb"([0-9]{20}) ([0-9]{20}) ([0-9]{20})\n", re.ASCII)


@dataclass(frozen=True, slots=True)
class Seen:
    """How far a ledger has come."""

    identity: int  #: of this ledger and of no other; 0 where an older version of the program wrote last
    writes: int  #: transactions that changed something
    chunks: int  #: ever planned


def add(connection: Connection) -> None:
    """A ledger has an identity and counts its writes."""
    connection.exec_driver_sql(
        "INSERT INTO sequences (name, last) VALUES ('identity', ?), ('writes', 0)", (secrets.randbits(62) + 1,)
    )


def of_ledger(connection: sqlite3.Connection) -> Seen:
    """Raises sqlite3.Error, as the connection does."""
    known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'sequences'").fetchone()
    found: dict[str, int] = dict(connection.execute("SELECT name, last FROM sequences")) if known else {}
    return Seen(found.get("identity", 0), found.get("writes", 0), found.get("jobs", 0))


def read(path: Path) -> Seen | None:
    """Return what the witness at *path* has seen; None where it is not there or was never written."""
    with suppress(OSError):
        if found := _LINE.match(path.read_bytes()[:100]):
            return Seen(*map(int, found.groups()))
    return None


def write(descriptor: int, seen: Seen) -> None:
    """A witness that can't be written, as on a full disk, knows less; that stops nobody."""
    with suppress(OSError):
        os.pwrite(descriptor, b"%020d %020d %020d\n" % (seen.identity, seen.writes, seen.chunks), 0)


def problem(witness: Path, seen: Seen | None, has: Seen | None) -> str | None:
    """Why a ledger that *has* come so far is not the one that *witness* has *seen*; None where it can be.

    *has* None: nothing of a ledger is in the file.
    """
    if seen is None or not seen.writes:
        return None
    if has is None:
        what = "the ledger that was here has been emptied"
    elif has.identity not in (seen.identity, 0):
        what = "not the ledger that was here, but another one"
    elif has.writes < seen.writes:
        what = f"an older copy of the ledger that was here: {_lacks(witness, seen, has)}"
    else:
        return None
    return (
        f"{what}; put the right one back (with its -wal file), or have `orchestrator adopt` take in what the API has, "
        f"for each manifest; to go on with this one and pay again for what it lacks, remove {witness.name}"
    )


def _lacks(witness: Path, seen: Seen, has: Seen) -> str:
    until = timestamp(datetime.fromtimestamp(witness.stat().st_mtime, UTC), "seconds")
    chunks = seen.chunks - has.chunks
    among = f", with {counted(chunks, 'chunk')} of files" if chunks > 0 else ""
    return f"it lacks its last {counted(seen.writes - has.writes, 'change')}{among}, up to {until}"
