"""v2: classified once more on the parse that is there, which bills nothing; and what no refusal may prove."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.commands import Cli, Serve, command_line
from support.one_by_one import Fate, OneByOne, manifest

from orchestrator.models import Json

FILES = ("a", "b", "c")
ON_PARSES = ("pjb-of-a", "pjb-of-b", "pjb-of-c")
OTHER_RULES = "contains line items, a total and a date"


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    with command_line(tmp_path) as cli:
        manifest(cli, *FILES)
        yield cli


@pytest.fixture
def api(cli: Cli, serve: Serve) -> OneByOne:
    api = OneByOne()
    cli.use(serve(api))
    return api


@pytest.fixture
def changed(cli: Cli, api: OneByOne) -> None:
    """A first run, and other rules since."""
    assert cli("run", "m.yaml").returncode == 0
    manifest(cli, *FILES, description=OTHER_RULES)


def on_a_parse(fate: Fate) -> Callable[[dict[str, Json]], Fate]:
    """Creates on a parse job meet *fate*."""
    return lambda body: fate if body["file_input"].startswith("pjb-") else None


def in_turn(*fates: Fate) -> Callable[[dict[str, Json]], Fate]:
    """Creates meet these, one after the other, then nothing special."""
    rest = iter(fates)
    return lambda _body: next(rest, None)


def outcomes(cli: Cli) -> dict[str, str]:
    return {row["file_id"]: row["outcome"] for row in cli.exported()}


def noted(cli: Cli, event: str) -> int:
    with closing(sqlite3.connect(cli.folder / "ledger.db")) as connection:
        return int(connection.execute("SELECT count(*) FROM events WHERE event = ?", (event,)).fetchone()[0])


@pytest.mark.usefixtures("changed")
def test_changed_rules_are_applied_to_the_parses_that_are_there(cli: Cli, api: OneByOne) -> None:
    """plan says that it is free; the outcomes are the files'."""
    planned = json.loads(cli("plan", "m.yaml", "--json").stdout)
    assert (planned["new"], planned["free"], planned["credits_ceiling"]) == (3, 3, 0)
    assert "at the very most 15, with parses that are gone 15" in cli("plan", "m.yaml").stdout
    assert cli("run", "m.yaml").returncode == 0
    assert sorted(api.documents[:3]) == list(FILES)
    assert sorted(api.documents[3:]) == list(ON_PARSES)  # they leave a moment apart
    assert outcomes(cli) == dict.fromkeys(FILES, "classified")


@pytest.mark.usefixtures("changed")
@pytest.mark.parametrize("status", [400, 404])
def test_a_parse_that_is_gone_costs_a_call_and_no_file(cli: Cli, api: OneByOne, status: int) -> None:
    """The job is made on the file instead, once."""
    api.fate = on_a_parse(status)
    assert json.loads(cli("run", "m.yaml", "--json").stdout)["credits_ceiling"] == 15
    assert sorted(api.documents[3:]) == list(FILES)
    assert (outcomes(cli), noted(cli, "parse_job_gone")) == (dict.fromkeys(FILES, "classified"), 3)


@pytest.mark.usefixtures("changed")
@pytest.mark.parametrize("fate", ["kill before", "kill after"])
def test_a_kill_between_the_two_calls_buys_nothing_twice(cli: Cli, api: OneByOne, fate: Fate) -> None:
    """The parse is gone, the call on the file is out, and the program dies: the next run gets that one job."""
    manifest(cli, "a", description=OTHER_RULES)
    api.fate = in_turn(404, fate)
    assert cli("run", "m.yaml").returncode == -9
    assert cli("run", "m.yaml").returncode == 0
    assert (sorted(api.documents[:3]), api.documents[3:]) == (list(FILES), ["a"])


@pytest.mark.usefixtures("changed")
def test_a_stop_between_the_two_calls_is_gone_on_from(cli: Cli, api: OneByOne) -> None:
    """What is written down of a parse that is gone outlives the run."""
    manifest(cli, "a", description=OTHER_RULES)
    api.fate = in_turn(404, 402)
    assert cli("run", "m.yaml").returncode == 6
    api.fate = on_a_parse(500)
    assert cli("run", "m.yaml").returncode == 0
    assert (sorted(api.documents[:3]), api.documents[3:]) == (list(FILES), ["a"])


@pytest.mark.usefixtures("changed")
def test_a_job_that_was_made_before_its_parse_went_is_not_bought_again(cli: Cli, api: OneByOne) -> None:
    """Its answer was lost; the parse is gone when the call is sent again; the key on the file brings the job back."""
    manifest(cli, "a", description=OTHER_RULES)
    api.fate = in_turn("lose answer", 404)
    assert cli("run", "m.yaml").returncode == 0
    assert (sorted(api.documents[:3]), api.documents[3:]) == (list(FILES), ["pjb-of-a"])
    assert noted(cli, "parse_job_gone") == 1


@pytest.mark.usefixtures("changed")
def test_a_lost_ledger_takes_back_what_was_made_on_a_parse(cli: Cli, api: OneByOne) -> None:
    """The same key brings back a job that names no file of the manifest."""
    assert cli("run", "m.yaml").returncode == 0
    for path in cli.folder.glob("ledger.db*"):
        path.unlink()
    assert cli("run", "m.yaml").returncode == 0
    assert api.bought == dict.fromkeys([*FILES, *ON_PARSES], 1)
    assert outcomes(cli) == dict.fromkeys(FILES, "classified")


@pytest.mark.usefixtures("changed")
def test_the_guard_counts_what_a_parse_that_goes_would_cost(cli: Cli, api: OneByOne) -> None:
    """Free is a hope: when no parse is there any more, the files are paid for."""
    path = cli.folder / "m.yaml"
    path.write_text(path.read_text() + "limits: {max_credits: 14}\n")
    assert cli("run", "m.yaml").returncode == 6
    assert json.loads(cli("plan", "m.yaml", "--json").stdout)["over_limits"] is not None
    assert sorted(api.documents) == list(FILES)


def test_a_parse_job_may_stand_for_a_file(cli: Cli, api: OneByOne) -> None:
    """Its outcome is filed under its own name."""
    manifest(cli, "pjb-1")
    assert cli("run", "m.yaml").returncode == 0
    assert (api.documents, outcomes(cli)) == (["pjb-1"], {"pjb-1": "classified"})


def test_a_retry_uses_the_parse_of_a_good_answer(cli: Cli, api: OneByOne) -> None:
    """A result that is not sure enough is asked for again for nothing, and the dry run says so."""
    api.confidence = 0.3
    cli("run", "m.yaml")
    unsure = ("retry", "m.yaml", "--below-confidence", "0.5")
    assert json.loads(cli(*unsure, "--dry-run", "--json").stdout)["credits_ceiling"] == 0
    assert cli(*unsure).returncode == 0
    assert sorted(api.documents[:3]) == list(FILES)
    assert sorted(api.documents[3:]) == list(ON_PARSES)  # they leave a moment apart


def test_an_override_that_becomes_the_rule_is_asked_for_again(cli: Cli, api: OneByOne) -> None:
    """A retry in another language, then that language in the manifest: each submission has a key of its own."""
    manifest(cli, "a")
    cli("run", "m.yaml")
    cli("retry", "m.yaml", "--file", "a", "--lang", "de")
    path = cli.folder / "m.yaml"
    path.write_text(path.read_text() + "parsing_configuration: {lang: de}\n")
    assert cli("run", "m.yaml").returncode == 0
    assert cli("retry", "m.yaml", "--file", "a").returncode == 0
    assert (len(api.jobs), len(api.by_key)) == (4, 4)


def test_a_job_that_is_given_twice_is_nobodys(cli: Cli, api: OneByOne) -> None:
    """Two calls, one job: whose would the result be? Nothing is guessed, and nothing is recorded of it."""
    manifest(cli, "a")
    cli("run", "m.yaml")
    api.forgets_its_keys = True
    assert cli("retry", "m.yaml", "--file", "a").returncode == 3
    assert (cli.state()["classified"], cli.state()["unfinished"]) == (0, 1)


def test_a_job_that_is_given_again_and_again_waits_for_a_person(cli: Cli, api: OneByOne) -> None:
    """Every night ended with 3, and nobody was asked; sent again at a person's word, the call has another key."""
    manifest(cli, "a")
    cli("run", "m.yaml")
    api.forgets_its_keys = True
    cli("retry", "m.yaml", "--file", "a")
    done = cli("run", "m.yaml", "--json")
    assert (done.returncode, "needs a person" in json.loads(done.stdout)["reason"]) == (3, True)
    assert "under a new key" in cli("status", "m.yaml").stdout
    api.forgets_its_keys = False
    keys = len(api.by_key)
    assert cli("retry", "m.yaml", "--held").returncode == 0
    assert (len(api.by_key), cli.state()["classified"]) == (keys + 1, 1)


def test_a_retry_does_not_trust_the_parse_of_a_job_that_failed(cli: Cli, api: OneByOne) -> None:
    """The parse may be why it failed; and one on which a job failed is not used a second time."""
    api.ends = {"a": "FAILED", "pjb-of-b": "FAILED"}
    assert cli("run", "m.yaml").returncode == 1
    cli("retry", "m.yaml")
    cli("retry", "m.yaml", "--file", "b")
    cli("retry", "m.yaml", "--file", "b")
    assert api.documents[3:] == ["a", "pjb-of-b", "b"]


def test_a_refusal_after_a_lost_answer_is_no_failure(cli: Cli, api: OneByOne) -> None:
    """The job is found in the API's list by its key, and its result is the file's."""
    manifest(cli, "a")
    api.fate = in_turn("lose answer", 422, 404, 400)
    assert cli("run", "m.yaml").returncode == 0
    assert (api.documents, outcomes(cli)) == (["a"], {"a": "classified"})


def test_a_refusal_after_a_kill_is_no_failure(cli: Cli, api: OneByOne) -> None:
    """The next run sends the call again, is refused, and looks."""
    manifest(cli, "a")
    api.fate = in_turn("kill after", 422)
    assert cli("run", "m.yaml").returncode == -9
    assert cli("run", "m.yaml").returncode == 0
    assert (api.documents, outcomes(cli)) == (["a"], {"a": "classified"})


def test_a_refusal_after_a_lost_call_counts_when_no_job_appears(cli: Cli, api: OneByOne) -> None:
    """Only then has the file failed; a retry buys it."""
    manifest(cli, "a")
    api.fate = in_turn("lose call", 422)
    assert cli("run", "m.yaml").returncode == 1
    assert (outcomes(cli), noted(cli, "absent")) == ({"a": "failed"}, 1)
    assert cli("retry", "m.yaml").returncode == 0
    assert api.documents == ["a"]


def test_what_can_not_be_settled_stays_open(cli: Cli, api: OneByOne) -> None:
    """The run ends before the settle time has passed: nothing is recorded as failed."""
    manifest(cli, "a")
    api.fate = in_turn("lose call", 422)
    assert cli("run", "m.yaml", "--deadline", "1s", ORCHESTRATOR_SETTLE_S="60").returncode == 3
    assert outcomes(cli) == {}
    api.fate = in_turn()
    assert cli("run", "m.yaml").returncode == 0
    assert api.documents == ["a"]


@pytest.mark.usefixtures("changed")
def test_a_rebuilt_ledger_knows_whose_parse_a_job_was_made_on(cli: Cli, api: OneByOne) -> None:
    """Jobs on the files themselves tell, under whichever rules; the outcomes are then the files' again."""
    assert cli("run", "m.yaml").returncode == 0
    for path in cli.folder.glob("ledger.db*"):
        path.unlink()
    adopted = json.loads(cli("adopt", "m.yaml", "--json").stdout)
    assert (adopted["jobs_alike"], adopted["jobs_adopted"], adopted["files_adopted"]) == (3, 3, 3)
    assert outcomes(cli) == dict.fromkeys(FILES, "classified")
    assert cli("run", "m.yaml").returncode == 0
    assert len(api.jobs) == 6


def test_a_job_that_does_not_end_does_not_hide_a_later_good_one(cli: Cli, api: OneByOne) -> None:
    """A rebuilt ledger has the good result at once, and waits for nothing that it need not have."""
    manifest(cli, "a")
    assert cli("run", "m.yaml").returncode == 0
    for path in cli.folder.glob("ledger.db*"):
        path.unlink()
    api.jobs["clj-1"] = {**api.jobs["clj-0"], "file_input": "pjb-of-a"}
    api.stuck = {"a"}
    assert json.loads(cli("adopt", "m.yaml", "--json").stdout)["files_adopted"] == 1
    assert outcomes(cli) == {"a": "classified"}
    assert json.loads(cli("adopt", "m.yaml", "--json").stdout)["files_adopted"] == 0
    assert cli("run", "m.yaml", "--deadline", "600s").returncode == 0
    assert (len(api.jobs), outcomes(cli)) == (2, {"a": "classified"})
