"""The end of a run: its counts, and the exit code that follows from them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from typing import Any

from orchestrator.api.counting import Calls, by_kind
from orchestrator.commands.route import Placed
from orchestrator.errors import ExitCode, Interrupted, OrchestratorError, exit_code_of
from orchestrator.ledger import Transaction, billing
from orchestrator.ledger.chunks import accept, halving, retry
from orchestrator.ledger.queue import Shard, tally
from orchestrator.ledger.views import reading
from orchestrator.ledger.views import runs as ledger_runs
from orchestrator.ledger.views.reading import FailedFile, SecondOpinions, Totals
from orchestrator.ledger.views.runs import Retried
from orchestrator.manifest.loading import Manifest
from orchestrator.models import BAD, Extent, Json, Outcome
from orchestrator.plaintext import counted
from orchestrator.planning.documents import Taken
from orchestrator.planning.options import Options
from orchestrator.planning.plan import Sample
from orchestrator.planning.run import Plan
from orchestrator.reports.drift import Drift
from orchestrator.reports.latest_runs import drift
from orchestrator.stages.work import HeldBack, Progress

#: How many failed and how many quarantined files a summary names.
MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Summary:
    """The fields that ``run --json`` prints and the ledger keeps of a run."""

    manifest: str
    run_id: str
    rehearsal: bool
    api: str  #: v1 or v2
    host: str  #: the API's, as the ledger names it
    started_at: str
    finished_at: str
    files: int
    classified: int
    unmatched: int
    failed: int
    missing: int
    cancelled: int
    unfinished: int
    skipped: int
    duplicates: int
    jobs_created: int
    requests: int
    seconds: float
    exit_code: int
    reason: str
    types: dict[str, int]
    review: int
    known_failures: int  #: of the failed, missing and cancelled: an earlier run that finished has reported them
    dismissed: int  #: of the failed, missing and cancelled: a person has said to leave them
    adopted: int
    sent_again: int
    credits_ceiling: int | None  #: None: not known, because the configuration is kept on the server
    credits: float | None  #: billed to this run's jobs, as far as the API has said; None when it has not
    jobs_untold: int  #: of this run's jobs: the API has not reported all bills, so ``credits`` is a lower bound
    failed_files: list[FailedFile]  #: the first few
    quarantined: retry.Quarantine  #: the first few of them named
    second_opinions: SecondOpinions | None  #: with ``escalate``
    retried: Retried | None  #: by `retry`
    changes: retry.Changes  #: of the manifest since the retried files were last sent
    reclassified: retry.Changes  #: of the manifest since files that count as new were last classified
    renamed_from: str | None  #: the name under which the ledger knew this file, if the present one was new
    documents: Taken | None = None  #: with ``documents_from``
    uploaded: int = 0  #: documents
    drift: Drift | None = None  #: from the runs before; None when there is too little to compare
    routed: Placed | None = None  #: with ``route``
    sample: Sample | None = None  #: with ``--sample``
    held_back: HeldBack = field(default_factory=HeldBack)  #: by ``limits.max_credits``, left to a later run
    held: int = 0  #: files in chunks that wait for a person's decision
    review_by_type: dict[str, int] = field(default_factory=dict)  #: type, or ``unmatched`` -> files to review
    requests_by_kind: dict[str, dict[str, int]] = field(default_factory=dict)  #: kind -> result -> calls
    create_limit_per_s: float | None = None  #: the limit found on create calls; None when none was refused
    extents: dict[str, Extent] = field(default_factory=dict)  #: how long ``failed_files`` and ``quarantined`` are

    @property
    def credits_words(self) -> str | None:
        """The bill in words, as far as the API has said."""
        if self.credits is None:
            return None
        most = "" if self.credits_ceiling is None else f", of at most {self.credits_ceiling:,}"
        least = "at least " if self.jobs_untold else ""
        untold = f"; {counted(self.jobs_untold, 'job')} not yet reported" if self.jobs_untold else ""
        return f"{least}{counted(self.credits, 'credit')} billed so far{most}{untold}"

    def as_json(self) -> dict[str, Json]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Ended:
    """A run's own account of how it ended; the rest of its summary is in the ledger."""

    run_id: str
    host: str  #: the API's, as the ledger names it
    started_at: str
    finished_at: str
    options: Options
    plan: Plan
    progress: Progress
    requests: Calls
    create_limit_per_s: float | None  #: as far as the API's refusals have shown it
    seconds: float
    left: Collection[str]  #: why chunks were left to a later run or to a person
    error: OrchestratorError | None  #: why it ended early, if it did
    documents: Taken | None = None
    routed: Placed | None = None


def _totals(connection: Transaction, manifest: Manifest, ended: Ended) -> tuple[reading.Totals, list[str]]:
    """The files' outcomes, and why some of the files are left."""
    scope, left = ended.plan.scope, list(ended.left)
    review = {"below_confidence": manifest.review.below_confidence, "unmatched": manifest.review.unmatched}
    totals = reading.totals(connection, scope, staged=ended.plan.staged, review=review)
    if not ended.options.new:  # a retry leaves alone what was never sent under the current rules
        totals, unsent = reading.with_other_rules(connection, scope, totals, review, staged=ended.plan.staged)
        were = "was" if unsent == 1 else "were"
        left += [f"{counted(unsent, 'file')} {were} not sent yet: `orchestrator run` sends them"] * (unsent > 0)
    return totals, left


def _unfinished(connection: Transaction, totals: reading.Totals, ended: Ended, left: Collection[str]) -> int:
    """Files that have yet to get an outcome; 0 where sending the rest is `run`'s to do."""
    if not ended.options.create and not left and ended.error is None:
        return 0
    in_flight = sum(files for _, files in tally(connection, ended.plan.scope.manifest_id).values())
    return max(totals.unfinished, in_flight, ended.progress.not_uploaded)


def conclude(connection: Transaction, manifest: Manifest, ended: Ended) -> Summary:
    """The summary of a run, from its own account and the ledger."""
    plan, scope = ended.plan, ended.plan.scope
    totals, left = _totals(connection, manifest, ended)
    unfinished = _unfinished(connection, totals, ended, left)
    suspects = _to_be_halved(connection, manifest, ended)
    left += [f"{counted(suspects, 'file')} failed together: the next run looks for those at fault"] * (suspects > 0)
    known = accept.known_failures(connection, scope, staged=plan.staged)
    dismissed = accept.dismissed(connection, scope, staged=plan.staged)
    pardoned = known if ended.options.known_ok else 0
    code, reason = why(
        totals, unfinished or suspects, ended.error, left, known=pardoned, dismissed=dismissed, sample=plan.sample
    )
    if code is ExitCode.OK and not ended.options.create:
        reason = "every document is at the API"
    spent = billing.spent_by_run(connection, ended.run_id)
    return Summary(
        manifest=manifest.name,
        api=manifest.api,
        unfinished=unfinished,
        exit_code=int(code),
        reason="; ".join(filter(None, (reason, ended.progress.held_back.words))),
        known_failures=known,
        dismissed=dismissed,
        credits_ceiling=_ceiling(manifest, ended),
        credits=spent.credits if spent.jobs_billed else None,
        jobs_untold=spent.jobs_untold,
        second_opinions=reading.second_opinions(connection, ended.run_id) if manifest.escalate else None,
        drift=drift(connection, scope.manifest_id, manifest.drift_alert),
        retried=None if ended.options.new else ledger_runs.retried(connection, ended.run_id),
        held=reading.held_files(connection, scope.manifest_id),
        **_of_files(connection, manifest, plan, totals, dismissed),
        **_of_run(ended),
    )


def _of_files(
    connection: Transaction, manifest: Manifest, plan: Plan, totals: Totals, dismissed: int
) -> dict[str, Any]:
    """The fields of a summary that say how the files stand."""
    outcomes = totals.outcomes
    failed = reading.failed_files(connection, plan.scope, MOST_NAMED, staged=plan.staged)
    most_generations = manifest.limits.max_generations
    quarantined = retry.quarantined(connection, plan.scope, most_generations, staged=plan.staged, most=MOST_NAMED)
    return {
        "classified": outcomes[Outcome.CLASSIFIED],
        "unmatched": outcomes[Outcome.UNMATCHED],
        "failed": outcomes[Outcome.FAILED],
        "missing": outcomes[Outcome.MISSING],
        "cancelled": outcomes[Outcome.CANCELLED],
        "types": totals.types,
        "review": totals.review,
        "review_by_type": {label: files for label, files in totals.review_by_type.items() if files},
        "failed_files": failed,
        "quarantined": quarantined,
        "extents": {
            "failed_files": Extent.of(failed, sum(outcomes[outcome] for outcome in BAD) - dismissed),
            "quarantined": quarantined.extent,
        },
    }


def _of_run(ended: Ended) -> dict[str, Any]:
    """The fields of a summary that the run itself knows."""
    plan, progress = ended.plan, ended.progress
    return {
        "run_id": ended.run_id,
        "rehearsal": ended.options.sandbox,
        "host": ended.host,
        "started_at": ended.started_at,
        "finished_at": ended.finished_at,
        "files": plan.counts.files,
        "skipped": plan.counts.done + plan.counts.failed,
        "duplicates": plan.counts.duplicates,
        "jobs_created": progress.created,
        "requests": ended.requests.total(),
        "requests_by_kind": by_kind(ended.requests),
        "create_limit_per_s": None if ended.create_limit_per_s is None else round(ended.create_limit_per_s, 3),
        "seconds": round(ended.seconds, 3),
        "adopted": progress.adopted,
        "sent_again": progress.sent_again,
        "changes": plan.changes,
        "reclassified": plan.reclassified,
        "renamed_from": plan.renamed_from,
        "sample": plan.sample,
        "documents": ended.documents,
        "uploaded": progress.uploaded,
        "routed": ended.routed,
        "held_back": progress.held_back,
    }


def why(
    totals: Totals,
    unfinished: int,
    error: OrchestratorError | None,
    left: Collection[str],
    *,
    known: int = 0,
    dismissed: int = 0,
    sample: Sample | None = None,
) -> tuple[ExitCode, str]:
    """The exit code and the one line that says why; *left*: why chunks were left to a later run or to a person.

    Failed files that are *known*, and those that a person has *dismissed*, do not count.
    """
    if (code := exit_code_of(error, unfinished=bool(unfinished))) is not None:
        return code, str(error)
    if unfinished:
        return ExitCode.UNFINISHED, "; ".join(sorted(set(left))[:3]) or "submitted; a later run collects the results"
    bad = sum(totals.outcomes[outcome] for outcome in BAD)
    if bad > known + dismissed:
        more = f", {known:,} of them known" if known else ""
        return ExitCode.SOME_FAILED, f"{counted(bad - dismissed, 'file')} failed, missing or cancelled{more}"
    remarks = [f"known failures: {known:,}"] * (known > 0) + [f"dismissed: {dismissed:,}"] * (dismissed > 0)
    return ExitCode.OK, "; ".join([sample.words if sample else "every file has an outcome", *remarks])


def _ceiling(manifest: Manifest, ended: Ended) -> int | None:
    """Return the most that the run can have cost: files whose parse was gone had to be paid for."""
    more = manifest.config.credits_ceiling(ended.progress.parses_gone)
    return None if ended.plan.credits_ceiling is None or more is None else ended.plan.credits_ceiling + more


def _to_be_halved(connection: Transaction, manifest: Manifest, ended: Ended) -> int:
    """Files of failed jobs among which a run that ended before its time has not looked for the one at fault."""
    if ended.options.wait and not isinstance(ended.error, Interrupted):
        return 0
    failed = halving.to_halve(connection, Shard(ended.plan.scope.manifest_id, manifest.api))
    return sum(len(chunk.file_ids) for chunk in failed if len(chunk.file_ids) > 1)
