"""One pace for all callers of a kind: who may leave next, and the waiting for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from orchestrator.api.pacing.pacer import Pacer
from orchestrator.clock import Clock

#: A call's turn is given at most this long before it leaves, for its intent to be written meanwhile.
LONGEST_LEAD_S = 0.1

#: How often a waiting caller looks whether an answer has ended the pause early.
GLANCE_S = 0.05


@dataclass(frozen=True, slots=True)
class Ticket:
    """One call's permission to leave; handed back with what became of it."""

    sent_at: float  #: when it is to leave, in monotonic seconds


class Limiter(Protocol):
    """The pace of one kind of call. Each ticket is handed back once: accepted or throttled."""

    @property
    def rate_per_s(self) -> float:
        """The pace at present."""

    @property
    def refused(self) -> int:
        """How many calls were answered with 429."""

    @property
    def longest_lead_s(self) -> float:
        """The longest time before a call may leave that its turn is given, for what has to be done first."""

    @property
    def lead_fades(self) -> float:
        """What is left, from one call to the next, of the lead that an unusually slow one needed."""

    async def slot(self, lead_s: Callable[[], float] = lambda: 0.0) -> Ticket:
        """Wait for the next call's turn; first come, first served. Returns up to *lead_s* before the call may leave."""

    async def renewed(self, ticket: Ticket) -> Ticket:
        """*ticket*, of a call that is ready now; another one where its time has passed."""

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
    def longest_lead_s(self) -> float:
        """See ``Limiter``."""
        return LONGEST_LEAD_S

    @property
    def lead_fades(self) -> float:
        """See ``Limiter``."""
        return 0.9

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
