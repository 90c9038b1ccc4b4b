"""When to ask about which job: few calls, little delay, for jobs of many kinds in virtual time."""

from __future__ import annotations

import random
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.benches import load_bench

from orchestrator.stages.polling.poll_schedule import PollSchedule

SIM = load_bench("polling_sim")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_asking_in_batches_costs_little_and_notices_soon(seed: int) -> None:
    """800 jobs of 12 to 20 s, a hundred a call: under 0.08 calls a job, noticed within 2.5 s on average."""
    result = SIM.simulate(SIM.scenarios(seed)["800 of 12-20 s"], 100)
    assert result.calls_per_job <= 0.08
    assert result.mean_delay_s <= 2.5


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_asking_one_by_one_takes_about_two_calls_a_job(seed: int) -> None:
    """The same jobs, one a call: at most 2.5 calls a job, noticed within 15 % of a job's duration."""
    result = SIM.simulate(SIM.scenarios(seed)["800 of 12-20 s"], 1)
    assert result.calls_per_job <= 2.5
    assert result.mean_delay_s <= 0.15 * result.mean_duration_s


@pytest.mark.parametrize("seed", range(10))
def test_a_short_run_ends_with_its_last_job(seed: int) -> None:
    """30 jobs of 1.5 to 2.5 s: the whole run takes at most 15 % longer than its longest job, for 3 calls a job."""
    jobs = SIM.scenarios(seed)["30 of 1.5-2.5 s"]
    for batch in (1, 100):
        result = SIM.simulate(jobs, batch)
        assert result.calls_per_job <= 3
        assert result.last_delay_s <= 0.15 * max(job.duration for job in jobs) + SIM.LATENCY_S


@pytest.mark.parametrize("name", ["40 of ~300 s, tail 0.5", "200 of ~60 s, tail 1.0"])
def test_long_jobs_are_asked_far_less_often_than_by_the_sdk(name: str) -> None:
    """Heavy-tailed jobs: at most three quarters of the SDK's calls, noticed within 15 % of a mean duration."""
    jobs = SIM.scenarios()[name]
    result, sdk = SIM.simulate(jobs, 1), SIM.sdk(jobs)
    assert result.calls_per_job <= 3 / 4 * sdk.calls_per_job
    assert result.mean_delay_s <= 0.15 * result.mean_duration_s


@pytest.mark.parametrize("name", ["1000 drifting 5 -> 40 s", "1000 drifting 40 -> 5 s"])
@pytest.mark.parametrize("timestamps", [True, False])
def test_drifting_durations_are_followed(name: str, timestamps: bool) -> None:
    """Jobs that grow or shrink eightfold during the run, with and without the API's own times."""
    result = SIM.simulate(SIM.scenarios()[name], 1, told=SIM.in_truth if timestamps else SIM.not_at_all)
    assert result.calls_per_job <= 4
    assert result.mean_delay_s <= 0.25 * result.mean_duration_s


def test_jobs_of_different_sizes_are_told_apart() -> None:
    """Small jobs that end in 2 s and large ones that end in 60 s do not disturb each other's pace."""
    rng = random.Random(1)
    small = SIM.at_pace(200, 2, lambda _: rng.uniform(1.8, 2.2), size=1)
    large = SIM.at_pace(200, 2, lambda _: rng.uniform(54, 66), size=500)
    jobs = sorted(small + large, key=lambda job: job.started)
    result = SIM.simulate(jobs, 1)
    assert result.calls_per_job <= 7
    assert result.mean_delay_s <= 0.1 * result.mean_duration_s


def test_before_anything_is_known_only_a_scout_is_asked() -> None:
    """Of many jobs that started together one is asked, after a second, and the next one later."""
    schedule = PollSchedule()
    for key in range(100):
        schedule.add(key, 0.0)
    assert schedule.due(0.99, 10) == []
    assert schedule.next_at() == 1.0
    (scout,) = schedule.due(1.0, 10)
    schedule.asked(scout, 1.0)
    assert schedule.due(1.01, 10) == []


def test_what_one_job_tells_is_used_for_all() -> None:
    """Once a job is known to take 10 s, the others are not asked at half that age, and all are soon after it."""
    schedule = PollSchedule(batch=100)
    schedule.add(0, -8.0)
    for key in range(1, 50):
        schedule.add(key, 0.0)
    schedule.ended(0, 2.0, 10.0)
    assert schedule.due(3.0, 100) == []
    assert sorted(schedule.due(13.0, 100)) == list(range(1, 50))


def test_jobs_of_an_earlier_run_are_asked_at_once() -> None:
    """A job that was submitted long ago may have ended long ago."""
    schedule = PollSchedule()
    schedule.add(7, -3600.0)
    at = schedule.next_at()
    assert at is not None
    assert at <= 0.0
    assert schedule.due(0.0, 1) == [7]


def test_a_straggler_is_asked_ever_less_often_but_at_least_once_a_minute() -> None:
    """The gaps between asks about one job that outlives all others grow, up to the longest interval."""
    schedule = PollSchedule(max_interval_s=60.0)
    for key in range(20):
        schedule.add(key, 0.0)
    for key in range(19):
        schedule.ended(key, 10.0, 10.0)
    asks = []
    for _ in range(300):
        at = schedule.next_at()
        assert at is not None
        assert schedule.due(at, 1) == [19]
        schedule.asked(19, at)
        asks.append(at)
    gaps = [later - earlier for earlier, later in pairwise(asks)]
    assert gaps[-1] == pytest.approx(60.0, rel=0.02)
    assert max(gaps) <= 60.001
    assert all(later >= 0.98 * earlier for earlier, later in pairwise(gaps))


#: How much longer than in truth a job took, in the API's words; ``"now"``: it ended when it was asked about.
LIES = st.sampled_from([None, "now", -86400.0, -7200.0, -0.5, 0.0, 0.9, 60.0, 28_800.0, 86_400.0, 6e10]) | st.floats(
    -1e11, 1e11
)


@given(
    st.lists(st.tuples(st.floats(0.05, 90), st.floats(0, 2), LIES), min_size=1, max_size=40), st.sampled_from([1, 100])
)
def test_no_clock_of_the_api_keeps_the_run_waiting(
    told: list[tuple[float, float, float | str | None]], batch: int
) -> None:
    """Whatever the API says of when jobs ended, the last is noticed within twice the time it took, and 5 s."""
    jobs, started = [], 0.0
    lies: dict[float, float | str | None] = {}
    for duration, gap, lie in told:
        started += gap + 0.001
        jobs.append(SIM.Job(started, duration))
        lies[started] = lie

    def said(job: Any, now: float) -> float | None:
        lie = lies[job.started]
        return None if lie is None else now - job.started if isinstance(lie, str) else job.duration + lie

    result = SIM.simulate(jobs, batch, told=said)
    assert result.last_delay_s <= max(job.ended for job in jobs) + 5


@pytest.mark.parametrize("batch", [1, 100])
@pytest.mark.parametrize("late_s", [60.0, 86_400.0, -7200.0])
def test_a_wrong_clock_changes_nothing(batch: int, late_s: float) -> None:
    """Times that can't be true count as not told: ten jobs of 0.2 s are done with in a second or so."""
    jobs = SIM.at_pace(10, 40, lambda _: 0.2)
    wrong = SIM.simulate(jobs, batch, told=lambda job, _: job.duration + late_s)
    assert wrong == SIM.simulate(jobs, batch, told=SIM.not_at_all)
    assert wrong.last_delay_s <= 1.0


def test_one_job_whose_time_is_wrong_holds_up_no_other() -> None:
    """A job of an earlier run that is said to have taken a day says nothing of those that start now."""
    schedule = PollSchedule()
    schedule.add(0, -90_000.0)
    for key in range(1, 5):
        schedule.add(key, 0.0)
    assert schedule.due(0.0, 1) == [0]
    schedule.ended(0, 0.1, 86_400.0)
    at = schedule.next_at()
    assert at is not None
    assert at <= 61.0


STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "add", "ask", "end"]), st.floats(0, 20), st.integers(1, 600)), max_size=80
)


@given(STEPS, st.sampled_from([1, 3, 100]))
def test_every_job_is_asked_about_until_it_ends(steps: list[tuple[str, float, int]], batch: int) -> None:
    """Whatever happens: due names only jobs in flight, each once, within its limits; and next_at leads to them all."""
    schedule, alive, now = PollSchedule(batch=batch), dict[int, float](), 0.0
    for number, (what, wait, size) in enumerate(steps):
        now += wait
        if what == "add":
            schedule.add(number, now - size if size % 7 == 0 else now, size)
            alive[number] = now
        elif what == "ask":
            keys = schedule.due(now, 50)
            assert len(keys) == len(set(keys)) <= min(batch, 50)
            assert set(keys) <= set(alive)
            assert keys == schedule.due(now, 50)
            for key in keys:
                schedule.asked(key, now)
        elif alive:
            key = next(iter(alive))
            del alive[key]
            schedule.ended(key, now, size / 10 if size % 2 else None)
        assert len(schedule) == len(alive)
    for _ in range(3000):
        at = schedule.next_at()
        if at is None:
            break
        now = max(now, at)
        for key in schedule.due(now, batch):
            schedule.asked(key, now)
            del alive[key]
            schedule.ended(key, now, None)
        now += 0.001
    assert not alive


def test_thousands_of_jobs_are_cheap() -> None:
    """5,000 jobs in flight, and twice as many in all, cost about a millisecond each at most."""
    rng = random.Random(1)
    began = time.process_time()
    SIM.simulate(SIM.at_pace(10_000, 50, lambda _: rng.uniform(60, 140)), 100)
    assert time.process_time() - began < 10
