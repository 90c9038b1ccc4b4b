"""Notifications: one message when something has changed, none otherwise, and a dead service does no harm."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from support.commands import Cli, Serve, command_line, refusing
from support.moody import Moody
from support.server import Server

from orchestrator.commands.announcing import notify
from orchestrator.models import Json
from orchestrator.reports.notices import News, State, known, message, news, state_of

WELL = State()
FAILED = State(trouble=1, failed=2)


@pytest.mark.parametrize(
    ("told", "now", "what"),
    [
        (WELL, WELL, None),
        (WELL, State(trouble=7), "trouble"),
        (State(trouble=7), State(trouble=7), None),
        (State(trouble=7), State(trouble=5), "trouble"),
        (State(trouble=7), WELL, "recovery"),
        (WELL, FAILED, "trouble"),
        (FAILED, FAILED, None),
        (FAILED, replace(FAILED, failed=3), "decision"),
        (FAILED, replace(FAILED, failed=1), None),
        (FAILED, replace(FAILED, held=5), "decision"),
        (FAILED, replace(FAILED, quarantined=1), "decision"),
        (FAILED, WELL, "recovery"),
        (WELL, State(drift=True), "drift"),
        (State(drift=True), State(drift=True), None),
        (State(drift=True), WELL, None),
    ],
)
def test_only_what_has_changed_is_news(told: State, now: State, what: News | None) -> None:
    """What still holds is reported once."""
    assert news(told, now) == what


def test_failures_that_a_run_knows_are_still_to_be_decided_on() -> None:
    """Exit 0 by --known-ok is no recovery; a dismissal is one."""
    counts = dict.fromkeys(("exit_code", "missing", "cancelled", "dismissed", "held"), 0)
    summary: dict[str, Json] = {**counts, "failed": 3, "quarantined": {"files": 1}, "drift": None}
    assert state_of(summary) == State(trouble=1, failed=3, quarantined=1)
    assert state_of({**summary, "dismissed": 3}).trouble == 0
    assert known(state_of(summary).json) == state_of(summary)
    assert known({"from a later version": 1}) == WELL


def test_a_message_says_what_waits_before_the_commands() -> None:
    """The first line is the title."""
    title, body = message("decision", "m", replace(FAILED, held=1), ["m: exit 1: why", "last", "now: x"], "drifted")
    assert title == "m: needs a decision (exit 1: why)"
    assert body.splitlines() == [
        "last",
        "held for a decision: 1 file; see `orchestrator status`",
        "drifted",
        "now: x",
    ]


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    with command_line(tmp_path) as cli:
        with (cli.folder / "m.yaml").open("a") as manifest:
            manifest.write("notify: ['${NOTIFY_URL}']\n")
        yield cli


@pytest.fixture
def service(cli: Cli, serve: Serve) -> Server:
    """Takes Apprise's JSON; its address ends in a secret."""

    async def thank(_: web.Request) -> web.StreamResponse:
        return web.Response()

    server = serve(thank)
    cli.environ["NOTIFY_URL"] = f"json://{server.url.removeprefix('http://')}/token-of-the-service"
    return server


def told(service: Server) -> list[dict[str, str]]:
    """The messages so far; afterwards there are none."""
    messages = [json.loads(seen.body) for seen in service.seen]
    service.seen.clear()
    return messages


def no_secret(cli: Cli) -> None:
    """The address is in no file but the manifest, which names only its variable."""
    for path in cli.folder.rglob("*"):
        assert not path.is_file() or b"token-of-the-service" not in path.read_bytes(), path


def test_one_message_when_something_changes_and_on_recovery(
    cli: Cli, api: Moody, service: Server, serve: Serve
) -> None:
    """An outage of two nights is reported once; so is its end, and one failed file."""
    good = cli.environ["LLAMA_CLOUD_BASE_URL"]
    assert cli("run", "m.yaml").returncode == 0
    assert told(service) == []
    cli.use(serve(refusing(401)))
    text = (cli.folder / "m.yaml").read_text()
    (cli.folder / "m.yaml").write_text(text.replace("  - c\n", "  - c\n  - d\n  - bad\n"))
    assert [cli("run", "m.yaml").returncode for _ in range(2)] == [5, 5]
    (message,) = told(service)
    assert message["title"].startswith("letters: exit 5: ")
    assert message["type"] == "failure"
    assert f"doctor {cli.folder / 'm.yaml'}" in message["message"]
    assert cli("run", "m.yaml", LLAMA_CLOUD_API_KEY="").returncode == 2
    (message,) = told(service)
    assert message["title"].startswith("letters: exit 2: LLAMA_CLOUD_API_KEY is not set")
    cli.environ["LLAMA_CLOUD_BASE_URL"], api.bad = good, "^bad$"
    assert [cli("run", "m.yaml", "--known-ok").returncode for _ in range(2)] == [1, 0]
    (message,) = told(service)
    assert message["title"] == "letters: exit 1: 1 file failed, missing or cancelled"
    api.bad = "^$"
    assert cli("retry", "m.yaml").returncode == 0
    (message,) = told(service)
    assert (message["type"], message["title"][:21]) == ("success", "letters: well again (")
    no_secret(cli)


def test_a_service_that_is_dead_fails_no_run_and_is_reported_by_the_next(cli: Cli, api: Moody, service: Server) -> None:
    """The log says so, without its address."""
    address, api.bad = cli.environ["NOTIFY_URL"], "^b$"
    done = cli("run", "m.yaml", NOTIFY_URL="json://127.0.0.1:9/token-of-the-service")
    assert (done.returncode, "notice.not_sent" in done.stderr) == (1, True)
    assert "token-of-the-service" not in done.stdout + done.stderr
    no_secret(cli)
    assert cli("run", "m.yaml", NOTIFY_URL=address).returncode == 1
    assert len(told(service)) == 1


def test_a_service_that_hangs_is_not_waited_for(serve: Serve) -> None:
    """Longer than the time that all of them have."""
    hold = threading.Event()

    async def hang(request: web.Request) -> web.StreamResponse:
        hold.set()
        await request.read()
        await asyncio.sleep(60)  # the server is stopped before
        return web.Response()

    server = serve(hang)
    assert notify.send([f"json://{server.url.removeprefix('http://')}/"], "test", "t", "b", timeout_s=0.3) == 0
    assert hold.is_set()


def test_doctor_tells_who_is_notified_and_sends_a_test(cli: Cli, api: Moody, service: Server) -> None:
    """By the kind of the service alone."""
    assert "good  notify    1 service (json); try with --notify-test" in cli("doctor", "m.yaml").stdout
    assert told(service) == []
    assert "a test message was taken by 1 of 1 service" in cli("doctor", "m.yaml", "--notify-test").stdout
    (message,) = told(service)
    assert (message["title"], message["type"]) == ("orchestrator: letters", "info")
    unknown = cli("doctor", "m.yaml", NOTIFY_URL="nonsense://token-of-the-service")
    assert "BAD   notify    Apprise does not know number 1 of 1 service" in unknown.stdout
    assert "token-of" not in unknown.stdout


def test_an_address_that_is_none_is_not_shown(cli: Cli) -> None:
    """Nor is the value of a variable."""
    done = cli("validate", "m.yaml", NOTIFY_URL="token-of-the-service")
    assert done.returncode == 2
    assert "notify[0] has a wrong form" in done.stderr
    assert "token-of-the-service" not in done.stderr
    assert "needs the environment variable NOTIFY_URL" in cli("run", "m.yaml").stderr


def test_a_rehearsal_notifies_nobody(cli: Cli, service: Server) -> None:
    """Its failures are invented."""
    assert cli("run", "m.yaml", "--sandbox", "--fault", "status-402=1").returncode == 6
    assert told(service) == []
