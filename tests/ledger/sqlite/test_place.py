"""One ledger has one name: two would have two locks, and two runs at once would buy everything twice."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.commands import Classify, Cli, Serve, command_line, creates

from orchestrator.ledger.sqlite import place


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


def test_a_ledger_that_is_mounted_alone_is_refused(cli: Cli, serve: Serve) -> None:
    """A container that mounts the file and not its folder has locks of its own, and a log that it takes along."""
    server = serve(Classify())
    cli.use(server)
    assert cli("run", "m.yaml").returncode == 0
    (cli.folder / "other").mkdir(mode=0o700)
    other = cli.folder / "other" / "ledger.db"
    other.touch(mode=0o600)
    mounted = subprocess.run(["mount", "--bind", cli.folder / "ledger.db", other], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("only root may mount")
    try:
        for command in (["run", "m.yaml"], ["status"]):
            done = cli(*command, "--ledger", str(other))
            assert done.returncode == 8 and "mount its folder" in done.stderr, done.stderr
    finally:
        subprocess.run(["umount", other], check=True)
    assert cli("run", "m.yaml").returncode == 0
    assert creates(server) == 1


@pytest.mark.parametrize("path", ["/srv/my data/ledger.db", "/srv/ledger.db"])
def test_a_mount_is_known_by_the_kernels_table(path: str) -> None:
    """Of the file itself; that its folder is mounted is no matter."""
    point = path.replace(" ", "\\040").encode()
    mounts = b"22 1 254:0 / / rw - ext4 /dev/vda rw\n43 22 254:0 /srv/led " + point + b" rw - ext4 /dev/vda rw\n"
    assert place.is_mounted(mounts, Path(path))
    assert not place.is_mounted(mounts, Path(path) / "ledger.db")
    assert not place.is_mounted(mounts, Path(path).parent)


def test_a_schema_version_below_zero_is_reported_in_a_sentence(cli: Cli, serve: Serve) -> None:
    """It ended in a bug report."""
    cli.use(serve(Classify()))
    assert cli("run", "m.yaml").returncode == 0
    with closing(sqlite3.connect(cli.folder / "ledger.db")) as connection:
        connection.execute("PRAGMA user_version = -1")
    done = cli("run", "m.yaml")
    assert done.returncode == 8 and "schema version -1" in done.stderr
