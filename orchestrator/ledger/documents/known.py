"""The documents that a manifest's folders held when they were last looked at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection

from orchestrator.ledger.sql import text

#: An inode is an unsigned number of 64 bits, a database's integer a signed one.
_LARGEST = 2**63 - 1


#: A document as it was when its content was read: stored path, size, mtime in nanoseconds, inode. The same again: it is
#: unchanged. A plain tuple, as there may be a hundred thousand of them.
Seen = tuple[str, int, int, int]

#: The same, with its content, whether it is gone since (0 or 1), and the row's id.
Kept = tuple[str, int, int, int, str, int, int]


@dataclass(frozen=True, slots=True)
class Read:
    """A document whose content has just been read; ``path`` in its stored form."""

    path: str
    size: int
    mtime_ns: int
    inode: int
    content: str


def path(alias: str) -> str:
    """SQL for the path of a document whose content is that of the row *alias* of ``files``; NULL without one.

    One that is in its place comes first: a document that was renamed has its new name.
    """
    return (
        "(SELECT o.path FROM documents o JOIN manifests m ON m.name = o.manifest "
        f"WHERE m.id = {alias}.manifest_id AND o.content = {alias}.file_id ORDER BY o.gone, o.id LIMIT 1)"
    )


def inode(value: int) -> int:
    """*value* as it is kept."""
    return value & _LARGEST


def remembered(connection: Connection, manifest: str) -> dict[str, Kept]:
    """Every document of *manifest* that was ever read, as it was when it was read last, by its stored path."""
    # No index helps, as all columns of most rows are wanted: one would lead to each row by itself, in thrice the time.
    query = "SELECT path, size, mtime_ns, inode, content, gone, id FROM documents WHERE manifest || '' = "
    # As the driver gives them: an object of SQLAlchemy's for each of a hundred thousand would take half a second.
    mark = "?" if connection.dialect.paramstyle == "qmark" else "%s"
    with closing(connection.connection.cursor()) as cursor:
        cursor.execute(query + mark, (manifest,))
        rows: Sequence[Any] = cursor.fetchall()
    return dict(zip(map(itemgetter(0), rows), rows, strict=True))


def remember(connection: Connection, manifest: str, documents: Sequence[Read]) -> None:
    """Record what was read."""
    if documents:
        connection.execute(
            text("""
            INSERT INTO documents (manifest, path, size, mtime_ns, inode, content)
            VALUES (:manifest, :path, :size, :mtime_ns, :inode, :content)
            ON CONFLICT (manifest, path) DO UPDATE SET size = excluded.size, mtime_ns = excluded.mtime_ns,
              inode = excluded.inode, content = excluded.content, gone = 0
            """),
            [
                {
                    "manifest": manifest,
                    "path": each.path,
                    "size": each.size,
                    "mtime_ns": each.mtime_ns,
                    "inode": each.inode,
                    "content": each.content,
                }
                for each in documents
            ],
        )


def mark_gone(connection: Connection, ids: Iterable[int], *, gone: bool) -> None:
    """These documents are not in their folder any more, or again."""
    rows = [{"id": each, "gone": int(gone)} for each in ids]
    if rows:
        connection.execute(text("UPDATE documents SET gone = :gone WHERE id = :id"), rows)
