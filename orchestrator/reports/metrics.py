"""The figures of a manifest for Prometheus, in the text format that node_exporter's textfile collector reads.

All of them come from the ledger, so that a night that failed keeps the time of the last one that went well. The labels
are ``manifest`` and ``outcome`` only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from orchestrator.ledger import Transaction
from orchestrator.ledger.views import runs as ledger_runs
from orchestrator.ledger.views.runs import Run
from orchestrator.models import Json, Outcome

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

PREFIX = "orchestrator_"

#: Figures that a run's summary has: name, key of the summary, words.
_OF_SUMMARY = (
    ("last_run_duration_seconds", "seconds", "How long the last run took that ended."),
    ("last_run_jobs_created", "jobs_created", "Jobs that the last run created."),
    (
        "last_run_credits_billed",
        "credits",
        "Credits billed to the last run's jobs, as far as the API has reported them.",
    ),
    ("last_run_credits_ceiling", "credits_ceiling", "The most credits that the last run can have cost."),
    ("files_to_review", "review", "Files whose result a person should look at."),
    ("files_held", "held", "Files in chunks that wait for a person's decision."),
    ("files_known_failed", "known_failures", "Failed, missing or cancelled files that an earlier run has reported."),
    ("files_dismissed", "dismissed", "Failed, missing or cancelled files that a person has said to leave."),
    ("create_limit_per_second", "create_limit_per_s", "The API's limit on create calls, as the last run found it."),
)

#: The states of files, and the calls' kinds and results: all are there from the first run on, if only as 0.
_OUTCOMES = (*(outcome.value for outcome in Outcome), "unfinished")
_KINDS = ("create", "read", "list", "upload")
_RESULTS = ("answered", "throttled", "refused", "not_sent", "unanswered")


@dataclass(frozen=True, slots=True)
class Failure:
    """A run that ended without a record of its own: before it began, or because it was killed."""

    exit_code: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Latest:
    """The latest runs of a manifest; None where there is no such run."""

    started: Run | None = None
    ended: Run | None = None
    successful: Run | None = None


def latest(connection: Transaction, manifest_id: int) -> Latest:
    """Read the latest runs of a manifest."""
    started = ledger_runs.latest(connection, manifest_id, 1, verdicts=False)
    ended, successful = (ledger_runs.latest_ended(connection, manifest_id, successful=which) for which in (False, True))
    return Latest(started[0] if started else None, ended, successful)


def metrics(manifest: str, runs: Latest, failure: Failure | None = None) -> str:
    """The figures as text. *failure* is later than all *runs*. Needs the extra ``metrics``."""
    from prometheus_client import CollectorRegistry, generate_latest

    page = _Page(CollectorRegistry(), manifest)
    started, ended, successful = runs.started, runs.ended, runs.successful
    began = _seconds(started.started_at) if started else None
    page.gauge("last_run_start_time_seconds", "When the last run began.", began)
    end, code = (_seconds(ended.finished_at), ended.exit_code) if ended else (None, None)
    if failure is not None:
        end, code = failure.at.timestamp(), failure.exit_code
    page.gauge("last_run_end_time_seconds", "When the last run ended.", end)
    page.gauge("last_run_exit_code", "The exit code of the last run that ended.", code)
    success = _seconds(successful.finished_at) if successful else 0.0
    page.gauge("last_success_time_seconds", "When the last run ended that ended in 0; 0 before the first.", success)
    _of_summary(page, (ended.summary if ended else None) or {})
    return generate_latest(page.registry).decode()


def _of_summary(page: _Page, summary: Mapping[str, Json]) -> None:
    for name, key, words in _OF_SUMMARY:
        page.gauge(name, words, summary.get(key))
    if not summary:
        return
    page.gauges("files", "All files of the manifest.", {name: summary.get(name) or 0 for name in _OUTCOMES})
    quarantined = (summary.get("quarantined") or {}).get("files")
    page.gauge("files_quarantined", "Files that are sent again only by name.", quarantined)
    calls = summary.get("requests_by_kind") or {}
    for kind in [*_KINDS, *sorted(calls.keys() - {*_KINDS})]:
        results = {result: calls.get(kind, {}).get(result, 0) for result in _RESULTS}
        page.gauges(f"last_run_{kind}_requests", f"Calls of the kind {kind} that the last run made.", results)
    drift = summary.get("drift")
    if drift is not None:
        words = "Jensen-Shannon distance of the last run's {} from the mean of the runs before it, 0 to 1."
        page.gauge("drift_types_ratio", words.format("types"), drift["types_distance"])
        page.gauge("drift_confidence_ratio", words.format("confidences"), drift["confidence_distance"])
        page.gauge("drift_alarm", "1 when that is more than the manifest allows, and more than chance.", drift["alarm"])


@dataclass(frozen=True, slots=True)
class _Page:
    """The figures so far."""

    registry: CollectorRegistry
    manifest: str

    def gauge(self, name: str, words: str, value: float | None) -> None:
        """Add a figure; one that is not known is left out."""
        from prometheus_client import Gauge

        if value is not None:
            Gauge(PREFIX + name, words, ["manifest"], registry=self.registry).labels(self.manifest).set(float(value))

    def gauges(self, name: str, words: str, values: Mapping[str, float]) -> None:
        """Add a figure for each outcome."""
        from prometheus_client import Gauge

        gauge = Gauge(PREFIX + name, words, ["manifest", "outcome"], registry=self.registry)
        for outcome, value in values.items():
            gauge.labels(self.manifest, outcome).set(float(value))


def _seconds(at: str | None) -> float | None:
    """A time of the ledger as Prometheus has it."""
    return None if at is None else datetime.fromisoformat(at).timestamp()
