"""The credits that jobs were billed, as far as the API has said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from orchestrator.ledger.chunks.accept import PERSON
from orchestrator.ledger.queue import Shard
from orchestrator.ledger.sql import text
from orchestrator.models import Config


def unbilled(connection: Connection, shard: Shard, *, since: str, run_id: str, mine: bool, most: int) -> dict[str, int]:
    """Job id -> chunk id of jobs ended *since* then whose bill is unknown; *mine*: those of *run_id*, or all others."""
    which = "run_id = :run_id" if mine else "run_id <> :run_id"
    rows = connection.execute(
        text(
            "SELECT job_id, id FROM jobs WHERE manifest_id = :manifest_id AND api = :api AND credits IS NULL "
            f"AND job_id IS NOT NULL AND finished_at >= :since AND {which} ORDER BY id LIMIT :most"
        ),
        {"manifest_id": shard.manifest_id, "api": shard.api, "since": since, "run_id": run_id, "most": most},
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
    """The most credits that the jobs of this run can cost, as far as that is known.

    That is, of the jobs it planned, and of those that an earlier run planned, or got no answer about, and this one
    sends or has sent.
    """
    rows = connection.execute(
        text(
            "SELECT c.canonical, CAST(sum(j.size) AS INTEGER) AS files "
            "FROM runs r JOIN jobs j ON j.manifest_id = r.manifest_id JOIN configs c ON c.id = j.config_id "
            "WHERE r.id = :run_id AND (j.run_id = r.id OR j.status IN ('pending', 'submitting') "
            "OR j.sent_at >= r.started_at) "
            "GROUP BY c.id, c.canonical"
        ),
        {"run_id": run_id},
    )
    return sum(Config.from_canonical(row.canonical).credits_ceiling(row.files) or 0 for row in rows)


@dataclass(frozen=True, slots=True)
class Spent:
    """Credits known to be billed, for how many jobs, and for how many more the API has not said."""

    credits: float
    jobs_billed: int
    jobs_untold: int


def spent(connection: Connection, manifest_id: int) -> Spent:
    """Return the credits that the manifest's jobs were billed so far."""
    return _spent(connection, "manifest_id = :it", manifest_id)


def spent_by_run(connection: Connection, run_id: str) -> Spent:
    """Return the credits that this run's jobs were billed so far."""
    return _spent(connection, "run_id = :it", run_id)


def _spent(connection: Connection, which: str, it: int | str) -> Spent:
    row = connection.execute(
        text(
            "SELECT coalesce(sum(credits), 0) AS credits, count(credits) AS jobs, "
            f"count(job_id) - count(credits) AS untold FROM jobs WHERE {which} AND api <> :person"
        ),
        {"it": it, "person": PERSON},
    ).one()
    return Spent(float(row.credits), row.jobs, row.untold)
