"""The display of a run under way: whole lines at any width, counts and a time left that can be believed."""

from __future__ import annotations

import asyncio
import io
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import cast

import pytest
from rich.console import Console
from support.server import FakeClock

from orchestrator.api.client import Api
from orchestrator.cli.live import Display, watcher
from orchestrator.errors import Interrupted, Unauthorized
from orchestrator.ledger import Ledger
from orchestrator.ledger.chunks.plan import Counts
from orchestrator.ledger.chunks.retry import Changes
from orchestrator.ledger.queue import Shard
from orchestrator.ledger.scope import Scope
from orchestrator.ledger.writer import Writer
from orchestrator.models import Outcome
from orchestrator.plaintext import span
from orchestrator.planning.run import Plan
from orchestrator.stages.work import Progress, Work


@pytest.fixture
def work() -> Work:
    """A run that was just begun and has no API to talk to."""
    clock = FakeClock()
    limiters = SimpleNamespace(creates=SimpleNamespace(refused=0, rate_per_s=40.0))
    api = cast(Api, SimpleNamespace(limiters=limiters, silent=lambda: None))
    return Work(Shard(1, "v1"), "run", api, Writer(Ledger.in_memory(), clock), clock, 0, 0, Progress())


def shown(display: Display, width: int) -> list[str]:
    out = Console(file=io.StringIO(), width=width)
    out.print(display.view(width))
    return [line.rstrip() for line in cast(io.StringIO, out.file).getvalue().splitlines()]


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (200, "600 of 1,500 files  12 failed  about 30 s left  30 jobs created  30.0 files/s"),
        (60, "600 of 1,500 files  12 failed  about 30 s left"),
        (32, "600 of 1,500 files  12 failed"),
        (13, "600 of 1,…"),
    ],
)
def test_it_is_a_bar_and_one_line_at_any_width(work: Work, width: int, line: str) -> None:
    """What does not fit is left out, least important first; a line that wraps would make the display jump."""
    display = Display(work, 1500)
    work.clock.seconds = 20.0  # type: ignore[attr-defined]  # the fake's own
    work.progress.created = 30
    work.progress.outcomes.update({Outcome.CLASSIFIED: 588, Outcome.FAILED: 12})
    bar, told = shown(display, width)
    assert set(bar) <= set("━╸╺")
    assert told == line


def test_the_time_left_follows_the_pace_of_late(work: Work) -> None:
    """Not the mean of a night that began slowly."""
    display = Display(work, 10_000)
    for second in range(1, 101):
        work.clock.seconds = float(second)  # type: ignore[attr-defined]  # the fake's own
        work.progress.outcomes[Outcome.CLASSIFIED] += 1 if second <= 60 else 50
        line = shown(display, 200)[1]
    assert line == "2,060 of 10,000 files  about 3 min left  0 jobs created  50.0 files/s"


def test_it_says_that_and_why_it_is_stopping(work: Work) -> None:
    """Calls that are out may take a moment to end; a second Ctrl-C is not what that wants."""
    display = Display(work, 10)
    work.stop.stop_creates(Unauthorized("the API refuses the key"))
    assert shown(display, 80)[2] == "nothing more is sent: the API refuses the key"
    work.stop.stop_everything(Interrupted("stopped by SIGINT"))
    assert shown(display, 80)[2] == "stopping: stopped by SIGINT"


@pytest.mark.parametrize("width", [40, 80, 200])
def test_it_says_how_long_nothing_has_answered_and_when_it_gives_up(work: Work, width: int) -> None:
    """A dead API must not look like a slow one; an answer that takes a moment is no silence."""
    display = Display(work, 10)
    work.api.silent = lambda: (9.0, 891.0)  # type: ignore[method-assign]  # the fake's own
    assert len(shown(display, width)) == 2
    work.api.silent = lambda: (55.0, 845.0)  # type: ignore[method-assign]  # the fake's own
    assert shown(display, width)[2] == "API silent for 55 s, giving up in 14 min"[: width - 4] + "…" * (width == 40)


def test_files_that_are_sent_again_do_not_pass_the_end(work: Work) -> None:
    """The halves of a failed chunk bring outcomes of files that had one."""
    work.progress.outcomes[Outcome.FAILED] = 20
    assert shown(Display(work, 10), 80)[1].startswith("10 of 10 files  ")


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (99, "99 s"), (100, "2 min"), (5990, "100 min"), (36_000, "10.0 h")]
)
def test_durations_are_told_as_one_says_them(seconds: float, words: str) -> None:
    """No 36,000 s."""
    assert span(seconds) == words


def test_before_it_sends_it_says_what_is_classified_again_and_why(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, however many API versions the run uses: each is watched in turn."""
    monkeypatch.setenv("TERM", "xterm")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream, changed = Terminal(), Changes(2000, ("rules", "mode"))
    plan = Plan(Scope(1, 1), Counts(2000, 2000, 0, 0, 0, 2000, 2000), 4, 2000, 10_000, Changes(), changed, None)
    watch = watcher(stream)
    assert watch is not None
    before: list[str] = []

    async def watched() -> None:
        for _ in range(2):
            async with asynccontextmanager(watch)(work, plan):
                before.append(stream.getvalue())

    asyncio.run(watched())
    words = "2,000 files will be classified again because of rules and mode"
    assert before[0].index(words) < before[0].index("0 of 2,000 files")
    assert stream.getvalue().count(words) == 1
