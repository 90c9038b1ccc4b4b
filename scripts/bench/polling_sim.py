"""How many status calls a run makes and how late it notices that a job ended, in virtual time and against the SDK.

Prints one line per kind of job and way of asking. The official SDK's poller runs one loop per job: it first asks after
1 s, and the gaps grow by a second each to 5 s. Usage: .venv/bin/python scripts/bench/polling_sim.py
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush

from orchestrator.stages.polling.poll_schedule import PollSchedule

#: Seconds for a status call to be answered; the API looks halfway.
LATENCY_S = 0.1

#: The API's documented limits: calls for one job, calls for many.
READS_PER_S = 80.0
LISTS_PER_S = 5.0


@dataclass(frozen=True, slots=True)
class Job:
    """One remote job."""

    started: float
    duration: float
    size: int = 1

    @property
    def ended(self) -> float:
        return self.started + self.duration


@dataclass(frozen=True, slots=True)
class Report:
    """The calls of a run, and how soon it noticed the ends."""

    calls_per_job: float
    mean_delay_s: float
    delay_95_s: float
    mean_duration_s: float
    last_delay_s: float  #: from the end of the last job to its being noticed


def report(jobs: list[Job], calls: int, noticed: dict[int, float]) -> Report:
    """Sum up a run that noticed job *i* at ``noticed[i]``."""
    delays = sorted(noticed[index] - job.ended for index, job in enumerate(jobs))
    return Report(
        calls_per_job=calls / len(jobs),
        mean_delay_s=sum(delays) / len(jobs),
        delay_95_s=delays[int(0.95 * (len(jobs) - 1))],
        mean_duration_s=sum(job.duration for job in jobs) / len(jobs),
        last_delay_s=max(noticed.values()) - max(job.ended for job in jobs),
    )


def in_truth(job: Job, _: float) -> float | None:
    """What an API with a good clock says of how long *job* took."""
    return job.duration


def not_at_all(_job: Job, _: float) -> float | None:
    """What an API without times says."""
    return None


def simulate(jobs: list[Job], batch: int, *, told: Callable[[Job, float], float | None] = in_truth) -> Report:
    """Run *jobs*, which are in the order they start, under a PollSchedule; asks as a run does, without waiting.

    ``told(job, now)`` is how long an ended job took by the API's own times, None when it tells none.
    """
    schedule = PollSchedule(batch=batch)
    gap = 1 / (READS_PER_S if batch == 1 else LISTS_PER_S)
    answers: list[tuple[float, int, list[int]]] = []
    noticed: dict[int, float] = {}
    out: set[int] = set()
    calls, now, free_at, started = 0, 0.0, 0.0, 0
    while len(noticed) < len(jobs):
        while started < len(jobs) and jobs[started].started <= now:
            schedule.add(started, jobs[started].started, jobs[started].size)
            started += 1
        while answers and answers[0][0] <= now:
            at, _, keys = heappop(answers)
            out.difference_update(keys)
            for key in keys:
                if jobs[key].ended <= at - LATENCY_S / 2:
                    noticed[key] = at
                    schedule.ended(key, at, told(jobs[key], at))
        if now >= free_at and (keys := schedule.due(now, batch)):
            for key in keys:
                schedule.asked(key, now)
            if idle := [key for key in keys if key not in out]:
                calls, free_at = calls + 1, now + gap
                out.update(idle)
                heappush(answers, (now + LATENCY_S, calls, idle))
        upcoming = [answers[0][0]] if answers else []
        if started < len(jobs):
            upcoming.append(jobs[started].started)
        if (at_next := schedule.next_at()) is not None:
            upcoming.append(max(at_next, free_at, now))
        if upcoming:
            now = max(min(upcoming), now + 1e-6)
    return report(jobs, calls, noticed)


def sdk(jobs: list[Job]) -> Report:
    """The same jobs under the SDK's poller."""
    calls, noticed = 0, {}
    for index, job in enumerate(jobs):
        age, gap = 0.0, 1.0
        while True:
            age += gap
            calls += 1
            if age + LATENCY_S / 2 >= job.duration:
                break
            age, gap = age + LATENCY_S, min(gap + 1.0, 5.0)
        noticed[index] = job.started + age + LATENCY_S
    return report(jobs, calls, noticed)


def at_pace(count: int, per_s: float, duration: Callable[[int], float], size: int = 1) -> list[Job]:
    """*count* jobs that start *per_s*; ``duration(i)`` is the i-th one's."""
    return [Job(index / per_s, duration(index), size) for index in range(count)]


def scenarios(seed: int = 1) -> dict[str, list[Job]]:
    """The kinds of jobs, by name."""
    rng = random.Random(seed)
    uniform, lognormal = rng.uniform, rng.lognormvariate
    return {
        "30 of 1.5-2.5 s": at_pace(30, 40, lambda _: uniform(1.5, 2.5), 100),
        "400 of 0.3-0.8 s": at_pace(400, 40, lambda _: uniform(0.3, 0.8)),
        "800 of 12-20 s": at_pace(800, 40, lambda _: uniform(12, 20)),
        "40 of ~300 s, tail 0.5": at_pace(40, 40, lambda _: 300 * lognormal(0, 0.5), 500),
        "200 of ~60 s, tail 1.0": at_pace(200, 40, lambda _: 60 * lognormal(0, 1.0), 100),
        "600 of 5 s, 2 % 50 times": at_pace(600, 10, lambda _: uniform(4, 6) * (50 if rng.random() < 0.02 else 1)),
        "1000 drifting 5 -> 40 s": at_pace(1000, 5, lambda i: uniform(0.8, 1.2) * (5 + 35 * i / 1000)),
        "1000 drifting 40 -> 5 s": at_pace(1000, 5, lambda i: uniform(0.8, 1.2) * (40 - 35 * i / 1000)),
        "20 a minute, 3-6 s": at_pace(60, 1 / 3, lambda _: uniform(3, 6)),
        "5000 of 60-180 s": at_pace(5000, 40, lambda _: uniform(60, 180)),
    }


def line(name: str, how: str, result: Report) -> str:
    """One row of the table."""
    share = result.mean_delay_s / result.mean_duration_s
    return (
        f"{name:26} {how:10} {result.calls_per_job:9.3f} {result.mean_delay_s:9.2f} {share:7.1%}"
        f" {result.delay_95_s:9.2f} {result.last_delay_s:9.2f}"
    )


def main() -> None:
    began = time.perf_counter()
    print(f"{'jobs':26} {'asked':10} {'calls/job':>9} {'mean s':>9} {'of dur.':>7} {'95 % s':>9} {'last s':>9}")
    for name, jobs in scenarios().items():
        print(line(name, "SDK", sdk(jobs)))
        for batch in (1, 100):
            print(line("", f"{batch} a call", simulate(jobs, batch)))
            print(line("", f"{batch}, no time", simulate(jobs, batch, told=not_at_all)))
    print(f"\n{time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
