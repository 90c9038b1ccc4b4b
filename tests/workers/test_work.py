"""A worker as its host sees it: what it tries again, what it refuses, and that no run of its outlives it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import Cli
from support.crews import Crew
from support.procs import ApiServer, environment, wait_until, write_manifest

from orchestrator.errors import ExitCode, InputError
from orchestrator.ledger.workers import roll, tasks
from orchestrator.manifest import loading
from orchestrator.workers.copies import copies, difference
from orchestrator.workers.work import FIRST_WAIT_S, LONGEST_WAIT_LOCKED_S, LONGEST_WAIT_S, wait_s

PROGRAM = (sys.executable, "-m", "orchestrator")


def test_what_may_help_is_tried_again_and_nothing_else() -> None:
    """Unfinished, locked, unreachable, no ledger, and killed: later, and later still. All else waits for a person."""
    again = {code for code in ExitCode if wait_s(code, 0) is not None}
    assert again == {ExitCode.UNFINISHED, ExitCode.LOCKED, ExitCode.UNREACHABLE, ExitCode.LEDGER}
    assert wait_s(None, 0) == FIRST_WAIT_S
    assert wait_s(ExitCode.UNREACHABLE, 1) == 2 * FIRST_WAIT_S
    assert wait_s(ExitCode.UNREACHABLE, 1000) == LONGEST_WAIT_S
    assert wait_s(ExitCode.LOCKED, 1000) == LONGEST_WAIT_LOCKED_S


def test_a_copy_that_differs_is_refused_in_words(tmp_path: Path) -> None:
    """A changed or missing manifest or list is named, with the host; unchanged ones are run."""
    manifest = loading.load(str(write_manifest(tmp_path, ["a", "b"])), environ={})
    wanted = copies(manifest, lists=True)
    assert list(wanted) == [str(tmp_path / "night.yaml"), str(tmp_path / "night.txt")]
    assert difference(wanted, "host-b") is None
    (tmp_path / "night.txt").write_text("c\n")
    assert "night.txt on host-b is not what was submitted" in str(difference(wanted, "host-b"))
    assert difference(copies(manifest, lists=False), "host-b") is None
    (tmp_path / "night.txt").unlink()
    assert "No such file" in str(difference(wanted, "host-b"))


def test_standard_input_can_not_be_submitted(tmp_path: Path) -> None:
    """A worker on another host has none."""
    path = write_manifest(tmp_path, [])
    path.write_text(path.read_text().replace("[night.txt]", "[-]"))
    with pytest.raises(InputError, match="standard input"):
        copies(loading.load(str(path), environ={}), lists=True)


def test_a_run_ends_with_its_worker(tmp_path: Path) -> None:
    """When the other end of its leash is closed, as by the death of its worker, the program ends by itself."""
    ready = tmp_path / "ready"
    child = subprocess.Popen(
        [sys.executable, "-m", "orchestrator.workers.leash", "sandbox", "--port", "0", "--ready-file", str(ready)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    assert child.stdin is not None
    wait_until(ready.exists, what="the program to be at work")
    assert child.poll() is None
    child.stdin.close()
    child.wait(10)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["submit", "m.yaml"], "workers need a ledger that every host reaches"),
        (["work"], "workers need a ledger that every host reaches"),
        (["workers", "drain", "--ledger", "postgresql://u@h/d"], "drain needs a worker as HOST:PID"),
        (["workers", "fire", "--ledger", "postgresql://u@h/d"], "must be list, or drain HOST:PID"),
        (["submit", "m.yaml", "--ledger", "postgresql://u:geheim@h/d"], "password"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_2(tmp_path: Path, arguments: list[str], words: str) -> None:
    """What can't be meant is said before anything is asked for, and no password is repeated."""
    cli = Cli(tmp_path)
    cli.manifest("a")
    done = cli(*arguments)
    assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
    assert words in done.stderr
    assert "geheim" not in done.stderr


def test_an_unreachable_server_is_exit_8(tmp_path: Path, unused_port: int) -> None:
    """Nothing can be submitted to a server that is away."""
    cli = Cli(tmp_path)
    cli.manifest("a")
    done = cli("submit", "m.yaml", "--ledger", f"postgresql://u@127.0.0.1:{unused_port}/d")
    assert done.returncode == ExitCode.LEDGER
    assert "refused" in done.stderr


@pytest.mark.long
def test_a_submitted_manifest_is_carried_out_and_a_drained_worker_ends(crew: Crew, tmp_path: Path) -> None:
    """Every file gets its outcome, each job is made once, the worker is on the roll until it is drained."""
    manifest = write_manifest(tmp_path, [f"f{number}" for number in range(20)])
    with ApiServer() as api:
        env = environment(api.url, ORCHESTRATOR_LEDGER=crew.url, ORCHESTRATOR_LOG_DIR=str(tmp_path / "logs"))

        def call(*arguments: str) -> str:
            return subprocess.run([*PROGRAM, *arguments], env=env, check=True, stdout=subprocess.PIPE, text=True).stdout

        worker = subprocess.Popen([*PROGRAM, "work", "--slots", "1"], env=env, stderr=subprocess.PIPE, text=True)
        try:
            assert call("submit", str(manifest)) == "night: submitted\n"

            def carried_out() -> bool:
                with crew.transaction() as connection:
                    return tasks.states(connection)[0].state == "ended"

            wait_until(carried_out, what="the run's end")
            with crew.transaction() as connection:
                (on_the_roll,) = roll.states(connection)
                assert (on_the_roll.pid, on_the_roll.lives, on_the_roll.slots) == (worker.pid, True, 1)
            call("workers", "drain", on_the_roll.name)
            assert worker.wait(20) == ExitCode.OK
        finally:
            worker.kill()
            log = worker.communicate()[1]
        assert sorted(api.stats().created.values()) == [1] * 20, log
    with crew.transaction() as connection:
        assert roll.states(connection) == []
        assert tasks.states(connection)[0].exit_code == ExitCode.OK, log
    (state,) = json.loads(call("status", "--json"))["manifests"]
    assert (state["files"], state["unfinished"]) == (20, 0)


def test_a_worker_ends_at_once_on_sigterm(crew: Crew) -> None:
    """One that has nothing in hand is gone from the roll, with exit 0."""
    env = environment("http://127.0.0.1:9", ORCHESTRATOR_LEDGER=crew.url)
    worker = subprocess.Popen([*PROGRAM, "work"], env=env, stderr=subprocess.DEVNULL)

    def on_the_roll() -> int:
        with crew.transaction() as connection:
            return len(roll.states(connection))

    wait_until(lambda: on_the_roll() == 1, what="the worker")
    worker.terminate()
    assert worker.wait(10) == ExitCode.OK
    assert on_the_roll() == 0
