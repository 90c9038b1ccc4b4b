"""One connection to a ledger's server: set up alike everywhere, its errors in our words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import psycopg
from psycopg import conninfo
from psycopg.adapt import Buffer
from psycopg.types.string import StrDumper
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from orchestrator.errors import LedgerError
from orchestrator.ledger.postgres.address import Server
from orchestrator.ledger.postgres.in_step import InStep
from orchestrator.ledger.sql import without_nul

#: What libpq gets unless the URL or its own environment says otherwise. A connection that is dead is found out within
#: 20 s, on both ends: what a lost network has cut off must not hold a lock for hours.
_CONNECTION = {
    "connect_timeout": "10",
    "keepalives": "1",
    "keepalives_idle": "5",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}
_SESSION = """
SET jit = off;
SET client_connection_check_interval = 2000;
SET tcp_keepalives_idle = 5;
SET tcp_keepalives_interval = 5;
SET tcp_keepalives_count = 3;
SET tcp_user_timeout = 20000;
SET idle_in_transaction_session_timeout = 0;
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'
"""

#: Bugs of ours, whoever made the connection; a missing privilege is none.
_BUGS = (psycopg.IntegrityError, psycopg.ProgrammingError, psycopg.DataError, psycopg.InterfaceError)


class _WithoutNul(StrDumper):
    """A server stores no NUL in a text; the API may send one."""

    def dump(self, obj: str) -> Buffer | None:
        return super().dump(without_nul(obj))


def parameters(server: Server, name: str) -> str:
    """libpq's connection parameters; the server lists the connection under *name*."""
    given = conninfo.conninfo_to_dict(server.url)
    more = {option: value for option, value in _CONNECTION.items() if option not in given}
    return conninfo.make_conninfo(server.url, **more, application_name=name)


def connect(server: Server, name: str, *, autocommit: bool = False) -> psycopg.Connection[Any]:
    """A connection of psycopg's; *name* is what the server lists it by. Raises psycopg.Error and LedgerError."""
    connection = psycopg.connect(parameters(server, name), autocommit=True)
    try:
        connection.adapters.register_dumper(str, _WithoutNul)
        connection.execute(_SESSION)
        pid = connection.execute("SELECT pg_backend_pid()").fetchone()
        if pid != (connection.info.backend_pid,):
            raise LedgerError(
                f"{server}: a pooler is in between, and where it shares connections no lock would hold; "
                "connect to the server itself"
            )
        connection.autocommit = autocommit
    except BaseException:
        connection.close()
        raise
    return connection


def identity(raw: psycopg.Connection[Any]) -> str | None:
    """What tells the server from its copies: a promoted standby or a restored backup has another identity.

    None where it does not say, as some hosted ones. Call it outside a transaction. Raises OperationalError.
    """
    asked = (
        "SELECT (SELECT system_identifier FROM pg_control_system()) || ' timeline ' "
        "|| substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"
    )
    before = raw.autocommit
    try:
        raw.autocommit = True
        row = raw.execute(asked).fetchone()
    except (psycopg.ProgrammingError, psycopg.NotSupportedError, psycopg.errors.ObjectNotInPrerequisiteState):
        return None
    finally:
        if not raw.closed:
            raw.autocommit = before
    return None if row is None else str(row[0])


class Session:
    """A connection as the query modules use it, made again when it was lost."""

    def __init__(self, server: Server, name: str = "orchestrator", *, read_only: bool = False) -> None:
        self.server = server
        self.name = name
        self._engine = create_engine(
            "postgresql+psycopg://",
            creator=lambda: connect(server, name),
            poolclass=NullPool,
            # All that a command shows is of one instant. It makes temporary tables, so it is not READ ONLY.
            isolation_level="REPEATABLE READ" if read_only else "READ COMMITTED",
        )
        event.listen(self._engine, "before_cursor_execute", self._look)
        self.in_step = InStep(self._engine)
        self._connection: Connection | None = None
        self.wrote = False  #: whether a statement may have changed the ledger; whoever asks sets it back
        self.opened = 0  #: connections so far: temporary tables live as long as one

    def _look(self, _: Connection, __: object, statement: str, *___: object) -> None:
        self.wrote = self.wrote or statement.lstrip()[:6].upper() in ("INSERT", "UPDATE", "DELETE")

    @property
    def connection(self) -> Connection:
        """The connection, made if need be. Raises LedgerError."""
        if self._connection is None:
            with translated(self.server):
                self._connection = self._engine.connect()
            self.opened += 1
        return self._connection

    @property
    def raw(self) -> psycopg.Connection[Any]:
        """The driver's own connection."""
        found: Any = self.connection.connection.driver_connection
        return found  # type: ignore[no-any-return]  # SQLAlchemy does not know which driver it is

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One transaction, on a new connection where the last one was lost. Raises LedgerError."""
        if self.lost:
            self.drop()
        with translated(self.server), self.connection.begin():
            yield self.connection

    @property
    def lost(self) -> bool:
        """Whether the connection is gone."""
        return self._connection is None or self._connection.closed or self._connection.invalidated or self.raw.closed

    def drop(self) -> None:
        """Give the connection up, whatever state it is in; the next use makes another one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.invalidate()
                connection.close()
            except (SQLAlchemyError, psycopg.Error):
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._connection is not None and not self.lost:
            with translated(self.server):
                self._connection.close()
        self._connection = None
        self.in_step.close()
        self._engine.dispose()


@contextmanager
def translated(server: Server) -> Iterator[None]:
    """SQLAlchemy's and psycopg's errors become LedgerError; a broken constraint stays what it is: a bug of ours."""
    try:
        yield
    except (SQLAlchemyError, psycopg.Error) as error:
        cause = error.__cause__ or error
        if isinstance(cause, _BUGS) and not isinstance(cause, psycopg.errors.InsufficientPrivilege):
            raise
        raise LedgerError(words(server, cause)) from error


def words(server: Server, error: BaseException) -> str:
    """The server's or libpq's words on one line. They name hosts and users, never a password."""
    said = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{server}: {'; '.join(said[:2]) or type(error).__name__}"
