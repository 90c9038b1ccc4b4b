"""How the user spells a file's ID. Everywhere else in the ledger it stands in its canonical form (``models``).

``spellings`` has only those that differ; what is sent and what is shown is what the user wrote last.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, bindparam

from orchestrator.ledger.sql import batches, text


def spelt(alias: str) -> str:
    """SQL for the ID of the file in the row *alias* of ``files``, as the user wrote it; of a document, the API."""
    return f"coalesce({otherwise(alias)}, {alias}.file_id)"


def otherwise(alias: str) -> str:
    """SQL for what ``spelt`` gives where that differs from what the ledger has; else NULL, or the same."""
    of_file = f"manifest_id = {alias}.manifest_id AND"
    return (
        f"coalesce((SELECT s.spelling FROM spellings s WHERE s.{of_file} s.file_id = {alias}.file_id), "
        f"{alias}.sent_id, (SELECT u.file_id FROM uploads u WHERE u.{of_file} u.content = {alias}.file_id))"
    )


def remember(connection: Connection, manifest_id: int) -> None:
    """Keep how the staged list spells its files."""
    parameters = {"manifest_id": manifest_id}
    connection.execute(
        text(
            "DELETE FROM spellings WHERE manifest_id = :manifest_id "
            "AND EXISTS (SELECT 1 FROM wanted w WHERE w.file_id = spellings.file_id AND w.spelling IS NULL)"
        ),
        parameters,
    )
    connection.execute(
        text(
            "INSERT INTO spellings (manifest_id, file_id, spelling) "
            "SELECT :manifest_id, file_id, spelling FROM wanted WHERE spelling IS NOT NULL "
            "ON CONFLICT (manifest_id, file_id) DO UPDATE SET spelling = excluded.spelling"
        ),
        parameters,
    )


def of_files(connection: Connection, manifest_id: int, file_ids: Collection[str]) -> dict[str, str]:
    """File ID -> as the user wrote it, for those of *file_ids* that are spelt otherwise."""
    statement = text(
        "SELECT file_id, spelling FROM spellings WHERE manifest_id = :manifest_id AND file_id IN :ids"
    ).bindparams(bindparam("ids", expanding=True))
    return {
        row.file_id: row.spelling
        for batch in batches(file_ids)
        for row in connection.execute(statement, {"manifest_id": manifest_id, "ids": batch})
    }
