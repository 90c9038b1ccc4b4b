"""Pieces of SQL that several query modules share."""

from __future__ import annotations

from sqlalchemy import Connection, text

from orchestrator.models import GOOD

#: What one transaction of the ledger is done with; the rooms above hand it on and never look inside.
Transaction = Connection

GOOD_SQL = "(" + ", ".join(f"'{outcome.value}'" for outcome in sorted(GOOD)) + ")"


def scalar_int(connection: Connection, statement: str, **parameters: object) -> int:
    """The one integer that *statement* gives; 0 for NULL."""
    return int(connection.execute(text(statement), parameters).scalar_one() or 0)


#: A result's confidence in whole percent, rounded down; -1 without one.
PERCENT_SQL = "CAST(coalesce(r.confidence, -0.01) * 100 + 0.0000001 AS INTEGER)"
