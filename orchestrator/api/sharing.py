"""The pace of one API project, kept together by all processes that meet in one place: a ledger on a server.

``pacing.share`` decides; here are the callers that wait, and the thread that exchanges slots and news with the place.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from orchestrator.api.limiter import GLANCE_S, Lead, Limiters, Ticket
from orchestrator.api.pacing.share import HORIZON_S, LATE_S, LEAD_S, MISSED_S, Grant, Share, Wish
from orchestrator.clock import Clock

#: The kinds of call that have a pace, as ``Limiters`` names them.
KINDS = ("creates", "lists", "reads", "uploads")

#: How often a caller without a slot looks for one.
LOOK_S = 0.02

#: Pieces of news in one message: a server passes on 8,000 bytes at most.
MOST_NEWS = 150

#: How much the distance between two clocks is corrected at once, so that no slot jumps.
CORRECTION_S = 0.002

#: A ledger on a server is slower than one in a file, and a call that is late loses its slot.
FAR = Lead(0.25, 2.0, 1.5, 0.99)

#: What is left of the lead of other processes with each of their slots that lies nearer.
OTHERS_FADE = 0.9

#: A wish for slots: kind of call, calls, seconds between two of them, not before when, and for how many seconds ahead.
Asked = tuple[str, int, float, float, float]


class Part(Protocol):
    """A process's part, as the place's thread calls it."""

    def asks(self) -> tuple[list[Asked], list[str]]:
        """What to ask for, and the news for the others."""

    def told(self, now: float, waited_s: float, processes: int) -> None:
        """The place has answered *waited_s* after it was asked; its time was *now* then."""

    def given(self, kind: str, first: float, calls: int, step_s: float, *, idle: bool) -> None:
        """Slots that this process has got."""

    def heard(self, words: str) -> None:
        """A message of another process, or of slots that it has got."""

    def joined(self, kind: str, rate_per_s: float) -> None:
        """The pace that those who were here lately have found."""


class Place(Protocol):
    """Where slots are given out and news is passed on."""

    def start(self, part: Part, *, lead_s: float) -> None:
        """Exchange for *part* from now on, in a thread."""

    def wake(self) -> None:
        """Exchange soon."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class SharedTicket(Ticket):
    """A call's permission to leave in a slot that no other process has."""

    slot: float  #: in the place's time


class _Together:
    """What the limiters of one process have in common: the lock, the place's time, and when it was heard of last."""

    def __init__(self, place: Place, clock: Clock) -> None:
        self.place = place
        self.lock = threading.Lock()  # the place's thread and the event loop
        self._clock = clock
        self._ahead_s = clock.now().timestamp() - clock.monotonic()  # of our monotonic clock; a guess until it answers
        self._best_s: float | None = None  # the quickest answer: the surest of the place's time
        self.heard_at = self.now()
        self.since = float("inf")  # since when no news was missed

    def now(self) -> float:
        return self._clock.monotonic() + self._ahead_s

    @property
    def knows_the_time(self) -> bool:
        return self._best_s is not None

    def monotonic(self, at: float) -> float:
        return at - self._ahead_s

    def told(self, now: float, waited_s: float) -> None:
        if self._best_s is None or self.now() - self.heard_at >= MISSED_S:
            self.since = now
        wrong_s = now + waited_s / 2 - self.now()
        if self._best_s is None:
            self._ahead_s, self._best_s = self._ahead_s + wrong_s, waited_s
        elif waited_s <= 1.5 * self._best_s:
            self._ahead_s += min(max(wrong_s, -CORRECTION_S), CORRECTION_S)
            self._best_s = min(waited_s, self._best_s)
        self.heard_at = self.now()


class SharedLimiter:
    """The pace of one kind of call in one process. See ``limiter.Limiter``, whose methods these are."""

    def __init__(self, ceiling_per_s: float, clock: Clock, together: _Together) -> None:
        self.share = Share(ceiling_per_s)
        self.waiting = 0
        self.refused = 0
        self._clock = clock
        self._together = together
        self._turn = asyncio.Lock()
        self._lead_s = 0.0  # how long before its slot a call was to be got ready recently
        self._others_s = 0.0  # the same of other processes, as far as their slots show

    @property
    def rate_per_s(self) -> float:
        """The pace of all processes together."""
        return self.share.rate_per_s

    @property
    def lead(self) -> Lead:
        """See ``limiter.Limiter``."""
        return FAR

    async def slot(self, lead_s: Callable[[], float] = lambda: 0.0) -> Ticket:
        """Wait for the next call's turn; first come, first served. Returns up to *lead_s* before the call may leave."""
        self.waiting += 1
        try:
            async with self._turn:
                while not isinstance(found := self._look(lead_s()), SharedTicket):
                    await self._clock.sleep(found)
                return found
        finally:
            self.waiting -= 1
            if not self.waiting:
                with self._together.lock:
                    self.share.give_all_back()

    async def renewed(self, ticket: Ticket) -> Ticket:
        """*ticket*, of a call that is ready now; another one where it is no longer good.

        Calls that are late together would leave together, and with those of the other processes; and all that were
        about to leave would leave after a refusal.
        """
        assert isinstance(ticket, SharedTicket)  # noqa: S101 - one of ours
        together = self._together
        with together.lock:
            if together.now() <= ticket.slot + LATE_S and self.share.holds(ticket.slot):
                return ticket
            self.share.give_back(ticket.slot)
        self.waiting += 1  # ahead of those who have not begun
        try:
            while not isinstance(found := self._look(0.0), SharedTicket):
                await self._clock.sleep(found)
            return found
        finally:
            self.waiting -= 1

    def _look(self, lead_s: float) -> SharedTicket | float:
        """The next slot, once its call may be got ready; until then the seconds after which to look again."""
        together, share = self._together, self.share
        with together.lock:
            now = together.now()
            self._lead_s = max(lead_s, 0.99 * self._lead_s)
            at = share.next(now, together.heard_at)
            wait_s = LOOK_S if at is None else min(at - lead_s - now, GLANCE_S)
            ticket = None
            if at is not None and wait_s <= 0:
                share.use(at)
                ticket = SharedTicket(together.monotonic(max(at, now)), at)
            wishes = at is None and self.wish(now) is not None
        if share.urgent or wishes:
            together.place.wake()
        return ticket or wait_s

    def wish(self, now: float) -> Wish | None:
        """The slots to ask for; None: none."""
        return self.share.wish(now, self.waiting, max(self._lead_s, self._others_s))

    def others_got(self, now: float, grant: Grant) -> None:
        """Another process has been given slots: who asks for nearer ones would never get any."""
        self.share.others_got(grant)
        self._others_s = max(grant.slots[-1] - now - HORIZON_S, OTHERS_FADE * self._others_s)

    def accepted(self, ticket: Ticket) -> None:
        """The call had any answer but 429, or none."""
        assert isinstance(ticket, SharedTicket)  # noqa: S101 - one of ours
        with self._together.lock:
            self.share.accepted(self._together.now(), ticket.slot)
        self._tell()

    def throttled(self, ticket: Ticket, retry_after_s: float | None) -> None:
        """The call was answered with 429: the callers of all processes wait, and go on more slowly."""
        assert isinstance(ticket, SharedTicket)  # noqa: S101 - one of ours
        self.refused += 1
        with self._together.lock:
            self.share.throttled(self._together.now(), ticket.slot, retry_after_s)
        self._tell()

    def _tell(self) -> None:
        if self.share.urgent:
            self._together.place.wake()


class Sharing:
    """This process's part in the paces of a project: a limiter for each kind of call."""

    def __init__(self, place: Place, ceilings_per_s: Mapping[str, float], clock: Clock) -> None:
        """*ceilings_per_s*: kind of call -> the most a second, of all processes together."""
        self._together = _Together(place, clock)
        self.by_kind = {
            kind: SharedLimiter(ceiling, clock, self._together) for kind, ceiling in sorted(ceilings_per_s.items())
        }

    def asks(self) -> tuple[list[Asked], list[str]]:
        """What to ask for, and the news for the others."""
        asked, news = [], []
        with self._together.lock:
            now = self._together.now()
            for kind, limiter in self.by_kind.items():
                wish = limiter.wish(now)
                if wish is not None and self._together.knows_the_time:
                    asked.append((kind, wish.calls, 1 / wish.rate_per_s, wish.not_before, wish.horizon_s))
                told = limiter.share.take_news()
                if told or wish is not None:
                    told += limiter.share.learnt()
                news += [_message(kind, told[at : at + MOST_NEWS]) for at in range(0, len(told), MOST_NEWS)]
        return asked, news

    def told(self, now: float, waited_s: float, processes: int) -> None:
        """The place has answered *waited_s* after it was asked; its time was *now* then."""
        with self._together.lock:
            self._together.told(now, waited_s)
            for limiter in self.by_kind.values():
                limiter.share.processes = processes
                limiter.share.since = self._together.since

    def given(self, kind: str, first: float, calls: int, step_s: float, *, idle: bool) -> None:
        """Slots that this process has got."""
        with self._together.lock:
            self.by_kind[kind].share.got(Grant(first, calls, step_s, idle))

    def heard(self, words: str) -> None:
        """A message of another process, or of slots that it has got."""
        told = json.loads(words)
        limiter = self.by_kind.get(told["kind"])
        if limiter is None:
            return
        with self._together.lock:
            if "slots" in told:
                limiter.others_got(self._together.now(), Grant(*told["slots"]))
            else:
                limiter.share.hear(self._together.now(), told["news"])

    def joined(self, kind: str, rate_per_s: float) -> None:
        """The pace that those who were here lately have found."""
        if kind in self.by_kind:
            with self._together.lock:
                self.by_kind[kind].share.join(rate_per_s)


def shared(limiters: Limiters, place: Place, clock: Clock) -> Limiters:
    """*limiters*, kept together with all processes that meet at *place*; their ceilings are those of all together."""
    sharing = Sharing(place, {kind: getattr(limiters, kind).rate_per_s for kind in KINDS}, clock)
    place.start(sharing, lead_s=LEAD_S)
    return replace(limiters, **sharing.by_kind, close=place.close)


def _message(kind: str, news: Sequence[object]) -> str:
    return json.dumps({"kind": kind, "news": news}, separators=(",", ":"))
