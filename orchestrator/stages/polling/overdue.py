"""Results that had not come when their job was recorded: each run asks once for those of the latest weeks.

Nothing of it is urgent, and a run that has nothing else to do does not fail by it: what can't be asked for is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog

from orchestrator.clock import timestamp
from orchestrator.errors import Ambiguous, ApiError, ContractBroken, Rejected, Unanswered
from orchestrator.ledger import Transaction, queue, runs
from orchestrator.ledger.chunks import overdue
from orchestrator.ledger.chunks.overdue import Overdue
from orchestrator.models import TERMINAL, FileResult, Outcome
from orchestrator.stages.collector import results_of
from orchestrator.stages.matching import collect_chunk
from orchestrator.stages.work import Work, while_going_on

log = structlog.get_logger()

#: An API keeps its jobs for about so long; most jobs that a run asks about, and at once.
WINDOW, MOST, AT_ONCE = timedelta(days=14), 500, 20


#: Chunk -> the rows of ``files`` whose results have come late.
Late = dict[int, list[int]]


def due(connection: Transaction, manifest_id: int, *, began: datetime) -> list[Overdue]:
    """The jobs that a run that *began* then asks about: earlier runs recorded them."""
    since = timestamp(began - WINDOW)
    return overdue.overdue(connection, manifest_id, since=since, before=timestamp(began), most=MOST)


async def look(work: Work, *, began: datetime) -> int:
    """Take in the results that the API has now of jobs that were recorded without; of how many files."""
    found = await work.writer.write(lambda connection: due(connection, work.shard.manifest_id, began=began))
    late = await ask(work, [job for job in found if job.api == work.shard.api], counted=True)
    return sum(map(len, late.values()))


async def ask(work: Work, jobs: Sequence[Overdue], *, counted: bool) -> Late:
    """Ask once about *jobs* and take in the results that the API has now; *counted*: by the run that is going on."""
    late: Late = {}
    for start in range(0, len(jobs), AT_ONCE):
        if work.stop.everything is not None:
            break
        tasks = [asyncio.create_task(_ask(work, job, counted)) for job in jobs[start : start + AT_ONCE]]
        try:
            answers = [taken for taken in await while_going_on(work, tasks) if taken is not None]
        except ApiError as error:
            log.info("results.put_off", why=str(error))
            break
        if not answers:
            break
        late |= {chunk_id: rows for chunk_id, rows in answers if rows}
    return late


async def _ask(work: Work, job: Overdue, counted: bool) -> tuple[int, list[int]] | None:
    """Take in what the API says of one job; of which rows of the chunk, None without an answer.

    Raises ApiError when it would say nothing of any.
    """
    try:
        remote = await work.api.try_job(job.job_id)
        if remote.id != job.job_id or remote.status not in TERMINAL:
            return job.chunk_id, []
        answer = await results_of(work.api, remote)
        chunk = await work.writer.write(lambda connection: queue.chunk(connection, job.chunk_id))
        results = collect_chunk(chunk, remote, answer).results
    except (Rejected, ContractBroken):
        return job.chunk_id, []
    except (Ambiguous, Unanswered):
        return None
    told = [result for result in results if result.outcome is not Outcome.MISSING]

    def take_in(connection: Transaction) -> dict[int, FileResult]:
        taken = overdue.take_in(connection, job.chunk_id, told, api_status=remote.api_status, at=work.at())
        if taken and counted:
            runs.count_results(connection, job.chunk_id, only=list(taken))
        return taken

    taken = await work.writer.write(take_in) if told else {}
    if taken:
        log.info("job.late_results", chunk_id=job.chunk_id, job_id=job.job_id, files=len(taken))
        work.progress.ended(taken.values())
    return job.chunk_id, list(taken)
