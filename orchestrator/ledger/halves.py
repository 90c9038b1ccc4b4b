"""Failed chunks cut in two: what may hold a file at fault, and the chunks made of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import Connection, bindparam, text

from orchestrator.ledger.database import scalar_int
from orchestrator.ledger.jobs import Shard


def to_isolate(connection: Connection, shard: Shard) -> list[tuple[int, list[str]]]:
    """Failed chunks that may hold one file at fault, with their files that failed."""
    rows = connection.execute(
        text(
            "SELECT j.id, f.file_id FROM jobs j JOIN files f ON f.chunk_id = j.id JOIN results r ON r.file_row = f.id "
            "WHERE j.manifest_id = :manifest_id AND j.api = :api AND j.isolate = 1 AND r.outcome = 'failed' "
            "ORDER BY f.id"
        ),
        {"manifest_id": shard.manifest_id, "api": shard.api},
    )
    found: dict[int, list[str]] = {}
    for chunk_id, file_id in rows:
        found.setdefault(chunk_id, []).append(file_id)
    return list(found.items())


def leave_whole(connection: Connection, chunk_ids: Collection[int]) -> None:
    """These chunks are not to be halved (any more)."""
    statement = text("UPDATE jobs SET isolate = 0 WHERE id IN :ids").bindparams(bindparam("ids", expanding=True))
    connection.execute(statement, {"ids": list(chunk_ids)})


def ended_at_depth(connection: Connection, run_id: str, *, halves: bool) -> tuple[int, int]:
    """(ended, failed) of the chunks that this run planned: its own, or with *halves* those made by halving."""
    row = connection.execute(
        text(
            "SELECT count(*) AS ended, sum(status = 'failed') AS failed FROM jobs "
            "WHERE run_id = :run_id AND finished_at IS NOT NULL AND (depth > 0) = :halves"
        ),
        {"run_id": run_id, "halves": halves},
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
            INSERT INTO jobs (id, manifest_id, config_id, run_id, api, parent_id, depth, size, changed_at)
            SELECT :new_id, manifest_id, config_id, :run_id, api, id, depth + 1, :size, :at
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
