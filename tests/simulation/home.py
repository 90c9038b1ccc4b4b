"""Where an episode's ledger is: in a file, or on a real PostgreSQL, where a run can lose it in more ways."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator import ledger
from orchestrator.ledger import Lease, Location
from orchestrator.ledger.postgres.address import Server

if TYPE_CHECKING:
    from sqlalchemy import RootTransaction

    from simulation.process import Process
    from simulation.world import World


class Reader(Protocol):
    """A connection of the judge's own: it sees what is committed, and nothing else."""

    def execute(self, statement: str, parameters: tuple[object, ...] = (), /) -> Any: ...
    def close(self) -> None: ...


class File:
    """A ledger in a file; no run has it but the one that there is."""

    taken_over = cuts = 0

    def __init__(self, path: Path) -> None:
        self.location: Location = path

    def reader(self) -> Reader:
        return sqlite3.connect(f"file:{self.location}?mode=ro", uri=True, isolation_level=None)

    @contextmanager
    def lease(self, process: Process, world: World) -> Iterator[Lease | None]:
        yield None


class OnServer:
    """A ledger in a database of its own on a server."""

    def __init__(self, url: str) -> None:
        self.location: Location = ledger.locate(url)
        self._url = url
        self._lost = False  #: the last run's claim was taken from it
        self.taken_over = 0  #: runs
        self.cuts = 0  #: connections cut just before a commit, or just after

    def reader(self) -> Reader:
        return _ServerReader(self._url)

    @contextmanager
    def lease(self, process: Process, world: World) -> Iterator[Lease | None]:
        """The claim of a run that may lose it at each step, and the answer to each of its commits."""
        from orchestrator.ledger.postgres.lease import Held

        assert isinstance(self.location, Server)
        held = Held(self.location, "night", {"command": "run", "since": "then"}, away_s=60.0)
        hazards = _Hazards(held, process, world, self._url)
        try:
            held.take()
            held.took_over = self._lost
            hazards.begin()
            yield held
        finally:
            self._lost = process.replaced
            self.taken_over += process.replaced
            self.cuts += hazards.cuts
            held.release()
            hazards.close()


class _ServerReader:
    """A connection of psycopg's whose parameters are written as SQLite's."""

    def __init__(self, url: str) -> None:
        import psycopg

        self._connection = psycopg.connect(url, autocommit=True)

    def execute(self, statement: str, parameters: Iterable[object] = (), /) -> Any:
        return self._connection.execute(statement.replace("?", "%s").encode(), tuple(parameters))

    def close(self) -> None:
        self._connection.close()


class _Hazards:
    """What may happen to a claim: another run takes it over, or the connection is cut around a commit."""

    def __init__(self, held: Any, process: Process, world: World, url: str) -> None:
        self._held, self._process, self._world = held, process, world
        self._commit = held.commit
        self._reader = _ServerReader(url)
        self.cuts = 0

    def begin(self) -> None:
        self._held.commit = self.commit
        self._process.hazard = self.may_lose_the_claim

    def close(self) -> None:
        self._reader.close()

    def commit(self, transaction: RootTransaction, *, wrote: bool) -> None:
        """Commit, but the connection may be cut just before, or just after, when nobody hears the answer."""
        world = self._world
        if world.chance(world.climate.crashes):
            world.tell("cut before the commit")
            self.cuts += 1
            self._cut()
            self._commit(transaction, wrote=wrote)
        elif world.chance(world.climate.crashes):
            world.tell("the answer to the commit is lost")
            self.cuts += 1
            self._commit(_Unheard(transaction, self._cut), wrote=wrote)
        else:
            self._commit(transaction, wrote=wrote)

    def may_lose_the_claim(self) -> None:
        """Another run takes over: it ends this one's sessions, and has the next epoch."""
        world = self._world
        if self._process.replaced or not world.chance(world.climate.crashes):
            return
        world.tell("taken over")
        self._process.replaced = True
        self._cut()
        self._reader.execute("UPDATE claims SET epoch = epoch + 1, session = 'another' WHERE name = 'night'")

    def _cut(self) -> None:
        """End the run's sessions, and wait until they have."""
        name = (self._held.session.name,)
        self._reader.execute(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE application_name = ?", name
        )


class _Unheard:
    """A transaction that commits, after which the connection is gone."""

    def __init__(self, transaction: RootTransaction, cut: Any) -> None:
        self._transaction, self._cut = transaction, cut
        self._raw: Any = transaction.connection.connection.driver_connection

    def commit(self) -> None:
        import psycopg

        self._transaction.commit()
        with suppress(psycopg.Error):
            self._raw.pgconn.pipeline_sync()
        self._cut()
        raise psycopg.OperationalError("server closed the connection unexpectedly")
