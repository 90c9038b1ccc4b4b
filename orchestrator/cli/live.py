"""The display of a running run: a bar, and how far it is."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from typing import TextIO

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.cli.screens.parts import console
from orchestrator.commands.run import Watcher
from orchestrator.models import GOOD
from orchestrator.plaintext import counted, safe, span
from orchestrator.planning.run import Plan
from orchestrator.stages.work import Work

REFRESH_S = 0.25
#: The time left follows from the pace of so many seconds: over fewer it would jump, over more it would lag.
PACE_S = 30.0
#: An answer may take this long before it is said that none comes.
SILENCE_S = 10.0


def watcher(stream: TextIO) -> Watcher | None:
    """Shows a running run on *stream*; None where that is a terminal that can't go back over a line."""
    out = console(stream)
    told: set[str] = set()
    return partial(_watch, out, told) if out.is_terminal and not out.is_dumb_terminal else None


async def _watch(out: Console, told: set[str], work: Work, plan: Plan) -> AsyncIterator[None]:
    """*told*: what the terminal has shown already, as each API version that a run uses is watched in turn."""
    for words in _changed(plan):
        if words not in told:
            told.add(words)
            out.print(Text(words, style="yellow"))
    shown = Display(work, plan.files_to_send + plan.counts.in_flight)
    with Live(shown.view(out.width), console=out, auto_refresh=False, transient=True) as screen:
        out.show_cursor()  # hidden, it would stay so after a second Ctrl-C, which ends the program at once

        async def refresh() -> None:
            while True:
                await work.clock.sleep(REFRESH_S)
                screen.update(shown.view(out.width), refresh=True)

        task = asyncio.create_task(refresh())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def _changed(plan: Plan) -> list[str]:
    """What a changed manifest makes of this run, to be read before anything is sent."""
    again, fields = plan.reclassified.files, " and ".join(plan.reclassified.fields)
    words = f"{counted(again, 'file')} will be classified again because of {fields}" if again else ""
    return [each for each in (plan.sample.words if plan.sample else "", words, plan.changes.words) if each]


class Display:
    """How far a run is, and at which pace."""

    def __init__(self, work: Work, files: int) -> None:
        self._work = work
        self._files = files
        #: When, and how many were done; an earlier shard of the run has done some.
        self._seen = deque([(work.clock.monotonic(), sum(work.progress.outcomes.values()))])

    def view(self, width: int) -> RenderableType:
        progress = self._work.progress
        # A failed chunk's files count again as their halves end.
        done = min(sum(progress.outcomes.values()), self._files)
        bad = sum(files for outcome, files in progress.outcomes.items() if outcome not in GOOD)
        pace = self._pace(done)
        facts = [f"{done:,} of {counted(self._files, 'file')}"]
        if bad:
            facts.append(f"{bad:,} failed")
        if pace and done < self._files:
            facts.append(f"about {span((self._files - done) / pace)} left")
        facts += [f"{counted(progress.created, 'job')} created", f"{pace:,.1f} files/s"]
        width -= 3  # room for the ^C that a terminal echoes: in a full line it would push the display down
        rows = Table.grid()  # as a bar alone would not end its line
        rows.add_column(no_wrap=True, overflow="ellipsis", max_width=width)
        rows.add_row(ProgressBar(total=max(self._files, 1), completed=done, width=width))
        rows.add_row(Text(fitting(facts, width)))
        silent = self._work.api.silent()
        if silent is not None and silent[0] >= SILENCE_S:
            words = f"API silent for {span(silent[0])}, giving up in {span(silent[1])}"
            rows.add_row(Text(words, style="bold yellow"))
        creates = self._work.api.limiters.creates
        if creates.refused:
            rows.add_row(Text(f"create limit found: {creates.rate_per_s:.2f} calls/s", style="dim"))
        if why := self._work.stop.everything:
            rows.add_row(Text(f"stopping: {safe(why)}", style="bold"))
        elif why := self._work.stop.creates:
            rows.add_row(Text(f"nothing more is sent: {safe(why)}", style="bold"))
        if progress.warning:
            rows.add_row(Text(f"last warning: {safe(progress.warning)}", style="yellow"))
        return rows

    def _pace(self, done: int) -> float:
        """Files a second, lately."""
        now = self._work.clock.monotonic()
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] >= PACE_S:
            self._seen.popleft()
        then, before = self._seen[0]
        return (done - before) / (now - then) if now > then else 0.0


def fitting(facts: list[str], width: int) -> str:
    """As many of *facts*, most important first, as a line of *width* has room for: a wrapped line would jump."""
    line = facts[0]
    for fact in facts[1:]:
        if len(line) + 2 + len(fact) > width:
            break
        line += f"  {fact}"
    return line
