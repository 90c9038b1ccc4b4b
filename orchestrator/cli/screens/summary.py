"""The end of a run: what it came to, and what to do next."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.cli.screens.parts import REHEARSAL, STYLES, failed_files, pairs, quarantine, reclassified
from orchestrator.commands.summary import Summary
from orchestrator.errors import ExitCode
from orchestrator.plaintext import counted, safe


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
    parts += failed_files(summary.failed_files, summary.quarantined, summary.extents["failed_files"].total)
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
        parts.append(Text(f"{summary.reclassified.files:,} {reclassified(summary.reclassified)}", style="yellow"))
    if summary.documents is not None:
        parts.append(Text(f"{summary.documents.words}; {summary.uploaded:,} uploaded"))
    if summary.drift is not None and summary.drift.alarm:
        parts.append(Text(safe(summary.drift.words), style="yellow"))
    if (routed := summary.routed) is not None:
        trouble = f", {routed.not_placed:,} could not be: `orchestrator route` says why" if routed.not_placed else ""
        left = f", {routed.left:,} left where they are" * bool(routed.left)
        waiting = f", {routed.waiting:,} without an outcome yet" * bool(routed.waiting)
        parts.append(Text(f"{counted(routed.placed, 'document')} put into place{left}{waiting}{trouble}"))
    if (retried := summary.retried) is not None:
        now = f", {retried.good:,} of them good now" if retried.files else ": none to retry"
        parts.append(Text(f"{counted(retried.files, 'file')} retried{now}"))
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
