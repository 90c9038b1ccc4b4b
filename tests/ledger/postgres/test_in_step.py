"""Pieces of work that go in step on a real server: as if each were alone, with far fewer waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from sqlalchemy import Connection
from support.ledgers import AT, SMALL, bring, plan

from orchestrator import ledger
from orchestrator.clock import SystemClock
from orchestrator.ledger import Ledger, jobs
from orchestrator.ledger.postgres import in_step
from orchestrator.ledger.sql import scalar_int, text
from orchestrator.ledger.writer import Writer
from orchestrator.models import JobStatus

CHUNKS = 20


@pytest.fixture
def opened(database: str) -> Ledger:
    """A ledger with twenty pending chunks of one file."""
    opened = ledger.open(ledger.locate(database))
    with opened.transaction() as connection:
        plan(connection, SMALL, [f"f{number}" for number in range(CHUNKS)], size=1)
    return opened


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many statements went together, each time that pieces in step waited for the server."""
    found: list[int] = []
    send = in_step.InStep._send

    def counted(self: in_step.InStep, raw: object, walking: list[object]) -> None:
        found.append(len(walking))
        send(self, raw, walking)  # type: ignore[arg-type]  # handed on as they came

    monkeypatch.setattr(in_step.InStep, "_send", counted)
    return found


def submit(chunk_id: int) -> Callable[[Connection], int]:
    def work(connection: Connection) -> int:
        jobs.submitted(connection, chunk_id, f"job-{chunk_id}", at=AT)
        return chunk_id

    return work


def test_pieces_in_step_wait_together(opened: Ledger, waits: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has its own answer, all of it is in the ledger, and sixteen at a time waited once for each statement."""
    monkeypatch.setattr(in_step, "MOST", 16)
    with opened, opened.transaction() as connection:
        chunk_ids = list(connection.execute(text("SELECT id FROM jobs ORDER BY id")).scalars())
        jobs.intend(connection, chunk_ids, mark=None, at=AT)
        assert opened.in_step(connection, [submit(chunk_id) for chunk_id in chunk_ids]) == chunk_ids
        assert scalar_int(connection, "SELECT count(*) FROM jobs WHERE status = 'submitted'") == CHUNKS
    assert waits == [16, 4]


def test_the_failure_of_one_is_that_of_all(opened: Ledger) -> None:
    """Nothing of any is in the ledger, and the connection is good for more."""
    with opened:
        with pytest.raises(jobs.ForbiddenMove), opened.transaction() as connection:
            jobs.intend(connection, [1, 2], mark=None, at=AT)
            opened.in_step(connection, [submit(1), submit(3), submit(2)])
        with opened.transaction() as connection:
            assert scalar_int(connection, "SELECT count(*) FROM jobs WHERE status = 'pending'") == CHUNKS


def test_a_statement_that_the_server_refuses_fails_them_all(opened: Ledger) -> None:
    """Its error is what the caller gets, as of a piece alone."""

    def refused(connection: Connection) -> int:
        return int(connection.execute(text("SELECT 1 / sends FROM jobs WHERE id = 2")).scalar_one())

    with opened:
        with pytest.raises(Exception, match="division by zero"), opened.transaction() as connection:
            jobs.intend(connection, [1], mark=None, at=AT)
            opened.in_step(connection, [submit(1), refused])
        with opened.transaction() as connection:
            assert scalar_int(connection, "SELECT count(*) FROM jobs WHERE status = 'pending'") == CHUNKS


def test_what_touches_the_same_goes_one_after_the_other(opened: Ledger, waits: list[int]) -> None:
    """Two answers with one job ID: the second one sees what the first has written."""

    def take(chunk_id: int) -> Callable[[Connection], bool]:
        def work(connection: Connection) -> bool:
            if scalar_int(connection, "SELECT count(*) FROM jobs WHERE job_id = 'one'"):
                return False
            jobs.submitted(connection, chunk_id, "one", at=AT)
            return True

        return work

    async def go() -> list[bool]:
        writer = Writer(opened, SystemClock())
        return await asyncio.gather(*(writer.write(take(n), touches=(n, "one")) for n in (1, 2, 3)))

    with opened:
        with opened.transaction() as connection:
            jobs.intend(connection, [1, 2, 3], mark=None, at=AT)
        assert asyncio.run(go()) == [True, False, False]
    assert waits == []


def test_answers_come_before_the_intents_that_waited_with_them(opened: Ledger) -> None:
    """A job was known when the call left whose intent is written with it: the order of events says so."""

    async def go() -> None:
        writer = Writer(opened, SystemClock())
        await asyncio.gather(
            writer.write(lambda c: jobs.intend(c, [2], mark=None, at=AT), touches=(2,), last=True),
            writer.write(lambda c: bring(c, 3, JobStatus.SUBMITTED)),
            writer.write(submit(1), touches=(1, "job-1")),
        )

    with opened:
        with opened.transaction() as connection:
            jobs.intend(connection, [1], mark=None, at=AT)
        asyncio.run(go())
        with opened.transaction() as connection:
            told = connection.execute(text("SELECT chunk_id, event FROM events WHERE chunk_id < 3 ORDER BY id")).all()
    assert [tuple(each) for each in told] == [(1, "submitting"), (1, "submitted"), (2, "submitting")]
