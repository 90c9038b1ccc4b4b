"""How the files of a manifest stood at the end of one run and of another."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sqlalchemy import Connection

from orchestrator.ledger import spellings
from orchestrator.ledger.documents import names
from orchestrator.ledger.sql import text


@dataclass(frozen=True, slots=True)
class Flow:
    """So many files were *before* (outcome and type) and are *after*; None: had no outcome yet."""

    before: str | None
    after: str | None
    files: int
    confidence_before: float | None  #: mean
    confidence_after: float | None
    example: str  #: one file ID
    example_name: str | None = None  #: of its document, or as a list calls it


def last_two(connection: Connection, manifest_id: int) -> list[str]:
    """The ids of the latest two finished runs that had outcomes from the API, older first."""
    rows = connection.execute(
        text(
            "SELECT r.id FROM runs r WHERE r.manifest_id = :manifest_id AND r.finished_at IS NOT NULL "
            "AND r.command <> 'accept' AND EXISTS "
            "(SELECT 1 FROM jobs j WHERE j.manifest_id = r.manifest_id "
            "AND j.finished_at BETWEEN r.started_at AND r.finished_at) ORDER BY r.started_at DESC LIMIT 2"
        ),
        {"manifest_id": manifest_id},
    )
    return list(rows.scalars())[::-1]


def ended_at(connection: Connection, manifest_id: int, run_id: str) -> str | None:
    """When the run ended; None for a run that is not of this manifest or has not ended."""
    found = connection.execute(
        text("SELECT finished_at FROM runs WHERE manifest_id = :manifest_id AND id = :run_id"),
        {"manifest_id": manifest_id, "run_id": run_id},
    ).first()
    return None if found is None else found.finished_at


def flows(connection: Connection, manifest_id: int, before: str, after: str) -> list[Flow]:
    """How the files moved between the two times, the largest first; files that stayed as they were included."""
    state = """
        SELECT file_id, label, confidence FROM (
          SELECT f.file_id, r.outcome || coalesce(' ' || r.type, '') AS label, r.confidence,
                 row_number() OVER (PARTITION BY f.file_id ORDER BY f.id DESC) AS latest
          FROM files f JOIN results r ON r.file_row = f.id JOIN jobs j ON j.id = f.chunk_id
          WHERE f.manifest_id = :manifest_id AND j.finished_at <= :{when}
        ) AS ranked WHERE latest = 1
    """
    rows = connection.execute(
        text(f"""
        SELECT b.label AS before, a.label AS after, count(*) AS files, avg(b.confidence) AS confidence_before,
               avg(a.confidence) AS confidence_after, min(a.file_id) AS example
        FROM ({state.format(when="after")}) a LEFT JOIN ({state.format(when="before")}) b ON b.file_id = a.file_id
        GROUP BY b.label, a.label ORDER BY count(*) DESC, coalesce(b.label, ''), a.label
        """),
        {"manifest_id": manifest_id, "before": before, "after": after},
    )
    found = [Flow(*row) for row in rows]
    examples = {flow.example for flow in found}
    spelt, called = (of.of_files(connection, manifest_id, examples) for of in (spellings, names))
    return [
        replace(flow, example=spelt.get(flow.example, flow.example), example_name=called.get(flow.example))
        for flow in found
    ]
