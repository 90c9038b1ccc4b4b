"""Asking about many v1 jobs: pages of the listing stand in for calls by name, and are believed only so far."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.virtual_run import Listing, run

from orchestrator.models import Json
from orchestrator.stages.polling import poller
from orchestrator.stages.polling.late import Look, take_in
from orchestrator.stages.polling.poll_schedule import PollSchedule
from orchestrator.stages.work import Work

JOBS = 150


def unhelpful(jobs: list[Json], token: str | None) -> tuple[int, Json]:
    return 200, {"items": [], "next_page_token": None}


def test_pages_of_the_listing_save_most_calls(tmp_path: Path) -> None:
    """At most 0.6 of the status calls that asking by name takes, and no later."""
    (tmp_path / "by_name").mkdir()
    by_name, took_by_name = run(tmp_path / "by_name", JOBS, listing=unhelpful)
    calls, took = run(tmp_path, JOBS)
    assert calls["create"] == calls["results"] == JOBS
    assert calls["get"] + calls["list"] <= 0.6 * (by_name["get"] + by_name["list"])
    assert took <= took_by_name


@pytest.mark.parametrize(
    "listing",
    [
        unhelpful,
        lambda jobs, token: (200, {"items": jobs[-1:], "next_page_token": "again"}),
        lambda jobs, token: (404, {"detail": "no such route"}),
        lambda jobs, token: (200, {"items": [{**job, "status": "PENDING"} for job in jobs]}),
    ],
    ids=["empty", "going in circles", "gone", "stale"],
)
def test_a_listing_that_does_not_help_is_done_without(tmp_path: Path, listing: Listing) -> None:
    """Jobs that it leaves out, or is wrong about, are asked about by name, and it is not read again and again."""
    calls, took = run(tmp_path, JOBS, listing=listing)
    assert calls["list"] <= 0.5 * JOBS
    assert calls["get"] <= 4 * JOBS
    assert took <= 60


def test_jobs_whose_results_fail_for_ever_slow_no_other_down(tmp_path: Path) -> None:
    """They have ended all the same: no other waits for its turn as a scout, which took minutes with 33 such jobs."""
    _, took = run(tmp_path, 36, broken=33)
    assert took <= 60


@pytest.mark.parametrize("jobs", [3, 20, 150])
def test_jobs_that_are_denied_by_name_are_found_in_the_list_and_keep_no_other_waiting(
    tmp_path: Path, jobs: int
) -> None:
    """Each took longer than the one before to be given up: twenty of them more than five minutes, a hundred a day."""
    calls, took = run(tmp_path, jobs, denied=True)
    assert took <= 100
    assert calls["list"] <= 20 * -(-jobs // 100)
    assert calls["get"] <= 12 * jobs


def test_the_wait_for_a_ledger_that_is_away_is_no_duration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a job's results had to wait for was learnt as the job's own time: the others were asked about too late."""
    noticed, learnt = [], []
    ended = PollSchedule.ended

    async def late(work: Work, look: Look) -> None:
        noticed.append(work.clock.monotonic())
        await work.clock.sleep(60)
        await take_in(work, look)

    def learn(self: PollSchedule, key: int, now: float, duration: float | None) -> None:
        learnt.append(now)
        ended(self, key, now, duration)

    monkeypatch.setattr(poller, "take_in", late)
    monkeypatch.setattr(PollSchedule, "ended", learn)
    run(tmp_path, 1)
    assert (len(learnt), len(noticed)) == (1, 1)
    assert learnt[0] <= noticed[0]
