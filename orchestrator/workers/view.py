"""The view of ``orchestrator workers``: who works, on what, and what comes next."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from orchestrator import ledger
from orchestrator.errors import InputError
from orchestrator.ledger import Server, ServerState, Transaction
from orchestrator.ledger.workers import roll, schedules, schema, tasks
from orchestrator.ledger.workers.roll import WorkerState
from orchestrator.ledger.workers.schedules import ScheduleState
from orchestrator.ledger.workers.tasks import TaskState
from orchestrator.plaintext import counted, safe, span
from orchestrator.workers.submit import local


@dataclass(frozen=True, slots=True)
class Crew:
    """The workers, the tasks and the schedules of one ledger."""

    workers: list[WorkerState]
    tasks: list[TaskState]
    schedules: list[ScheduleState]

    def crew_lines(self) -> list[str]:
        """The crew as a person reads it."""
        now = datetime.now(UTC)
        return [
            *(_worker_line(worker, now) for worker in self.workers),
            *(_task_line(task, now) for task in self.tasks),
            *(
                f"schedule {one.name}: {one.cron}; next {local(one.next_at, one.zone)}, "
                f"last {local(one.last_at, one.zone) if one.last_at else '-'}"
                for one in self.schedules
            ),
        ]


@dataclass(frozen=True, slots=True)
class Found(Crew):
    """A crew, where it was found, and the state of the server there."""

    ledger: str
    server: ServerState

    def lines(self) -> list[str]:
        """The server, who holds which manifest, and the crew, as a person reads it."""
        return [f"server: {self.server.words}", *self.server.news, *self.crew_lines()]


def crew(connection: Transaction) -> Crew | None:
    """The crew of the ledger; None where nothing was ever submitted."""
    if not schema.exists(connection):
        return None
    return Crew(roll.states(connection), tasks.states(connection), schedules.states(connection))


def look(server: Server) -> Found:
    """The crew of the ledger on *server*. Raises LedgerError."""
    with ledger.session(server, "orchestrator workers") as session, session.transaction() as connection:
        found = crew(connection) or Crew([], [], [])
    state = ledger.server_state(server)
    assert state is not None  # noqa: S101 - it is no file
    return Found(found.workers, found.tasks, found.schedules, str(server), state)


def drain(server: Server, host: str, pid: int) -> None:
    """Have the worker *pid* on *host* end when it has nothing in hand. Raises InputError where there is none."""
    with ledger.session(server, "orchestrator workers") as session, session.transaction() as connection:
        if not schema.exists(connection) or not roll.drain(connection, host, pid):
            raise InputError(f"no worker {safe(host)}:{pid} is at work; `orchestrator workers` lists them")


def _worker_line(worker: WorkerState, now: datetime) -> str:
    state = "gone" if not worker.lives else "draining" if worker.draining else "at work"
    return (
        f"worker {worker.name}: {state}, {counted(worker.slots, 'slot')}, "
        f"for {_ago(worker.began_at, now)}, heard of {_ago(worker.heard_at, now)} ago"
    )


def _task_line(task: TaskState, now: datetime) -> str:
    words = {
        "running": f"running on {task.running_on} for {_ago(task.since, now)}",
        "waiting": "waiting for a free slot",
        "stopped": "waits for a person, then submit it again",
        "ended": "carried out",
        "new": "not asked for yet",
    }[task.state]
    if task.due_at is not None and task.due_at > now:
        words = f"tried again in {_ago(now, task.due_at)} (try {task.tries + 1})"
    if task.ended_at is not None:
        code = "" if task.exit_code is None else f"exit {task.exit_code}"
        said = ": ".join(part for part in (code, task.reason) if part)
        words += f"; last ended {_ago(task.ended_at, now)} ago, {said}"
    return f"task {task.name}: {words}"


def _ago(then: datetime | None, now: datetime) -> str:
    return span(max(0.0, (now - then).total_seconds())) if then is not None else "-"
