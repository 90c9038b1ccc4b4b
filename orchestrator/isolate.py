"""One poison file must not sink its chunk: a failed job's files are halved and sent again, down to the file at fault.

Only where a job takes several files. It begins when everything else has ended, because only then it is known whether
one file is at fault or the API as a whole: when most jobs fail, nothing is halved.
"""

from __future__ import annotations

import structlog
from sqlalchemy import Connection

from orchestrator.engine import Work
from orchestrator.ledger import halves, jobs

log = structlog.get_logger()

#: Fewer ended jobs than this are too few to tell an outage from a poison file.
ENOUGH = 5
#: Of a run's own jobs: more failures than this are an outage.
MOST_FAILED = 0.5
#: Of the halves: one poison file fails every second of them, an outage all.
MOST_HALVES_FAILED = 0.8


def is_outage(own: tuple[int, int], halves: tuple[int, int]) -> bool:
    """Whether (ended, failed) of a run's own jobs, and of its halves, speak of an outage and not of single files."""
    ended, failed = own
    halves_ended, halves_failed = halves
    return (ended >= ENOUGH and failed > MOST_FAILED * ended) or (
        halves_ended >= ENOUGH and halves_failed > MOST_HALVES_FAILED * halves_ended
    )


def halve(file_ids: list[str]) -> list[list[str]]:
    """Two lists of nearly equal length; of one file, nothing: it is the one at fault."""
    middle = (len(file_ids) + 1) // 2
    return [file_ids[:middle], file_ids[middle:]] if len(file_ids) > 1 else []


def plan_halves(connection: Connection, work: Work) -> int:
    """Pending chunks for the halves of what failed; how many. A file that failed alone is quarantined."""
    found = halves.to_isolate(connection, work.shard)
    own = halves.ended_at_depth(connection, work.run_id, halves=False)
    smaller = halves.ended_at_depth(connection, work.run_id, halves=True)
    if found and is_outage(own, smaller):
        halves.leave_whole(connection, [chunk_id for chunk_id, _ in found])
        work.warn("isolation.given_up", failed_jobs=own[1] + smaller[1], ended_jobs=own[0] + smaller[0])
        return 0
    made = 0
    for chunk_id, file_ids in found:
        parts = halve(file_ids)
        made += len(halves.split(connection, chunk_id, parts, run_id=work.run_id, at=work.at()))
        if not parts:
            jobs.note(connection, chunk_id, "quarantined", file_ids[0], at=work.at())
            log.warning("file.quarantined", file_id=file_ids[0], chunk_id=chunk_id)
    return made
