"""Opening the ledger safely, one transaction at a time, and the lock that keeps a second run out."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry, StaticPool

from orchestrator.errors import LedgerError, LockHeld, SettingsError
from orchestrator.ledger.sqlite import place
from orchestrator.ledger.sqlite.schema import APPLICATION_ID, check_version, migrate


class Ledger:
    """One open ledger. At most one of a process is open for writing; readers never block it.

    The database is in WAL mode with ``synchronous=FULL``: a committed transaction survives a power loss. SQLite before
    3.51.3 can corrupt a WAL when two connections write or checkpoint at the same instant, so every transaction is also
    held under a kernel lock of our own (``<ledger>.write-lock``), which all processes share.
    """

    def __init__(
        self, path: Path, *, read_only: bool = False, lock: place.Held | None = None, rebuilding: bool = False
    ) -> None:
        """Open *path*, creating it (mode 0600) unless *read_only*. Raises LedgerError.

        *lock* is the run's: without it nothing more is written. A ledger that was here and is gone is created anew only
        when *rebuilding*: an empty one would have everything bought again.
        """
        try:
            place.refuse_network(path)
            if read_only:
                write_lock = None
                place.require(path)
                if not path.is_file():
                    raise LedgerError(f"{path}: not a plain file")  # opening a pipe would wait for its other end
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                if not rebuilding:
                    place.refuse_gone(path)
                place.create_private(path)
                witness = place.witness(path)
                write_lock = place.open_lock(witness)
                self._held = [place.Held.of(path, path.stat()), place.Held.of(witness, os.fstat(write_lock))]
                self._held += [lock] if lock else []
        except OSError as error:
            raise LedgerError(f"{path}: {error.strerror}") from error
        self._open(
            path, f"file:{place.uri_path(path)}?{place.read_only_mode(path) if read_only else 'mode=rw'}", write_lock
        )

    _held: Sequence[place.Held] = ()

    @classmethod
    def in_memory(cls) -> Ledger:
        """An empty ledger that is never written anywhere."""
        ledger = cls.__new__(cls)
        ledger._open(Path(":memory:"), "file::memory:", None)
        return ledger

    def _open(self, path: Path, uri: str, write_lock: int | None) -> None:
        self.path = path
        self._write_lock = write_lock
        self._one_thread = threading.Lock()
        read_only = "?mode=ro" in uri
        self._engine = create_engine(
            "sqlite://",
            poolclass=StaticPool,
            creator=lambda: sqlite3.connect(uri, uri=True, timeout=60, check_same_thread=False),  # see _serialised
        )
        event.listen(self._engine, "connect", _set_up_read_only if read_only else _set_up)
        event.listen(self._engine, "begin", _begin_deferred if read_only else _begin_immediate)
        try:
            with self._serialised(), _translated(path):
                self._connection = self._engine.connect()
                if read_only:
                    check_version(self._connection)
                else:
                    self._refuse_damage()
                    migrate(self._connection)
        except BaseException:
            self._engine.dispose()
            raise

    @property
    def files(self) -> tuple[Path, ...]:
        """The database and what SQLite keeps beside it."""
        return (self.path, *(self.path.with_name(self.path.name + companion) for companion in place.COMPANIONS))

    def _refuse_damage(self) -> None:
        with self._connection.begin():
            found = self._connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
        if found != "ok":
            raise LedgerError(
                f"{self.path}: the ledger is damaged ({found}); put back a copy, or rebuild it from the API"
                " with `orchestrator adopt` into a new one"
            )

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One transaction: on disk when the block ends, rolled back when it raises. Raises LedgerError."""
        with self._serialised(), _translated(self.path):
            self._refuse_moved()
            with self._connection.begin():
                yield self._connection

    def _refuse_moved(self) -> None:
        """SQLite would go on writing to a file that nobody finds again, and a lock without a name keeps nobody out."""
        gone = next((held.path for held in self._held if not held.in_place), None)
        if gone is None:
            return
        what = f"{gone}: removed or replaced while this run was using it, so nothing more is sent"
        if gone == self.path:
            rescued = self.path.with_name(f"{self.path.name}.rescued-{os.getpid()}")
            try:
                if not rescued.exists():
                    cursor = self._connection.connection.cursor()
                    cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # a log that lies beside another file corrupts it
                    cursor.fetchall()
                    cursor.execute("VACUUM INTO ?", (str(rescued),))
                what += f"; all that it held is in {rescued.name}: put that in its place"
            except sqlite3.Error as error:
                what += f", and what it held could not be saved ({error})"
        raise LedgerError(what)

    def close(self) -> None:
        with self._serialised(), _translated(self.path):
            self._connection.close()
            self._engine.dispose()
        if self._write_lock is not None:
            os.close(self._write_lock)
            self._write_lock = None

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _serialised(self) -> Iterator[None]:
        """No other process writes meanwhile, and no other thread uses the connection."""
        with self._one_thread:
            if self._write_lock is None:
                yield
                return
            fcntl.flock(self._write_lock, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._write_lock, fcntl.LOCK_UN)


def resolve(location: str) -> Path:
    """The path that a ``--ledger`` or ``ORCHESTRATOR_LEDGER`` value names. Raises SettingsError for other databases."""
    if location.startswith("sqlite:///"):
        location = location.removeprefix("sqlite:///")
    if "://" in location:
        raise SettingsError(f"--ledger {location.split('://')[0]}://…: only a path or sqlite:///PATH is supported")
    if not location:
        raise SettingsError("--ledger is empty; give a path")
    if Path(location).name in ("", ".."):
        raise SettingsError(f"--ledger {location} is a folder; give a file")
    return Path(location)


@contextmanager
def run_lock(ledger: Path, manifest: str, holder: dict[str, str]) -> Iterator[place.Held]:
    """Hold *manifest* in *ledger* for as long as the block runs; a kernel lock, so a killed run frees it.

    Raises LockHeld, naming the holder, when another process has it. The lock file is never removed: removing it would
    let two processes hold "the" lock.
    """
    path = ledger.with_name(f"{ledger.name}.{manifest}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = place.open_lock(path)
    except OSError as error:
        raise LedgerError(f"{path}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockHeld(f"another run holds manifest {manifest!r}: {_holder(descriptor)}") from None
        note = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), **holder}).encode()
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, note, 0)
        except OSError as error:
            raise LedgerError(f"{path}: {error.strerror}") from error
        yield place.Held.of(path, os.fstat(descriptor))
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    try:
        note = json.loads(os.pread(descriptor, 4096, 0))
        return f"pid {note['pid']} on {note['host']}, {note['command']} since {note['since']}"
    except (ValueError, KeyError, TypeError):
        return "it has just begun"


def _set_up(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    # Transactions are begun by _begin_immediate: Python's own implicit ones leave schema changes outside.
    connection.isolation_level = None
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    foreign = application != APPLICATION_ID and connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    for pragma in (
        *(() if foreign else ("journal_mode=WAL",)),  # the mode stays in the file, and another's is about to be refused
        "synchronous=FULL",
        "foreign_keys=ON",
        "trusted_schema=OFF",
        "cell_size_check=ON",
        "mmap_size=0",
        "cache_size=-65536",
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()


def _set_up_read_only(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    connection.isolation_level = None
    for pragma in ("trusted_schema=OFF", "cell_size_check=ON", "mmap_size=0", "cache_size=-65536"):
        connection.execute(f"PRAGMA {pragma}").fetchall()


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_deferred(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """SQLAlchemy's and SQLite's errors become LedgerError; a broken constraint stays what it is: a bug of ours."""
    try:
        yield
    except SQLAlchemyError as error:
        cause = error.__cause__ or error
        if isinstance(cause, (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError)):
            raise
        raise LedgerError(_words(path, cause)) from error
    except sqlite3.Error as error:
        raise LedgerError(_words(path, error)) from error


def _words(path: Path, error: BaseException) -> str:
    hint = "unable to open" in str(error) and not os.access(path.absolute().parent, os.W_OK, effective_ids=True)
    return f"{path}: {error}" + ("; nothing can be written here: copy it and its -wal file elsewhere" if hint else "")
