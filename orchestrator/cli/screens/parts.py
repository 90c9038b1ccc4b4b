"""Where screens are printed, and the parts that several of them show."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from typing import TextIO

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.ledger.chunks.retry import Changes, Quarantine
from orchestrator.ledger.views.reading import FailedFile
from orchestrator.plaintext import counted, safe
from orchestrator.planning.ceiling import Ceiling

REHEARSAL = "REHEARSAL: the embedded sandbox invents the answers: no test of the rules, and nothing was billed"

UNKNOWN_CREDITS = "mode and pages are those of the configuration_id, which the server keeps"

#: How many failed and how many quarantined files a screen names; all failed ones are in an export.
MOST_FAILED = 5

STYLES = {"classified": "green", "unmatched": "cyan", "failed": "red", "missing": "red", "cancelled": "yellow"}


class _Console(Console):
    """Rich's, without its way of making exit 1 of a reader that has gone."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console(stream: TextIO) -> Console:
    """A console that fits *stream*: no colour without a terminal or with NO_COLOR.

    Without a terminal no line is broken, unless COLUMNS says where: the API's words are to be found by a search.
    """
    width = None if stream.isatty() else shutil.get_terminal_size((10_000, 24)).columns
    return _Console(file=stream, width=width, highlight=False, soft_wrap=False, emoji=False, markup=False)


def show(view: RenderableType) -> None:
    """Print *view*; a command to be pasted stays whole, however narrow the terminal."""
    console(sys.stdout).print(view, crop=False)


def reclassified(changes: Changes) -> str:
    """Why files that have an outcome are classified again."""
    return f"of the new: classified before; again because of {' and '.join(changes.fields)}"


def at_most(ceiling: Ceiling, credits_ceiling: int | None) -> str:
    """Say the highest price and what it is made of, beside the *credits_ceiling* that is shown; empty for no more."""
    lines = {
        "planned before": ceiling.planned,
        "unanswered": ceiling.unanswered,
        "halves of failed jobs": ceiling.halves,
        "second opinions": ceiling.second_opinions,
    }
    more = [f"{name} {line.credits:,}" for name, line in lines.items() if line.credits]
    if gone := (ceiling.chosen.credits or 0) - (credits_ceiling or 0):
        more.insert(0, f"parses that are gone {gone:,}")
    if not more or ceiling.sum.credits is None:
        return ""
    return f"at the very most {ceiling.sum.credits:,}, with {', '.join(more)}"


def failed_files(failed: Sequence[FailedFile], quarantined: Quarantine, total: int) -> list[Text]:
    """File ID, outcome and the API's words of each that is not quarantined; the ID unbroken, to be copied.

    *total*: how many failed, of which *failed* are the first.
    """
    apart = {file.file_id for file in quarantined.first}
    shown = [file for file in failed if file.file_id not in apart]
    title = counted(len(shown) + total - len(failed), "failed file")
    title += f", the first {len(shown)}" if total > len(failed) else ""
    lines = [f"  {called(file.file_id, file.name)}  {file.outcome}: {safe(file.error, 200)}" for file in shown]
    return [Text(title, style="bold"), *map(Text, lines)] if shown else []


def called(file_id: str, name: str | None) -> str:
    """A file's ID and, where it has one, its name."""
    return f"{safe(file_id)}  {safe(name, 80)}" if name else safe(file_id)


def quarantine(found: Quarantine, again: str, rehearsal: bool) -> list[Text]:
    """The first quarantined files, and the command that sends them all the same; nothing without any."""
    first = found.first[:MOST_FAILED]
    if not first:
        return []
    more = f", the first {len(first)}" if found.files > len(first) else ""
    lines = [f"  {called(file.file_id, file.name)}  {file.why}: {safe(file.error, 200)}" for file in first]
    names = "".join(f" --file {shlex.quote(safe(file.file_id))}" for file in first)
    return [
        Text(f"{found.files:,} quarantined: sent again only by name{more}", style="bold"),
        *map(Text, lines),
        Text(
            f"send:      orchestrator retry {again}{' --sandbox' if rehearsal else ''}{names}",
            no_wrap=True,
            overflow="ignore",
        ),
    ]


def pairs() -> Table:
    """Name, number, remark."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column(overflow="fold", style="dim")
    return table
