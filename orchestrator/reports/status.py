"""Where everything is: what ``status`` shows, as one JSON-ready value per manifest."""

from __future__ import annotations

from orchestrator.ledger import Transaction, billing, reading, retry
from orchestrator.ledger.scope import Scope
from orchestrator.models import GOOD, Json
from orchestrator.planning.preview import MOST_QUARANTINED


def status(
    connection: Transaction, row: reading.ManifestRow, *, most_failed: int = 5, most_runs: int = 5
) -> dict[str, Json]:
    """Totals, open jobs, what needs a person, quarantined and failed files, latest runs of one manifest."""
    scope = Scope(row.id, row.config_id)
    totals = reading.totals(connection, scope, wanted=False, review=row.review)
    open_ = {job.pop("status"): job for job in reading.open_jobs(connection, row.id)}
    outcomes = {outcome.value: files for outcome, files in totals.outcomes.items()}
    bad = sum(files for outcome, files in totals.outcomes.items() if outcome not in GOOD)
    return {
        "manifest": row.name,
        "rehearsal": row.rehearsal,
        "path": row.path,
        "api": row.origin,
        "fingerprint": row.fingerprint,
        "files": sum(outcomes.values()) + totals.unfinished,
        **outcomes,
        "unfinished": totals.unfinished,
        "other_rules": reading.only_under_other_rules(connection, scope),
        "review": totals.review,
        "types": totals.types,
        "open": open_,
        "spent": billing.spent(connection, row.id),
        "needs_decision": reading.decisions(connection, row.id),
        "quarantined": retry.quarantined(connection, scope, row.max_generations, wanted=False, most=MOST_QUARANTINED),
        "failed_files": reading.failed_files(connection, scope, most_failed) if bad else [],
        "runs": reading.runs(connection, row.id, most_runs),
    }
