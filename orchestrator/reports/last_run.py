"""The last run in a few lines: how it ended, what it did, what is different now, and what to do. The same few lines in
``status``, in a night's mail and in what its monitor gets.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import ExitCode
from orchestrator.ledger import Location
from orchestrator.models import BAD
from orchestrator.plaintext import amount, counted, safe, span
from orchestrator.reports.latest_runs import LastNight, Night, Since


@dataclass(frozen=True, slots=True)
class Address:
    """How a command names one manifest's work, from whichever folder it is typed in."""

    manifest: Path
    ledger: Location | None = None  #: only where it is not the manifest's own
    rehearsal: bool = False

    @classmethod
    def of(cls, manifest: Path, ledger: Location, *, rehearsal: bool) -> Address:
        """The address of *manifest*'s work in *ledger*, named only where it is not the manifest's own."""
        at = ledger.absolute()
        return cls(manifest, None if at == manifest.parent / "ledger.db" else at, rehearsal)

    def command(self, name: str, *options: str) -> str:
        """A line for a shell."""
        ledger = ["--ledger", str(self.ledger)] if self.ledger else []
        sandbox = ["--sandbox"] if self.rehearsal and name not in ("doctor", "logs", "validate") else []
        return safe(shlex.join([*program(), name, str(self.manifest), *options, *ledger, *sandbox]))


def program() -> list[str]:
    """The words that start this very program."""
    beside = Path(sys.executable).with_name("orchestrator")
    return [str(beside)] if beside.is_file() else [sys.executable, "-m", "orchestrator"]


def not_ended(holder: str | None) -> str:
    """The state of a run that has no exit code; *holder*: who holds the manifest right now, as its lock says."""
    return f"running ({holder})" if holder else "ended without a record: killed"


def in_lines(name: str, last: LastNight | None, holder: str | None, address: Address) -> list[str]:
    """The lines; the first says how it ended. *holder*: who holds the manifest right now, as its lock says."""
    if last is None:
        return [f"{name}: no run yet", f"now: {address.command('run')}"]
    night = last.night
    if night.exit_code is not None:
        how = f"exit {night.exit_code}: {night.reason or 'no reason was recorded'}"
    else:
        how = not_ended(holder) + ("" if holder else "; the next run goes on where it stopped")
    lines = [f"{name}: {safe(how)}", _what(night)]
    if night.standing:
        lines.append(_standing(night.standing, night.review_by_type))
    if last.since:
        lines.append(_since(last.since))
    if night.credits is not None or night.credits_ceiling:
        lines.append(bill(night))
    review = night.standing["review"] if night.standing else 0
    busy = night.exit_code is None and holder is not None
    steps = [] if busy else what_to_do(night.exit_code, night.run_id, address, review=review)
    return [*lines, *(f"now: {line}" for line in steps)]


def what_to_do(exit_code: int | None, run_id: str | None, address: Address, *, review: int = 0) -> list[str]:
    """Commands that help after a run that ended so (None: it was killed), the most urgent first."""
    show = address.command("logs", *([run_id] if run_id else []))
    steps: Mapping[int | None, list[str]] = {
        None: [address.command("run")],
        ExitCode.SOME_FAILED: [address.command("retry", "--dry-run"), address.command("export", "--format", "csv")],
        ExitCode.USAGE: [address.command("validate"), address.command("doctor")],
        ExitCode.UNFINISHED: [address.command("run")],
        ExitCode.LOCKED: [address.command("status")],
        ExitCode.UNAUTHORIZED: [address.command("doctor")],
        ExitCode.OUT_OF_CREDITS: [address.command("plan")],
        ExitCode.UNREACHABLE: [address.command("doctor"), address.command("run")],
        ExitCode.LEDGER: [address.command("doctor")],
        ExitCode.CONTRACT: [show],
        ExitCode.BUG: [show],
    }
    found = list(steps.get(exit_code, []))
    return [*found, address.command("export", "--review", "--format", "csv")] if review else found


def _what(night: Night) -> str:
    """When it was, how long it took, and what it recorded."""
    took = "" if night.seconds is None else f", took {span(night.seconds)}"
    did = f"{counted(night.files, 'outcome')} recorded" if night.files else "nothing new"
    parts = [f"{files:,} {outcome}" for outcome, files in night.outcomes.items()]
    detail = "; ".join(filter(None, (", ".join(parts), by_types(night.types))))
    started = night.started_at[:16].replace("T", " ")
    return f"last run {night.run_id}: {started} UTC{took}; {did}{f' ({detail})' if detail else ''}"


def by_types(files: Mapping[str, int]) -> str:
    """The first types, each with its files: ``invoice 12, receipt 3``."""
    shown = [f"{safe(label, 50)} {number:,}" for label, number in list(files.items())[:5]]
    return ", ".join([*shown, "..."] if len(files) > len(shown) else shown)


def bill(night: Night) -> str:
    """The bill of a run and its ceiling; a lower bound while the API has not reported every job."""
    least = "at least " if night.jobs_untold else ""
    billed = "none billed yet" if night.credits is None else f"{least}{amount(night.credits)} billed"
    untold = f", {counted(night.jobs_untold, 'job')} not yet reported" if night.jobs_untold else ""
    most = "" if night.credits_ceiling is None else f", at most {night.credits_ceiling:,}"
    return f"credits: {billed}{untold}{most}"


def _standing(files: Mapping[str, int], by_type: Mapping[str, int]) -> str:
    parts = [f"{files[name]:,} {name}" for name in ("classified", "unmatched", *BAD, "unfinished") if files[name]]
    review = f"; {files['review']:,} to review" if files["review"] else ""
    if review and by_type:
        review += f" ({by_types(by_type)})"
    return f"all files: {files['files']:,}{': ' if parts else ''}{', '.join(parts)}{review}"


def changes(since: Since) -> list[str]:
    """The differences: ``+1 file``, ``-3 to review``."""
    names = {"review": "to review"}
    return [
        f"{more:+,} {'file' if name == 'files' and abs(more) == 1 else names.get(name, name)}"
        for name, more in since.standing.items()
    ]


def _since(since: Since) -> str:
    changed = changes(since)
    return f"since the run before ({since.started_at[:16].replace('T', ' ')} UTC): {', '.join(changed) or 'no change'}"
