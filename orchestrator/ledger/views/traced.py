"""The jobs that a run had to do with: those whose end it recorded, and those that it created and left in flight."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from orchestrator.ledger.sql import IN_FLIGHT_SQL, OPEN_SQL, text


@dataclass(frozen=True, slots=True)
class Job:
    """One job. ``finished_at`` is None while it goes on; its status is the ledger's."""

    job_id: str
    api: str
    status: str
    files: int
    error: str | None
    submitted_at: str
    finished_at: str | None


def jobs(connection: Connection, manifest_id: int, run_id: str, *, since: str, most: int) -> list[Job]:
    """The latest *most* jobs of the run, which began at *since*."""
    columns = "id, job_id, api, status, size, error, submitted_at, finished_at"
    only = "manifest_id = :manifest_id AND submitted_at IS NOT NULL AND job_id IS NOT NULL AND api <> :person"
    rows = connection.execute(
        text(f"""
        SELECT t.job_id, t.api, t.status, t.size, t.error, t.submitted_at, t.finished_at FROM (
          SELECT {columns} FROM jobs WHERE {only} AND finished_at IS NOT NULL AND finished_at >= :since
          UNION ALL
          SELECT {columns} FROM jobs
          WHERE {only} AND run_id = :run_id AND status IN {OPEN_SQL} AND status IN {IN_FLIGHT_SQL}
        ) AS t ORDER BY t.id DESC LIMIT :most
        """),
        {"manifest_id": manifest_id, "run_id": run_id, "since": since, "most": most, "person": "person"},
    )
    return [Job(*row) for row in rows]
