"""How well the limiter finds and uses limits that it does not know, in virtual time.

One line per limit and window, one group of columns per latency: how much of the limit was used, which part of the
requests was refused, and after how many seconds the pace was within a tenth of the limit. The API decides when a call
arrives, 10 to 30 ms after it left; refusals come back as late as other answers, so that many more calls are under way
by then. Usage: .venv/bin/python scripts/bench/limiter_sim.py
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Protocol

from orchestrator.api.pacing.pacer import Pacer

#: Most calls under way at once.
CONNECTIONS = 1000


class Window(Protocol):
    """How an API counts: whether a call that arrives at a time is accepted, else for how long to stay away."""

    def refuses(self, now: float) -> float | None: ...


class Sliding:
    """At most *limit* accepted calls in any *window_s*."""

    def __init__(self, limit: int, window_s: float) -> None:
        self._limit, self._window_s = limit, window_s
        self._accepted: deque[float] = deque()

    def refuses(self, now: float) -> float | None:
        while self._accepted and self._accepted[0] <= now - self._window_s:
            self._accepted.popleft()
        if len(self._accepted) >= self._limit:
            return self._accepted[0] + self._window_s - now
        self._accepted.append(now)
        return None


class Fixed:
    """At most *limit* accepted calls in each window of the API's own clock, which is *phase* into one at time 0."""

    def __init__(self, limit: int, window_s: float, phase: float = 0.4) -> None:
        self._limit, self._window_s, self._phase = limit, window_s, phase
        self._index, self._count = -1, 0

    def refuses(self, now: float) -> float | None:
        index, into = divmod(now + self._phase * self._window_s, self._window_s)
        if index != self._index:
            self._index, self._count = int(index), 0
        if self._count >= self._limit:
            return self._window_s - into
        self._count += 1
        return None


class Bucket:
    """A token bucket of *limit* tokens, full at first, refilled in *window_s*."""

    def __init__(self, limit: int, window_s: float) -> None:
        self._limit, self._per_s = limit, limit / window_s
        self._tokens, self._at = float(limit), 0.0

    def refuses(self, now: float) -> float | None:
        self._tokens = min(self._limit, self._tokens + (now - self._at) * self._per_s)
        self._at = now
        if self._tokens < 1:
            return (1 - self._tokens) / self._per_s
        self._tokens -= 1
        return None


class Noise:
    """No limit at all: each call is refused by chance."""

    def __init__(self, part: float, seed: int) -> None:
        self._part, self._rng = part, random.Random(seed)

    def refuses(self, now: float) -> float | None:
        return 1.0 if self._rng.random() < self._part else None


@dataclass(frozen=True, slots=True)
class Report:
    """How one run went."""

    used: float  #: accepted calls as a part of what the limit allows in the time
    refused: float  #: as a part of all requests
    found_s: float | None  #: when the pace was first within a tenth of the limit; None: never
    seconds: float
    rate_per_s: float


def simulate(
    window: Window,
    per_s: float,
    *,
    ceiling: float,
    latency_s: float,
    calls: int,
    retry_after: bool = False,
    seed: int = 1,
    pacer: Pacer | None = None,
) -> Report:
    """Send until *calls* calls were accepted by an API that allows *per_s*; someone is always waiting to send."""
    rng = random.Random(seed)
    pacer = pacer or Pacer(ceiling)
    events: list[tuple[float, int, float, bool, float | None]] = []  # (at, number, sent, arrived, refused)
    now = came = last = 0.0
    sent = under_way = accepted = refused = 0
    found: float | None = None
    while accepted < calls:
        at = max(pacer.earliest(came), now) if under_way < CONNECTIONS else float("inf")
        if events and events[0][0] <= at:
            now, number, sent_at, arrived, wait_s = heappop(events)
            if not arrived:
                wait_s = window.refuses(now)
                if wait_s is None:
                    accepted, last = accepted + 1, now
                else:
                    refused += 1
                back = now + latency_s * rng.uniform(0.7, 1.3)
                heappush(events, (back, number, sent_at, True, wait_s))
                continue
            if under_way == CONNECTIONS:
                came = now
            under_way -= 1
            if wait_s is None:
                pacer.accepted(now, sent_at)
            else:
                pacer.throttled(now, sent_at, wait_s if retry_after else None)
            if found is None and 0.9 <= pacer.rate / min(per_s, ceiling) <= 1.02:
                found = now
        else:
            now = at
            pacer.leave(at, now)
            sent, under_way = sent + 1, under_way + 1
            heappush(events, (now + min(latency_s, rng.uniform(0.01, 0.03)), sent, now, False, None))
    return Report(accepted / (last * min(per_s, ceiling)), refused / (accepted + refused), found, last, pacer.rate)


SHAPES: dict[str, Callable[[int, float], Window]] = {"sliding": Sliding, "fixed": Fixed, "bucket": Bucket}

#: limit, window in seconds, ceiling, calls: the documented and the likely ones, and some that nobody documents.
LIMITS = (
    (20, 60.0, 40.0, 400),
    (20, 60.0, 40.0, 1200),
    (20, 1.0, 40.0, 700),
    (40, 1.0, 40.0, 1400),
    (400, 1.0, 400.0, 14000),
    (60, 1.0, 400.0, 2100),
    (20, 1.0, 400.0, 700),
    (3, 1.0, 40.0, 400),
    (100, 10.0, 40.0, 700),
    (300, 60.0, 40.0, 1000),
)
LATENCIES_S = (0.05, 0.3, 1.0, 2.0)

#: Parts of the calls that are refused by chance.
NOISES = (0.02, 0.05, 0.1, 0.2)


def main() -> None:
    began = time.perf_counter()
    print(f"{'limit':>9} {'from':>4} {'calls':>5} {'window':8}", end="")
    for latency_s in LATENCIES_S:
        print(f" | {latency_s:4g} s: used refused found", end="")
    print()
    for limit, window_s, ceiling, calls in LIMITS:
        for shape, window in SHAPES.items():
            print(f"{f'{limit}/{window_s:g} s':>9} {ceiling:4g} {calls:5} {shape:8}", end="")
            for latency_s in LATENCIES_S:
                result = simulate(
                    window(limit, window_s), limit / window_s, ceiling=ceiling, latency_s=latency_s, calls=calls
                )
                found = "never" if result.found_s is None else f"{result.found_s:.1f}"
                print(f" | {result.used:12.1%} {result.refused:7.1%} {found:>5}", end="")
            print()
    for part in NOISES:
        print(f"{f'{part:.0%}':>9} {40:4} {3000:5} {'noise':8}", end="")
        for latency_s in LATENCIES_S:
            results = [
                simulate(Noise(part, seed), 40.0, ceiling=40.0, latency_s=latency_s, calls=3000, seed=seed)
                for seed in range(8)
            ]
            used, refused = (sum(values) / 8 for values in zip(*((r.used, r.refused) for r in results), strict=True))
            print(f" | {used:12.1%} {refused:7.1%} {'':5}", end="")
        print()
    print(f"\n{time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
