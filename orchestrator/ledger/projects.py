"""The owners of jobs: each belongs to one chunk of its manifest, and all of a manifest's to one project."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection

from orchestrator.ledger.queue import Shard, knows_a_job
from orchestrator.ledger.sql import text
from orchestrator.models import RemoteJob


def is_of_another_chunk(connection: Connection, chunk_id: int, job_id: str) -> bool:
    """Whether another chunk of the same manifest has the job already."""
    found = connection.execute(
        text(
            "SELECT 1 FROM jobs WHERE job_id = :job_id AND id <> :chunk_id "
            "AND manifest_id = (SELECT manifest_id FROM jobs WHERE id = :chunk_id)"
        ),
        {"chunk_id": chunk_id, "job_id": job_id},
    )
    return found.first() is not None


def same_project(one: str, other: str) -> bool:
    """A UUID may be spelt in capitals or without dashes."""
    first, second = (text_.replace("-", "").lower() for text_ in (one, other))
    return first == second


def project(connection: Connection, manifest_id: int) -> str | None:
    """The project that the manifest names, or else the one that its first job was made in."""
    found = connection.execute(text("SELECT project_id FROM manifests WHERE id = :id"), {"id": manifest_id}).scalar()
    return None if found is None else str(found)


def latest_job(connection: Connection, shard: Shard) -> tuple[str, str] | None:
    """The project of the shard's jobs, and the latest of them; None where the API has not reported both."""
    row = connection.execute(
        text(
            "SELECT m.project_id, j.job_id FROM jobs j JOIN manifests m ON m.id = j.manifest_id "
            "WHERE j.manifest_id = :manifest_id AND j.api = :api AND j.job_id IS NOT NULL AND m.project_id IS NOT NULL "
            "ORDER BY j.id DESC LIMIT 1"
        ),
        {"manifest_id": shard.manifest_id, "api": shard.api},
    ).first()
    return None if row is None else (row.project_id, row.job_id)


def made_in(connection: Connection, manifest_id: int, project_id: str) -> None:
    """A job of the manifest was made in *project_id*; the first to be reported stands."""
    connection.execute(
        text("UPDATE manifests SET project_id = :project_id WHERE id = :id AND project_id IS NULL"),
        {"id": manifest_id, "project_id": project_id},
    )


def seem_elsewhere(connection: Connection, shard: Shard, listed: Collection[RemoteJob]) -> bool:
    """Whether all *listed* seem to be of another project than the shard's jobs: then they prove no absence."""
    ours = project(connection, shard.manifest_id)
    projects = {job.project_id for job in listed if job.project_id}
    if ours and projects:
        return not any(same_project(ours, theirs) for theirs in projects)
    return not listed and knows_a_job(connection, shard)
