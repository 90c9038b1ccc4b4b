"""One ledger has one name: two would have two locks, and two runs at once would buy everything twice."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.commands import Classify, Cli, Serve, command_line, creates


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    with command_line(tmp_path) as program:
        yield program


def test_a_ledger_with_a_second_name_is_refused(cli: Cli, serve: Serve) -> None:
    """By a hard link both names worked at once, each under locks of its own."""
    server = serve(Classify())
    cli.use(server)
    assert cli("run", "m.yaml").returncode == 0
    os.link(cli.folder / "ledger.db", cli.folder / "other.db")
    for name in ("ledger.db", "other.db"):
        done = cli("run", "m.yaml", "--ledger", name)
        assert done.returncode == 8 and "hard link" in done.stderr, done.stderr
    assert creates(server) == 1


def test_a_link_to_a_ledger_is_the_ledger(cli: Cli, serve: Serve) -> None:
    """What lies beside it lies beside the file that the link leads to."""
    server = serve(Classify())
    cli.use(server)
    assert cli("run", "m.yaml").returncode == 0
    (cli.folder / "other").mkdir(mode=0o700)
    (cli.folder / "other" / "link.db").symlink_to(cli.folder / "ledger.db")
    done = cli("run", "m.yaml", "--ledger", "other/link.db")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (cli.folder / "other").iterdir()] == ["link.db"]
    assert creates(server) == 1


def test_a_schema_version_below_zero_is_reported_in_a_sentence(cli: Cli, serve: Serve) -> None:
    """It ended in a bug report."""
    cli.use(serve(Classify()))
    assert cli("run", "m.yaml").returncode == 0
    with closing(sqlite3.connect(cli.folder / "ledger.db")) as connection:
        connection.execute("PRAGMA user_version = -1")
    done = cli("run", "m.yaml")
    assert done.returncode == 8 and "schema version -1" in done.stderr
