"""The record of each execution of ``run`` and ``retry``; and forgetting what a rehearsal left open."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Connection, text

from orchestrator.ledger.documents import uploads
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
