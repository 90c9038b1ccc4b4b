"""The files that a manifest asks for against those the ledger has: staged, counted and cut into chunks inside SQL.

The wanted file IDs live in a temporary table of the connection, never in Python: a million of them cost little.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, text

from orchestrator.ledger.scope import Scope
from orchestrator.ledger.sql import GOOD_SQL, OPEN_SQL, batches, insert, scalar_int
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


def stage(connection: Connection, file_ids: Iterable[str]) -> int:
    """Put *file_ids*, in order and each once, into the connection's table ``wanted``; how many were listed.

    Two spellings of a UUID are one file: ``file_id`` is its canonical form, ``spelling`` the first one if it differs.
    """
    connection.exec_driver_sql("DROP TABLE IF EXISTS wanted")
    connection.exec_driver_sql(
        "CREATE TEMP TABLE wanted (position INTEGER PRIMARY KEY, file_id TEXT NOT NULL UNIQUE, spelling TEXT)"
    )
    listed = 0
    for batch in batches(file_ids, BATCH):
        rows = [(position, *_canonical(file_id)) for position, file_id in enumerate(batch, start=listed)]
        insert(connection, "wanted", ("position", "file_id", "spelling"), rows, "ON CONFLICT (file_id) DO NOTHING")
        listed += len(batch)
    return listed


def _canonical(file_id: str) -> tuple[str, str | None]:
    """*file_id* in its canonical form, and as it is if that differs."""
    canonical = canonical_id(file_id)
    return canonical, None if canonical == file_id else file_id


def forget_unsent(connection: Connection, scope: Scope, *, api: str) -> None:
    """Remove the chunks that ``_find_unsent`` finds, and halve no more what failed under another config."""
    _find_unsent(connection, scope, api=api)
    for table, column in (("events", "chunk_id"), ("files", "chunk_id"), ("jobs", "id")):
        connection.execute(text(f"DELETE FROM {table} WHERE {column} IN (SELECT id FROM unsent)"))
    connection.execute(
        text(
            "UPDATE jobs SET isolate = 0 WHERE manifest_id = :manifest_id AND isolate = 1 "
            "AND EXISTS (SELECT 1 FROM files f WHERE f.chunk_id = jobs.id AND f.config_id <> :config_id)"
        ),
        {"manifest_id": scope.manifest_id, "config_id": scope.config_id},
    )


def hide_unsent(connection: Connection, scope: Scope, *, api: str, rehearsal: bool) -> None:
    """Let this connection see the ledger as a run would leave it before it plans. Writes nothing.

    Until the connection closes, a view of each table stands in front of the table.
    """
    if not _find_unsent(connection, scope, api=api, rehearsal=rehearsal):
        return
    schema = "main" if connection.dialect.name == "sqlite" else "public"
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
    connection.exec_driver_sql("DROP TABLE IF EXISTS unsent")
    connection.exec_driver_sql("CREATE TEMP TABLE unsent (id INTEGER PRIMARY KEY)")
    connection.execute(
        text(f"INSERT INTO unsent (id) SELECT j.id FROM jobs j WHERE j.manifest_id = :manifest_id AND {condition}"),
        used,
    )
    return scalar_int(connection, "SELECT count(*) FROM unsent")


def count(connection: Connection, scope: Scope, listed: int) -> Counts:
    """How the wanted files stand in *scope*."""
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
    return Counts(listed, row.files, row.done, row.failed, row.in_flight, row.new, changed)


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


def open_chunks(connection: Connection, manifest_id: int) -> list[OpenChunks]:
    """Return the chunks that an earlier run has left for a later one."""
    rows = connection.execute(
        text(f"""
        SELECT j.status, c.canonical, j.size, count(*) AS chunks FROM jobs j JOIN configs c ON c.id = j.config_id
        WHERE j.manifest_id = :manifest_id AND (j.status IN {OPEN_SQL} OR j.isolate = 1)
        GROUP BY j.status, c.canonical, j.size
        """),
        {"manifest_id": manifest_id},
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


def chosen(connection: Connection, most: int) -> list[str]:
    """The first *most* of the chosen files, as the staged list spells them."""
    statement = text(
        "SELECT coalesce(w.spelling, c.file_id) FROM chosen c LEFT JOIN wanted w ON w.file_id = c.file_id "
        "ORDER BY c.n LIMIT :most"
    )
    return list(connection.execute(statement, {"most": most}).scalars())


def choose(connection: Connection, query: str, scope: Scope, **parameters: object) -> int:
    """Put the rows of *query* into the connection's table ``chosen``, in order of their position; how many.

    *query* gives ``position``, ``file_id`` and ``generation``; of *parameters* those are bound that it names.
    """
    connection.exec_driver_sql("DROP TABLE IF EXISTS chosen")
    connection.exec_driver_sql(
        "CREATE TEMP TABLE chosen (n INTEGER PRIMARY KEY, file_id TEXT NOT NULL, generation INTEGER NOT NULL)"
    )
    values = {"manifest_id": scope.manifest_id, "config_id": scope.config_id, **parameters}
    statement = text(f"""
        INSERT INTO chosen (n, file_id, generation)
        SELECT row_number() OVER (ORDER BY q.position), q.file_id, q.generation FROM ({query}) AS q
    """)
    used = {name: value for name, value in values.items() if re.search(rf":{name}\b", query)}
    lists = [name for name, value in used.items() if isinstance(value, list)]
    connection.execute(statement.bindparams(*(bindparam(name, expanding=True) for name in lists)), used)
    return scalar_int(connection, "SELECT count(*) FROM chosen")


def choose_named(connection: Connection, scope: Scope, file_ids: Collection[str]) -> int:
    """Choose *file_ids*, in order, for the next cut, each one generation on from what *scope* has of it; how many."""
    name_files(connection, file_ids)
    return choose(
        connection,
        """
        SELECT n.position, n.file_id, 1 + coalesce((SELECT max(g.generation) FROM files g
          WHERE g.manifest_id = :manifest_id AND g.config_id = :config_id AND g.file_id = n.file_id), -1) AS generation
        FROM named n
        """,
        scope,
    )


def name_files(connection: Connection, file_ids: Collection[str]) -> None:
    """Put *file_ids*, in order and each once, into the connection's table ``named``; ``spelling`` is as given."""
    connection.exec_driver_sql("DROP TABLE IF EXISTS named")
    connection.exec_driver_sql(
        "CREATE TEMP TABLE named (position INTEGER PRIMARY KEY, file_id TEXT NOT NULL UNIQUE, spelling TEXT NOT NULL)"
    )
    rows = [(position, canonical_id(file_id), file_id) for position, file_id in enumerate(file_ids)]
    if rows:
        insert(connection, "named", ("position", "file_id", "spelling"), rows, "ON CONFLICT (file_id) DO NOTHING")


def last_chunk(connection: Connection) -> int:
    """The last chunk id given out; 0 before the first. Ids are never given out again."""
    return scalar_int(connection, "SELECT last FROM sequences WHERE name = 'jobs'")


def chunk_ids(connection: Connection, how_many: int) -> int:
    """The first of *how_many* chunk ids that follow one another and are the caller's from now on."""
    connection.execute(text("UPDATE sequences SET last = last + :how_many WHERE name = 'jobs'"), {"how_many": how_many})
    return last_chunk(connection) - how_many + 1


_CUT_JOBS = text("""
    INSERT INTO jobs (id, manifest_id, config_id, run_id, api, parent_id, depth, escalation, size, status, job_id,
                      sent_at, submitted_at, changed_at)
    SELECT c.id, :manifest_id, :job_config_id, :run_id, :api, CAST(:parent_id AS INTEGER), :depth, :escalation,
           c.files, :status, :job_id, :submitted_at, :submitted_at, :at
    FROM (SELECT :first + (n - 1) / :size AS id, count(*) AS files FROM chosen GROUP BY :first + (n - 1) / :size) AS c
    ORDER BY c.id
    """)

_CUT_FILES = text("""
    INSERT INTO files (chunk_id, manifest_id, config_id, file_id, generation, standing)
    SELECT :first + (n - 1) / :size, :manifest_id, :config_id, file_id, generation,
           CASE WHEN generation = 0 THEN 1 ELSE 0 END
    FROM chosen ORDER BY n
    """)


def cut(
    connection: Connection,
    scope: Scope,
    *,
    chunk_size: int,
    job_config_id: int,
    api: str,
    run_id: str,
    at: str,
    escalation: bool = False,
    parent_id: int | None = None,
    depth: int = 0,
    job_id: str | None = None,
) -> int:
    """Make chunks of at most *chunk_size* out of the chosen files, in order; how many. All chunks are made here.

    *job_config_id* is what the jobs are created with; it differs from the scope's when a retry overrides it. The
    chunks are pending; with *job_id*, the one chunk has been submitted *at*. *parent_id* and *depth*: of a half.
    """
    chunks = math.ceil(scalar_int(connection, "SELECT count(*) FROM chosen") / chunk_size)
    if not chunks:
        return 0
    parameters = {
        "first": chunk_ids(connection, chunks),
        "size": chunk_size,
        "manifest_id": scope.manifest_id,
        "config_id": scope.config_id,
        "job_config_id": job_config_id,
        "run_id": run_id,
        "api": api,
        "at": at,
        "escalation": int(escalation),
        "parent_id": parent_id,
        "depth": depth,
        "status": (JobStatus.PENDING if job_id is None else JobStatus.SUBMITTED).value,
        "job_id": job_id,
        "submitted_at": None if job_id is None else at,
    }
    connection.execute(_CUT_JOBS, parameters)
    connection.execute(_CUT_FILES, {name: parameters[name] for name in ("first", "size", "manifest_id", "config_id")})
    return chunks
