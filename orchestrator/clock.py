"""Time as the program sees it: injected everywhere, so that tests and the simulation own it. Standard library only."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Literal, Protocol


def timestamp(moment: datetime, precision: Literal["milliseconds", "seconds"] = "milliseconds") -> str:
    """*moment* as the ledger writes it: ISO 8601, UTC, to the millisecond. All times compare as text."""
    return moment.astimezone(UTC).isoformat(timespec=precision)


#: Years in which a time from outside can lie; one beyond them breaks arithmetic, and was never meant.
YEARS = range(2000, 2101)


def time_of(text: str) -> datetime | None:
    """Return the time that *text* from outside names, aware; None unless it is ISO 8601 and within reason."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time.replace(tzinfo=time.tzinfo or UTC) if time.year in YEARS else None


class Clock(Protocol):
    """Durations come from ``monotonic``; ``now`` is only for what is written down."""

    def monotonic(self) -> float:
        """Seconds that never go back."""

    def now(self) -> datetime:
        """The wall clock, aware, UTC."""

    async def sleep(self, seconds: float) -> None:
        """Return after *seconds* of ``monotonic`` time; zero or less only yields."""


class SystemClock:
    """The machine's own clock."""

    def monotonic(self) -> float:
        return time.monotonic()

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        import asyncio  # the commands that only look never sleep, and it would be a sixth of their start

        await asyncio.sleep(seconds)
