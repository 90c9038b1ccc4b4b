"""A limiter whose pace other processes keep, too: its callers, and what is said to the place where they meet."""

from __future__ import annotations

import asyncio
import itertools
import json

import pytest
from support.server import FakeClock

from orchestrator.api.limiter import NEAR, AdaptiveLimiter, Limiters
from orchestrator.api.pacing.share import HORIZON_S
from orchestrator.api.sharing import FAR, KINDS, Part, SharedLimiter, shared


class Place:
    """A place that is called from the test, not from a thread; *gives* slots or is away."""

    def __init__(self, *, gives: bool = True) -> None:
        self.gives = gives
        self.woken = 0
        self.closed = False
        self.part: Part | None = None
        self.news: list[str] = []
        self.clock: FakeClock | None = None

    def start(self, part: Part, *, lead_s: float) -> None:
        self.part = part

    def wake(self) -> None:
        self.woken += 1
        if self.gives:
            self.exchange()

    def exchange(self) -> None:
        assert self.part is not None
        assert self.clock is not None
        asked, news = self.part.asks()
        self.news += news
        now = self.clock.monotonic() + 1000.0
        self.part.told(now, 0.0, 2)
        for kind, calls, step_s, not_before, _ in asked:
            self.part.given(kind, max(not_before, now) + 0.1, calls, step_s, idle=False)

    def close(self) -> None:
        self.closed = True


def limiters(clock: FakeClock, place: Place) -> Limiters:
    place.clock = clock
    return shared(Limiters(*(AdaptiveLimiter(10.0, clock) for _ in KINDS)), place, clock)


def test_callers_leave_in_the_slots_that_were_given() -> None:
    """One after the other, each in a slot of its own, in the time of this process's clock."""

    async def go() -> list[float]:
        clock, place = FakeClock(), Place()
        creates = limiters(clock, place).creates
        began = clock.monotonic()
        tickets = await asyncio.gather(*(creates.slot() for _ in range(4)))
        return [round(ticket.sent_at - began, 3) for ticket in tickets]

    sent = asyncio.run(go())
    assert sent == [round(sent[0] + number / 10, 3) for number in range(4)]


def test_what_became_of_a_call_is_news_for_the_others() -> None:
    """Its slot and the answer; a refusal is told at once, and slots that nobody wants any more are given back."""

    async def go() -> Place:
        clock, place = FakeClock(), Place()
        found = limiters(clock, place)
        first, second = [await found.reads.slot(), await found.reads.slot()]
        found.reads.accepted(first)
        before = place.woken
        found.reads.throttled(second, 7.0)
        assert place.woken > before
        assert found.reads.refused == 1
        found.close()
        return place

    place = asyncio.run(go())
    told = [(message["kind"], what) for message in map(json.loads, place.news) for what, _, _ in message["news"]]
    assert ("reads", "a") in told
    assert ("reads", "r") in told
    assert place.closed


def test_without_the_place_a_process_keeps_its_part_of_the_pace() -> None:
    """Two processes at ten a second: after a second without a word each sends five."""

    async def go() -> list[float]:
        clock, place = FakeClock(), Place(gives=False)
        creates = limiters(clock, place).creates
        place.exchange()  # then it knows of the other one
        return [(await creates.slot()).sent_at for _ in range(6)]

    sent = asyncio.run(go())
    assert all(later - earlier >= 0.199 for earlier, later in itertools.pairwise(sent))


def test_messages_stay_below_what_a_server_passes_on() -> None:
    """However many calls were answered since the last one."""

    async def go() -> list[str]:
        clock, place = FakeClock(), Place(gives=False)
        creates = limiters(clock, place).creates
        place.exchange()
        for _ in range(400):
            creates.accepted(await creates.slot())
        assert place.part is not None
        return place.part.asks()[1]

    messages = asyncio.run(go())
    assert sum(len(json.loads(message)["news"]) for message in messages) >= 400
    assert max(map(len, messages)) < 8000


def test_other_kinds_of_calls_are_none_of_ours() -> None:
    """A newer program may keep more paces; what is heard of them is none of ours."""

    async def go() -> None:
        clock, place = FakeClock(), Place()
        limiters(clock, place)
        assert place.part is not None
        place.part.heard(json.dumps({"kind": "cancels", "news": [["a", 1.0, None]]}))
        place.part.joined("cancels", 1.0)

    asyncio.run(go())


def test_a_call_that_was_not_ready_in_time_takes_another_slot() -> None:
    """Late calls would leave together: its slot is given back, and the others hear of it."""

    async def go() -> None:
        clock, place = FakeClock(), Place()
        creates = limiters(clock, place).creates
        in_time = await creates.slot()
        assert await creates.renewed(in_time) is in_time
        await clock.sleep(3.0)
        ticket = await creates.renewed(in_time)
        assert ticket.sent_at >= clock.monotonic()
        place.exchange()
        assert any(what == "u" for words in place.news for what, _, _ in json.loads(words)["news"])

    asyncio.run(go())


def test_the_pace_that_was_learnt_is_told_with_the_time_since_when_nothing_was_missed() -> None:
    """Who had no word for a while has missed news: from then on those who have heard it all know better."""

    async def go() -> list[float]:
        clock, place = FakeClock(), Place(gives=False)
        creates = limiters(clock, place).creates
        place.exchange()
        creates.throttled(await creates.slot(), None)
        place.exchange()
        await clock.sleep(60.0)
        place.exchange()
        creates.throttled(await creates.slot(), None)
        place.exchange()
        told = [piece for words in place.news for piece in json.loads(words)["news"]]
        return [since for what, since, _ in told if what == "p"]

    before, after = asyncio.run(go())
    assert after >= before + 60.0


def test_calls_that_were_about_to_leave_wait_when_another_is_refused() -> None:
    """They were got ready long before their slots: after a refusal they take others, and the first is the trial."""

    async def go() -> None:
        clock, place = FakeClock(), Place()
        creates = limiters(clock, place).creates
        refused, *ready = [await creates.slot(lambda: 2.0) for _ in range(4)]
        assert [await creates.renewed(ticket) for ticket in ready] == ready
        refused_at = clock.monotonic()
        creates.throttled(refused, 5.0)
        trial = await creates.renewed(ready[0])
        assert trial.sent_at >= refused_at + 5.0
        assert await creates.renewed(trial) is trial

    asyncio.run(go())


def test_one_asks_for_slots_as_far_ahead_as_the_others_get_theirs() -> None:
    """Others with a slow ledger get theirs far ahead: who asked for nearer ones only would get none among them."""
    clock, place = FakeClock(), Place()
    creates = limiters(clock, place).creates
    assert isinstance(creates, SharedLimiter)
    assert place.part is not None
    creates.waiting = 1
    place.part.told(now := 1000.0, 0.0, 2)
    place.part.heard(json.dumps({"kind": "creates", "slots": [now + 1.0, 11, 0.1, False]}))
    (asked,), _ = place.part.asks()
    assert asked[4] == pytest.approx(2.0, abs=0.01)
    place.part.heard(json.dumps({"kind": "creates", "slots": [now + 0.1, 1, 0.1, False]}))
    (asked,), _ = place.part.asks()
    assert asked[4] == pytest.approx(HORIZON_S + 0.9 * (2.0 - HORIZON_S), abs=0.01)


def test_a_lead_covers_what_the_slowest_intent_took_recently() -> None:
    """With something to spare on a ledger that is far away; it fades, and no call is got ready minutes before."""
    assert FAR.after(FAR.first_s, 0.4) == pytest.approx(0.6)
    assert FAR.after(0.6, 0.01) == pytest.approx(0.594)
    assert FAR.after(0.6, 60.0) == FAR.longest_s
    assert NEAR.after(0.0, 0.03) == 0.03
