"""A database with the workers' tables, for any number of hosts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from sqlalchemy import text

from orchestrator import ledger
from orchestrator.ledger import Transaction
from orchestrator.ledger.postgres.session import Session


class Crew:
    """A database of its own, and any number of sessions with it: one for each host."""

    def __init__(self, url: str, stack: ExitStack) -> None:
        self.url = url
        server = ledger.locate(url)
        assert isinstance(server, ledger.Server)
        self.server = server
        self._stack = stack
        self.here = self.session()

    def session(self) -> Session:
        """One more session, closed at the test's end."""
        return self._stack.enter_context(ledger.session(self.server, "test"))

    def end(self, session: Session) -> None:
        """As when its host dies: the server has noticed once this returns."""
        pid = session.raw.info.backend_pid
        session.close()
        with self.transaction() as connection:
            connection.execute(text("SELECT pg_terminate_backend(:pid, 60000)"), {"pid": pid})

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        with self.here.transaction() as connection:
            yield connection


@pytest.fixture
def crew(database: str) -> Iterator[Crew]:
    """A database with the workers' tables, on a real server."""
    pytest.importorskip("procrastinate")
    from orchestrator.ledger.workers import schema

    with ExitStack() as stack:
        made = Crew(database, stack)
        with made.transaction() as connection:
            schema.prepare(connection)
        yield made
