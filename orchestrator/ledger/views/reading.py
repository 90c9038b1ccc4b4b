"""Questions to the ledger: totals, open jobs, what needs a person and what was decided. Nothing here writes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, Row

from orchestrator.ledger.documents import names
from orchestrator.ledger.scope import Scope, Staged
from orchestrator.ledger.spellings import spelt
from orchestrator.ledger.sql import GOOD_SQL, OPEN_SQL, STATUSES_SQL, is_unfinished, later, scalar_int, text
from orchestrator.ledger.views.export import why_review
from orchestrator.models import Json, Outcome


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """A manifest as the ledger knows it."""

    id: int
    name: str
    rehearsal: bool
    origin: str
    project_id: str | None
    config_id: int
    fingerprint: str
    path: str
    review: dict[str, Json]
    max_generations: int | None  #: as the manifest said at the latest run
    api: str  #: v1 or v2, as the latest run used it


def manifests(connection: Connection, name: str | None = None, *, rehearsal: bool | None = None) -> list[ManifestRow]:
    """The manifests of this ledger, or the one called *name*."""
    rows = connection.execute(
        text(
            "SELECT m.id, m.name, m.rehearsal, m.origin, m.project_id, m.config_id, c.fingerprint, m.path, m.review, "
            "m.max_generations, coalesce((SELECT r.api FROM runs r "
            "WHERE r.manifest_id = m.id AND r.api IN ('v1', 'v2') "
            "ORDER BY r.started_at DESC, r.id DESC LIMIT 1), 'v1') AS api "
            "FROM manifests m JOIN configs c ON c.id = m.config_id "
            "WHERE (CAST(:name AS TEXT) IS NULL OR m.name = :name) "
            "AND (CAST(:rehearsal AS INTEGER) IS NULL OR m.rehearsal = :rehearsal) "
            "ORDER BY m.name, m.rehearsal"
        ),
        {"name": name, "rehearsal": None if rehearsal is None else int(rehearsal)},
    )
    return [
        ManifestRow(
            *(r.id, r.name, bool(r.rehearsal), r.origin, r.project_id, r.config_id, r.fingerprint, r.path),
            *(json.loads(r.review), r.max_generations, r.api),
        )
        for r in rows
    ]


@dataclass(frozen=True, slots=True)
class Totals:
    """How the files of one manifest stand under its current config."""

    outcomes: dict[Outcome, int]
    types: dict[str, int]
    unfinished: int
    review: int
    review_by_type: dict[str, int]  #: type, or ``unmatched`` -> files to review


def totals(connection: Connection, scope: Scope, *, staged: Staged | None, review: dict[str, Json]) -> Totals:
    """Count the staged files (*staged*), or all that the ledger has. A file that is being retried is unfinished."""
    parameters = {"manifest_id": scope.manifest_id, "config_id": scope.config_id}
    unfinished = scalar_int(
        connection,
        "SELECT count(*) FROM jobs j JOIN files f ON f.chunk_id = j.id WHERE j.manifest_id = :manifest_id "
        "AND f.config_id = :config_id "
        f"AND j.status IN {OPEN_SQL} AND {is_unfinished('f')}"
        + (" AND EXISTS (SELECT 1 FROM wanted w WHERE w.file_id = f.file_id)" if staged else ""),
        **parameters,
    )
    if staged and not _all_wanted(connection, parameters):
        counted = """
            SELECT r.outcome, coalesce(r.type, '') AS type, r.percent, count(*) AS files
            FROM wanted w JOIN files f ON f.file_id = w.file_id JOIN results r ON r.file_row = f.id
            WHERE f.manifest_id = :manifest_id AND f.config_id = :config_id AND f.standing = 1
            GROUP BY r.outcome, r.type, r.percent
        """
    else:
        counted = "SELECT * FROM tallies WHERE manifest_id = :manifest_id AND config_id = :config_id AND files > 0"
    again = _under_way_again(connection, parameters, staged=staged)
    rows = [*connection.execute(text(counted), parameters), *again]
    return _sum_up(rows, unfinished, review, onto=Totals(dict.fromkeys(Outcome, 0), {}, 0, 0, {}))


def with_other_rules(
    connection: Connection,
    scope: Scope,
    totals: Totals,
    review: dict[str, Json],
    *,
    staged: Staged,  # so that they are
) -> tuple[Totals, int]:
    """*totals* and the outcomes of *staged* files that have one only under other rules; how many were never sent.

    Those that were never sent are unfinished.
    """
    rows = connection.execute(
        text("""
        SELECT r.outcome, coalesce(r.type, '') AS type, r.percent, count(*) AS files
        FROM wanted w
        JOIN files f ON f.id = (SELECT max(o.id) FROM files o WHERE o.manifest_id = :manifest_id
                                AND o.file_id = w.file_id AND o.standing = 1)
        JOIN results r ON r.file_row = f.id
        WHERE NOT EXISTS (SELECT 1 FROM files o WHERE o.manifest_id = :manifest_id AND o.file_id = w.file_id
                          AND o.config_id = :config_id)
        GROUP BY r.outcome, r.type, r.percent
        """),
        {"manifest_id": scope.manifest_id, "config_id": scope.config_id},
    ).all()
    unsent = scalar_int(
        connection,
        "SELECT count(*) FROM wanted w WHERE NOT EXISTS "
        "(SELECT 1 FROM files f WHERE f.manifest_id = :manifest_id AND f.file_id = w.file_id)",
        manifest_id=scope.manifest_id,
    )
    merged = _sum_up(rows, totals.unfinished + unsent, review, onto=totals)
    return merged, unsent


def only_under_other_rules(connection: Connection, scope: Scope) -> int:
    """How many files the ledger has outcomes of, but nothing in *scope*."""
    several = scalar_int(
        connection,
        "SELECT count(DISTINCT config_id) FROM tallies WHERE manifest_id = :manifest_id AND config_id <> :config_id",
        manifest_id=scope.manifest_id,
        config_id=scope.config_id,
    )
    if not several:
        return 0  # without reading a million rows
    return scalar_int(
        connection,
        "SELECT count(*) FROM (SELECT file_id FROM files WHERE manifest_id = :manifest_id "
        "GROUP BY file_id HAVING count(*) FILTER (WHERE config_id = :config_id) = 0) AS elsewhere",
        manifest_id=scope.manifest_id,
        config_id=scope.config_id,
    )


def _sum_up(
    rows: Iterable[Row[str, str, int, int]], unfinished: int, review: dict[str, Json], *, onto: Totals
) -> Totals:
    """*onto* and the (outcome, type, percent, files) of *rows*."""
    outcomes, types, flagged = dict(onto.outcomes), Counter(onto.types), Counter(onto.review_by_type)
    for row in rows:
        outcomes[Outcome(row.outcome)] += row.files
        if row.type:
            types[row.type] += row.files
        # Counted in whole percents: a threshold between two of them counts as the lower one.
        if why_review(row.outcome, row.percent / 100, review):
            flagged[row.type or row.outcome] += row.files
    return Totals(outcomes, _most_first(types), unfinished, flagged.total(), _most_first(flagged))


def _most_first(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _all_wanted(connection: Connection, parameters: dict[str, int]) -> bool:
    """Whether the manifest lists every file that the ledger has under its config: then the tallies are its totals."""
    known = scalar_int(
        connection,
        "SELECT coalesce((SELECT sum(files) FROM tallies "
        "WHERE manifest_id = :manifest_id AND config_id = :config_id), 0) "
        "+ coalesce((SELECT count(*) FROM jobs j JOIN files f ON f.chunk_id = j.id AND f.standing = 1 "
        "WHERE j.manifest_id = :manifest_id AND f.config_id = :config_id "
        f"AND j.status IN {OPEN_SQL}), 0)",
        **parameters,
    )
    return known == scalar_int(connection, "SELECT count(*) FROM wanted")


def _under_way_again(
    connection: Connection, parameters: dict[str, int], *, staged: Staged | None
) -> list[Row[str, str, int, int]]:
    """Results of files with a later generation in flight, to be subtracted: those files are unfinished."""
    return list(
        connection.execute(
            text(f"""
            SELECT r.outcome, coalesce(r.type, '') AS type, r.percent, -count(*) AS files
            FROM jobs j JOIN files n ON n.chunk_id = j.id AND n.standing = 0
            JOIN files f ON f.manifest_id = n.manifest_id AND f.file_id = n.file_id AND f.config_id = n.config_id
                        AND f.standing = 1
            JOIN results r ON r.file_row = f.id
            WHERE j.manifest_id = :manifest_id AND j.status IN {OPEN_SQL}
              AND n.config_id = :config_id AND n.generation > f.generation AND NOT {later("n")}
              {"AND EXISTS (SELECT 1 FROM wanted w WHERE w.file_id = n.file_id)" if staged else ""}
            GROUP BY r.outcome, r.type, r.percent
            """),
            parameters,
        )
    )


@dataclass(frozen=True, slots=True)
class FailedFile:
    """A file that ended badly; ``error`` has the API's words."""

    file_id: str
    outcome: str
    error: str
    name: str | None = None  #: of its document, or as a list calls it


def failed_files(connection: Connection, scope: Scope, most: int, *, staged: Staged | None = None) -> list[FailedFile]:
    """The first files that ended badly: of the staged ones (*staged*), or of all that the ledger has.

    Those that a person has dismissed are left out.
    """
    rows = connection.execute(
        text(
            f"SELECT {spelt('f')} AS file_id, r.outcome, coalesce(r.error, '') AS error, {names.columns('f')} "
            "FROM results r CROSS JOIN files f "  # from the bad results, which have an index of their own
            f"WHERE f.id = r.file_row AND r.outcome NOT IN {GOOD_SQL} "
            "AND f.manifest_id = :manifest_id AND f.config_id = :config_id AND f.standing = 1 "
            "AND NOT EXISTS (SELECT 1 FROM jobs v WHERE v.id = f.chunk_id AND v.api = 'person') "
            + ("AND EXISTS (SELECT 1 FROM wanted w WHERE w.file_id = f.file_id) " if staged else "")
            + "ORDER BY r.file_row LIMIT :most"
        ),
        {"manifest_id": scope.manifest_id, "config_id": scope.config_id, "most": most},
    )
    return [FailedFile(r.file_id, r.outcome, r.error, names.name_of(r.document, r.listed)) for r in rows]


@dataclass(frozen=True, slots=True)
class SecondOpinions:
    """The files that a run asked about once more in a better mode."""

    files: int
    answered: int
    confidence_before: float | None  #: mean, of those that were answered
    confidence_after: float | None  #: mean of the surer answer, which counts


def second_opinions(connection: Connection, run_id: str) -> SecondOpinions:
    """Return the run's second opinions so far."""
    row = connection.execute(
        text("""
        SELECT count(*) AS files, count(r.file_row) AS answered,
               avg(CASE WHEN r.file_row IS NOT NULL THEN coalesce(o.confidence, 0) END) AS before,
               avg(CASE WHEN r.file_row IS NULL THEN NULL
                        WHEN coalesce(r.confidence, 0) >= coalesce(o.confidence, 0) THEN coalesce(r.confidence, 0)
                        ELSE o.confidence END) AS after
        FROM jobs j JOIN files f ON f.chunk_id = j.id LEFT JOIN results r ON r.file_row = f.id
        LEFT JOIN files p ON p.manifest_id = f.manifest_id AND p.file_id = f.file_id AND p.config_id = f.config_id
                         AND p.generation = f.generation - 1
        LEFT JOIN results o ON o.file_row = p.id
        WHERE j.run_id = :run_id AND j.escalation = 1
        """),
        {"run_id": run_id},
    ).one()
    before, after = (None if mean is None else round(float(mean), 3) for mean in (row.before, row.after))
    return SecondOpinions(row.files, row.answered, before, after)


@dataclass(frozen=True, slots=True)
class OpenJobs:
    """The jobs of one status that have not ended."""

    jobs: int
    files: int
    oldest: str | None  #: what the oldest waits since
    held: int


def open_jobs(connection: Connection, manifest_id: int) -> dict[str, OpenJobs]:
    """Status -> the jobs that have not ended."""
    rows = connection.execute(
        text(
            "SELECT status, count(*) AS jobs, CAST(sum(size) AS INTEGER) AS files, "
            "min(coalesce(submitted_at, sent_at)) AS oldest, CAST(sum(held) AS INTEGER) AS held "
            "FROM jobs WHERE manifest_id = :manifest_id "
            f"AND status IN {OPEN_SQL} GROUP BY status"
        ),
        {"manifest_id": manifest_id},
    )
    return {row.status: OpenJobs(row.jobs, row.files, row.oldest, row.held) for row in rows}


@dataclass(frozen=True, slots=True)
class Decision:
    """An event that only a person can settle."""

    chunk_id: int
    event: str
    note: str
    at: str


def decisions(connection: Connection, manifest_id: int) -> list[Decision]:
    """Chunks that only a person can settle, and jobs that were paid for twice."""
    rows = connection.execute(
        text(
            "SELECT e.chunk_id, e.event, e.note, e.at FROM events e JOIN jobs j ON j.id = e.chunk_id "
            "WHERE j.manifest_id = :manifest_id AND (e.event = 'held' AND j.held = 1 OR e.event = 'orphan') "
            f"AND e.event NOT IN {STATUSES_SQL} "
            "ORDER BY e.id"
        ),
        {"manifest_id": manifest_id},
    )
    return [Decision(*row) for row in rows]


def held_files(connection: Connection, manifest_id: int) -> int:
    """Files in chunks that wait for a person: no run sends them."""
    return scalar_int(
        connection,
        f"SELECT sum(size) FROM jobs WHERE manifest_id = :manifest_id AND status IN {OPEN_SQL} AND held = 1",
        manifest_id=manifest_id,
    )
