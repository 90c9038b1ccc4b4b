"""The state that the last notification of a manifest reported: the next one is sent when it has changed."""

from __future__ import annotations

import json
from collections.abc import Mapping

from sqlalchemy import Connection

from orchestrator.ledger.sql import text
from orchestrator.models import Json


def last(connection: Connection, manifest_id: int) -> dict[str, Json]:
    """The state that was last reported; empty before the first."""
    row = connection.execute(text("SELECT told FROM manifests WHERE id = :id"), {"id": manifest_id}).one()
    return dict(json.loads(row.told))


def keep(connection: Connection, manifest_id: int, state: Mapping[str, Json]) -> None:
    """Remember *state* as reported."""
    connection.execute(
        text("UPDATE manifests SET told = :told WHERE id = :id"), {"id": manifest_id, "told": json.dumps(state)}
    )
