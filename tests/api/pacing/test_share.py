"""One pace that several processes keep together: what holds in virtual time, whoever comes, goes or is cut off."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.benches import load_bench

from orchestrator.api.pacing.share import ALONE_S, HORIZON_S, LATE_S, Grant, Share

LIMITER = load_bench("limiter_sim")
SIM = load_bench("shared_pace_sim")


class Anything:
    """An API without a limit."""

    def refuses(self, now: float) -> float | None:
        return None


@settings(max_examples=8, deadline=None)
@given(
    processes=st.integers(1, 6),
    begins=st.lists(st.floats(0, 1), min_size=6, max_size=6),
    calls=st.lists(st.integers(1, 60), min_size=6, max_size=6),
    seed=st.integers(0, 99),
)
def test_no_second_has_more_calls_than_the_pace(
    processes: int, begins: list[float], calls: list[int], seed: int
) -> None:
    """Whenever they begin and however much they have to send: together they leave as one process would."""
    senders = [SIM.Sender(Share(40.0), calls[n], begins[n]) for n in range(processes)]
    report = SIM.simulate(Anything(), 40.0, senders, seed=seed)
    assert report.most_in_a_second <= 41 + 40 * LATE_S
    assert sum(report.sent) == sum(calls[:processes])


def test_a_limit_that_nobody_knows_is_used() -> None:
    """Three at 20 a second, met at 40: 95 % of it is used, and at most 2 % of the calls are refused."""
    senders = [SIM.Sender(Share(40.0), 400) for _ in range(3)]
    report = SIM.simulate(LIMITER.Sliding(20, 1.0), 20.0, senders)
    assert report.used >= 0.95
    assert report.refused <= 0.02
    assert max(report.sent) <= 1.5 * min(report.sent)


def test_one_who_comes_later_takes_over_what_the_others_found() -> None:
    """It begins at their pace and not at the documented one, so nothing of its is refused for that."""
    senders = [SIM.Sender(Share(40.0), 300), SIM.Sender(Share(40.0), 200, begins=8.0)]
    alone = SIM.simulate(LIMITER.Fixed(20, 1.0), 20.0, [SIM.Sender(Share(40.0), 500)])
    report = SIM.simulate(LIMITER.Fixed(20, 1.0), 20.0, senders)
    assert report.refused <= alone.refused + 0.005


@pytest.mark.parametrize("processes", [2, 3, 5])
def test_without_the_database_each_keeps_to_its_part(processes: int) -> None:
    """Cut off for ten seconds they go on, each at its part of the pace, and no second has many more than it."""
    senders = [SIM.Sender(Share(40.0), 800 // processes) for _ in range(processes)]
    report = SIM.simulate(Anything(), 40.0, senders, away=(4.0, 14.0))
    assert report.most_in_a_second <= 40 + 2 * processes
    assert report.seconds <= 800 / 40 + 3 * ALONE_S


def test_slots_that_come_too_late_are_given_back() -> None:
    """Who could not leave in time leaves none of them in a burst, and the others hear that they went unused."""
    share = Share(40.0)
    share.got(Grant(10.0, 4, 0.025, idle=False))
    assert share.next(10.1, heard_at=10.1) == 10.05
    assert [what for what, _, _ in share.take_news()] == ["u", "u"]


def test_the_refusal_of_one_holds_back_all() -> None:
    """Who hears of it drops its slots and asks for one again only when the window has room."""
    one, other = Share(40.0), Share(40.0)
    grant, rest = Grant(10.0, 20, 0.025, idle=False), Grant(10.5, 4, 0.025, idle=False)
    for share in (one, other):
        share.others_got(grant)
    other.got(rest)
    one.throttled(10.55, 10.475, None)
    other.hear(10.6, one.take_news())
    assert other.next(10.6, heard_at=10.6) is None
    assert other.wish(10.6, 5) is None
    assert other.wish(11.05, 5) is not None


def test_what_is_asked_for_lies_close_ahead() -> None:
    """Nothing is asked for that could not leave soon, as after a Retry-After."""
    share = Share(40.0)
    assert share.wish(0.0, 0) is None
    share.throttled(1.0, 0.9, 30.0)
    assert share.wish(30.9 - HORIZON_S, 3) is None
    assert share.wish(31.0, 3) is not None
