"""One process's part in a pace that several processes keep together: the decisions, without waiting.

Two things are common to all. *Slots*: times at which one call may leave, given out in one place, so that no two
processes have the same and all are as far apart as the pace says. *News*: what became of the calls. Each process hears
all of it and so learns the limit as if all calls were its own; a limit that is full for one is full for all.

Still they may learn different paces: the news comes to each in another order, and who has only just come knows a part
of it. Slots of different lengths would waste the limit or break it, so all keep the pace of the one that has listened
longest among those that send.

All times are seconds of the place that gives the slots out. While it can't be reached each process keeps to its part of
the pace by itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.api.pacing.pacer import Pacer

#: How far ahead slots are given out: long enough for the next round to come in time.
HORIZON_S = 0.25
#: How long a slot takes to come back from where it is given out, at the least.
LEAD_S = 0.02
#: A slot is used at most so late; later it would come too close to the next ones.
LATE_S = 0.05
#: Calls of others that left so soon after a refusal left before they had heard of it.
SPREAD_S = 0.2
#: Without a word from where slots are given out for so long, each process is on its own.
ALONE_S = 1.0
#: Who has had no word for so long may have missed news.
MISSED_S = 2.0

#: What became of the call of a slot: accepted, refused, none left, or the trial of a closed gate leaves.
ACCEPTED, REFUSED, UNUSED, TRIAL = "a", "r", "u", "t"
#: The pace of one who listens since a time; these two are its "slot" and its "seconds".
PACE = "p"

#: One piece of news: what, the slot, and the time until which the API asked to wait.
News = tuple[str, float, float | None]


@dataclass(frozen=True, slots=True)
class Wish:
    """What a process asks for: slots one after the other at a pace, not before a time."""

    calls: int
    rate_per_s: float
    not_before: float
    horizon_s: float  #: how far ahead they may be


@dataclass(frozen=True, slots=True)
class Grant:
    """Slots that were given to a process."""

    first: float
    calls: int
    step_s: float
    idle: bool  #: nobody wanted those just before

    @property
    def slots(self) -> list[float]:
        return [self.first + number * self.step_s for number in range(self.calls)]


class Share:
    """One process's part in the pace of one kind of call."""

    def __init__(self, ceiling_per_s: float) -> None:
        self._pacer = Pacer(ceiling_per_s, SPREAD_S)
        self._slots: deque[float] = deque()  # ours, still to come
        self._news: list[News] = []  # for the others
        self._alone_next = 0.0  # the next slot while on its own
        self.urgent = False  #: the others should hear the news at once
        self.processes = 1  #: that keep the pace, as far as is known
        self.since = float("inf")  #: when this process began to hear all news

    @property
    def rate_per_s(self) -> float:
        """The pace of all together."""
        return self._pacer.rate

    def wish(self, now: float, waiting: int, lead_s: float = 0.0) -> Wish | None:
        """What to ask for with *waiting* callers that need *lead_s* to get ready; None for nothing."""
        opens = self._pacer.opens(now)
        want = waiting - len(self._slots)
        if self._pacer.closed:
            want = min(want, 1 - len(self._slots))
        if want <= 0 or opens > now + HORIZON_S:
            return None
        return Wish(want, self._pacer.rate, opens, HORIZON_S + lead_s)

    def got(self, grant: Grant) -> None:
        """This process has been given slots."""
        self.others_got(grant)
        self._slots.extend(grant.slots)

    def others_got(self, grant: Grant) -> None:
        """Another process has been given slots."""
        for slot in grant.slots:
            self._pacer.given(slot, idle=grant.idle and slot == grant.first)

    def next(self, now: float, heard_at: float) -> float | None:
        """Our next slot, to be used at its time; None: there is none yet. *heard_at*: of the last word of others."""
        while self._slots:
            slot = self._slots[0]
            if slot >= now - LATE_S and self._pacer.opens(slot) <= slot:
                return slot
            self._drop(self._slots.popleft())
        if now - heard_at < ALONE_S:
            return None
        return self._pacer.opens(max(now, self._alone_next))

    def use(self, slot: float) -> None:
        """A call leaves in *slot*, which ``next`` has returned."""
        if self._slots and self._slots[0] == slot:
            self._slots.popleft()
        else:
            self._pacer.given(slot, idle=False)
        self._alone_next = slot + self.processes / self._pacer.rate
        if self._pacer.closed:
            self._pacer.trial(slot)
            self._tell(TRIAL, slot, None, urgent=True)

    def holds(self, slot: float) -> bool:
        """Whether a call may still leave in *slot*, which was used before what is known now."""
        return self._pacer.holds(slot)

    def give_back(self, slot: float) -> None:
        """The call of *slot* does not leave in it."""
        self._drop(slot)

    def give_all_back(self) -> None:
        """Nobody here waits any longer: the slots that are left stay unused."""
        while self._slots:
            self._drop(self._slots.popleft())

    def _drop(self, slot: float) -> None:
        self._pacer.unused(slot)
        self._tell(UNUSED, slot, None)

    def accepted(self, now: float, slot: float) -> None:
        """Our call of *slot* was not refused."""
        closed = self._pacer.closed
        self._pacer.accepted(now, slot)
        self._tell(ACCEPTED, slot, None, urgent=closed)

    def throttled(self, now: float, slot: float, retry_after_s: float | None) -> None:
        """Our call of *slot* was refused."""
        self._pacer.throttled(now, slot, retry_after_s)
        self._tell(REFUSED, slot, None if retry_after_s is None else now + retry_after_s, urgent=True)

    def _tell(self, what: str, slot: float, until: float | None, *, urgent: bool = False) -> None:
        self._news.append((what, slot, until))
        self.urgent = self.urgent or urgent

    def take_news(self) -> list[News]:
        """What the others have not been told yet."""
        news, self._news, self.urgent = self._news, [], False
        return news

    def learnt(self) -> list[News]:
        """The pace as this process has learnt it, for those who have not listened so long."""
        return [(PACE, self.since, self._pacer.rate)] if self._pacer.learnt else []

    def hear(self, now: float, news: Iterable[News]) -> None:
        """What became of others' calls."""
        for what, slot, until in news:
            if what == ACCEPTED:
                self._pacer.accepted(now, slot)
            elif what == REFUSED:
                self._pacer.throttled(now, slot, None if until is None else max(until - now, 0.0))
            elif what == UNUSED:
                self._pacer.unused(slot)
            elif what == PACE:
                if until is not None and slot < self.since:
                    self._pacer.follow(until)
            elif self._pacer.closed:
                self._pacer.trial(slot)

    def join(self, rate_per_s: float) -> None:
        """The pace that those who are there already have found."""
        self._pacer.known(rate_per_s)
