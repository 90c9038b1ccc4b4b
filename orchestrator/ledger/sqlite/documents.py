"""The tables of documents, of what the API has of them, and of where they were sorted."""

from __future__ import annotations

from sqlalchemy import Connection

TABLES = """
CREATE TABLE documents (
  id INTEGER PRIMARY KEY,
  manifest TEXT NOT NULL,
  path TEXT NOT NULL,
  size BIGINT NOT NULL,
  mtime_ns BIGINT NOT NULL,
  inode BIGINT NOT NULL,
  content TEXT NOT NULL,
  gone INTEGER NOT NULL DEFAULT 0 CHECK (gone IN (0, 1)),
  UNIQUE (manifest, path)
);
CREATE INDEX documents_content ON documents (manifest, content);
CREATE TABLE uploads (
  manifest_id INTEGER NOT NULL,
  content TEXT NOT NULL,
  file_id TEXT,
  ready INTEGER NOT NULL DEFAULT 0 CHECK (ready IN (0, 1)),
  ours INTEGER NOT NULL DEFAULT 0 CHECK (ours IN (0, 1)),
  sends INTEGER NOT NULL DEFAULT 0,
  sent_at TEXT,
  uploaded_at TEXT,
  CHECK (ready = 0 OR file_id IS NOT NULL),
  PRIMARY KEY (manifest_id, content)
);
CREATE INDEX uploads_file ON uploads (manifest_id, file_id);
CREATE TABLE names (
  manifest TEXT NOT NULL,
  file_id TEXT NOT NULL,
  name TEXT,
  more TEXT NOT NULL,
  PRIMARY KEY (manifest, file_id)
);
CREATE TABLE routes (
  id INTEGER PRIMARY KEY,
  manifest_id INTEGER NOT NULL,
  batch INTEGER NOT NULL,
  document TEXT NOT NULL,
  content TEXT NOT NULL,
  source TEXT NOT NULL,
  target TEXT NOT NULL,
  how TEXT NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('planned', 'done', 'undone')),
  at TEXT NOT NULL
);
CREATE INDEX routes_batch ON routes (manifest_id, batch)
"""


def add(connection: Connection) -> None:
    """Documents and what the API has of them; the names that lists give; the journal of what was sorted where.

    ``files.sent_id`` is the ID under which a document's content was sent; NULL where the file ID is the API's own.
    """
    for statement in TABLES.split(";\n"):
        connection.exec_driver_sql(statement)
    connection.exec_driver_sql("ALTER TABLE files ADD COLUMN sent_id TEXT")
