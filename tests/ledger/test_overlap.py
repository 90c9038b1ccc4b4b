"""Two runs of one manifest at once: one works, the others leave; and a dead run holds nobody up."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.procs import ApiServer, Run, environment, run, wait_until, write_manifest

from orchestrator.errors import ExitCode

FILES = [f"f{i}" for i in range(40)]


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer() as server:
        yield server


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return write_manifest(tmp_path, FILES)


def test_the_second_of_two_runs_leaves_at_once_and_names_the_first(server: ApiServer, manifest: Path) -> None:
    """Exit 4 about as soon as a process can start, with the holder's process id; the first run is not disturbed."""
    server.set(hold_creates=True)
    first = Run(manifest, environment(server.url))
    wait_until(lambda: server.stats().posts == 1, what="the first run's create call")
    second = run(manifest, environment(server.url))
    server.set(hold_creates=False)
    assert (second.code, second.summary["exit_code"]) == (ExitCode.LOCKED, ExitCode.LOCKED)
    assert f"pid {first.process.pid} " in second.summary["reason"]
    assert second.summary["reason"] in second.err
    assert second.seconds < 3 * usual_start(server) + 1
    assert first.ended().code == ExitCode.OK
    assert server.stats().posts == 4


def test_a_retry_during_the_nightly_run_leaves_at_once(server: ApiServer, manifest: Path) -> None:
    """Exit 4, nothing sent; and so does a run during a retry."""
    env = environment(server.url)
    server.set(fails="[37]$")
    assert run(manifest, env).code == ExitCode.SOME_FAILED
    server.set(fails="", hold_creates=True)
    first = Run(manifest, env, command="retry")
    wait_until(lambda: server.stats().posts == 5, what="the retry's create call")
    for command in ("run", "retry"):
        ended = run(manifest, env, command=command)
        assert (ended.code, "orchestrator retry" in ended.summary["reason"]) == (ExitCode.LOCKED, True)
    server.set(hold_creates=False)
    assert first.ended().code == ExitCode.OK
    assert sorted(server.stats().twice) == sorted(f for f in FILES if f[-1] in "37")


def usual_start(server: ApiServer) -> float:
    """What a process needs to start and find that there is no such manifest: on a busy machine more than a second."""
    return run(Path("/nowhere.yaml"), environment(server.url), cwd=Path("/")).seconds


def test_of_many_started_together_just_one_works(server: ApiServer, manifest: Path) -> None:
    """Six runs at the same instant: every file is bought once, and whoever did not work says why."""
    started = [Run(manifest, environment(server.url)) for _ in range(6)]
    ended = [each.ended() for each in started]
    worked = [each for each in ended if each.code == ExitCode.OK]
    assert {each.code for each in ended} <= {ExitCode.OK, ExitCode.LOCKED}
    assert sum(each.summary["jobs_created"] for each in worked) == 4
    assert (server.stats().posts, server.stats().twice) == (4, [])


def test_a_killed_run_frees_its_manifest_at_once(server: ApiServer, manifest: Path) -> None:
    """The lock is the kernel's: kill -9 of the holder, and the next run takes over without waiting or cleaning up."""
    server.set(stuck="f7")
    first = Run(manifest, environment(server.url))
    wait_until(lambda: "job.submitted" in first.log_so_far(), what="the first run to work")
    first.kill()
    server.set(stuck="")
    assert run(manifest, environment(server.url)).code == ExitCode.OK
    assert server.stats().twice == []


def test_two_manifests_share_a_ledger_and_do_not_wait_for_each_other(server: ApiServer, tmp_path: Path) -> None:
    """The lock is the manifest's, not the ledger's."""
    slow = write_manifest(tmp_path, ["stuck-1"], name="slow")
    quick = write_manifest(tmp_path, FILES, name="quick")
    server.set(stuck="stuck")
    first = Run(slow, environment(server.url))
    wait_until(lambda: "job.submitted" in first.log_so_far(), what="the first run to work")
    assert run(quick, environment(server.url)).code == ExitCode.OK
    server.set(stuck="")
    assert first.ended().code == ExitCode.OK


@pytest.mark.parametrize("ending", [".night.lock", ".write-lock"])
@pytest.mark.parametrize("make", [os.symlink, os.link], ids=["symlink", "hard-link"])
def test_a_lock_file_that_leads_elsewhere_is_refused(
    server: ApiServer, manifest: Path, ending: str, make: Callable[[Path, Path], None]
) -> None:
    """A lock that is a link to a victim's file: exit 8, nothing sent, the victim's file as it was."""
    victim = manifest.with_name("victim")
    victim.write_text("precious")
    make(victim, manifest.with_name(f"ledger.db{ending}"))
    ended = run(manifest, environment(server.url))
    assert (ended.code, server.stats().posts) == (ExitCode.LEDGER, 0)
    assert victim.read_text() == "precious"
    assert "Traceback" not in ended.err
