"""A failed job's files are halved and sent again, down to the one file at fault: it must not cost the others.

Only where a job takes several files. It begins when everything else has ended, because only then it is known whether
one file is at fault or the API as a whole: when most jobs fail, nothing is halved.
"""

from __future__ import annotations

import structlog

from orchestrator.ledger import Transaction, jobs
from orchestrator.ledger.chunks import halving
from orchestrator.ledger.chunks.retry import QUARANTINED
from orchestrator.manifest.loading import Manifest
from orchestrator.planning.limits import credits_left
from orchestrator.stages.work import Work

log = structlog.get_logger()

#: Fewer ended jobs than this are too few to distinguish an outage from one file at fault.
ENOUGH = 5
#: Of a run's own jobs: more failures than this are an outage.
MOST_FAILED = 0.5
#: Of the halves: one file at fault fails every second of them, an outage all.
MOST_HALVES_FAILED = 0.8


def is_outage(own: tuple[int, int], halves: tuple[int, int]) -> bool:
    """Whether (ended, failed) of a run's own jobs, and of its halves, speak of an outage and not of single files."""
    ended, failed = own
    halves_ended, halves_failed = halves
    return (ended >= ENOUGH and failed > MOST_FAILED * ended) or (
        halves_ended >= ENOUGH and halves_failed > MOST_HALVES_FAILED * halves_ended
    )


def halve(file_ids: list[str], failed: int) -> list[list[str]]:
    """Two lists of nearly equal length; of the one file that *failed*, nothing: it is the one at fault.

    Where others failed with it and were dealt with since, the one that is left is tried alone.
    """
    if len(file_ids) == 1:
        return [file_ids] if failed > 1 else []
    middle = (len(file_ids) + 1) // 2
    return [half for half in (file_ids[:middle], file_ids[middle:]) if half]


def is_at_fault(size: int, *, others_succeeded: bool) -> bool:
    """Whether the one file that failed in a failed chunk of *size* sank it, as far as other results show.

    When every job of the run failed, the API may be at fault and not this file.
    """
    return size > 1 or others_succeeded


def plan_halves(connection: Transaction, work: Work, manifest: Manifest) -> int:
    """Pending chunks for the halves of what failed; how many. A file found to be at fault is quarantined.

    What would take the run over ``limits.max_credits`` is left to the next run.
    """
    found = halving.to_halve(connection, work.shard)
    if not found:
        return 0
    runs = {work.run_id, *(failed.run_id for failed in found)}  # a run may have been killed before it could halve
    own = halving.ended_at_depth(connection, runs, halves=False)
    smaller = halving.ended_at_depth(connection, runs, halves=True)
    ended, failed_jobs = own[0] + smaller[0], own[1] + smaller[1]
    if is_outage(own, smaller):
        halving.leave_whole(connection, [failed.chunk_id for failed in found])
        work.warn("halving.given_up", failed_jobs=failed_jobs, ended_jobs=ended)
        return 0
    made, left = 0, credits_left(connection, manifest, work.run_id)
    for place, failed in enumerate(found):
        parts = halve(failed.file_ids, failed.failed)
        cost = failed.config.credits_ceiling(len(failed.file_ids)) if parts else 0
        if left is not None and cost is not None and (left := left - cost) < 0:
            work.warn("halving.over_budget", chunk_id=failed.chunk_id, max_credits=manifest.limits.max_credits)
            work.progress.held_back.halves = sum(len(each.file_ids) for each in found[place:])
            break
        made += len(halving.split(connection, failed.chunk_id, parts, run_id=work.run_id, at=work.at()))
        if failed.file_ids and not parts and is_at_fault(failed.size, others_succeeded=ended > failed_jobs):
            (file_id,) = failed.file_ids
            jobs.note(connection, failed.chunk_id, QUARANTINED, file_id, at=work.at())
            log.warning("file.quarantined", file_id=file_id, chunk_id=failed.chunk_id)
    return made
