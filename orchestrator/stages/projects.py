"""The key of another project is noticed by reads, before anything is bought with it."""

from __future__ import annotations

from functools import partial

from orchestrator.errors import ApiError, Rejected, Unauthorized
from orchestrator.ledger import Transaction, projects, queue
from orchestrator.stages.work import Work


async def refuse_other_project(work: Work) -> None:
    """Raises Unauthorized when the key does not see the shard's latest job, but sees jobs of another project.

    One read, a second where the job is not found; neither is repeated, and what they can't show stops nothing.
    """

    def known(connection: Transaction) -> tuple[str, str] | None:
        to_send = bool(queue.pending(connection, work.shard, after=0, most=1))
        if work.api.traits.idempotent:  # what went unanswered is sent again
            to_send = to_send or bool(queue.unanswered(connection, work.shard))
        return projects.latest_job(connection, work.shard) if to_send else None

    found = await work.writer.write(known)
    if found is None:
        return
    project, job_id = found
    try:
        await work.api.try_job(job_id)
    except Rejected:
        await _refuse(work, project, job_id)
    except Unauthorized:
        raise
    except ApiError:
        return


async def _refuse(work: Work, project: str, job_id: str) -> None:
    try:
        page = await work.api.try_page()
    except Unauthorized:
        raise
    except ApiError:
        return
    theirs = sorted({job.project_id for job in page.jobs if job.project_id})
    if theirs and not any(map(partial(projects.same_project, project), theirs)):
        raise Unauthorized(
            f"the key is of project {theirs[0]}: it does not see job {job_id}, and the jobs of this manifest are in "
            f"{project}; use that project's key, or another --ledger or another name; nothing was sent"
        )
