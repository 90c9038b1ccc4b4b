"""A ledger in PostgreSQL: opened, and written one transaction at a time, under a run's claim if it has one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

import psycopg
from sqlalchemy import Connection, RootTransaction
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.errors import LedgerBusy, LedgerError
from orchestrator.ledger.database import Description
from orchestrator.ledger.postgres import schema
from orchestrator.ledger.postgres.address import Server
from orchestrator.ledger.postgres.lease import Held
from orchestrator.ledger.postgres.session import Session, translated

T = TypeVar("T")

#: Tables that were never analysed get ruinous plans: after so many commits a run looks at them again.
_ANALYSE_AFTER = frozenset({100, 1_000, 10_000, 100_000})


class Database:
    """One open ledger on a server. See ``opening.Ledger``, whose methods these are."""

    remote = True

    def __init__(
        self, server: Server, *, patience_s: float, read_only: bool = False, lease: Held | None = None
    ) -> None:
        """Open it, made if need be unless *read_only*. Raises LedgerError."""
        self.location = server
        self.patience_s = patience_s
        self._lease = lease
        self._one_thread = threading.Lock()
        self._session = lease.session if lease is not None else Session(server, read_only=read_only)
        self._commits = 0
        self._stage: Callable[[Connection], object] | None = None
        self._staged_on = 0  #: the connection, by its number, that has the temporary tables
        self._used = 0  #: the one that the last transaction was begun on
        if lease is None:  # a claim has made sure of the ledger before it was taken
            try:
                schema.prepare(self._session, make=not read_only)
            except BaseException:
                self._session.close()
                raise

    @contextmanager
    def transaction(self, *, patience_s: float | None = None) -> Iterator[Connection]:
        """One transaction. Raises LedgerBusy when the connection was lost and nothing of it is in the ledger."""
        with self._one_thread:
            connection, transaction = self._begin(self.patience_s if patience_s is None else patience_s)
            self._session.wrote = False
            try:
                with translated(self.location):
                    yield connection
            except BaseException as error:
                self._roll_back(transaction)
                if isinstance(error, LedgerError) and self._session.lost:
                    raise LedgerBusy(str(error)) from error
                raise
            self._commit(transaction, wrote=self._session.wrote)

    def in_step(self, connection: Connection, works: Sequence[Callable[[Connection], T]]) -> list[T]:
        """The answers of *works* in the transaction that goes on, with one wait for the statements of all."""
        return self._session.in_step.run(connection, self._session.raw, works)

    def glance(self) -> AbstractContextManager[Connection]:
        """A transaction: who reads waits for nobody here."""
        return self.transaction(patience_s=0.0)

    def _begin(self, patience_s: float) -> tuple[Connection, RootTransaction]:
        if self._lease is not None:
            begun = self._lease.begin(patience_s)
            while self._stage is not None and self._session.opened != self._staged_on:
                staged_on = self._session.opened
                with translated(self.location):
                    self._stage(begun[0])
                    begun[1].commit()
                self._staged_on = staged_on
                begun = self._lease.begin(patience_s)
            self._used = self._session.opened
            return begun
        if self._session.lost:
            self._session.drop()
        connection = self._session.connection
        return connection, connection.begin()

    def _roll_back(self, transaction: RootTransaction) -> None:
        try:
            transaction.rollback()
        except (SQLAlchemyError, psycopg.Error):
            self._session.drop()

    def _commit(self, transaction: RootTransaction, *, wrote: bool) -> None:
        if self._lease is not None:
            self._lease.commit(transaction, wrote=wrote)
        else:
            with translated(self.location):
                transaction.commit()
        if wrote and self._lease is not None:
            self._commits += 1
            if self._commits in _ANALYSE_AFTER:
                with translated(self.location), self._session.connection.begin():
                    self._session.connection.exec_driver_sql("ANALYZE jobs, files, results, events")

    def stage_again(self, stage: Callable[[Connection], object]) -> None:
        """Temporary tables die with their connection: *stage* makes them on each later one."""
        self._stage, self._staged_on = stage, self._used  # a lost answer to its commit was asked for on another

    def rebuilt(self) -> None:
        """Nothing beside the server remembers a ledger that was there."""

    def describe(self) -> Description:
        """Describe this ledger; may be called inside a transaction."""
        with translated(self.location):
            size = self._ask(
                "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0) FROM pg_class c "
                "WHERE c.relnamespace = CAST(current_schema() AS regnamespace) AND c.relkind = 'r'"
            )
        return Description(str(self.location), self.engine, len(schema.MIGRATIONS), int(str(size)), ())

    @property
    def engine(self) -> str:
        number = self._session.raw.info.server_version
        return f"PostgreSQL {number // 10000}.{number % 10000}"

    def check(self) -> str | None:
        """Opening it has already refused another version and a pooler; the server looks after its files."""
        return None

    def _ask(self, statement: str) -> object:
        connection = self._session.connection
        if connection.in_transaction():
            return connection.exec_driver_sql(statement).scalar_one()
        with connection.begin():
            return connection.exec_driver_sql(statement).scalar_one()

    def close(self) -> None:
        if self._lease is None:
            self._session.close()
