"""Every row of a ledger into an empty one, which may be in another kind of database, and each checked afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from sqlalchemy import inspect

from orchestrator.errors import LedgerError
from orchestrator.ledger.database import MOVED
from orchestrator.ledger.sql import Transaction, analyse, insert, scalar_int, text, without_nul

#: Each after those that its rows point at. Not among them: who holds a manifest, and the work of `orchestrator work`.
TABLES = (
    "configs",
    "manifests",
    "runs",
    "jobs",
    "files",
    "results",
    "tallies",
    "run_tallies",
    "events",
    "sequences",
    "spellings",
    "documents",
    "uploads",
    "names",
    "routes",
)

#: Rows of ``sequences`` that are a ledger's own: they tell it from its copies.
OWN = "name NOT IN ('identity', 'writes')"

#: Rows that are read, and written, at a time.
BATCH = 5_000

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class _Table:
    """A table as both ledgers have it."""

    name: str
    key: tuple[str, ...]
    columns: tuple[str, ...]  #: those of the key first

    @classmethod
    def of(cls, connection: Transaction, name: str) -> _Table:
        known = inspect(connection)
        key = tuple(known.get_pk_constraint(name)["constrained_columns"])
        names = [column["name"] for column in known.get_columns(name)]
        return cls(name, key, (*key, *sorted(set(names) - set(key))))

    def rows(self, connection: Transaction) -> Iterator[list[Row]]:
        """All rows in the order of the key, in batches."""
        key, marks = ", ".join(self.key), ", ".join(f":k{n}" for n in range(len(self.key)))
        mine = OWN if self.name == "sequences" else "1 = 1"
        select = f"SELECT {', '.join(self.columns)} FROM {self.name} WHERE {mine}"
        rest = f"ORDER BY {key} LIMIT {BATCH}"
        batch = [tuple(row) for row in connection.execute(text(f"{select} {rest}"))]
        while batch:
            yield batch
            last = {f"k{n}": value for n, value in enumerate(batch[-1][: len(self.key)])}
            more = connection.execute(text(f"{select} AND ({key}) > ({marks}) {rest}"), last)
            batch = [tuple(row) for row in more]


def names(connection: Transaction) -> list[tuple[str, bool]]:
    """Name of each manifest of the ledger, and whether its answers are rehearsed."""
    found = connection.execute(text("SELECT name, rehearsal FROM manifests ORDER BY name, rehearsal"))
    return [(name, bool(rehearsal)) for name, rehearsal in found]


def copy(old: Transaction, new: Transaction) -> int:
    """Copy all rows of the *old* ledger into the *new* one, which holds nothing; how many there are.

    A *new* one that holds just those already is left as it is: a move that was cut off is taken to its end.
    Raises LedgerError where it holds anything else, and where a row did not arrive as it was.
    """
    if old.dialect.name != "sqlite":  # a manifest that nobody knows yet would come without being waited for
        old.execute(text("LOCK TABLE manifests IN SHARE ROW EXCLUSIVE MODE"))
    tables = [_Table.of(new, name) for name in TABLES]
    empty = not scalar_int(new, "SELECT count(*) FROM configs") and not scalar_int(new, "SELECT count(*) FROM names")
    if empty:
        for table in tables:
            _fill(table, old, new)
    counts = [_compare(table, old, new, empty=empty) for table in tables]
    analyse(new, *TABLES)
    return sum(counts)


def _fill(table: _Table, old: Transaction, new: Transaction) -> None:
    if table.name == "sequences":
        new.execute(text(f"DELETE FROM sequences WHERE {OWN}"))
    for batch in table.rows(old):
        insert(new, table.name, table.columns, batch)
    if new.dialect.name != "sqlite" and table.key == ("id",) and table.name not in ("runs", "jobs"):
        # Rows that come with their ids leave the counter that gives them where it was.
        new.execute(
            text(
                f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'), max(id)) FROM {table.name} "
                "HAVING max(id) IS NOT NULL"
            )
        )


def _compare(table: _Table, old: Transaction, new: Transaction, *, empty: bool) -> int:
    """Return how many rows *table* has. Raises LedgerError where a row is not the same in both ledgers."""
    rows = 0
    for was, now in zip_longest(table.rows(old), table.rows(new), fillvalue=()):
        if _as_kept(was) != _as_kept(now):
            if not empty:
                raise LedgerError("another ledger is there already; name an empty database, or a new file")
            raise LedgerError(f"a row of {table.name} did not arrive as it was; nothing was moved")
        rows += len(was)
    return rows


def _as_kept(rows: list[Row] | Row) -> list[Row]:
    """As a server keeps them: it has no NUL in a text."""
    return [tuple(without_nul(value) for value in row) for row in rows]


def retire(old: Transaction, *, to: str, at: str) -> None:
    """Have the *old* ledger refuse every later write: a program that still uses it would buy everything again."""
    old.execute(text(f"INSERT INTO events (at, event, note) VALUES (:at, '{MOVED}', :note)"), {"at": at, "note": to})
