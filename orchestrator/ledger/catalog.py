"""PostgreSQL's own list of tables, for whoever makes tables there beside others that come at the same time."""

from __future__ import annotations

from sqlalchemy import Connection

from orchestrator.ledger.sql import text


def has_table(connection: Connection, table: str) -> bool:
    """Whether *table* is there now. ``to_regclass`` may go by what the session knew before it waited for a lock."""
    found = connection.execute(
        text("SELECT count(*) FROM pg_catalog.pg_class c WHERE c.relname = :table AND pg_table_is_visible(c.oid)"),
        {"table": table},
    )
    return bool(found.scalar_one())
