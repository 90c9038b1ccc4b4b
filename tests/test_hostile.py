"""Nights with a server that was written from the contract alone, and that leaves out, bends and breaks by seed."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from hostile.books import Books, Job, Truth
from hostile.case import Told, judged
from hostile.server import Loop
from hostile.temper import HONEST, Temper

#: A dozen of all kinds that are soon over; `scripts/soak hostile` plays as many as one likes.
SEEDS = (4, 5, 6, 7, 8, 9, 10, 12, 18, 19, 25, 27)
#: Cases at once: each mostly waits.
AT_ONCE = 6


def all_of(seeds: Sequence[int], temper: Temper | None = None) -> list[Told]:
    with Loop() as loop, ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(partial(judged, loop=loop, temper=temper), seeds))


def test_no_server_makes_it_hang_crash_or_pay_twice() -> None:
    """And once the server is honest, a few more runs have the true outcome of every file."""
    assert [str(told) for told in all_of(SEEDS) if told.wrong] == []


def test_an_honest_server_is_done_with_in_one_run() -> None:
    """The judge has nothing to say of a server that does what the contract says."""
    (told,) = all_of(range(1), HONEST)
    assert (told.wrong, told.retried) == ([], False)
    assert all("exit 0" in run or "exit 1" in run for run in told.runs)


@pytest.mark.parametrize(("first", "second", "twice"), [("sinks", "x", []), ("x", "x", ["x"]), ("x", "y", [])])
def test_a_file_is_bought_twice_unless_its_first_job_came_to_nothing(first: str, second: str, twice: list[str]) -> None:
    """A job that one file sinks is halved: that is no second purchase of the same answer."""
    books = Books(0, {"sinks": Truth(sinks=True), "x": Truth("invoice"), "y": Truth("invoice")})
    for number, files in enumerate(([first, "z"], [second, "z2"] if second != "x" else ["x"])):
        books.add(Job(str(number), "v1", files, {}, 0.0, 0.0, 0.0))
    if first == "sinks":
        books.add(Job("3", "v1", ["z"], {}, 0.0, 0.0, 0.0))
    assert list(books.bought_twice()) == twice
