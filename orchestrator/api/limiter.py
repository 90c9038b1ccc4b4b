"""Interim limiter: fixed spacing with AIMD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from orchestrator.clock import Clock


@dataclass(frozen=True, slots=True)
class Ticket:
    leave_at: float


class Limiter(Protocol):
    @property
    def rate_per_s(self) -> float: ...
    @property
    def refused(self) -> int: ...
    async def slot(self) -> Ticket: ...
    def accepted(self, ticket: Ticket) -> None: ...
    def throttled(self, ticket: Ticket, retry_after_s: float | None) -> None: ...


class AdaptiveLimiter:
    def __init__(self, ceiling_per_s: float, clock: Clock) -> None:
        self._ceiling = ceiling_per_s
        self._clock = clock
        self._rate = ceiling_per_s
        self._next = clock.monotonic()
        self._paused = 0.0
        self.refused = 0

    @property
    def rate_per_s(self) -> float:
        return self._rate

    async def slot(self) -> Ticket:
        now = self._clock.monotonic()
        self._next = max(self._next, now, self._paused) + 1 / self._rate
        leave_at = self._next - 1 / self._rate
        if leave_at > now:
            await self._clock.sleep(leave_at - now)
        return Ticket(leave_at)

    def accepted(self, ticket: Ticket) -> None:
        self._rate = min(self._ceiling, self._rate * 1.001)

    def throttled(self, ticket: Ticket, retry_after_s: float | None) -> None:
        self.refused += 1
        now = self._clock.monotonic()
        if ticket.leave_at >= self._paused:
            self._rate = max(self._rate * 0.8, 0.2)
            self._paused = now + (retry_after_s if retry_after_s is not None else 1.0)
