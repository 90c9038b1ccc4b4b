"""Jobs that have not ended for too long, with files that a retry is to send again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, text

from orchestrator.ledger.chunks.cutting import name_files
from orchestrator.ledger.chunks.plan import stage
from orchestrator.ledger.chunks.retry import SUBMISSIONS, Allowed, Selection
from orchestrator.ledger.file_ids import spelt
from orchestrator.ledger.scope import Scope
from orchestrator.ledger.sql import IN_FLIGHT_SQL


@dataclass(frozen=True, slots=True)
class Stuck:
    """A job with one of the files that a retry is to send, which has not ended for too long."""

    chunk_id: int
    job_id: str
    api: str
    file_id: str  #: the first of them
    files: int


def select_stuck(
    connection: Connection, scope: Scope, selection: Selection, allowed: Allowed, file_ids: Iterable[str], *, since: str
) -> list[Stuck]:
    """The jobs in flight since before *since* with *file_ids* that a retry may send, once they are cancelled.

    *file_ids*, what the manifest wants, is read only when there are such jobs.
    """
    of_manifest = f"j.manifest_id = :manifest_id AND j.status IN {IN_FLIGHT_SQL} AND j.submitted_at < :since"
    parameters = {
        "manifest_id": scope.manifest_id,
        "config_id": scope.config_id,
        "since": since,
        "run_id": selection.run_id,
        "max_generations": allowed.max_generations,
    }
    some = connection.execute(text(f"SELECT EXISTS (SELECT 1 FROM jobs j WHERE {of_manifest})"), parameters)
    if not selection.of_cancelled or not some.scalar_one():
        return []
    stage(connection, file_ids)
    named = selection.file_ids is not None
    name_files(connection, selection.file_ids or ())
    conditions = {
        "f.file_id IN (SELECT file_id FROM named)": named,
        "j.run_id = :run_id": selection.run_id is not None,
        f"{SUBMISSIONS} < :max_generations": allowed.max_generations is not None and not named,
    }
    rows = connection.execute(
        text(f"""
        SELECT j.id, j.job_id, j.api, min({spelt("f")}) AS file_id, count(*) AS files
        FROM jobs j JOIN files f ON f.chunk_id = j.id JOIN wanted w ON w.file_id = f.file_id
        WHERE {of_manifest} AND f.config_id = :config_id
          {"".join(f" AND {condition}" for condition, applies in conditions.items() if applies)}
        GROUP BY j.id, j.job_id, j.api ORDER BY j.id
        """),
        parameters,
    )
    return [Stuck(row.id, row.job_id, row.api, row.file_id, row.files) for row in rows]
