"""The workers' roll: who is at work, who is to stop, and who has died.

A worker's session holds an advisory lock for as long as it lives, and the server frees it at once when the worker
dies; who cannot be reached, or stands still, is known by its last beat.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from orchestrator.ledger.sql import text
from orchestrator.ledger.workers import engine

#: The first half of the advisory lock of each worker; the second is its number.
_LOCK = 0x6F726368

#: Not heard of for so long: gone, even if its session still stands.
SILENT_S = 20

_LIVES = (
    "EXISTS (SELECT 1 FROM pg_locks l WHERE l.locktype = 'advisory' AND l.classid = :lock AND l.objsubid = 2 "
    "AND l.objid = w.id AND l.granted)"
)


_MISSING = f"(w.heard_at < now() - make_interval(secs => :silent) OR NOT {_LIVES})"

#: An engine says itself that it lives, but not while it waits for its last jobs.
_BEAT = f"""
WITH worker AS (
  UPDATE workers SET heard_at = now(), engine_id = CAST(:engine AS BIGINT) WHERE id = :worker RETURNING draining
), engine AS (
  UPDATE procrastinate_workers SET last_heartbeat = now() WHERE id = CAST(:engine AS BIGINT)
)
SELECT (SELECT draining FROM worker) AS draining,
  EXISTS (SELECT 1 FROM schedules s WHERE s.next_at <= now()) AS due,
  EXISTS (SELECT 1 FROM workers w WHERE w.id <> :worker AND {_MISSING}) AS missing,
  EXISTS (SELECT 1 FROM tasks t WHERE {engine.FORGOTTEN})
  OR EXISTS (SELECT 1 {engine.STALLED}) AS forgotten,
  ARRAY (SELECT j.lock FROM procrastinate_jobs j WHERE j.status = 'doing' AND j.task_name = :task
    AND j.worker_id = CAST(:engine AS BIGINT)) AS doing
"""


@dataclass(frozen=True, slots=True)
class Beat:
    """The news for a worker from its heartbeat."""

    draining: bool | None  #: whether it is to stop; None: the others have struck it off
    due: bool  #: the time of a schedule has come
    missing: bool  #: another worker seems to have died
    forgotten: bool  #: the engine has lost a job, or has one whose engine has died
    doing: frozenset[str] = frozenset()  #: the manifests that the worker's engine has in hand, as the others see it


@dataclass(frozen=True, slots=True)
class WorkerState:
    """One worker as the others see it."""

    id: int
    host: str
    pid: int
    slots: int
    engine_id: int | None
    began_at: datetime
    heard_at: datetime
    draining: bool
    lives: bool  #: its session stands, and it was heard of within SILENT_S
    name: str  #: HOST:PID


def register(connection: Connection, host: str, pid: int, slots: int, engine_id: int | None) -> int:
    """Enter a worker; its number. It must not have been entered before: leave first. Needs its session's connection."""
    number = connection.execute(
        text("INSERT INTO workers (host, pid, slots, engine_id) VALUES (:host, :pid, :slots, :engine) RETURNING id"),
        {"host": host, "pid": pid, "slots": slots, "engine": engine_id},
    ).scalar_one()
    hold(connection, int(number))
    return int(number)


def hold(connection: Connection, worker_id: int) -> None:
    """From now on the session of *connection* is the worker's: its end is the worker's death."""
    connection.execute(text("SELECT pg_advisory_lock(:lock, CAST(:id AS INTEGER))"), {"lock": _LOCK, "id": worker_id})


def beat(connection: Connection, worker_id: int, engine_id: int | None) -> Beat:
    """Say that the worker lives, and its engine, and look in the same statement whether there is anything to do."""
    values = {
        "worker": worker_id,
        "engine": engine_id,
        "lock": _LOCK,
        "silent": SILENT_S,
        **engine.NAMED,
    }
    found = connection.execute(text(_BEAT), values).one()
    draining = None if found.draining is None else bool(found.draining)
    doing = frozenset(map(str, found.doing))
    return Beat(draining, due=found.due, missing=found.missing, forgotten=found.forgotten, doing=doing)


def leave(connection: Connection, worker_id: int) -> None:
    """Strike a worker off; what it was carrying out waits for another."""
    connection.execute(text("UPDATE tasks SET worker_id = NULL WHERE worker_id = :id"), {"id": worker_id})
    connection.execute(text("DELETE FROM workers WHERE id = :id"), {"id": worker_id})


def drain(connection: Connection, host: str, pid: int) -> bool:
    """Have a worker end once it has carried out what it has in hand; whether there is such a one."""
    done = connection.execute(
        text("UPDATE workers SET draining = 1 WHERE host = :host AND pid = :pid"), {"host": host, "pid": pid}
    )
    return done.rowcount > 0


def states(connection: Connection) -> list[WorkerState]:
    """Every worker on the roll, by host."""
    rows = connection.execute(
        text(
            "SELECT w.id, w.host, w.pid, w.slots, w.engine_id, w.began_at, w.heard_at, w.draining, "
            f"NOT {_MISSING} AS lives FROM workers w ORDER BY w.host, w.pid, w.id"
        ),
        {"lock": _LOCK, "silent": SILENT_S},
    )
    return [
        WorkerState(
            row.id,
            row.host,
            row.pid,
            row.slots,
            row.engine_id,
            row.began_at,
            row.heard_at,
            bool(row.draining),
            row.lives,
            f"{row.host}:{row.pid}",
        )
        for row in rows
    ]
