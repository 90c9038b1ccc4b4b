"""The display of a running run: how far it is, what it waits for, and how long that still takes.

On a terminal a few lines that change in place; elsewhere, where a person reads, one line now and then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import TextIO

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.cli.course import Course
from orchestrator.cli.screens.parts import console
from orchestrator.commands.run import Watcher
from orchestrator.models import BAD, Outcome
from orchestrator.plaintext import counted, safe, span
from orchestrator.planning.run import Plan
from orchestrator.stages.work import Phase, Work

REFRESH_S = 0.25
#: How often a line is printed where none can change.
LINE_S = 30.0
#: An answer may take this long before it is said that none comes.
SILENCE_S = 10.0
#: Causes of failure that are named, the latest first.
MOST_CAUSES = 3

_ERASE_LINE = "\r\x1b[2K"


def is_screen(stream: TextIO) -> bool:
    """Whether *stream* is a terminal that can go back over a line."""
    out = console(stream)
    return out.is_terminal and not out.is_dumb_terminal


def watcher(stream: TextIO) -> Watcher:
    """Show a running run on *stream*: in place, or, where that is no screen, as lines."""
    out, told = console(stream), set[str]()
    return partial(_watch if is_screen(stream) else _print_lines, out, told, _Began())


class _Began:
    """When watching began; it begins again for each API version that the run uses."""

    at: float | None = None


@contextmanager
def planning(stream: TextIO) -> Iterator[None]:
    """Say that the run is planned, until the block ends or the run begins to be watched: lists can be long."""
    stream.write("planning\r")
    stream.flush()
    try:
        yield
    finally:
        stream.write(_ERASE_LINE)
        stream.flush()


async def _watch(out: Console, told: set[str], began: _Began, work: Work, plan: Plan) -> AsyncIterator[None]:
    """*told*: what the terminal has shown already."""
    out.file.write(_ERASE_LINE)
    _tell_changes(out, told, plan)
    shown = _display(began, work, plan)
    with Live(shown.view(out.width), console=out, auto_refresh=False, transient=True) as screen:
        out.show_cursor()  # hidden, it would stay so after a second Ctrl-C, which ends the program at once
        async with _every(REFRESH_S, work, lambda: screen.update(shown.view(out.width), refresh=True)):
            yield


async def _print_lines(out: Console, told: set[str], began: _Began, work: Work, plan: Plan) -> AsyncIterator[None]:
    _tell_changes(out, told, plan)
    shown = _display(began, work, plan)

    def line() -> None:
        with suppress(OSError):  # its reader may leave; the run goes on
            out.print(Text(f"{work.clock.now():%H:%M:%S}  {shown.line()}"), soft_wrap=True)

    async with _every(LINE_S, work, line):
        yield


@asynccontextmanager
async def _every(seconds: float, work: Work, show: Callable[[], None]) -> AsyncIterator[None]:
    """Call *show* every so many *seconds* while the block lasts."""

    async def refresh() -> None:
        while True:
            await work.clock.sleep(seconds)
            show()

    task = asyncio.create_task(refresh())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _display(began: _Began, work: Work, plan: Plan) -> Display:
    if began.at is None:
        began.at = work.clock.monotonic()
    files = plan.files_to_send + plan.counts.in_flight
    return Display(work, files, began=began.at, ceiling=plan.credits_ceiling, sent_before=plan.counts.in_flight)


def _tell_changes(out: Console, told: set[str], plan: Plan) -> None:
    """Print what a changed manifest makes of this run, to be read before anything is sent; once."""
    again, fields = plan.reclassified.files, " and ".join(plan.reclassified.fields)
    words = f"{counted(again, 'file')} will be classified again because of {fields}" if again else ""
    for each in (plan.sample.words if plan.sample else "", words, plan.changes.words):
        if each and each not in told:
            told.add(each)
            out.print(Text(each, style="yellow"))


class Display:
    """How far a run is, and at which pace."""

    def __init__(
        self,
        work: Work,
        files: int,
        *,
        began: float | None = None,
        ceiling: int | None = None,
        sent_before: int = 0,
    ) -> None:
        """*files*: to be done. *ceiling*: the most credits that sending those not *sent_before* can cost."""
        self._work, self._files, self._ceiling, self._sent_before = work, files, ceiling, sent_before
        now = work.clock.monotonic()
        self._began = now if began is None else began
        self._course = Course(now, self._sent(), self._done())  # an earlier shard of the run has done some

    def view(self, width: int) -> RenderableType:
        """A bar and lines that fit into *width*."""
        self._note()
        width -= 3  # room for the ^C that a terminal echoes: in a full line it would push the display down
        rows = Table.grid()  # as a bar alone would not end its line
        rows.add_column(no_wrap=True, overflow="ellipsis", max_width=width)
        rows.add_row(ProgressBar(total=max(self._files, 1), completed=self._done(), width=width))
        rows.add_row(Text(fitting(self._how_far(), width)))
        rows.add_row(Text(fitting(self._how_it_goes(), width), style="dim"))
        troubles = list(self._troubles())
        if warning := self._work.progress.warning:
            troubles.append((f"last warning: {safe(warning)}", "yellow"))
        for words, style in troubles:
            rows.add_row(Text(words, style=style))
        return rows

    def line(self) -> str:
        """The same on one line, of any length; without warnings, which have lines of their own."""
        self._note()
        return "; ".join([*self._how_far(), *self._how_it_goes(), *(words for words, _ in self._troubles())])

    def _note(self) -> None:
        self._course.note(self._work.clock.monotonic(), self._sent(), self._done())

    def _done(self) -> int:
        # A failed chunk's files count again as their halves end.
        return min(sum(self._work.progress.outcomes.values()), self._files)

    def _sent(self) -> int:
        return min(self._sent_before + self._work.progress.files_sent, self._files)

    def _how_far(self) -> list[str]:
        """The most important first: on a narrow screen the last ones are left out."""
        progress, done, now = self._work.progress, self._done(), self._work.clock.monotonic()
        bad = sum(progress.outcomes[each] for each in BAD)
        facts = [f"{done:,} of {counted(self._files, 'file')}"]
        if bad:
            facts.append(f"{bad:,} failed")
        if done < self._files:
            left_s = self._course.left_s(now, self._files)
            facts.append("time left: not known" if left_s is None else f"about {span(left_s)} left")
        facts.append(f"{counted(progress.created, 'job')} created")
        if pace := self._course.pace(now):
            facts.append(f"{pace:,.1f} files/s")
        return facts

    def _how_it_goes(self) -> list[str]:
        """Phase, time, jobs in flight, outcomes, credits."""
        progress, sight = self._work.progress, self._work.look()
        facts = [f"{sight.phase}, {span(self._work.clock.monotonic() - self._began)}"]
        if sight.in_flight:
            facts.append(f"{counted(sight.in_flight, 'job')} in flight")
        if sight.phase is Phase.UPLOADING:
            facts.append(f"{counted(progress.uploaded, 'document')} uploaded")
        told = progress.outcomes[Outcome.FAILED] == sum(progress.outcomes[each] for each in BAD)  # by the line above
        facts += [
            f"{files:,} {each}"
            for each in Outcome
            if (files := progress.outcomes[each]) and not (told and each is Outcome.FAILED)
        ]
        return [*facts, *self._credits()]

    def _credits(self) -> list[str]:
        """The credits billed, where the API reports them; otherwise the most that the files sent can cost."""
        if (billed := self._work.progress.credits) is not None:
            return [f"{counted(billed, 'credit')} so far"]
        to_send, sent = self._files - self._sent_before, self._sent() - self._sent_before
        if not self._ceiling or sent <= 0:
            return []
        return [f"up to {counted(self._ceiling * sent // to_send, 'credit')} so far"]

    def _troubles(self) -> Iterator[tuple[str, str]]:
        """The line that a person may need to act on, and its style."""
        work, sight = self._work, self._work.look()
        silent = work.api.silent()
        if silent is not None and silent[0] >= SILENCE_S:
            yield f"API silent for {span(silent[0])}, giving up in {span(silent[1])}", "bold yellow"
        if sight.unsettled:
            calls = counted(sight.unsettled, "unanswered create call")
            yield f"{calls}: next look at the API's jobs in {span(sight.settles_in_s)}", "yellow"
        creates = work.api.limiters.creates
        if creates.refused:
            yield f"create limit found: {_rate(creates.rate_per_s)}", "dim"
        for failures in list(work.progress.failures.values())[: -MOST_CAUSES - 1 : -1]:
            yield f"{failures.files:,} failed: {safe(failures.words, 120)} (such as {safe(failures.first)})", "red"
        if why := work.stop.everything:
            yield f"stopping: {safe(why)}", "bold"
        elif why := work.stop.creates:
            yield f"nothing more is sent: {safe(why)}", "bold"


def _rate(per_s: float) -> str:
    return f"{per_s:.2f} calls/s" if per_s >= 1 else f"{per_s * 60:.1f} calls a minute"


def fitting(facts: list[str], width: int) -> str:
    """As many of *facts*, most important first, as a line of *width* has room for: a wrapped line would jump."""
    line = facts[0]
    for fact in facts[1:]:
        if len(line) + 2 + len(fact) > width:
            break
        line += f"  {fact}"
    return line
