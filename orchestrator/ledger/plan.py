"""What a manifest asks for against what the ledger has: staged, counted and cut into chunks inside SQL.

The wanted file IDs live in a temporary table of the connection, never in Python: a million of them cost little.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from sqlalchemy import Connection, bindparam, text

from orchestrator.ledger.scope import Scope
from orchestrator.ledger.sql import GOOD_SQL, scalar_int

#: Rows a statement takes at once.
BATCH = 10_000


@dataclass(frozen=True, slots=True)
class Counts:
    """What a run of the manifest would find; ``listed`` = ``files`` + ``duplicates``."""

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
    """Put *file_ids*, in order and each once, into the connection's table ``wanted``; how many were listed."""
    connection.exec_driver_sql("DROP TABLE IF EXISTS temp.wanted")
    connection.exec_driver_sql("CREATE TEMP TABLE wanted (position INTEGER PRIMARY KEY, file_id TEXT NOT NULL UNIQUE)")
    listed = 0
    rest = iter(file_ids)
    while batch := [(file_id,) for file_id in islice(rest, BATCH)]:
        connection.exec_driver_sql("INSERT OR IGNORE INTO temp.wanted (file_id) VALUES (?)", batch)
        listed += len(batch)
    return listed


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
               sum(f.id IS NULL) AS new,
               sum(r.outcome IN {GOOD_SQL}) AS done,
               sum(r.outcome NOT IN {GOOD_SQL}) AS failed,
               sum(f.id IS NOT NULL AND r.file_row IS NULL) AS in_flight
        FROM temp.wanted w
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
            SELECT count(DISTINCT w.file_id) FROM temp.wanted w
            JOIN files f ON f.manifest_id = :manifest_id AND f.file_id = w.file_id AND f.config_id <> :config_id
            JOIN results r ON r.file_row = f.id
            WHERE NOT EXISTS (SELECT 1 FROM files g WHERE g.manifest_id = :manifest_id AND g.file_id = w.file_id
                              AND g.config_id = :config_id)
            """,
            manifest_id=scope.manifest_id,
            config_id=scope.config_id,
        )
    return Counts(listed, row.files, row.done or 0, row.failed or 0, row.in_flight or 0, row.new or 0, changed)


def select_new(connection: Connection, scope: Scope) -> int:
    """Choose, for the next cut, the wanted files that were never submitted in *scope*; how many."""
    return choose(
        connection,
        """
        SELECT w.file_id, 0 FROM temp.wanted w
        WHERE NOT EXISTS (SELECT 1 FROM files f WHERE f.manifest_id = :manifest_id AND f.file_id = w.file_id
                          AND f.config_id = :config_id)
        ORDER BY w.position
        """,
        scope,
    )


def chosen(connection: Connection, most: int) -> list[str]:
    """The first *most* of the chosen files."""
    return list(
        connection.execute(text("SELECT file_id FROM temp.chosen ORDER BY n LIMIT :most"), {"most": most}).scalars()
    )


def choose(connection: Connection, query: str, scope: Scope, **parameters: object) -> int:
    """Put the rows of *query*, file ID and generation, into the connection's table ``chosen``, in order; how many."""
    connection.exec_driver_sql("DROP TABLE IF EXISTS temp.chosen")
    connection.exec_driver_sql(
        "CREATE TEMP TABLE chosen (n INTEGER PRIMARY KEY, file_id TEXT NOT NULL, generation INTEGER NOT NULL)"
    )
    values = {"manifest_id": scope.manifest_id, "config_id": scope.config_id, **parameters}
    statement = text(f"INSERT INTO temp.chosen (file_id, generation) {query}")
    used = {name: value for name, value in values.items() if f":{name}" in query}
    lists = [name for name, value in used.items() if isinstance(value, list)]
    connection.execute(statement.bindparams(*(bindparam(name, expanding=True) for name in lists)), used)
    return scalar_int(connection, "SELECT count(*) FROM temp.chosen")


def last_chunk(connection: Connection) -> int:
    """The highest chunk id; 0 without any."""
    return scalar_int(connection, "SELECT max(id) FROM jobs")


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
) -> int:
    """Make pending chunks of at most *chunk_size* out of the chosen files, in order; how many chunks.

    *job_config_id* is what the jobs will be created with; it differs from the scope's when a retry overrides it.
    """
    base = last_chunk(connection)
    parameters = {
        "base": base,
        "size": chunk_size,
        "manifest_id": scope.manifest_id,
        "config_id": scope.config_id,
        "job_config_id": job_config_id,
        "run_id": run_id,
        "api": api,
        "at": at,
        "escalation": escalation,
    }
    connection.execute(
        text("""
        INSERT INTO jobs (id, manifest_id, config_id, run_id, api, size, changed_at, escalation)
        SELECT :base + 1 + (n - 1) / :size, :manifest_id, :job_config_id, :run_id, :api, count(*), :at, :escalation
        FROM temp.chosen GROUP BY (n - 1) / :size
        """),
        parameters,
    )
    connection.execute(
        text("""
        INSERT INTO files (chunk_id, manifest_id, config_id, file_id, generation, standing)
        SELECT :base + 1 + (n - 1) / :size, :manifest_id, :config_id, file_id, generation, generation = 0
        FROM temp.chosen ORDER BY n
        """),
        parameters,
    )
    return last_chunk(connection) - base
