"""The rows of a page: times of jobs, confidences, what failed in which words, and the least sure results."""

from __future__ import annotations

import json
from dataclasses import dataclass

from sqlalchemy import Connection

from orchestrator.ledger.documents import known, names
from orchestrator.ledger.scope import Scope
from orchestrator.ledger.spellings import spelt
from orchestrator.ledger.sql import GOOD_SQL, IN_FLIGHT_SQL, OPEN_SQL, scalar_int, text
from orchestrator.models import Config, Json


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


def kept_settings(connection: Connection, manifest_id: int) -> tuple[Config, dict[str, Json]]:
    """The config of the latest run, and what ``keep_settings`` kept; empty before a run of this version."""
    row = connection.execute(
        text("SELECT c.canonical, m.settings FROM manifests m JOIN configs c ON c.id = m.config_id WHERE m.id = :id"),
        {"id": manifest_id},
    ).one()
    return Config.from_canonical(row.canonical), json.loads(row.settings)
