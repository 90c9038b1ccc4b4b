"""What the server may do to its client, as data: ``HONEST`` does none of it, ``drawn`` picks a few things by seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from hostile.wire import Manner

#: Seconds by which the program is set to let a listing lag; the server keeps to it.
SETTLE_S = 0.6


@dataclass(frozen=True)
class Temper:
    """Each field is one thing that the contract leaves open, or that servers do anyway. Times in seconds."""

    # Its clock, and how the times of a job are reported
    clock_off_s: float = 0.0
    clock_jumps_s: float = 0.0  #: by so much, a second after it began
    created: str = "told"  #: a name of ``telling.stamp``
    updated: str = "told"
    odd_jobs: float = 1.0  #: share of the jobs whose times are told in these ways

    # Create calls
    lost_after: float = 0.0  #: share that have their effect and no readable answer
    lost_before: float = 0.0  #: share that have neither
    lost_first: bool = False  #: the first call of all is one of the former
    loss: str = "silent"  #: a name of ``trouble.LOSSES``
    create_status: int = 200
    create_answer: str = "whole"
    foreign_id: bool = False  #: the second call is answered with a job of others
    conflict: bool = False  #: v2: 409 on a key that was used before

    # Too many calls
    throttled: float = 0.0  #: share of all calls that are told to wait, in the first two seconds
    throttle_status: int = 429
    retry_after: str | None = None

    # The list
    order: str = "new"  #: new, old, status, foreign, id, any
    lag_s: float = 0.0  #: until a job is in the list; less than ``SETTLE_S``
    page_cap: int = 50
    last_token: str = "null"
    token: str = "plain"
    total_size: str = "null"
    bare: int = 0  #: no page but an array, of so many jobs at most
    blank_pages: bool = False
    overlap: bool = False  #: the last job of a page is the first of the next
    loops: bool = False
    hides_own: bool = False
    list_down: int = 0  #: answered with this status
    list_most: int = 0  #: 422 when more are asked for
    ignores_filter: bool = False  #: v2: ``job_ids`` is not looked at

    # Jobs of others
    foreign: int = 0
    foreign_files: str = "disjoint"
    foreign_dated_s: float = 0.0
    foreign_ends: bool = True
    foreign_row: str = "plain"  #: one of them is told in this way

    # What a job says of itself
    echo: tuple[str, ...] = ()  #: names of ``telling.ECHOES``
    echo_known_too: bool = True  #: False: only what is listed differs, not what is got one by one
    lasts_s: float = 0.3
    words: str = "plain"
    get_lag_s: float = 0.0  #: until a job can be got
    get_down: int = 0

    # Results
    late_s: float = 0.0
    late: str = "empty"  #: none, null, part, shrinking, 404, 500 until then
    rows: tuple[str, ...] = ()  #: names of ``telling.ROWS``
    broken_jobs: float = 0.0  #: share of the jobs whose results can't be read, until the server is honest
    broken: int = 500
    padding: int = 0  #: characters of reasoning

    # The wire
    manner: Manner = Manner.PLAIN
    failing_reads: float = 0.0  #: share of the GETs that end in a reset or a 5xx
    slow_s: float = 0.0

    @property
    def told(self) -> dict[str, Any]:
        """What it does that an honest server does not."""
        return {each.name: value for each in fields(self) if (value := getattr(self, each.name)) != each.default}


HONEST = Temper()

Draw = Callable[[random.Random], Mapping[str, Any]]

STAMPS = (
    "absent", "null", "year1", "constant", "two hours early", "eight hours off", "a day late", "a minute late",
    "naive", "number", "year9999", "garbage", "leap second", "before", "space", "offset",
)  # fmt: skip
LOSSES = ("silent", "reset", "cut", "500", "502", "503", "504", "408", "garbage", "empty", "html", "hang", "no id",
          "null id", "204", "truncated", "array")  # fmt: skip
RETRY_AFTERS = ("0", "1", " 1 ", "0.5", "-1", "1e0", "soon", "", "past", "near", "9" * 30, "45", "3600", "year9999",
                "1, 1", "+1", "٣")  # fmt: skip
ROWS = (
    "number id", "null id", "no id", "twice", "twice null", "twice reasoning", "nameless", "upper case", "prefixed",
    "text confidence", "big confidence", "null confidence", "no confidence", "no reasoning", "null reasoning",
    "other job", "never sent", "null row", "text row", "shuffled", "no times", "extra", "whole confidence", "nested",
)  # fmt: skip
ECHOES = (
    "no mode", "null mode", "lower mode", "no parsing", "null parsing", "empty parsing", "null max_pages",
    "no max_pages", "no lang", "lang list", "text max_pages", "white space", "trimmed", "rules reordered", "no rules",
    "null rules", "empty rules", "extra", "no project", "upper id", "null project", "no status", "null target_pages",
    "rules dict",
)  # fmt: skip


def _some(rng: random.Random, names: tuple[str, ...], most: int = 2) -> tuple[str, ...]:
    return tuple(rng.sample(names, rng.randint(1, most)))


def _clock(rng: random.Random) -> Mapping[str, Any]:
    return {"clock_off_s": rng.choice((60, -60, 3600, -7200, 8 * 3600, 86400, -86400 * 365))}


def _jump(rng: random.Random) -> Mapping[str, Any]:
    return {"clock_jumps_s": rng.choice((-3600, 3600, -1200, 86400, -30, 30))}


def _stamps(rng: random.Random) -> Mapping[str, Any]:
    which = rng.choice((("updated",), ("created",), ("created", "updated")))
    return {name: rng.choice(STAMPS) for name in which} | {"odd_jobs": rng.choice((1.0, 1.0, 0.2))}


def _lost(rng: random.Random) -> Mapping[str, Any]:
    first = rng.random() < 0.3
    return {"lost_after": rng.choice((0.1, 0.3, 0.6)), "loss": rng.choice(LOSSES), "lost_first": first}


def _lost_before(rng: random.Random) -> Mapping[str, Any]:
    return {"lost_before": rng.choice((0.1, 0.3)), "loss": rng.choice(LOSSES)}


def _create(rng: random.Random) -> Mapping[str, Any]:
    answers = ("whole", "only id", "no status", "odd status", "ended", "no rules", "extra", "nulls")
    return {"create_status": rng.choice((200, 201, 202)), "create_answer": rng.choice(answers)}


def _foreign_id(rng: random.Random) -> Mapping[str, Any]:
    return {"foreign_id": True, "foreign": rng.randint(1, 3)}


def _throttled(rng: random.Random) -> Mapping[str, Any]:
    status = rng.choice((429, 429, 503))
    return {"throttled": rng.choice((0.2, 0.5)), "throttle_status": status, "retry_after": rng.choice(RETRY_AFTERS)}


def _order(rng: random.Random) -> Mapping[str, Any]:
    return {"order": rng.choice(("old", "status", "foreign", "id", "any")), "page_cap": rng.choice((2, 3, 50))}


def _pages(rng: random.Random) -> Mapping[str, Any]:
    return {
        "page_cap": rng.choice((1, 2, 3, 5, 50)),
        "last_token": rng.choice(("null", "absent", "empty")),
        "token": rng.choice(("plain", "long", "odd", "number")),
        "total_size": rng.choice(("null", "zero", "text", "wrong")),
        "blank_pages": rng.random() < 0.3,
        "overlap": rng.random() < 0.3,
    }


def _lag(rng: random.Random) -> Mapping[str, Any]:
    return {"lag_s": rng.choice((0.1, 0.3, 0.5))}


def _bare(rng: random.Random) -> Mapping[str, Any]:
    return {"bare": rng.choice((50, 1000)), "foreign": rng.choice((0, 60))}


def _list_down(rng: random.Random) -> Mapping[str, Any]:
    return {"list_down": rng.choice((404, 405, 422, 500, 503, 501, 403))}


def _list_odd(rng: random.Random) -> Mapping[str, Any]:
    odd: tuple[Mapping[str, Any], ...] = (
        {"list_most": 20}, {"loops": True}, {"hides_own": True}, {"ignores_filter": True},
    )  # fmt: skip
    return rng.choice(odd)


def _foreign(rng: random.Random) -> Mapping[str, Any]:
    rows = ("plain", "plain", "number id", "null id", "null", "text", "null rules", "no status", "list")
    return {
        "foreign": rng.choice((1, 3, 12, 60)),
        "foreign_files": rng.choice(("disjoint", "subset", "superset")),
        "foreign_dated_s": rng.choice((0, -300, 1200, 86400)),
        "foreign_ends": rng.random() < 0.7,
        "foreign_row": rng.choice(rows),
    }


def _echo(rng: random.Random) -> Mapping[str, Any]:
    return {"echo": _some(rng, ECHOES), "echo_known_too": rng.random() < 0.8}


def _status(rng: random.Random) -> Mapping[str, Any]:
    words = ("plain", "lower", "unknown first", "null first", "back and forth", "spaced")
    return {"words": rng.choice(words), "lasts_s": rng.choice((0.0, 0.1, 0.5, 1.5))}


def _get(rng: random.Random) -> Mapping[str, Any]:
    return rng.choice(({"get_lag_s": 0.4}, {"get_down": rng.choice((404, 405, 500))}))


def _late(rng: random.Random) -> Mapping[str, Any]:
    late = rng.choice(("none", "null", "part", "shrinking", "404", "500"))
    return {"late": late, "late_s": rng.choice((0.3, 1.0, 3.0))}


def _rows(rng: random.Random) -> Mapping[str, Any]:
    return {"rows": _some(rng, ROWS), "padding": rng.choice((0, 0, 100_000))}


def _broken(rng: random.Random) -> Mapping[str, Any]:
    return {"broken_jobs": rng.choice((0.1, 0.4)), "broken": rng.choice((500, 404, 410, 502, 422))}


def _wire(rng: random.Random) -> Mapping[str, Any]:
    orderly = [manner for manner in Manner if manner not in (Manner.SILENT, Manner.RESET, Manner.CUT, Manner.HANG)]
    return {
        "manner": rng.choice(orderly),
        "failing_reads": rng.choice((0.0, 0.05, 0.2)),
        "slow_s": rng.choice((0.0, 0.0, 0.1)),
    }


def _conflict(rng: random.Random) -> Mapping[str, Any]:
    return {"conflict": True, "lost_after": 0.3, "loss": rng.choice(LOSSES)}


KINDS: tuple[Draw, ...] = (
    _clock, _jump, _stamps, _stamps, _lost, _lost, _lost, _lost_before, _create, _foreign_id, _throttled, _order,
    _pages, _lag, _bare, _list_down, _list_odd, _foreign, _echo, _echo, _status, _get, _late, _rows, _rows, _broken,
    _wire, _conflict,
)  # fmt: skip


def drawn(rng: random.Random, *, most: int = 4) -> Temper:
    """A server that does one to *most* kinds of things."""
    temper = HONEST
    for draw in rng.sample(KINDS, rng.randint(1, most)):
        temper = replace(temper, **draw(rng))
    return temper
