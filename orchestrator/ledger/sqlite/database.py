"""A ledger in one SQLite file: opened safely, checked, and written one transaction at a time."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, RootTransaction, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry, StaticPool

from orchestrator.errors import LedgerBusy, LedgerError
from orchestrator.ledger.database import Description, refuse_moved
from orchestrator.ledger.sqlite import damage, place, turns, witness
from orchestrator.ledger.sqlite.schema import APPLICATION_ID, MIGRATIONS, check_version, is_current, is_empty, migrate

T = TypeVar("T")

ENGINE = f"SQLite {sqlite3.sqlite_version}"


class Database:
    """One open ledger. At most one of a process is open for writing; readers never block it.

    The database is in WAL mode with ``synchronous=FULL``: a committed transaction survives a power loss. SQLite before
    3.51.3 can corrupt a WAL when two connections write or checkpoint at the same instant, so every transaction is also
    held under a kernel lock of our own (``<ledger>.write-lock``), which all processes share.
    """

    def __init__(
        self,
        path: Path,
        *,
        read_only: bool = False,
        lease: place.Held | None = None,
        rebuilding: bool = False,
        patience_s: float = turns.PATIENCE_S,
    ) -> None:
        """Open *path*, creating it (mode 0600) unless *read_only*. Raises LedgerError.

        *lease* is the run's: nothing is written once it is lost. *rebuilding* allows a new ledger where one has
        disappeared, and an older copy of it; otherwise they are refused, because they would buy again what they lack.
        *patience_s*: how long to wait while other processes write.
        """
        self.patience_s = patience_s
        self._rebuilding = rebuilding
        try:
            place.refuse_mount(path)
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
                lock = place.witness(path)
                write_lock = place.open_lock(lock)
                self._held = [place.Held.of(path, path.stat()), place.Held.of(lock, os.fstat(write_lock))]
                self._held += [lease] if lease else []
        except OSError as error:
            raise LedgerError(f"{path}: {error.strerror}") from error
        self._open(
            path, f"file:{place.uri_path(path)}?{place.read_only_mode(path) if read_only else 'mode=rw'}", write_lock
        )

    remote = False
    patience_s = turns.PATIENCE_S  #: how long a transaction waits while other processes write
    _held: Sequence[place.Held] = ()
    _rebuilding = False
    _check: damage.Check | None = None  #: a look for damage that has the connection; the first transaction waits for it
    _looking = False  #: the transaction that begins only reads
    _counts = False  #: its writes, for itself and for the witness; not while it lacks what the witness has seen

    @classmethod
    def in_memory(cls) -> Database:
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
            creator=lambda: sqlite3.connect(uri, uri=True, timeout=self.patience_s, check_same_thread=False),
        )
        event.listen(self._engine, "connect", _set_up_read_only if read_only else _set_up)
        event.listen(self._engine, "begin", _begin_deferred if read_only else self._begin)
        try:
            with self._serialised(), _translated(path):
                seen = witness.read(place.witness(path))
                self._connection = self._engine.connect()
                problem = self._not_the_one(seen)
                if problem and not self._rebuilding:
                    raise LedgerError(f"{path}: {problem}")
                if read_only:
                    check_version(self._connection)
                else:
                    current = is_current(self._connection)
                    if not current:
                        damage.Check(path, self._raw).refuse()
                        migrate(self._connection)
                    with self._connection.begin():
                        refuse_moved(self._connection, path)
                    self._raw.execute("PRAGMA busy_timeout = 0")  # from now on ``turns`` waits
                    self._counts = problem is None and write_lock is not None
                    if current:
                        self._check = damage.Check(path, self._raw)
                        if not self._check.goes_on:
                            self._await_check()
        except BaseException:
            self._await_end_of_check()
            self._engine.dispose()
            raise

    def _not_the_one(self, seen: witness.Seen | None) -> str | None:
        """Why this is not the ledger that the witness has *seen*."""
        if seen is None:
            return None
        with self._connection.begin():
            has = None if is_empty(self._connection) else witness.of_ledger(self._raw)
        return witness.problem(place.witness(self.path), seen, has)

    def stage_again(self, stage: Callable[[Connection], object]) -> None:
        """Its one connection is never lost."""

    def rebuilt(self) -> None:
        """From now on it counts as the ledger that was here; ``scope.lacks_jobs`` of the manifests not yet adopted."""
        if self._counts or self._write_lock is None:
            return
        seen = witness.read(place.witness(self.path)) or witness.Seen(0, 0, 0)
        self._counts = True
        with self.transaction() as connection:
            connection.exec_driver_sql(
                "UPDATE sequences SET last = ? WHERE name = 'writes' AND last < ?", (seen.writes, seen.writes)
            )
            connection.exec_driver_sql(
                "INSERT INTO sequences (name, last) VALUES ('lost', 1) "
                "ON CONFLICT (name) DO UPDATE SET last = sequences.last + 1"
            )

    def describe(self) -> Description:
        """Describe this ledger; may be called inside a transaction."""
        files = (self.path, *(self.path.with_name(self.path.name + companion) for companion in place.COMPANIONS))
        size = sum(file.stat().st_size for file in files if file.exists())
        return Description(str(self.path.absolute()), ENGINE, len(MIGRATIONS), size, files)

    def check(self) -> str | None:
        """Return what is wrong with the ledger and what to do about it; None when it is sound. Raises LedgerError.

        Opening it has already refused a network file system, a foreign file and another version.
        """
        self._await_check()
        with self._serialised(), _translated(self.path):
            found = damage.Check(self.path, self._raw).found()
        if found:
            return f"{self.path} is damaged ({found}): put back a copy, or use `adopt`"
        if self.path.stat().st_mode & 0o077:
            return f"others can read {self.path}; run: chmod 600 {self.path}"
        return None

    def _await_check(self) -> None:
        """Raises LedgerError for damage that the look through the file, begun when it was opened, has found."""
        if (check := self._check) is not None:
            with _translated(self.path):
                check.refuse()
            self._check = None

    def _await_end_of_check(self) -> None:
        """A connection that another thread reads from must not be closed."""
        if self._check is not None:
            self._check.wait()

    @contextmanager
    def transaction(self, *, patience_s: float | None = None) -> Iterator[Connection]:
        """One transaction: on disk when the block ends, rolled back when it raises. Raises LedgerError.

        Raises LedgerBusy before the block begins when other processes write for over *patience_s* (``patience_s``).
        """
        patience_s = self.patience_s if patience_s is None else patience_s
        self._await_check()
        with self._serialised(patience_s), _translated(self.path):
            self._refuse_moved()
            wrote = self._written()
            with self._begun(patience_s):
                yield self._connection
                wrote = self._counts and self._written() != wrote
                if wrote:
                    self._raw.execute("UPDATE sequences SET last = last + 1 WHERE name = 'writes'")
                    seen = witness.of_ledger(self._raw)
            if wrote and self._write_lock is not None:
                witness.write(self._write_lock, seen)  # after the commit: it is never ahead

    def _begun(self, patience_s: float) -> RootTransaction:
        """A transaction that has begun: programs that don't know our lock may be writing, too."""
        return turns.in_turn(self._connection.begin, self.path, patience_s)

    def in_step(self, connection: Connection, works: Sequence[Callable[[Connection], T]]) -> list[T]:
        """The answers of *works*, one after the other: no statement waits for anything."""
        return [work(connection) for work in works]

    @contextmanager
    def glance(self) -> Iterator[Connection]:
        """The last committed state, read-only, even while another process writes. Raises LedgerError."""
        self._await_check()
        with self._one_thread, _translated(self.path):
            self._looking = True
            try:
                with self._connection.begin():
                    yield self._connection
            finally:
                self._looking = False

    def _begin(self, connection: Connection) -> None:
        driver(connection).execute("BEGIN" if self._looking else "BEGIN IMMEDIATE")

    def _written(self) -> int:
        """How many rows this connection has changed so far."""
        return int(self._raw.total_changes)

    @property
    def _raw(self) -> sqlite3.Connection:
        return driver(self._connection)

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
        self._await_end_of_check()
        try:
            with self._serialised():
                self._close()
        except LedgerBusy:
            self._close()  # whoever writes has it open, so that SQLite, too, only lets go of it
        if self._write_lock is not None:
            os.close(self._write_lock)
            self._write_lock = None

    def _close(self) -> None:
        with _translated(self.path):
            self._connection.close()
            self._engine.dispose()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _serialised(self, patience_s: float | None = None) -> Iterator[None]:
        """No other process writes meanwhile, and no other thread uses the connection. Raises LedgerBusy."""
        with self._one_thread:
            if self._write_lock is None:
                yield
                return
            turns.lock(self._write_lock, self.path, self.patience_s if patience_s is None else patience_s)
            try:
                yield
            finally:
                fcntl.flock(self._write_lock, fcntl.LOCK_UN)


#: Room in memory for what is staged: with the usual 2 MB, each of many files costs a page read and a page written.
_SCRATCH = "temp.cache_size=-32768"


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
        _SCRATCH,
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()


def _set_up_read_only(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    connection.isolation_level = None
    for pragma in ("trusted_schema=OFF", "cell_size_check=ON", "mmap_size=0", "cache_size=-65536", _SCRATCH):
        connection.execute(f"PRAGMA {pragma}").fetchall()


def driver(connection: Connection) -> sqlite3.Connection:
    """What each transaction executes besides goes to the driver itself: SQLAlchemy takes ten times as long."""
    found: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]  # typed as Any | None
    return found


def _begin_deferred(connection: Connection) -> None:
    driver(connection).execute("BEGIN")


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
