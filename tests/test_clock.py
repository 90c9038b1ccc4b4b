"""Times that come from outside: taken when they can be true, and never an error."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.clock import time_of


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-11-27T01:02:03Z", datetime(2026, 11, 27, 1, 2, 3, tzinfo=UTC)),
        ("2026-11-27T01:02:03", datetime(2026, 11, 27, 1, 2, 3, tzinfo=UTC)),
        ("2026-11-27T02:02:03.000+01:00", datetime(2026, 11, 27, 1, 2, 3, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", None),
        ("9999-12-31T23:59:59.999999-12:00", None),
        ("1970-01-01T00:00:00Z", None),
        ("2016-12-31T23:59:60Z", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_a_time_is_taken_when_it_is_within_reason(text: str, time: datetime | None) -> None:
    """Without a zone it is UTC; what is no time, or none that was meant, counts as not told."""
    assert time_of(text) == time


@given(st.text() | st.datetimes().map(str) | st.datetimes(timezones=st.timezones()).map(datetime.isoformat))
def test_any_time_from_outside_can_be_reckoned_with(text: str) -> None:
    """Nothing that the API can say overflows in a subtraction or a comparison."""
    time = time_of(text)
    if time is not None:
        assert time - timedelta(days=365) < time.astimezone(UTC) < time + timedelta(days=365)
