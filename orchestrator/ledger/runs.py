"""The record of each execution of ``run`` and ``retry``, its results counted; forgetting what a rehearsal left open."""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Mapping
from datetime import datetime

from sqlalchemy import Connection

from orchestrator.ledger.documents import uploads
from orchestrator.ledger.sql import text
from orchestrator.models import Json


def new_id(now: datetime) -> str:
    """A run's ID: sorts by its start, and is unique on its own."""
    return f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def begin(connection: Connection, run_id: str, manifest_id: int, *, command: str, api: str, at: str) -> None:
    connection.execute(
        text(
            "INSERT INTO runs (id, manifest_id, command, api, started_at) "
            "VALUES (:id, :manifest_id, :command, :api, :at)"
        ),
        {"id": run_id, "manifest_id": manifest_id, "command": command, "api": api, "at": at},
    )


def finish(connection: Connection, run_id: str, *, exit_code: int, summary: Mapping[str, Json], at: str) -> None:
    connection.execute(
        text("UPDATE runs SET finished_at = :at, exit_code = :exit_code, summary = :summary WHERE id = :id"),
        {"id": run_id, "at": at, "exit_code": exit_code, "summary": json.dumps(summary)},
    )


def forget_open(connection: Connection, manifest_id: int) -> None:
    """Remove a rehearsal's unfinished chunks: the sandbox that had their jobs is gone. Raises ValueError otherwise."""
    found = connection.execute(text("SELECT rehearsal FROM manifests WHERE id = :id"), {"id": manifest_id})
    if not found.scalar_one():
        raise ValueError("only a rehearsal's work may be forgotten")
    open_ = "SELECT id FROM jobs WHERE manifest_id = :id AND finished_at IS NULL"
    for statement in (
        f"DELETE FROM events WHERE chunk_id IN ({open_})",
        f"DELETE FROM files WHERE chunk_id IN ({open_})",
        "DELETE FROM jobs WHERE manifest_id = :id AND finished_at IS NULL",
    ):
        connection.execute(text(statement), {"id": manifest_id})
    uploads.forget(connection, manifest_id)


def count_results(connection: Connection, chunk_id: int, *, only: Collection[int] | None = None) -> None:
    """Add the results of a chunk that has just ended to those of the run that is going on.

    *only*: those of so many rows of ``files``, which have come late.
    """
    which = "" if only is None else f" AND f.id IN ({', '.join(map(str, only))})"
    connection.execute(
        text(f"""
        INSERT INTO run_tallies (run_id, outcome, type, percent, files)
        SELECT u.id, n.outcome, n.type, n.percent, n.files FROM (
          SELECT r.outcome, coalesce(r.type, '') AS type, r.percent, count(*) AS files
          FROM files f JOIN results r ON r.file_row = f.id WHERE f.chunk_id = :chunk_id{which}
          GROUP BY r.outcome, r.type, r.percent
        ) AS n JOIN runs u ON u.id = (
          SELECT l.id FROM runs l JOIN jobs j ON j.manifest_id = l.manifest_id WHERE j.id = :chunk_id
          ORDER BY l.started_at DESC, l.id DESC LIMIT 1
        ) WHERE 1 = 1
        ON CONFLICT (run_id, outcome, type, percent) DO UPDATE SET files = run_tallies.files + excluded.files
        """),
        {"chunk_id": chunk_id},
    )
