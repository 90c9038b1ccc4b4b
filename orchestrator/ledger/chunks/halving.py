"""Failed chunks cut in two: what may hold a file at fault, and the chunks made of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, bindparam

from orchestrator.ledger.chunks import cutting
from orchestrator.ledger.queue import Shard
from orchestrator.ledger.scope import Scope
from orchestrator.ledger.sql import text
from orchestrator.models import Config


def suspect(connection: Connection, chunk_id: int) -> None:
    """The failed chunk may hold one file at fault: it is to be halved, or a half of one file to be judged."""
    connection.execute(text("UPDATE jobs SET isolate = 1 WHERE id = :id AND (size > 1 OR depth > 0)"), {"id": chunk_id})


@dataclass(slots=True)
class Failed:
    """A failed chunk that may hold one file at fault."""

    chunk_id: int
    run_id: str
    size: int
    config: Config  #: what the job was created with, and its halves are
    failed: int = 0  #: how many of its files failed
    file_ids: list[str] = field(default_factory=list)  #: those of them that nothing has dealt with since


def to_halve(connection: Connection, shard: Shard) -> list[Failed]:
    """The failed chunks that are still to be halved: those under the present config."""
    rows = connection.execute(
        text(
            "SELECT j.id, j.run_id, j.size, c.canonical, f.file_id, EXISTS "
            "(SELECT 1 FROM files n WHERE n.manifest_id = f.manifest_id AND n.file_id = f.file_id "
            "AND n.config_id = f.config_id AND n.generation > f.generation) AS settled "
            "FROM jobs j JOIN files f ON f.chunk_id = j.id JOIN results r ON r.file_row = f.id "
            "JOIN manifests m ON m.id = j.manifest_id AND m.config_id = f.config_id "
            "JOIN configs c ON c.id = j.config_id "
            "WHERE j.manifest_id = :manifest_id AND j.api = :api AND j.isolate = 1 AND r.outcome = 'failed' "
            "ORDER BY f.id"
        ),
        {"manifest_id": shard.manifest_id, "api": shard.api},
    )
    found: dict[int, Failed] = {}
    for row in rows:
        if (failed := found.get(row.id)) is None:
            config = Config.from_canonical(row.canonical)
            failed = found[row.id] = Failed(row.id, row.run_id, row.size, config)
        failed.failed += 1
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
            "SELECT count(*) AS ended, count(*) FILTER (WHERE status = 'failed') AS failed FROM jobs "
            "WHERE run_id IN :run_ids AND finished_at IS NOT NULL "
            "AND CASE WHEN depth > 0 THEN 1 ELSE 0 END = :halves"
        ).bindparams(bindparam("run_ids", expanding=True)),
        {"run_ids": list(run_ids), "halves": int(halves)},
    ).one()
    return row.ended, row.failed


def split(connection: Connection, chunk_id: int, halves: Sequence[Sequence[str]], *, run_id: str, at: str) -> list[int]:
    """New pending chunks for *halves* of an ended chunk's files, each file one generation on; their ids."""
    leave_whole(connection, [chunk_id])
    whole = connection.execute(
        text(
            "SELECT j.manifest_id, j.config_id AS job_config_id, j.api, j.depth, j.escalation, f.config_id "
            "FROM jobs j JOIN files f ON f.chunk_id = j.id WHERE j.id = :chunk_id LIMIT 1"
        ),
        {"chunk_id": chunk_id},
    ).one()
    scope = Scope(whole.manifest_id, whole.config_id)
    made: list[int] = []
    for half in halves:
        cutting.choose_named(connection, scope, half)
        cutting.cut(
            connection,
            scope,
            chunk_size=len(half),
            job_config_id=whole.job_config_id,
            api=whole.api,
            run_id=run_id,
            at=at,
            escalation=bool(whole.escalation),
            parent_id=chunk_id,
            depth=whole.depth + 1,
        )
        made.append(cutting.last_chunk(connection))
    return made
