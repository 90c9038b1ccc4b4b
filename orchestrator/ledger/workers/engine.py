"""Procrastinate's own statements: a job deferred, handed back, or brought forward on a connection of ours.

The text of each comes from the installed version, so it fits the tables that the same version made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from procrastinate.connector import BaseConnector
from procrastinate.jobs import Job
from procrastinate.manager import JobManager
from procrastinate.schema import SchemaManager
from procrastinate.sql import queries
from procrastinate.sync_psycopg_connector import SyncPsycopgConnector
from sqlalchemy import Connection

from orchestrator.ledger.sql import text

#: The only task there is: one run of one manifest. Its queue is not the default one, which others may use.
TASK = "orchestrator.run"
QUEUE = "orchestrator"

#: A worker of Procrastinate's that was not heard of for so long has died.
RESCUE_S = 20


#: Jobs in the hands of an engine that has died, or that nobody knows any more; needs NAMED.
STALLED = """FROM procrastinate_jobs j LEFT JOIN procrastinate_workers w ON w.id = j.worker_id
  WHERE j.status = 'doing' AND j.task_name = :task
  AND (w.id IS NULL OR w.last_heartbeat < now() - make_interval(secs => :rescue))"""
#: Of tasks ``t``: asked for, and no job is there to wake a worker; needs NAMED.
FORGOTTEN = """t.asked > t.done AND NOT EXISTS (SELECT 1 FROM procrastinate_jobs j
  WHERE j.lock = t.name AND j.task_name = :task AND j.status IN ('todo', 'doing'))"""
NAMED = {"task": TASK, "rescue": RESCUE_S}


def whole_schema() -> str:
    return SchemaManager.get_schema()


def migrations() -> list[Path]:
    """The steps of Procrastinate's schema, oldest first; their names sort by version."""
    return sorted(Path(SchemaManager.get_migrations_path()).glob("*.sql"))


def defer(connection: Connection, name: str, *, due_in_s: float | None = None) -> None:
    """Wake a worker for the manifest *name*: unless a job waits, make one; a waiting one is brought forward.

    With *due_in_s* a new job waits for so long. Two jobs of one name never run at the same time.
    """
    waiting = "status = 'todo' AND task_name = :task AND lock = :name"
    moved = connection.execute(
        text(f"UPDATE procrastinate_jobs SET scheduled_at = NULL WHERE {waiting} RETURNING id"),
        {"task": TASK, "name": name},
    ).first()
    if moved is not None:
        _notify(connection, moved.id)
        return
    at = connection.execute(
        text("SELECT now() + make_interval(secs => CAST(:s AS DOUBLE PRECISION))"), {"s": due_in_s or 0.0}
    ).scalar_one()
    job = Job(
        id=None,
        queue=QUEUE,
        lock=name,
        queueing_lock=None,
        task_name=TASK,
        task_kwargs={"manifest": name},
        scheduled_at=at if due_in_s else None,
    )
    _manager().defer_job(job, connection=raw(connection))


def rescue(connection: Connection, engine_ids: Sequence[int]) -> list[str]:
    """Hand back the jobs that engines have in hand which have died: those of *engine_ids*; the names."""
    of_these = "FROM procrastinate_jobs j WHERE j.status = 'doing' AND j.task_name = :task AND j.worker_id = ANY (:ids)"
    return _hand_back(connection, of_these, {"task": TASK, "ids": list(engine_ids)})


def hand_back(connection: Connection, engine_id: int, name: str) -> None:
    """Hand back the job of the manifest *name* that an engine no longer has in hand, though it lives."""
    of_this = "FROM procrastinate_jobs j WHERE j.status = 'doing' AND j.task_name = :task AND j.worker_id = :id"
    _hand_back(connection, f"{of_this} AND j.lock = :name", {"task": TASK, "id": engine_id, "name": name})


def rescue_stalled(connection: Connection) -> list[str]:
    """Hand back the jobs of every engine that has not beaten for RESCUE_S; the names."""
    return _hand_back(connection, STALLED, NAMED)


def _hand_back(connection: Connection, which: str, values: Mapping[str, object]) -> list[str]:
    chosen = text(f"SELECT j.id, j.lock, now() AS now {which} FOR UPDATE OF j SKIP LOCKED")
    found = connection.execute(chosen, values).all()
    for row in found:
        connection.exec_driver_sql(
            queries["retry_job"],
            {"job_id": row.id, "retry_at": row.now, "new_priority": None, "new_queue_name": None, "new_lock": None},
        )
        _notify(connection, row.id)
    return [str(row.lock) for row in found]


def _notify(connection: Connection, job_id: int) -> None:
    """Wake the workers for a job that may begin; the engine itself only notifies of new ones."""
    connection.execute(
        text("SELECT pg_notify(:channel, :payload)"),
        {
            "channel": f"procrastinate_queue_v1#{QUEUE}",
            "payload": json.dumps({"type": "job_inserted", "job_id": job_id}),
        },
    )


def _manager() -> JobManager:
    unopened: BaseConnector = SyncPsycopgConnector()
    return JobManager(unopened)


def raw(connection: Connection) -> Any:
    """The driver's own connection: what is done with it is part of *connection*'s transaction."""
    return connection.connection.driver_connection
