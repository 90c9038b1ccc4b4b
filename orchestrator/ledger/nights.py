"""What each run recorded, counted as it was recorded: reading thirty runs costs the same for any number of files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, text

from orchestrator.models import Json


@dataclass(frozen=True, slots=True)
class Run:
    """One row of ``runs``. ``finished_at``, ``exit_code`` and ``summary`` are None until the run has ended."""

    id: str
    command: str
    api: str
    started_at: str
    finished_at: str | None
    exit_code: int | None
    summary: dict[str, Json] | None


@dataclass(frozen=True, slots=True)
class Tally:
    """So many files of one run got this answer. ``type`` is "" without one, ``percent`` (of confidence) then 0."""

    run_id: str
    outcome: str
    type: str
    percent: int
    files: int


def count(connection: Connection, chunk_id: int) -> None:
    """Add the results of a chunk that has just ended to those of the run that is going on."""
    connection.execute(
        text("""
        INSERT INTO run_tallies (run_id, outcome, type, percent, files)
        SELECT n.run_id, n.outcome, n.type, n.percent, count(*) FROM (
          SELECT (SELECT u.id FROM runs u WHERE u.manifest_id = f.manifest_id
                  ORDER BY u.started_at DESC, u.id DESC LIMIT 1) AS run_id,
                 r.outcome, coalesce(r.type, '') AS type, r.percent
          FROM files f JOIN results r ON r.file_row = f.id WHERE f.chunk_id = :chunk_id
        ) AS n WHERE 1 = 1 GROUP BY n.run_id, n.outcome, n.type, n.percent
        ON CONFLICT (run_id, outcome, type, percent) DO UPDATE SET files = run_tallies.files + excluded.files
        """),
        {"chunk_id": chunk_id},
    )


def latest(connection: Connection, manifest_id: int, most: int) -> list[Run]:
    """The latest runs, newest first, without those that only recorded a person's verdicts."""
    rows = connection.execute(
        text(
            "SELECT id, command, api, started_at, finished_at, exit_code, summary FROM runs "
            "WHERE manifest_id = :manifest_id AND command <> 'accept' ORDER BY started_at DESC, id DESC LIMIT :most"
        ),
        {"manifest_id": manifest_id, "most": most},
    )
    return [
        Run(
            row.id,
            row.command,
            row.api,
            row.started_at,
            row.finished_at,
            row.exit_code,
            json.loads(row.summary) if row.summary else None,
        )
        for row in rows
    ]


def recorded(connection: Connection, run_ids: Sequence[str]) -> list[Tally]:
    """What the runs *run_ids* recorded."""
    if not run_ids:
        return []
    rows = connection.execute(
        text(
            "SELECT run_id, outcome, type, percent, files FROM run_tallies WHERE run_id IN :run_ids "
            "ORDER BY run_id, outcome, type, percent"
        ).bindparams(bindparam("run_ids", expanding=True)),
        {"run_ids": list(run_ids)},
    )
    return [Tally(*row) for row in rows]
