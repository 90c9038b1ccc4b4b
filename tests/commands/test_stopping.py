"""A run that is told to end: exit 3, soon, with nothing lost; and again, at once."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest
from support.procs import ApiServer, Ended, Run, environment, read_ledger, run, wait_until, write_manifest

from orchestrator.errors import ExitCode
from orchestrator.stages.work import DRAIN_S

FILES = [f"f{i}" for i in range(120)]

#: A run that is told to end has ended by then, on a machine that is busy with much else; without being told it would
#: go on for minutes. That it takes no more than DRAIN_S is checked in virtual time, by the simulation.
LATEST_S = 30.0


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer() as server:
        yield server


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return write_manifest(tmp_path, FILES, chunk_size=2)


@pytest.fixture(params=["v1", "v2"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A manifest of either version; v2 sends each file alone."""
    return write_manifest(tmp_path, FILES, api=request.param, chunk_size=2)


def know_a_job(server: ApiServer, manifest: Path) -> None:
    """A run of the list's first two files: a ledger that knows no job yet sends its first call alone."""
    listed = manifest.with_suffix(".txt")
    whole = listed.read_text()
    listed.write_text("".join(whole.splitlines(keepends=True)[:2]))
    assert run(manifest, environment(server.url)).code == ExitCode.OK
    listed.write_text(whole)


def told_to_end(started: Run, *signals: int) -> tuple[Ended, float]:
    """How the run ended, and how long after the first of *signals*."""
    began = monotonic()
    for number in signals:
        started.process.send_signal(number)
        wait_until(lambda: "run.stopping" in started.log_so_far(), what="the run to hear the signal")
    return started.ended(), monotonic() - began


@pytest.mark.parametrize(("number", "api"), [(signal.SIGTERM, "v1"), (signal.SIGTERM, "v2"), (signal.SIGHUP, "v1")])
def test_a_signal_amid_create_calls_leaves_no_call_unanswered(
    server: ApiServer, tmp_path: Path, number: int, api: str
) -> None:
    """Calls that are out may answer, nothing new is sent, the run soon ends with 3, and the next completes it."""
    manifest = write_manifest(tmp_path, FILES, api=api, chunk_size=2)
    server.set(create_s=[0.2, 0.4])
    started = Run(manifest, environment(server.url))
    wait_until(lambda: server.stats().posts >= 8, what="some create calls")
    ended, took = told_to_end(started, number)
    left = read_ledger(manifest.with_name("ledger.db"))
    assert (ended.code, ended.summary["exit_code"]) == (ExitCode.UNFINISHED, ExitCode.UNFINISHED)
    assert signal.Signals(number).name in ended.summary["reason"]
    assert took < LATEST_S
    assert left.chunks.get("submitting", 0) == 0
    assert left.chunks["pending"] > 0, "the signal came too late to show anything"
    server.set(create_s=[0.0, 0.0])
    assert run(manifest, environment(server.url)).code == ExitCode.OK
    assert (server.stats().twice, len(server.stats().created)) == ([], len(FILES))


def test_a_signal_does_not_wait_for_an_api_that_never_answers(server: ApiServer, either: Path) -> None:
    """Calls without an answer stay open intents; the run still ends with 3 soon, and the next buys none twice."""
    know_a_job(server, either)
    before = server.stats().posts
    server.set(hold_creates=True)
    started = Run(either, environment(server.url))
    wait_until(lambda: server.stats().posts >= before + 5, what="some create calls")
    ended, took = told_to_end(started, signal.SIGTERM)
    server.set(hold_creates=False)
    assert (ended.code, took < LATEST_S) == (ExitCode.UNFINISHED, True)
    assert read_ledger(either.with_name("ledger.db")).chunks["submitting"] >= 5
    again = run(either, environment(server.url))
    by_key = "api: v2" in either.read_text()
    assert (again.code, by_key or again.summary["adopted"] >= 5) == (ExitCode.OK, True)
    assert (server.stats().twice, len(server.stats().created)) == ([], len(FILES))


def test_a_second_signal_ends_the_run_at_once(server: ApiServer, manifest: Path) -> None:
    """Whoever asks twice does not wait for calls that are out, and still sees how the run went."""
    know_a_job(server, manifest)
    server.set(hold_creates=True)
    started = Run(manifest, environment(server.url))
    wait_until(lambda: server.stats().posts >= 6, what="some create calls")
    ended, took = told_to_end(started, signal.SIGTERM, signal.SIGINT)
    assert (ended.code, took < DRAIN_S) == (ExitCode.UNFINISHED, True)
    assert (ended.summary["exit_code"], ended.summary["unfinished"]) == (ExitCode.UNFINISHED, len(FILES) - 2)
    assert "SIGTERM" in ended.summary["reason"]


def test_a_signal_does_not_wait_for_calls_whose_turn_has_not_come(server: ApiServer, tmp_path: Path) -> None:
    """At a call in five seconds the last of 120 would leave in ten minutes; none of those that wait was sent."""
    manifest = write_manifest(tmp_path, FILES, api="v2")
    started = Run(manifest, environment(server.url, ORCHESTRATOR_CREATES_PER_S="0.2"))
    wait_until(lambda: server.stats().posts >= 1, what="a create call")
    ended, took = told_to_end(started, signal.SIGTERM)
    assert (ended.code, took < LATEST_S) == (ExitCode.UNFINISHED, True)
    assert server.stats().posts <= 2
    assert read_ledger(manifest.with_name("ledger.db")).chunks["pending"] >= 118


@pytest.mark.parametrize(("api", "size"), [("v1", 2), ("v2", 1)])
def test_the_deadline_leaves_a_stuck_job_to_a_later_run(server: ApiServer, tmp_path: Path, api: str, size: int) -> None:
    """One job never ends: the run stops at its deadline with 3, and a later one collects that job without a call."""
    stuck = FILES[8 - size : 8]
    manifest = write_manifest(tmp_path, [file for file in FILES[:20] if file not in stuck], api=api, chunk_size=2)
    assert run(manifest, environment(server.url)).code == ExitCode.OK  # no slow machine leaves any of these open, too
    write_manifest(tmp_path, FILES[:20], api=api, chunk_size=2)
    server.set(stuck="f7")
    first = run(manifest, environment(server.url), "--deadline", "2s")
    server.set(stuck="")
    second = run(manifest, environment(server.url))
    assert (first.code, first.summary["unfinished"]) == (ExitCode.UNFINISHED, size)
    assert "deadline" in first.summary["reason"]
    assert 2 <= first.summary["seconds"] < LATEST_S
    assert (second.code, second.summary["jobs_created"], server.stats().posts) == (ExitCode.OK, 0, 20 / size)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_the_work_begins_is_unfinished_too(server: ApiServer, tmp_path: Path, number: int) -> None:
    """While a long list is still being planned a signal ends the run with 3: 1 would say that it finished."""
    manifest = write_manifest(tmp_path, (f"f{i}" for i in range(200_000)), chunk_size=500)
    started = Run(manifest, environment(server.url))
    wait_until(tmp_path.joinpath("ledger.db-wal").exists, what="the ledger to be opened")
    started.process.send_signal(number)
    ended = started.ended()
    assert (ended.code, "Traceback" in ended.err) == (ExitCode.UNFINISHED, False)
    assert server.stats().posts == 0


#: Starts the program, and signals it when it is about to load what it is made of.
INTERRUPTED_START = """
import os, sys
class Signal:
    def find_spec(self, name, *_):
        if name == "orchestrator.cli.app":
            os.kill(os.getpid(), int(sys.argv[1]))
sys.meta_path.insert(0, Signal())
from orchestrator.__main__ import main
main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_while_the_program_is_loaded_is_no_crash(number: int) -> None:
    """3 and no traceback: it takes a third of a second in which people do press Ctrl-C."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED_START, str(int(number))], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (ExitCode.UNFINISHED, b"")


def test_an_ignored_hangup_stays_ignored(server: ApiServer, manifest: Path) -> None:
    """Under nohup the run outlives the terminal that it was started from."""
    server.set(create_s=[0.1, 0.2])
    started = Run(manifest, environment(server.url), before=lambda: _ignore(signal.SIGHUP))
    wait_until(lambda: server.stats().posts >= 8, what="some create calls")
    started.process.send_signal(signal.SIGHUP)
    assert started.ended().code == ExitCode.OK


def _ignore(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_IGN)
