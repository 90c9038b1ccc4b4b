"""`move-ledger`: a ledger goes to another database with all that it knows, and the old one is written to no more."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest
from support.commands import Cli
from support.moody import Moody

from orchestrator import ledger
from orchestrator.errors import LedgerError
from orchestrator.ledger import move_ledger, sql
from orchestrator.ledger.postgres import schema
from orchestrator.ledger.sql import text


@pytest.fixture
def night(cli: Cli, api: Moody) -> Cli:
    """A ledger of one run."""
    cli.manifest("f0", "f1", "f2")
    assert cli("run", "m.yaml").returncode == 0
    return cli


def exported(cli: Cli, location: str) -> list[dict[str, object]]:
    done = cli("export", "m.yaml", "--format", "jsonl", "--ledger", location)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_table_goes_along() -> None:
    """All but those that say who holds a manifest."""
    assert {*move_ledger.TABLES} == schema.tables().keys() - {"ledger", "claims", "beats"}


def test_a_night_goes_on_where_the_ledger_went(night: Cli, api: Moody, database: str) -> None:
    """To a server and on to another file: the same rows, nothing is bought again, and new work finds room."""
    api.bad, api.lost = "^f1$", "^f9$"
    night.manifest(*(f"f{n}" for n in range(10)), size=1)
    night("run", "m.yaml")
    night("retry", "m.yaml")
    night("accept", "m.yaml", "--file", "f2", "--type", "receipt")
    before, bought = exported(night, "ledger.db"), sum(api.bought.values())
    api.lost = "^$"
    for source, target in (("ledger.db", database), (database, "new.db")):
        done = night("move-ledger", source, target)
        assert (done.returncode, "rows moved and compared (letters)" in done.stdout) == (0, True), done.stderr
        assert exported(night, target) == before
    night("run", "m.yaml", "--ledger", "new.db")
    assert sum(api.bought.values()) == bought
    night.manifest(*(f"f{n}" for n in range(11)), size=1)
    night("run", "m.yaml", "--ledger", "new.db")
    assert sum(api.bought.values()) == bought + 1


def test_a_server_goes_on_numbering(night: Cli, api: Moody, database: str) -> None:
    """Rows that came with their ids are followed by others."""
    assert night("move-ledger", "ledger.db", database).returncode == 0
    night.manifest(*(f"f{n}" for n in range(12)), size=1)
    night("run", "m.yaml", "--ledger", database)
    assert api.bought["f11"] == 1


@pytest.mark.parametrize(
    "command",
    [
        ["run"],
        ["retry"],
        ["adopt"],
        ["accept", "--file", "f2", "--dismiss"],
        ["plan"],
        ["retry", "--dry-run"],
        ["doctor"],
    ],
    ids=" ".join,
)
def test_the_old_ledger_refuses_whoever_would_write(night: Cli, database: str, command: list[str]) -> None:
    """A cron entry that still names it would buy everything again; what says what a run would do says so. Reading goes
    on.
    """
    assert night("move-ledger", "ledger.db", database).returncode == 0
    done = night(command[0], "m.yaml", *command[1:], "--ledger", "ledger.db")
    assert (done.returncode, f"was moved to {database}" in done.stdout + done.stderr) == (8, True), done.stderr
    assert night("status", "--ledger", "ledger.db").returncode == 0


def test_nothing_goes_while_a_run_holds_a_manifest(night: Cli, database: str) -> None:
    """Exit 4, and the target stays empty."""
    location = ledger.locate(str(night.folder / "ledger.db"))
    with ledger.lease(location, "letters", {"command": "orchestrator run", "since": "02:00"}):
        done = night("move-ledger", "ledger.db", database)
    assert (done.returncode, "orchestrator run" in done.stderr) == (4, True)
    assert not ledger.exists(ledger.locate(database))


def test_another_ledger_is_not_written_over(night: Cli, api: Moody) -> None:
    """Exit 8; both stay what they were, and go on."""
    night.manifest("g0")
    night("run", "m.yaml", "--ledger", "other.db")
    before = exported(night, "other.db")
    done = night("move-ledger", "ledger.db", "other.db")
    assert (done.returncode, "another ledger is there already" in done.stderr) == (8, True), done.stderr
    assert exported(night, "other.db") == before
    assert night("run", "m.yaml").returncode == 0


def test_a_move_that_was_cut_off_is_taken_to_its_end(night: Cli, database: str) -> None:
    """The copy is whole or not there; a second call finds it the same, and retires the old ledger."""
    assert night("move-ledger", "ledger.db", database).returncode == 0
    with ledger.open(ledger.locate(database)) as new, new.transaction() as connection:
        rows = move_ledger.names(connection)
    _unretire(night)
    done = night("move-ledger", "ledger.db", database, "--json")
    assert (done.returncode, json.loads(done.stdout)["manifests"]) == (0, [name for name, _ in rows])
    assert night("run", "m.yaml").returncode == 8


def _unretire(cli: Cli) -> None:
    """As if the power had failed before the old ledger was told."""
    with closing(sqlite3.connect(cli.folder / "ledger.db")) as connection, connection:
        connection.execute("DELETE FROM events WHERE event = 'moved'")


def test_a_row_that_did_not_arrive_stops_the_move(night: Cli, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row is read again: nothing is moved when one is not what it was."""
    whole = sql.insert

    def lossy(connection: ledger.Transaction, table: str, columns: object, rows: list[object], rest: str = "") -> None:
        whole(connection, table, columns, rows[1:] if table == "results" else rows, rest)  # type: ignore[arg-type]  # a test's stand-in

    monkeypatch.setattr(move_ledger, "insert", lossy)
    with (
        ledger.open(ledger.locate(str(night.folder / "ledger.db"))) as old,
        old.transaction() as was,
        ledger.open(ledger.locate(database)) as new,
    ):
        with pytest.raises(LedgerError, match="a row of results"), new.transaction() as now:
            move_ledger.copy(was, now)
        with new.transaction() as now:
            assert now.execute(text("SELECT count(*) FROM jobs")).scalar_one() == 0


@pytest.mark.parametrize(
    ("source", "target", "code", "words"),
    [
        ("ledger.db", "./ledger.db", 2, "is there already"),
        ("nothing.db", "new.db", 8, "no ledger at"),
        ("ledger.db", "postgresql://me:secret@db/nights", 2, "password"),
    ],
)
def test_a_mistake_is_named(night: Cli, source: str, target: str, code: int, words: str) -> None:
    """One line, nothing made, nothing moved."""
    done = night("move-ledger", source, target)
    assert (done.returncode, words in done.stderr, done.stderr.count("\n")) == (code, True, 1), done.stderr
    assert not (night.folder / "new.db").exists()
    assert night("status").returncode == 0
