"""The life of a chunk and its job: one guarded write per change of status, and what each stage asks for.

Every function takes the connection of one transaction. ``at`` is the time to record, as ISO 8601 text in UTC.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict

from sqlalchemy import Connection, bindparam

from orchestrator.ledger import runs
from orchestrator.ledger.documents import uploads
from orchestrator.ledger.spellings import spelt
from orchestrator.ledger.sql import GOOD_SQL, IN_FLIGHT_SQL, batches, insert, percent, text
from orchestrator.models import MOVES, FileResult, JobStatus, Outcome

SOURCES = {to: tuple(source for source in JobStatus if to in MOVES[source]) for to in JobStatus}


RESULT = ("file_row", "outcome", "type", "confidence", "percent", "reasoning", "error")


#: The event that keeps the rows that were seen of an ended job for as long as others are waited for.
SEEN = "rows_seen"

#: The event of a run in which the API denied having the chunk's job.
DENIED = "gone"


class ForbiddenMove(RuntimeError):
    """A job was not in a status that the move starts from: a bug of ours."""


def move(connection: Connection, chunk_ids: Collection[int], to: JobStatus, *, at: str, **changes: object) -> None:
    """Take all *chunk_ids* to status *to*, setting *changes* with it. Raises ForbiddenMove unless every one may."""
    _move(connection, chunk_ids, to, changes, at=at)


def _move(
    connection: Connection,
    chunk_ids: Collection[int],
    to: JobStatus,
    changes: Mapping[str, object],
    *,
    sends: int = 0,
    at: str,
) -> None:
    """``move``, with *sends* more calls; in one statement, as on a server each waits for the network."""
    sets = "".join(f", {column} = :{column}" for column in changes)
    if sends:
        sets += f", sends = sends + {sends:d}"
    statement = text(
        f"UPDATE jobs SET status = :to, changed_at = :at{sets} WHERE id IN :chunk_ids AND status IN :sources"
    ).bindparams(bindparam("chunk_ids", expanding=True), bindparam("sources", expanding=True))
    parameters = {"to": to.value, "at": at, "chunk_ids": list(chunk_ids), "sources": list(SOURCES[to]), **changes}
    moved = connection.execute(statement, parameters).rowcount
    if moved != len(chunk_ids):
        raise ForbiddenMove(f"{len(chunk_ids) - moved} of chunks {sorted(chunk_ids)[:10]} may not become {to.value}")
    if to is JobStatus.PENDING:
        uploads.thaw(connection, chunk_ids)
    elif to is JobStatus.SUBMITTING:
        uploads.freeze(connection, chunk_ids)


def note(connection: Connection, chunk_id: int | None, event: str, text_: str, *, at: str) -> None:
    """Leave an event that is not a change of status."""
    connection.execute(
        text("INSERT INTO events (at, chunk_id, event, note) VALUES (:at, :chunk_id, :event, :note)"),
        {"at": at, "chunk_id": chunk_id, "event": event, "note": text_},
    )


def intend(connection: Connection, chunk_ids: Collection[int], *, mark: str | None, at: str) -> None:
    """Record, before the create calls leave, that they are about to."""
    _move(connection, chunk_ids, JobStatus.SUBMITTING, {"sent_at": at, "mark": mark}, sends=1, at=at)


def doubt_pending(connection: Connection, manifest_id: int, api: str, why: str, *, at: str) -> int:
    """Treat each pending chunk as one whose create call went unanswered; how many there were.

    For a ledger whose latest commits may be missing: an intent may be among them, and its call may have made a job.
    """
    rows = connection.execute(
        text("SELECT id FROM jobs WHERE manifest_id = :manifest_id AND api = :api AND status = 'pending' ORDER BY id"),
        {"manifest_id": manifest_id, "api": api},
    )
    chunk_ids = list(rows.scalars())
    for batch in batches(chunk_ids):
        intend(connection, batch, mark=None, at=at)
        for chunk_id in batch:
            unanswered_call(connection, chunk_id, why, accepted=False, at=at)
    return len(chunk_ids)


def not_created(connection: Connection, chunk_id: int, *, at: str) -> None:
    """The create call had no effect; the chunk can be planned again."""
    _move(connection, [chunk_id], JobStatus.PENDING, {}, sends=-1, at=at)


def submitted(connection: Connection, chunk_id: int, job_id: str, *, at: str) -> None:
    """The API has answered with a job."""
    move(connection, [chunk_id], JobStatus.SUBMITTED, at=at, job_id=job_id, submitted_at=at, error=None, held=0)


def disown(connection: Connection, chunk_id: int, why: str, *, keyed: bool, at: str) -> bool:
    """The job that the API answered with is another's: what the call made is unknown again, and it was accepted.

    Return what ``answered_with_anothers`` does.
    """
    # Not a move like others: no create call may ever take a chunk from its job.
    moved = connection.execute(
        text(
            "UPDATE jobs SET status = 'submitting', changed_at = :at, sent_at = coalesce(sent_at, :at), job_id = NULL, "
            f"accepted = 1, held = 0, error = :why WHERE id = :id AND status IN {IN_FLIGHT_SQL}"
        ),
        {"at": at, "why": why, "id": chunk_id},
    ).rowcount
    if moved != 1:
        raise ForbiddenMove(f"chunk {chunk_id} has no job that could be another's")
    _forget(connection, chunk_id, SEEN)
    _forget(connection, chunk_id, DENIED)
    return answered_with_anothers(connection, chunk_id, why, keyed=keyed, at=at)


def answered_with_anothers(connection: Connection, chunk_id: int, why: str, *, keyed: bool, at: str) -> bool:
    """Note that the API answered the create call with another's job; whether the chunk is held therefore.

    *keyed*: the call has an idempotency key, so the next one gets the same answer if the API stands by it.
    """
    before = connection.execute(
        text("SELECT 1 FROM events WHERE chunk_id = :chunk_id AND event = 'disowned' LIMIT 1"), {"chunk_id": chunk_id}
    ).first()
    note(connection, chunk_id, "disowned", why, at=at)
    if keyed and before:
        hold(connection, chunk_id, f"{why}, again; `retry --held` sends it under a new key", at=at)
    return keyed and before is not None


def running(connection: Connection, chunk_id: int, *, at: str) -> None:
    """The API has begun to work on the job; nothing changes when that is known already."""
    connection.execute(
        text("UPDATE jobs SET status = 'running', changed_at = :at WHERE id = :id AND status = 'submitted'"),
        {"id": chunk_id, "at": at},
    )


def unanswered_call(connection: Connection, chunk_id: int, words: str, *, accepted: bool, at: str) -> None:
    """The create call went out and no readable answer came: the chunk stays ``submitting``."""
    connection.execute(
        text(
            "UPDATE jobs SET error = :words, accepted = CASE WHEN :accepted = 1 THEN 1 ELSE accepted END WHERE id = :id"
        ),
        {"words": words, "accepted": int(accepted), "id": chunk_id},
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


def keep_seen(connection: Connection, chunk_id: int, rows: Collection[FileResult], *, at: str) -> None:
    """Keep *rows* of an ended job that is yet to be recorded: a later read may lack them."""
    if rows and set(rows) != set(rows_seen(connection, chunk_id)):
        _forget(connection, chunk_id, SEEN)
        note(connection, chunk_id, SEEN, json.dumps([asdict(row) for row in rows]), at=at)


def rows_seen(connection: Connection, chunk_id: int) -> tuple[FileResult, ...]:
    """The rows that were kept of the chunk's job."""
    kept = text("SELECT note FROM events WHERE chunk_id = :chunk_id AND event = :seen")
    found = connection.execute(kept, {"chunk_id": chunk_id, "seen": SEEN}).scalar()
    rows = [] if found is None else json.loads(found)
    return tuple(FileResult(**{**row, "outcome": Outcome(row["outcome"])}) for row in rows)


def _forget(connection: Connection, chunk_id: int, event: str) -> None:
    """Of the chunk's job: what was noted does not hold of the next."""
    forget = text("DELETE FROM events WHERE chunk_id = :chunk_id AND event = :event")
    connection.execute(forget, {"chunk_id": chunk_id, "event": event})


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
    _forget(connection, chunk_id, SEEN)
    move(connection, [chunk_id], to, at=at, finished_at=at, **changes)
    rows = [_as_row(row, result) for row, result in results]
    if rows:
        insert(connection, "results", RESULT, rows)
    _let_stand(connection, chunk_id)
    _count(connection, "f.chunk_id = :chunk_id AND f.standing = 1", {"chunk_id": chunk_id}, sign=1)
    runs.count_results(connection, chunk_id)


def _as_row(row: int, result: FileResult) -> tuple[int, str, str | None, float | None, int, str | None, str | None]:
    """*result* of the file in *row*, in the order of ``RESULT``."""
    sure = percent(result.confidence)
    return row, str(result.outcome), result.type, result.confidence, sure, result.reasoning, result.error


def amend(connection: Connection, chunk_id: int, results: Mapping[int, FileResult]) -> None:
    """The API says better of files of an ended job, by row of ``files``, than was recorded.

    ``runs.count_results`` is left to the caller.
    """
    which = "f.id = :row AND f.standing = 1"
    sets = ", ".join(f"{column} = :{column}" for column in RESULT[1:])
    for row, result in results.items():
        _count(connection, which, {"row": row}, sign=-1)
        values = dict(zip(RESULT, _as_row(row, result), strict=True))
        connection.execute(text(f"UPDATE results SET {sets} WHERE file_row = :file_row"), values)
        _count(connection, which, {"row": row}, sign=1)
    _let_stand(connection, chunk_id)


def _count(connection: Connection, which: str, parameters: dict[str, int], *, sign: int) -> None:
    """Add the results of the files that meet the condition *which* to the tallies, or take them out."""
    connection.execute(
        text(f"""
        INSERT INTO tallies (manifest_id, config_id, outcome, type, percent, files)
        SELECT f.manifest_id, f.config_id, r.outcome, coalesce(r.type, ''), r.percent, count(*)
        FROM files f JOIN results r ON r.file_row = f.id WHERE {which}
        GROUP BY f.manifest_id, f.config_id, r.outcome, r.type, r.percent
        ON CONFLICT (manifest_id, config_id, outcome, type, percent)
        DO UPDATE SET files = tallies.files + :sign * excluded.files
        """),
        {"sign": sign, **parameters},
    )


def _let_stand(connection: Connection, chunk_id: int) -> None:
    """A later generation's result takes the standing one's place unless it is worse: good before bad.

    Of an earlier one, which ended late, a good result takes the place of a bad one that no person gave.

    An escalation is a second opinion on a good result: it has to be at least as sure.
    """
    rivals = connection.execute(
        text(f"""
        SELECT new.id AS new_id, old.id AS old_id
        FROM files new JOIN results nr ON nr.file_row = new.id
        JOIN files old ON old.manifest_id = new.manifest_id AND old.file_id = new.file_id
                      AND old.config_id = new.config_id AND old.standing = 1
        JOIN jobs j ON j.id = new.chunk_id JOIN jobs oj ON oj.id = old.chunk_id
        LEFT JOIN results o ON o.file_row = old.id
        WHERE new.chunk_id = :chunk_id AND new.standing = 0
          AND (new.generation > old.generation
               OR (nr.outcome IN {GOOD_SQL} AND o.outcome NOT IN {GOOD_SQL} AND oj.api <> 'person'))
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


def rows_of(connection: Connection, chunk_id: int) -> list[int]:
    """The rows of ``files`` of one chunk, in its order."""
    found = text("SELECT id FROM files WHERE chunk_id = :chunk_id ORDER BY id")
    return list(connection.execute(found, {"chunk_id": chunk_id}).scalars())


def file_rows(connection: Connection, chunk_id: int) -> dict[str, int]:
    """File ID as a chunk has it -> row of ``files``, for the files of one chunk."""
    rows = connection.execute(
        text(f"SELECT f.file_id, {spelt('f')} AS spelling, f.id FROM files f WHERE f.chunk_id = :chunk_id"),
        {"chunk_id": chunk_id},
    )
    return {uploads.in_chunk(row.file_id, row.spelling): row.id for row in rows}
