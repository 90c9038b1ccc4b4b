"""Rate limits of the three usual shapes: sliding window, fixed window, token bucket."""

from __future__ import annotations

from collections import deque


class Limit:
    """At most *calls* in *seconds*; ``admit`` says None, or how long to wait. 0 calls is no limit."""

    def __init__(self, calls: float, seconds: float, window: str) -> None:
        self._calls = calls
        self._seconds = seconds
        self._window = window
        self._times: deque[float] = deque()  # of the calls let through: sliding
        self._start, self._count = 0.0, 0  # of the current window: fixed
        self._tokens, self._filled = calls, 0.0  # bucket

    def admit(self, now: float) -> float | None:
        if not self._calls:
            return None
        match self._window:
            case "fixed":
                return self._fixed(now)
            case "bucket":
                return self._bucket(now)
            case _:
                return self._sliding(now)

    def _sliding(self, now: float) -> float | None:
        while self._times and self._times[0] <= now - self._seconds:
            self._times.popleft()
        if len(self._times) >= self._calls:
            return self._times[0] + self._seconds - now
        self._times.append(now)
        return None

    def _fixed(self, now: float) -> float | None:
        start = now - now % self._seconds
        if start != self._start:
            self._start, self._count = start, 0
        if self._count >= self._calls:
            return start + self._seconds - now
        self._count += 1
        return None

    def _bucket(self, now: float) -> float | None:
        rate = self._calls / self._seconds
        self._tokens = min(self._calls, self._tokens + (now - self._filled) * rate)
        self._filled = now
        if self._tokens < 1:
            return (1 - self._tokens) / rate
        self._tokens -= 1
        return None
