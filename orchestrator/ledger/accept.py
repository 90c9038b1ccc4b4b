"""A person's verdict on a file: one more generation, which no API call made."""

from __future__ import annotations

from sqlalchemy import Connection, text

from orchestrator.ledger import jobs
from orchestrator.ledger.scope import Scope
from orchestrator.ledger.sql import scalar_int
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
    chunk_id = scalar_int(connection, "SELECT max(id) FROM jobs") + 1
    parameters = {
        "id": chunk_id,
        "manifest_id": scope.manifest_id,
        "config_id": scope.config_id,
        "run_id": run_id,
        "api": PERSON,
        "job_id": f"verdict-{chunk_id}",
        "at": at,
        "file_id": file_id,
    }
    connection.execute(
        text(
            "INSERT INTO jobs (id, manifest_id, config_id, run_id, api, size, status, job_id, sent_at, submitted_at, "
            "changed_at) VALUES (:id, :manifest_id, :config_id, :run_id, :api, 1, 'submitted', :job_id, :at, :at, :at)"
        ),
        parameters,
    )
    connection.execute(
        text(
            "INSERT INTO files (chunk_id, manifest_id, config_id, file_id, generation, standing) "
            "SELECT :id, manifest_id, config_id, file_id, 1 + max(generation), 0 FROM files "
            "WHERE manifest_id = :manifest_id AND file_id = :file_id AND config_id = :config_id"
        ),
        parameters,
    )
    outcome = Outcome.CLASSIFIED if label is not None else Outcome.UNMATCHED
    verdict = FileResult(file_id, outcome, label, 1.0, "accepted by a person")
    rows = jobs.file_rows(connection, chunk_id)
    jobs.end(
        connection, chunk_id, JobStatus.SUCCEEDED, [(rows[file_id], verdict)], at=at, api_status="ACCEPTED", credits=0.0
    )
