"""kill -9 of the real program at random instants, while it recovers too, against a real server and a real disk."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from procs import ApiServer, environment, read_ledger, wait_until, write_manifest
from procs import Run as Started
from procs import run as run_to_the_end

SOAK = Path(__file__).parent.parent / "scripts" / "soak_kills.py"


def start(*options: str) -> subprocess.Popen[str]:
    """``soak_kills.py`` with 25 kills."""
    return subprocess.Popen([sys.executable, SOAK, "--kills", "25", *options], stdout=subprocess.PIPE, text=True)


def findings(soak: subprocess.Popen[str]) -> dict[str, Any]:
    """What it found, once it has ended."""
    out, _ = soak.communicate(timeout=300)
    found: dict[str, Any] = json.loads(out)
    return {**found, "code": soak.returncode}


@pytest.fixture(scope="module")
def soaks() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """One soak for each API version, side by side: they mostly wait."""
    started = {api: start("--api", api) for api in ("v1", "v2")}
    yield started
    for soak in started.values():
        soak.kill()


@pytest.mark.parametrize("api", ["v1", "v2"])
def test_no_kill_loses_a_file_or_buys_one_twice(soaks: dict[str, subprocess.Popen[str]], api: str) -> None:
    """After 25 kills every file has its one outcome and one job, and the ledger was sound after each kill."""
    found = findings(soaks[api])
    assert (found["wrong"], found["code"], found["kills"]) == ([], 0, 25)
    assert found["kills_with_open_intents"] > 0, "no kill fell on a create call: the test shows nothing"


def test_the_kills_would_find_a_run_that_sends_again_blindly() -> None:
    """The control: with lost create calls sent again unasked, the same kills do find files bought twice."""
    found = findings(start("--api", "v1", "--naive"))
    assert found["code"] == 1
    assert found["created_twice"] > 0


def test_a_call_that_takes_effect_after_its_sender_died_is_found(tmp_path: Path) -> None:
    """A run is killed while the API still holds its create call; the job made later is adopted, not bought again."""
    manifest = write_manifest(tmp_path, [f"f{i}" for i in range(10)])
    with ApiServer() as server:
        server.set(hold_creates=True)
        first = Started(manifest, environment(server.url))
        wait_until(lambda: server.stats().posts == 1, what="the create call")
        first.kill()
        second = Started(manifest, environment(server.url))
        wait_until(lambda: "create.parked" in second.log_so_far(), what="the next run to take up the lost call")
        server.set(hold_creates=False)
        summary = second.ended().summary
        stats = server.stats()
    assert (summary["exit_code"], summary["adopted"], stats.posts) == (0, 1, 1)


def test_a_call_that_never_arrived_is_sent_again_once(tmp_path: Path) -> None:
    """A run whose call the API lost is killed; the next proves that there is no job, and sends the call again."""
    manifest = write_manifest(tmp_path, [f"f{i}" for i in range(10)])
    with ApiServer() as server:
        server.set(create_s=[0.1, 0.1], lose_call=1.0)
        first = Started(manifest, environment(server.url))
        wait_until(lambda: server.stats().posts == 1, what="the create call")
        first.kill()
        wait_until(lambda: server.stats().lost == 1, what="the API to lose it")
        server.set(lose_call=0.0)
        summary = run_to_the_end(manifest, environment(server.url)).summary
        stats = server.stats()
    assert (summary["exit_code"], summary["sent_again"], stats.posts, stats.twice) == (0, 1, 2, [])
    assert read_ledger(tmp_path / "ledger.db").open == 0
