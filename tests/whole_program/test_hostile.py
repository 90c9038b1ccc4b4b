"""Nights with a server that was written from the contract alone, and that leaves out, bends and breaks by seed."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from hostile.books import Books, Job, Truth
from hostile.case import Told, judged, play
from hostile.server import Loop
from hostile.temper import HONEST, Temper

#: A dozen of all kinds that are soon over; `scripts/soak hostile` plays as many as one likes.
SEEDS = (4, 5, 6, 7, 8, 9, 10, 12, 18, 19, 25, 27)
#: Cases at once: each mostly waits.
AT_ONCE = 6


def all_of(seeds: Sequence[int], temper: Temper | None = None) -> list[Told]:
    with Loop() as loop, ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(partial(judged, loop=loop, temper=temper), seeds))


@pytest.mark.long
def test_no_server_makes_it_hang_crash_or_pay_twice() -> None:
    """And once the server is honest, a few more runs have the true outcome of every file."""
    assert [str(told) for told in all_of(SEEDS) if told.wrong] == []


def test_an_honest_server_is_done_with_in_one_run() -> None:
    """The judge has nothing to say of a server that does what the contract says."""
    (told,) = all_of(range(1), HONEST)
    assert (told.wrong, told.retried) == ([], False)
    assert all("exit 0" in run or "exit 1" in run for run in told.runs)


def test_times_beyond_reason_are_no_times() -> None:
    """All jobs are of the year 1, and an unanswered create call has to be told from them by when it was made."""
    temper = Temper(created="year1", foreign=1, lost_first=True)
    assert [str(told) for told in all_of((7,), temper) if told.wrong] == []


def test_a_ledger_that_holds_such_a_time_is_as_good_as_any() -> None:
    """An earlier version wrote down whatever the API called the newest job's time."""
    marked = []

    def mark(ledger: Path) -> None:
        with closing(sqlite3.connect(ledger)) as connection:
            change = "UPDATE jobs SET mark = '0001-01-01T00:00:00+00:00' WHERE status = 'submitting'"
            marked.append(connection.execute(change).rowcount)
            connection.commit()

    with Loop() as loop:
        told = play(7, loop, Temper(lost_first=True, loss="no id", hides_own=True), between=mark)
    assert (told.wrong, marked) == ([], [1])


@pytest.mark.parametrize(("first", "second", "twice"), [("sinks", "x", []), ("x", "x", ["x"]), ("x", "y", [])])
def test_a_file_is_bought_twice_unless_its_first_job_came_to_nothing(first: str, second: str, twice: list[str]) -> None:
    """A job that one file sinks is halved: that is no second purchase of the same answer."""
    books = Books(0, {"sinks": Truth(sinks=True), "x": Truth("invoice"), "y": Truth("invoice")})
    for number, files in enumerate(([first, "z"], [second, "z2"] if second != "x" else ["x"])):
        books.add(Job(str(number), "v1", files, {}, 0.0, 0.0, 0.0))
    if first == "sinks":
        books.add(Job("3", "v1", ["z"], {}, 0.0, 0.0, 0.0))
    assert list(books.bought_twice()) == twice
