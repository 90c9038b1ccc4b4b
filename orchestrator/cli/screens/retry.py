"""The screen of ``retry --dry-run``."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.cli.screens.parts import UNKNOWN_CREDITS, at_most, called, quarantine
from orchestrator.plaintext import counted, safe
from orchestrator.planning.retry import RetryPreview


def retry_view(found: RetryPreview, again: str) -> RenderableType:
    """Show what ``retry`` would send. *again*: see ``summary_view``."""
    parts: list[RenderableType] = [Text(f"{counted(found.files, 'file')} in {counted(found.chunks, 'create call')}")]
    ceiling = found.credits_ceiling
    parts.append(
        Text(f"credits unknown: {UNKNOWN_CREDITS}" if ceiling is None else f"up to {counted(ceiling, 'credit')}")
    )
    if most := at_most(found.ceiling, ceiling):
        parts.append(Text(most))
    if found.free:
        parts.append(Text(f"{counted(found.free, 'file')} free: an existing parse is reused"))
    if found.cancelled_first:
        parts.append(Text(f"{found.cancelled_first:,} of them are in jobs that never end: those are cancelled first"))
    if found.cannot_cancel:
        parts.append(
            Text(
                f"left out: {counted(found.cannot_cancel, 'file')} in jobs that never end; v1 has no call to cancel; "
                "--held sends them again"
            )
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
