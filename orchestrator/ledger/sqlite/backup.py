"""A consistent copy of a ledger while it is in use, by SQLite's own online backup; whole before it takes its place."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from orchestrator.errors import InputError, LedgerError
from orchestrator.ledger.sqlite import place, witness
from orchestrator.ledger.sqlite.database import Database, driver
from orchestrator.ledger.sqlite.schema import APPLICATION_ID


def backup(source: Path, target: Path, *, force: bool) -> int:
    """Copy the ledger at *source* to *target*, whole and on disk; its size in bytes.

    Raises InputError when *target* is anything but an older backup of the same ledger, unless *force*, and LedgerError
    when one of the two can't be read or written.
    """
    with Database(source, read_only=True) as ledger, ledger.transaction() as connection:
        for own in (*ledger.describe().files, place.witness(source)):
            if target.exists() and own.exists() and target.samefile(own):
                raise InputError(f"{target}: this is the ledger; give the backup a file of its own")
        has = witness.of_ledger(driver(connection))
    if target.exists() and not force and (problem := _not_an_older_backup(target, has)):
        raise InputError(f"{target}: {problem}; give another name, or --force to replace it")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        place.create_private(temporary)
        try:
            _copy(source, temporary)
            _sync(temporary)
            temporary.replace(target)
            _sync(target.absolute().parent)
        finally:
            temporary.unlink(missing_ok=True)
        return target.stat().st_size
    except OSError as error:
        raise LedgerError(f"{target}: {error.strerror or error}") from error
    except sqlite3.Error as error:
        raise LedgerError(f"{target}: the backup failed ({error}); nothing was replaced") from error


def _copy(source: Path, target: Path) -> None:
    mode = place.read_only_mode(source)
    with (
        closing(sqlite3.connect(f"file:{place.uri_path(source)}?{mode}", uri=True, timeout=60)) as one,
        closing(sqlite3.connect(target)) as other,
    ):
        one.backup(other)  # in one step: who writes meanwhile does not make it begin again
        other.execute("PRAGMA journal_mode=DELETE").fetchall()  # all in one file
        (found,) = other.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(found)


def _not_an_older_backup(target: Path, has: witness.Seen) -> str | None:
    """Why *target* can't be replaced by a copy of the ledger that *has* come so far."""
    if not target.is_file():
        return "not a plain file"
    uri = f"file:{place.uri_path(target)}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            kept = witness.of_ledger(connection)
    except Exception:  # noqa: BLE001 - whatever can't be read is no backup
        return "exists, and is not a backup of a ledger"
    if application != APPLICATION_ID:
        return "exists, and is not a backup of a ledger"
    if kept.identity != has.identity:
        return "exists, and is of another ledger"
    return "exists, and is newer than the ledger" if kept.writes > has.writes else None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
