"""Taking jobs into the ledger that it did not send: of a lost ledger, or of an earlier script."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection

from orchestrator.ledger.chunks import cutting
from orchestrator.ledger.scope import Scope
from orchestrator.ledger.sql import GOOD_SQL, text


def to_take_in(
    connection: Connection, scope: Scope, file_ids: Collection[str], *, fixed_by: str | None, escalation: bool
) -> list[str]:
    """Return those of *file_ids* for which a job may say more than the ledger does, in the manifest's order.

    Not those in flight, nor those with a good result, unless the run *fixed_by* has just adopted it from an older job.
    A second opinion (*escalation*) is for those that have a good result and no other such opinion.
    """
    cutting.name_files(connection, file_ids)
    known = f"(f.standing = 1 AND r.outcome IN {GOOD_SQL})"
    kept_back = (
        "j.escalation = 1"
        if escalation
        else f"({known} AND (CAST(:fixed_by AS TEXT) IS NULL OR j.run_id <> :fixed_by))"
    )
    rows = connection.execute(
        # CROSS: from the few files of one job, not from all that the manifest has.
        text(f"""
        WITH known AS (
          SELECT f.file_id, max(CASE WHEN r.outcome IS NULL OR {kept_back} THEN 1 ELSE 0 END) AS kept_back,
                 max(CASE WHEN {known} THEN 1 ELSE 0 END) AS good
          FROM named n CROSS JOIN files f JOIN jobs j ON j.id = f.chunk_id LEFT JOIN results r ON r.file_row = f.id
          WHERE f.file_id = n.file_id AND f.manifest_id = :manifest_id AND f.config_id = :config_id GROUP BY f.file_id)
        SELECT w.file_id FROM named n CROSS JOIN wanted w LEFT JOIN known k ON k.file_id = w.file_id
        WHERE w.file_id = n.file_id
          AND {"k.good = 1 AND k.kept_back = 0" if escalation else "coalesce(k.kept_back, 0) = 0"} ORDER BY w.position
        """),
        {
            "manifest_id": scope.manifest_id,
            "config_id": scope.config_id,
            **({} if escalation else {"fixed_by": fixed_by}),
        },
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
    cutting.choose_named(connection, scope, file_ids)
    cutting.cut(
        connection,
        scope,
        chunk_size=len(file_ids),
        job_config_id=job_config_id,
        api=api,
        run_id=run_id,
        at=at,
        escalation=escalation,
        job_id=job_id,
    )
    return cutting.last_chunk(connection)
