"""The schedules: when a task is asked for by itself. A tick is one transaction, so no loss of a host doubles it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from orchestrator.ledger.sql import text
from orchestrator.ledger.workers import tasks

#: A cron expression, a time zone and an instant -> the latest time of it up to that instant, and the next one.
Around = Callable[[str, str, datetime], tuple[datetime, datetime]]


@dataclass(frozen=True, slots=True)
class ScheduleState:
    """A schedule with its last tick that was carried on, and its next."""

    name: str
    cron: str
    zone: str
    last_at: datetime | None
    next_at: datetime


def keep(connection: Connection, name: str, cron: str, zone: str, next_at: datetime) -> None:
    """Keep the schedule of the task *name*; one that is kept already as it is goes on with its next tick."""
    connection.execute(
        text(
            "INSERT INTO schedules (name, cron, zone, next_at) VALUES (:name, :cron, :zone, :next) "
            "ON CONFLICT (name) DO UPDATE SET cron = :cron, zone = :zone, next_at = :next "
            "WHERE (schedules.cron, schedules.zone) <> (:cron, :zone)"
        ),
        {"name": name, "cron": cron, "zone": zone, "next": next_at},
    )


def drop(connection: Connection, name: str) -> bool:
    """Forget the schedule of the task *name*; whether it had one."""
    done = connection.execute(text("DELETE FROM schedules WHERE name = :name"), {"name": name})
    return done.rowcount > 0


def now(connection: Connection) -> datetime:
    """The server's time, which is the same for all hosts."""
    found: datetime = connection.execute(text("SELECT now()")).scalar_one()
    return found


def tick(connection: Connection, around: Around, at: datetime) -> list[str]:
    """Ask for each task whose time has come, once however many of its times have passed; their names.

    Other hosts do so too: a schedule that one of them has in hand is left to it.
    """
    due = connection.execute(
        text("SELECT name, cron, zone FROM schedules WHERE next_at <= :now ORDER BY name FOR UPDATE SKIP LOCKED"),
        {"now": at},
    ).all()
    for row in due:
        last, following = around(row.cron, row.zone, at)
        connection.execute(
            text("UPDATE schedules SET last_at = :last, next_at = :next WHERE name = :name"),
            {"name": row.name, "last": last, "next": following},
        )
        tasks.ask(connection, row.name)
    return [str(row.name) for row in due]


def states(connection: Connection) -> list[ScheduleState]:
    """Every schedule, by name."""
    rows = connection.execute(text("SELECT name, cron, zone, last_at, next_at FROM schedules ORDER BY name"))
    return [ScheduleState(row.name, row.cron, row.zone, row.last_at, row.next_at) for row in rows]
