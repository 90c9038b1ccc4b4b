"""What jobs were billed, as far as the API has told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, text

from orchestrator.ledger.accept import PERSON
from orchestrator.ledger.queue import Shard
from orchestrator.models import Config


def unbilled(connection: Connection, shard: Shard, *, since: str, but_of_run: str, most: int) -> dict[str, int]:
    """Job id -> chunk id of ended jobs whose bill is unknown, ended *since* then, by runs other than *but_of_run*."""
    rows = connection.execute(
        text(
            "SELECT job_id, id FROM jobs WHERE manifest_id = :manifest_id AND api = :api AND credits IS NULL "
            "AND job_id IS NOT NULL AND finished_at >= :since AND run_id <> :run_id ORDER BY id LIMIT :most"
        ),
        {"manifest_id": shard.manifest_id, "api": shard.api, "since": since, "run_id": but_of_run, "most": most},
    )
    return {row.job_id: row.id for row in rows}


def bill(connection: Connection, bills: Mapping[int, float]) -> None:
    """Record each chunk's credits, once: a job's bill does not change."""
    if bills:
        connection.execute(
            text("UPDATE jobs SET credits = :credits WHERE id = :id AND credits IS NULL"),
            [{"id": chunk_id, "credits": value} for chunk_id, value in bills.items()],
        )


def ceiling_of_run(connection: Connection, run_id: str) -> int:
    """The most credits that the jobs this run planned can cost, as far as that is known."""
    rows = connection.execute(
        text(
            "SELECT c.canonical, CAST(sum(j.size) AS INTEGER) AS files "
            "FROM jobs j JOIN configs c ON c.id = j.config_id WHERE j.run_id = :run_id GROUP BY c.id, c.canonical"
        ),
        {"run_id": run_id},
    )
    return sum(Config.from_canonical(row.canonical).credits_ceiling(row.files) or 0 for row in rows)


@dataclass(frozen=True, slots=True)
class Spent:
    """Credits known to be billed, for how many jobs, and for how many more the API has not told."""

    credits: float
    jobs_billed: int
    jobs_untold: int


def spent(connection: Connection, manifest_id: int) -> Spent:
    """What the manifest's jobs were billed so far."""
    row = connection.execute(
        text(
            "SELECT coalesce(sum(credits), 0) AS credits, count(credits) AS jobs, "
            "count(job_id) - count(credits) AS untold "
            "FROM jobs WHERE manifest_id = :manifest_id AND api <> :person"
        ),
        {"manifest_id": manifest_id, "person": PERSON},
    ).one()
    return Spent(row.credits, row.jobs, row.untold)


def spent_by_run(connection: Connection, run_id: str) -> float | None:
    """Credits known to be billed to the jobs that this run planned; None when the API has told of none."""
    found = connection.execute(text("SELECT sum(credits) FROM jobs WHERE run_id = :run_id"), {"run_id": run_id})
    total = found.scalar_one()
    return None if total is None else float(total)
