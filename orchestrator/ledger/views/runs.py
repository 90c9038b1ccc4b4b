"""The latest runs and what each recorded. It was counted then: thirty runs cost the same for any number of files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam

from orchestrator.ledger.sql import GOOD_SQL, scalar_int, text
from orchestrator.models import Json


@dataclass(frozen=True, slots=True)
class Run:
    """One run as the ledger keeps it; what has not ended, or was killed, has no exit code and no summary."""

    run_id: str
    command: str
    api: str  #: v1 or v2; ``person`` where verdicts were recorded
    started_at: str
    finished_at: str | None
    exit_code: int | None
    summary: dict[str, Json] | None

    @property
    def reason(self) -> str:
        """Why it ended so; empty without a summary, when only the manifest's lock shows what became of it."""
        return str((self.summary or {}).get("reason", ""))


#: The columns of ``runs`` that make a ``Run``.
_COLUMNS = "id, command, api, started_at, finished_at, exit_code, summary"


def _run(row: Row[Any]) -> Run:
    summary = json.loads(row.summary) if row.summary else None
    return Run(row.id, row.command, row.api, row.started_at, row.finished_at, row.exit_code, summary)


def latest(connection: Connection, manifest_id: int, most: int, *, verdicts: bool) -> list[Run]:
    """The latest runs, newest first; *verdicts*: with those that only recorded what a person said."""
    rows = connection.execute(
        text(
            f"SELECT {_COLUMNS} FROM runs WHERE manifest_id = :manifest_id "
            + ("" if verdicts else "AND command <> 'accept' ")
            + "ORDER BY started_at DESC, id DESC LIMIT :most"
        ),
        {"manifest_id": manifest_id, "most": most},
    )
    return list(map(_run, rows))


def how_many(connection: Connection, manifest_id: int, *, verdicts: bool) -> int:
    """All runs, of which ``latest`` gives some."""
    return scalar_int(
        connection,
        "SELECT count(*) FROM runs WHERE manifest_id = :manifest_id" + ("" if verdicts else " AND command <> 'accept'"),
        manifest_id=manifest_id,
    )


def latest_ended(connection: Connection, manifest_id: int, *, successful: bool) -> Run | None:
    """The latest run that has ended, or the latest that ended in 0; None before the first."""
    rows = connection.execute(
        text(
            f"SELECT {_COLUMNS} FROM runs WHERE manifest_id = :manifest_id AND command <> 'accept' "
            "AND exit_code BETWEEN 0 AND :most ORDER BY started_at DESC, id DESC LIMIT 1"
        ),
        {"manifest_id": manifest_id, "most": 0 if successful else 255},
    )
    return next(map(_run, rows), None)


@dataclass(frozen=True, slots=True)
class Retried:
    """The files that a retry planned to send once more, and how many of them have a good outcome now."""

    files: int
    good: int


def retried(connection: Connection, run_id: str) -> Retried:
    """Count the files of the jobs that the run *run_id* planned, each once."""
    row = connection.execute(
        text(f"""
        SELECT count(*) AS files, count(r.file_row) AS good
        FROM (SELECT f.manifest_id, f.file_id, f.config_id FROM jobs j JOIN files f ON f.chunk_id = j.id
              WHERE j.run_id = :run_id AND j.escalation = 0 GROUP BY f.manifest_id, f.file_id, f.config_id) AS s
        LEFT JOIN files f ON f.manifest_id = s.manifest_id AND f.file_id = s.file_id AND f.config_id = s.config_id
                         AND f.standing = 1
        LEFT JOIN results r ON r.file_row = f.id AND r.outcome IN {GOOD_SQL}
        """),
        {"run_id": run_id},
    ).one()
    return Retried(row.files, row.good)


@dataclass(frozen=True, slots=True)
class Tally:
    """So many files of one run got this answer. ``type`` is "" without one, ``percent`` (of confidence) then 0."""

    run_id: str
    outcome: str
    type: str
    percent: int
    files: int


def recorded(connection: Connection, run_ids: Sequence[str]) -> list[Tally]:
    """Return what the runs *run_ids* recorded."""
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
