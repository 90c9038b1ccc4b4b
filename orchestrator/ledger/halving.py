"""Failed chunks cut in two: what may hold a file at fault, and the chunks made of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, text

from orchestrator.ledger.queue import Shard
from orchestrator.ledger.sql import scalar_int


def suspect(connection: Connection, chunk_id: int) -> None:
    """The failed chunk may hold one file at fault: it is to be halved, or a half of one file to be judged."""
    connection.execute(text("UPDATE jobs SET isolate = 1 WHERE id = :id AND (size > 1 OR depth > 0)"), {"id": chunk_id})


@dataclass(frozen=True, slots=True)
class Failed:
    """A failed chunk that may hold one file at fault."""

    chunk_id: int
    run_id: str
    size: int
    file_ids: list[str]  #: those that failed, unless a retry or a person has dealt with them since


def to_isolate(connection: Connection, shard: Shard) -> list[Failed]:
    """The failed chunks that are still to be halved: those under the present config."""
    rows = connection.execute(
        text(
            "SELECT j.id, j.run_id, j.size, f.file_id, EXISTS "
            "(SELECT 1 FROM files n WHERE n.manifest_id = f.manifest_id AND n.file_id = f.file_id "
            "AND n.config_id = f.config_id AND n.generation > f.generation) AS settled "
            "FROM jobs j JOIN files f ON f.chunk_id = j.id JOIN results r ON r.file_row = f.id "
            "JOIN manifests m ON m.id = j.manifest_id AND m.config_id = f.config_id "
            "WHERE j.manifest_id = :manifest_id AND j.api = :api AND j.isolate = 1 AND r.outcome = 'failed' "
            "ORDER BY f.id"
        ),
        {"manifest_id": shard.manifest_id, "api": shard.api},
    )
    found: dict[int, Failed] = {}
    for row in rows:
        failed = found.setdefault(row.id, Failed(row.id, row.run_id, row.size, []))
        if not row.settled:
            failed.file_ids.append(row.file_id)
    return list(found.values())


def leave_whole(connection: Connection, chunk_ids: Collection[int]) -> None:
    """These chunks are not to be halved (any more)."""
    if chunk_ids:
        connection.execute(text("UPDATE jobs SET isolate = 0 WHERE id = :id"), [{"id": each} for each in chunk_ids])


def ended_at_depth(connection: Connection, run_ids: Collection[str], *, halves: bool) -> tuple[int, int]:
    """(ended, failed) of the chunks that these runs planned: their own, or with *halves* those made by halving."""
    row = connection.execute(
        text(
            "SELECT count(*) AS ended, sum(status = 'failed') AS failed FROM jobs "
            "WHERE run_id IN :run_ids AND finished_at IS NOT NULL AND (depth > 0) = :halves"
        ).bindparams(bindparam("run_ids", expanding=True)),
        {"run_ids": list(run_ids), "halves": halves},
    ).one()
    return row.ended, row.failed or 0


def split(connection: Connection, chunk_id: int, halves: Sequence[Sequence[str]], *, run_id: str, at: str) -> list[int]:
    """New pending chunks for *halves* of an ended chunk's files, each file one generation on; their ids."""
    leave_whole(connection, [chunk_id])
    made: list[int] = []
    for half in halves:
        new_id = scalar_int(connection, "SELECT max(id) FROM jobs") + 1
        connection.execute(
            text("""
            INSERT INTO jobs (id, manifest_id, config_id, run_id, api, parent_id, depth, escalation, size, changed_at)
            SELECT :new_id, manifest_id, config_id, :run_id, api, id, depth + 1, escalation, :size, :at
            FROM jobs WHERE id = :chunk_id
            """),
            {"new_id": new_id, "run_id": run_id, "size": len(half), "at": at, "chunk_id": chunk_id},
        )
        connection.execute(
            text("""
            INSERT INTO files (chunk_id, manifest_id, config_id, file_id, generation, standing)
            SELECT :new_id, manifest_id, config_id, file_id, generation + 1, 0
            FROM files WHERE chunk_id = :chunk_id AND file_id = :file_id
            """),
            [{"new_id": new_id, "chunk_id": chunk_id, "file_id": file_id} for file_id in half],
        )
        made.append(new_id)
    return made
