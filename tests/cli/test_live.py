"""The display of a running run: whole lines at any width, counts, and a time left that can be believed."""

from __future__ import annotations

import asyncio
import io
import re
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import cast

import pytest
from rich.console import Console
from support.server import FakeClock

from orchestrator.api.client import Api
from orchestrator.cli.live import Display, watcher
from orchestrator.cli.screens.parts import console
from orchestrator.errors import Interrupted, Unauthorized
from orchestrator.ledger import Ledger
from orchestrator.ledger.chunks.plan import Counts
from orchestrator.ledger.chunks.retry import Changes
from orchestrator.ledger.queue import Shard
from orchestrator.ledger.scope import Scope, Staged
from orchestrator.ledger.writer import Writer
from orchestrator.models import FileResult, Outcome
from orchestrator.plaintext import span
from orchestrator.planning.run import Plan
from orchestrator.stages.work import Phase, Progress, Sight, Work


@pytest.fixture
def work() -> Work:
    """A run that was just begun and has no API to talk to."""
    clock = FakeClock()
    limiters = SimpleNamespace(creates=SimpleNamespace(refused=0, rate_per_s=40.0))
    api = cast(Api, SimpleNamespace(limiters=limiters, silent=lambda: None))
    return Work(Shard(1, "v1"), "run", api, Writer(Ledger.in_memory(), clock), clock, 0, 0, Progress())


class Terminal(io.StringIO):
    """One of 80 columns."""

    def isatty(self) -> bool:
        return True


PLAN = Plan(
    *(Scope(1, 1), Staged(2000), Counts(2000, 2000, 0, 0, 0, 2000, 2000), 4, 2000, 10_000),
    *(Changes(), Changes(2000, ("rules", "mode")), None),
)


def shown(display: Display, width: int) -> list[str]:
    out = Console(file=io.StringIO(), width=width)
    out.print(display.view(width))
    return [line.rstrip() for line in cast(io.StringIO, out.file).getvalue().splitlines()]


def at(work: Work, seconds: float) -> None:
    """Move the run's clock."""
    work.clock.seconds = seconds  # type: ignore[attr-defined]  # the fake's own


def refuse(work: Work, reason: str, files: int) -> None:
    """Let so many files fail for the same reason."""
    work.progress.ended(
        [FileResult(f"{reason[:3]}-{n}", Outcome.FAILED, error=f"{reason} (page {n})") for n in range(files)]
    )


SCREENS = {
    200: [
        "600 of 1,500 files  12 failed  about 23 s left  30 jobs created  39.6 files/s",
        "processing, 20 s  9 jobs in flight  576 classified  12 unmatched  up to 7,500 credits so far",
        "API silent for 55 s, giving up in 14 min",
        "2 unanswered create calls: next look at the API's jobs in 96 s",
        "create limit found: 20.0 calls a minute",
        "2 failed: too large (page 0) (such as too-0)",
        "10 failed: the file is encrypted (page 0) (such as the-0)",
    ],
    80: [
        "600 of 1,500 files  12 failed  about 23 s left  30 jobs created  39.6 files/s",
        "processing, 20 s  9 jobs in flight  576 classified  12 unmatched",
        "API silent for 55 s, giving up in 14 min",
        "2 unanswered create calls: next look at the API's jobs in 96 s",
        "create limit found: 20.0 calls a minute",
        "2 failed: too large (page 0) (such as too-0)",
        "10 failed: the file is encrypted (page 0) (such as the-0)",
    ],
    40: [
        "600 of 1,500 files  12 failed",
        "processing, 20 s  9 jobs in flight",
        "API silent for 55 s, giving up in 14…",
        "2 unanswered create calls: next look…",
        "create limit found: 20.0 calls a min…",
        "2 failed: too large (page 0) (such a…",
        "10 failed: the file is encrypted (pa…",
    ],
}


def busy(work: Work) -> Display:
    """A run in the middle of everything."""
    display = Display(work, 1500, ceiling=7500)
    work.progress.created, work.progress.files_sent = 30, 1500
    work.progress.outcomes.update({Outcome.CLASSIFIED: 204})
    at(work, 10.0)
    display.view(80)
    work.progress.outcomes.update({Outcome.CLASSIFIED: 372, Outcome.UNMATCHED: 12})
    refuse(work, "the file is encrypted", 10)
    refuse(work, "too large", 2)
    at(work, 20.0)
    work.look = lambda: Sight(Phase.PROCESSING, 9, 2, 96.0)
    work.api.silent = lambda: (55.0, 845.0)  # type: ignore[method-assign]  # the fake's own
    work.api.limiters.creates.refused = 1  # type: ignore[misc]  # the fake's own
    work.api.limiters.creates.rate_per_s = 1 / 3  # type: ignore[misc]  # the fake's own
    return display


@pytest.mark.parametrize("width", SCREENS)
def test_it_is_a_bar_and_whole_lines_at_any_width(work: Work, width: int) -> None:
    """What does not fit is left out, least important first; a line that wraps would make the display jump."""
    bar, *lines = shown(busy(work), width)
    assert set(bar) <= set("━╸╺")
    assert lines == SCREENS[width]


def test_where_no_line_can_change_all_is_on_one(work: Work) -> None:
    """A dumb terminal or a pipe gets it now and then."""
    assert busy(work).line() == "; ".join(part for line in SCREENS[200] for part in line.split("  "))


def test_failures_are_grouped_by_cause_the_latest_first(work: Work) -> None:
    """At most three causes: a night of many must not fill the screen."""
    display = Display(work, 100)
    for reason in ("first", "second", "third", "fourth"):
        refuse(work, reason, 2)
    assert [line for line in shown(display, 200) if " failed: " in line] == [
        f"2 failed: {reason} (page 0) (such as {reason[:3]}-0)" for reason in ("fourth", "third", "second")
    ]


def test_credits_are_those_billed_where_the_api_tells_them(work: Work) -> None:
    """Otherwise the most that what was sent can cost; nothing where that is not known."""
    work.progress.files_sent = 50
    assert shown(Display(work, 100), 80)[2] == "submitting, 0 s"
    assert shown(Display(work, 150, ceiling=500, sent_before=50), 80)[2] == "submitting, 0 s  up to 250 credits so far"
    work.progress.credits = 120.0
    assert shown(Display(work, 150, ceiling=500, sent_before=50), 80)[2] == "submitting, 0 s  120 credits so far"


def test_the_time_left_follows_the_recent_pace(work: Work) -> None:
    """Not the mean of a night that began slowly."""
    display = Display(work, 10_000)
    for second in range(1, 101):
        at(work, float(second))
        work.progress.outcomes[Outcome.CLASSIFIED] += 1 if second <= 60 else 50
        line = shown(display, 200)[1]
    assert line == "2,060 of 10,000 files  about 3 min left  0 jobs created  50.0 files/s"


def test_it_says_that_and_why_it_is_stopping(work: Work) -> None:
    """Calls that are out may take a moment to end; a second Ctrl-C is not what that wants."""
    display = Display(work, 10)
    work.stop.stop_creates(Unauthorized("the API refuses the key"))
    assert shown(display, 80)[3] == "nothing more is sent: the API refuses the key"
    work.stop.stop_everything(Interrupted("stopped by SIGINT"))
    assert shown(display, 80)[3] == "stopping: stopped by SIGINT"


@pytest.mark.parametrize("width", [40, 80, 200])
def test_it_says_how_long_nothing_has_answered_and_when_it_gives_up(work: Work, width: int) -> None:
    """A dead API must not look like a slow one; an answer that takes a moment is no silence."""
    display = Display(work, 10)
    work.api.silent = lambda: (9.0, 891.0)  # type: ignore[method-assign]  # the fake's own
    assert len(shown(display, width)) == 3
    work.api.silent = lambda: (55.0, 845.0)  # type: ignore[method-assign]  # the fake's own
    assert shown(display, width)[3] == "API silent for 55 s, giving up in 14 min"[: width - 4] + "…" * (width == 40)


def test_files_that_are_sent_again_do_not_pass_the_end(work: Work) -> None:
    """The halves of a failed chunk bring outcomes of files that had one."""
    work.progress.outcomes[Outcome.FAILED] = 20
    assert shown(Display(work, 10), 80)[1].startswith("10 of 10 files  ")


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (99, "99 s"), (100, "2 min"), (5990, "100 min"), (36_000, "10.0 h")]
)
def test_durations_are_reported_as_one_says_them(seconds: float, words: str) -> None:
    """No 36,000 s."""
    assert span(seconds) == words


def test_before_it_sends_it_says_what_is_classified_again_and_why(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, however many API versions the run uses: each is watched in turn."""
    monkeypatch.setenv("TERM", "xterm")

    stream = Terminal()
    watch = watcher(stream)
    before: list[str] = []

    async def watched() -> None:
        for _ in range(2):
            async with asynccontextmanager(watch)(work, PLAN):
                before.append(stream.getvalue())

    asyncio.run(watched())
    words = "2,000 files will be classified again because of rules and mode"
    assert before[0].index(words) < before[0].index("0 of 2,000 files")
    assert stream.getvalue().count(words) == 1


def test_a_dumb_terminal_gets_a_line_now_and_then(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """No escape sequence, no colour; the time stands in front."""
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()

    async def watched() -> None:
        async with asynccontextmanager(watcher(stream))(work, PLAN):
            for _ in range(5):
                await asyncio.sleep(0)

    asyncio.run(watched())
    lines = stream.getvalue().splitlines()
    assert "\x1b" not in stream.getvalue()
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d  0 of 2,000 files; time left: not known; 0 jobs created; submitting, 30 s", lines[1]
    )


def test_colours_are_left_out_where_nobody_wants_them(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """https://no-color.org"""
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    console(stream).print(busy(work).view(80))
    assert not re.search("\x1b\\[[0-9;]*[34][0-7]", stream.getvalue())
