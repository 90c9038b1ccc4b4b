"""The course of one run: how long its files took to get a result, and how many jobs were in flight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate

from orchestrator.ledger import Transaction
from orchestrator.ledger.views import page as ledger_page
from orchestrator.ledger.views.page import Timing

#: Steps of the two plots.
STEPS = 40

#: Jobs read for it; of more, every second one or fewer.
MOST_JOBS = 20_000


@dataclass(frozen=True, slots=True)
class Timeline:
    """A run in ``STEPS`` equal steps from ``began`` to ``ended``. Times to a result are in seconds, file by file."""

    run_id: str
    began: str
    ended: str
    jobs: int  #: that ended in the run or go on
    step: int  #: every so many of them were read; 1: all
    p50_s: float | None
    p95_s: float | None
    p50s: tuple[float | None, ...]  #: of the files whose result came in each step; None: none came
    p95s: tuple[float | None, ...]
    in_flight: tuple[int, ...]  #: most jobs in flight in each step
    most_in_flight: int


def timeline(
    connection: Transaction, manifest_id: int, run_id: str, began: str, ended: str, *, most_jobs: int = MOST_JOBS
) -> Timeline:
    """The course of the run *run_id*, from *began* to *ended*."""
    jobs, step, timings = ledger_page.timings(connection, manifest_id, began, ended, most_jobs)
    start, end = _seconds(began), _seconds(ended)
    length = max(end - start, 0.001) / STEPS
    waits: list[list[tuple[float, int]]] = [[] for _ in range(STEPS)]
    for timing in timings:
        if timing.finished_at is not None:
            finished = _seconds(timing.finished_at)
            at = min(max(int((finished - start) / length), 0), STEPS - 1)
            waits[at].append((finished - _seconds(timing.submitted_at), timing.files))
    every = [wait for each in waits for wait in each]
    flight = _in_flight(timings, start, length)
    return Timeline(
        run_id=run_id,
        began=began,
        ended=ended,
        jobs=jobs,
        step=step,
        p50_s=percentile(every, 0.5),
        p95_s=percentile(every, 0.95),
        p50s=tuple(percentile(each, 0.5) for each in waits),
        p95s=tuple(percentile(each, 0.95) for each in waits),
        in_flight=tuple(count * step for count in flight),
        most_in_flight=max(flight) * step,
    )


def percentile(waits: Sequence[tuple[float, int]], share: float) -> float | None:
    """The least time in which at least *share* of the files had their result; *waits* are seconds and files."""
    if not waits:
        return None
    ordered = sorted(waits)
    needed = share * sum(files for _, files in ordered)
    for (seconds, _), passed in zip(ordered, accumulate(files for _, files in ordered), strict=True):
        if passed >= needed:
            return round(seconds, 3)
    return round(ordered[-1][0], 3)


def _in_flight(timings: Sequence[Timing], start: float, length: float) -> list[int]:
    """The most jobs in flight at any moment of each step; an end counts before a beginning at the same moment."""
    changes = [(_seconds(timing.submitted_at), 1) for timing in timings]
    changes += [(_seconds(timing.finished_at), -1) for timing in timings if timing.finished_at is not None]
    changes.sort()
    most, now, at = [0] * STEPS, 0, 0
    for moment, change in changes:
        step = min(max(int((moment - start) / length), 0), STEPS - 1)
        for passed in range(at + 1, step + 1):
            most[passed] = now
        at = step
        now += change
        if moment >= start:
            most[at] = max(most[at], now)
        else:
            most[0] = now
    for passed in range(at + 1, STEPS):
        most[passed] = now
    return most


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()
