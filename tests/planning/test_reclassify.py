"""Changed rules buy nothing again in silence, and a change that can't change an answer buys nothing at all."""

from __future__ import annotations

import json

import pytest
from support.commands import Cli
from support.moody import Moody


def edit(cli: Cli, old: str, new: str) -> None:
    path = cli.folder / "m.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_many_files_are_classified_again_only_when_a_person_allows_it(cli: Cli, api: Moody) -> None:
    """Exit 6 before anything is sent, in the words of plan; --reclassify allows it once and says why it happens."""
    cli.manifest(*(f"file-{n}" for n in range(101)))
    assert cli("run", "m.yaml").returncode == 0
    edit(cli, "line items and", "line items, and")
    words = "101 files would be classified again because of rules, over limits.max_reclassify: 100; allow it once with"
    told = json.loads(cli("plan", "m.yaml", "--json").stdout)
    assert told["over_limits"].startswith(words)
    done = cli("run", "m.yaml")
    assert (done.returncode, words in done.stderr, api.bought.total()) == (6, True, 101)
    done = cli("run", "m.yaml", "--reclassify", "--json")
    assert (done.returncode, api.bought.total()) == (0, 202)
    assert json.loads(done.stdout)["reclassified"] == told["reclassified"] == {"files": 101, "fields": ["rules"]}
    assert '"files.reclassified"' in done.stderr


def test_the_manifest_says_how_many_may_be_classified_again(cli: Cli, api: Moody) -> None:
    """Fewer than by default, with the line to change."""
    with (cli.folder / "m.yaml").open("a") as manifest:
        manifest.write("limits: {max_reclassify: 2}\n")
    assert cli("run", "m.yaml").returncode == 0
    edit(cli, "line items and", "line items, and")
    done = cli("run", "m.yaml")
    assert (done.returncode, "or raise the limit in m.yaml:13" in done.stderr) == (6, True)
    assert api.bought.total() == 3


@pytest.mark.parametrize(
    "spelling",
    [
        "|\n      contains line items\n      and a total",
        ">-\n      contains line items   \n      and a total",
        '"  contains line items and a total "',
    ],
    ids=["literal", "folded", "white space"],
)
def test_another_spelling_of_a_description_buys_nothing(cli: Cli, api: Moody, spelling: str) -> None:
    """White space can't change an answer; outcomes of before count, and the summary says so."""
    assert cli("run", "m.yaml").returncode == 0
    edit(cli, "contains line items and a total", spelling)
    done = json.loads(cli("run", "m.yaml", "--json").stdout)
    assert (done["exit_code"], done["skipped"], done["reclassified"]["files"]) == (0, 3, 0)
    assert api.bought.total() == 3
    assert cli.state()["classified"] == 3


def test_the_order_of_target_pages_buys_nothing(cli: Cli, api: Moody) -> None:
    """The same pages are read."""
    with (cli.folder / "m.yaml").open("a") as manifest:
        manifest.write("parsing_configuration: {target_pages: [2, 0]}\n")
    assert cli("run", "m.yaml").returncode == 0
    edit(cli, "[2, 0]", "[0, 2]")
    assert cli("run", "m.yaml").returncode == 0
    assert api.bought.total() == 3
