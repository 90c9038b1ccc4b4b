"""The names of files: their documents' paths, or the name that a list gives them beside further columns."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Row, bindparam

from orchestrator.ledger.documents import known
from orchestrator.ledger.sql import batches, insert, scratch, text
from orchestrator.models import Json, canonical_id

#: Rows that are handed to the driver at once.
_BATCH = 10_000


class Names:
    """Gathers what lists say of files while they are staged; ``keep`` then writes it into the ledger."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._rows: list[tuple[str, str | None, str]] = []
        scratch(connection, "named_by_lists", "file_id TEXT NOT NULL UNIQUE, name TEXT, more TEXT NOT NULL")

    def __call__(self, file_id: str, name: str | None, more: Mapping[str, Json]) -> None:
        self._rows.append((canonical_id(file_id), name, json.dumps(more)))
        if len(self._rows) >= _BATCH:
            self._flush()

    def keep(self, manifest: str) -> None:
        """The latest list counts; what it does not name keeps its name."""
        self._flush()
        self._connection.execute(
            text("""
            INSERT INTO names (manifest, file_id, name, more)
            SELECT CAST(:manifest AS TEXT), n.file_id, n.name, n.more FROM named_by_lists n
            WHERE NOT EXISTS (SELECT 1 FROM names o WHERE o.manifest = :manifest AND o.file_id = n.file_id
                              AND coalesce(o.name, '') = coalesce(n.name, '') AND o.more = n.more)
            ON CONFLICT (manifest, file_id) DO UPDATE SET name = excluded.name, more = excluded.more
            """),
            {"manifest": manifest},
        )

    def _flush(self) -> None:
        rows, self._rows = self._rows, []
        if rows:
            columns = ("file_id", "name", "more")
            insert(self._connection, "named_by_lists", columns, rows, "ON CONFLICT (file_id) DO NOTHING")


def listed(alias: str) -> str:
    """SQL for the name that a list gives to the file in the row *alias* of ``files``; NULL without one."""
    return (
        "(SELECT x.name FROM names x JOIN manifests xm ON xm.name = x.manifest "
        f"WHERE xm.id = {alias}.manifest_id AND x.file_id = {alias}.file_id)"
    )


def columns(alias: str) -> str:
    """SQL for the columns ``document`` and ``listed``, of which ``name_of`` makes the name of a file."""
    return f"{known.path(alias)} AS document, {listed(alias)} AS listed"


def name_of(document: str | None, listed: str | None) -> str | None:
    """The name that a list gives a file, or else the end of its document's path."""
    return listed or (None if document is None else document.rpartition("/")[2])


def of_files(connection: Connection, manifest_id: int, file_ids: Collection[str]) -> dict[str, str]:
    """Canonical file ID -> name, for those of *file_ids* that have one."""
    statement = text(
        f"SELECT DISTINCT f.file_id, {columns('f')} FROM files f "
        "WHERE f.manifest_id = :manifest_id AND f.file_id IN :ids"
    ).bindparams(bindparam("ids", expanding=True))
    found = {
        row.file_id: name_of(row.document, row.listed)
        for batch in batches(dict.fromkeys(map(canonical_id, file_ids)))
        for row in connection.execute(statement, {"manifest_id": manifest_id, "ids": batch})
    }
    return {file_id: name for file_id, name in found.items() if name is not None}


_BY_ID = text("""
    SELECT f.file_id, f.file_id AS name FROM files f WHERE f.manifest_id = :manifest_id AND f.file_id = :id
    UNION SELECT u.content, u.content FROM uploads u WHERE u.manifest_id = :manifest_id AND u.file_id = :called
    """)

_BY_NAME = text("""
    SELECT d.content AS file_id, d.path AS name FROM documents d
    WHERE d.manifest = :manifest AND d.gone = 0 AND (d.path = :called
      OR substr(d.path, length(d.path) - length(CAST(:called AS TEXT))) = '/' || :called)
    UNION ALL SELECT x.file_id, x.name FROM names x
    WHERE x.manifest = :manifest AND (x.name = :called
      OR substr(x.name, length(x.name) - length(CAST(:called AS TEXT))) = '/' || :called)
    ORDER BY 2, 1
    """)


@dataclass(frozen=True, slots=True)
class Called:
    """A file of the ledger, as a content or an ID, and the path or name that it was meant by."""

    file_id: str
    name: str


def called(connection: Connection, manifest: str, manifest_id: int, ways: Sequence[str]) -> list[Called]:
    """The files that a person calls one of *ways*: by ID, or else by path or name. Several: the name is ambiguous."""
    # The IDs have an index; for names every row is read.
    for query in (_BY_ID, _BY_NAME):
        rows: list[Row[str, str]] = []
        for way in ways:
            values = {"manifest": manifest, "manifest_id": manifest_id, "called": way, "id": canonical_id(way)}
            bound = {name: value for name, value in values.items() if name in query.compile().params}
            rows += connection.execute(query, bound).all()
        if rows:
            return list(dict.fromkeys(Called(row.file_id, row.name) for row in rows))
    return []


def further_columns(connection: Connection, manifest_ids: Collection[int]) -> list[str]:
    """The titles of the further columns that lists give to these manifests' files, in the lists' order."""
    rows = connection.execute(
        text(
            "SELECT x.more FROM names x JOIN manifests m ON m.name = x.manifest "
            "WHERE m.id IN :ids AND x.more <> '{}' ORDER BY m.id"
        ).bindparams(bindparam("ids", expanding=True)),
        {"ids": list(manifest_ids)},
        execution_options={"yield_per": 2000},
    )
    return list(dict.fromkeys(title for more in rows.scalars() for title in json.loads(more)))
