"""Taking jobs into the ledger that it did not send: of a lost ledger, or of an earlier script."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, text

from orchestrator.ledger.database import scalar_int
from orchestrator.ledger.planning import Scope


def unrecorded(connection: Connection, scope: Scope, file_ids: Collection[str]) -> list[str]:
    """Those of *file_ids* that the manifest wants and the ledger has nothing of, in the manifest's order."""
    connection.exec_driver_sql("CREATE TEMP TABLE IF NOT EXISTS named (file_id TEXT PRIMARY KEY)")
    connection.exec_driver_sql("DELETE FROM temp.named")
    if file_ids:
        connection.exec_driver_sql("INSERT OR IGNORE INTO temp.named VALUES (?)", [(file_id,) for file_id in file_ids])
    rows = connection.execute(
        text(
            "SELECT w.file_id FROM temp.named n JOIN temp.wanted w ON w.file_id = n.file_id "
            "WHERE NOT EXISTS (SELECT 1 FROM files f WHERE f.manifest_id = :manifest_id AND f.file_id = w.file_id "
            "AND f.config_id = :config_id) ORDER BY w.position"
        ),
        {"manifest_id": scope.manifest_id, "config_id": scope.config_id},
    )
    return list(rows.scalars())


def take_in(
    connection: Connection, scope: Scope, file_ids: Collection[str], *, api: str, run_id: str, job_id: str, at: str
) -> int:
    """A chunk for a job that the API has, as if it had been submitted *at*; its id."""
    chunk_id = scalar_int(connection, "SELECT max(id) FROM jobs") + 1
    parameters = {
        "id": chunk_id,
        "manifest_id": scope.manifest_id,
        "config_id": scope.config_id,
        "run_id": run_id,
        "api": api,
        "size": len(file_ids),
        "job_id": job_id,
        "at": at,
    }
    connection.execute(
        text(
            "INSERT INTO jobs "
            "(id, manifest_id, config_id, run_id, api, size, status, job_id, sent_at, submitted_at, changed_at) VALUES "
            "(:id, :manifest_id, :config_id, :run_id, :api, :size, 'submitted', :job_id, :at, :at, :at)"
        ),
        parameters,
    )
    connection.execute(
        text(
            "INSERT INTO files (chunk_id, manifest_id, config_id, file_id, generation, standing) "
            "VALUES (:id, :manifest_id, :config_id, :file_id, 0, 1)"
        ),
        [{**parameters, "file_id": file_id} for file_id in file_ids],
    )
    return chunk_id
