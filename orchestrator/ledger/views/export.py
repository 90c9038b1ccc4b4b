"""The rows of an export."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache

from sqlalchemy import Connection, bindparam

from orchestrator.ledger.documents.names import name_of
from orchestrator.ledger.spellings import spelt
from orchestrator.ledger.sql import text
from orchestrator.models import Json, Outcome

#: ``orchestrator export``'s columns, in order. Part of the command line's contract.
COLUMNS = (
    "manifest", "file_id", "outcome", "type", "confidence", "reasoning", "error", "review", "job_id", "chunk_id", "api",
    "mode", "generation", "fingerprint", "run_id", "submitted_at", "finished_at", "name", "document", "content",
    "api_status", "job_error", "credits", "parse_job_id", "job_record_id", "user_id", "project_id", "created_at",
    "updated_at", "effective_at",
)  # fmt: skip


def column_of(title: str) -> str:
    """The column of an export for the further column *title* of a list."""
    return f"list_{title}" if title in (*COLUMNS, "rehearsal") else title


def export_rows(
    connection: Connection, manifest_ids: list[int], *, history: bool = False, further: Sequence[str] = ()
) -> Iterator[tuple[Json, ...]]:
    """One row of COLUMNS for each file with an outcome, or for each document of its content, streamed, in plan order.

    Under several configs the manifest's current one comes first, then the latest. *history*: every generation instead.
    *further*: the lists' columns that follow.
    """
    only = "1 = 1" if history else _the_standing(connection, manifest_ids)
    rows = connection.execute(
        text(f"""
        SELECT m.name, {spelt("f")} AS file_id, r.outcome, r.type, r.confidence, r.reasoning, r.error, m.review,
               j.job_id, f.chunk_id, j.api, c.canonical, f.generation, c.fingerprint, j.run_id, j.submitted_at,
               j.finished_at, n.name, d.path AS document, d.content, j.api_status, j.error AS job_error,
               j.credits, j.parse_job_id, j.job_record_id, j.user_id, j.project_id, j.api_created_at,
               j.api_updated_at, j.effective_at, n.more
        FROM files f JOIN results r ON r.file_row = f.id JOIN jobs j ON j.id = f.chunk_id
        JOIN configs c ON c.id = j.config_id JOIN manifests m ON m.id = f.manifest_id
        LEFT JOIN names n ON n.manifest = m.name AND n.file_id = f.file_id
        LEFT JOIN documents d ON d.manifest = m.name AND d.content = f.file_id AND (d.gone = 0 OR NOT EXISTS
          (SELECT 1 FROM documents o WHERE o.manifest = m.name AND o.content = f.file_id AND o.gone = 0))
        WHERE f.manifest_id IN :ids AND {only}
        ORDER BY f.id, d.path
        """).bindparams(bindparam("ids", expanding=True)),
        {"ids": manifest_ids},
        execution_options={"yield_per": 2000},
    )
    mode = cache(lambda canonical: json.loads(canonical)["mode"])
    review = cache(json.loads)
    for row in rows:
        values = list(row[:-1])
        values[COLUMNS.index("review")] = why_review(row.outcome, row.confidence, review(row.review))
        values[COLUMNS.index("mode")] = mode(row.canonical)
        values[COLUMNS.index("name")] = name_of(row.document, row.name)
        said = json.loads(row.more) if further and row.more else {}
        yield (*values, *map(said.get, further))


def _the_standing(connection: Connection, manifest_ids: list[int]) -> str:
    """SQL for: file ``f`` of manifest ``m`` has the one result that counts."""
    several = connection.execute(
        text("SELECT count(DISTINCT config_id) > 1 FROM files WHERE manifest_id IN :ids").bindparams(
            bindparam("ids", expanding=True)
        ),
        {"ids": manifest_ids},
    ).scalar_one()
    if not several:
        return "f.standing = 1"
    return """f.standing = 1 AND NOT EXISTS (
        SELECT 1 FROM files g JOIN results gr ON gr.file_row = g.id
        WHERE g.manifest_id = f.manifest_id AND g.file_id = f.file_id AND g.standing = 1 AND g.id <> f.id
          AND (g.config_id = m.config_id, g.config_id) > (f.config_id = m.config_id, f.config_id))"""


def why_review(outcome: str, confidence: float | None, review: dict[str, Json]) -> str | None:
    """Why a person should look at a result; None when nobody needs to."""
    below = review.get("below_confidence")
    if outcome == Outcome.CLASSIFIED and below is not None and (confidence or 0.0) < below:
        return "low_confidence"
    if outcome == Outcome.UNMATCHED and review.get("unmatched"):
        return "unmatched"
    return None
