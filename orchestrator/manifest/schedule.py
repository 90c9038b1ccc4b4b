"""When workers carry a manifest out: ``schedule``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.manifest.fields import Field, Reading, Record, Text
from orchestrator.manifest.nodes import Entries, Node, Scalar, shown
from orchestrator.models import Json

#: One of cron's fields: numbers or names, ranges, steps, lists.
_CRON = r"[0-9A-Za-z*/,?#-]+"

SCHEDULE = Record(
    {
        "cron": Field(
            Text(
                rf"{_CRON}(?:[ \t]+{_CRON}){{4}}",
                'write five fields, minute hour day month weekday, such as "0 2 * * *"',
                max_length=200,
            ),
            "when workers carry the manifest out, as cron writes it: minute hour day month weekday",
            required=True,
        ),
        "timezone": Field(
            Text(r"[A-Za-z][A-Za-z0-9_+/-]*", "write a time zone such as Europe/Berlin, or UTC", max_length=64),
            "the time zone of these times, such as Europe/Berlin",
            required=True,
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Schedule:
    """When workers carry a manifest out: cron's five fields, and the time zone that they are of."""

    cron: str
    zone: str
    line: int = field(default=0, compare=False)  #: in the YAML file


def check_schedule(schedule: Node, reading: Reading) -> None:
    """Note a time zone that this machine does not know."""
    zone = schedule.values.get("timezone") if isinstance(schedule, Entries) else None
    if not isinstance(zone, Scalar) or zone.is_null:
        return
    from zoneinfo import ZoneInfo  # few manifests have one, and it is slow to load

    try:
        ZoneInfo(zone.text)
    except (ValueError, OSError, LookupError):
        reading.wrong(zone, f"{shown(zone.text)} is not a time zone; write one such as Europe/Berlin, or UTC")


def read_schedule(root: Entries, values: Mapping[str, Json]) -> Schedule | None:
    """The manifest's ``schedule``; None when it has none."""
    given = values["schedule"]
    return Schedule(given["cron"], given["timezone"], root.keys["schedule"].line) if given else None
