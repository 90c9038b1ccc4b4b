"""A sample of the chosen files: the others stay as new as they were."""

from __future__ import annotations

import random

from sqlalchemy import Connection, bindparam

from orchestrator.ledger.chunks.cutting import choose
from orchestrator.ledger.scope import Scope
from orchestrator.ledger.sql import batches, scalar_int, text


def draw(connection: Connection, scope: Scope, size: int, seed: int) -> None:
    """Leave *size* of the chosen files chosen, at random by *seed*."""
    chosen = scalar_int(connection, "SELECT count(*) FROM chosen")
    picked = random.Random(seed).sample(range(1, chosen + 1), min(size, chosen))
    connection.exec_driver_sql("DROP TABLE IF EXISTS picked")
    connection.exec_driver_sql(
        "CREATE TEMP TABLE picked (n INTEGER PRIMARY KEY, file_id TEXT NOT NULL, generation INTEGER NOT NULL)"
    )
    for batch in batches(picked):
        statement = text(
            "INSERT INTO picked (n, file_id, generation) "
            "SELECT c.n, c.file_id, c.generation FROM chosen c WHERE c.n IN :picked"
        )
        connection.execute(statement.bindparams(bindparam("picked", expanding=True)), {"picked": batch})
    choose(connection, "SELECT p.n AS position, p.file_id, p.generation FROM picked p", scope)


def chosen_before(connection: Connection, scope: Scope) -> int:
    """How many of the chosen files have an outcome under other rules."""
    return scalar_int(
        connection,
        "SELECT count(*) FROM chosen c WHERE c.generation = 0 AND EXISTS (SELECT 1 FROM files f "
        "JOIN results r ON r.file_row = f.id WHERE f.manifest_id = :manifest_id AND f.file_id = c.file_id)",
        manifest_id=scope.manifest_id,
    )
