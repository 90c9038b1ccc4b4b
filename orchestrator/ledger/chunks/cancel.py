"""Jobs that have not ended for too long, with files that a retry is to send again, now or once they are cancelled."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from sqlalchemy import Connection

from orchestrator.ledger.chunks.accept import PERSON
from orchestrator.ledger.chunks.cutting import choose, name_files
from orchestrator.ledger.chunks.plan import stage
from orchestrator.ledger.chunks.retry import SUBMISSIONS, Allowed, Selection
from orchestrator.ledger.scope import Scope
from orchestrator.ledger.spellings import spelt
from orchestrator.ledger.sql import GOOD_SQL, IN_FLIGHT_SQL, text


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


def choose_stale(connection: Connection, scope: Scope, file_ids: Collection[str] | None, *, since: str) -> int:
    """Choose, for the next cut, the wanted files that v1 jobs in flight since before *since* keep waiting; how many.

    Of *file_ids* only, if given. Not those with a good result or a person's verdict, nor those that another chunk is to
    classify, under whichever rules.
    """
    stale = f"{{job}}.api = 'v1' AND {{job}}.status IN {IN_FLIGHT_SQL} AND {{job}}.submitted_at < :since"
    if file_ids is not None:
        name_files(connection, file_ids)
    return choose(
        connection,
        f"""
        SELECT w.position, w.file_id, 1 + max(f.generation) AS generation
        FROM wanted w
        JOIN files f ON f.manifest_id = :manifest_id AND f.file_id = w.file_id AND f.config_id = :config_id
        JOIN jobs j ON j.id = f.chunk_id
        WHERE NOT EXISTS (
            SELECT 1 FROM files n JOIN jobs nj ON nj.id = n.chunk_id LEFT JOIN results nr ON nr.file_row = n.id
            WHERE n.manifest_id = :manifest_id AND n.file_id = w.file_id AND (
              (nr.file_row IS NULL AND NOT ({stale.format(job="nj")}))
              OR (n.config_id = :config_id AND (nj.api = '{PERSON}' OR n.standing = 1 AND nr.outcome IN {GOOD_SQL}))))
          {"AND w.file_id IN (SELECT file_id FROM named)" if file_ids is not None else ""}
        GROUP BY w.position, w.file_id
        HAVING max(CASE WHEN {stale.format(job="j")} THEN 1 ELSE 0 END) = 1
        """,
        scope,
        since=since,
    )
