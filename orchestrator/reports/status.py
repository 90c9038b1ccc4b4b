"""Where everything is: what ``status`` shows, one value per manifest."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from orchestrator.ledger import ServerState, Transaction, billing
from orchestrator.ledger.chunks import accept, retry
from orchestrator.ledger.scope import Scope
from orchestrator.ledger.views import reading
from orchestrator.ledger.views import runs as ledger_runs
from orchestrator.ledger.views.runs import Run
from orchestrator.models import GOOD, Extent, Json, Outcome
from orchestrator.planning.preview import MOST_QUARANTINED
from orchestrator.reports.latest_runs import LastNight, last_night


@dataclass(frozen=True, slots=True)
class Status:
    """How one manifest stands: totals, open jobs, what needs a person, quarantined and failed files, latest runs."""

    manifest: str
    rehearsal: bool
    path: str
    api: str  #: v1 or v2, as the latest run used it
    host: str  #: the API's, as the ledger names it
    fingerprint: str
    files: int
    classified: int
    unmatched: int
    failed: int
    missing: int
    cancelled: int
    unfinished: int
    other_rules: int  #: files with an outcome under other rules only
    review: int
    types: dict[str, int]
    open: dict[str, reading.OpenJobs]  #: by job status
    spent: billing.Spent
    needs_decision: list[reading.Decision]
    quarantined: retry.Quarantine
    failed_files: list[reading.FailedFile]  #: the first few
    runs: list[Run]  #: the latest, newest first
    dismissed: int  #: of the failed, missing and cancelled: a person has said to leave them
    last_run: LastNight | None  #: what it recorded, and what it changed
    running: str | None  #: who holds the manifest right now, as its lock says
    extents: dict[str, Extent]  #: how long ``failed_files``, ``quarantined`` and ``runs`` are

    def as_json(self) -> dict[str, Json]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Standing:
    """Every manifest of the ledger, or the one named: what ``status --json`` prints."""

    ledger: str
    manifests: list[Status]
    server: ServerState | None = None  #: of a ledger in PostgreSQL


def status(
    connection: Transaction,
    row: reading.ManifestRow,
    *,
    most_failed: int = 5,
    most_runs: int = 5,
    running: str | None = None,
) -> Status:
    """How the manifest *row* stands. *running*: who holds its lock."""
    scope = Scope(row.id, row.config_id)
    totals = reading.totals(connection, scope, staged=None, review=row.review)
    outcomes = totals.outcomes
    bad = sum(files for outcome, files in outcomes.items() if outcome not in GOOD)
    dismissed = accept.dismissed(connection, scope, staged=None) if bad else 0
    quarantined = retry.quarantined(connection, scope, row.max_generations, staged=None, most=MOST_QUARANTINED)
    failed_files = reading.failed_files(connection, scope, most_failed) if bad else []
    runs = ledger_runs.latest(connection, row.id, most_runs, verdicts=True)
    return Status(
        manifest=row.name,
        rehearsal=row.rehearsal,
        path=row.path,
        api=row.api,
        host=row.origin,
        fingerprint=row.fingerprint,
        files=sum(outcomes.values()) + totals.unfinished,
        classified=outcomes[Outcome.CLASSIFIED],
        unmatched=outcomes[Outcome.UNMATCHED],
        failed=outcomes[Outcome.FAILED],
        missing=outcomes[Outcome.MISSING],
        cancelled=outcomes[Outcome.CANCELLED],
        unfinished=totals.unfinished,
        other_rules=reading.only_under_other_rules(connection, scope),
        review=totals.review,
        types=totals.types,
        open=reading.open_jobs(connection, row.id),
        spent=billing.spent(connection, row.id),
        needs_decision=reading.decisions(connection, row.id),
        quarantined=quarantined,
        failed_files=failed_files,
        runs=runs,
        dismissed=dismissed,
        last_run=last_night(connection, row.id),
        running=running,
        extents={
            "failed_files": Extent.of(failed_files, bad - dismissed),
            "quarantined": quarantined.extent,
            "runs": Extent.of(runs, ledger_runs.how_many(connection, row.id, verdicts=True)),
        },
    )
