"""``orchestrator diff``: what changed from one run to another."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from orchestrator.errors import InputError
from orchestrator.ledger import Transaction
from orchestrator.ledger.views import diff as ledger_diff
from orchestrator.ledger.views.reading import ManifestRow
from orchestrator.models import BAD


@dataclass(frozen=True, slots=True)
class Total:
    """How many files had an outcome, by its label, after the one run and after the other."""

    label: str
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Diff:
    """The changes from run *run_a* to run *run_b*."""

    manifest: str
    rehearsal: bool
    run_a: str
    run_b: str
    totals: list[Total]
    new_files: int
    new_failures: int
    flipped: list[ledger_diff.Flow]
    drift: list[ledger_diff.Flow]  #: same outcome, another mean confidence


def diff(connection: Transaction, row: ManifestRow, run_a: str | None, run_b: str | None) -> Diff:
    """Types gained and lost, files that flipped, new failures, confidence drift. Raises InputError for unknown runs.

    Without runs: the latest two that recorded an outcome; what a person accepted is not one of them.
    """
    if (run_a is None) != (run_b is None):
        raise InputError(f"run {run_a or run_b} alone: name two runs, the earlier first, or none for the latest two")
    if run_a is None or run_b is None:
        latest = ledger_diff.last_two(connection, row.id)
        if len(latest) < 2:
            raise InputError(f"manifest {row.name!r} has fewer than two runs with outcomes: nothing to compare yet")
        run_a, run_b = latest
    times = [ledger_diff.ended_at(connection, row.id, run) for run in (run_a, run_b)]
    for run, time in zip((run_a, run_b), times, strict=True):
        if time is None:
            raise InputError(f"run {run} is not a finished run of manifest {row.name!r}; see `orchestrator status`")
    flows = ledger_diff.flows(connection, row.id, str(times[0]), str(times[1]))
    totals: dict[str, Counter[str]] = {"before": Counter(), "after": Counter()}
    for flow in flows:
        if flow.before is not None:
            totals["before"][flow.before] += flow.files
        if flow.after is not None:
            totals["after"][flow.after] += flow.files
    labels = sorted(totals["before"] | totals["after"])
    failures = tuple(outcome.value for outcome in BAD)
    return Diff(
        manifest=row.name,
        rehearsal=row.rehearsal,
        run_a=run_a,
        run_b=run_b,
        totals=[Total(label, totals["before"][label], totals["after"][label]) for label in labels],
        new_files=sum(flow.files for flow in flows if flow.before is None),
        new_failures=sum(flow.files for flow in flows if flow.after in failures and flow.before not in failures),
        flipped=[flow for flow in flows if flow.before is not None and flow.before != flow.after],
        drift=[flow for flow in flows if flow.before == flow.after and flow.confidence_before != flow.confidence_after],
    )
