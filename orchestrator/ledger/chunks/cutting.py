"""Files are chosen, in order, and cut into chunks: every chunk of the ledger is made here."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import asdict

from sqlalchemy import Connection, bindparam

from orchestrator.ledger.scope import Scope
from orchestrator.ledger.sql import MANY, analyse, counting_key, insert, scalar_int, scratch, text
from orchestrator.models import JobStatus, canonical_id


def chosen(connection: Connection, most: int) -> list[str]:
    """The first *most* of the chosen files, as the staged list spells them."""
    statement = text(
        "SELECT coalesce(w.spelling, c.file_id) FROM chosen c LEFT JOIN wanted w ON w.file_id = c.file_id "
        "ORDER BY c.n LIMIT :most"
    )
    return list(connection.execute(statement, {"most": most}).scalars())


def chosen_ids(connection: Connection) -> set[str]:
    """The IDs of the chosen files, as the ledger has them."""
    return set(connection.execute(text("SELECT file_id FROM chosen")).scalars())


def choose(connection: Connection, query: str, scope: Scope, **parameters: object) -> int:
    """Put the rows of *query* into the connection's table ``chosen``, in order of their position; how many.

    *query* gives ``position``, ``file_id`` and ``generation``; of *parameters* those are bound that it names.
    """
    number = counting_key(connection)
    scratch(connection, "chosen", f"n {number}, file_id TEXT NOT NULL, generation INTEGER NOT NULL")
    values = {"manifest_id": scope.manifest_id, "config_id": scope.config_id, **parameters}
    statement = text(f"""
        INSERT INTO chosen (file_id, generation)
        SELECT q.file_id, q.generation FROM ({query}) AS q ORDER BY q.position
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
    scratch(connection, "named", "position INTEGER PRIMARY KEY, file_id TEXT NOT NULL UNIQUE, spelling TEXT NOT NULL")
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
    """Make chunks of at most *chunk_size* out of the chosen files, in order; how many.

    *job_config_id* is what the jobs are created with; it differs from the scope's when a retry overrides it. The
    chunks are pending; with *job_id*, the one chunk has been submitted *at*. *parent_id* and *depth*: of a half.
    """
    chunks = math.ceil(scalar_int(connection, "SELECT count(*) FROM chosen") / chunk_size)
    if not chunks:
        return 0
    where = {"first": chunk_ids(connection, chunks), "size": chunk_size, **asdict(scope)}
    job = {
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
    connection.execute(_CUT_JOBS, {**where, **job})
    connection.execute(_CUT_FILES, where)
    if chunks * chunk_size > MANY:
        analyse(connection, "jobs", "files")
    return chunks
