"""What the manifest asks of a run's end: a page, and a word when the answers have drifted."""

from __future__ import annotations

import json

import pytest
from support.commands import Classify, Cli, Serve

from orchestrator.models import Json


@pytest.fixture
def api(cli: Cli, serve: Serve) -> Classify:
    api = Classify()
    cli.use(serve(api))
    return api


def ask(cli: Cli, *file_ids: str, more: str) -> None:
    """A manifest of *file_ids* with *more* fields."""
    cli.manifest(*file_ids)
    path = cli.folder / "m.yaml"
    path.write_text(path.read_text() + more)


def test_the_end_of_a_run_writes_the_page_that_the_manifest_names(cli: Cli, api: Classify) -> None:
    """Beside the manifest, with this run on it; its last run has ended."""
    ask(cli, "a", "b", "c", more="report: page.html\n")
    assert cli("run", "m.yaml").returncode == 0
    page = (cli.folder / "page.html").read_text()
    assert "It worked." in page and "This run recorded 3 classified." in page
    assert "chunk size" in page and "page.html" in page


def test_a_page_that_cannot_be_written_fails_no_run(cli: Cli, api: Classify) -> None:
    """Its results are recorded; the log says what became of the page."""
    ask(cli, "a", "b", "c", more="report: not/there/page.html\n")
    done = cli("run", "m.yaml")
    assert done.returncode == 0
    assert "page.not_written" in done.stderr
    assert len(cli.exported()) == 3


def test_a_rehearsal_leaves_the_real_page_alone(cli: Cli, api: Classify) -> None:
    """It is not written over with made-up results."""
    ask(cli, "a", "b", "c", more="report: page.html\n")
    assert cli("run", "m.yaml", "--sandbox").returncode in (0, 1)  # the sandbox has files that fail
    assert not (cli.folder / "page.html").exists()


@pytest.mark.parametrize("name", ["m.yaml", "ledger.db", "page"])
def test_a_page_has_a_name_that_is_no_other_file(cli: Cli, name: str) -> None:
    """The manifest, the ledger and the lists are safe from it: exit 2, with the line."""
    ask(cli, "a", more=f"report: {name}\n")
    done = cli("validate", "m.yaml")
    assert done.returncode == 2
    assert "a page's name ends in .html" in done.stderr


def nights(cli: Cli, api: Classify, *, more: str) -> list[dict[str, Json]]:
    """Four nights of invoices and one of receipts: their summaries."""
    summaries = []
    files: list[str] = []
    for night in range(5):
        files += [f"night-{night}-{n}" for n in range(25)]
        api.result = {"type": "receipt" if night == 4 else "invoice", "confidence": 0.9, "reasoning": "x"}
        ask(cli, *files, more=more)
        done = cli("run", "m.yaml", "--json")
        assert done.returncode == 0, done.stderr
        summaries.append({**json.loads(done.stdout), "stderr": done.stderr})
    return summaries


def test_a_run_says_that_its_answers_have_drifted(cli: Cli, api: Classify) -> None:
    """In its summary and its log, and on no quiet night."""
    *quiet, last = nights(cli, api, more="drift: {alert: 0.1}\n")
    assert [summary["drift"] and summary["drift"]["alarm"] for summary in quiet] == [None, None, None, False]
    assert last["drift"]["alarm"] is True
    assert last["drift"]["types_distance"] == 1.0
    assert "answers.drifted" in last["stderr"]
    report = json.loads(cli("report", "m.yaml", "--json").stdout)["manifests"][0]
    assert report["drift"] == last["drift"]
    assert "the answers have drifted" in cli("report", "m.yaml").stdout


def test_nothing_is_an_alarm_unless_the_manifest_asks_for_it(cli: Cli, api: Classify) -> None:
    """The distances are in the summary all the same."""
    last = nights(cli, api, more="")[-1]
    assert (last["drift"]["alarm"], last["drift"]["types_distance"]) == (False, 1.0)
    assert "answers.drifted" not in last["stderr"]


def test_open_starts_the_browser_with_the_page(cli: Cli, api: Classify) -> None:
    """The one that BROWSER names; the page is report.html beside the ledger where no other is named."""
    cli("run", "m.yaml")
    seen = cli.folder / "seen"
    done = cli.process("report", "m.yaml", "--open", environ={"BROWSER": f"/bin/sh -c 'echo %s > {seen}'"})
    assert done.returncode == 0, done.stderr
    assert seen.read_text().strip() == (cli.folder / "report.html").as_uri()
