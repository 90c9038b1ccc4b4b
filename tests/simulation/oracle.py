"""The judge: what the world knows against what the ledger says."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from simulation.world import World

GOOD = ("classified", "unmatched")


def judge(connection: Connection, world: World, file_ids: Sequence[str]) -> int:
    """Tell *world* of every violation in a ledger whose work has ended; how many chunks are held for a person."""
    held = _judge_held(connection, world)
    for file_id in file_ids:
        _judge_file(connection, world, file_id, held)
    _judge_generations(connection, world)
    return len(held)


def _judge_held(connection: Connection, world: World) -> set[int]:
    """A chunk may be left to a person only where nobody but a person could tell."""
    held = set(connection.exec_driver_sql("SELECT id FROM jobs WHERE held = 1 AND finished_at IS NULL").scalars())
    known = set(connection.exec_driver_sql("SELECT job_id FROM jobs WHERE job_id IS NOT NULL").scalars())
    riddles = [job for job in world.jobs if job.chunk_id is not None and job.id not in known and not job.provable]
    for chunk_id in sorted(held):
        if not riddles and any(job.chunk_id == chunk_id for job in world.jobs):
            world.violated(f"chunk {chunk_id} is held although its job could be told from all others")
    return held


def _judge_file(connection: Connection, world: World, file_id: str, held: set[int]) -> None:
    rows = connection.exec_driver_sql(
        "SELECT f.chunk_id, f.generation, f.standing, r.outcome, r.type, j.job_id, j.size FROM files f "
        "JOIN jobs j ON j.id = f.chunk_id LEFT JOIN results r ON r.file_row = f.id WHERE f.file_id = ?",
        (file_id,),
    ).all()
    standing = [row for row in rows if row.standing]
    if len(standing) != 1:
        world.violated(f"{file_id} has {len(standing)} standing submissions")
    for row in rows:
        if row.outcome is None:
            if row.chunk_id not in held:
                world.violated(f"{file_id} of chunk {row.chunk_id} has no outcome")
        elif row.job_id is None:
            if (file_id, row.generation) not in world.refused:
                world.violated(f"{file_id} is {row.outcome} and no job or refusal says so")
        else:
            _judge_outcome(world, file_id, row.chunk_id, row.job_id, (row.outcome, row.type))


def _judge_outcome(world: World, file_id: str, chunk_id: int, job_id: str, told: tuple[str, str | None]) -> None:
    job = next((job for job in world.jobs if job.id == job_id), None)
    if job is None or job.chunk_id != chunk_id:
        world.violated(f"chunk {chunk_id} has job {job_id}, which is of chunk {job.chunk_id if job else None}")
    elif (expected := job.expected(file_id, world.api)) != told:
        world.violated(f"{file_id} is recorded as {told}; job {job_id} says {expected}")


def _judge_generations(connection: Connection, world: World) -> None:
    """Nothing is bought once more that had a good answer already."""
    rows = connection.exec_driver_sql(
        f"SELECT g.file_id FROM files f JOIN results r ON r.file_row = f.id JOIN files g ON g.file_id = f.file_id "  # noqa: S608 - constants of ours
        f"AND g.generation > f.generation WHERE r.outcome IN {GOOD!r}"
    ).scalars()
    for file_id in rows:
        world.violated(f"{file_id} was submitted again after a good answer")
