"""``orchestrator diff``: what changed from one run to another."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

from orchestrator.errors import InputError
from orchestrator.ledger import Transaction
from orchestrator.ledger import diff as comparing
from orchestrator.ledger.reading import ManifestRow
from orchestrator.models import BAD, Json


def diff(connection: Transaction, row: ManifestRow, run_a: str | None, run_b: str | None) -> dict[str, Json]:
    """Types gained and lost, files that flipped, new failures, confidence drift. Raises InputError for unknown runs.

    Without runs: the latest two that recorded an outcome; what a person accepted is not one of them.
    """
    if (run_a is None) != (run_b is None):
        raise InputError(f"run {run_a or run_b} alone: name two runs, the earlier first, or none for the latest two")
    if run_a is None or run_b is None:
        latest = comparing.last_two(connection, row.id)
        if len(latest) < 2:
            raise InputError(f"manifest {row.name!r} has fewer than two runs with outcomes: nothing to compare yet")
        run_a, run_b = latest
    times = [comparing.ended_at(connection, row.id, run) for run in (run_a, run_b)]
    for run, time in zip((run_a, run_b), times, strict=True):
        if time is None:
            raise InputError(f"run {run} is not a finished run of manifest {row.name!r}; see `orchestrator status`")
    flows = comparing.flows(connection, row.id, str(times[0]), str(times[1]))
    totals: dict[str, Counter[str]] = {"before": Counter(), "after": Counter()}
    for flow in flows:
        if flow.before is not None:
            totals["before"][flow.before] += flow.files
        if flow.after is not None:
            totals["after"][flow.after] += flow.files
    labels = sorted(totals["before"] | totals["after"])
    failures = tuple(outcome.value for outcome in BAD)
    return {
        "manifest": row.name,
        "rehearsal": row.rehearsal,
        "run_a": run_a,
        "run_b": run_b,
        "totals": [
            {"label": label, "before": totals["before"][label], "after": totals["after"][label]} for label in labels
        ],
        "new_files": sum(flow.files for flow in flows if flow.before is None),
        "new_failures": sum(flow.files for flow in flows if flow.after in failures and flow.before not in failures),
        "flipped": [asdict(flow) for flow in flows if flow.before is not None and flow.before != flow.after],
        "drift": [
            asdict(flow)
            for flow in flows
            if flow.before == flow.after and flow.confidence_before != flow.confidence_after
        ],
    }
