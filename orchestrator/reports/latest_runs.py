"""The latest runs of a manifest in figures: what each recorded, how all files stood at its end, what it took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from orchestrator.ledger import Transaction
from orchestrator.ledger.views import runs
from orchestrator.ledger.views.runs import Run, Tally
from orchestrator.models import Outcome
from orchestrator.reports.drift import Drift, of_latest

#: How many runs a page looks back.
MOST_NIGHTS = 30

#: What a run's summary says of all files of its manifest.
STANDING = ("files", *(outcome.value for outcome in Outcome), "unfinished", "review")


@dataclass(frozen=True, slots=True)
class Night:
    """One run in figures. Figures known only at its end are None for a run that goes on, or was killed."""

    run_id: str
    command: str
    api: str
    started_at: str
    finished_at: str | None
    exit_code: int | None
    reason: str | None
    seconds: float | None
    requests: int | None
    jobs_created: int | None
    credits: float | None  #: billed by the end of the run, as far as the API had said
    jobs_untold: int  #: of its jobs: the API had not reported all bills, so ``credits`` is a lower bound
    credits_ceiling: int | None
    outcomes: dict[str, int]  #: outcome -> files for which this run recorded it
    types: dict[str, int]  #: type -> files that this run recorded as such
    standing: dict[str, int] | None  #: all files of the manifest at the run's end: see ``STANDING``
    review_by_type: dict[str, int] = field(default_factory=dict)  #: type, or ``unmatched`` -> files to review

    @property
    def files(self) -> int:
        """Files for which this run recorded an outcome."""
        return sum(self.outcomes.values())


@dataclass(frozen=True, slots=True)
class Since:
    """The difference between the end of a run and the end of the run before it."""

    run_id: str  #: the run before
    started_at: str  #: of the run before
    standing: dict[str, int]  #: more (or, below 0, fewer) files of each of ``STANDING``; without those that are equal
    recorded_before: dict[str, int]  #: what the run before recorded, by outcome


@dataclass(frozen=True, slots=True)
class LastNight:
    """The latest run, and what changed since the one before. ``since`` is None when there is none to compare with."""

    night: Night
    since: Since | None


def nights(connection: Transaction, manifest_id: int, most: int = MOST_NIGHTS) -> list[Night]:
    """The latest *most* runs, newest first."""
    found = runs.latest(connection, manifest_id, most, verdicts=False)
    return of(found, runs.recorded(connection, [run.run_id for run in found]))


def of(found: Sequence[Run], tallies: Iterable[Tally]) -> list[Night]:
    """The runs *found* and what they recorded."""
    outcomes: dict[str, Counter[str]] = {run.run_id: Counter() for run in found}
    types: dict[str, Counter[str]] = {run.run_id: Counter() for run in found}
    for tally in tallies:
        outcomes[tally.run_id][tally.outcome] += tally.files
        if tally.type:
            types[tally.run_id][tally.type] += tally.files
    return [_night(run, outcomes[run.run_id], types[run.run_id]) for run in found]


def last_night(connection: Transaction, manifest_id: int) -> LastNight | None:
    """The latest run and what changed since the one before; None before the first run."""
    found = nights(connection, manifest_id)
    return LastNight(found[0], since_before(found)) if found else None


def drift(connection: Transaction, manifest_id: int, alert: float | None) -> Drift | None:
    """The drift of the latest run; None when there is too little to compare it with."""
    found = runs.latest(connection, manifest_id, MOST_NIGHTS, verdicts=False)
    return of_latest(found, runs.recorded(connection, [run.run_id for run in found]), alert)


def since_before(found: Sequence[Night]) -> Since | None:
    """Return what the latest of *found* (newest first) changed, compared with the next with a record of all files."""
    if not found or found[0].standing is None:
        return None
    for before in found[1:]:
        if before.standing is not None:
            now, then = found[0].standing, before.standing
            changed = {name: now[name] - then[name] for name in STANDING if now[name] != then[name]}
            return Since(before.run_id, before.started_at, changed, before.outcomes)
    return None


def _night(run: Run, outcomes: Counter[str], types: Counter[str]) -> Night:
    summary = run.summary or {}
    return Night(
        run_id=run.run_id,
        command=run.command,
        api=run.api,
        started_at=run.started_at,
        finished_at=run.finished_at,
        exit_code=run.exit_code,
        reason=summary.get("reason"),
        seconds=summary.get("seconds"),
        requests=summary.get("requests"),
        jobs_created=summary.get("jobs_created"),
        credits=summary.get("credits"),
        jobs_untold=summary.get("jobs_untold", 0),
        credits_ceiling=summary.get("credits_ceiling"),
        outcomes={outcome.value: outcomes[outcome] for outcome in Outcome if outcomes[outcome]},
        types=dict(sorted(types.items(), key=lambda item: (-item[1], item[0]))),
        standing={name: summary[name] for name in STANDING} if summary.keys() >= set(STANDING) else None,
        review_by_type=summary.get("review_by_type") or {},
    )
