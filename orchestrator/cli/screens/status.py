"""The screen of ``status``: how each manifest of a ledger stands."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.cli.screens.parts import REHEARSAL, STYLES, failed_files, pairs, quarantine
from orchestrator.ledger import Location, ServerState
from orchestrator.ledger.views.runs import Run
from orchestrator.plaintext import amount, counted, safe, span
from orchestrator.reports.last_run import Address, in_lines, not_ended
from orchestrator.reports.status import Status


def _standing(state: Status) -> RenderableType:
    """One manifest's files, types, open jobs and credits."""
    table = pairs()
    for name in ("files", "classified", "unmatched", "failed", "missing", "cancelled", "unfinished"):
        if (value := int(getattr(state, name))) or name == "files":
            table.add_row(Text(name, style=STYLES.get(name, "")), f"{value:,}", "")
    for label, files in list(state.types.items())[:20]:
        table.add_row(Text(f"  {safe(label, 50)}", style="dim"), f"{files:,}", "")
    if state.other_rules:
        remark = "more files, with an outcome under other rules only; `orchestrator run` classifies them again"
        table.add_row("other rules", f"{state.other_rules:,}", remark)
    if state.review:
        table.add_row("to review", f"{state.review:,}", "`orchestrator export --review` lists them")
    for name, job in state.open.items():
        oldest = f", the oldest since {job.oldest[:19].replace('T', ' ')} UTC" if job.oldest else ""
        table.add_row(f"jobs {name}", f"{job.jobs:,}", f"{counted(job.files, 'file')}{oldest}")
    if state.spent.jobs_billed:
        untold = (
            f"at least; {counted(state.spent.jobs_untold, 'job')} not yet reported" if state.spent.jobs_untold else ""
        )
        table.add_row("credits", amount(state.spent.credits), untold)
    return table


def status_view(states: Sequence[Status], ledger: Location, server: ServerState | None = None) -> RenderableType:
    """Every manifest of the *ledger*, which may be on a *server*."""
    parts: list[RenderableType] = [Text(f"ledger {safe(ledger.absolute())}", style="dim")]
    if server is not None:
        parts.append(Text(f"server {safe(server.words)}", style="dim"))
        parts += [Text(safe(line)) for line in server.news]
    for state in states:
        parts.append(Text())
        if state.rehearsal:
            parts.append(Text(REHEARSAL, style="bold yellow"))
        api = "at 127.0.0.1" if state.host == "loopback" else f"at {safe(state.host)}"
        if state.rehearsal:
            api = "of the embedded sandbox"
        parts.append(Text(f"{safe(state.manifest)} (API {api})", style="bold"))
        manifest = Path(state.path)
        address = Address.of(manifest, ledger, rehearsal=state.rehearsal)
        parts += [
            Text(line, no_wrap=True, overflow="ignore")
            for line in in_lines(state.manifest, state.last_run, state.running, address)
        ]
        parts.append(_standing(state))
        parts += [
            Text(f"needs you: chunk {found.chunk_id} {found.event}: {safe(found.note)}")
            for found in state.needs_decision
        ]
        if any(found.event == "held" for found in state.needs_decision):
            parts.append(
                Text("held: look for the job at the API; if there is none, `orchestrator retry --held` sends it")
            )
        parts += failed_files(state.failed_files, state.quarantined, state.extents["failed_files"].total)
        if state.dismissed:
            parts.append(Text(f"dismissed: {counted(state.dismissed, 'failed file')}, not counted any more"))
        again = shlex.join([state.path, *(["--ledger", str(address.ledger)] if address.ledger else [])])
        parts += quarantine(state.quarantined, safe(again), state.rehearsal)
        if state.runs:
            parts.append(_runs_table(state.runs, running=state.running))
    return Group(*parts)


def _runs_table(runs: Sequence[Run], *, running: str | None) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("latest runs", "command", "exit"):
        table.add_column(column, overflow="fold", no_wrap=True)
    for column in ("took", "done", "failed", "credits"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("reason", overflow="fold")
    for older, run in enumerate(runs):
        reason = run.reason
        if run.summary is None:
            reason = not_ended(None if older else running)
        exit_code = "-" if run.exit_code is None else str(run.exit_code)
        # When it began is in its ID.
        table.add_row(run.run_id, run.command, exit_code, *_numbers(run), safe(reason, 120))
    return table


def _numbers(run: Run) -> list[str]:
    """How long a run took, how all files stood at its end, and what it was billed; blank where that is not known."""
    said = run.summary or {}
    if "seconds" not in said:
        return [""] * 4
    good, bad = said["classified"] + said["unmatched"], said["failed"] + said["missing"] + said["cancelled"]
    billed = "" if said.get("credits") is None else amount(said["credits"])
    return [span(said["seconds"]), f"{good:,}", f"{bad:,}", billed]
