"""The command line: its exit codes, its two streams, and what the API was sent."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping

import pytest
import typer
from support.commands import OUTAGE, Classify, Cli, Serve, creates, refusing
from support.one_by_one import OneByOne
from support.procs import ApiServer
from support.server import CANARY, Answer
from typer.testing import CliRunner

from orchestrator.cli import app

#: An API of each version at which nothing goes wrong.
API: Mapping[str, Callable[[], Answer]] = {"v1": Classify, "v2": OneByOne}


def commands() -> list[str]:
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    return sorted(group.commands)


@pytest.mark.parametrize("command", commands())
def test_every_command_explains_itself(command: str) -> None:
    """What it does, and every option it takes."""
    shown = CliRunner().invoke(app, [command, "--help"])
    assert shown.exit_code == 0
    about = shown.output.split("\n\n")[1].strip()
    assert about
    assert not about.startswith("Options")


def test_without_a_command_it_says_what_there_is(cli: Cli) -> None:
    """Every command is listed."""
    shown = cli("--help")
    assert shown.returncode == 0
    for command in commands():
        assert f"\n  {command} " in shown.stdout


@pytest.mark.parametrize(
    "call",
    [
        ["fly"],
        ["run"],
        ["run", "nowhere.yaml"],
        ["run", "m.yaml", "--fast"],
        ["run", "m.yaml", "--api", "v3"],
        ["run", "m.yaml", "--chunk-size", "501"],
        ["run", "m.yaml", "--chunk-size", "0"],
        ["run", "m.yaml", "--deadline", "soon"],
        ["run", "m.yaml", "--fault", "x=1"],
        ["run", "m.yaml", "--sandbox", "--fault", "junk"],
        ["retry", "m.yaml", "--sandbox", "--fault", "hang=2"],
        ["run", "m.yaml", "--base-url", "http://api.example"],
        ["run", "m.yaml", "--base-url", "https://["],
        ["run", "m.yaml", "--ledger", "mysql://host/db"],
        ["run", "m.yaml", "--ledger", "postgresql://me:secret@host/db"],
        ["export", "--format", "xml"],
        ["validate", "."],
    ],
    ids=" ".join,
)
def test_a_wrong_call_exits_2_and_does_nothing(cli: Cli, call: list[str]) -> None:
    """With one line or a usage text on stderr, nothing on stdout, no ledger, no traceback."""
    done = cli(*call)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.strip()
    assert "Traceback" not in done.stderr
    assert {path.name for path in cli.folder.iterdir()} <= {"m.yaml", "ledger.db.letters.lock"}


@pytest.mark.parametrize(
    "call",
    [
        ["status"],
        ["export"],
        ["report"],
        ["diff", "m.yaml"],
        ["accept", "m.yaml", "--file", "a"],
        ["cancel", "m.yaml"],
        ["retry", "m.yaml"],
        ["retry", "m.yaml", "--dry-run"],
    ],
    ids=" ".join,
)
def test_a_mistyped_ledger_is_named_and_not_made(cli: Cli, call: list[str]) -> None:
    """Neither it nor its folder: an empty one has nothing to tell."""
    done = cli(*call, "--ledger", "typo/ledger.db")
    assert (done.returncode, done.stdout) == (8, "")
    assert done.stderr.startswith("orchestrator: no ledger at typo/ledger.db; ")
    assert {path.name for path in cli.folder.iterdir()} == {"m.yaml"}


@pytest.mark.parametrize(
    "call", [["plan", "m.yaml"], ["status"], ["retry", "m.yaml"], ["accept", "m.yaml", "--file", "a"]]
)
def test_a_ledger_that_is_gone_is_reported_as_such(cli: Cli, serve: Serve, call: list[str]) -> None:
    """Also by ``plan``: a run would refuse to begin again."""
    cli.use(serve(Classify()))
    cli("run", "m.yaml")
    (cli.folder / "ledger.db").unlink()
    done = cli(*call)
    assert (done.returncode, done.stdout) == (8, "")
    assert "the ledger that was here is gone" in done.stderr


def test_on_v2_a_ledger_that_is_gone_is_begun_again(cli: Cli) -> None:
    """Its keys have the API give the jobs that it made: nothing is bought twice, so nothing keeps the night."""
    with ApiServer() as server:
        cli.environ["LLAMA_CLOUD_BASE_URL"] = server.url
        for _ in range(2):
            assert cli("plan", "m.yaml", "--api", "v2").returncode == 0
            assert cli("run", "m.yaml", "--api", "v2").returncode == 0
            (cli.folder / "ledger.db").unlink()
        assert set(server.stats().created.values()) == {1}


def test_what_the_ledger_does_not_know_is_said(cli: Cli) -> None:
    """No blank screen; and rehearsals are shown where there is nothing real to mix them with, marked as such."""
    cli.manifest("a")
    cli("run", "m.yaml", "--sandbox")
    assert "rehearsal" in cli("export", "m.yaml").stderr
    other = cli.folder / "m.yaml"
    other.write_text(other.read_text().replace("letters", "others"))
    for call in (["status"], ["export"], ["report"]):
        done = cli(*call, "m.yaml")
        assert (done.returncode, done.stderr) == (0, "orchestrator: nothing is recorded for manifest 'others' yet\n")
    assert cli("diff", "m.yaml").returncode == 2


def test_a_run_tells_of_the_ledger_that_it_makes(cli: Cli, serve: Serve) -> None:
    """Once: with a mistyped path every file would count as new."""
    cli.use(serve(Classify()))
    assert (
        f"no ledger at {cli.folder / 'new' / 'ledger.db'} yet"
        in cli("plan", "m.yaml", "--ledger", "new/ledger.db").stderr
    )
    assert '"event": "ledger.created"' in cli("run", "m.yaml", "--ledger", "new/ledger.db").stderr
    assert '"event": "ledger.created"' not in cli("run", "m.yaml", "--ledger", "new/ledger.db").stderr
    assert cli("plan", "m.yaml", "--ledger", "new/ledger.db").stderr == ""


@pytest.mark.parametrize(
    ("call", "code", "reason"),
    [
        (["run", "nowhere.yaml"], 2, "nowhere.yaml"),
        (["run", "m.yaml", "--chunk-size", "501"], 2, "--chunk-size"),
        (["run", "m.yaml", "--fast"], 2, "--fast"),
        (["run", "m.yaml", "--sandbox", "--fault", "junk"], 2, "junk"),
        (["run"], 2, "MANIFEST"),
        (["retry", "m.yaml", "--outcome", "lost"], 2, "--outcome"),
        (["retry", "m.yaml"], 8, "no ledger"),
        (["retry", "m.yaml", "--dry-run"], 8, "no ledger"),
        (["plan", "nowhere.yaml"], 2, "nowhere.yaml"),
        (["status"], 8, "no ledger"),
        (["diff", "m.yaml"], 8, "no ledger"),
        (["cancel", "m.yaml"], 8, "no ledger"),
        (["adopt", "m.yaml", "--base-url", "http://api.example"], 2, "https://"),
        (["export"], 2, "--json"),
        (["fly"], 2, "fly"),
    ],
    ids=str,
)
def test_a_wrong_call_says_so_in_json_too(cli: Cli, call: list[str], code: int, reason: str) -> None:
    """A script reads one object however the call ended; of a run, with the fields that it always has."""
    done = cli(*call, "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["exit_code"]) == (code, code)
    assert reason in told["reason"]
    assert (told.get("files") == 0) == (call[0] in ("run", "retry"))


def test_json_names_each_mistake_of_a_manifest(cli: Cli) -> None:
    """With line and column as numbers."""
    (cli.folder / "m.yaml").write_text("version: 1\nname: letters\nspeed: 3\nmode: SLOW\n")
    told = json.loads(cli("plan", "m.yaml", "--json").stdout)
    assert {(problem["file"], problem["line"]) for problem in told["problems"]} >= {("m.yaml", 3), ("m.yaml", 4)}


def test_another_api_needs_another_ledger(cli: Cli, serve: Serve) -> None:
    """Jobs of one would be looked for at the other; nothing is sent to either."""
    server = serve(Classify())
    cli.use(server)
    cli("run", "m.yaml")
    before = len(server.seen)
    done = cli("run", "m.yaml", "--base-url", "https://api.example")
    assert (done.returncode, len(server.seen)) == (2, before)
    assert "loopback" in done.stderr
    assert "api.example" in done.stderr


def test_a_run_without_a_key_exits_2(cli: Cli) -> None:
    """And says what to set."""
    done = cli("run", "m.yaml", LLAMA_CLOUD_API_KEY="")
    assert done.returncode == 2
    assert "LLAMA_CLOUD_API_KEY" in done.stderr


@pytest.mark.parametrize("api", API)
def test_a_run_ends_with_one_outcome_for_each_file(cli: Cli, serve: Serve, api: str) -> None:
    """Exit 0; and a second run sends not one request."""
    server = serve(API[api]())
    cli.use(server)
    assert cli("run", "m.yaml", "--api", api).returncode == 0
    assert [(row["file_id"], row["outcome"], row["type"]) for row in cli.exported()] == [
        (file_id, "classified", "invoice") for file_id in "abc"
    ]
    before = len(server.seen)
    again = cli("run", "m.yaml", "--api", api, "--json")
    assert again.returncode == 0
    assert len(server.seen) == before
    assert json.loads(again.stdout)["skipped"] == 3


def test_a_grown_manifest_sends_only_what_is_new(cli: Cli, serve: Serve) -> None:
    """Wherever the new file stands."""
    api = Classify()
    cli.use(serve(api))
    cli("run", "m.yaml")
    cli.manifest("new", "a", "b", "a", "c")
    assert cli("run", "m.yaml").returncode == 0
    assert list(api.jobs.values()) == [["a", "b", "c"], ["new"]]


def test_json_stands_alone_on_stdout(cli: Cli, serve: Serve) -> None:
    """Logs go to stderr, each line of it JSON too."""
    cli.use(serve(Classify()))
    done = cli("run", "m.yaml", "--json", ORCHESTRATOR_LOG_LEVEL="DEBUG")
    summary = json.loads(done.stdout)
    assert (summary["files"], summary["classified"], summary["exit_code"]) == (3, 3, 0)
    for line in done.stderr.splitlines():
        json.loads(line)


def test_quiet_is_quiet(cli: Cli, serve: Serve) -> None:
    """A good night's mail is empty."""
    cli.use(serve(Classify()))
    done = cli("run", "m.yaml", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_no_file_is_lost_at_the_edge_of_a_page(cli: Cli, serve: Serve) -> None:
    """1,000 files in jobs of 500, their results 40 a page."""
    file_ids = [f"file-{n}" for n in range(1000)]
    cli.manifest(*file_ids, size=500)
    server = serve(Classify(page_size=40))
    cli.use(server)
    summary = json.loads(cli("run", "m.yaml", "--json").stdout)
    assert (summary["classified"], summary["missing"], creates(server)) == (1000, 0, 2)
    assert [row["file_id"] for row in cli.exported()] == file_ids


@pytest.mark.parametrize(
    ("status", "code", "api"), [(401, 5, "v1"), (403, 5, "v1"), (402, 6, "v1"), (401, 5, "v2"), (402, 6, "v2")]
)
def test_a_refused_key_or_an_empty_account_stops_and_marks_nothing_failed(
    cli: Cli, serve: Serve, status: int, code: int, api: str
) -> None:
    """One create call is enough to know; once the trouble is over, the next run goes on."""
    cli.manifest("a", "b", "c", size=1)
    server = serve(refusing(status, f"refused {CANARY}"))
    cli.use(server)
    done = cli("run", "m.yaml", "--api", api, "--json", ORCHESTRATOR_LOG_LEVEL="DEBUG")
    summary = json.loads(done.stdout)
    assert (done.returncode, summary["exit_code"]) == (code, code)
    assert (summary["failed"], summary["unfinished"], summary["jobs_created"]) == (0, 3, 0)
    assert str(status) in summary["reason"]
    state = cli.state()
    assert (state["failed"], state["unfinished"]) == (0, 3)
    cli.use(serve(API[api]()))
    assert cli("run", "m.yaml", "--api", api).returncode == 0


def test_when_credits_run_out_half_way_what_was_bought_is_collected(cli: Cli, serve: Serve) -> None:
    """Exit 6, the first file has its outcome, the others wait."""
    cli.manifest("a", "b", "c", size=1)
    api = Classify()
    api.refuse_after = 1
    cli.use(serve(api))
    done = cli("run", "m.yaml", "--json")
    summary = json.loads(done.stdout)
    assert (done.returncode, summary["classified"], summary["failed"]) == (6, 1, 0)
    api.refuse_after = None
    assert cli("run", "m.yaml").returncode == 0
    assert sorted(api.jobs.values()) == [["a"], ["b"], ["c"]]


@pytest.mark.parametrize("api", API)
def test_an_api_that_is_not_there_exits_7(cli: Cli, unused_port: int, api: str) -> None:
    """After the retry budget; nothing is marked failed."""
    cli.environ["LLAMA_CLOUD_BASE_URL"] = f"http://127.0.0.1:{unused_port}"
    done = cli("run", "m.yaml", "--api", api, "--json", **OUTAGE)
    summary = json.loads(done.stdout)
    assert (done.returncode, summary["failed"], summary["unfinished"]) == (7, 0, 3)
    assert cli.state()["failed"] == 0


def test_the_words_of_a_job_reach_the_person(cli: Cli, serve: Serve) -> None:
    """Where a file's row has no result, the job's error is what there is to say: on every screen and in every file."""
    api = Classify()
    api.result, api.error = None, "PDF_IS_PROTECTED: the file needs a password"
    cli.use(serve(api))
    shown = [cli("run", "m.yaml"), cli("status"), cli("export")]
    assert [done.returncode for done in shown] == [1, 0, 0]
    (cli.folder / "page.html").touch(mode=0o600)
    assert cli("report", "-o", "page.html").returncode == 0
    told = [done.stdout for done in shown] + [(cli.folder / "page.html").read_text()]
    assert [api.error in text for text in told] == [True] * len(told)


def test_a_withdrawn_v1_exits_7_and_names_v2(cli: Cli, serve: Serve) -> None:
    """The routes are unpublished; one night they will be gone."""
    cli.use(serve(refusing(404, "Not Found")))
    done = cli("run", "m.yaml")
    assert done.returncode == 7
    assert "api: v2" in done.stdout + done.stderr
    assert cli.state()["failed"] == 0


@pytest.mark.parametrize("api", API)
def test_a_redirect_exits_9(cli: Cli, serve: Serve, api: str) -> None:
    """The key goes nowhere else."""
    other = serve(Classify())
    cli.use(serve(refusing(307, headers={"Location": other.url})))
    assert cli("run", "m.yaml", "--api", api).returncode == 9
    assert other.seen == []


@pytest.mark.parametrize("api", API)
def test_a_refused_chunk_fails_with_the_apis_words(cli: Cli, serve: Serve, api: str) -> None:
    """Exit 1; each file carries why."""
    cli.manifest("a")
    cli.use(serve(refusing(400, "File ID a is not in Project ID p")))
    assert cli("run", "m.yaml", "--api", api).returncode == 1
    (row,) = cli.exported()
    assert (row["outcome"], row["error"]) == ("failed", "400 File ID a is not in Project ID p")


def test_a_second_run_beside_the_first_exits_4(cli: Cli, serve: Serve) -> None:
    """It asks the API nothing, and says who holds the manifest."""
    from orchestrator.ledger import lease

    server = serve(Classify())
    cli.use(server)
    with lease(cli.folder / "ledger.db", "letters", {"command": "orchestrator run", "since": "02:00"}):
        done = cli("run", "m.yaml")
    assert done.returncode == 4
    assert str(os.getpid()) in done.stderr
    assert server.seen == []


def test_a_rehearsal_needs_no_key_and_is_kept_apart(cli: Cli) -> None:
    """What the sandbox says is never mistaken for the API's word."""
    done = cli("run", "m.yaml", "--sandbox", "--json", LLAMA_CLOUD_API_KEY="")
    summary = json.loads(done.stdout)
    assert summary["rehearsal"] is True
    assert done.returncode in (0, 1)
    plan = json.loads(cli("plan", "m.yaml", "--json").stdout)
    assert (plan["new"], plan["done"]) == (3, 0)
