"""Jobs that were recorded with files missing or without a result: what the API says of them later still counts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam

from orchestrator.ledger import jobs
from orchestrator.ledger.chunks.accept import PERSON
from orchestrator.ledger.sql import GOOD_SQL, text
from orchestrator.models import BAD, GOOD, FileResult, Outcome


@dataclass(frozen=True, slots=True)
class Overdue:
    """A job that succeeded, as the API said, and has left some file without a good result."""

    chunk_id: int
    job_id: str
    api: str


def overdue(connection: Connection, manifest_id: int, *, since: str, before: str, most: int) -> list[Overdue]:
    """The jobs that ended between *since* and *before* and lack a result that no other job has given, latest first.

    Not where a person has given a verdict, nor under rules of before.
    """
    rows = connection.execute(
        # CROSS: from the bad results, which have an index of their own, to their files and jobs.
        text(f"""
        SELECT DISTINCT j.id, j.job_id, j.api
        FROM results r CROSS JOIN files f CROSS JOIN jobs j CROSS JOIN manifests m
        WHERE f.id = r.file_row AND j.id = f.chunk_id AND m.id = :manifest_id AND f.manifest_id = m.id
          AND f.config_id = m.config_id AND r.outcome NOT IN {GOOD_SQL} AND j.status = 'succeeded'
          AND j.api <> :person AND j.escalation = 0 AND j.finished_at >= :since AND j.finished_at < :before
          AND EXISTS (
            SELECT 1 FROM files s JOIN results sr ON sr.file_row = s.id JOIN jobs sj ON sj.id = s.chunk_id
            WHERE s.manifest_id = f.manifest_id AND s.file_id = f.file_id AND s.config_id = f.config_id
              AND s.standing = 1 AND sr.outcome NOT IN {GOOD_SQL} AND sj.api <> :person)
        ORDER BY j.id DESC LIMIT :most
        """),
        {"manifest_id": manifest_id, "person": PERSON, "since": since, "before": before, "most": most},
    )
    return [Overdue(row.id, row.job_id, row.api) for row in rows]


def of_chosen(connection: Connection, jobs: Sequence[Overdue]) -> list[Overdue]:
    """Those of *jobs* that have one of the chosen files."""
    statement = text(
        "SELECT DISTINCT f.chunk_id FROM files f JOIN chosen c ON c.file_id = f.file_id WHERE f.chunk_id IN :chunks"
    ).bindparams(bindparam("chunks", expanding=True))
    of_them = set(connection.execute(statement, {"chunks": [job.chunk_id for job in jobs]}).scalars())
    return [job for job in jobs if job.chunk_id in of_them]


def take_in(
    connection: Connection, chunk_id: int, told: Collection[FileResult], *, api_status: str, at: str
) -> dict[int, FileResult]:
    """Put *told* in the place of what was recorded of the chunk's files; row of ``files`` -> what was of use.

    A good result takes a bad one's place, and any that of a missing one. No run has counted them yet.
    """
    recorded = text("SELECT outcome FROM results WHERE file_row = :row")
    rows = jobs.file_rows(connection, chunk_id)
    better: dict[int, FileResult] = {}
    for result in told:
        before = Outcome(connection.execute(recorded, {"row": rows[result.file_id]}).scalar_one())
        if before in BAD and result.outcome is not before and (result.outcome in GOOD or before is Outcome.MISSING):
            better[rows[result.file_id]] = result
    if better:
        jobs.amend(connection, chunk_id, better)
        word = {"word": api_status, "id": chunk_id}
        connection.execute(text("UPDATE jobs SET api_status = :word WHERE id = :id"), word)
        jobs.note(connection, chunk_id, "overdue", f"{len(better)} results came late", at=at)
    return better
