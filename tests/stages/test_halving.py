"""Files that nothing sends again unless a person names them: found by halving, or failed for too many nights."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest
from support.commands import OUTAGE, Cli, Serve, refusing
from support.moody import Moody

from orchestrator.models import Json
from orchestrator.stages.halving import is_at_fault


def limit(cli: Cli, limits: str) -> None:
    with (cli.folder / "m.yaml").open("a") as manifest:
        manifest.write(f"limits: {{{limits}}}\n")


def quarantined(cli: Cli) -> list[str]:
    """As ``plan`` and ``status`` agree."""
    plan: dict[str, Json] = json.loads(cli("plan", "m.yaml", "--json").stdout)["quarantined"]
    assert plan == cli.state()["quarantined"]
    assert plan["files"] == len(plan["first"])
    return [file["file_id"] for file in plan["first"]]


def test_a_file_at_fault_is_sent_again_only_when_it_is_named(cli: Cli, api: Moody) -> None:
    """plan and status say which it is, why, and the command; once it is good, it is out."""
    cli.manifest(*(f"file-{n}" for n in range(8)), size=8)
    api.refused = "^file-5$"
    assert "send:      orchestrator retry m.yaml --file file-5\n" in cli("run", "m.yaml").stdout
    assert quarantined(cli) == ["file-5"]
    for command in ("plan", "status"):
        shown = cli(command, "m.yaml").stdout
        assert "sank its job alone" in shown
        assert "m.yaml --file file-5\n" in shown
    calls = api.calls
    for options in (
        ["run", "m.yaml", "--retry-failed"],
        ["retry", "m.yaml"],
        ["retry", "m.yaml", "--error", "no such"],
    ):
        assert cli(*options).returncode == 1
    assert api.calls == calls
    assert cli("retry", "m.yaml", "--file", "file-5").returncode == 1
    assert quarantined(cli) == ["file-5"], "it failed once more"
    api.refused = "^$"
    assert cli("retry", "m.yaml", "--file", "file-5").returncode == 0
    assert (api.calls, api.bought["file-5"]) == (calls + 2, 1)
    assert quarantined(cli) == []


def test_a_file_that_failed_for_as_many_nights_as_allowed_is_quarantined(cli: Cli, api: Moody) -> None:
    """limits.max_generations; raising it lets the file go on."""
    limit(cli, "max_generations: 3")
    api.bad = "^b$"
    for night in (1, 2, 3, 3, 3):
        assert cli("run", "m.yaml", "--retry-failed").returncode == 1
        assert api.bought["b"] == night
        assert quarantined(cli) == ["b"] * (night == 3)
    assert "submitted 3 times in vain" in cli("status", "m.yaml").stdout
    manifest = cli.folder / "m.yaml"
    manifest.write_text(manifest.read_text().replace("max_generations: 3", "max_generations: 4"))
    assert cli("run", "m.yaml", "--retry-failed").returncode == 1
    assert api.bought == {"a": 1, "b": 4, "c": 1}


def test_halves_do_not_count_as_nights(cli: Cli, api: Moody) -> None:
    """A file that was halved with one at fault and then failed for its own reasons has failed once, not five times."""
    cli.manifest(*"abcdefgh", size=8)
    limit(cli, "max_generations: 2")
    api.refused, api.bad = "^c$", "^d$"
    assert cli("run", "m.yaml").returncode == 1
    assert quarantined(cli) == ["c"]
    api.bad = "^$"
    before = api.bought
    assert cli("run", "m.yaml", "--retry-failed").returncode == 1
    assert api.bought - before == {"d": 1}
    assert {r["file_id"] for r in cli.exported() if r["outcome"] == "failed"} == {"c"}


def test_a_file_that_was_sent_alone_is_not_found_guilty(cli: Cli, api: Moody) -> None:
    """There is nothing to compare it with: the API may have been at fault, and retry sends it."""
    cli.manifest("a")
    api.at_fault = "."
    assert cli("run", "m.yaml").returncode == 1
    assert quarantined(cli) == []
    api.at_fault = "^$"
    assert cli("retry", "m.yaml").returncode == 0


def test_who_is_at_fault() -> None:
    """Who alone has no result in a failed job, or fails alone while others succeed."""
    assert is_at_fault(8, others_succeeded=False)
    assert is_at_fault(1, others_succeeded=True)
    assert not is_at_fault(1, others_succeeded=False)


def killed_before_halving(cli: Cli) -> None:
    """What a run leaves that is killed when it has recorded a failed job, and nothing more."""
    with closing(sqlite3.connect(cli.folder / "ledger.db")) as ledger, ledger:
        ledger.execute("UPDATE jobs SET isolate = 1 WHERE depth = 0")
        ledger.execute("DELETE FROM results WHERE file_row IN (SELECT id FROM files WHERE generation > 0)")
        ledger.execute("DELETE FROM events WHERE chunk_id IN (SELECT id FROM jobs WHERE depth > 0)")
        ledger.execute("DELETE FROM files WHERE generation > 0")
        ledger.execute("DELETE FROM jobs WHERE depth > 0")
        ledger.execute("UPDATE files SET standing = 1")
        ledger.execute("DELETE FROM tallies")
        ledger.execute(
            "INSERT INTO tallies SELECT manifest_id, config_id, 'failed', '', 0, count(*) FROM files GROUP BY 1, 2"
        )


@pytest.mark.parametrize("command", [["run"], ["retry"], ["retry", "--file", "a"]])
def test_halving_goes_on_after_a_kill(cli: Cli, api: Moody, command: list[str]) -> None:
    """Whatever is run next: each good file is sent with the halves, and not once more besides."""
    cli.manifest(*"abcdefgh", size=8)
    api.refused = "^c$"
    cli("run", "m.yaml")
    calls, bought = api.calls, api.bought
    killed_before_halving(cli)
    name, *options = command
    done = cli(name, "m.yaml", *options)
    assert done.returncode == 1, done.stderr[-1500:]
    assert (api.calls, api.bought - bought) == (2 * calls - 1, bought)
    assert {r["file_id"] for r in cli.exported() if r["outcome"] == "failed"} == {"c"}
    assert quarantined(cli) == ["c"]


def test_a_failed_chunk_is_halved_though_other_rules_came_in_between(cli: Cli, api: Moody) -> None:
    """Under them nothing of it is halved, or told in the price; with the old rules back it is, as before."""
    cli.manifest(*"abcdefgh", size=8)
    api.refused = "^c$"
    cli("run", "m.yaml")
    calls, bought = api.calls, api.bought
    killed_before_halving(cli)
    manifest = cli.folder / "m.yaml"
    before = manifest.read_text()
    manifest.write_text(before.replace("line items", "other items"))
    told = json.loads(cli("plan", "m.yaml", "--json").stdout)
    assert told["ceiling"]["halves"]["files"] == 8 * 3, "those of the new chunk alone"
    api.refused = "^$"
    assert cli("run", "m.yaml", "--reclassify").returncode == 0
    assert (api.calls, api.bought - bought) == (calls + 1, dict.fromkeys("abcdefgh", 1))
    manifest.write_text(before)
    api.refused = "^c$"
    assert cli("run", "m.yaml").returncode == 1
    assert {r["file_id"] for r in cli.exported() if r["outcome"] == "failed"} == {"c"}
    assert api.calls == 2 * calls


def killed_between_the_halves(cli: Cli, unsent: str) -> None:
    """What a run leaves that is killed when it has sent one half, and not yet that of the file *unsent*."""
    with closing(sqlite3.connect(cli.folder / "ledger.db")) as ledger, ledger:
        row, half = ledger.execute(
            "SELECT id, chunk_id FROM files WHERE generation > 0 AND file_id = ?", [unsent]
        ).fetchone()
        ledger.execute("DELETE FROM results WHERE file_row = ?", [row])
        ledger.execute("DELETE FROM events WHERE chunk_id = ?", [half])
        ledger.execute("UPDATE files SET standing = generation = 0 WHERE file_id = ?", [unsent])
        ledger.execute(
            "UPDATE jobs SET status = 'pending', sends = 0, job_id = NULL, finished_at = NULL WHERE id = ?", [half]
        )
        ledger.execute("DELETE FROM tallies")
        ledger.execute(
            "INSERT INTO tallies SELECT manifest_id, config_id, 'failed', '', 0, sum(standing) FROM files GROUP BY 1, 2"
        )


def test_a_half_that_was_not_sent_is_sent_once_its_rules_are_back(cli: Cli, api: Moody) -> None:
    """Other rules, which came in between, had removed it: b had failed with a, and was never tried alone."""
    cli.manifest("a", "b", size=2)
    api.refused = "^a$"
    assert cli("run", "m.yaml").returncode == 1
    killed_between_the_halves(cli, "b")
    manifest = cli.folder / "m.yaml"
    before = manifest.read_text()
    manifest.write_text(before.replace("line items", "other items"))
    assert cli("run", "m.yaml").returncode == 1
    bought = api.bought["b"]
    manifest.write_text(before)
    assert cli("run", "m.yaml").returncode == 1
    assert {r["file_id"] for r in cli.exported() if r["outcome"] == "failed"} == {"a"}
    assert api.bought["b"] == bought + 1


def test_halving_keeps_to_the_credits_of_one_run(cli: Cli, api: Moody) -> None:
    """What would go over limits.max_credits is left to the next run, which goes on."""
    cli.manifest(*"abcdefgh", size=8)
    limit(cli, "max_credits: 60")
    api.refused = "^c$"
    for night, found in enumerate([[], [], ["c"]], start=1):
        before = api.bought.total()
        assert cli("run", "m.yaml").returncode == 1
        assert (api.bought.total() - before) * 5 <= 60
        assert quarantined(cli) == found, night
    assert {r["file_id"] for r in cli.exported() if r["outcome"] == "failed"} == {"c"}


def test_what_was_held_back_is_in_the_summary(cli: Cli, api: Moody) -> None:
    """In words, in JSON and in the line that says why; a run that held nothing back says nothing of it."""
    cli.manifest(*"abcd", size=4)
    limit(cli, "max_credits: 20")
    words = "limits.max_credits held back 4 files of failed jobs"
    api.refused = "^c$"
    done = cli("run", "m.yaml", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["held_back"]) == (1, {"halves": 4, "second_opinions": 0})
    assert told["reason"] == f"4 files failed, missing or cancelled; {words}"
    shown = cli("run", "m.yaml").stdout
    assert "held back" in shown
    api.refused = "^$"
    assert "held back" not in cli("retry", "m.yaml").stdout


def test_halves_of_a_second_opinion_cost_what_its_mode_does(cli: Cli, api: Moody) -> None:
    """Two credits a page: the opinions for 40 credits and their halves for 40 more would pass 60."""
    cli.manifest(*"abcd", size=4)
    api.unsure = "."
    assert cli("run", "m.yaml").returncode == 0
    limit(cli, "max_credits: 60")
    with (cli.folder / "m.yaml").open("a") as manifest:
        manifest.write("escalate: {below_confidence: 0.5}\n")
    api.refused, calls = "^c$", api.calls
    told = json.loads(cli("run", "m.yaml", "--json").stdout)
    assert (api.calls - calls, told["held_back"]["halves"]) == (1, 4)


def test_a_second_opinion_over_the_limit_is_reported(cli: Cli, api: Moody) -> None:
    """How many files keep their unsure answer for now; that is no failure."""
    cli.manifest(*"abcd", size=4)
    limit(cli, "max_credits: 59")
    with (cli.folder / "m.yaml").open("a") as manifest:
        manifest.write("escalate: {below_confidence: 0.5}\n")
    api.unsure = "."
    done = cli("run", "m.yaml")
    words = "exit 0: every file has an outcome; limits.max_credits held back second opinions on 4 files"
    assert (done.returncode, api.bought.total()) == (0, 4)
    assert words in done.stdout


def left_pending(cli: Cli, api: Moody, serve: Serve) -> None:
    """What a retry leaves that was stopped by an outage: chunks that the next run sends."""
    cli.manifest(*"abcd", size=4)
    api.bad = "."
    assert cli("run", "m.yaml").returncode == 1
    url = cli.environ["LLAMA_CLOUD_BASE_URL"]
    cli.use(serve(refusing(503)))
    assert cli("retry", "m.yaml", **OUTAGE).returncode == 7
    cli.environ["LLAMA_CLOUD_BASE_URL"] = url
    api.bad = "^$"


def test_what_an_earlier_run_planned_counts_against_the_limit(cli: Cli, api: Moody, serve: Serve) -> None:
    """The run sends it too, so plan and run refuse what would pass the limit together with it."""
    left_pending(cli, api, serve)
    cli.manifest(*"abcdef", size=4)
    limit(cli, "max_credits: 29")
    calls = api.calls
    words = "up to 10 credits and 20 for what earlier runs planned or got no answer about, over limits.max_credits: 29"
    assert words in json.loads(cli("plan", "m.yaml", "--json").stdout)["over_limits"]
    done = cli("run", "m.yaml")
    assert (done.returncode, words in done.stderr, api.calls) == (6, True, calls)
    cli.manifest(*"abcdef", size=4)
    limit(cli, "max_credits: 30")
    assert cli("run", "m.yaml").returncode == 0


def test_a_call_without_an_answer_counts_against_the_limit(cli: Cli, api: Moody) -> None:
    """It may have had no effect: then this run sends it once more, at its full price."""
    cli.manifest(*"abcd", size=4)
    api.lost = "^a$"
    assert cli("run", "m.yaml", "--no-wait").returncode == 3
    cli.manifest(*"abcdef", size=4)
    limit(cli, "max_credits: 29")
    words = "up to 10 credits and 20 for what earlier runs planned or got no answer about, over limits.max_credits: 29"
    assert words in json.loads(cli("plan", "m.yaml", "--json").stdout)["over_limits"]
    done = cli("run", "m.yaml")
    assert (done.returncode, words in done.stderr, api.calls) == (6, True, 1)
    cli.manifest(*"abcdef", size=4)
    limit(cli, "max_credits: 30")
    assert cli("run", "m.yaml").returncode == 0
    assert api.bought.total() == 6


def test_halves_yield_to_what_an_earlier_run_planned(cli: Cli, api: Moody, serve: Serve) -> None:
    """Its 20 credits are spent by this run: the halves' 20 would pass 39."""
    left_pending(cli, api, serve)
    limit(cli, "max_credits: 39")
    api.refused, calls = "^c$", api.calls
    told = json.loads(cli("run", "m.yaml", "--json").stdout)
    assert (api.calls - calls, told["held_back"]["halves"]) == (1, 4)


def test_a_run_that_does_not_wait_has_not_told_the_bad_from_the_good(cli: Cli, api: Moody) -> None:
    """A refused chunk is no failure of all its files yet: the next run looks for the one at fault."""
    cli.manifest(*"abcd", size=4)
    api.refused = "^c$"
    done = cli("run", "m.yaml", "--no-wait", "--json")
    words = "4 files failed together: the next run looks for those at fault"
    assert (done.returncode, json.loads(done.stdout)["reason"]) == (3, words)
    assert cli("run", "m.yaml").returncode == 1
    assert {r["file_id"] for r in cli.exported() if r["outcome"] == "failed"} == {"c"}
