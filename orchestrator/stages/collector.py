"""The end of a job: its results are fetched, matched to its files and recorded in one transaction."""

from __future__ import annotations

from dataclasses import asdict

from orchestrator.api.client import Api
from orchestrator.errors import Rejected
from orchestrator.ledger import Transaction, jobs, queue
from orchestrator.ledger.chunks import halving
from orchestrator.models import Chunk, JobResults, JobStatus, Outcome, RemoteJob
from orchestrator.stages.matching import Collected, collect_chunk


async def results_of(api: Api, job: RemoteJob) -> JobResults:
    """The results of an ended job, fetched unless its status came with them. Raises ApiError, but never Rejected.

    A refusal is how the API says that it has no results (yet): then there are no rows, and ``refusal`` says why.
    """
    if job.results is not None:
        return job.results
    try:
        return await api.results(job.id)
    except Rejected as error:
        return JobResults((), refusal=str(error))


def end_job(
    connection: Transaction, chunk_id: int, job: RemoteJob, answer: JobResults, *, at: str, partly: bool = False
) -> None:
    """Collect and record the end of a job in the caller's one transaction. Raises ContractBroken."""
    chunk = queue.chunk(connection, chunk_id)
    record(connection, chunk, job, collect_chunk(chunk, job, answer, partly=partly), at=at)


def is_to_halve(job: RemoteJob, collected: Collected) -> bool:
    """Whether one file may have made the whole job fail: it failed, and some of its files have no result."""
    failed = sum(result.outcome is Outcome.FAILED for result in collected.results)
    return job.status is JobStatus.FAILED and job.results is None and failed > 0


def record(connection: Transaction, chunk: Chunk, job: RemoteJob, collected: Collected, *, at: str) -> None:
    """Status, results and oddities of an ended job, in the caller's one transaction."""
    if job.status is None:
        raise ValueError(f"job {job.id} has not ended")
    jobs.end(
        connection,
        chunk.id,
        job.status,
        zip(jobs.rows_of(connection, chunk.id), collected.results, strict=True),
        at=at,
        api_status=job.api_status,
        error=job.error,
        credits=job.credits,
        parse_job_id=job.parse_job_id,
        **asdict(job.record),
    )
    if is_to_halve(job, collected):
        halving.suspect(connection, chunk.id)
    for oddity in collected.oddities:
        jobs.note(connection, chunk.id, "odd_results", oddity, at=at)
