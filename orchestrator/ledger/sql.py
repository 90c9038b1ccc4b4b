"""Pieces of SQL that several query modules share. All of it means the same on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from functools import lru_cache
from itertools import islice
from typing import TypeVar

import sqlalchemy
from sqlalchemy import Connection, TextClause

from orchestrator.models import GOOD, IN_FLIGHT, OPEN, JobStatus

T = TypeVar("T")

#: What one transaction of the ledger is done with; the rooms above hand it on and never look inside.
Transaction = Connection

#: Values that one statement takes in a list: SQLite may take no more than 999.
BATCH = 500

#: A table that has got so many rows at once is looked at by a server before it is used.
MANY = 1_000


@lru_cache(maxsize=512)
def text(statement: str) -> TextClause:
    """*statement* as SQLAlchemy takes it; read once, because reading takes a tenth of a small query's time."""
    return sqlalchemy.text(statement)


def listed(words: Iterable[StrEnum]) -> str:
    """*words* as a list of SQL, in an order of its own: an index on such a condition serves only the same text."""
    return "(" + ", ".join(f"'{word.value}'" for word in words) + ")"


GOOD_SQL = listed(sorted(GOOD))
#: Which jobs have not ended, and which of them the API has; every status there is.
OPEN_SQL = listed(status for status in JobStatus if status in OPEN)
IN_FLIGHT_SQL = listed(status for status in JobStatus if status in IN_FLIGHT)
STATUSES_SQL = listed(JobStatus)


def later(alias: str) -> str:
    """The condition that a later generation of file *alias* is there, under the same config."""
    same = f"g.manifest_id = {alias}.manifest_id AND g.file_id = {alias}.file_id AND g.config_id = {alias}.config_id"
    return f"EXISTS (SELECT 1 FROM files g WHERE {same} AND g.generation > {alias}.generation)"


def is_unfinished(alias: str) -> str:
    """The condition that file *alias* of an open job is yet to get its outcome: each file once, whatever it waits for.

    What was sent once more, or has a person's verdict, does not wait for an earlier job that never ends.
    """
    same = f"s.manifest_id = {alias}.manifest_id AND s.file_id = {alias}.file_id AND s.config_id = {alias}.config_id"
    known = f"EXISTS (SELECT 1 FROM files s JOIN results r ON r.file_row = s.id WHERE {same} AND s.standing = 1)"
    return f"({alias}.standing = 1 OR (NOT {later(alias)} AND {known}))"


def scalar_int(connection: Connection, statement: str, **parameters: object) -> int:
    """The one integer that *statement* gives; 0 for NULL."""
    return int(connection.execute(text(statement), parameters).scalar_one() or 0)


def batches(values: Iterable[T], most: int = BATCH) -> Iterator[list[T]]:
    """*values* in lists of at most *most*, in order."""
    rest = iter(values)
    while batch := list(islice(rest, most)):
        yield batch


def insert(
    connection: Connection, table: str, columns: Sequence[str], rows: Sequence[tuple[object, ...]], rest: str = ""
) -> None:
    """Insert *rows*; *rest* may say what to do on a conflict.

    The driver gets the rows as they are: a dictionary for each of a million would take longer than the database.
    """
    names = ", ".join(columns)
    if connection.dialect.name == "sqlite":
        marks = ", ".join("?" * len(columns))
        connection.exec_driver_sql(f"INSERT INTO {table} ({names}) VALUES ({marks}) {rest}", list(rows))
        return
    # One statement, whose values get their types from the table: a statement for each row would wait for each.
    given = [{name: without_nul(value) for name, value in zip(columns, row, strict=True)} for row in rows]
    connection.exec_driver_sql(
        f"INSERT INTO {table} ({names}) SELECT {names} FROM json_populate_recordset(CAST(NULL AS {table}), "
        f"CAST(%s AS json)) {rest}",
        (json.dumps(given, ensure_ascii=False),),
    )


def numbered(connection: Connection) -> str:
    """SQL for the rows (n, value) of the texts in the JSON array ``:texts``, n from 0: a statement for thousands."""
    if connection.dialect.name == "sqlite":
        return "(SELECT key AS n, value FROM json_each(:texts))"
    rows = "json_array_elements_text(CAST(:texts AS json)) WITH ORDINALITY AS t (value, n)"
    return f"(SELECT t.n - 1 AS n, t.value FROM {rows})"


def without_nul(value: T) -> T | str:
    """A server stores no NUL in a text, and the API may send one."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


def scratch(connection: Connection, table: str, columns: str, *, by_key: bool = False) -> None:
    """A new, empty temporary *table* of this connection with *columns*; *by_key*: kept in the order of its key."""
    connection.exec_driver_sql(f"DROP TABLE IF EXISTS {table}")
    kept = " WITHOUT ROWID" * by_key
    if connection.dialect.name != "sqlite":
        columns = columns.replace("TEXT", 'TEXT COLLATE "C"')  # as the ledger's own: an index serves one order only
        kept = ""
    connection.exec_driver_sql(f"CREATE TEMP TABLE {table} ({columns}){kept}")


def counting_key(connection: Connection) -> str:
    """The type of a key that numbers a new table's rows from 1, in the order in which a statement inserts them."""
    if connection.dialect.name == "sqlite":
        return "INTEGER PRIMARY KEY"
    return "INTEGER GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY"


def analyse(connection: Connection, *tables: str) -> None:
    """Have a server look at *tables* after large writes: without it, it makes ruinous plans."""
    if connection.dialect.name != "sqlite":
        connection.exec_driver_sql(f"ANALYZE {', '.join(tables)}")


def percent(confidence: float | None) -> int:
    """A result's confidence in whole percent, rounded down; 0 without one. What the tallies are kept by."""
    return int((confidence or 0.0) * 100 + 0.0000001)
