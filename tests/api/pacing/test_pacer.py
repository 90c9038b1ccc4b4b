"""The pace of calls: laws that hold whatever the API answers, and limits found in virtual time."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.benches import load_bench
from support.server import FakeClock

from orchestrator.api.limiter import AdaptiveLimiter
from orchestrator.api.pacing.pacer import SLACK_S, Pacer

SIM = load_bench("limiter_sim")
SHAPES = list(SIM.SHAPES)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("limit", [20, 40])
def test_a_limit_per_second_is_used_with_few_refusals(shape: str, limit: int) -> None:
    """From the documented 40 a second, 700 calls use 95 % of what the API allows; at most 2 to 3 % are refused."""
    window = SIM.SHAPES[shape](limit, 1.0)
    result = SIM.simulate(window, float(limit), ceiling=40.0, latency_s=0.05, calls=700)
    assert result.used >= 0.95
    assert result.refused <= (0.03 if shape == "bucket" else 0.02)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("latency_s", [0.05, 0.3])
def test_the_free_tier_is_found_and_used(shape: str, latency_s: float) -> None:
    """Twenty a minute, met at forty a second: in the long run 95 % of it is used and under 2 % are refused."""
    result = SIM.simulate(SIM.SHAPES[shape](20, 60.0), 20 / 60, ceiling=40.0, latency_s=latency_s, calls=2000)
    assert result.used >= 0.95
    assert result.refused <= 0.02


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("latency_s", [0.05, 2.0])
def test_a_ceiling_that_is_the_limit_is_kept(shape: str, latency_s: float) -> None:
    """At 400 a second, with up to 800 calls under way, nearly all of the limit is used and hardly a call refused."""
    result = SIM.simulate(SIM.SHAPES[shape](400, 1.0), 400.0, ceiling=400.0, latency_s=latency_s, calls=8000)
    assert result.used >= 0.95
    assert result.refused <= 0.01


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shape", SHAPES)
def test_hundreds_of_calls_under_way_do_not_ruin_the_pace(shape: str, seed: int) -> None:
    """Refusals of calls that left before the pause do not lower the pace again and again: it stays near the limit."""
    result = SIM.simulate(SIM.SHAPES[shape](20, 1.0), 20.0, ceiling=400.0, latency_s=2.0, calls=2000, seed=seed)
    assert result.used >= 0.85
    assert 15 <= result.rate_per_s <= 24


@pytest.mark.parametrize("shape", SHAPES)
def test_after_a_storm_the_pace_recovers(shape: str) -> None:
    """An API that refuses everything for a minute is used at 85 % again over the three minutes that follow."""
    inner = SIM.SHAPES[shape](20, 1.0)

    class Stormy:
        """Refuses all calls from the 30th to the 90th second."""

        def refuses(self, now: float) -> float | None:
            return 90 - now if 30 <= now < 90 else inner.refuses(now)

    before = 30 * 20
    result = SIM.simulate(Stormy(), 20.0, ceiling=40.0, latency_s=0.3, calls=before + 180 * 20)
    assert result.seconds <= 90 + 180 / 0.85


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("part", [0.05, 0.1])
def test_refusals_whatever_the_pace_do_not_end_the_night(part: float, seed: int) -> None:
    """Calls refused by chance once brought the pace down for good: it comes back when slowing does not help."""
    result = SIM.simulate(SIM.Noise(part, seed), 40.0, ceiling=40.0, latency_s=0.05, calls=3000, seed=seed)
    assert result.used >= 0.25
    assert result.rate_per_s == 40.0


def test_retry_after_is_used_to_the_second() -> None:
    """Where the API names the wait, the free tier costs two bursts: the second tells it from a penalty."""
    result = SIM.simulate(SIM.Sliding(20, 60.0), 20 / 60, ceiling=40.0, latency_s=0.05, calls=400, retry_after=True)
    assert result.used >= 0.95
    assert result.refused <= 0.03


ANSWERS = st.lists(
    st.tuples(
        st.floats(0, 3),  # when the next caller comes, after the last
        st.floats(0, 2),  # how long its answer takes
        st.sampled_from(["accepted", "accepted", "accepted", "throttled", "told"]),
        st.floats(0, 30),  # Retry-After, when told
    ),
    max_size=60,
)


@given(ANSWERS, st.sampled_from([0.5, 40.0, 400.0]))
def test_no_two_calls_are_closer_than_the_pace_and_none_ignores_retry_after(
    answers: list[tuple[float, float, str, float]], ceiling: float
) -> None:
    """Whatever is answered when: slots are a full gap apart, in order, under the ceiling, and after any wait told."""
    pacer = Pacer(ceiling)
    pending: list[tuple[float, float, str, float]] = []
    now, last, told_until = 0.0, float("-inf"), float("-inf")
    for wait, latency, answer, retry_after in answers:
        came = now + wait
        while True:
            at = pacer.earliest(came)
            pending.sort()
            if not pending or pending[0][0] > at:
                break
            back, sent_at, what, told = pending.pop(0)
            if what == "accepted":
                pacer.accepted(back, sent_at)
            else:
                pacer.throttled(back, sent_at, told if what == "told" else None)
            if what == "told":
                told_until = max(told_until, back + told)
            came = max(came, back)
        assert 0 < pacer.rate <= ceiling
        assert at >= last + 1 / pacer.rate - 1e-9
        assert at >= told_until
        pacer.leave(at, at)
        pending.append((at + latency, at, answer, retry_after))
        now = last = at


@given(st.lists(st.floats(0, 0.05), min_size=2, max_size=200))
def test_oversleeping_never_makes_a_burst(delays: list[float]) -> None:
    """A timer that fires late is made up for by at most the slack: no span holds more than the pace allows."""
    pacer, now, left = Pacer(100.0), 0.0, list[float]()
    for delay in delays:
        at = pacer.earliest(0.0)
        now = max(now, at) + delay
        pacer.leave(at, now)
        left.append(now)
    for first in range(len(left)):
        for last in range(first + 1, len(left)):
            assert last - first <= (left[last] - left[first] + SLACK_S) * 100.0 + 1e-6


def test_late_reports_of_the_same_refusal_change_nothing() -> None:
    """Calls that left before the pause began neither extend it nor lower the pace once more."""
    pacer = Pacer(40.0)
    for number in range(100):
        pacer.leave(number / 40, number / 40)
    pacer.throttled(2.5, 50 / 40, None)
    pace, pause = pacer.rate, pacer.earliest(0.0)
    for number in range(51, 100):
        pacer.throttled(2.6, number / 40, None)
    assert (pacer.rate, pacer.earliest(0.0)) == (pace, pause)


def test_the_pace_stays_where_nobody_waits() -> None:
    """Without callers that the pace holds back there is no reason to go past a limit that is known."""
    pacer, now = Pacer(40.0), 0.0
    for _ in range(40):
        pacer.leave(now, now)
        now += 1 / 40
    pacer.throttled(now, now - 1 / 40, None)
    pace = pacer.rate
    for _ in range(2000):
        now = pacer.earliest(now + 3)
        pacer.leave(now, now)
        pacer.accepted(now + 0.1, now)
    assert pacer.rate == pace < 40


def test_after_idling_there_is_no_burst() -> None:
    """Slots that were not used are gone."""
    pacer = Pacer(10.0)
    pacer.leave(0.0, 0.0)
    pacer.leave(pacer.earliest(100.0), 100.0)
    assert pacer.earliest(100.0) == pytest.approx(100.1)


def test_a_lone_trial_call_goes_first() -> None:
    """After the pause one call leaves; the others wait for its answer, then all go on."""
    pacer = Pacer(40.0)
    pacer.leave(0.0, 0.0)
    pacer.throttled(0.1, 0.0, None)
    trial = pacer.earliest(0.0)
    pacer.leave(trial, trial)
    assert pacer.earliest(0.0) > trial + 1
    pacer.accepted(trial + 0.2, trial)
    assert pacer.earliest(0.0) == pytest.approx(trial + 1 / pacer.rate)


def test_callers_leave_in_the_order_they_came() -> None:
    """First come, first served, a full gap apart."""

    async def main() -> list[tuple[int, float]]:
        limiter = AdaptiveLimiter(10.0, FakeClock())
        left: list[tuple[int, float]] = []

        async def call(number: int) -> None:
            left.append((number, (await limiter.slot()).sent_at))

        async with asyncio.TaskGroup() as tasks:
            for number in range(20):
                tasks.create_task(call(number))
        return left

    left = asyncio.run(main())
    assert [number for number, _ in left] == list(range(20))
    assert [at for _, at in left] == pytest.approx([number / 10 for number in range(20)])


class HeldClock(FakeClock):
    """Time that passes only when the test says so."""

    async def sleep(self, seconds: float) -> None:
        until = self.seconds + seconds
        while self.seconds < until:  # noqa: ASYNC110 - an event would stay set while other sleepers still look
            await asyncio.sleep(0)

    async def go_to(self, seconds: float) -> None:
        self.seconds = seconds
        for _ in range(20):
            await asyncio.sleep(0)


def test_a_cancelled_caller_leaves_no_trace() -> None:
    """Neither the caller at the head of the queue nor one in the middle takes a slot with it when it is cancelled."""

    async def main() -> tuple[list[float], float]:
        clock = HeldClock()
        limiter = AdaptiveLimiter(1.0, clock)
        await limiter.slot()
        waiting = [asyncio.create_task(limiter.slot()) for _ in range(4)]
        await clock.go_to(0.5)
        waiting[0].cancel()
        waiting[2].cancel()
        for second in (1.0, 2.0):
            await clock.go_to(second)
        left = [task.result().sent_at for task in (waiting[1], waiting[3])]
        await asyncio.gather(*waiting, return_exceptions=True)
        await clock.go_to(3.0)
        return left, (await limiter.slot()).sent_at

    assert asyncio.run(main()) == ([1.0, 2.0], 3.0)


def test_a_refusal_holds_back_callers_who_wait_already() -> None:
    """One pause for all: a caller whose slot was near waits for as long as the API asked."""

    async def main() -> tuple[float, int]:
        clock = HeldClock()
        limiter = AdaptiveLimiter(10.0, clock)
        ticket = await limiter.slot()
        waiting = asyncio.create_task(limiter.slot())
        await clock.go_to(0.05)
        limiter.throttled(ticket, 30.0)
        for tenth in range(1, 310):
            await clock.go_to(tenth / 10)
        return (await waiting).sent_at, limiter.refused

    left, refused = asyncio.run(main())
    assert left == pytest.approx(30.1)
    assert refused == 1


def test_good_news_ends_the_pause_at_once() -> None:
    """When a call that left after the refused one is accepted, callers go on without waiting for the pause to end."""

    async def main() -> tuple[bool, float]:
        clock = HeldClock()
        limiter = AdaptiveLimiter(40.0, clock)
        first = await limiter.slot()
        await clock.go_to(0.1)
        second = await limiter.slot()
        limiter.throttled(first, None)
        waiting = asyncio.create_task(limiter.slot())
        for hundredth in range(10, 30):  # a glance takes its time
            await clock.go_to(hundredth / 100)
        held_back = not waiting.done()
        limiter.accepted(second)
        for hundredth in range(30, 40):
            await clock.go_to(hundredth / 100)
        return held_back, (await waiting).sent_at

    held_back, left = asyncio.run(main())
    assert held_back
    assert left <= 0.4


def at_forty_a_second(refused: float, calls: int = 80) -> Pacer:
    """A pacer whose calls leave at 40/s and are answered a second later, until the one that left at *refused* is."""
    pacer = Pacer(40.0)
    for number in range(calls):
        pacer.leave(number / 40, number / 40)
        if number >= 40 and (left := (number - 40) / 40) < refused:
            pacer.accepted(number / 40, left)
    return pacer


def test_a_lone_refusal_near_the_limit_asks_for_no_trial() -> None:
    """A pause until a late answer would cost a second of a limit that is known: calls go on, a little more slowly."""
    pacer = at_forty_a_second(refused=1.0)
    pacer.throttled(2.0, 1.0, None)
    assert not pacer.closed
    assert pacer.earliest(0.0) <= 2.06
    assert pacer.rate == pytest.approx(39.2)


def test_a_wave_of_refusals_asks_for_a_trial_after_all() -> None:
    """When those who left with it are refused as well, it was no matter of one call."""
    pacer = at_forty_a_second(refused=1.0)
    for number in range(40, 44):
        pacer.throttled(2.0, number / 40, None)
    assert pacer.closed


def test_rare_refusals_do_not_lower_the_pace() -> None:
    """One in more than a hundred costs less than going slower for all of them would."""
    pacer = at_forty_a_second(refused=9.0, calls=400)
    pacer.throttled(10.0, 9.0, None)
    assert pacer.rate == 40.0
    assert not pacer.closed


def test_a_rare_refusal_ends_an_attempt_at_a_little_more() -> None:
    """A pace that has stood no long calm yet is the likelier cause."""
    pacer = at_forty_a_second(refused=9.0, calls=400)
    pacer._pace._proven, pacer._pace.rate = 38.5, 39.0
    pacer.throttled(10.0, 9.0, None)
    assert pacer.rate == 38.5


def test_a_turn_is_given_early_and_kept_to_the_slot() -> None:
    """A caller with something to do first gets its turn that much sooner; the calls still leave a full gap apart."""

    async def main() -> list[tuple[float, float]]:
        clock = FakeClock()
        limiter = AdaptiveLimiter(10.0, clock)
        given: list[tuple[float, float]] = []
        for _ in range(4):
            ticket = await limiter.slot(lambda: 0.03)
            given.append((clock.seconds, ticket.sent_at))
        return given

    given = asyncio.run(main())
    assert [leaves for _, leaves in given] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert [at for at, _ in given] == pytest.approx([0.0, 0.07, 0.17, 0.27])
