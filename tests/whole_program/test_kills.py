"""kill -9 of the real program at random instants, while it recovers too, against a real server and a real disk."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.postgres import MISSING, programs
from support.procs import ApiServer, environment, read_ledger, wait_until, write_manifest
from support.procs import Run as Started
from support.procs import run as run_to_the_end

SOAK = Path(__file__).parents[2] / "scripts" / "soak_kills.py"


#: The times of a call as a clock would have written them that was some days off.
SHIFT = """
UPDATE jobs SET sent_at = strftime('%Y-%m-%dT%H:%M:%f+00:00', sent_at, :days),
  changed_at = strftime('%Y-%m-%dT%H:%M:%f+00:00', changed_at, :days)
"""


def soak(*options: str) -> dict[str, Any]:
    """The findings of ``soak_kills.py`` with 25 kills, unless *options* say otherwise, and its exit code."""
    command = [sys.executable, str(SOAK), "--kills", "25", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=1800, check=False)
    found: dict[str, Any] = json.loads(done.stdout)
    return {**found, "code": done.returncode}


@pytest.mark.long
@pytest.mark.parametrize("api", ["v1", "v2"])
def test_no_kill_loses_a_file_or_buys_one_twice(api: str) -> None:
    """After 25 kills every file has its one outcome and one job, and the ledger was sound after each kill."""
    found = soak("--api", api)
    assert (found["wrong"], found["code"], found["kills"]) == ([], 0, 25)
    assert found["kills_with_open_intents"] > 0, "no kill fell on a create call: the test shows nothing"


@pytest.mark.long
@pytest.mark.skipif(programs() is None, reason=MISSING)
def test_no_kill_loses_or_buys_again_what_a_server_has_the_ledger_of() -> None:
    found = soak("--postgres", "--api", "v1")
    assert (found["wrong"], found["code"], found["kills"], found["ledger"]) == ([], 0, 25, "PostgreSQL")
    assert found["kills_with_open_intents"] > 0, "no kill fell on a create call: the test shows nothing"


@pytest.mark.long
def test_no_kill_of_a_retry_buys_a_file_a_third_time() -> None:
    """Files that had failed are bought once more, the rest once, however often the retry was killed on its way."""
    found = soak("--retry", "--kills", "6", "--api", "v1")
    assert (found["wrong"], found["code"], found["kills"]) == ([], 0, 6)
    assert found["failed_files"] > 0


@pytest.mark.long
def test_the_kills_would_find_a_run_that_sends_again_blindly() -> None:
    """The control: with lost create calls sent again unasked, the same kills do find files bought twice."""
    found = soak("--api", "v1", "--naive", "--kills", "100")  # it ends at the first
    assert found["code"] == 1
    assert found["created_too_often"] > 0


def test_a_call_that_takes_effect_after_its_sender_died_is_given_by_its_key(tmp_path: Path) -> None:
    """On v2 the next run sends the call again while the API still holds the first: both come to the same job."""
    manifest = write_manifest(tmp_path, ["f"], api="v2")
    with ApiServer() as server:
        server.set(hold_creates=True)
        first = Started(manifest, environment(server.url))
        wait_until(lambda: server.stats().posts == 1, what="the create call")
        first.kill()
        second = Started(manifest, environment(server.url))
        wait_until(lambda: server.stats().posts == 2, what="the next run to send the lost call again")
        server.set(hold_creates=False)
        summary = second.ended().summary
        stats = server.stats()
    assert (summary["exit_code"], len(stats.jobs)) == (0, 1)


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


@pytest.mark.parametrize(("api", "files", "proved"), [("v1", 10, 1), ("v2", 1, 0)])
def test_a_call_that_never_arrived_is_sent_again_once(tmp_path: Path, api: str, files: int, proved: int) -> None:
    """A run whose call the API lost is killed; the next sends it again: on v1 once there is proof, on v2 by its key."""
    manifest = write_manifest(tmp_path, ["known"], api=api)
    with ApiServer() as server:
        # A listing without a job that the ledger knows proves nothing.
        assert run_to_the_end(manifest, environment(server.url)).summary["exit_code"] == 0
        write_manifest(tmp_path, ["known", *(f"f{i}" for i in range(files))], api=api)
        server.set(create_s=[0.1, 0.1], lose_call=1.0)
        first = Started(manifest, environment(server.url))
        wait_until(lambda: server.stats().posts == 2, what="the create call")
        first.kill()
        wait_until(lambda: server.stats().lost == 1, what="the API to lose it")
        server.set(lose_call=0.0)
        summary = run_to_the_end(manifest, environment(server.url)).summary
        stats = server.stats()
    assert (summary["exit_code"], summary["sent_again"], stats.posts, stats.twice) == (0, proved, 3, [])
    assert read_ledger(tmp_path / "ledger.db").open == frozenset()


@pytest.mark.parametrize("days", [-30, 30])
def test_a_clock_that_was_wrong_buys_nothing_twice(tmp_path: Path, days: int) -> None:
    """A run is killed with one call unanswered; the next one runs when the clock was put right, a month off."""
    manifest, ledger = write_manifest(tmp_path, [f"f{i}" for i in range(10)]), tmp_path / "ledger.db"
    with ApiServer() as server:
        server.set(answer_s=[60.0, 60.0])
        first = Started(manifest, environment(server.url))
        wait_until(lambda: len(server.stats().jobs) == 1, what="the job to be made")
        first.kill()
        server.set(answer_s=[0.0, 0.0])
        with closing(sqlite3.connect(ledger)) as connection, connection:
            connection.execute(SHIFT, {"days": f"{days} days"})
        again = run_to_the_end(manifest, environment(server.url)).summary
        stats = server.stats()
    assert (again["exit_code"], again["adopted"], stats.posts) == (0, 1, 1)
