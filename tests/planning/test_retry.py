"""Sending files again, on purpose: retry, files at fault, second opinions, verdicts, and what changed overnight."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from support.commands import Cli, Serve
from support.moody import Moody
from support.server import Answer

from orchestrator.stages.halving import halve, is_outage


def test_retry_sends_exactly_what_failed_once_more(cli: Cli, api: Moody) -> None:
    """And nothing when called again: what was good is bought once."""
    cli.manifest(*(f"file-{n}" for n in range(30)), size=10)
    api.bad = "-1"
    assert cli("run", "m.yaml").returncode == 1
    failed = {row["file_id"] for row in cli.exported() if row["outcome"] == "failed"}
    assert {f"file-{n}" for n in (1, *range(10, 20))} == failed
    api.bad = "^$"
    assert cli("run", "m.yaml").returncode == 1
    assert cli("retry", "m.yaml").returncode == 0
    assert cli("retry", "m.yaml").returncode == 0
    assert Counter(api.bought.values()) == {2: 11, 1: 19}
    assert failed == {file_id for file_id, times in api.bought.items() if times == 2}
    history = cli("export", "--history").stdout.splitlines()
    assert len(history) == 41
    assert {"classified"} == {row["outcome"] for row in cli.exported()}


def test_a_dry_run_says_the_very_most_with_the_halves(cli: Cli, api: Moody) -> None:
    """Two files in one call for 10 credits; each in a call of its own, should that fail, for 10 more."""
    cli.manifest("a", "b", size=2)
    api.left_out = "."
    assert cli("run", "m.yaml").returncode == 1
    assert "at the very most 20, with halves of failed jobs 10" in cli("retry", "m.yaml", "--dry-run").stdout


def test_a_row_that_is_left_out_is_missing_and_retried(cli: Cli, api: Moody) -> None:
    """It never counts as done."""
    api.left_out = "^b$"
    assert cli("run", "m.yaml").returncode == 1
    assert {r["file_id"]: r["outcome"] for r in cli.exported()} == {
        "a": "classified",
        "b": "missing",
        "c": "classified",
    }
    api.left_out = "^$"
    assert cli("retry", "m.yaml", "--outcome", "missing").returncode == 0
    assert api.bought == {"a": 1, "b": 2, "c": 1}


SELECTORS: list[tuple[list[str], set[str]]] = [
    (["--file", "a"], {"a"}),
    (["--type", "invoice"], {"a", "b"}),
    (["--below-confidence", "0.5"], {"b"}),
    (["--outcome", "failed"], {"c"}),
    (["--error", "NO RESULT"], {"c"}),
    (["--error", "something else"], set()),
    (["--file-from", "list.txt"], {"b", "c"}),
    ([], {"c"}),
]


def test_each_selector_names_its_files(cli: Cli, api: Moody) -> None:
    """A dry run shows them and sends nothing; in earnest just these are sent."""
    (cli.folder / "list.txt").write_text("b\nc\n")
    (cli.folder / "list.txt").chmod(0o600)
    api.bad, api.unsure = "^c$", "^b$"
    cli("run", "m.yaml")
    before = api.bought
    for options, sent in SELECTORS:
        shown = json.loads(cli("retry", "m.yaml", *options, "--dry-run", "--json").stdout)
        assert sent == set(shown["file_ids"]), options
    assert before == api.bought
    cli("retry", "m.yaml", "--file-from", "list.txt")
    assert set(api.bought - before) == {"b", "c"}


def test_overrides_reach_the_create_call(cli: Cli, api: Moody) -> None:
    """And the files stay done for the manifest's own config."""
    cli("run", "m.yaml")
    call = ["retry", "m.yaml", "--file", "a", "--mode", "MULTIMODAL", "--lang", "de", "--max-pages", "2"]
    assert cli(*call).returncode == 0
    (sent,) = list(api.jobs.values())[1:]
    assert (sent["mode"], sent["parsing_configuration"]) == ("MULTIMODAL", {"lang": "de", "max_pages": 2})
    assert cli("run", "m.yaml").returncode == 0
    assert api.bought == {"a": 2, "b": 1, "c": 1}
    assert {row["file_id"]: row["mode"] for row in cli.exported()} == {"a": "MULTIMODAL", "b": "FAST", "c": "FAST"}


def test_a_file_that_failed_too_often_is_left_alone(cli: Cli, api: Moody) -> None:
    """limits.max_generations, over as many nights as one likes."""
    with (cli.folder / "m.yaml").open("a") as manifest:
        manifest.write("limits: {max_generations: 2}\n")
    api.bad = "^b$"
    for _ in range(4):
        assert cli("run", "m.yaml", "--retry-failed").returncode == 1
    assert api.bought == {"a": 1, "b": 2, "c": 1}


def test_one_file_at_fault_among_600_is_found(cli: Cli, api: Moody) -> None:
    """With at most 15 calls more; the others are right; the next run leaves it alone."""
    cli.manifest(*(f"file-{n}" for n in range(600)), size=100)
    api.at_fault = "^file-357$"
    assert cli("run", "m.yaml").returncode == 1
    assert len(api.jobs) <= 6 + 15
    assert {r["file_id"]: r["outcome"] for r in cli.exported() if r["outcome"] != "classified"} == {
        "file-357": "failed"
    }
    calls = len(api.jobs)
    assert cli("run", "m.yaml").returncode == 1
    assert calls == len(api.jobs)


def test_when_all_jobs_fail_nothing_is_halved(cli: Cli, api: Moody) -> None:
    """That is an outage which says ERROR, not one file's fault."""
    cli.manifest(*(f"file-{n}" for n in range(300)), size=10)
    api.at_fault = "."
    assert cli("run", "m.yaml").returncode == 1
    assert len(api.jobs) <= 1.2 * 30
    assert cli.state()["failed"] == 300


def test_an_unsure_answer_gets_a_second_opinion_once(cli: Cli, api: Moody) -> None:
    """The surer one counts; both are in the history; the next night does not ask a third time."""
    with (cli.folder / "m.yaml").open("a") as manifest:
        manifest.write("escalate: {below_confidence: 0.5, mode: MULTIMODAL}\n")
    api.unsure = "^b$"
    done = cli("run", "m.yaml", "--json")
    asked = {"files": 1, "answered": 1, "confidence_before": 0.3, "confidence_after": 0.9}
    assert (done.returncode, json.loads(done.stdout)["second_opinions"]) == (0, asked)
    assert cli("run", "m.yaml").returncode == 0
    assert api.bought == {"a": 1, "b": 2, "c": 1}
    assert {row["file_id"]: row["type"] for row in cli.exported()} == {"a": "invoice", "b": "receipt", "c": "invoice"}
    assert len(cli("export", "--history").stdout.splitlines()) == 4


def test_a_second_opinion_is_had_when_all_else_is_done(cli: Cli, api: Moody) -> None:
    """An earlier run may have been stopped before it asked, or had not been told to."""
    api.unsure = "^b$"
    assert cli("run", "m.yaml").returncode == 0
    with (cli.folder / "m.yaml").open("a") as manifest:
        manifest.write("escalate: {below_confidence: 0.5, mode: MULTIMODAL}\n")
    assert cli("run", "m.yaml").returncode == 0
    assert api.bought == {"a": 1, "b": 2, "c": 1}


def test_a_persons_verdict_counts_and_stays(cli: Cli, api: Moody) -> None:
    """Later runs and retries of unsure results respect it."""
    api.unsure = "^b$"
    cli("run", "m.yaml")
    assert cli("accept", "m.yaml", "--file", "b", "--type", "receipt").returncode == 0
    for option in (["--below-confidence", "0.5"], ["--type", "receipt"]):
        assert cli("retry", "m.yaml", *option).returncode == 0
    assert api.bought == {"a": 1, "b": 1, "c": 1}
    assert next((r["type"], r["confidence"]) for r in cli.exported() if r["file_id"] == "b") == ("receipt", 1.0)
    state = cli.state()
    assert state["spent"]["jobs_billed"] == 0  # a verdict is no job of the API's
    assert "1 verdict" in [run["summary"]["reason"] for run in state["runs"]]


@pytest.mark.parametrize(
    "options",
    [["--file", "z"], ["--file", "a", "--type", "novel"], ["--file", "a", "--type", "invoice", "--unmatched"]],
)
def test_a_verdict_that_makes_no_sense_is_refused(cli: Cli, api: Moody, options: list[str]) -> None:
    """And nothing is recorded."""
    cli("run", "m.yaml")
    assert cli("accept", "m.yaml", *options).returncode == 2
    assert len(cli("export", "--history").stdout.splitlines()) == 3


def test_diff_tells_what_changed_between_two_runs(cli: Cli, api: Moody) -> None:
    """A file that failed and is an invoice now; a new file."""
    api.bad = "^b$"
    cli("run", "m.yaml")
    api.bad = "^$"
    cli.manifest("a", "b", "c", "d")
    cli("run", "m.yaml", "--retry-failed")
    found = json.loads(cli("diff", "m.yaml", "--json").stdout)
    assert (found["new_files"], found["new_failures"]) == (1, 0)
    assert [(f["before"], f["after"], f["example"]) for f in found["flipped"]] == [
        ("failed", "classified invoice", "b")
    ]
    cli("accept", "m.yaml", "--file", "a")
    again = json.loads(cli("diff", "m.yaml", "--json").stdout)
    of_call = {name: again[name] for name in ("started_at", "finished_at")}
    assert {**found, **of_call} == again, "a verdict is no run to compare with"
    assert "name two runs" in cli("diff", "m.yaml", found["run_a"]).stderr
    assert cli("diff", "m.yaml").returncode == 0


def test_diff_needs_two_runs(cli: Cli, api: Moody) -> None:
    """And says so."""
    cli("run", "m.yaml")
    done = cli("diff", "m.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert "two runs" in done.stderr


def test_a_lost_ledger_is_rebuilt_from_the_api(cli: Cli, api: Moody) -> None:
    """adopt buys nothing, and the next run only what is missing."""
    cli.manifest("a", "b")
    cli("run", "m.yaml")
    for path in cli.folder.glob("ledger.db*"):
        path.unlink()
    cli.manifest("a", "b", "c")
    assert cli("adopt", "m.yaml").returncode == 0
    assert cli("run", "m.yaml").returncode == 0
    assert api.bought == {"a": 1, "b": 1, "c": 1}


@given(st.lists(st.integers().map(str), unique=True))
def test_halves_are_all_of_it(file_ids: list[str]) -> None:
    """Nothing is lost or doubled; a file that failed alone is not sent again; the halves are as even as can be."""
    parts = halve(file_ids, len(file_ids))
    assert (file_ids if len(file_ids) > 1 else []) == [file_id for part in parts for file_id in part]
    assert all(abs(len(parts[0]) - len(part)) <= 1 for part in parts)


def test_the_last_of_those_that_failed_together_is_tried_alone() -> None:
    """It may have failed because of one that a person has decided since."""
    assert halve(["a"], 2) == [["a"]]


def test_an_outage_is_not_a_file_at_fault() -> None:
    """One file at fault fails one job in many and every second half; an outage fails them all."""
    assert not is_outage((6, 1), (14, 7))
    assert not is_outage((1, 1), (0, 0))
    assert is_outage((30, 30), (0, 0))
    assert is_outage((4, 4), (8, 8))


def change_rules(cli: Cli, old: str = "contains line items", new: str = "lists what was sold") -> None:
    manifest = cli.folder / "m.yaml"
    manifest.write_text(manifest.read_text().replace(old, new))


def test_a_retry_goes_by_the_rules_of_now_and_says_that_they_changed(cli: Cli, api: Moody) -> None:
    """It sends what failed under the old ones, and leaves what was good to ``run``."""
    api.bad = "^b$"
    cli("run", "m.yaml")
    api.bad = "^$"
    change_rules(cli)
    with (cli.folder / "m.yaml").open("a") as manifest:
        manifest.write("parsing_configuration: {lang: de}\n")
    shown = json.loads(cli("retry", "m.yaml", "--dry-run", "--json").stdout)
    changes = {"files": 1, "fields": ["rules", "parsing_configuration"]}
    assert (shown["file_ids"], shown["changes"]) == (["b"], changes)
    words = "changed since 1 of these files were last sent: rules and parsing_configuration"
    assert words in cli("retry", "m.yaml", "--dry-run").stdout
    done = cli("retry", "m.yaml", "--json")
    summary = json.loads(done.stdout)
    assert (done.returncode, summary["changes"], summary["classified"], summary["unfinished"]) == (0, changes, 3, 0)
    assert '"manifest.changed"' in done.stderr
    assert (cli.state()["files"], cli.state()["other_rules"]) == (1, 2)
    assert (api.bought, list(api.jobs.values())[-1]["file_ids"]) == ({"a": 1, "b": 2, "c": 1}, ["b"])
    assert list(api.jobs.values())[-1]["rules"][0]["description"].startswith("lists what was sold")
    assert json.loads(cli("retry", "m.yaml", "--json").stdout)["changes"]["files"] == 0
    assert cli("run", "m.yaml").returncode == 0
    assert api.bought == {"a": 2, "b": 2, "c": 2}


def test_changed_rules_that_cost_too_much_are_not_sent(cli: Cli, api: Moody) -> None:
    """Exit 6 before anything is sent, with the line to change; plan said so before."""
    cli("run", "m.yaml")
    change_rules(cli)
    with (cli.folder / "m.yaml").open("a") as manifest:
        manifest.write("limits:\n  max_files: 9\n  max_credits: 14\n")
    words = "up to 15 credits, over limits.max_credits: 14; to go on raise it in m.yaml:15"
    plan = json.loads(cli("plan", "m.yaml", "--json").stdout)
    assert (plan["changed"], plan["credits_ceiling"], plan["over_limits"]) == (3, 15, words)
    done = cli("run", "m.yaml")
    assert (done.returncode, words in done.stderr) == (6, True)
    assert api.bought == {"a": 1, "b": 1, "c": 1}


def test_a_retry_leaves_what_was_never_sent_to_run(cli: Cli, api: Moody) -> None:
    """And does not call it done."""
    cli("run", "m.yaml")
    cli.manifest("a", "b", "c", "d")
    done = cli("retry", "m.yaml", "--json")
    summary = json.loads(done.stdout)
    assert (done.returncode, summary["unfinished"], summary["classified"]) == (3, 1, 3)
    assert "`orchestrator run` sends them" in summary["reason"]
    assert api.bought == {"a": 1, "b": 1, "c": 1}


WRONG: list[tuple[list[str], str]] = [
    (["--outcome", "bad"], "--outcome 'bad': must be one of classified, unmatched, failed, missing, cancelled"),
    (["--type", "novel"], "--type 'novel': no rule names it and no file has it; write invoice, receipt"),
    (["--below-confidence", "60"], "'--below-confidence': Input should be less than or equal to 1"),
    (["--file", "z", "--file", "y"], "file 'y' (nor 1 more) is not in the manifest"),
    (["--file-from", "none.txt"], "none.txt:1:1: "),
    (["--file-from", "bad.csv"], "bad.csv:1:"),
    (["--run", "nonesuch"], "--run 'nonesuch': no run of this manifest"),
    (["--mode", "SLOW"], "--mode 'SLOW': must be FAST or MULTIMODAL"),
    (["--mode", "MULTIMODAL", "--api", "v2"], "only v1 has it"),
    (["--lang", "zz"], "--lang 'zz' is not among the 86 codes of v1"),
    (["--lang", "English please"], "write a language code such as"),
    (["--max-pages", "0"], "'--max-pages': Input should be greater than or equal to 1"),
    (["--chunk-size", "501"], "'--chunk-size': Input should be less than or equal to 500"),
]


@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["in earnest", "dry"])
def test_a_wrong_value_is_refused_in_one_line(cli: Cli, api: Moody, dry: list[str]) -> None:
    """Before anything is sent, with what would be right."""
    (cli.folder / "bad.csv").write_text("name\nb\n")
    (cli.folder / "bad.csv").chmod(0o600)
    cli("run", "m.yaml")
    for options, words in WRONG:
        done = cli("retry", "m.yaml", *options, *dry)
        assert (done.returncode, done.stdout) == (2, ""), options
        assert words in " ".join(done.stderr.split()), options
    assert api.bought == {"a": 1, "b": 1, "c": 1}


def test_an_empty_list_names_no_file(cli: Cli, api: Moody) -> None:
    """It is not the same as naming nothing, which would send what failed."""
    (cli.folder / "list.txt").write_text("# none today\n")
    (cli.folder / "list.txt").chmod(0o600)
    api.bad = "^c$"
    cli("run", "m.yaml")
    assert cli("retry", "m.yaml", "--file-from", "list.txt").returncode == 1
    assert api.bought == {"a": 1, "b": 1, "c": 1}


def test_what_a_saved_configuration_costs_is_unknown(cli: Cli) -> None:
    """Its mode and pages are known only to the server: no figure is made up."""
    manifest = "version: 1\nname: letters\napi: v2\nconfiguration_id: cfg-1\nfile_ids: [a, b]\n"
    (cli.folder / "m.yaml").write_text(manifest)
    assert json.loads(cli("plan", "m.yaml", "--json").stdout)["credits_ceiling"] is None
    assert "unknown  mode and pages are those of the configuration_id" in cli("plan", "m.yaml").stdout
    done = cli("retry", "m.yaml", "--mode", "FAST", "--dry-run")
    assert (done.returncode, done.stdout) == (2, "")
    assert "configuration_id brings its own mode, language and pages" in done.stderr


def test_a_retry_does_not_call_files_done_that_were_never_sent(cli: Cli, serve: Serve) -> None:
    """It sends what ended badly; what is new is left to ``run``, and the exit code says that something is left."""
    api = Moody()
    cli.use(serve(api))
    cli("run", "m.yaml")
    cli.manifest("a", "b", "c", "new")
    done = cli("retry", "m.yaml", "--json")
    summary = json.loads(done.stdout)
    assert (done.returncode, summary["unfinished"], api.bought["new"]) == (3, 1, 0)
    assert "1 file was not sent yet" in summary["reason"]
    assert cli("run", "m.yaml").returncode == 0


def lose_the_ledger(cli: Cli) -> None:
    for path in cli.folder.glob("ledger.db*"):
        path.unlink()


def test_what_a_retry_mended_is_still_mended_in_a_rebuilt_ledger(cli: Cli, api: Moody) -> None:
    """All jobs of a file are its history: a good result is not bought again because an older job failed."""
    cli.manifest("a", "b")
    api.bad = "^b$"
    cli("run", "m.yaml")
    api.bad = "^$"
    assert cli("retry", "m.yaml").returncode == 0
    lose_the_ledger(cli)
    adopted = json.loads(cli("adopt", "m.yaml", "--json").stdout)
    assert (adopted["jobs_adopted"], adopted["files_adopted"]) == (2, 2)
    assert (cli("run", "m.yaml").returncode, cli("retry", "m.yaml").returncode) == (0, 0)
    assert api.bought == {"a": 1, "b": 2}


def test_adopting_does_not_touch_what_is_known_to_be_good(cli: Cli, api: Moody) -> None:
    """A job of somebody's script, whatever it said of the file, is no news."""
    cli.manifest("a")
    cli("run", "m.yaml")
    api.jobs["job-x"] = {**api.jobs["job-0"]}
    api.bad = "^a$"
    before = cli("export", "--history").stdout
    assert json.loads(cli("adopt", "m.yaml", "--json").stdout)["jobs_adopted"] == 0
    assert cli("export", "--history").stdout == before


def test_adopting_mends_what_is_known_to_be_bad(cli: Cli, api: Moody) -> None:
    """Somebody's script has a good result of a file that failed here: it need not be bought."""
    cli.manifest("a")
    api.bad = "^a$"
    assert cli("run", "m.yaml").returncode == 1
    api.bad = "^$"
    api.jobs["job-x"] = {**api.jobs["job-0"]}
    assert json.loads(cli("adopt", "m.yaml", "--json").stdout)["files_adopted"] == 1
    assert cli("run", "m.yaml").returncode == 0
    assert api.bought["a"] == 2


def test_a_second_opinion_is_in_a_rebuilt_ledger_too(cli: Cli, api: Moody) -> None:
    """It was made under another mode, and counts for the file as it did."""
    cli.manifest("a", "b")
    with (cli.folder / "m.yaml").open("a") as manifest:
        manifest.write("escalate: {below_confidence: 0.6, mode: MULTIMODAL}\n")
    api.unsure = "^b$"
    assert cli("run", "m.yaml").returncode == 0
    before = cli.exported()
    lose_the_ledger(cli)
    assert json.loads(cli("adopt", "m.yaml", "--json").stdout)["jobs_adopted"] == 2
    assert cli("run", "m.yaml").returncode == 0
    assert api.bought == {"a": 1, "b": 2}
    assert [(row["file_id"], row["type"]) for row in cli.exported()] == [(r["file_id"], r["type"]) for r in before]


def test_what_is_only_planned_is_adopted_and_not_bought(cli: Cli, api: Moody, serve: Serve) -> None:
    """The first run with an empty ledger could send nothing; then somebody thinks of ``adopt``."""
    cli.manifest("a")
    cli("run", "m.yaml")
    lose_the_ledger(cli)
    cli.manifest("a", "b")
    cli.use(serve(out_of_credits(api)))
    assert cli("run", "m.yaml").returncode == 6
    cli.use(serve(api))
    assert json.loads(cli("adopt", "m.yaml", "--json").stdout)["files_adopted"] == 1
    assert cli("run", "m.yaml").returncode == 0
    assert api.bought == {"a": 1, "b": 1}


def out_of_credits(api: Moody) -> Answer:
    """*api*, with nothing to pay a create call."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response({"detail": "no"}, status=402) if request.method == "POST" else await api(request)

    return answer
