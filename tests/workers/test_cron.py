"""Times by cron in a time zone: none is missed, none comes twice, whatever the clocks do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("procrastinate")

from orchestrator.workers import cron

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu")
EXPRESSIONS = ("0 2 * * *", "30 2 * * *", "*/7 * * * *", "15 1,2,3 * * 0", "0 0 29 2 *", "59 23 31 12 *")

times = st.integers(1_577_836_800, 1_893_456_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))


@given(st.sampled_from(EXPRESSIONS), st.sampled_from(ZONES), times)
def test_each_instant_lies_between_two_times(expression: str, zone: str, at: datetime) -> None:
    """The latest time is not after the instant, the following one is, and there is none between the two."""
    latest, following = cron.around(expression, zone, at)
    assert latest <= at < following
    assert cron.following(expression, zone, latest) == following
    assert cron.latest(expression, zone, following) == following


@pytest.mark.parametrize(
    ("at", "following"),
    [
        pytest.param("2026-03-28T12:00", "2026-03-29T01:30", id="02:30 is skipped in spring: 03:30 by the new clock"),
        pytest.param("2026-03-29T01:30", "2026-03-30T00:30", id="and the day after it is 02:30 again"),
        pytest.param("2026-10-24T12:00", "2026-10-25T00:30", id="02:30 comes twice in autumn: the first of them"),
        pytest.param("2026-10-25T00:30", "2026-10-26T01:30", id="and the second is none"),
    ],
)
def test_a_change_of_the_clocks_costs_no_night_and_adds_none(at: str, following: str) -> None:
    """A night's run in Berlin comes once on the days on which the clocks change."""
    found = cron.following("30 2 * * *", "Europe/Berlin", datetime.fromisoformat(at).replace(tzinfo=UTC))
    assert found == datetime.fromisoformat(following).replace(tzinfo=UTC)


def test_what_has_no_times_is_said_in_words() -> None:
    """An expression without times is named as wrong, a good one is not."""
    assert cron.wrong("0 2 * * 1-5") is None
    assert cron.wrong("61 2 * * *")
    assert cron.wrong("0 0 31 2 *")


def test_far_apart_times_are_found() -> None:
    """A time that comes every four years is found from any instant."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    assert cron.following("0 0 29 2 *", "UTC", at) - at > timedelta(days=700)
