"""The time that is left: within 2x of the truth from a quarter of a run on, or not known."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable

import pytest

from orchestrator.cli.course import MOST_MOMENTS, Course

Takes = Callable[[random.Random], float]


def run(
    chunks: int, creates_per_s: float, takes_s: Takes, *, workers: int = 10**6, asked_every_s: float = 1.0
) -> tuple[list[float], list[float]]:
    """When each chunk of a run is sent, and when the end of each job is seen, in the order of time."""
    rng, free, ends = random.Random(1), [0.0] * min(workers, chunks), []
    sent = [(number + 1) / creates_per_s for number in range(chunks)]
    for at in sent:
        end = max(heapq.heappop(free), at) + takes_s(rng)
        heapq.heappush(free, end)
        ends.append(math.ceil(end / asked_every_s) * asked_every_s)
    return sent, sorted(ends)


def uniform(low: float, high: float) -> Takes:
    return lambda rng: rng.uniform(low, high)


RUNS = {
    "20 calls a minute": (run(200, 1 / 3, uniform(10, 10)), True),
    "jobs longer than sending": (run(500, 10, uniform(60, 60)), False),
    "jobs of a minute": (run(500, 2, uniform(60, 60)), True),
    "jobs of different length": (run(100, 40, uniform(20, 80)), True),
    "a slow API": (run(400, 40, uniform(5, 15), workers=10), True),
    "a slow API, seldom asked": (run(200, 40, uniform(20, 40), workers=4, asked_every_s=30), True),
    "one file a job": (run(10_000, 40, uniform(5, 15), asked_every_s=2), True),
    "one job": (run(1, 40, uniform(30, 30)), False),
    "all at once": (run(20, 40, uniform(50, 50)), False),
}


@pytest.mark.parametrize("name", RUNS)
def test_from_a_quarter_of_a_run_on_the_time_left_is_right_or_not_known(name: str) -> None:
    """By 2x, or by five seconds; and where a run is regular it is known for most of the time."""
    (sent, done), regular = RUNS[name]
    course, length, chunk = Course(0, 0, 0), done[-1], 10
    known, looks, step = 0, 0, max(0.25, done[-1] / 500)
    sent_by = done_by = 0
    for look in range(1, int(length / step)):
        now = look * step
        while sent_by < len(sent) and sent[sent_by] <= now:
            sent_by += 1
        while done_by < len(done) and done[done_by] <= now:
            done_by += 1
        course.note(now, sent_by * chunk, done_by * chunk)
        if now < length / 4:
            continue
        looks += 1
        if (left_s := course.left_s(now, len(done) * chunk)) is not None:
            known += 1
            truth = length - now
            assert truth / 2 - 5 <= left_s <= truth * 2 + 5, f"{left_s:.0f} s instead of {truth:.0f} s at {now:.0f} s"
    assert known / looks > 0.9 or not regular


def test_before_the_first_result_the_time_left_is_not_known() -> None:
    """Rather than 8 minutes for what takes 53 s."""
    course = Course(0, 0, 0)
    for second in range(30):
        course.note(float(second), 10 * second, 0)
        assert course.left_s(float(second), 1000) is None


def test_once_results_come_ever_slower_the_time_left_is_not_known() -> None:
    """The last of many jobs that were sent together may take any time."""
    course = Course(0, 0, 0)
    course.note(1.0, 1000, 0)
    for second, done in ((10, 300), (20, 600), (30, 800), (40, 900), (60, 950), (100, 970)):
        course.note(float(second), 1000, done)
    assert course.left_s(100.0, 1000) is None


def test_a_night_of_many_changes_needs_no_more_room() -> None:
    """Half a million jobs, one by one."""
    course = Course(0, 0, 0)
    for number in range(5 * MOST_MOMENTS):
        course.note(number / 10, number, number)
    assert course.left_s(MOST_MOMENTS / 2, 10 * MOST_MOMENTS) == pytest.approx(MOST_MOMENTS / 2, rel=0.1)
