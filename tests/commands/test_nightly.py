"""One night of a schedule: what cron mails, what the monitor gets, what the log has, and that all three agree."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from contextlib import suppress

import pytest
from aiohttp import web
from support.commands import Cli, Serve
from support.moody import Moody
from support.server import Server

from orchestrator.commands.announcing.pings import rid
from orchestrator.commands.nightly import MEANINGS
from orchestrator.errors import ExitCode
from orchestrator.ledger.sqlite import lease
from orchestrator.models import Json


@pytest.fixture
def monitor(cli: Cli, serve: Serve) -> Server:
    async def thank(_: web.Request) -> web.StreamResponse:
        return web.Response()

    server = serve(thank)
    cli.environ["ORCHESTRATOR_PING_URL"] = f"{server.url}/check"
    return server


def log_of(cli: Cli) -> list[dict[str, Json]]:
    """The lines of the one log there is; each has to be a JSON object."""
    (path,) = (cli.folder / "logs/letters").iterdir()
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_good_night_prints_nothing_and_tells_the_monitor(cli: Cli, api: Moody, monitor: Server) -> None:
    """Start and end under the UUID of the run, with the summary as body."""
    done = cli("nightly", "m.yaml")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    log = log_of(cli)
    assert [log[0]["event"], *(line["event"] for line in log[-2:])] == ["run.started", "run.finished", "night.ended"]
    run_id = log[0]["run_id"]
    both = f"?rid={rid(run_id)}"
    assert [seen.path for seen in monitor.seen] == [f"/check/start{both}", f"/check/0{both}"]
    assert monitor.seen[1].body.decode().startswith("letters: exit 0: every file has an outcome\nlast run " + run_id)


def test_a_mail_begins_with_the_run_and_its_commands_work_anywhere(cli: Cli, api: Moody) -> None:
    """How it ended, what it did, how all files stand; pasted into a shell elsewhere each command does its job."""
    api.bad = "^b$"
    done = cli("nightly", "m.yaml")
    first, second, third, *rest = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (1, "")
    assert first == "letters: exit 1: 1 file failed, missing or cancelled"
    assert "3 outcomes recorded (2 classified, 1 failed; invoice 2)" in second
    assert third == "all files: 3: 2 classified, 1 failed"
    commands = [line.removeprefix("now: ") for line in rest if line.startswith("now: ")]
    assert [shlex.split(command)[-4:-2] for command in commands][-1] == ["export", str(cli.folder / "m.yaml")]
    for command in commands:
        shell = ["/bin/sh", "-c", command]
        ran = subprocess.run(shell, cwd="/", env=cli.environ, capture_output=True, text=True, check=False)
        assert (ran.returncode, bool(ran.stdout)) == (0, True), ran.stderr
    assert any("the run ended" in line for line in rest), "the end of the log, in words"


def test_failures_that_were_told_of_are_no_mail_unless_strict(cli: Cli, api: Moody) -> None:
    """The same files would cry wolf every night, and drown an outage."""
    api.bad = "^b$"
    assert cli("nightly", "m.yaml").returncode == 1
    second = cli("nightly", "m.yaml")
    assert (second.returncode, second.stdout) == (0, "")
    assert cli("nightly", "m.yaml", ORCHESTRATOR_STRICT="1").returncode == 1


def test_a_night_that_finds_another_run_tells_the_monitor_nothing(cli: Cli, api: Moody, monitor: Server) -> None:
    """The other one does; the mail says who it is."""
    with lease.lease(cli.folder / "ledger.db", "letters", {"command": "a run by hand", "since": "noon"}):
        done = cli("nightly", "m.yaml")
    assert done.returncode == 4
    assert done.stdout.startswith("letters: exit 4: another run holds manifest 'letters': pid ")
    assert monitor.seen == []


def test_a_night_that_cannot_begin_is_reported_as_down(cli: Cli, api: Moody, monitor: Server) -> None:
    """With a log of its own, as there is no run."""
    (cli.folder / "m.yaml").write_text("version: 1\nname: letters\n")
    done = cli("nightly", "m.yaml")
    assert (done.returncode, done.stdout.splitlines()[0][:7]) == (2, "m: exit")
    assert [seen.path for seen in monitor.seen] == ["/check/2"]
    (log,) = (cli.folder / "logs/m").glob("night-*.jsonl")
    assert json.loads(log.read_text())["exit_code"] == 2


def test_a_monitor_that_is_down_is_only_logged(cli: Cli, api: Moody, unused_port: int) -> None:
    """The exit code is the run's, and nothing is mailed."""
    done = cli("nightly", "m.yaml", ORCHESTRATOR_PING_URL=f"http://127.0.0.1:{unused_port}/secret-token")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(line["what"] for line in log_of(cli) if line["event"] == "ping.failed") == ["end", "start"]
    assert "secret-token" not in str(log_of(cli))


def test_exit_codes_for_the_monitor_have_to_be_numbers(cli: Cli, api: Moody, monitor: Server) -> None:
    """One line, and nothing is run."""
    done = cli("nightly", "m.yaml", ORCHESTRATOR_PING_DOWN="all")
    assert (done.returncode, api.calls) == (2, 0)
    assert "ORCHESTRATOR_PING_DOWN: write exit codes" in done.stderr


def test_a_run_that_is_killed_is_told_of_all_the_same(cli: Cli, serve: Serve, monitor: Server) -> None:
    """By the program that watches it: exit 137, the monitor, the mail and what to do."""
    created = threading.Event()

    async def silent(request: web.Request) -> web.StreamResponse:
        created.set()
        return web.json_response({"items": [], "next_page_token": None})

    cli.use(serve(silent))
    watching = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "nightly", "m.yaml"],
        cwd=cli.folder,
        env=cli.environ,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert created.wait(30)
        (path,) = (cli.folder / "logs/letters").iterdir()
        began = json.loads(path.read_text().splitlines()[0])
        os.kill(began["pid"], signal.SIGKILL)
        said, _ = watching.communicate(timeout=300)
    finally:
        with suppress(ProcessLookupError):  # the usual case: all of it has ended
            os.killpg(watching.pid, signal.SIGKILL)
    both = f"?rid={rid(began['run_id'])}"
    assert watching.returncode == 137
    first, second, *_ = said.splitlines()
    assert first == "letters: exit 137: ended by signal 9; nothing recorded is lost, run it again"
    assert second.startswith("now: ") and second.endswith(f"run {cli.folder / 'm.yaml'}")
    assert [seen.path for seen in monitor.seen] == [f"/check/start{both}", f"/check/137{both}"]


def test_its_options_are_those_of_a_run(cli: Cli, api: Moody) -> None:
    """An unknown one is refused by the run, and mailed."""
    assert cli("nightly", "m.yaml", "--no-wait").returncode == 3
    done = cli("nightly", "m.yaml", "--fast")
    assert done.returncode == 2
    assert "No such option" in done.stdout


def test_every_exit_code_of_a_run_has_its_meaning() -> None:
    """For a run that ended without a reason; nobody reads what a night prints through ``head``."""
    assert {*MEANINGS, ExitCode.READER_LEFT} == set(ExitCode)
