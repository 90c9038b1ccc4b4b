"""The screens that stand still: plan, retry and the summary of a run. Status and diff: ``tables``."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.commands.summary import Summary
from orchestrator.errors import ExitCode
from orchestrator.ledger.chunks.retry import Changes, Quarantine
from orchestrator.ledger.views.reading import FailedFile
from orchestrator.plaintext import counted, safe
from orchestrator.planning.preview import Preview
from orchestrator.planning.retry import RetryPreview

REHEARSAL = "REHEARSAL: answered by the embedded sandbox; these are not real results and nothing was billed"

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


def plan_view(preview: Preview, again: str) -> RenderableType:
    """Show what ``run`` would do. *again*: see ``summary_view``."""
    title = Text(f"plan for {preview.manifest}" + (" (rehearsal)" if preview.rehearsal else ""), style="bold")
    table = pairs()
    failed = preview.failed - preview.quarantined.files
    rows: list[tuple[str, int, str]] = [
        ("files", preview.files, ""),
        ("new", preview.new, "to be sent"),
        ("done", preview.done, "have an outcome under these rules"),
        ("in flight", preview.in_flight, _in_flight(preview)),
        ("failed", preview.failed, f"`orchestrator retry` sends {failed:,} of them again" if failed else ""),
        ("duplicate", preview.duplicates, "listed more than once, sent once" if preview.duplicates else ""),
        ("changed", preview.changed, _reclassified(preview.reclassified) if preview.changed else ""),
        ("free", preview.free, "of the new: reuse an existing parse" if preview.free else ""),
        ("create calls", preview.create_calls, f"of at most {preview.chunk_size} files"),
    ]
    for label, value, note in rows:
        table.add_row(label, f"{value:,}", note)
    if words := preview.renamed_words:
        title.append(f"\n{safe(words)}", style="yellow")
    if preview.credits_ceiling is None:
        table.add_row("credits", "unknown", UNKNOWN_CREDITS)
    else:
        table.add_row("credits", f"<= {preview.credits_ceiling:,}", "if every file has as many pages as may be read")
    if most := _ceiling(preview):
        table.add_row("", "", most)
    parts: list[RenderableType] = [title, table, *quarantine(preview.quarantined, again, preview.rehearsal)]
    if preview.over_limits is not None:
        parts.append(Text(f"over the limits: {safe(preview.over_limits)}", style="bold red"))
    return Group(*parts)


def _in_flight(preview: Preview) -> str:
    """Say how much of it is paid for and how much will cost."""
    parts = [
        f"{preview.sent:,} sent, paid for" if preview.sent else "",
        f"{preview.planned_not_sent:,} planned and not sent: will cost" if preview.planned_not_sent else "",
        f"{preview.unanswered:,} without an answer: sent again if the API has no such job"
        if preview.unanswered
        else "",
    ]
    return "; ".join(filter(None, parts)) or "planned or sent by an earlier run"


def _ceiling(preview: Preview) -> str:
    """The highest price, and what it is made of."""
    ceiling = preview.ceiling
    lines = {
        "planned before": ceiling.planned,
        "unanswered": ceiling.unanswered,
        "halves of failed jobs": ceiling.halves,
        "second opinions": ceiling.second_opinions,
    }
    more = [f"{name} {line.credits:,}" for name, line in lines.items() if line.credits]
    if not more or ceiling.sum.credits is None:
        return ""
    return f"at the very most {ceiling.sum.credits:,}, with {', '.join(more)}"


def _reclassified(changes: Changes) -> str:
    return f"of the new: classified before; again because of {' and '.join(changes.fields)}"


def retry_view(found: RetryPreview, again: str) -> RenderableType:
    """Show what ``retry`` would send. *again*: see ``summary_view``."""
    parts: list[RenderableType] = [Text(f"{counted(found.files, 'file')} in {counted(found.chunks, 'create call')}")]
    ceiling = found.credits_ceiling
    parts.append(Text(f"credits unknown: {UNKNOWN_CREDITS}" if ceiling is None else f"up to {ceiling:,} credits"))
    if found.free:
        parts.append(Text(f"{counted(found.free, 'file')} free: an existing parse is reused"))
    if found.cancelled_first:
        parts.append(Text(f"{found.cancelled_first:,} of them are in jobs that never end: those are cancelled first"))
    if found.cannot_cancel:
        parts.append(
            Text(f"left out: {counted(found.cannot_cancel, 'file')} in jobs that never end; v1 has no call to cancel")
        )
    if words := found.changes.words:
        parts.append(Text(words, style="yellow"))
    parts += [Text(f"  {called(file_id, found.names.get(file_id))}") for file_id in found.file_ids]
    if more := found.files - len(found.file_ids):
        parts.append(Text(f"  and {more:,} more"))
    parts += quarantine(found.quarantined, again, found.rehearsal)
    if found.over_limits:
        parts.append(Text(f"over the limits: {safe(found.over_limits)}", style="bold red"))
    return Group(*parts)


def summary_view(summary: Summary, again: str) -> RenderableType:
    """The end of a run: counts, types, the first failed files, and what to do next.

    *again*: the arguments with which other commands find the same work, that is the manifest and the ledger named.
    """
    parts: list[RenderableType] = []
    if summary.rehearsal:
        parts.append(Text(REHEARSAL, style="bold yellow"))
    parts.append(Text(f"run {summary.run_id} of {summary.manifest}", style="bold"))
    counts = pairs()
    for name in ("files", "classified", "unmatched", "failed", "missing", "cancelled", "unfinished"):
        value = int(getattr(summary, name))
        if value or name in ("files", "classified"):
            counts.add_row(Text(name, style=STYLES.get(name, "")), f"{value:,}", "")
    for label, files in list(summary.types.items())[:20]:
        counts.add_row(Text(f"  {safe(label, 50)}", style="dim"), f"{files:,}", "")
    if summary.review:
        counts.add_row("to review", f"{summary.review:,}", "")
    parts.append(counts)
    parts += _notes(summary)
    parts += failed_files(summary.failed_files, summary.quarantined)
    parts += quarantine(summary.quarantined, again, summary.rehearsal)
    parts.append(Text(f"exit {summary.exit_code}: {safe(summary.reason)}", style="bold"))
    if hint := _next_step(summary, again):
        parts.append(Text(hint, no_wrap=True, overflow="ignore"))  # one line each, to be copied
    return Group(*parts)


def _notes(summary: Summary) -> list[Text]:
    """A line each for a new name, documents, drift, routing, changes, jobs, second opinions and credits."""
    parts: list[Text] = []
    if summary.renamed_from is not None:
        parts.append(Text(f"this path was known as {safe(summary.renamed_from)}: every file was new", style="yellow"))
    if summary.sample is not None:
        parts.append(Text(f"{summary.sample.words}; the rest stays new", style="yellow"))
    if summary.reclassified.files:
        parts.append(Text(f"{summary.reclassified.files:,} {_reclassified(summary.reclassified)}", style="yellow"))
    if summary.documents is not None:
        parts.append(Text(f"{summary.documents.words}; {summary.uploaded:,} uploaded"))
    if summary.drift is not None and summary.drift.alarm:
        parts.append(Text(safe(summary.drift.words), style="yellow"))
    if (routed := summary.routed) is not None:
        trouble = f", {routed.not_placed:,} could not be: `orchestrator route` says why" if routed.not_placed else ""
        parts.append(Text(f"{counted(routed.placed, 'document')} put into place{trouble}"))
    parts += [Text(words, style="yellow") for words in (summary.changes.words, summary.held_back.words) if words]
    parts.append(
        Text(
            f"{counted(summary.jobs_created, 'job')} created, "
            f"{counted(summary.skipped, 'file')} had an outcome before, "
            f"{counted(summary.requests, 'request')}, {summary.seconds:,.1f} s"
        )
    )
    if (asked := summary.second_opinions) and asked.answered:
        before, after = asked.confidence_before, asked.confidence_after
        opinions = counted(asked.answered, "second opinion")
        parts.append(Text(f"{opinions}: mean confidence {before:.3f} -> {after:.3f}, the surer answer counts"))
    if billed := summary.credits_words:
        parts.append(Text(billed))
    return parts


def failed_files(failed: Sequence[FailedFile], quarantined: Quarantine) -> list[Text]:
    """File ID, outcome and the API's words of each that is not quarantined; the ID unbroken, to be copied."""
    apart = {file.file_id for file in quarantined.first}
    shown = [file for file in failed if file.file_id not in apart]
    title = f"the first {len(shown)} failed files" if len(failed) >= MOST_FAILED else "failed files"
    lines = [f"  {called(file.file_id, file.name)}  {file.outcome}: {safe(file.error, 200)}" for file in shown]
    return [Text(title, style="bold"), *map(Text, lines)] if shown else []


def called(file_id: str, name: str | None) -> str:
    """A file's ID and, where it has one, its name."""
    return f"{safe(file_id)}  {safe(name, 80)}" if name else safe(file_id)


def _next_step(summary: Summary, again: str) -> str:
    again += " --sandbox" if summary.rehearsal else ""
    if summary.exit_code == ExitCode.UNFINISHED:
        return f"go on:     orchestrator run {again}"
    if summary.exit_code == ExitCode.SOME_FAILED:
        rows = f"all rows:  orchestrator export {again} --format csv"
        bad = summary.failed + summary.missing + summary.cancelled
        return f"{rows}\ntry again: orchestrator retry {again}" if bad > summary.quarantined.files else rows
    if summary.exit_code == ExitCode.OK:
        return f"all rows:  orchestrator export {again} --format csv"
    return ""


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
