"""The last run in a few lines: how it ended, whatever became of it, and commands that work as printed."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import ExitCode
from orchestrator.reports.last_run import Address, in_lines, what_to_do
from orchestrator.reports.latest_runs import LastNight, Night, Since

ADDRESS = Address(Path("/srv/my night/m.yaml"))

NIGHT = Night(
    run_id="20261127T042000Z-ab12cd",
    command="run",
    api="v1",
    started_at="2026-11-27T04:20:00.000+00:00",
    finished_at="2026-11-27T04:22:00.000+00:00",
    exit_code=1,
    reason="1 file failed, missing or cancelled",
    seconds=120.0,
    requests=9,
    jobs_created=2,
    credits=12.0,
    jobs_untold=0,
    credits_ceiling=15,
    outcomes={"classified": 2, "failed": 1},
    types={"invoice": 2},
    standing={
        "files": 10,
        "classified": 8,
        "unmatched": 1,
        "failed": 1,
        "missing": 0,
        "cancelled": 0,
        "unfinished": 0,
        "review": 3,
    },
    review_by_type={"invoice": 2, "unmatched": 1},
)

SINCE = Since("20261126T042000Z-000000", "2026-11-26T04:20:00.000+00:00", {"files": 3, "failed": 1, "review": -2}, {})


def test_a_bill_that_is_not_all_told_is_a_least() -> None:
    """As status and the run's summary say it."""
    untold = replace(NIGHT, jobs_untold=3)
    assert "credits: at least 12 billed, 3 jobs not yet reported, at most 15" in in_lines(
        "m", LastNight(untold, None), None, ADDRESS
    )
    untold = replace(NIGHT, credits=None, jobs_untold=1)
    assert "credits: none billed yet, 1 job not yet reported, at most 15" in in_lines(
        "m", LastNight(untold, None), None, ADDRESS
    )


def test_it_says_how_the_run_ended_what_it_did_and_what_is_different() -> None:
    """In this order: an operator at seven in the morning reads three lines."""
    first, second, third, fourth, fifth, *commands = in_lines("m", LastNight(NIGHT, SINCE), None, ADDRESS)
    assert first == "m: exit 1: 1 file failed, missing or cancelled"
    assert second == (
        "last run 20261127T042000Z-ab12cd: 2026-11-27 04:20 UTC, took 2 min; "
        "3 outcomes recorded (2 classified, 1 failed; invoice 2)"
    )
    assert third == "all files: 10: 8 classified, 1 unmatched, 1 failed; 3 to review (invoice 2, unmatched 1)"
    assert fourth == "since the run before (2026-11-26 04:20 UTC): +3 files, +1 failed, -2 to review"
    assert fifth == "credits: 12 billed, at most 15"
    assert [shlex.split(line)[2:5] for line in commands] == [
        ["retry", "/srv/my night/m.yaml", "--dry-run"],
        ["export", "/srv/my night/m.yaml", "--format"],
        ["export", "/srv/my night/m.yaml", "--review"],
    ]


@pytest.mark.parametrize(
    ("holder", "words"), [("pid 7 on here", "running (pid 7 on here)"), (None, "ended without a record: killed; ")]
)
def test_the_lock_tells_a_run_that_goes_on_from_one_that_was_killed(holder: str | None, words: str) -> None:
    """Only the killed one has something to do."""
    night = replace(NIGHT, exit_code=None, reason=None, standing=None)
    first, *rest = in_lines("m", LastNight(night, None), holder, ADDRESS)
    assert first.startswith(f"m: {words}")
    assert any(line.startswith("now: ") for line in rest) == (holder is None)


def test_before_the_first_run_it_says_so() -> None:
    """And how to begin."""
    first, second = in_lines("m", None, None, ADDRESS)
    assert first == "m: no run yet"
    assert second.endswith("orchestrator run '/srv/my night/m.yaml'")


@pytest.mark.parametrize("code", [code for code in ExitCode if code not in (ExitCode.OK, ExitCode.READER_LEFT)])
def test_after_every_bad_end_there_is_something_to_do(code: ExitCode) -> None:
    """A command of this program, with the manifest, and the ledger where it is not the manifest's own."""
    address = replace(ADDRESS, ledger=Path("/var/l.db"), rehearsal=True)
    for line in what_to_do(code, "run", address):
        words = shlex.split(line)
        assert Path(words[0]).is_file()
        assert "/srv/my night/m.yaml" in words
        assert words[words.index("--ledger") + 1] == "/var/l.db"
    assert what_to_do(code, "run", address)
