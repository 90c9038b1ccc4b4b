"""The tables of tasks, schedules and workers, and those of Procrastinate beside them."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection

from orchestrator.errors import LedgerError
from orchestrator.ledger.catalog import has_table
from orchestrator.ledger.sql import text
from orchestrator.ledger.workers.engine import migrations, raw, whole_schema

#: Two programs that come first at the same time make the tables once; the number means nothing.
_LOCK = 0x6F7263680002

VERSION = 1

_TABLES = """
CREATE TABLE workers (
  id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  host TEXT NOT NULL,
  pid BIGINT NOT NULL,
  slots BIGINT NOT NULL,
  engine_id BIGINT,
  began_at TIMESTAMPTZ NOT NULL DEFAULT now(),
  heard_at TIMESTAMPTZ NOT NULL DEFAULT now(),
  draining BIGINT NOT NULL DEFAULT 0 CHECK (draining IN (0, 1))
);
CREATE TABLE tasks (
  name TEXT PRIMARY KEY,
  path TEXT NOT NULL,
  copies TEXT NOT NULL,
  deadline TEXT,
  asked BIGINT NOT NULL DEFAULT 0,
  done BIGINT NOT NULL DEFAULT 0,
  tries BIGINT NOT NULL DEFAULT 0,
  due_at TIMESTAMPTZ,
  worker_id BIGINT,
  worker TEXT,
  started_at TIMESTAMPTZ,
  ended_at TIMESTAMPTZ,
  exit_code BIGINT,
  reason TEXT
);
CREATE TABLE schedules (
  name TEXT PRIMARY KEY REFERENCES tasks (name),
  cron TEXT NOT NULL,
  zone TEXT NOT NULL,
  last_at TIMESTAMPTZ,
  next_at TIMESTAMPTZ NOT NULL
);
CREATE TABLE workers_schema (
  version BIGINT NOT NULL,
  engine TEXT NOT NULL
)
"""


def exists(connection: Connection) -> bool:
    """Whether anything was ever submitted to this database, or any worker begun."""
    return has_table(connection, "workers_schema")


def prepare(connection: Connection) -> None:
    """Make the tables where they are missing, and bring Procrastinate's up to the version of this installation.

    Call it inside a transaction. Raises LedgerError where a newer program has been here.
    """
    known = migrations()
    if exists(connection) and _state(connection) == (VERSION, known[-1].name):
        return
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    if not exists(connection):
        if not has_table(connection, "procrastinate_jobs"):
            _run(connection, whole_schema())
        _run(connection, _TABLES.replace(" TEXT", ' TEXT COLLATE "C"'))
        connection.execute(text("INSERT INTO workers_schema VALUES (:version, :engine)"), _now(known))
        return
    version, engine = _state(connection)
    if version > VERSION:
        raise LedgerError(f"the workers' tables have version {version}, this program knows {VERSION}; upgrade it")
    for path in known:
        if path.name > engine:
            _run(connection, path.read_text(encoding="utf-8"))
    if known[-1].name > engine:
        connection.execute(text("UPDATE workers_schema SET version = :version, engine = :engine"), _now(known))


def _state(connection: Connection) -> tuple[int, str]:
    row = connection.execute(text("SELECT version, engine FROM workers_schema")).one()
    return int(row.version), str(row.engine)


def _now(known: list[Path]) -> dict[str, object]:
    return {"version": VERSION, "engine": known[-1].name}


def _run(connection: Connection, script: str) -> None:
    """Carry out several statements; only the driver takes them at once."""
    raw(connection).execute(script.encode())
