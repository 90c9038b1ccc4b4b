"""The end of a job as the ledger keeps it: its results, what was odd, and whether one file may have sunk it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from sqlalchemy import Connection, text
from support.ledgers import AT, SMALL, bring, plan

from orchestrator.api.client import Api
from orchestrator.errors import Ambiguous, Rejected
from orchestrator.ledger import Ledger
from orchestrator.models import FileResult, JobResults, JobStatus, Outcome, RemoteJob
from orchestrator.stages.collector import end_job, is_to_halve, results_of
from orchestrator.stages.matching import Collected

GOOD = FileResult("a", Outcome.CLASSIFIED, "invoice", 0.9, "because")
BAD = FileResult("b", Outcome.FAILED, error="broken")
DONE = RemoteJob("job-1", JobStatus.SUCCEEDED, "SUCCESS")
FAILED = RemoteJob("job-1", JobStatus.FAILED, "ERROR", error="broken")


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    """A ledger with one submitted chunk of the files a and b."""
    with Ledger(tmp_path / "ledger.db") as opened, opened.transaction() as connection:
        plan(connection, SMALL, ["a", "b"])
        bring(connection, 1, JobStatus.SUBMITTED)
        yield connection


def outcomes(connection: Connection) -> dict[str, str]:
    rows = connection.execute(text("SELECT f.file_id, r.outcome FROM results r JOIN files f ON f.id = r.file_row"))
    return {row.file_id: row.outcome for row in rows}


def isolate(connection: Connection) -> int:
    return int(connection.execute(text("SELECT isolate FROM jobs WHERE id = 1")).scalar_one() or 0)


def notes(connection: Connection) -> list[str]:
    return list(connection.execute(text("SELECT note FROM events WHERE event = 'odd_results'")).scalars())


class Answering:
    """An API that has one answer about results, and counts how often it is asked."""

    def __init__(self, answer: JobResults | Exception) -> None:
        self.answer = answer
        self.asked = 0

    async def results(self, job_id: str) -> JobResults:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def fetched(answer: JobResults | Exception, job: RemoteJob = DONE) -> tuple[JobResults, int]:
    api = Answering(answer)
    return asyncio.run(results_of(cast(Api, api), job)), api.asked


def test_results_that_came_with_the_status_are_not_fetched() -> None:
    """v2 answers with both; others are asked for."""
    with_it, fetched_ones = JobResults((GOOD,)), JobResults((BAD,))
    assert fetched(fetched_ones, replace(DONE, results=with_it)) == (with_it, 0)
    assert fetched(fetched_ones) == (fetched_ones, 1)


def test_a_refusal_means_no_rows_and_says_why() -> None:
    """Any other failure is the caller's."""
    assert fetched(Rejected("no results", 404)) == (JobResults((), refusal="no results"), 1)
    with pytest.raises(Ambiguous):
        fetched(Ambiguous("no answer"))


def test_an_ended_job_leaves_an_outcome_for_each_file(connection: Connection) -> None:
    """With what was odd as events of its chunk."""
    end_job(connection, 1, DONE, JobResults((GOOD, BAD), ("odd",)), at=AT)
    assert outcomes(connection) == {"a": "classified", "b": "failed"}
    assert notes(connection) == ["odd"]
    assert isolate(connection) == 0


def test_a_job_of_other_files_too_is_taken_in_part_only_when_that_is_said(connection: Connection) -> None:
    """Otherwise the stranger is noted."""
    answer = JobResults((GOOD, replace(BAD, file_id="b"), replace(GOOD, file_id="x")))
    end_job(connection, 1, DONE, answer, at=AT)
    assert len(notes(connection)) == 1


def test_of_a_job_with_other_files_nothing_is_odd_once_that_is_known(connection: Connection) -> None:
    """The rows of others are left out."""
    answer = JobResults((GOOD, replace(BAD, file_id="b"), replace(GOOD, file_id="x")))
    end_job(connection, 1, DONE, answer, at=AT, partly=True)
    assert notes(connection) == []


def test_a_failed_job_is_to_be_halved(connection: Connection) -> None:
    """One of its files may have sunk the others."""
    end_job(connection, 1, FAILED, JobResults(()), at=AT)
    assert outcomes(connection) == {"a": "failed", "b": "failed"}
    assert isolate(connection) == 1


@pytest.mark.parametrize(
    ("job", "results", "halved"),
    [
        (FAILED, (GOOD, BAD), True),
        (FAILED, (BAD, BAD), True),
        (FAILED, (GOOD, GOOD), False),
        (DONE, (GOOD, BAD), False),
        (replace(FAILED, status=JobStatus.CANCELLED), (BAD, BAD), False),
        (replace(FAILED, results=JobResults((BAD,))), (BAD,), False),
    ],
    ids=["some failed", "all failed", "none failed", "succeeded", "cancelled", "its one file's results came"],
)
def test_only_a_failed_job_with_failed_files_is_halved(
    job: RemoteJob, results: tuple[FileResult, ...], halved: bool
) -> None:
    """Nothing else says that a file sank it."""
    assert is_to_halve(job, Collected(results, ())) is halved


@pytest.mark.parametrize("status", [None, JobStatus.SUBMITTED])
def test_a_job_that_has_not_ended_is_not_recorded(connection: Connection, status: JobStatus | None) -> None:
    """Its results may be half of them."""
    with pytest.raises(ValueError, match="has not ended"):
        end_job(connection, 1, replace(DONE, status=status), JobResults((GOOD,)), at=AT)
    assert outcomes(connection) == {}
