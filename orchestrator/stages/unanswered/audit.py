"""The last look of a run: jobs that the API made late of calls that were taken for absent."""

from __future__ import annotations

from datetime import datetime, timedelta

from orchestrator.api.listing import complete_listing
from orchestrator.ledger import Transaction, jobs, queue
from orchestrator.ledger.chunks import doubts
from orchestrator.models import Chunk, RemoteJob
from orchestrator.stages.unanswered.evidence import Evidence
from orchestrator.stages.unanswered.likeness import compared
from orchestrator.stages.work import Work

#: Most jobs whose results one look reads: those that were made nearest to the jobs that the calls came to.
MOST_READ = 500


def _nearest(strangers: list[RemoteJob], own: list[datetime]) -> list[RemoteJob]:
    """The *strangers* made nearest to the moments *own*; one without a date may be of any time."""

    def apart(job: RemoteJob) -> timedelta:
        return min((abs(job.created_at - moment) for moment in own if job.created_at), default=timedelta())

    return sorted(strangers, key=apart)[:MOST_READ]


async def report_orphan(work: Work, chunk_id: int, job: RemoteJob) -> None:
    """A second job of a chunk's files: it was paid for, so it is never hidden."""
    work.warn("job.orphan", chunk_id=chunk_id, job_id=job.id)
    await work.writer.write(
        lambda connection: jobs.note(connection, chunk_id, "orphan", f"job {job.id} is of this chunk too", at=work.at())
    )


async def audit(work: Work) -> int:
    """Look for jobs of chunks that were sent again, made by their first call after all; how many were found."""

    def read(connection: Transaction) -> list[tuple[Chunk, str | None]]:
        return [
            (queue.chunk(connection, chunk_id), job_id)
            for chunk_id, job_id in doubts.to_audit(connection, work.shard.manifest_id)
        ]

    sent_again = [] if work.api.traits.idempotent else await work.writer.write(read)
    if not sent_again:
        return 0
    again = [chunk for chunk, _ in sent_again]
    listed = {job.id: job for job in await complete_listing(work.api, patient=False)}
    known, echoes = await work.writer.write(lambda connection: compared(connection, listed))
    strangers = [
        job
        for job in listed.values()
        if job.id not in known and any(echoes.is_alike(job, chunk.config) for chunk in again)
    ]
    own = [listed[job_id].created_at for _, job_id in sent_again if job_id in listed]
    strangers = _nearest(strangers, [moment for moment in own if moment])
    evidence = Evidence()
    while any(evidence.unread(job) for job in strangers):
        await evidence.gather(work.api, strangers, again)
    found = [
        (chunk, job)
        for chunk in again
        for job in strangers
        if echoes.is_alike(job, chunk.config) and (evidence.proves(job, chunk) or evidence.suggests(job, chunk))
    ]
    for chunk, job in found:
        await report_orphan(work, chunk.id, job)
    await work.writer.write(lambda connection: doubts.audited(connection, [chunk.id for chunk in again], at=work.at()))
    return len(found)
