"""Time as the ledger writes it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.clock import timestamp

MOMENTS = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-7)), timezone(timedelta(hours=5.5))]))


def test_a_moment_is_written_in_utc_to_the_millisecond() -> None:
    """Every zone and every precision comes out as one shape."""
    moment = datetime(2026, 1, 2, 3, 4, 5, 678_999, tzinfo=timezone(timedelta(hours=1)))
    assert timestamp(moment) == "2026-01-02T02:04:05.678+00:00"
    assert timestamp(moment, "seconds") == "2026-01-02T02:04:05+00:00"


@given(MOMENTS.filter(lambda moment: 2 < moment.year < 9998), MOMENTS.filter(lambda moment: 2 < moment.year < 9998))
def test_written_moments_sort_as_text(first: datetime, second: datetime) -> None:
    """The ledger compares times as text, so an earlier moment is never the greater text."""
    if first <= second:
        assert timestamp(first) <= timestamp(second)
