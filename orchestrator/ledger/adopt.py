"""Taking jobs into the ledger that it did not send: of a lost ledger, or of an earlier script."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, text

from orchestrator.ledger.retry import name_files
from orchestrator.ledger.scope import Scope
from orchestrator.ledger.sql import GOOD_SQL, scalar_int


def to_take_in(
    connection: Connection, scope: Scope, file_ids: Collection[str], *, mended_by: str | None, escalation: bool
) -> list[str]:
    """Those of *file_ids* of which a job may tell more than the ledger has, in the manifest's order.

    Not those under way, nor those with a good result, unless the run *mended_by* has just adopted it of an older job.
    A second opinion (*escalation*) is for those that have a good result and no other such opinion.
    """
    name_files(connection, file_ids)
    known = f"(f.standing = 1 AND r.outcome IN {GOOD_SQL})"
    kept_back = "j.escalation = 1" if escalation else f"({known} AND (:mended_by IS NULL OR j.run_id <> :mended_by))"
    rows = connection.execute(
        # CROSS: from the few files of one job, not from all that the manifest has.
        text(f"""
        WITH known AS (
          SELECT f.file_id, max(r.outcome IS NULL OR {kept_back}) AS kept_back, max({known}) AS good
          FROM temp.named n CROSS JOIN files f ON f.file_id = n.file_id
          JOIN jobs j ON j.id = f.chunk_id LEFT JOIN results r ON r.file_row = f.id
          WHERE f.manifest_id = :manifest_id AND f.config_id = :config_id GROUP BY f.file_id)
        SELECT w.file_id FROM temp.named n CROSS JOIN temp.wanted w ON w.file_id = n.file_id
        LEFT JOIN known k ON k.file_id = w.file_id
        WHERE {"k.good AND NOT k.kept_back" if escalation else "NOT coalesce(k.kept_back, 0)"} ORDER BY w.position
        """),
        {"manifest_id": scope.manifest_id, "config_id": scope.config_id, "mended_by": mended_by},
    )
    return list(rows.scalars())


def take_in(
    connection: Connection,
    scope: Scope,
    file_ids: Collection[str],
    *,
    job_config_id: int,
    escalation: bool,
    api: str,
    run_id: str,
    job_id: str,
    at: str,
) -> int:
    """A chunk for a job that the API has, as if it had been submitted *at*, its files one generation on; its id.

    *job_config_id* is what the job was created with; of a second opinion (*escalation*) it is not the scope's.
    """
    chunk_id = scalar_int(connection, "SELECT max(id) FROM jobs") + 1
    parameters = {
        "id": chunk_id,
        "manifest_id": scope.manifest_id,
        "config_id": scope.config_id,
        "job_config_id": job_config_id,
        "escalation": escalation,
        "run_id": run_id,
        "api": api,
        "size": len(file_ids),
        "job_id": job_id,
        "at": at,
    }
    connection.execute(
        text("""
        INSERT INTO jobs (id, manifest_id, config_id, run_id, api, escalation, size, status, job_id,
                          sent_at, submitted_at, changed_at)
        VALUES (:id, :manifest_id, :job_config_id, :run_id, :api, :escalation, :size, 'submitted', :job_id,
                :at, :at, :at)
        """),
        parameters,
    )
    connection.execute(
        text("""
        INSERT INTO files (chunk_id, manifest_id, config_id, file_id, generation, standing)
        SELECT :id, :manifest_id, :config_id, :file_id, coalesce(max(generation) + 1, 0), count(*) = 0
        FROM files WHERE manifest_id = :manifest_id AND config_id = :config_id AND file_id = :file_id
        """),
        [{**parameters, "file_id": file_id} for file_id in file_ids],
    )
    return chunk_id
