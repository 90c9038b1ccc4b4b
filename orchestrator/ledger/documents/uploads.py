"""The state of each document's content at the API: from the intent to upload it to the file ID, and its loss.

In ``files`` a document's content (``sha256:...``) stands where other files have the API's ID: outcomes stay with the
content, whatever IDs it gets. When a create call is about to leave, the ID of that moment is frozen in ``sent_id``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam

from orchestrator.ledger.chunks import cutting
from orchestrator.ledger.sql import scalar_int, text
from orchestrator.models import canonical_id

#: Joins a row ``f`` of ``files`` to what the API has of its content.
JOIN = "LEFT JOIN uploads u ON u.manifest_id = f.manifest_id AND u.content = f.file_id"

#: Whether row ``f`` of ``files`` is a document's content.
_IS_CONTENT = "f.file_id LIKE 'sha256:%'"

#: Whether a row of ``jobs`` has a document that is not known to be at the API.
WAITS = f"""EXISTS (SELECT 1 FROM files f {JOIN} WHERE f.chunk_id = jobs.id AND {_IS_CONTENT}
    AND coalesce(u.ready, 0) = 0)"""


def in_chunk(file_id: str, spelling: str) -> str:
    """How a chunk and its results name a file of the ledger that is sent as *spelling*."""
    return canonical_id(spelling) if file_id.startswith("sha256:") else file_id


@dataclass(frozen=True, slots=True)
class Wanted:
    """A content that a pending chunk waits for."""

    row: int  #: of ``files``: the order in which they are wanted
    content: str
    path: str | None  #: of a document that has it, in its stored form; None: there is none any more
    size: int
    mtime_ns: int
    file_id: str | None  #: the API had it under this ID, at least once
    sent_at: str | None  #: when it was sent last without an answer that named the ID
    ours: bool  #: this ledger uploaded it


def freeze(connection: Connection, chunk_ids: Collection[int]) -> None:
    """The create calls of these chunks are about to leave: from now on their files have the IDs that they have now."""
    connection.execute(
        text(
            "UPDATE files SET sent_id = (SELECT u.file_id FROM uploads u WHERE u.manifest_id = files.manifest_id "
            "AND u.content = files.file_id) WHERE chunk_id IN :ids AND file_id LIKE 'sha256:%'"
        ).bindparams(bindparam("ids", expanding=True)),
        {"ids": list(chunk_ids)},
    )


def sent_as(connection: Connection, chunk_id: int, file_ids: Mapping[str, str]) -> None:
    """The job of this chunk was made with these *file_ids* of its contents (content -> file ID)."""
    if file_ids:
        connection.execute(
            text("UPDATE files SET sent_id = :file_id WHERE chunk_id = :chunk_id AND file_id = :content"),
            [{"chunk_id": chunk_id, "content": each, "file_id": file_id} for each, file_id in file_ids.items()],
        )


def thaw(connection: Connection, chunk_ids: Collection[int]) -> None:
    """These chunks are to be sent again, under the IDs that their files have by then."""
    connection.execute(
        text("UPDATE files SET sent_id = NULL WHERE chunk_id IN :ids AND sent_id IS NOT NULL").bindparams(
            bindparam("ids", expanding=True)
        ),
        {"ids": list(chunk_ids)},
    )


def doubt(connection: Connection, manifest_id: int) -> None:
    """Doubt the uploads of earlier runs that pending chunks need: each has to be looked at before it is used again."""
    connection.execute(
        text(
            "UPDATE uploads SET ready = 0 WHERE manifest_id = :manifest_id AND ready = 1 AND content IN "
            "(SELECT f.file_id FROM jobs j JOIN files f ON f.chunk_id = j.id "
            f"WHERE j.manifest_id = :manifest_id AND j.status = 'pending' AND {_IS_CONTENT})"
        ),
        {"manifest_id": manifest_id},
    )


def wanted(connection: Connection, manifest_id: int, api: str, *, after: int, most: int) -> list[Wanted]:
    """The next contents that pending chunks wait for, each once, in the order of their chunks."""
    rows = connection.execute(
        text(f"""
        SELECT f.id, f.file_id AS content, d.path, d.size, d.mtime_ns, u.file_id, u.sent_at, coalesce(u.ours, 0) AS ours
        FROM jobs j JOIN files f ON f.chunk_id = j.id JOIN manifests m ON m.id = j.manifest_id {JOIN}
        LEFT JOIN documents d ON d.id = (SELECT min(o.id) FROM documents o WHERE o.manifest = m.name
                                         AND o.content = f.file_id AND o.gone = 0)
        WHERE j.manifest_id = :manifest_id AND j.api = :api AND j.status = 'pending' AND f.id > :after
          AND {_IS_CONTENT} AND coalesce(u.ready, 0) = 0
        ORDER BY f.id LIMIT :most
        """),
        {"manifest_id": manifest_id, "api": api, "after": after, "most": most},
    )
    return [
        Wanted(r.id, r.content, r.path, r.size or 0, r.mtime_ns or 0, r.file_id, r.sent_at, bool(r.ours)) for r in rows
    ]


def intend(connection: Connection, manifest_id: int, content: str, *, at: str) -> None:
    """Record, before the upload leaves, that it is about to."""
    connection.execute(
        text("""
        INSERT INTO uploads (manifest_id, content, sends, sent_at) VALUES (:manifest_id, :content, 1, :at)
        ON CONFLICT (manifest_id, content) DO UPDATE SET sends = uploads.sends + 1, sent_at = :at, file_id = NULL,
          ready = 0, ours = 0
        """),
        {"manifest_id": manifest_id, "content": content, "at": at},
    )


def not_sent(connection: Connection, manifest_id: int, content: str) -> None:
    """The upload surely had no effect."""
    connection.execute(
        text("UPDATE uploads SET sent_at = NULL WHERE manifest_id = :manifest_id AND content = :content"),
        {"manifest_id": manifest_id, "content": content},
    )


def there(connection: Connection, manifest_id: int, content: str, file_id: str, *, ours: bool, at: str) -> bool:
    """The API has *content* under *file_id*; whether a pending chunk waits for nothing else now."""
    connection.execute(
        text("""
        INSERT INTO uploads (manifest_id, content, file_id, ready, ours, uploaded_at)
        VALUES (:manifest_id, :content, :file_id, 1, :ours, :at)
        ON CONFLICT (manifest_id, content) DO UPDATE SET file_id = :file_id, ready = 1, ours = :ours, sent_at = NULL,
          uploaded_at = CASE WHEN uploads.file_id = :file_id THEN uploads.uploaded_at ELSE :at END
        """),
        {"manifest_id": manifest_id, "content": content, "file_id": file_id, "ours": int(ours), "at": at},
    )
    return bool(
        scalar_int(
            connection,
            f"SELECT count(*) FROM jobs WHERE manifest_id = :manifest_id AND status = 'pending' AND id IN "
            f"(SELECT chunk_id FROM files WHERE manifest_id = :manifest_id AND file_id = :content) AND NOT {WAITS}",
            manifest_id=manifest_id,
            content=content,
        )
    )


def lost(connection: Connection, manifest_id: int, content: str) -> None:
    """The API does not have the file any more."""
    connection.execute(
        text(
            "UPDATE uploads SET file_id = NULL, ready = 0, ours = 0, sent_at = NULL "
            "WHERE manifest_id = :manifest_id AND content = :content"
        ),
        {"manifest_id": manifest_id, "content": content},
    )


def forget(connection: Connection, manifest_id: int) -> None:
    """A rehearsal's sandbox is gone, and with it every file."""
    connection.execute(text("DELETE FROM uploads WHERE manifest_id = :manifest_id"), {"manifest_id": manifest_id})


def of_documents(connection: Connection, manifest: str, manifest_id: int) -> list[tuple[str, str]]:
    """Path, in its stored form, and file ID of each document that is in its place and at the API, by path."""
    rows = connection.execute(
        text("""
        SELECT d.path, u.file_id
        FROM documents d JOIN uploads u ON u.manifest_id = :manifest_id AND u.content = d.content
        WHERE d.manifest = :manifest AND d.gone = 0 AND u.ready = 1 ORDER BY d.path
        """),
        {"manifest": manifest, "manifest_id": manifest_id},
    )
    return [(row.path, row.file_id) for row in rows]


def take_out(connection: Connection, manifest_id: int, content: str, *, run_id: str, at: str) -> list[int]:
    """Move *content* out of the pending chunks into chunks of its own, which are not sent; their ids."""
    rows = connection.execute(
        text(
            "SELECT f.id, f.chunk_id FROM files f JOIN jobs j ON j.id = f.chunk_id "
            "WHERE f.manifest_id = :manifest_id AND f.file_id = :content AND j.status = 'pending' ORDER BY f.id"
        ),
        {"manifest_id": manifest_id, "content": content},
    ).all()
    made = []
    for row in rows:
        chunk_id = cutting.chunk_ids(connection, 1)
        connection.execute(
            text("""
            INSERT INTO jobs (id, manifest_id, config_id, run_id, api, parent_id, depth, escalation, size, status,
                              sent_at, changed_at)
            SELECT :new_id, manifest_id, config_id, :run_id, api, parent_id, depth, escalation, 1, 'submitting',
                   :at, :at
            FROM jobs WHERE id = :old_id
            """),
            {"new_id": chunk_id, "old_id": row.chunk_id, "run_id": run_id, "at": at},
        )
        connection.execute(
            text("UPDATE files SET chunk_id = :new_id WHERE id = :id"), {"new_id": chunk_id, "id": row.id}
        )
        _shrink(connection, row.chunk_id)
        made.append(chunk_id)
    return made


def drop(connection: Connection, manifest_id: int, content: str) -> None:
    """No document has *content* any more: what is not yet sent of it is not wanted."""
    rows = connection.execute(
        text(
            "SELECT f.id, f.chunk_id FROM files f JOIN jobs j ON j.id = f.chunk_id "
            "WHERE f.manifest_id = :manifest_id AND f.file_id = :content AND j.status = 'pending'"
        ),
        {"manifest_id": manifest_id, "content": content},
    ).all()
    for row in rows:
        connection.execute(text("DELETE FROM files WHERE id = :id"), {"id": row.id})
        _shrink(connection, row.chunk_id)


def _shrink(connection: Connection, chunk_id: int) -> None:
    """A file was taken out of a pending chunk; an empty chunk is no chunk."""
    if scalar_int(connection, "SELECT count(*) FROM files WHERE chunk_id = :id", id=chunk_id):
        connection.execute(text("UPDATE jobs SET size = size - 1 WHERE id = :id"), {"id": chunk_id})
    else:
        connection.execute(text("DELETE FROM events WHERE chunk_id = :id"), {"id": chunk_id})
        connection.execute(text("DELETE FROM jobs WHERE id = :id"), {"id": chunk_id})


@dataclass(frozen=True, slots=True)
class Kept:
    """A file that this ledger uploaded and that the API keeps."""

    content: str
    file_id: str


def to_prune(connection: Connection, manifest_id: int, *, before: str) -> list[Kept]:
    """The files that this ledger uploaded *before* then, whose content has a good outcome and is not in use."""
    rows = connection.execute(
        text("""
        SELECT u.content, u.file_id FROM uploads u
        JOIN manifests m ON m.id = u.manifest_id
        WHERE u.manifest_id = :manifest_id AND u.ours = 1 AND u.file_id IS NOT NULL AND u.uploaded_at < :before
          AND EXISTS (SELECT 1 FROM files f JOIN results r ON r.file_row = f.id WHERE f.manifest_id = u.manifest_id
                      AND f.file_id = u.content AND f.config_id = m.config_id AND f.standing = 1
                      AND r.outcome IN ('classified', 'unmatched'))
          AND NOT EXISTS (SELECT 1 FROM files f LEFT JOIN results r ON r.file_row = f.id
                          WHERE f.manifest_id = u.manifest_id AND f.file_id = u.content AND r.file_row IS NULL)
        ORDER BY u.uploaded_at, u.content
        """),
        {"manifest_id": manifest_id, "before": before},
    )
    return [Kept(row.content, row.file_id) for row in rows]
