"""Small pieces of work in a ledger, for the tests of what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, text

from orchestrator.ledger import jobs
from orchestrator.ledger import scope as ledger_scope
from orchestrator.ledger.chunks import cutting, retry
from orchestrator.ledger.chunks import plan as planning
from orchestrator.ledger.scope import Scope
from orchestrator.models import Config, FileResult, JobStatus, Outcome, Review, Rule

AT = "2026-11-25T02:00:00.000+00:00"


def register(
    connection: Connection, config: Config, *, name: str = "m", origin: str = "api", project: str | None = None
) -> Scope:
    return ledger_scope.register(
        connection,
        name,
        rehearsal=False,
        origin=origin,
        project_id=project,
        config=config,
        review=Review(),
        max_generations=None,
        path="m.yaml",
        sha256="0",
    )


def plan(connection: Connection, config: Config, file_ids: Sequence[str], *, size: int = 2, run_id: str = "r") -> Scope:
    """Register, stage, and cut what is new."""
    planning.stage(connection, file_ids)
    scope = register(connection, config)
    planning.select_new(connection, scope)
    cut(connection, scope, size=size, run_id=run_id)
    return scope


def cut(connection: Connection, scope: Scope, *, size: int = 2, run_id: str = "r") -> int:
    connection.execute(
        text(
            "INSERT INTO runs (id, manifest_id, command, api, started_at) VALUES (:id, :m, 'run', 'v1', :at) "
            "ON CONFLICT DO NOTHING"
        ),
        {"id": run_id, "m": scope.manifest_id, "at": AT},
    )
    return cutting.cut(
        connection, scope, chunk_size=size, job_config_id=scope.config_id, api="v1", run_id=run_id, at=AT
    )


def bring(connection: Connection, chunk_id: int, to: JobStatus) -> None:
    """Take a pending chunk to *to* by the shortest way that the stages use."""
    if to is JobStatus.PENDING:
        return
    jobs.intend(connection, [chunk_id], mark=None, at=AT)
    if to is JobStatus.SUBMITTING:
        return
    jobs.submitted(connection, chunk_id, f"job-{chunk_id}", at=AT)
    if to is not JobStatus.SUBMITTED:
        jobs.move(connection, [chunk_id], to, at=AT)


def events(connection: Connection, chunk_id: int) -> list[str]:
    rows = connection.execute(text("SELECT event FROM events WHERE chunk_id = :id ORDER BY id"), {"id": chunk_id})
    return list(rows.scalars())


SMALL = Config((Rule("invoice", "contains line items and a total"),))


def end(connection: Connection, chunk_id: int, **outcomes: Outcome) -> None:
    """End a chunk with one outcome for each of its files."""
    bring(connection, chunk_id, JobStatus.SUBMITTED)
    rows = jobs.file_rows(connection, chunk_id)
    results = [
        (rows[file_id], FileResult(file_id, outcome, "invoice" if outcome is Outcome.CLASSIFIED else None))
        for file_id, outcome in outcomes.items()
    ]
    jobs.end(connection, chunk_id, JobStatus.SUCCEEDED, results, at=AT)


def again(connection: Connection, scope: Scope, *file_ids: str, **selection: object) -> list[str]:
    """The files that a retry would choose."""
    planning.stage(connection, file_ids)
    allowed = retry.Allowed(selection.pop("max_generations", None))  # type: ignore[arg-type]  # by name
    retry.select_again(connection, scope, retry.Selection(**selection), allowed)  # type: ignore[arg-type]  # by name
    return cutting.chosen(connection, 99)


def classify(
    connection: Connection, config: Config, file_ids: Sequence[str], outcome: Outcome = Outcome.CLASSIFIED
) -> None:
    """Plan *file_ids* in one chunk, and end it with that outcome for each."""
    plan(connection, config, file_ids, size=len(file_ids))
    end(connection, cutting.last_chunk(connection), **dict.fromkeys(file_ids, outcome))


def answer(
    connection: Connection,
    chunk_id: int,
    result: FileResult,
    to: JobStatus = JobStatus.SUCCEEDED,
    *,
    at: str = AT,
    **changes: object,
) -> None:
    """End a chunk of one file with *result*."""
    bring(connection, chunk_id, JobStatus.SUBMITTED)
    (row,) = jobs.rows_of(connection, chunk_id)
    jobs.end(connection, chunk_id, to, [(row, result)], at=at, **changes)
