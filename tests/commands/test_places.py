"""Where a command finds its ledger and its settings: the same place, whichever way the manifest is named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import Classify, Cli, Serve, command_line, creates


@pytest.fixture
def cli(tmp_path: Path, serve: Serve) -> Iterator[Cli]:
    with command_line(tmp_path) as cli:
        cli.use(serve(Classify()))
        yield cli


def moved(cli: Cli) -> None:
    """The manifest is in ``work/`` and has a link in the current folder."""
    (cli.folder / "work").mkdir(mode=0o700)
    (cli.folder / "m.yaml").rename(cli.folder / "work" / "m.yaml")
    (cli.folder / "m.yaml").symlink_to(cli.folder / "work" / "m.yaml")


def test_a_manifest_has_one_ledger_by_whichever_way(tmp_path: Path, serve: Serve) -> None:
    """Through a link and from another folder it is the same work: nothing is bought twice."""
    server = serve(Classify())
    with command_line(tmp_path) as cli:
        cli.use(server)
        moved(cli)
        for path in ("m.yaml", "work/m.yaml", str(tmp_path / "m.yaml")):
            assert cli("run", path).returncode == 0
        assert creates(server) == 1
        assert not (tmp_path / "ledger.db").exists()


def test_a_ledger_beside_the_link_from_before_is_kept(cli: Cli) -> None:
    """An earlier version put it there; to begin another one would pay for everything again."""
    assert cli("run", "m.yaml").returncode == 0
    moved(cli)
    assert json.loads(cli("plan", "m.yaml", "--json").stdout)["new"] == 0


def test_of_two_ledgers_a_person_says_which(cli: Cli) -> None:
    """Each knows what the other does not: neither is chosen silently."""
    assert cli("run", "m.yaml").returncode == 0
    moved(cli)
    assert cli("run", "work/m.yaml").returncode == 0
    done = cli("run", "m.yaml")
    assert (done.returncode, "say which with --ledger" in done.stderr) == (2, True)
    assert cli("run", "m.yaml", "--ledger", "work/ledger.db").returncode == 0


def test_a_home_folder_in_the_option_is_meant(cli: Cli) -> None:
    """`--ledger=~/x.db` reaches the program as it is; no folder named ~ is made."""
    (cli.folder / "home").mkdir(mode=0o700)
    assert cli("run", "m.yaml", "--ledger=~/x.db", HOME=str(cli.folder / "home")).returncode == 0
    assert (cli.folder / "home" / "x.db").exists()
    assert not (cli.folder / "~").exists()


def test_run_and_doctor_say_which_settings_were_read(cli: Cli) -> None:
    """And name what is misspelt: a warning in the run, bad for doctor; --quiet says nothing."""
    file = cli.folder / ".env"
    file.write_text("ORCHESTRATOR_LEGDER=x.db\nLLAMACLOUD_BASE_URL=https://x\n")
    file.chmod(0o600)
    told = cli("run", "m.yaml", ORCHESTRATOR_STLE_S="1").stderr
    assert f"settings read from {file}" in told
    for name in (f"ORCHESTRATOR_LEGDER in {file}", f"LLAMACLOUD_BASE_URL in {file}", "ORCHESTRATOR_STLE_S"):
        assert f"warning: {name} is not a setting; is it misspelt?" in told
    done = cli("doctor", "m.yaml")
    assert done.returncode == 2
    assert f"misspelt and ignored: LLAMACLOUD_BASE_URL in {file}, ORCHESTRATOR_LEGDER in {file}" in done.stdout
    file.write_text("ORCHESTRATOR_SETTLE_S=1\n")
    assert str(file) in cli("doctor", "m.yaml").stdout
    assert cli("run", "m.yaml", "--quiet").stderr == ""
