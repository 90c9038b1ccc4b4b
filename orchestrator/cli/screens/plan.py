"""The screen of ``plan``: what a run would send and what it can cost."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.cli.screens.parts import UNKNOWN_CREDITS, at_most, pairs, quarantine, reclassified
from orchestrator.plaintext import counted, safe
from orchestrator.planning.preview import Preview


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
        ("changed", preview.changed, reclassified(preview.reclassified) if preview.changed else ""),
        ("free", preview.free, "of the new: reuse an existing parse" if preview.free else ""),
        ("create calls", preview.create_calls, f"of at most {counted(preview.chunk_size, 'file')}"),
    ]
    for label, value, note in rows:
        table.add_row(label, f"{value:,}", note)
    if words := preview.renamed_words:
        title.append(f"\n{safe(words)}", style="yellow")
    if preview.credits_ceiling is None:
        table.add_row("credits", "unknown", UNKNOWN_CREDITS)
    else:
        table.add_row("credits", f"<= {preview.credits_ceiling:,}", "if every file has as many pages as may be read")
    if most := at_most(preview.ceiling, preview.credits_ceiling):
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
