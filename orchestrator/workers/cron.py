"""The times of a cron expression in a time zone.

A time that the clocks skip in spring counts as the same time after the gap; one that comes twice in autumn counts once,
the first time.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from croniter import CroniterError, croniter

#: A change of the clocks moves a time by no more.
_DAY = timedelta(days=1)


def wrong(cron: str) -> str | None:
    """Why *cron* has no times, in words; None when it has."""
    try:
        croniter(cron, datetime(2026, 1, 1)).get_next(datetime)  # noqa: DTZ001 - local time is meant
    except CroniterError as error:
        return str(error)
    return None


def following(cron: str, zone: str, at: datetime) -> datetime:
    """The first time of *cron* in *zone* after the instant *at*."""
    local = ZoneInfo(zone)
    times = croniter(cron, at.astimezone(local).replace(tzinfo=None))
    while True:
        found = _instant(times.get_next(datetime), local)
        if found > at:
            return found


def latest(cron: str, zone: str, at: datetime) -> datetime:
    """The last time of *cron* in *zone* up to the instant *at*."""
    local = ZoneInfo(zone)
    times = croniter(cron, at.astimezone(local).replace(tzinfo=None) + _DAY)
    while True:
        found = _instant(times.get_prev(datetime), local)
        if found <= at:
            return found


def around(cron: str, zone: str, at: datetime) -> tuple[datetime, datetime]:
    """The last time up to *at*, and the first after it."""
    return latest(cron, zone, at), following(cron, zone, at)


def _instant(wall: datetime, zone: ZoneInfo) -> datetime:
    return wall.replace(tzinfo=zone).astimezone(UTC)
