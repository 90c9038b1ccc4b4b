"""``run --sample``: some of what is new, at random; the rest stays new."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import Cli, command_line
from support.moody import Moody


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    with command_line(tmp_path) as cli:
        cli.manifest(*(f"f{number}" for number in range(200)))
        yield cli


def test_only_the_sample_is_sent_and_the_whole_has_a_price(cli: Cli, api: Moody) -> None:
    """Exit 0, with words that do not claim that every file has an outcome; then the rest is sent once."""
    done = cli("run", "m.yaml", "--sample", "20", "--json")
    summary = json.loads(done.stdout)
    assert summary["sample"] == {"files": 20, "of": 200, "seed": 0, "whole_credits_ceiling": 1000}
    assert (summary["exit_code"], summary["classified"], summary["credits_ceiling"]) == (0, 20, 100)
    assert summary["reason"] == "a sample of 20 of 200 new files; credits for all of them: up to 1,000"
    assert len(api.bought) == 20
    assert json.loads(cli("plan", "m.yaml", "--json").stdout)["new"] == 180
    assert json.loads(cli("run", "m.yaml", "--json").stdout)["classified"] == 200
    assert set(api.bought.values()) == {1}


def test_the_seed_decides_which_files_are_drawn(cli: Cli, api: Moody, tmp_path: Path) -> None:
    """The same seed, the same files; another seed, others; and not just the first ones."""
    drawn = []
    for ledger, seed in (("one.db", "1"), ("two.db", "1"), ("three.db", "2")):
        api.jobs.clear()
        assert cli("run", "m.yaml", "--sample", "20", "--seed", seed, "--ledger", ledger).returncode == 0
        drawn.append(set(api.bought))
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0] != {f"f{number}" for number in range(20)}


def test_a_sample_of_changed_rules_is_no_breach_of_max_reclassify(cli: Cli, api: Moody) -> None:
    """What is classified again is counted among the sample alone; more than there is draws all."""
    cli("run", "m.yaml")
    path = cli.folder / "m.yaml"
    path.write_text(path.read_text().replace("a total", "a grand total"))
    assert cli("run", "m.yaml").returncode == 6
    done = json.loads(cli("run", "m.yaml", "--sample", "20", "--json").stdout)
    assert (done["exit_code"], done["reclassified"]["files"], done["jobs_created"]) == (0, 20, 1)


def test_ids_are_printed_alone(cli: Cli, api: Moody) -> None:
    """Of one type, ready for another job; ``--format`` makes no sense beside it."""
    cli.manifest("a", "b", "c")
    cli("run", "m.yaml")
    cli("accept", "m.yaml", "--file", "b", "--type", "receipt")
    assert cli("export", "m.yaml", "--type", "invoice", "--ids").stdout == "a\nc\n"
    assert cli("export", "m.yaml", "--type", "receipt", "--ids", "--history").stdout == "b\n"
    assert cli("export", "m.yaml", "--ids", "--format", "csv").returncode == 2
