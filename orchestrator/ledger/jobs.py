"""The life of a chunk and its job: one guarded write per change of status, and what each stage asks for.

Every function takes the connection of one transaction. ``at`` is the time to record, as ISO 8601 text in UTC.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, text

from orchestrator.ledger.planning import GOOD_SQL
from orchestrator.models import IN_FLIGHT, MOVES, TERMINAL, Chunk, Config, FileResult, JobStatus

#: A result's confidence in whole percent, rounded down; -1 without one.
PERCENT_SQL = "CAST(coalesce(r.confidence, -0.01) * 100 + 0.0000001 AS INTEGER)"

SOURCES = {to: tuple(source for source in JobStatus if to in MOVES[source]) for to in JobStatus}


class ForbiddenMove(RuntimeError):
    """A job was not in a status that the move starts from: a bug of ours."""


@dataclass(frozen=True, slots=True)
class Shard:
    """The chunks that one pipeline carries: those of one manifest through one API version."""

    manifest_id: int
    api: str


@dataclass(frozen=True, slots=True)
class OpenJob:
    """A job that the API has and that had not ended when it was last asked about."""

    chunk_id: int
    job_id: str
    size: int
    submitted_at: str


@dataclass(frozen=True, slots=True)
class Parked:
    """A chunk whose create call has no recorded answer."""

    chunk_id: int
    config_id: int
    sent_at: str
    mark: str | None  #: newest ``created_at`` that the API had listed before the call
    resends: int
    accepted: bool  #: the API said yes, in words that could not be read
    cut_off: bool  #: this program was killed before it could record how the call failed
    held: bool


def move(connection: Connection, chunk_ids: Collection[int], to: JobStatus, *, at: str, **changes: object) -> None:
    """Take all *chunk_ids* to status *to*, setting *changes* with it. Raises ForbiddenMove unless every one may."""
    sets = "".join(f", {column} = :{column}" for column in changes)
    statement = text(
        f"UPDATE jobs SET status = :to, changed_at = :at{sets} WHERE id IN :chunk_ids AND status IN :sources"
    ).bindparams(bindparam("chunk_ids", expanding=True), bindparam("sources", expanding=True))
    parameters = {"to": to.value, "at": at, "chunk_ids": list(chunk_ids), "sources": list(SOURCES[to]), **changes}
    moved = connection.execute(statement, parameters).rowcount
    if moved != len(chunk_ids):
        raise ForbiddenMove(f"{len(chunk_ids) - moved} of chunks {sorted(chunk_ids)[:10]} may not become {to.value}")


def note(connection: Connection, chunk_id: int | None, event: str, text_: str, *, at: str) -> None:
    """Leave an event that is not a change of status."""
    connection.execute(
        text("INSERT INTO events (at, chunk_id, event, note) VALUES (:at, :chunk_id, :event, :note)"),
        {"at": at, "chunk_id": chunk_id, "event": event, "note": text_},
    )


def intend(connection: Connection, chunk_ids: Collection[int], *, mark: str | None, at: str) -> None:
    """Record, before the create calls leave, that they are about to."""
    move(connection, chunk_ids, JobStatus.SUBMITTING, at=at, sent_at=at, mark=mark)
    statement = text("UPDATE jobs SET sends = sends + 1 WHERE id IN :ids").bindparams(bindparam("ids", expanding=True))
    connection.execute(statement, {"ids": list(chunk_ids)})


def not_created(connection: Connection, chunk_id: int, *, at: str) -> None:
    """The create call surely had no effect: of it nothing is in doubt, and the chunk may be planned anew."""
    move(connection, [chunk_id], JobStatus.PENDING, at=at)
    connection.execute(text("UPDATE jobs SET sends = sends - 1 WHERE id = :id"), {"id": chunk_id})


def submitted(connection: Connection, chunk_id: int, job_id: str, *, at: str) -> None:
    """The API has answered with a job."""
    move(connection, [chunk_id], JobStatus.SUBMITTED, at=at, job_id=job_id, submitted_at=at, error=None, held=0)


def running(connection: Connection, chunk_id: int, *, at: str) -> None:
    """The API has begun to work on the job; nothing changes when that is known already."""
    connection.execute(
        text("UPDATE jobs SET status = 'running', changed_at = :at WHERE id = :id AND status = 'submitted'"),
        {"id": chunk_id, "at": at},
    )


def unanswered_call(connection: Connection, chunk_id: int, words: str, *, accepted: bool, at: str) -> None:
    """The create call went out and no readable answer came: the chunk stays ``submitting``."""
    connection.execute(
        text("UPDATE jobs SET error = :words, accepted = max(accepted, :accepted) WHERE id = :id"),
        {"words": words, "accepted": accepted, "id": chunk_id},
    )
    note(connection, chunk_id, "unanswered", words, at=at)


def use_file(connection: Connection, chunk_id: int, *, unsure: bool, at: str) -> None:
    """The parse job that the chunk was to be made on is gone: it is made on the file.

    *unsure*: an earlier call may have made it all the same, so the chunk stays ``submitting``.
    """
    connection.execute(text("UPDATE jobs SET parse_from = NULL WHERE id = :id"), {"id": chunk_id})
    if not unsure:
        move(connection, [chunk_id], JobStatus.PENDING, at=at)
    note(connection, chunk_id, "parse_job_gone", "", at=at)


def send_again(connection: Connection, chunk_id: int, *, at: str) -> None:
    """The unanswered create is proved to have had no effect: the chunk may be sent once more."""
    move(connection, [chunk_id], JobStatus.PENDING, at=at, error=None, held=0)
    connection.execute(text("UPDATE jobs SET resends = resends + 1 WHERE id = :id"), {"id": chunk_id})


def hold(connection: Connection, chunk_id: int, why: str, *, at: str) -> None:
    """Leave an unanswered chunk for a person to decide."""
    connection.execute(text("UPDATE jobs SET held = 1, error = :why WHERE id = :id"), {"id": chunk_id, "why": why})
    note(connection, chunk_id, "held", why, at=at)


def release_held(connection: Connection, shard: Shard, *, at: str) -> int:
    """A person has decided that the held chunks are to be sent again; how many there were."""
    held = [parked.chunk_id for parked in unanswered(connection, shard) if parked.held]
    for chunk_id in held:
        move(connection, [chunk_id], JobStatus.PENDING, at=at, held=0, accepted=0)
        note(connection, chunk_id, "released", "to be sent again, as a person decided", at=at)
    return len(held)


def released(connection: Connection, shard: Shard) -> set[int]:
    """The chunks that a person once had sent again, unsettled."""
    rows = connection.execute(
        text(
            "SELECT j.id FROM events e JOIN jobs j ON j.id = e.chunk_id "
            "WHERE e.event = 'released' AND j.manifest_id = :manifest_id AND j.api = :api"
        ),
        {"manifest_id": shard.manifest_id, "api": shard.api},
    )
    return set(rows.scalars())


def end(
    connection: Connection,
    chunk_id: int,
    to: JobStatus,
    results: Iterable[tuple[int, FileResult]],
    *,
    at: str,
    **changes: object,
) -> None:
    """The job has ended: its status and, by row of ``files``, how each of its files did. One transaction."""
    move(connection, [chunk_id], to, at=at, finished_at=at, **changes)
    rows = [
        (row, result.outcome.value, result.type, result.confidence, result.reasoning, result.error)
        for row, result in results
    ]
    if rows:
        connection.exec_driver_sql(
            "INSERT INTO results (file_row, outcome, type, confidence, reasoning, error) VALUES (?, ?, ?, ?, ?, ?)",
            rows,
        )
    _let_stand(connection, chunk_id)
    _count(connection, "f.chunk_id = :chunk_id AND f.standing = 1", {"chunk_id": chunk_id}, sign=1)


def _count(connection: Connection, which: str, parameters: dict[str, int], *, sign: int) -> None:
    """Add the results of the files that meet the condition *which* to the tallies, or take them out."""
    connection.execute(
        text(f"""
        INSERT INTO tallies (manifest_id, config_id, outcome, type, percent, files)
        SELECT f.manifest_id, f.config_id, r.outcome, coalesce(r.type, ''), {PERCENT_SQL} AS percent, count(*)
        FROM files f JOIN results r ON r.file_row = f.id WHERE {which}
        GROUP BY f.manifest_id, f.config_id, r.outcome, r.type, percent
        ON CONFLICT DO UPDATE SET files = files + :sign * excluded.files
        """),
        {"sign": sign, **parameters},
    )


def _let_stand(connection: Connection, chunk_id: int) -> None:
    """A later generation's result takes the standing one's place unless it is worse: good before bad.

    Of an earlier one, which ended after a person had given a verdict, nothing stands.

    An escalation is a second opinion on a good result: it has to be at least as sure.
    """
    rivals = connection.execute(
        text(f"""
        SELECT new.id AS new_id, old.id AS old_id
        FROM files new JOIN results nr ON nr.file_row = new.id
        JOIN files old ON old.manifest_id = new.manifest_id AND old.file_id = new.file_id
                      AND old.config_id = new.config_id AND old.standing = 1
        JOIN jobs j ON j.id = new.chunk_id
        LEFT JOIN results o ON o.file_row = old.id
        WHERE new.chunk_id = :chunk_id AND new.standing = 0 AND new.generation > old.generation
          AND (j.escalation = 0 OR coalesce(nr.confidence, 0) >= coalesce(o.confidence, 0))
          AND (nr.outcome IN {GOOD_SQL} OR o.outcome IS NULL OR o.outcome NOT IN {GOOD_SQL})
        """),
        {"chunk_id": chunk_id},
    ).all()
    if rivals:
        for rival in rivals:
            _count(connection, "f.id = :old", {"old": rival.old_id}, sign=-1)
        swaps = [{"new": rival.new_id, "old": rival.old_id} for rival in rivals]
        connection.execute(text("UPDATE files SET standing = 0 WHERE id = :old"), swaps)
        connection.execute(text("UPDATE files SET standing = 1 WHERE id = :new"), swaps)


def pending(connection: Connection, shard: Shard, *, after: int, most: int) -> list[Chunk]:
    """The next chunks to send, by id."""
    rows = connection.execute(
        text(
            "SELECT id, config_id, parse_from FROM jobs "
            "WHERE manifest_id = :manifest_id AND api = :api AND status = 'pending' AND id > :after "
            "ORDER BY id LIMIT :most"
        ),
        {"manifest_id": shard.manifest_id, "api": shard.api, "after": after, "most": most},
    ).all()
    return chunks(connection, [(row.id, row.config_id, row.parse_from) for row in rows])


def unanswered(connection: Connection, shard: Shard) -> list[Parked]:
    """The chunks in ``submitting``."""
    rows = connection.execute(
        text(
            "SELECT id, config_id, sent_at, mark, resends, accepted, error, held FROM jobs "
            "WHERE manifest_id = :manifest_id AND api = :api AND status = 'submitting' ORDER BY id"
        ),
        {"manifest_id": shard.manifest_id, "api": shard.api},
    )
    return [
        Parked(r.id, r.config_id, r.sent_at, r.mark, r.resends, bool(r.accepted), r.error is None, bool(r.held))
        for r in rows
    ]


def chunk(connection: Connection, chunk_id: int) -> Chunk:
    rows = connection.execute(text("SELECT id, config_id, parse_from FROM jobs WHERE id = :id"), {"id": chunk_id}).all()
    return chunks(connection, [(row.id, row.config_id, row.parse_from) for row in rows])[0]


def chunks(connection: Connection, rows: Sequence[tuple[int, int, str | None]]) -> list[Chunk]:
    """The chunks of ``(id, config_id, parse_from)`` *rows*, with their files in order."""
    if not rows:
        return []
    configs = {
        row.id: Config.from_canonical(row.canonical)
        for row in connection.execute(
            text("SELECT id, canonical FROM configs WHERE id IN :ids").bindparams(bindparam("ids", expanding=True)),
            {"ids": list({row[1] for row in rows})},
        )
    }
    files: dict[int, list[str]] = {row[0]: [] for row in rows}
    generations: dict[int, int] = {}
    kept_under: dict[int, int] = {}
    found = connection.execute(
        text(
            "SELECT chunk_id, file_id, generation, config_id FROM files WHERE chunk_id IN :ids ORDER BY chunk_id, id"
        ).bindparams(bindparam("ids", expanding=True)),
        {"ids": list(files)},
    )
    for chunk_id, file_id, generation, config_id in found:
        files[chunk_id].append(file_id)
        generations[chunk_id] = generation
        kept_under[chunk_id] = config_id
    counts_for = {
        chunk_id: connection.execute(
            text("SELECT fingerprint FROM configs WHERE id = :id"), {"id": kept_under[chunk_id]}
        ).scalar_one()
        for chunk_id, config_id, _ in rows
        if kept_under[chunk_id] != config_id
    }
    return [
        Chunk(row[0], configs[row[1]], tuple(files[row[0]]), generations[row[0]], row[2], counts_for.get(row[0]))
        for row in rows
    ]


def in_flight(connection: Connection, shard: Shard) -> list[OpenJob]:
    """The jobs that the API has and that have not ended."""
    rows = connection.execute(
        text(
            "SELECT id, job_id, size, submitted_at FROM jobs "
            "WHERE manifest_id = :manifest_id AND api = :api AND status IN :open ORDER BY id"
        ).bindparams(bindparam("open", expanding=True)),
        {"manifest_id": shard.manifest_id, "api": shard.api, "open": [status.value for status in IN_FLIGHT]},
    )
    return [OpenJob(row.id, row.job_id, row.size, row.submitted_at) for row in rows]


def file_rows(connection: Connection, chunk_id: int) -> dict[str, int]:
    """File ID -> row of ``files``, for the files of one chunk."""
    rows = connection.execute(text("SELECT file_id, id FROM files WHERE chunk_id = :chunk_id"), {"chunk_id": chunk_id})
    return {row.file_id: row.id for row in rows}


def tally(connection: Connection, manifest_id: int) -> dict[JobStatus, tuple[int, int]]:
    """Status -> (jobs, files), for the jobs that have not ended."""
    rows = connection.execute(
        text(
            "SELECT status, count(*), sum(size) FROM jobs WHERE manifest_id = :manifest_id AND status NOT IN :ended "
            "GROUP BY status"
        ).bindparams(bindparam("ended", expanding=True)),
        {"manifest_id": manifest_id, "ended": [status.value for status in TERMINAL]},
    )
    return {JobStatus(status): (jobs, files) for status, jobs, files in rows}


def open_apis(connection: Connection, manifest_id: int) -> list[str]:
    """The API versions with jobs of this manifest that have not ended, or have failed and are yet to be halved."""
    rows = connection.execute(
        text(
            "SELECT api FROM jobs WHERE manifest_id = :manifest_id "
            "AND status IN ('pending', 'submitting', 'submitted', 'running') "
            "UNION SELECT j.api FROM jobs j JOIN manifests m ON m.id = j.manifest_id WHERE m.id = :manifest_id "
            "AND j.isolate = 1 AND EXISTS (SELECT 1 FROM files f WHERE f.chunk_id = j.id AND f.config_id = m.config_id)"
        ),
        {"manifest_id": manifest_id},
    )
    return sorted(rows.scalars())


def known_job_ids(connection: Connection, job_ids: Collection[str]) -> set[str]:
    """Those of *job_ids* that some manifest of this ledger has."""
    statement = text("SELECT job_id FROM jobs WHERE job_id IN :ids").bindparams(bindparam("ids", expanding=True))
    return set(connection.execute(statement, {"ids": list(job_ids)}).scalars())


def to_audit(connection: Connection, manifest_id: int) -> list[int]:
    """Ended chunks that were sent again and whose first call has not yet been looked for twice since."""
    rows = connection.execute(
        text(
            "SELECT id FROM jobs j WHERE manifest_id = :manifest_id AND resends > 0 AND finished_at IS NOT NULL AND "
            "(SELECT count(*) FROM events e WHERE e.chunk_id = j.id AND e.event = 'audited') < 2"
        ),
        {"manifest_id": manifest_id},
    )
    return list(rows.scalars())


def audited(connection: Connection, chunk_ids: Collection[int], *, at: str) -> None:
    """A listing was searched for late jobs of *chunk_ids*."""
    for chunk_id in chunk_ids:
        note(connection, chunk_id, "audited", "", at=at)
