"""One pace for all callers of a kind: who may leave next, and the waiting for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from orchestrator.api.pacing.pacer import Pacer
from orchestrator.clock import Clock

#: How often a waiting caller looks whether an answer has ended the pause early.
GLANCE_S = 0.05


@dataclass(frozen=True, slots=True)
class Ticket:
    """One call's permission to leave; handed back with what became of it."""

    sent_at: float  #: when it is to leave, in monotonic seconds


@dataclass(frozen=True, slots=True)
class Lead:
    """How long before a call may leave its turn is given, for its intent to be written meanwhile."""

    first_s: float  #: before any was written
    longest_s: float
    times: float  #: of the time that writing takes
    fades: float  #: what is left, from one call to the next, of the lead that an unusually slow one needed

    def after(self, lead_s: float, took_s: float) -> float:
        """The next lead, after one of *lead_s* for an intent that took *took_s*."""
        return min(max(self.times * took_s, self.fades * lead_s), self.longest_s)


#: Of a ledger in a file.
NEAR = Lead(0.0, 0.1, 1.0, 0.9)


class Limiter(Protocol):
    """The pace of one kind of call. Each ticket is handed back once: accepted or throttled."""

    @property
    def rate_per_s(self) -> float:
        """The pace at present."""

    @property
    def refused(self) -> int:
        """How many calls were answered with 429."""

    @property
    def lead(self) -> Lead:
        """How long before a call may leave its turn is given."""

    async def slot(self, lead_s: Callable[[], float] = lambda: 0.0) -> Ticket:
        """Wait for the next call's turn; first come, first served. Returns up to *lead_s* before the call may leave."""

    async def renewed(self, ticket: Ticket) -> Ticket:
        """*ticket*, of a call that is ready now; another one where it is no longer good."""

    def accepted(self, ticket: Ticket) -> None:
        """The call had any answer but 429, or none."""

    def throttled(self, ticket: Ticket, retry_after_s: float | None) -> None:
        """The call was answered with 429."""


class AdaptiveLimiter:
    """The pace of one process, for any number of callers."""

    def __init__(self, ceiling_per_s: float, clock: Clock) -> None:
        self._clock = clock
        self._pacer = Pacer(ceiling_per_s)
        self._turn = asyncio.Lock()  # wakes its waiters in the order they came, and forgets those that are cancelled
        self.refused = 0

    @property
    def rate_per_s(self) -> float:
        """The pace at present."""
        return self._pacer.rate

    @property
    def lead(self) -> Lead:
        """See ``Limiter``."""
        return NEAR

    async def slot(self, lead_s: Callable[[], float] = lambda: 0.0) -> Ticket:
        """Wait for the next call's turn; first come, first served. Cancelled, it leaves no trace.

        Returns up to *lead_s* before the call may leave, so that what has to be done first takes none of its time.
        """
        clock, pacer, came = self._clock, self._pacer, self._clock.monotonic()
        async with self._turn:
            while (wait_s := (at := pacer.earliest(came)) - lead_s() - (now := clock.monotonic())) > 0:
                await clock.sleep(min(wait_s, GLANCE_S) if pacer.closed else wait_s)
            leaves = max(at, now)
            pacer.leave(at, leaves)
            return Ticket(leaves)

    async def renewed(self, ticket: Ticket) -> Ticket:
        """*ticket* itself: a slow disk makes few calls late, and those few do no harm."""
        return ticket

    def accepted(self, ticket: Ticket) -> None:
        """The call had any answer but 429, or none."""
        self._pacer.accepted(self._clock.monotonic(), ticket.sent_at)

    def throttled(self, ticket: Ticket, retry_after_s: float | None) -> None:
        """The call was answered with 429: all callers wait, and go on more slowly."""
        self.refused += 1
        self._pacer.throttled(self._clock.monotonic(), ticket.sent_at, retry_after_s)


@dataclass(frozen=True, slots=True)
class Limiters:
    """The pace of each kind of call, shared by all callers of the kind."""

    creates: Limiter
    reads: Limiter
    lists: Limiter
    uploads: Limiter
    close: Callable[[], None] = field(default=lambda: None, kw_only=True)  #: called when no more calls are to be made
