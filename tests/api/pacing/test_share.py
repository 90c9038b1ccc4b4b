"""One pace that several processes keep together: what holds in virtual time, whoever comes, goes or is cut off."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.benches import load_bench

from orchestrator.api.pacing.share import ALONE_S, HORIZON_S, LATE_S, PACE, Grant, Share

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


def test_slots_that_nobody_waits_for_any_longer_are_given_back() -> None:
    """The others hear that they went unused; none is left to be used later."""
    share = Share(40.0)
    share.got(Grant(10.0, 3, 0.025, idle=False))
    share.give_all_back()
    assert share.take_news() == [("u", slot, None) for slot in (10.0, 10.025, 10.05)]
    assert share.next(10.0, heard_at=10.0) is None


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


def closed_at(at: float, share: Share) -> None:
    """The limit of 20 a second is met: 20 calls have left within it, and the next is refused."""
    share.others_got(Grant(at - 0.5, 20, 0.025, idle=False))
    share.throttled(at + 0.05, at, None)
    assert share.rate_per_s == pytest.approx(19.6)


def test_a_trial_that_is_refused_is_followed_by_the_next_within_seconds() -> None:
    """However soon after the refusal before it the trial left: nobody waits as for a trial without an answer."""
    share = Share(40.0)
    closed_at(10.0, share)
    for slot in (10.56, 10.7):  # the second leaves before everybody has heard of the first's refusal
        share.got(Grant(slot, 1, 0.05, idle=False))
        share.use(slot)
        share.throttled(slot + 0.02, slot, None)
    wish = share.wish(13.0, 1)
    assert wish is not None
    assert wish.not_before <= 13.0


def test_a_trial_that_was_not_ready_makes_room_for_another() -> None:
    """Its slot is given back, and nobody waits for the answer of a call that never left."""
    one, other = Share(40.0), Share(40.0)
    for share in (one, other):
        closed_at(10.0, share)
    one.got(Grant(10.56, 1, 0.05, idle=False))
    one.use(10.56)
    other.hear(10.6, one.take_news())
    assert other.wish(10.65, 1) is None
    one.give_back(10.56)
    other.hear(10.65, one.take_news())
    assert one.wish(10.65, 1) is not None
    assert other.wish(10.65, 1) is not None


def test_all_keep_the_pace_of_the_one_that_has_listened_longest() -> None:
    """Who came amid the first refusals has counted few of the calls; the one that counts them all is not misled."""
    one, other = Share(40.0), Share(40.0)
    one.since, other.since = 1.0, 9.9
    closed_at(10.0, one)
    other.others_got(Grant(9.9, 4, 0.025, idle=False))
    other.hear(10.1, one.take_news())
    assert other.rate_per_s < 10
    for share in (one, other):
        share.accepted(10.7, 10.65)  # the gate is open
    one.hear(10.8, other.learnt())
    assert one.rate_per_s == pytest.approx(19.6)
    other.hear(10.8, one.learnt())
    assert other.rate_per_s == one.rate_per_s


def test_a_pace_from_before_a_refusal_raises_nobodys() -> None:
    """Who closed the gate does not go back to what the others keep that have not heard of it yet."""
    one, other = Share(40.0), Share(40.0)
    one.since, other.since = 1.0, 9.0
    closed_at(10.0, other)
    other.hear(10.1, [(PACE, 1.0, 39.2)])
    assert other.rate_per_s == pytest.approx(19.6)


def test_a_ceiling_of_ones_own_is_no_pace_of_all() -> None:
    """Somebody sends slowly because a person wants that: the others do not follow, and nobody goes past its own."""
    slow, fast = Share(5.0), Share(40.0)
    slow.since, fast.since = 1.0, 2.0
    fast.hear(3.0, slow.learnt())
    assert fast.rate_per_s == 40.0
    slow.since = 3.0
    slow.hear(4.0, [(PACE, 2.0, 20.0)])
    assert slow.rate_per_s == 5.0


@pytest.mark.parametrize("seed", range(4))
def test_who_comes_amid_the_first_refusals_slows_nobody_down(seed: int) -> None:
    """Three that begin one after the other just when an unknown limit is met use it as well as one would."""
    senders = [SIM.Sender(Share(40.0), 400, begins) for begins in (0.0, 0.45, 0.55)]
    report = SIM.simulate(LIMITER.Sliding(20, 1.0), 20.0, senders, seed=seed)
    assert report.used >= 0.95
    assert report.refused <= 0.02
