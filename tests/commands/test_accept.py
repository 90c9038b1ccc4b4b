"""What a person decides about failed files, and what an earlier run has already said, is no alarm of the night."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.commands import OUTAGE, Cli, Serve, refusing
from support.moody import Moody

from orchestrator.models import Json


def private(path: Path, text: str) -> None:
    """A file that only its owner can read."""
    path.write_text(text)
    path.chmod(0o600)


def night(cli: Cli, *options: str) -> dict[str, Json]:
    """The summary of a run."""
    return dict(json.loads(cli("run", "m.yaml", "--json", *options).stdout))


def test_what_failed_before_is_no_alarm_of_this_night(cli: Cli, api: Moody) -> None:
    """It is counted in words; a run that does not ask for this keeps its exit code."""
    api.bad = "^b$"
    assert cli("run", "m.yaml", "--known-ok").returncode == 1, "the first night has to tell of it"
    again = night(cli, "--known-ok")
    assert (again["exit_code"], again["failed"], again["known_failures"]) == (0, 1, 1)
    assert "known failures: 1" in again["reason"]
    assert cli("run", "m.yaml").returncode == 1


def test_a_new_failure_is_reported_beside_the_known_ones(cli: Cli, api: Moody) -> None:
    """Whether a file is new or was sent again makes no difference to the known ones."""
    api.bad = "^[bd]$"
    cli("run", "m.yaml", "--known-ok")
    cli.manifest("a", "b", "c", "d")
    new = night(cli, "--known-ok", "--retry-failed")
    assert (new["exit_code"], new["failed"], new["known_failures"]) == (1, 2, 1)
    assert "2 files failed, missing or cancelled, 1 of them known" in new["reason"]
    assert night(cli, "--known-ok", "--retry-failed")["exit_code"] == 0


def test_a_file_that_was_good_before_and_failed_since_is_no_known_failure(cli: Cli, api: Moody) -> None:
    """Changed rules have every file classified again."""
    cli("run", "m.yaml")
    api.bad = "^b$"
    text = (cli.folder / "m.yaml").read_text()
    (cli.folder / "m.yaml").write_text(text.replace("a total", "a grand total"))
    assert night(cli, "--known-ok")["exit_code"] == 1


def test_a_run_that_did_not_finish_has_told_of_nothing(cli: Cli, api: Moody) -> None:
    """What failed in a night that ended with another alarm is told of by the next one."""
    api.bad = "^b$"
    cli.manifest("a", "b", "c", size=1)
    assert cli("run", "m.yaml", "--known-ok", "--no-wait").returncode == 3
    assert cli("run", "m.yaml", "--known-ok").returncode == 1


@pytest.mark.parametrize("which", [["--file", "b"], ["--error", "RESULT"], ["--file-from", "list.csv"]])
def test_a_dismissed_failure_is_left_alone(cli: Cli, api: Moody, which: list[str]) -> None:
    """It stays failed, with the API's words and who decided; no run counts it, and no retry sends it unless named."""
    api.bad = "^b$"
    private(cli.folder / "list.csv", "file_id,why\nb,seen\n")
    cli("run", "m.yaml")
    before = next(row for row in cli.exported() if row["file_id"] == "b")
    done = cli("accept", "m.yaml", "--dismiss", *which, "--by", "anna", "--note", "a blank page")
    assert (done.returncode, done.stdout) == (0, "b: dismissed\n"), done.stderr
    again = night(cli, "--retry-failed")
    assert (again["exit_code"], again["failed"], again["dismissed"], again["failed_files"]) == (0, 1, 1, [])
    assert "dismissed: 1" in again["reason"]
    after = next(row for row in cli.exported() if row["file_id"] == "b")
    assert (after["outcome"], after["error"]) == (before["outcome"], before["error"])
    assert after["reasoning"] == "dismissed by a person: anna, a blank page"
    assert api.bought["b"] == 1
    cli("retry", "m.yaml", "--file", "b")
    assert api.bought["b"] == 2


def test_every_verdict_says_who_gave_it(cli: Cli, api: Moody) -> None:
    """By default whoever is logged in; in the export, and in the record of the verdicts."""
    cli("run", "m.yaml")
    cli("accept", "m.yaml", "--file", "a", "--type", "receipt", LOGNAME="berta")
    told = json.loads(cli("accept", "m.yaml", "--file", "b", "--by", "anna", "--note", "clear", "--json").stdout)
    assert (told["by"], told["note"], told["files"]) == (
        "anna",
        "clear",
        [{"file_id": "b", "verdict": "invoice", "name": None}],
    )
    reasons = {row["file_id"]: row["reasoning"] for row in cli.exported()}
    assert (reasons["a"], reasons["b"]) == ("accepted by a person: berta", "accepted by a person: anna, clear")
    assert [run["summary"].get("by") for run in cli.state()["runs"]] == ["anna", "berta", None]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--file", "zz"], "is not a file of this manifest"),
        (["--file", "zz", "--dismiss"], "is not a file of this manifest"),
        (["--file", "a", "--dismiss"], "is classified"),
        (["--file", "b"], "say --type, --unmatched or --dismiss"),
        (["--error", "never said", "--dismiss"], "no failed file matches"),
        (["--error", "x"], "--error is for --dismiss"),
        (["--dismiss"], "which files?"),
        ([], "which files?"),
        (["--file", "b", "--dismiss", "--unmatched"], "exclude each other"),
    ],
)
def test_a_verdict_without_sense_is_refused_in_one_line(cli: Cli, api: Moody, options: list[str], words: str) -> None:
    """And nothing is recorded."""
    api.bad = "^b$"
    cli("run", "m.yaml")
    done = cli("accept", "m.yaml", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert len(cli("export", "--history").stdout.splitlines()) == 3


def test_a_verdict_on_what_was_never_sent_is_not_bought(cli: Cli, api: Moody, serve: Serve) -> None:
    """New, or planned by a retry that could not send it; the other files of its chunk are sent."""
    api.bad = "^[bc]$"
    cli("run", "m.yaml")
    url = cli.environ["LLAMA_CLOUD_BASE_URL"]
    cli.use(serve(refusing(503)))
    assert cli("retry", "m.yaml", **OUTAGE).returncode == 7
    cli.manifest("a", "b", "c", "d", "e")
    assert cli("accept", "m.yaml", "--file", "b", "--file", "d", "--type", "receipt").returncode == 0
    cli.environ["LLAMA_CLOUD_BASE_URL"] = url
    api.bad = "^$"
    assert cli("run", "m.yaml").returncode == 0
    assert api.bought == {"a": 1, "b": 1, "c": 2, "e": 1}
    assert {row["file_id"]: row["type"] for row in cli.exported()}["d"] == "receipt"


def test_a_verdict_on_a_file_whose_call_had_no_answer(cli: Cli, api: Moody) -> None:
    """It counts; the job that turns up later is recorded beside it."""
    api.lost = "."
    assert cli("run", "m.yaml", "--no-wait").returncode == 3
    assert cli("accept", "m.yaml", "--file", "a", "--unmatched").returncode == 0
    assert cli("run", "m.yaml").returncode == 0
    assert {row["file_id"]: row["outcome"] for row in cli.exported()}["a"] == "unmatched"
    assert api.bought == {"a": 1, "b": 1, "c": 1}


@pytest.mark.parametrize("text", ["", "file_id,name\n"])
def test_an_empty_list_is_a_mistake_unless_the_manifest_allows_it(cli: Cli, api: Moody, text: str) -> None:
    """Most likely whatever writes it has failed; the line names the list, and what to write."""
    private(cli.folder / "list.csv", text or "file_id\n")
    manifest = cli.folder / "m.yaml"
    manifest.write_text(manifest.read_text().split("file_ids:")[0] + "file_ids_from: [list.csv]\n")
    for command in ("run", "plan"):
        done = cli(command, "m.yaml")
        assert (done.returncode, done.stdout) == (2, "")
        assert "list.csv:1:1: no file IDs are listed" in done.stderr
        assert "allow_empty: true" in done.stderr
    with manifest.open("a") as more:
        more.write("allow_empty: true\n")
    assert cli("run", "m.yaml").returncode == 0
    assert api.bought == {}


def test_a_summary_names_no_failed_file_that_is_not_in_the_list(cli: Cli, api: Moody) -> None:
    """Failures of files that the manifest lists no more are those of other nights."""
    api.bad = "^b$"
    cli("run", "m.yaml")
    cli.manifest("a")
    done = night(cli)
    assert (done["exit_code"], done["failed_files"]) == (0, [])
