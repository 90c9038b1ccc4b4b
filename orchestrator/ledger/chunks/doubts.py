"""What the ledger knows of a create call in doubt: the jobs next to it, and those that later calls were told."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection

from orchestrator.clock import time_of
from orchestrator.ledger.jobs import DENIED, note
from orchestrator.ledger.queue import GONE, Shard
from orchestrator.ledger.sql import IN_FLIGHT_SQL, text

#: A job made so few minutes before or after a call shows how the API dated jobs then.
NEAR_MIN = 5.0


@dataclass(frozen=True, slots=True)
class Neighbour:
    """The job that the ledger came to know last before a create call left, or first after it."""

    job_id: str
    same_run: bool  #: it was made after the same mark and within minutes: what is dated like it is of then


def _minutes_apart(one: str | None, other: str | None) -> float:
    """How far apart two times are that the ledger wrote; infinitely far when one is not there."""
    first, second = (time_of(moment) if moment else None for moment in (one, other))
    return abs((first - second).total_seconds()) / 60 if first and second else float("inf")


def neighbours(connection: Connection, shard: Shard, chunk_id: int) -> list[Neighbour]:
    """The known jobs next to the first create call of a chunk, in the order in which the ledger came to know them.

    No clock has a part in it: events are numbered as they happen.
    """
    first = connection.execute(
        text("SELECT min(id) FROM events WHERE chunk_id = :chunk_id AND event = 'submitting'"), {"chunk_id": chunk_id}
    ).scalar()
    call = connection.execute(text("SELECT mark, sent_at FROM jobs WHERE id = :id"), {"id": chunk_id}).one()
    found: list[Neighbour] = []
    for which, order in (("<", "DESC"), (">", "ASC")):
        row = connection.execute(
            text(
                "SELECT j.job_id, j.mark, j.submitted_at FROM events e JOIN jobs j ON j.id = e.chunk_id "
                f"WHERE e.event = 'submitted' AND e.id {which} :first AND j.job_id IS NOT NULL "
                f"AND j.manifest_id = :manifest_id AND j.api = :api ORDER BY e.id {order} LIMIT 1"
            ),
            {"first": first or 0, "manifest_id": shard.manifest_id, "api": shard.api},
        ).first()
        if row is not None:
            near = _minutes_apart(call.sent_at, row.submitted_at) <= NEAR_MIN
            found.append(Neighbour(row.job_id, call.mark is not None and row.mark == call.mark and near))
    return found


def named_since(connection: Connection, chunk_id: int) -> set[str]:
    """The jobs in flight that create calls were answered with since the first one of a chunk left."""
    rows = connection.execute(
        text(
            f"SELECT j.job_id FROM jobs j JOIN jobs c ON c.api = j.api WHERE c.id = :chunk_id AND j.id <> c.id "
            f"AND j.status IN {IN_FLIGHT_SQL} AND EXISTS (SELECT 1 FROM events e WHERE e.chunk_id = j.id "
            "AND e.event = 'submitted' AND e.id > (SELECT min(x.id) FROM events x "
            "WHERE x.chunk_id = :chunk_id AND x.event = 'submitting'))"
        ),
        {"chunk_id": chunk_id},
    )
    return set(rows.scalars())


def sharing(connection: Connection, chunk_id: int) -> list[int]:
    """The chunks in flight that have files of this one, under another config: their job may be another than told."""
    rows = connection.execute(
        text(
            "SELECT DISTINCT j.id FROM files f JOIN files o ON o.manifest_id = f.manifest_id AND o.file_id = f.file_id "
            "AND o.chunk_id <> f.chunk_id JOIN jobs j ON j.id = o.chunk_id "
            f"WHERE f.chunk_id = :chunk_id AND j.status IN {IN_FLIGHT_SQL}"
        ),
        {"chunk_id": chunk_id},
    )
    return list(rows.scalars())


def vanished_since(connection: Connection, chunk_id: int) -> set[str]:
    """The jobs that calls were answered with since the first one of a chunk left, and whose files nobody knows.

    They were found to be of other files than those of the call, or the API denied having them before their results
    could be read.
    """
    rows = connection.execute(
        text(
            "SELECT s.note FROM events d JOIN events s ON s.chunk_id = d.chunk_id AND s.id < d.id "
            f"WHERE d.event IN ('disowned', '{DENIED}') AND s.event = 'submitted' AND s.id > (SELECT min(x.id) "
            "FROM events x WHERE x.chunk_id = :chunk_id AND x.event = 'submitting') "
            "AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.job_id = s.note AND coalesce(j.api_status, '') <> :gone)"
        ),
        {"chunk_id": chunk_id, "gone": GONE},
    )
    return set(rows.scalars())


def to_audit(connection: Connection, manifest_id: int) -> list[tuple[int, str | None]]:
    """Ended chunks that were sent again and whose first call has not yet been looked for twice since; their jobs."""
    rows = connection.execute(
        text(
            "SELECT id, job_id FROM jobs j WHERE manifest_id = :manifest_id AND resends > 0 AND "
            "finished_at IS NOT NULL AND "
            "(SELECT count(*) FROM events e WHERE e.chunk_id = j.id AND e.event = 'audited') < 2"
        ),
        {"manifest_id": manifest_id},
    )
    return [(row.id, row.job_id) for row in rows]


def audited(connection: Connection, chunk_ids: Collection[int], *, at: str) -> None:
    """A listing was searched for late jobs of *chunk_ids*."""
    for chunk_id in chunk_ids:
        note(connection, chunk_id, "audited", "", at=at)
