"""The screen of ``diff``: totals side by side, then what moved."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.cli.screens.parts import called
from orchestrator.plaintext import counted, safe
from orchestrator.reports.diff import Diff


def diff_view(found: Diff) -> RenderableType:
    """Totals side by side, then what moved."""
    totals = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("outcome", found.run_a, found.run_b, "change"):
        totals.add_column(column, justify="left" if column == "outcome" else "right", overflow="fold")
    for row in found.totals:
        change = row.after - row.before
        totals.add_row(safe(row.label, 60), f"{row.before:,}", f"{row.after:,}", f"{change:+,}" if change else "")
    lines = [f"{counted(found.new_files, 'new file')}, {counted(found.new_failures, 'new failure')}"]
    lines += [
        f"{flow.files:,} flipped: {safe(flow.before, 60)} -> {safe(flow.after, 60)}, "
        f"such as {called(flow.example, flow.example_name)}"
        for flow in found.flipped[:20]
    ]
    lines += [
        f"{safe(flow.before, 60)}: mean confidence {flow.confidence_before:.3f} -> {flow.confidence_after:.3f}"
        for flow in found.drift[:20]
    ]
    return Group(totals, *map(Text, lines))
