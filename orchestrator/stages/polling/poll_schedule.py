"""When to ask about which job: seldom, but soon after it ended. Pure: all times are monotonic seconds handed in.

How long jobs take is learnt from the run's own ended jobs. From that follows, for a job that was alive when last asked
about, how much time it is expected to have spent *ended and unnoticed*; it is asked about again when that reaches a
small share of a usual duration. So asks are dense where jobs usually end, sparse before, and ever sparser for
stragglers. Until a first job has ended, one of the oldest jobs after another is asked, as a scout for all.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import islice

#: Expected unnoticed time at which a job is asked about, as a share of the mean duration: for a call per job, and for
#: calls that ask about many jobs at once, where one more ask costs next to nothing.
SHARE_ALONE = 0.06
SHARE_IN_BATCH = 0.015

#: The same in seconds, at least: no call is worth less.
LEAST_SHARE_S = 0.02

#: With fewer jobs than this in flight and no new ones, the wait for the last is the whole run's: the share shrinks.
FEW_JOBS = 12
FEWEST_SHARE = 0.125

#: A batch that is not full waits this share of the mean duration for more jobs.
HOLD = 0.06

#: Until a first duration is known: the first ask; the gap to the next as a share of the time since the scouts set out
#: (less when many jobs wait for their news); how many of the oldest jobs, of about one age, take turns.
FIRST_ASK_S = 1.0
SCOUT_GAP = 0.25
SCOUTS = 16
SCOUT_AGE = 0.8

#: Durations of jobs of one size that are known before they are kept apart from the others'.
ENOUGH = 2

#: Durations that are remembered: enough for a distribution, few enough to follow a drift.
REMEMBERED = 128

#: A gap between two asks about one job, at least; and as a share of its age, once it is older than all known jobs got.
LEAST_GAP_S = 0.1
STRAGGLER_GAP = 0.12

#: The API's word for a duration is not believed when it differs by more from what was seen here.
DOUBT_S = 1.0

#: The first ask waits no longer than the longest interval and this multiple of the longest wait that this run has seen.
MOST_SEEN = 2.0


class Durations:
    """The distribution of the last durations, smoothed while they are few, with a tail for the longer ones to come.

    Jobs that were found alive at an age count too (Kaplan-Meier): else the first to end would make all look short.
    A job alive at age *a* has *w* s later ended unnoticed for ``w - (integral of S, a to a + w) / S(a)`` on average,
    ``S(t)`` being the share of jobs that live longer than *t*; ``wait`` solves it for *w*. When jobs took 4, 6 and 8 s,
    one alive at 5 s has 2 s later: 2 - (2/3 + 1/3) / (2/3) = 0.5 s.
    """

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=REMEMBERED)
        self._alive_at: dict[int, float] = {}  # key -> age, of jobs in flight; the oldest news first
        self._unread = 0
        self._ages: list[float] = []
        self._weights: list[float] = []  # of all ages up to the i-th
        self._sums: list[float] = []  # weight times age, likewise
        self._tail = 0.0
        self._scale = 0.0  # of the tail: how far past the longest half of its jobs end
        self.mean = 0.0
        self.version = 0

    def __len__(self) -> int:
        return len(self._recent)

    def found_alive(self, key: int, age: float) -> None:
        """A job had not ended at *age*."""
        self._alive_at.pop(key, None)
        self._alive_at[key] = age
        if len(self._alive_at) > REMEMBERED:
            del self._alive_at[next(iter(self._alive_at))]
        self._unread += 1

    def learn(self, key: int, duration: float | None) -> None:
        """A job took *duration* seconds, or is no longer of interest."""
        self._alive_at.pop(key, None)
        if duration is not None:
            self._recent.append(max(duration, 0.001))
            self._unread += 1
            if not self.version or self._unread * 8 >= len(self._recent):
                self._unread = 0
                self._read()

    def _read(self) -> None:
        """Compute the distribution again: the weight of a job seen alive is spread over those that lived longer."""
        spread = min(0.5, 0.5 / math.sqrt(len(self._recent)))
        third = [(known * factor, True) for known in self._recent for factor in (1 - spread, 1.0, 1 + spread)]
        alive = [(age, False) for age in self._alive_at.values() for _ in range(3)]
        self._ages, self._weights, self._sums = [], [0.0], [0.0]
        marks = sorted(third + alive)
        weight = 1.0
        for left, (age, ended) in zip(range(len(marks), 0, -1), marks, strict=True):
            if ended:
                self._ages.append(age)
                self._weights.append(self._weights[-1] + weight)
                self._sums.append(self._sums[-1] + weight * age)
            else:
                weight += weight / left
        longest, total = self._ages[-1], self._weights[-1] + weight
        known = self._sums[-1] / self._weights[-1]
        self._tail = weight
        self._scale = max(longest - known, longest * max(0.05, weight / total))
        self.mean = (self._sums[-1] + weight * (longest + self._scale)) / total
        self.version += 1

    def _alive(self, age: float) -> tuple[float, float]:
        """How many of the known jobs live longer than *age*, and how long all together lived until then.

        One imaginary job stands for the tail: it outlives all others, and the older it is the longer it has to live.
        """
        longest, tail = self._ages[-1], self._tail
        ended = bisect_right(self._ages, age)
        alive = self._weights[-1] - self._weights[ended]
        lived = self._sums[ended] + alive * age
        if age <= longest:
            return alive + tail, lived + tail * age
        over = age - longest
        return alive + tail * self._scale / (self._scale + over), lived + tail * (
            longest + self._scale * math.log1p(over / self._scale)
        )

    def wait(self, age: float, share_s: float, most_s: float) -> float:
        """How long after *age*, when it was alive, a job is expected to have been ended for *share_s*."""
        alive, lived = self._alive(age)
        low, high = STRAGGLER_GAP * age if age > self._ages[-1] else 0.0, most_s
        while high - low > 0.01 * high + 0.001:
            middle = (low + high) / 2
            unnoticed = middle - (self._alive(age + middle)[1] - lived) / alive
            low, high = (middle, high) if unnoticed < share_s else (low, middle)
        return high


@dataclass(slots=True)
class _Job:
    started: float
    kind: int
    asked: float | None = None
    asked_before: float | None = None  #: the ask before the last: it surely found the job alive
    target: float | None = None  #: when it is worth an ask; None while only its age counts


@dataclass(slots=True)
class _Kind:
    """Jobs of about one size, and what is known of them."""

    durations: Durations = field(default_factory=Durations)
    fresh: list[tuple[float, int]] = field(default_factory=list)  #: (started, key), a heap: never asked about
    first_age: float = math.inf  #: the age at which they are first asked about
    first_age_of: tuple[int, int] = (0, 0)  #: what it was computed from


class PollSchedule:
    """Decide which jobs to ask about, and when. Every operation takes O(log n) for n jobs."""

    def __init__(self, *, batch: int = 1, max_interval_s: float = 60.0) -> None:
        """*batch* is how many jobs one status call can ask about; it may be changed at any time."""
        self.batch = batch
        self._max_interval_s = max_interval_s
        self._jobs: dict[int, _Job] = {}
        self._kinds: dict[int, _Kind] = {}
        self._all = Durations()
        self._asked: list[tuple[float, int]] = []  # (target, key), a heap
        self._ready: dict[int, float] = {}  # key -> target, in the order they became worth an ask
        self._last_started = -math.inf
        self._began = math.inf  # when this run first had an eye on its jobs
        self._seen_s = 0.0  # the longest that it waited for one that ended
        self._scouts: deque[int] = deque()
        self._scout_at = math.inf  # the next scout's ask
        self._set_out = math.inf  # the scouts' age, for those that were started by an earlier run, counts from here

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, key: int, started: float, size: int = 1) -> None:
        """Take up a job of *size* files that was submitted at *started*, which may lie in the past."""
        kind = size.bit_length()
        self._jobs[key] = _Job(started, kind)
        self._last_started = max(self._last_started, started)
        heappush(self._kinds.setdefault(kind, _Kind()).fresh, (started, key))
        if not len(self._all) and len(self._scouts) < max(SCOUTS, self.batch):
            self._scouts.append(key)
            self._scout_at = min(self._scout_at, started + FIRST_ASK_S)

    def due(self, now: float, limit: int) -> list[int]:
        """The jobs to ask about now, in one call; at most *limit*, none while no call is worth it. Marks nothing."""
        most = min(limit, self.batch)
        self._began = min(self._began, now)
        if not len(self._all):
            return self._scouting(now, most) if now >= self._scout_at else []
        self._promote(now)
        if len(self._ready) >= min(self.batch, len(self._jobs)) or now >= self._hold_until():
            return list(islice(self._ready, most))
        return []

    def next_at(self) -> float | None:
        """The earliest time at which ``due`` may name a job; None when there are no jobs."""
        if not self._jobs:
            return None
        if not len(self._all):
            return self._scout_at
        if len(self._ready) >= min(self.batch, len(self._jobs)):
            return next(iter(self._ready.values()))
        return min(self._hold_until(), self._next_asked(), *(self._next_fresh(kind) for kind in self._kinds.values()))

    def asked(self, key: int, now: float) -> None:
        """The job was asked about and had not ended, or is being asked about."""
        job = self._jobs.get(key)
        if job is None:
            return
        self._ready.pop(key, None)
        job.asked_before, job.asked = job.asked, now
        if job.asked_before is not None:
            for known in (self._all, self._kinds[job.kind].durations):
                known.found_alive(key, max(job.asked_before - job.started, 0.0))
        if not len(self._all):
            self._scouted(key, now)
            return
        durations = self._durations(self._kinds[job.kind])
        gap = durations.wait(max(now - job.started, 0.0), self._share_s(durations, now), self._max_interval_s)
        job.target = now + min(max(gap, LEAST_GAP_S), self._max_interval_s)
        heappush(self._asked, (job.target, key))

    def ended(self, key: int, now: float, duration: float | None) -> None:
        """The job ended; *duration* in the API's own words, None when it gave none."""
        job = self._jobs.get(key)
        if job is not None:
            self._seen_s = max(self._seen_s, now - max(job.started, self._began))
            self._remove(key, job, now, self._believed(job, now, duration))

    def forget(self, key: int, now: float) -> None:
        """The job is left alone from now on; how old it became says nothing about how long jobs take."""
        job = self._jobs.get(key)
        if job is not None:
            self._remove(key, job, now, None)

    def _remove(self, key: int, job: _Job, now: float, duration: float | None) -> None:
        del self._jobs[key]
        self._ready.pop(key, None)
        for durations in (self._all, self._kinds[job.kind].durations):
            durations.learn(key, duration)
        if key in self._scouts:
            self._scouts.remove(key)
            self._scout_at = now
            if not self._scouts:
                self._scouts.extend(islice(self._jobs, max(SCOUTS, self.batch)))

    def _promote(self, now: float) -> None:
        """Move what has become worth an ask to the ready jobs."""
        while self._next_asked() <= now:
            target, key = heappop(self._asked)
            self._ready[key] = target
        for kind in self._kinds.values():
            while self._next_fresh(kind) <= now:
                started, key = heappop(kind.fresh)
                self._ready[key] = self._jobs[key].target = started + self._first_age(kind)

    def _hold_until(self) -> float:
        """When the call goes although it is not full."""
        oldest = next(iter(self._ready.values()), math.inf)
        return oldest + HOLD * self._all.mean if self.batch > 1 else oldest

    def _next_asked(self) -> float:
        """When the first job that was asked about before is worth an ask."""
        heap = self._asked
        while heap:
            target, key = heap[0]
            job = self._jobs.get(key)
            if job is not None and job.target == target and key not in self._ready:
                return target
            heappop(heap)
        return math.inf

    def _next_fresh(self, kind: _Kind) -> float:
        """When the first job of *kind* that was never asked about is worth an ask."""
        while kind.fresh:
            started, key = kind.fresh[0]
            job = self._jobs.get(key)
            if job is not None and job.target is None:
                return started + self._first_age(kind)
            heappop(kind.fresh)
        return math.inf

    def _first_age(self, kind: _Kind) -> float:
        durations = self._durations(kind)
        known = (id(durations), durations.version)
        if known != kind.first_age_of:
            kind.first_age_of = known
            kind.first_age = durations.wait(0.0, self._share_s(durations), 20 * durations.mean)
        return min(kind.first_age, self._max_interval_s + MOST_SEEN * self._seen_s)

    def _durations(self, kind: _Kind) -> Durations:
        return kind.durations if len(kind.durations) >= ENOUGH else self._all

    def _share_s(self, durations: Durations, now: float | None = None) -> float:
        """The expected unnoticed time that is worth an ask."""
        count = len(self._jobs)
        if self.batch > 1:
            share = SHARE_IN_BATCH + (SHARE_ALONE - SHARE_IN_BATCH) / max(count, 1)
        elif now is not None and now - self._last_started > durations.mean / 2:
            share = SHARE_ALONE * max(min(1.0, count / FEW_JOBS), FEWEST_SHARE)
        else:
            share = SHARE_ALONE
        return max(share * durations.mean, LEAST_SHARE_S)

    def _scouting(self, now: float, most: int) -> list[int]:
        """The scouts whose turn it is: they are about as old as the oldest."""
        jobs, scouts = self._jobs, self._scouts
        oldest = min((jobs[key].started for key in scouts), default=now)
        return list(islice((k for k in scouts if now - jobs[k].started >= SCOUT_AGE * (now - oldest)), most))

    def _scouted(self, key: int, now: float) -> None:
        """*key* was asked in vain, or is being asked: others look next, a little later."""
        if key in self._scouts:
            self._scouts.remove(key)
            self._scouts.append(key)
        if now >= self._scout_at:
            self._set_out = min(self._set_out, now - FIRST_ASK_S)
            passed = now - self._set_out
            gap = SCOUT_GAP * passed / (1 + 0.5 * math.sqrt(len(self._jobs) / self.batch / math.sqrt(passed)))
            self._scout_at = now + min(max(gap, LEAST_GAP_S), self._max_interval_s)

    def _believed(self, job: _Job, now: float, said: float | None) -> float | None:
        """Return how long a job took: what the API *said*, or a guess where that contradicts what was seen here."""
        least, most = (job.asked_before or job.started) - job.started, now - job.started
        if said is None or not least - DOUBT_S <= said <= most + DOUBT_S:
            return self._guess(job, now)
        return min(max(said, least), most)

    def _guess(self, job: _Job, now: float) -> float | None:
        """How long a job took that was alive at the ask before the last, if that is known well enough."""
        upper = now - job.started
        lower = (job.asked_before or job.started) - job.started
        if job.started > self._set_out - FIRST_ASK_S:
            lower = max(lower, upper / 2)  # watched from its start: the first ask that is due is seldom far too late
        return (lower + upper) / 2 if upper <= max(2 * lower, 2 * FIRST_ASK_S) else None
