"""The manifest's own guard: how much one run may send."""

from __future__ import annotations

from datetime import datetime, timedelta

from orchestrator.clock import timestamp
from orchestrator.errors import LedgerError
from orchestrator.ledger import Transaction, billing, scope
from orchestrator.ledger.chunks import retry
from orchestrator.manifest.loading import Manifest
from orchestrator.plaintext import counted, safe

#: So many files may always be classified again after a change of the manifest, unless its limits say otherwise.
LEAST_RECLASSIFY = 100


def over_limits(manifest: Manifest, files: int, ceiling: int | None, earlier: int | None) -> str | None:
    """Why sending *files* would pass the manifest's limits; None when it would not.

    *ceiling*: what they cost if no parse is there any more. That one is free is known only once it was used.
    *earlier*: the cost of what earlier runs planned and did not send, or sent without an answer: that is sent, or sent
    once more, with them. Halves and second opinions are held back in time instead: see ``credits_left``.
    """
    limits = manifest.limits
    if limits.max_files is not None and files > limits.max_files:
        return _over(manifest, f"{counted(files, 'file')} to send", "max_files", limits.max_files)
    if limits.max_credits is not None and ceiling is not None and (ceiling + (earlier or 0)) > limits.max_credits:
        before = f" and {earlier:,} for what earlier runs planned or got no answer about" if earlier else ""
        return _over(manifest, f"up to {counted(ceiling, 'credit')}{before}", "max_credits", limits.max_credits)
    return None


def over_reclassify(manifest: Manifest, changes: retry.Changes, have_outcome: int) -> str | None:
    """Why so many of the files that *have_outcome* may not be classified again unasked; None when they may."""
    most = manifest.limits.max_reclassify
    most = max(LEAST_RECLASSIFY, have_outcome // 10) if most is None else most
    if changes.files <= most:
        return None
    place = manifest.limit_lines.get("max_reclassify")
    where = f" in {manifest.path}:{place}" if place else ""
    return (
        f"{counted(changes.files, 'file')} would be classified again because of {' and '.join(changes.fields)}, "
        f"over limits.max_reclassify: {most}; allow it once with --reclassify, or raise the limit{where}"
    )


def _over(manifest: Manifest, what: str, limit: str, value: int) -> str:
    return f"{what}, over limits.{limit}: {value}; to go on raise it in {manifest.path}:{manifest.limit_lines[limit]}"


def credits_left(connection: Transaction, manifest: Manifest, run_id: str) -> int | None:
    """Return the credits that the run may still plan to spend on halves and second opinions; None without a limit."""
    most = manifest.limits.max_credits
    return None if most is None else most - billing.ceiling_of_run(connection, run_id)


def may_begin_again(manifest: Manifest, *, rehearsal: bool) -> bool:
    """Whether an empty ledger in the place of one that is gone buys nothing twice: v2 knows its jobs by their keys."""
    return manifest.api == "v2" or rehearsal


def refuse_incomplete(connection: Transaction, manifest: Manifest, *, rehearsal: bool) -> None:
    """Raises LedgerError where a ledger was lost, and what the API has of the manifest is not in the new one.

    A run of another manifest, or an adoption of its jobs, does not make up for that.
    """
    if may_begin_again(manifest, rehearsal=rehearsal):
        return
    if scope.lacks_jobs(connection, scope.manifest_id(connection, manifest.name, rehearsal=False)):
        raise LedgerError(
            f"this ledger took the place of one that was lost, and may lack jobs of {manifest.name}: first have "
            f"`orchestrator adopt {safe(manifest.path)}` take in what the API has; nothing was sent"
        )


def parses_since(now: datetime) -> str:
    """How far back a parse may lie to be there still: the vendor keeps them for 48 hours."""
    return timestamp(now - timedelta(hours=47))


def files_per_chunk(manifest: Manifest) -> int:
    """How many files one create call of this manifest takes: v2 jobs have one each."""
    return 1 if manifest.api == "v2" else manifest.chunk_size
