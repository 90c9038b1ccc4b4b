"""What only a ledger in PostgreSQL does: its tables, claims, and what becomes of a lost connection."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TypeVar

import psycopg
import pytest
from sqlalchemy import Connection
from support.cutting import Cutting
from support.ledgers import AT, SMALL, plan
from support.postgres import Postgres

from orchestrator import ledger
from orchestrator.clock import SystemClock
from orchestrator.errors import LedgerError, LockHeld
from orchestrator.ledger import Ledger, jobs
from orchestrator.ledger.postgres import lease as claims
from orchestrator.ledger.postgres import schema
from orchestrator.ledger.postgres.session import Session
from orchestrator.ledger.sql import scalar_int
from orchestrator.ledger.writer import Writer

T = TypeVar("T")

HOLDER = {"command": "orchestrator run", "since": "02:00"}


@pytest.fixture
def network(postgres_server: Postgres) -> Iterator[Cutting]:
    with Cutting(postgres_server.port) as cutting:
        yield cutting


def through(network: Cutting, database: str) -> ledger.Location:
    """Nobody connects while a cut is dealt with, which takes a machine under load its time."""
    name = database.rpartition("/")[2]
    return ledger.locate(f"postgresql://ledger@127.0.0.1:{network.port}/{name}?connect_timeout=300")


def notes(connection: Connection) -> int:
    return scalar_int(connection, "SELECT count(*) FROM events WHERE event = 'noted'")


def write(opened: Ledger, work: Callable[[Connection], T]) -> T:
    """As the stages write."""

    async def go() -> T:
        return await Writer(opened, SystemClock()).write(work)

    return asyncio.run(go())


def take_note(connection: Connection) -> str:
    jobs.note(connection, None, "noted", "", at=AT)
    return "done"


def test_both_databases_have_the_same_tables() -> None:
    """Column for column; the server's also has its version and the claims, SQLite's nothing more."""
    with Ledger.in_memory() as opened, opened.transaction() as connection:
        names = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'").scalars().all()
        one = {
            name: sorted(connection.exec_driver_sql("SELECT name FROM pragma_table_info(?)", (name,)).scalars())
            for name in names
        }
    other = {name: sorted(columns) for name, columns in schema.tables().items()}
    assert {name: columns for name, columns in other.items() if name not in ("ledger", "claims", "beats")} == one


def test_a_ledger_is_made_once_and_opened_often(database: str) -> None:
    """A second opening changes nothing; in another schema of the same database is another ledger."""
    at = ledger.locate(database)
    with Ledger(at) as opened, opened.transaction() as connection:
        plan(connection, SMALL, ["a"])
        connection.exec_driver_sql("CREATE SCHEMA other")
    with Ledger(at, read_only=True) as opened, opened.transaction() as connection:
        assert scalar_int(connection, "SELECT count(*) FROM files") == 1
    assert not ledger.exists(ledger.locate(f"{database}?options=-csearch_path%3Dother"))


def test_programs_that_come_first_together_make_one_ledger(database: str) -> None:
    """All have seen that there is none, and all but one wait while it is made."""
    location, ready = ledger.locate(database), threading.Barrier(4)
    assert isinstance(location, ledger.Server)

    def come(_: int) -> int | None:
        with Session(location) as session, session.transaction() as connection:
            assert schema.version(connection) is None
            ready.wait(10)
            schema.migrate(connection, session.raw)
            return schema.version(connection)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(come, range(4))) == [len(schema.MIGRATIONS)] * 4


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("word", [b"INSERT INTO events", b"COMMIT\0"])
def test_a_piece_is_recorded_once_wherever_the_network_is_cut(
    network: Cutting, database: str, word: bytes, after: bool
) -> None:
    """Inside the transaction, before the commit reaches the server, and after it with the answer lost."""
    at = through(network, database)
    with ledger.lease(at, "m", HOLDER) as lease, Ledger(at, lease=lease) as opened:
        network.word, network.after = word, after
        assert write(opened, take_note) == "done"
        assert write(opened, notes) == 1
    assert network.cuts == 1


@pytest.mark.parametrize("after", [False, True])
def test_another_run_may_take_over_while_a_commit_is_unanswered(network: Cutting, database: str, after: bool) -> None:
    """The first one hears that it has lost the manifest, and writes nothing more; the piece is there once or not."""
    at = through(network, database)
    with ExitStack() as others, ledger.lease(at, "m", HOLDER) as lease, Ledger(at, lease=lease) as opened:
        network.word, network.after = b"COMMIT\0", after
        direct = ledger.locate(database)
        network.when_cut = lambda: other.append(others.enter_context(ledger.lease(direct, "m", HOLDER)))
        other: list[ledger.Lease] = []
        with pytest.raises(LockHeld, match="another run has taken over"):
            write(opened, take_note)
        with Ledger(direct, lease=other[0]) as theirs:
            assert write(theirs, notes) == int(after)
        with pytest.raises(LockHeld):
            write(opened, take_note)


def test_what_was_staged_is_staged_again_on_a_new_connection(network: Cutting, database: str) -> None:
    """Temporary tables die with their connection, and the end of a run asks them."""
    at = through(network, database)
    with ledger.lease(at, "m", HOLDER) as lease, Ledger(at, lease=lease) as opened:

        def stage(connection: Connection) -> None:
            connection.exec_driver_sql("CREATE TEMP TABLE wanted (n INTEGER)")

        write(opened, stage)
        opened.stage_again(stage)
        network.word = b"COMMIT\0"
        write(opened, take_note)
        with opened.transaction() as connection:
            assert scalar_int(connection, "SELECT count(*) FROM wanted") == 0
    assert network.cuts == 1


def test_what_was_staged_is_missed_when_the_answer_to_its_commit_was_lost(network: Cutting, database: str) -> None:
    """The plan is on the server, its temporary tables died with the connection that was to tell so."""
    at = through(network, database)
    with ledger.lease(at, "m", HOLDER) as lease, Ledger(at, lease=lease) as opened:

        def stage(connection: Connection) -> None:
            connection.exec_driver_sql("CREATE TEMP TABLE wanted (n INTEGER)")

        def plan(connection: Connection) -> None:
            stage(connection)
            take_note(connection)

        network.word, network.after = b"COMMIT\0", True
        write(opened, plan)
        opened.stage_again(stage)
        with opened.transaction() as connection:
            assert scalar_int(connection, "SELECT count(*) FROM wanted") == 0
    assert network.cuts == 1


def test_a_server_that_stays_away_ends_the_run(network: Cutting, database: str) -> None:
    """After its patience, with exit 8."""
    at = through(network, database)
    with ledger.lease(at, "m", HOLDER, away_s=0.3) as lease, Ledger(at, lease=lease) as opened:
        network.__exit__()
        with pytest.raises(LedgerError):
            write(opened, take_note)


def test_a_run_does_not_go_on_with_another_server(
    network: Cutting, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A standby that has taken the place may lack what was committed: the run ends, and the next one has to know."""
    at = through(network, database)
    with ledger.lease(at, "m", HOLDER, away_s=600.0) as lease, Ledger(at, lease=lease) as opened:
        assert not opened.replaced
        write(opened, opened.settle)
        network.word = b"INSERT INTO events"
        monkeypatch.setattr(claims, "identity", lambda raw: "of a standby")
        with pytest.raises(LedgerError, match="another server has taken its place"):
            write(opened, take_note)
    with ledger.lease(at, "m", HOLDER) as lease, Ledger(at, lease=lease) as opened:
        assert opened.replaced
        write(opened, opened.settle)
    with ledger.lease(at, "m", HOLDER) as lease:
        assert not lease.replaced


def test_what_was_committed_is_in_the_log_of_the_server(postgres_server: Postgres, database: str) -> None:
    """A server that answers a commit before it has written it would forget, in a crash, what was then sent."""
    postgres_server.sql(f"ALTER DATABASE {database.rpartition('/')[2]} SET synchronous_commit = off")
    location = ledger.locate(database)
    assert isinstance(location, ledger.Server)
    with Session(location) as session, session.transaction() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "on"


def test_a_pooler_is_refused(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names another backend than the one that answers, and would leave a lock behind on a connection of others."""
    monkeypatch.setattr(psycopg.ConnectionInfo, "backend_pid", property(lambda _: 1))
    at = ledger.locate(database)
    with pytest.raises(LedgerError, match="a pooler is in between"), ledger.lease(at, "m", HOLDER):
        pass
    with pytest.raises(LedgerError, match="a pooler is in between"):
        ledger.exists(at)


def test_nothing_is_sent_by_a_run_without_a_young_beat(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five seconds before another may take the manifest over, by a clock that runs while a process stands still."""
    assert claims.FRESH_S + 5 <= claims.DEAD_S
    with ledger.lease(ledger.locate(database), "m", HOLDER) as lease:
        assert lease.fresh
        now = claims.boottime()
        monkeypatch.setattr(claims, "boottime", lambda: now + claims.FRESH_S)
        assert not lease.fresh


def test_a_holder_without_a_beat_is_pushed_out(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connections are ended first, so that nothing of its can be committed afterwards."""
    at = ledger.locate(database)
    monkeypatch.setattr(claims, "BEAT_S", 3600.0)
    with ledger.lease(at, "m", HOLDER) as lease, Ledger(at, lease=lease) as opened:
        with pytest.raises(LockHeld, match="holds manifest 'm'"), ledger.lease(at, "m", HOLDER):
            pass
        monkeypatch.setattr(claims, "DOUBT_S", 0.0)
        monkeypatch.setattr(claims, "DEAD_S", 0.0)
        with ledger.lease(at, "m", HOLDER) as other, Ledger(at, lease=other) as theirs:
            assert (lease.took_over, other.took_over) == (False, True)
            with pytest.raises(LockHeld):
                write(opened, take_note)
            write(theirs, take_note)
            assert write(theirs, notes) == 1
