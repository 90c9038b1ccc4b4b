"""The figures of each run, counted as they were recorded: thirty runs cost the same for any number of files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, text

from orchestrator.ledger.documents import known, names
from orchestrator.ledger.file_ids import spelt
from orchestrator.ledger.scope import Scope
from orchestrator.ledger.sql import GOOD_SQL, IN_FLIGHT_SQL, OPEN_SQL, scalar_int
from orchestrator.models import Config, Json


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


#: The columns of ``runs`` that make a ``Run``.
_COLUMNS = "id, command, api, started_at, finished_at, exit_code, summary"


def _run(row: Row[Any]) -> Run:
    summary = json.loads(row.summary) if row.summary else None
    return Run(row.id, row.command, row.api, row.started_at, row.finished_at, row.exit_code, summary)


def latest(connection: Connection, manifest_id: int, most: int) -> list[Run]:
    """The latest runs, newest first, without those that only recorded a person's verdicts."""
    rows = connection.execute(
        text(
            f"SELECT {_COLUMNS} FROM runs "
            "WHERE manifest_id = :manifest_id AND command <> 'accept' ORDER BY started_at DESC, id DESC LIMIT :most"
        ),
        {"manifest_id": manifest_id, "most": most},
    )
    return list(map(_run, rows))


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


@dataclass(frozen=True, slots=True)
class Timing:
    """When a job was given to the API and when its results were recorded; None while it has not ended."""

    submitted_at: str
    finished_at: str | None
    files: int


def timings(
    connection: Connection, manifest_id: int, since: str, until: str, most: int
) -> tuple[int, int, list[Timing]]:
    """Jobs that ended from *since* to *until*, and those that go on: when they were given to the API and ended.

    Returns how many they are, the step with which they were read (2: every second one, so that about *most* are) and
    those read, in the order of their ends.
    """
    parameters = {"manifest_id": manifest_id, "since": since, "until": until, "person": "person"}
    ended = "manifest_id = :manifest_id AND finished_at IS NOT NULL AND finished_at BETWEEN :since AND :until"
    # The open statuses first, as the index of open jobs has them.
    going_on = f"manifest_id = :manifest_id AND status IN {OPEN_SQL} AND status IN {IN_FLIGHT_SQL}"
    number = sum(
        scalar_int(connection, f"SELECT count(*) FROM jobs WHERE {which}", **parameters) for which in (ended, going_on)
    )
    step = max(1, -(-number // most))
    columns = "id, submitted_at, finished_at, size"
    only = "submitted_at IS NOT NULL AND api <> :person AND id % :step = 0"
    rows = connection.execute(
        text(
            "SELECT t.submitted_at, t.finished_at, t.size FROM ("
            f"SELECT {columns} FROM jobs WHERE {ended} AND {only} "
            f"UNION ALL SELECT {columns} FROM jobs WHERE {going_on} AND {only}"
            ") AS t ORDER BY t.finished_at, t.id"
        ),
        {**parameters, "step": step},
    )
    return number, step, [Timing(*row) for row in rows]


def confidences(connection: Connection, scope: Scope) -> dict[str, dict[int, int]]:
    """Type -> confidence in whole percent (0 without one) -> files, of all files classified under *scope*."""
    rows = connection.execute(
        text(
            "SELECT type, percent, files FROM tallies WHERE manifest_id = :manifest_id AND config_id = :config_id "
            "AND outcome = 'classified' AND files > 0 ORDER BY type, percent"
        ),
        {"manifest_id": scope.manifest_id, "config_id": scope.config_id},
    )
    found: dict[str, dict[int, int]] = {}
    for row in rows:
        found.setdefault(row.type, {})[row.percent] = row.files
    return found


@dataclass(frozen=True, slots=True)
class Failure:
    """So many files ended badly with exactly these words; two of them by ID, and by what they are called."""

    outcome: str
    error: str
    files: int
    first: str
    last: str
    first_name: str
    last_name: str


def failures(connection: Connection, scope: Scope, most: int) -> list[Failure]:
    """The latest *most* files that ended badly, by outcome and the API's words."""
    rows = connection.execute(
        text(f"""
        SELECT g.outcome, g.error, g.files, {spelt("a")} AS first_id, {spelt("z")} AS last_id,
               {known.path("a")} AS first_document, {names.listed("a")} AS first_listed,
               {known.path("z")} AS last_document, {names.listed("z")} AS last_listed
        FROM (
          SELECT b.outcome, b.error, count(*) AS files, min(b.file_row) AS first_row, max(b.file_row) AS last_row
          FROM (
            SELECT r.outcome, coalesce(r.error, '') AS error, r.file_row
            FROM results r CROSS JOIN files f  -- from the bad results, which have an index of their own
            WHERE f.id = r.file_row AND r.outcome NOT IN {GOOD_SQL}
              AND f.manifest_id = :manifest_id AND f.config_id = :config_id AND f.standing = 1
            ORDER BY r.file_row DESC LIMIT :most
          ) AS b GROUP BY b.outcome, b.error
        ) AS g JOIN files a ON a.id = g.first_row JOIN files z ON z.id = g.last_row
        ORDER BY g.files DESC, g.outcome, g.error
        """),
        {"manifest_id": scope.manifest_id, "config_id": scope.config_id, "most": most},
    )
    return [
        Failure(
            r.outcome,
            r.error,
            r.files,
            r.first_id,
            r.last_id,
            names.name_of(r.first_document, r.first_listed) or r.first_id,
            names.name_of(r.last_document, r.last_listed) or r.last_id,
        )
        for r in rows
    ]


@dataclass(frozen=True, slots=True)
class Doubtful:
    """One result that a person should look at."""

    file_id: str
    outcome: str
    type: str | None
    confidence: float | None
    reasoning: str | None
    name: str | None  #: of its document, or as a list calls it


#: Up to here an index finds the least sure results; above it all of them are read.
_RARE = 0.9


def doubtful(
    connection: Connection, scope: Scope, *, below_confidence: float | None, unmatched: bool, most: int
) -> list[Doubtful]:
    """The *most* least sure of the results to review, then those that no rule matched."""
    found: list[Doubtful] = []
    if below_confidence is not None:
        ranges = [(-1.0, min(below_confidence, _RARE), f"AND coalesce(r.confidence, 0) < {_RARE}")]
        if below_confidence > _RARE:
            ranges.append((_RARE, below_confidence, ""))
        for least, below, hint in ranges:
            if len(found) < most:
                found += _doubtful(
                    connection,
                    scope,
                    f"r.outcome = 'classified' {hint} AND coalesce(r.confidence, 0) < :below "
                    "AND coalesce(r.confidence, 0) >= :least ORDER BY coalesce(r.confidence, 0), r.file_row",
                    most - len(found),
                    least=least,
                    below=below,
                )
    if unmatched and len(found) < most:
        found += _doubtful(connection, scope, "r.outcome = 'unmatched' ORDER BY r.file_row DESC", most - len(found))
    return found


def _doubtful(connection: Connection, scope: Scope, which: str, most: int, **parameters: float) -> list[Doubtful]:
    rows = connection.execute(
        text(
            f"SELECT {spelt('f')} AS file_id, r.outcome, r.type, r.confidence, r.reasoning, "
            f"{names.columns('f')} FROM results r CROSS JOIN files f "
            "WHERE f.id = r.file_row AND f.manifest_id = :manifest_id AND f.config_id = :config_id AND f.standing = 1 "
            f"AND {which} LIMIT :most"
        ),
        {"manifest_id": scope.manifest_id, "config_id": scope.config_id, "most": most, **parameters},
    )
    return [
        Doubtful(r.file_id, r.outcome, r.type, r.confidence, r.reasoning, names.name_of(r.document, r.listed))
        for r in rows
    ]


def held_files(connection: Connection, manifest_id: int) -> int:
    """Files in chunks that wait for a person: no run sends them."""
    return scalar_int(
        connection,
        f"SELECT sum(size) FROM jobs WHERE manifest_id = :manifest_id AND status IN {OPEN_SQL} AND held = 1",
        manifest_id=manifest_id,
    )


def keep_settings(connection: Connection, manifest_id: int, settings: Mapping[str, Json]) -> None:
    """Keep what the manifest says beside its rules, for whoever reads the ledger without it."""
    connection.execute(
        text("UPDATE manifests SET settings = :settings WHERE id = :id"),
        {"id": manifest_id, "settings": json.dumps(settings)},
    )


def kept_settings(connection: Connection, manifest_id: int) -> tuple[Config, dict[str, Json]]:
    """The config of the latest run, and what ``keep_settings`` kept; empty before a run of this version."""
    row = connection.execute(
        text("SELECT c.canonical, m.settings FROM manifests m JOIN configs c ON c.id = m.config_id WHERE m.id = :id"),
        {"id": manifest_id},
    ).one()
    return Config.from_canonical(row.canonical), json.loads(row.settings)
