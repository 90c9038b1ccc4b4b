"""The tasks: what was asked for and whether it was carried out. One task is the runs of one manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from orchestrator.ledger.sql import text
from orchestrator.ledger.workers import engine


@dataclass(frozen=True, slots=True)
class Task:
    """A manifest for a worker to run. *copies*: the manifest's path and those of its lists -> sha256."""

    name: str
    path: str
    copies: Mapping[str, str]
    deadline: str | None
    asked: int  #: how often it was asked for; hand it back to ``end``
    tries: int  #: how many of its runs ended unfinished since


@dataclass(frozen=True, slots=True)
class TaskState:
    """How a task stands. Exactly one of *running_on* and *waits* is set while something is asked for."""

    name: str
    path: str
    state: str  #: waiting, running, ended, or stopped: a person has to do something before it is submitted again
    running_on: str | None  #: HOST:PID of the worker
    since: datetime | None  #: when the run began that goes on
    due_at: datetime | None  #: not before; None: as soon as a worker has a free slot
    tries: int
    exit_code: int | None  #: of the latest run that ended
    reason: str | None
    ended_at: datetime | None


def submit(connection: Connection, name: str, path: str, copies: Mapping[str, str], deadline: str | None) -> None:
    """Describe the task *name*, or replace its description. It is carried out once ``ask`` is called."""
    connection.execute(
        text(
            "INSERT INTO tasks (name, path, copies, deadline) VALUES (:name, :path, :copies, :deadline) "
            "ON CONFLICT (name) DO UPDATE SET path = :path, copies = :copies, deadline = :deadline"
        ),
        {"name": name, "path": path, "copies": json.dumps(dict(copies)), "deadline": deadline},
    )


def ask(connection: Connection, name: str) -> None:
    """Have the task *name* carried out once more, as soon as a worker has a free slot."""
    connection.execute(
        text("UPDATE tasks SET asked = asked + 1, tries = 0, due_at = NULL WHERE name = :name"), {"name": name}
    )
    engine.defer(connection, name)


def start(connection: Connection, name: str, worker_id: int, worker: str) -> Task | None:
    """Note that *worker* begins the task *name*; None where nothing is asked for: the engine woke it in vain."""
    row = connection.execute(
        text(
            "UPDATE tasks SET worker_id = :id, worker = :worker, started_at = now(), due_at = NULL "
            "WHERE name = :name AND asked > done RETURNING name, path, copies, deadline, asked, tries"
        ),
        {"name": name, "id": worker_id, "worker": worker},
    ).first()
    if row is None:
        return None
    return Task(row.name, row.path, json.loads(row.copies), row.deadline, row.asked, row.tries)


def end(
    connection: Connection, task: Task, worker_id: int, *, exit_code: int | None, reason: str, again_in_s: float | None
) -> bool:
    """Note how a run of *task* ended; with *again_in_s* it stays asked for. False where another worker has it now."""
    done = connection.execute(
        text(
            "UPDATE tasks SET worker_id = NULL, exit_code = :code, reason = :reason, ended_at = now(), "
            "done = CASE WHEN :again = 1 THEN done ELSE :asked END, "
            "tries = CASE WHEN :again = 1 THEN tries + 1 ELSE 0 END, "
            "due_at = CASE WHEN :again = 1 THEN now() + make_interval(secs => CAST(:s AS DOUBLE PRECISION)) END "
            "WHERE name = :name AND worker_id = :worker"
        ),
        {
            "name": task.name,
            "worker": worker_id,
            "code": exit_code,
            "reason": reason,
            "asked": task.asked,
            "again": int(again_in_s is not None),
            "s": again_in_s or 0.0,
        },
    )
    return done.rowcount == 1


def wake_forgotten(connection: Connection) -> list[str]:
    """Defer a job for each task that is asked for and that the engine has none of; their names."""
    found = connection.execute(
        text(
            "SELECT t.name, greatest(0, EXTRACT(EPOCH FROM t.due_at - now())) AS wait_s FROM tasks t "
            f"WHERE {engine.FORGOTTEN} FOR UPDATE OF t SKIP LOCKED"
        ),
        {"task": engine.TASK},
    ).all()
    for row in found:
        engine.defer(connection, row.name, due_in_s=float(row.wait_s or 0.0))
    return [str(row.name) for row in found]


def states(connection: Connection) -> list[TaskState]:
    """How every task stands, by name."""
    rows = connection.execute(
        text(
            "SELECT name, path, worker_id, worker, started_at, ended_at, due_at, tries, exit_code, reason, "
            "CASE WHEN worker_id IS NOT NULL THEN 'running' WHEN asked > done THEN 'waiting' "
            "WHEN exit_code > 1 THEN 'stopped' WHEN exit_code IS NULL THEN 'new' ELSE 'ended' END AS state "
            "FROM tasks ORDER BY name"
        )
    )
    return [
        TaskState(
            name=row.name,
            path=row.path,
            state=row.state,
            running_on=row.worker if row.worker_id is not None else None,
            since=row.started_at if row.worker_id is not None else None,
            due_at=row.due_at if row.state == "waiting" else None,
            tries=row.tries,
            exit_code=row.exit_code,
            reason=row.reason,
            ended_at=row.ended_at,
        )
        for row in rows
    ]
