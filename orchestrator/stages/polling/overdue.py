"""Results that had not come when their job was recorded: each run asks once for those of the latest weeks.

Nothing of it is urgent, and a run that has nothing else to do does not fail by it: what can't be asked for is left.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import structlog

from orchestrator.clock import timestamp
from orchestrator.errors import Ambiguous, ApiError, ContractBroken, Rejected, Unanswered
from orchestrator.ledger import Transaction, queue
from orchestrator.ledger.chunks import overdue
from orchestrator.ledger.chunks.overdue import Overdue
from orchestrator.models import TERMINAL, FileResult, Outcome
from orchestrator.stages.collector import results_of
from orchestrator.stages.matching import collect_chunk
from orchestrator.stages.work import Work, while_going_on

log = structlog.get_logger()

#: An API keeps its jobs for about so long; most jobs that a run asks about, and at once.
WINDOW, MOST, AT_ONCE = timedelta(days=14), 500, 20


def due(connection: Transaction, manifest_id: int, *, began: datetime) -> list[Overdue]:
    """The jobs that a run that *began* then asks about: earlier runs recorded them."""
    since = timestamp(began - WINDOW)
    return overdue.overdue(connection, manifest_id, since=since, before=timestamp(began), most=MOST)


async def look(work: Work, *, began: datetime) -> int:
    """Take in the results that the API has now of jobs that were recorded without; of how many files."""
    found = await work.writer.write(lambda connection: due(connection, work.shard.manifest_id, began=began))
    jobs = [job for job in found if job.api == work.shard.api]
    files = 0
    for start in range(0, len(jobs), AT_ONCE):
        if work.stop.everything is not None:
            break
        tasks = [asyncio.create_task(_ask(work, job)) for job in jobs[start : start + AT_ONCE]]
        try:
            answers = [taken for taken in await while_going_on(work, tasks) if taken is not None]
        except ApiError as error:
            log.info("results.put_off", why=str(error))
            break
        if not answers:
            break
        files += sum(answers)
    return files


async def _ask(work: Work, job: Overdue) -> int | None:
    """Take in what the API says of one job; of how many files, None without an answer.

    Raises ApiError when it would say nothing of any.
    """
    try:
        remote = await work.api.try_job(job.job_id)
        if remote.id != job.job_id or remote.status not in TERMINAL:
            return 0
        answer = await results_of(work.api, remote)
        chunk = await work.writer.write(lambda connection: queue.chunk(connection, job.chunk_id))
        results = collect_chunk(chunk, remote, answer).results
    except (Rejected, ContractBroken):
        return 0
    except (Ambiguous, Unanswered):
        return None
    told = [result for result in results if result.outcome is not Outcome.MISSING]

    def take_in(connection: Transaction) -> list[FileResult]:
        return overdue.take_in(connection, job.chunk_id, told, api_status=remote.api_status, at=work.at())

    taken = await work.writer.write(take_in) if told else []
    if taken:
        log.info("job.late_results", chunk_id=job.chunk_id, job_id=job.job_id, files=len(taken))
        work.progress.ended(taken)
    return len(taken)
