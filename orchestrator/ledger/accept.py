"""A person's verdict on a file: one more generation, which no API call made."""

from __future__ import annotations

from sqlalchemy import Connection, text

from orchestrator.ledger import jobs, plan
from orchestrator.ledger.scope import Scope
from orchestrator.models import FileResult, JobStatus, Outcome

#: What ``jobs.api`` says of a verdict.
PERSON = "person"


def standing(connection: Connection, scope: Scope, file_id: str) -> tuple[Outcome, str | None] | None:
    """The outcome and type that count for *file_id*; None when it has none yet."""
    row = connection.execute(
        text(
            "SELECT r.outcome, r.type FROM files f JOIN results r ON r.file_row = f.id "
            "WHERE f.manifest_id = :manifest_id AND f.file_id = :file_id AND f.config_id = :config_id "
            "AND f.standing = 1"
        ),
        {"manifest_id": scope.manifest_id, "config_id": scope.config_id, "file_id": file_id},
    ).first()
    return None if row is None else (Outcome(row.outcome), row.type)


def accept(connection: Connection, scope: Scope, file_id: str, label: str | None, *, run_id: str, at: str) -> None:
    """Record that *file_id* is a *label* (None: of no type), whatever the API said."""
    chunk_id = plan.last_chunk(connection) + 1
    plan.choose_named(connection, scope, [file_id])
    plan.cut(
        connection,
        scope,
        chunk_size=1,
        job_config_id=scope.config_id,
        api=PERSON,
        run_id=run_id,
        at=at,
        job_id=f"verdict-{chunk_id}",
    )
    outcome = Outcome.CLASSIFIED if label is not None else Outcome.UNMATCHED
    verdict = FileResult(file_id, outcome, label, 1.0, "accepted by a person")
    rows = jobs.file_rows(connection, chunk_id)
    jobs.end(
        connection, chunk_id, JobStatus.SUCCEEDED, [(rows[file_id], verdict)], at=at, api_status="ACCEPTED", credits=0.0
    )
