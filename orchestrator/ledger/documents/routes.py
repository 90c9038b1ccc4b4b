"""The journal of what was sorted where: written before a document is touched, so that a killed call can be finished."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection

from orchestrator.ledger.sql import scalar_int, text
from orchestrator.ledger.views.export import why_review
from orchestrator.models import Outcome

PLANNED, DONE, UNDONE = "planned", "done", "undone"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A document whose content has an outcome under the manifest's current rules; ``path`` in its stored form."""

    path: str
    content: str
    gone: bool
    outcome: Outcome
    type: str | None
    confidence: float | None
    review: str | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the journal: *document* was (to be) brought from *source* to *target*. All in the stored form."""

    id: int
    document: str
    content: str
    source: str
    target: str
    how: str
    status: str


class Move(NamedTuple):
    """*document* is to be brought from *source* to *target*. All in the stored form."""

    document: str
    content: str
    source: str
    target: str
    how: str


def candidates(connection: Connection, manifest_id: int) -> list[Candidate]:
    """The documents with an outcome, in the order in which they were first found."""
    rows = connection.execute(
        text("""
        SELECT d.path, d.content, d.gone, r.outcome, r.type, r.confidence, m.review
        FROM documents d JOIN manifests m ON m.name = d.manifest
        JOIN files f ON f.manifest_id = m.id AND f.file_id = d.content AND f.config_id = m.config_id AND f.standing = 1
        JOIN results r ON r.file_row = f.id
        WHERE m.id = :manifest_id ORDER BY d.id
        """),
        {"manifest_id": manifest_id},
    ).all()
    review = json.loads(rows[0].review) if rows else {}
    return [
        Candidate(
            row.path,
            row.content,
            bool(row.gone),
            Outcome(row.outcome),
            row.type,
            row.confidence,
            why_review(row.outcome, row.confidence, review),
        )
        for row in rows
    ]


def without_outcome(connection: Connection, manifest_id: int) -> int:
    """How many documents that are in their place have no outcome under the manifest's current rules."""
    return scalar_int(
        connection,
        """
        SELECT count(*) FROM documents d JOIN manifests m ON m.name = d.manifest
        WHERE m.id = :manifest_id AND d.gone = 0 AND NOT EXISTS
          (SELECT 1 FROM files f JOIN results r ON r.file_row = f.id WHERE f.manifest_id = m.id
           AND f.file_id = d.content AND f.config_id = m.config_id AND f.standing = 1)
        """,
        manifest_id=manifest_id,
    )


def listed(connection: Connection, manifest_id: int) -> list[tuple[str, Outcome, str | None, float | None, str | None]]:
    """File ID, outcome, type, confidence and why to review, of the files that are no documents."""
    rows = connection.execute(
        text("""
        SELECT f.file_id, r.outcome, r.type, r.confidence, m.review
        FROM files f JOIN manifests m ON m.id = f.manifest_id AND m.config_id = f.config_id
        JOIN results r ON r.file_row = f.id
        WHERE m.id = :manifest_id AND f.standing = 1 AND f.file_id NOT LIKE 'sha256:%' ORDER BY f.id
        """),
        {"manifest_id": manifest_id},
    ).all()
    review = json.loads(rows[0].review) if rows else {}
    return [
        (
            row.file_id,
            Outcome(row.outcome),
            row.type,
            row.confidence,
            why_review(row.outcome, row.confidence, review),
        )
        for row in rows
    ]


def journal(connection: Connection, manifest_id: int) -> list[Entry]:
    """Every line that was not undone, oldest first."""
    return _entries(connection, "status <> 'undone'", manifest_id=manifest_id)


def last_batch(connection: Connection, manifest_id: int) -> list[Entry]:
    """The lines of the last call that are not undone, newest first."""
    batch = scalar_int(
        connection,
        "SELECT max(batch) FROM routes WHERE manifest_id = :manifest_id AND status <> 'undone'",
        manifest_id=manifest_id,
    )
    found = _entries(connection, "status <> 'undone' AND batch = :batch", manifest_id=manifest_id, batch=batch)
    return found[::-1]


def plan(connection: Connection, manifest_id: int, moves: Sequence[Move], *, at: str) -> list[Entry]:
    """Write down *moves* as one batch, before any of them is made."""
    batch = 1 + scalar_int(
        connection, "SELECT max(batch) FROM routes WHERE manifest_id = :manifest_id", manifest_id=manifest_id
    )
    rows = [
        {
            "manifest_id": manifest_id,
            "batch": batch,
            "document": document,
            "content": content,
            "source": source,
            "target": target,
            "how": how,
            "at": at,
        }
        for document, content, source, target, how in moves
    ]
    if rows:
        connection.execute(
            text("""
            INSERT INTO routes (manifest_id, batch, document, content, source, target, how, status, at)
            VALUES (:manifest_id, :batch, :document, :content, :source, :target, :how, 'planned', :at)
            """),
            rows,
        )
    return _entries(connection, "status = 'planned' AND batch = :batch", manifest_id=manifest_id, batch=batch)


def mark(connection: Connection, ids: Sequence[int], status: str, *, at: str) -> None:
    if ids:
        connection.execute(
            text("UPDATE routes SET status = :status, at = :at WHERE id = :id"),
            [{"id": each, "status": status, "at": at} for each in ids],
        )


def _entries(connection: Connection, which: str, **parameters: int) -> list[Entry]:
    rows = connection.execute(
        text(
            "SELECT id, document, content, source, target, how, status FROM routes "
            f"WHERE manifest_id = :manifest_id AND {which} ORDER BY id"
        ),
        parameters,
    )
    return [Entry(*row) for row in rows]
