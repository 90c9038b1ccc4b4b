"""Slots and news on a real server: no slot twice, whoever asks at the same time, and every other process hears."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from orchestrator import ledger
from orchestrator.ledger.postgres import pace
from orchestrator.ledger.postgres.address import Server
from orchestrator.ledger.postgres.session import connect

#: Kind, calls, seconds between two, not before when, seconds ahead.
Wish = tuple[str, int, float, float, float]

ABOUT = {"project": "p", "channel": "pace_p", "lead_s": 0.02}


class Part:
    """A process that asks for what it is told to, and remembers."""

    def __init__(self, asked: list[Wish] | None = None, news: list[str] | None = None) -> None:
        self.asked = asked or []
        self.news = news or []
        self.slots: list[float] = []
        self.words: list[str] = []
        self.rates: dict[str, float] = {}
        self.processes = 0
        self.answered = threading.Event()

    def asks(self) -> tuple[list[Wish], list[str]]:
        asked, news = self.asked, self.news
        self.asked, self.news = [], []
        return asked, news

    def told(self, now: float, waited_s: float, processes: int) -> None:
        self.processes = processes
        self.answered.set()

    def given(self, kind: str, first: float, calls: int, step_s: float, *, idle: bool) -> None:
        self.slots += [first + number * step_s for number in range(calls)]

    def heard(self, words: str) -> None:
        self.words.append(words)

    def joined(self, kind: str, rate_per_s: float) -> None:
        self.rates[kind] = rate_per_s


@pytest.fixture
def server(database: str) -> Server:
    """A ledger."""
    at = ledger.locate(database)
    assert isinstance(at, Server)
    ledger.open(at).close()
    return at


def until(condition: Callable[[], bool]) -> None:
    """Wait for the threads; long before the time is up."""
    end = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_nobody_gets_anothers_slot(server: Server) -> None:
    """Four who ask again and again at the same time: all slots differ by the step, and none is left out."""

    def ask(_: int) -> list[float]:
        slots: list[float] = []
        with connect(server, "test", autocommit=True) as connection:
            connection.execute(pace._ROWS, {**ABOUT, "kinds": ["creates"]})
            for _ in range(25):
                wish = {**ABOUT, "kind": "creates", "calls": 2, "step_s": 1.0, "not_before": 0.0, "horizon_s": 3600.0}
                first, calls, _, _ = connection.execute(pace._GIVE, wish).fetchall()[0]
                slots += [first + number for number in range(calls)]
        return slots

    with ThreadPoolExecutor(4) as pool:
        slots = sorted(slot for found in pool.map(ask, range(4)) for slot in found)
    assert len(slots) == 200
    assert {round(later - earlier, 6) for earlier, later in itertools.pairwise(slots)} == {1.0}


def test_slots_lie_within_the_horizon(server: Server) -> None:
    """Who asks for more than the pace allows in that time gets as many as it allows."""
    with connect(server, "test", autocommit=True) as connection:
        part = Part(asked=[("creates", 1000, 0.1, 0.0, 0.95)])
        place = pace.Place(server, "p", ("creates",))
        place._exchange(connection, part, ABOUT)
        assert part.slots == []  # there was no row yet: now there is
        part.asked = [("creates", 1000, 0.1, 0.0, 0.95)]
        place._exchange(connection, part, ABOUT)
    assert len(part.slots) == 10


def test_every_other_process_hears_of_slots_and_news(server: Server) -> None:
    """And nobody of its own; each knows how many there are, and begins at the pace that was found last."""
    one, other, later = Part(), Part(), Part()
    places = [pace.Place(server, "p", ("creates",)) for _ in range(3)]
    for place, part in zip(places[:2], (one, other), strict=True):
        place.start(part, lead_s=0.02)
        until(part.answered.is_set)
    one.asked, one.news = [("creates", 1, 0.05, 0.0, 0.25)], ["tidings"]
    places[0].wake()
    until(lambda: bool(one.slots))
    places[1].wake()
    until(lambda: len(other.words) == 2 and other.processes == 2)
    assert other.words[0] == "tidings"
    assert f"{one.slots[0]}" in other.words[1]
    assert one.words == []
    places[2].start(later, lead_s=0.02)
    until(later.answered.is_set)
    assert later.rates == {"creates": 20.0}
    for place in places:
        place.close()


def test_another_projects_pace_is_none_of_ours(server: Server) -> None:
    """Its slots begin where they like, and its news is not heard."""
    with connect(server, "test", autocommit=True) as connection:
        for project in ("p", "q"):
            about = {**ABOUT, "project": project}
            connection.execute(pace._ROWS, {**about, "kinds": ["creates"]})
            wish = {**about, "kind": "creates", "calls": 100, "step_s": 1.0, "not_before": 0.0, "horizon_s": 3600.0}
            assert connection.execute(pace._GIVE, wish).fetchall()[0][0] < time.time() + 50
