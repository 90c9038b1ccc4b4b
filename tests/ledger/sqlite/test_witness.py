"""Only the ledger that was here goes on: an emptied one, an older copy, another one would buy again what they lack."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from support.commands import OUTAGE, Classify, Cli, Serve, creates
from support.sandboxes import sandbox
from support.server import Server

from orchestrator.ledger.sqlite import witness


class Listed(Classify):
    """A v1 API that echoes the rules, so that ``adopt`` knows its jobs."""

    def _job(self, job_id: str) -> dict[str, object]:
        rules = [
            {"type": "invoice", "description": "contains line items and a total"},
            {"type": "receipt", "description": "proof of a payment that was made"},
        ]
        return {**super()._job(job_id), "rules": rules, "mode": "FAST"}


@pytest.fixture
def server(cli: Cli, serve: Serve) -> Server:
    """Two runs have bought a, b and c, and then d; ``old.db`` is from between."""
    server = serve(Listed())
    cli.use(server)
    assert cli("run", "m.yaml").returncode == 0
    assert cli("backup", "old.db").returncode == 0
    cli.manifest("a", "b", "c", "d")
    assert cli("run", "m.yaml").returncode == 0
    return server


def emptied(folder: Path) -> None:
    (folder / "ledger.db").write_bytes(b"")


def without_a_table(folder: Path) -> None:
    (folder / "ledger.db").unlink()
    with closing(sqlite3.connect(folder / "ledger.db")) as raw:
        raw.execute("PRAGMA journal_mode=WAL")
    (folder / "ledger.db").chmod(0o600)


def older(folder: Path) -> None:
    shutil.copy(folder / "old.db", folder / "ledger.db")


def another(folder: Path) -> None:
    older(folder)
    with closing(sqlite3.connect(folder / "ledger.db")) as raw, raw:
        raw.execute("UPDATE sequences SET last = 7 WHERE name = 'identity'")
        raw.execute("UPDATE sequences SET last = 1000 WHERE name = 'writes'")


def of_an_older_version(folder: Path) -> None:
    older(folder)
    with closing(sqlite3.connect(folder / "ledger.db")) as raw, raw:
        raw.execute("DELETE FROM sequences WHERE name IN ('identity', 'writes')")
        raw.execute("PRAGMA user_version = 6")


REPLACED: dict[Callable[[Path], None], str] = {
    emptied: "has been emptied",
    without_a_table: "has been emptied",
    older: "an older copy of the ledger that was here: it lacks its last ",
    of_an_older_version: "an older copy of the ledger that was here: it lacks its last ",
    another: "another one",
}


@pytest.mark.parametrize("replace", REPLACED)
def test_a_ledger_that_is_not_the_one_is_refused(cli: Cli, server: Server, replace: Callable[[Path], None]) -> None:
    """By commands that only look too; nothing is sent, and what to do is named."""
    replace(cli.folder)
    for command in ("run", "plan", "status"):
        done = cli(command, "m.yaml")
        assert (done.returncode, REPLACED[replace] in done.stderr) == (8, True), (command, done.stderr)
        assert "orchestrator adopt" in done.stderr
    assert creates(server) == 2


@pytest.mark.parametrize("replace", [emptied, older])
def test_adopt_makes_it_the_ledger_again(cli: Cli, server: Server, replace: Callable[[Path], None]) -> None:
    """It takes in what the API has: nothing is bought again."""
    replace(cli.folder)
    assert cli("adopt", "m.yaml").returncode == 0
    assert json.loads(cli("run", "m.yaml", "--json").stdout)["classified"] == 4
    assert creates(server) == 2
    assert cli("status", "m.yaml").returncode == 0


def test_an_adopt_that_did_not_end_changes_nothing(cli: Cli, server: Server) -> None:
    """Half of what the API has would count as all."""
    older(cli.folder)
    assert cli("adopt", "m.yaml", "--base-url", "http://127.0.0.1:9", **OUTAGE).returncode == 7
    assert cli("run", "m.yaml").returncode == 8
    assert creates(server) == 2


@pytest.mark.parametrize("first", ["run", "adopt"])
def test_another_manifest_does_not_make_it_the_ledger_again(cli: Cli, server: Server, first: str) -> None:
    """A v2 run knows its jobs by their keys, and an adoption is of one manifest: a v1 manifest is still refused."""
    emptied(cli.folder)
    v1 = (cli.folder / "m.yaml").read_text()
    other = cli.folder / "other.yaml"
    of_its_own = v1[: v1.index("  - a\n")].replace("letters", "other") + "  - z\n"
    other.write_text(of_its_own.replace("chunk_size: 100", "api: v2") if first == "run" else of_its_own)
    other.chmod(0o600)
    with sandbox(unknown_files="accept", usage_on="both") as (url, _):
        v2 = {"LLAMA_CLOUD_BASE_URL": url} if first == "run" else {}
        assert cli(first, "other.yaml", **v2).returncode == 0
        assert cli("status", "other.yaml").returncode == 0
    for command, code in (("run", 8), ("plan", 8), ("doctor", 8), ("status", 0)):
        done = cli(command, "m.yaml")
        assert done.returncode == code, done
        assert command == "status" or "orchestrator adopt m.yaml" in done.stdout + done.stderr
    assert creates(server) == 2
    assert cli("adopt", "m.yaml").returncode == 0
    assert cli("run", "m.yaml").returncode == 0
    assert creates(server) == 2


def test_a_rehearsal_does_not_make_it_the_ledger_again(cli: Cli, server: Server) -> None:
    """What it does is kept apart; a real run is refused after it as before."""
    emptied(cli.folder)
    assert cli("run", "m.yaml", "--sandbox", "--quiet").returncode in (0, 1)
    assert cli("run", "m.yaml").returncode == 8
    assert creates(server) == 2


def test_an_older_copy_says_what_it_lacks(cli: Cli, server: Server) -> None:
    """How many changes, how many chunks, and until when."""
    older(cli.folder)
    told = cli("run", "m.yaml").stderr
    assert "with 1 chunk of files, up to 20" in told
    (cli.folder / "ledger.db.write-lock").unlink()
    assert cli("run", "m.yaml").returncode == 0
    assert creates(server) == 3  # a person has said to pay again


def test_the_right_one_put_back_goes_on(cli: Cli, server: Server) -> None:
    """A copy made by ``backup`` after the last change lacks nothing."""
    assert cli("backup", "new.db").returncode == 0
    emptied(cli.folder)
    assert cli("run", "m.yaml").returncode == 8
    shutil.copyfile(cli.folder / "new.db", cli.folder / "ledger.db")
    assert cli("run", "m.yaml").returncode == 0
    assert creates(server) == 2


def test_a_crash_between_the_two_leaves_the_ledger_ahead(cli: Cli, server: Server) -> None:
    """The ledger is on disk first: a witness that knows less, or cannot be read, refuses nothing."""
    lock = cli.folder / "ledger.db.write-lock"
    seen = witness.read(lock)
    assert seen is not None
    for content in (b"", b"x", b"%020d %020d %020d\n" % (seen.identity, seen.writes - 3, seen.chunks - 1)):
        lock.write_bytes(content)
        assert cli("run", "m.yaml").returncode == 0
    assert creates(server) == 2


def test_a_backup_is_whole_while_a_run_holds_the_ledger(cli: Cli, server: Server) -> None:
    """What is still in the -wal file is in it: its export is the ledger's, and it is one private file."""
    with closing(sqlite3.connect(cli.folder / "ledger.db")) as raw:
        raw.execute("PRAGMA journal_mode").fetchall()
        with raw:
            raw.execute("UPDATE results SET reasoning = 'in the log'")
        done = cli("backup", "copy.db", "m.yaml")
        assert (done.returncode, f"{cli.folder}/ledger.db copied to copy.db" in done.stderr) == (0, True)
    there = cli("export", "m.yaml", "--ledger", "copy.db").stdout
    assert there.count("in the log") == 4
    assert there == cli("export", "m.yaml").stdout
    assert [path.name for path in cli.folder.glob("*copy.db*")] == ["copy.db"]


def test_a_backup_replaces_only_an_older_one_of_the_same_ledger(cli: Cli, server: Server) -> None:
    """Anything else needs --force, and the ledger itself is never replaced."""
    assert cli("backup", "old.db").returncode == 0
    (cli.folder / "note.txt").write_text("mine")
    (cli.folder / "note.txt").chmod(0o600)
    assert cli("backup", "note.txt").returncode == 2
    assert (cli.folder / "note.txt").read_text() == "mine"
    another(cli.folder)
    shutil.move(cli.folder / "ledger.db", cli.folder / "other.db")
    shutil.copy(cli.folder / "old.db", cli.folder / "ledger.db")
    done = cli("backup", "other.db")
    assert (done.returncode, "is of another ledger" in done.stderr) == (2, True)
    for forced in ([], ["--force"]):
        assert cli("backup", "ledger.db", *forced).returncode == 2
    assert cli("backup", "other.db", "--force").returncode == 0
    assert cli("backup", "gone/x.db").returncode == 8
