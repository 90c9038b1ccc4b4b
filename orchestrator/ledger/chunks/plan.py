"""The files that a manifest asks for against those the ledger has: staged and counted inside SQL.

The wanted file IDs live in a temporary table of the connection, never in Python: a million of them cost little.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from operator import itemgetter

from sqlalchemy import Connection

from orchestrator.ledger.chunks.cutting import choose
from orchestrator.ledger.scope import Scope, Staged
from orchestrator.ledger.sql import (
    GOOD_SQL,
    MANY,
    OPEN_SQL,
    analyse,
    batches,
    insert,
    numbered,
    scalar_int,
    scratch,
    text,
)
from orchestrator.models import Config, JobStatus, canonical_id

#: Rows that are handed to the driver at once.
BATCH = 10_000


@dataclass(frozen=True, slots=True)
class Counts:
    """The files that a run of the manifest would find; ``listed`` = ``files`` + ``duplicates``."""

    listed: int
    files: int
    done: int
    failed: int
    in_flight: int
    new: int
    changed: int  #: of ``new``: files that have an outcome under other rules

    @property
    def duplicates(self) -> int:
        return self.listed - self.files


def stage(connection: Connection, file_ids: Iterable[str]) -> Staged:
    """Put *file_ids*, in order and each once, into the connection's table ``wanted``.

    Two spellings of a UUID are one file: ``file_id`` is its canonical form, ``spelling`` the first one if it differs.
    """
    columns = "position INTEGER NOT NULL, file_id TEXT NOT NULL PRIMARY KEY, spelling TEXT"
    scratch(connection, "wanted", columns, by_key=True)
    listed = 0
    plain = text(
        "INSERT INTO wanted (position, file_id) "
        f"SELECT CAST(:listed AS INTEGER) + q.n, q.value FROM {numbered(connection)} AS q WHERE 1 = 1 "
        "ORDER BY q.value, q.n ON CONFLICT (file_id) DO NOTHING"  # in the table's own order, which saves a third
    )
    for batch in batches(file_ids, BATCH):
        canonical = list(map(canonical_id, batch))
        texts = json.dumps(batch, ensure_ascii=False)
        if canonical == batch and "\\u0000" not in texts:  # a database's JSON holds no NUL
            connection.execute(plain, {"listed": listed, "texts": texts})
        else:
            rows = [
                (position, canonical, None if canonical == file_id else file_id)
                for position, (canonical, file_id) in enumerate(zip(canonical, batch, strict=True), start=listed)
            ]
            rows.sort(key=itemgetter(1))
            insert(connection, "wanted", ("position", "file_id", "spelling"), rows, "ON CONFLICT (file_id) DO NOTHING")
        listed += len(batch)
    if listed > MANY:
        analyse(connection, "wanted")
    return Staged(listed)


def forget_unsent(connection: Connection, scope: Scope, *, api: str) -> None:
    """Remove the chunks that ``_find_unsent`` finds. Whose half is removed is halved once its own rules are back."""
    _find_unsent(connection, scope, api=api)
    connection.execute(
        text(
            "UPDATE jobs SET isolate = 1 WHERE id IN (SELECT j.parent_id FROM jobs j JOIN files f ON f.chunk_id = j.id "
            "WHERE j.id IN (SELECT id FROM unsent) AND f.config_id <> :config_id)"
        ),
        {"config_id": scope.config_id},
    )
    for table, column in (("events", "chunk_id"), ("files", "chunk_id"), ("jobs", "id")):
        connection.execute(text(f"DELETE FROM {table} WHERE {column} IN (SELECT id FROM unsent)"))


def hide_unsent(connection: Connection, scope: Scope, *, api: str, rehearsal: bool) -> None:
    """Let this connection see the ledger as a run would leave it before it plans. Writes nothing.

    Until the connection closes, a view of each table stands in front of the table.
    """
    if not _find_unsent(connection, scope, api=api, rehearsal=rehearsal):
        return
    schema = "main"
    if connection.dialect.name != "sqlite":
        schema = connection.exec_driver_sql("SELECT quote_ident(current_schema())").scalar_one()
    for table, column in (("files", "chunk_id"), ("jobs", "id")):
        rows = f"SELECT * FROM {schema}.{table} WHERE {column} NOT IN (SELECT id FROM unsent)"
        connection.exec_driver_sql(f"CREATE TEMP VIEW {table} AS {rows}")


def _find_unsent(connection: Connection, scope: Scope, *, api: str, rehearsal: bool = False) -> int:
    """Put into the connection's table ``unsent`` the chunks that a run plans again; how many.

    They were planned and never sent, or each of their calls was refused: what was wanted before an outage may not be
    what is wanted after it. Chunks of a retry stay, as nothing else remembers that they were asked for, unless config
    or API have changed. Of a rehearsal nothing open stays: the sandbox that had its jobs is gone.
    """
    stale = """
        j.status = 'pending' AND j.sends = 0 AND (j.api <> :api OR EXISTS
          (SELECT 1 FROM files f WHERE f.chunk_id = j.id AND (f.generation = 0 OR f.config_id <> :config_id)))
    """
    condition = "j.finished_at IS NULL" if rehearsal else stale
    parameters = {"manifest_id": scope.manifest_id, "config_id": scope.config_id, "api": api}
    used = {name: value for name, value in parameters.items() if not rehearsal or name == "manifest_id"}
    scratch(connection, "unsent", "id INTEGER PRIMARY KEY")
    connection.execute(
        text(f"INSERT INTO unsent (id) SELECT j.id FROM jobs j WHERE j.manifest_id = :manifest_id AND {condition}"),
        used,
    )
    return scalar_int(connection, "SELECT count(*) FROM unsent")


def count(connection: Connection, scope: Scope, staged: Staged) -> Counts:
    """How the *staged* files stand in *scope*."""
    row = connection.execute(
        text(f"""
        SELECT count(*) AS files,
               count(*) FILTER (WHERE f.id IS NULL) AS new,
               count(*) FILTER (WHERE r.outcome IN {GOOD_SQL}) AS done,
               count(*) FILTER (WHERE r.outcome NOT IN {GOOD_SQL}) AS failed,
               count(*) FILTER (WHERE f.id IS NOT NULL AND r.file_row IS NULL) AS in_flight
        FROM wanted w
        LEFT JOIN files f ON f.manifest_id = :manifest_id AND f.config_id = :config_id AND f.file_id = w.file_id
                         AND f.standing = 1
        LEFT JOIN results r ON r.file_row = f.id
        """),
        {"manifest_id": scope.manifest_id, "config_id": scope.config_id},
    ).one()
    changed = 0
    if row.new and scope.manifest_id:
        changed = scalar_int(
            connection,
            """
            SELECT count(DISTINCT w.file_id) FROM wanted w
            JOIN files f ON f.manifest_id = :manifest_id AND f.file_id = w.file_id AND f.config_id <> :config_id
            JOIN results r ON r.file_row = f.id
            WHERE NOT EXISTS (SELECT 1 FROM files g WHERE g.manifest_id = :manifest_id AND g.file_id = w.file_id
                              AND g.config_id = :config_id)
            """,
            manifest_id=scope.manifest_id,
            config_id=scope.config_id,
        )
    return Counts(staged.listed, row.files, row.done, row.failed, row.in_flight, row.new, changed)


@dataclass(frozen=True, slots=True)
class OpenChunks:
    """Chunks of one size, status and config that have not ended, or failed and are still to be halved."""

    status: JobStatus
    config: Config
    size: int
    chunks: int

    @property
    def files(self) -> int:
        return self.size * self.chunks


def open_chunks(connection: Connection, scope: Scope) -> list[OpenChunks]:
    """Return the chunks that an earlier run has left for a later one under the same config."""
    rows = connection.execute(
        text(f"""
        SELECT j.status, c.canonical, j.size, count(*) AS chunks FROM jobs j JOIN configs c ON c.id = j.config_id
        WHERE j.manifest_id = :manifest_id AND (j.status IN {OPEN_SQL} OR j.isolate = 1 AND EXISTS
          (SELECT 1 FROM files f WHERE f.chunk_id = j.id AND f.config_id = :config_id))
        GROUP BY j.status, c.canonical, j.size
        """),
        {"manifest_id": scope.manifest_id, "config_id": scope.config_id},
    )
    return [OpenChunks(JobStatus(r.status), Config.from_canonical(r.canonical), r.size, r.chunks) for r in rows]


def select_new(connection: Connection, scope: Scope) -> int:
    """Choose, for the next cut, the wanted files that were never submitted in *scope*; how many."""
    return choose(
        connection,
        """
        SELECT w.position, w.file_id, 0 AS generation FROM wanted w
        WHERE NOT EXISTS (SELECT 1 FROM files f WHERE f.manifest_id = :manifest_id AND f.file_id = w.file_id
                          AND f.config_id = :config_id)
        """,
        scope,
    )
