"""What is asked for is carried out once, whatever becomes of the engine's jobs and of the workers."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text
from support.crews import Crew

from orchestrator import ledger
from orchestrator.ledger import Transaction
from orchestrator.ledger.workers import engine, roll, schema, tasks
from orchestrator.ledger.workers.tasks import Task
from orchestrator.workers.engine import Engine
from orchestrator.workers.work import Worker


def jobs(connection: Transaction) -> list[str]:
    """The status of each of the engine's jobs."""
    return list(connection.execute(text("SELECT status FROM procrastinate_jobs ORDER BY id")).scalars())


def take(connection: Transaction, engine_id: int) -> None:
    """The engine takes the job that waits."""
    connection.execute(
        text("UPDATE procrastinate_jobs SET status = 'doing', worker_id = :id WHERE status = 'todo'"), {"id": engine_id}
    )


def new_engine(connection: Transaction, *, heard_s: float = 0.0) -> int:
    """An engine that beat *heard_s* ago."""
    return int(
        connection.execute(
            text(
                "INSERT INTO procrastinate_workers (last_heartbeat) "
                "VALUES (now() - make_interval(secs => CAST(:s AS DOUBLE PRECISION))) RETURNING id"
            ),
            {"s": heard_s},
        ).scalar_one()
    )


def asked(connection: Transaction, name: str = "night") -> None:
    tasks.submit(connection, name, "/srv/night.yaml", {"/srv/night.yaml": "ab"}, None)
    tasks.ask(connection, name)


def started(connection: Transaction, worker: int) -> Task:
    task = tasks.start(connection, "night", worker, f"host:{worker}")
    assert task is not None
    return task


def test_hosts_that_come_first_together_make_the_tables_once(database: str) -> None:
    """All of them find the tables there, whoever made them."""
    server = ledger.locate(database)
    assert isinstance(server, ledger.Server)
    together = threading.Barrier(4)

    def come(number: int) -> bool:
        with ledger.session(server, f"host {number}") as session:
            session.raw.execute("SELECT 1")
            together.wait()
            for _ in range(2):
                with session.transaction() as connection:
                    schema.prepare(connection)
            with session.transaction() as connection:
                return schema.exists(connection)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(come, range(4))) == [True] * 4


def test_two_requests_before_a_run_are_one_run(crew: Crew) -> None:
    """What waits already is not asked for a second time; the run that ends then has served both."""
    with crew.transaction() as connection:
        asked(connection)
        asked(connection)
        assert jobs(connection) == ["todo"]
        task = started(connection, 1)
        assert tasks.end(connection, task, 1, exit_code=0, reason="", again_in_s=None)
        assert tasks.start(connection, "night", 1, "host:1") is None


def test_a_request_during_a_run_is_another_run(crew: Crew) -> None:
    """The files may have changed since the run began."""
    with crew.transaction() as connection:
        asked(connection)
        take(connection, new_engine(connection))
        task = started(connection, 1)
        tasks.ask(connection, "night")
        assert jobs(connection) == ["doing", "todo"]
        tasks.end(connection, task, 1, exit_code=0, reason="", again_in_s=None)
        assert tasks.start(connection, "night", 1, "host:1") is not None


def test_a_job_that_the_engine_lost_is_made_again(crew: Crew) -> None:
    """What is asked for and has no job gets one, once; what is not asked for gets none."""
    with crew.transaction() as connection:
        asked(connection)
        tasks.submit(connection, "other", "/srv/other.yaml", {}, None)
        connection.execute(text("DELETE FROM procrastinate_jobs"))
        assert tasks.wake_forgotten(connection) == ["night"]
        assert tasks.wake_forgotten(connection) == []
        assert jobs(connection) == ["todo"]


def test_who_lost_a_task_can_not_end_it(crew: Crew) -> None:
    """A worker that stood still while another took its task over changes nothing about it."""
    with crew.transaction() as connection:
        asked(connection)
        first = started(connection, 1)
        second = started(connection, 2)
        assert not tasks.end(connection, first, 1, exit_code=0, reason="", again_in_s=None)
        (state,) = tasks.states(connection)
        assert (state.state, state.running_on) == ("running", "host:2")
        assert tasks.end(connection, second, 2, exit_code=1, reason="1 file failed", again_in_s=None)
        (state,) = tasks.states(connection)
        assert (state.state, state.exit_code, state.reason) == ("ended", 1, "1 file failed")


def test_a_run_that_is_tried_again_waits_and_a_person_can_hurry_it(crew: Crew) -> None:
    """After an unfinished run the task waits; to submit it again brings it forward instead of doubling it."""
    with crew.transaction() as connection:
        asked(connection)
        task = started(connection, 1)
        tasks.end(connection, task, 1, exit_code=7, reason="unreachable", again_in_s=600)
        connection.execute(text("UPDATE procrastinate_jobs SET scheduled_at = now() + interval '600 s'"))
        (state,) = tasks.states(connection)
        assert (state.state, state.tries, state.exit_code) == ("waiting", 1, 7)
        assert state.due_at is not None
        tasks.ask(connection, "night")
        (state,) = tasks.states(connection)
        assert (state.tries, state.due_at) == (0, None)
        assert list(connection.execute(text("SELECT scheduled_at FROM procrastinate_jobs")).scalars()) == [None]


def test_what_no_try_would_help_waits_for_a_person(crew: Crew) -> None:
    """A run that a refused key ended is not tried again by itself."""
    with crew.transaction() as connection:
        asked(connection)
        task = started(connection, 1)
        connection.execute(text("DELETE FROM procrastinate_jobs"))
        tasks.end(connection, task, 1, exit_code=5, reason="the key is refused", again_in_s=None)
        assert tasks.wake_forgotten(connection) == []
        assert tasks.states(connection)[0].state == "stopped"


def test_the_jobs_of_an_engine_that_died_are_handed_back(crew: Crew) -> None:
    """At once where its worker is known to be dead, else when it has not beaten for long; never those of the living."""
    with crew.transaction() as connection:
        asked(connection)
        dead = new_engine(connection)
        take(connection, dead)
        assert engine.rescue_stalled(connection) == []
        assert engine.rescue(connection, [dead + 1]) == []
        assert engine.rescue(connection, [dead]) == ["night"]
        take(connection, new_engine(connection, heard_s=engine.RESCUE_S + 1))
        assert engine.rescue_stalled(connection) == ["night"]
        assert jobs(connection) == ["todo"]


def test_a_job_that_no_engine_has_in_hand_keeps_nobody_waiting(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end could not be noted and its engine lives: missed twice in a row, it is handed back."""
    worker = Worker(crew.server, 1, {})
    with crew.transaction() as connection:
        asked(connection)
        mine = new_engine(connection)
        monkeypatch.setattr(Engine, "id", mine)
        take(connection, mine)
        me = roll.register(connection, "host-a", 1, 2, mine)
        doing = roll.beat(connection, me, mine).doing
        assert doing == {"night"}
        for busy, status in ((["night"], "doing"), ([], "doing"), (["night"], "doing"), ([], "doing"), ([], "todo")):
            monkeypatch.setattr(Engine, "in_hand", frozenset(busy))
            worker._free_stuck(connection, doing)
            assert jobs(connection) == [status]


def test_the_beat_says_what_is_to_be_done(crew: Crew) -> None:
    """Nothing on a quiet day; a lost job, a dead worker, a drain, and being struck off are each seen."""
    there = crew.session()
    with there.transaction() as connection:
        other = roll.register(connection, "host-b", 2, 2, None)
    with crew.transaction() as connection:
        me = roll.register(connection, "host-a", 1, 2, None)
        assert roll.beat(connection, me, None) == roll.Beat(False, due=False, missing=False, forgotten=False)
        asked(connection)
        connection.execute(text("DELETE FROM procrastinate_jobs"))
        assert roll.beat(connection, me, None).forgotten
        assert roll.drain(connection, "host-a", 1)
        assert roll.beat(connection, me, None).draining
        assert not roll.drain(connection, "host-c", 1)
    crew.end(there)
    with crew.transaction() as connection:
        assert roll.beat(connection, me, None).missing
        assert {worker.name: worker.lives for worker in roll.states(connection)} == {
            "host-a:1": True,
            "host-b:2": False,
        }
        tasks.start(connection, "night", other, "host-b:2")
        roll.leave(connection, other)
        assert tasks.states(connection)[0].running_on is None
        assert roll.beat(connection, other, None).draining is None
