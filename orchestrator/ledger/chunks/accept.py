"""A person's verdict on a file: one more generation, which no API call made.

A verdict names a type, or *dismisses* the file: it stays failed, and nobody needs to look at it again. A failure is
*known* when it was there at the end of the latest run that finished.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from sqlalchemy import Connection

from orchestrator.ledger import jobs
from orchestrator.ledger.chunks import cutting
from orchestrator.ledger.scope import Scope, Staged
from orchestrator.ledger.sql import GOOD_SQL, scalar_int, text
from orchestrator.models import FileResult, JobStatus, Outcome, canonical_id

#: What ``jobs.api`` says of a verdict.
PERSON = "person"


#: From the bad results, which have an index of their own, to their files and jobs.
_BAD = f"""results r CROSS JOIN files f CROSS JOIN jobs j
    WHERE f.id = r.file_row AND j.id = f.chunk_id AND r.outcome NOT IN {GOOD_SQL}
      AND f.manifest_id = :manifest_id AND f.config_id = :config_id AND f.standing = 1"""

_WANTED = "AND EXISTS (SELECT 1 FROM wanted w WHERE w.file_id = f.file_id)"


def standing(connection: Connection, scope: Scope, file_id: str) -> tuple[Outcome, str | None] | None:
    """The outcome and type that count for *file_id*; None when it has none yet."""
    row = connection.execute(
        text(
            "SELECT r.outcome, r.type FROM files f JOIN results r ON r.file_row = f.id "
            "WHERE f.manifest_id = :manifest_id AND f.file_id = :file_id AND f.config_id = :config_id "
            "AND f.standing = 1"
        ),
        {"manifest_id": scope.manifest_id, "config_id": scope.config_id, "file_id": canonical_id(file_id)},
    ).first()
    return None if row is None else (Outcome(row.outcome), row.type)


def is_known(connection: Connection, scope: Scope, file_id: str) -> bool:
    """Whether the manifest was ever run with *file_id*, under whichever rules."""
    found = text("SELECT count(*) FROM files WHERE manifest_id = :manifest_id AND file_id = :file_id")
    return bool(
        connection.execute(found, {"manifest_id": scope.manifest_id, "file_id": canonical_id(file_id)}).scalar_one()
    )


def accept(
    connection: Connection,
    scope: Scope,
    file_id: str,
    label: str | None,
    *,
    run_id: str,
    at: str,
    words: str = "accepted by a person",
) -> None:
    """Record that *file_id* is a *label* (None: of no type), whatever the API said; *words* say who did, and why."""
    outcome = Outcome.CLASSIFIED if label is not None else Outcome.UNMATCHED
    _record(connection, scope, FileResult(file_id, outcome, label, 1.0, words), run_id=run_id, at=at)


def dismiss(
    connection: Connection, scope: Scope, file_ids: Collection[str], *, run_id: str, at: str, words: str
) -> None:
    """Record of each of *file_ids*, which ended badly, that a person leaves it so; the API's words stay."""
    for file_id in map(canonical_id, file_ids):
        row = connection.execute(
            text(f"SELECT r.outcome, r.error FROM {_BAD} AND f.file_id = :file_id"),
            {"manifest_id": scope.manifest_id, "config_id": scope.config_id, "file_id": file_id},
        ).one()
        left = FileResult(file_id, Outcome(row.outcome), reasoning=words, error=row.error)
        _record(connection, scope, left, run_id=run_id, at=at)


def undecided(connection: Connection, scope: Scope, error: str | None = None) -> list[str]:
    """The files that ended badly and were not dismissed, in order; with *error*, those whose error has that text."""
    rows = connection.execute(
        text(f"SELECT f.file_id, r.error FROM {_BAD} AND j.api <> :person ORDER BY f.id"),
        {"manifest_id": scope.manifest_id, "config_id": scope.config_id, "person": PERSON},
    )
    return [row.file_id for row in rows if error is None or error.lower() in (row.error or "").lower()]


def dismissed(connection: Connection, scope: Scope, *, staged: Staged | None) -> int:
    """How many files a person has dismissed: of the staged ones (*staged*), or of all that the ledger has."""
    return scalar_int(
        connection,
        f"SELECT count(*) FROM {_BAD} AND j.api = :person {_WANTED if staged else ''}",
        manifest_id=scope.manifest_id,
        config_id=scope.config_id,
        person=PERSON,
    )


def known_failures(
    connection: Connection,
    scope: Scope,
    *,
    staged: Staged,  # so that they are
) -> int:
    """Count the *staged* files that ended badly before the latest run that finished (exit 0 or 1) had ended.

    Without those that somebody dismissed; 0 without such a run.
    """
    latest = connection.execute(
        text(
            "SELECT max(finished_at) FROM runs WHERE manifest_id = :manifest_id AND exit_code IN (0, 1) "
            "AND command IN ('run', 'retry')"
        ),
        {"manifest_id": scope.manifest_id},
    ).scalar_one()
    if latest is None:
        return 0
    return scalar_int(
        connection,
        f"""
        SELECT count(*) FROM {_BAD} AND j.api <> :person {_WANTED}
        AND (SELECT CASE WHEN r0.outcome IN {GOOD_SQL} THEN 0 ELSE 1 END
             FROM files f0 JOIN results r0 ON r0.file_row = f0.id JOIN jobs j0 ON j0.id = f0.chunk_id
             WHERE f0.manifest_id = f.manifest_id AND f0.file_id = f.file_id AND j0.finished_at <= :latest
             ORDER BY f0.id DESC LIMIT 1) = 1
        """,
        manifest_id=scope.manifest_id,
        config_id=scope.config_id,
        person=PERSON,
        latest=latest,
    )


def _withdraw(connection: Connection, scope: Scope, file_id: str) -> None:
    """Take *file_id* out of the chunks that were planned and never sent: nobody needs to pay for it any more."""
    unsent = "SELECT id FROM jobs WHERE manifest_id = :manifest_id AND status = 'pending' AND sends = 0"
    mine = f"manifest_id = :manifest_id AND file_id = :file_id AND config_id = :config_id AND chunk_id IN ({unsent})"
    values = {"manifest_id": scope.manifest_id, "config_id": scope.config_id, "file_id": file_id}
    chunks = list(connection.execute(text(f"SELECT chunk_id FROM files WHERE {mine}"), values).scalars())
    connection.execute(text(f"DELETE FROM files WHERE {mine}"), values)
    for chunk_id in chunks:
        left = scalar_int(connection, "SELECT count(*) FROM files WHERE chunk_id = :chunk_id", chunk_id=chunk_id)
        if left:
            connection.execute(text("UPDATE jobs SET size = :left WHERE id = :id"), {"left": left, "id": chunk_id})
            continue
        connection.execute(text("DELETE FROM events WHERE chunk_id = :id"), {"id": chunk_id})
        connection.execute(text("DELETE FROM jobs WHERE id = :id"), {"id": chunk_id})


def _record(connection: Connection, scope: Scope, verdict: FileResult, *, run_id: str, at: str) -> None:
    verdict = replace(verdict, file_id=canonical_id(verdict.file_id))
    _withdraw(connection, scope, verdict.file_id)
    chunk_id = cutting.last_chunk(connection) + 1
    cutting.choose_named(connection, scope, [verdict.file_id])
    cutting.cut(
        connection,
        scope,
        chunk_size=1,
        job_config_id=scope.config_id,
        api=PERSON,
        run_id=run_id,
        at=at,
        job_id=f"verdict-{chunk_id}",
    )
    (row,) = jobs.file_rows(connection, chunk_id).values()  # an uploaded document's has its file's ID, not its content
    jobs.end(
        connection,
        chunk_id,
        JobStatus.SUCCEEDED,
        [(row, verdict)],
        at=at,
        api_status="ACCEPTED",
        credits=0.0,
    )
