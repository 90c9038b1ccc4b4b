"""The page's content as one tree of values: what ``report --json`` prints, and what ``html`` draws."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import orchestrator
from orchestrator.errors import ExitCode
from orchestrator.ledger import Description, Location, Transaction, billing
from orchestrator.ledger.chunks import retry
from orchestrator.ledger.chunks.retry import Quarantine
from orchestrator.ledger.scope import Scope
from orchestrator.ledger.views import page as ledger_page
from orchestrator.ledger.views import reading
from orchestrator.ledger.views import runs as ledger_runs
from orchestrator.ledger.views.page import Doubtful
from orchestrator.ledger.views.reading import Decision
from orchestrator.models import BAD, Config, Extent, Json
from orchestrator.plaintext import counted, safe
from orchestrator.reports import drift as drifts
from orchestrator.reports import latest_runs
from orchestrator.reports.drift import Drift
from orchestrator.reports.last_run import Address
from orchestrator.reports.latest_runs import MOST_NIGHTS, Night, Since
from orchestrator.reports.page.causes import Cause, causes
from orchestrator.reports.page.timeline import Timeline, timeline

#: Rows of a list; an export has them all.
MOST_REVIEW = 25
MOST_CAUSES = 15
MOST_QUARANTINED = 20
MOST_DECISIONS = 20

#: Failed files that are put together by cause, the latest first.
MOST_FAILURES = 20_000

#: Bins of a confidence histogram.
BINS = 20


@dataclass(frozen=True, slots=True)
class Todo:
    """Something for a person to do. ``command``: as it is to be typed; None when there is none for it."""

    why: str
    command: str | None


@dataclass(frozen=True, slots=True)
class Histogram:
    """Confidences of all files of one type, in ``BINS`` equal bins from 0 to 1; without one a file is in the first."""

    type: str
    files: int
    bins: tuple[int, ...]
    unsure: int  #: files below the review threshold, by whole percents


@dataclass(frozen=True, slots=True)
class Section:
    """Everything about one manifest."""

    manifest: str
    rehearsal: bool
    path: str
    api: str  #: v1 or v2, as the latest run used it
    host: str  #: the API's, as the ledger names it
    project_id: str | None
    files: int
    outcomes: dict[str, int]
    unfinished: int
    other_rules: int  #: files with an outcome only under other rules
    types: dict[str, int]
    to_review: int
    credits: float  #: billed in all, as far as the API has said
    jobs_unbilled: int  #: jobs whose bill the API has not said
    since: Since | None
    drift: Drift | None
    todos: tuple[Todo, ...]
    nights: tuple[Night, ...]  #: the latest runs, newest first
    running: str | None  #: who holds the manifest right now, as its lock says
    below_confidence: float | None  #: the review threshold
    histograms: tuple[Histogram, ...]
    timeline: Timeline | None  #: of the latest run
    causes: tuple[Cause, ...]
    causes_of: int  #: failed files that the causes are of: the latest, if there are more
    review: tuple[Doubtful, ...]
    quarantined: Quarantine
    held: tuple[Decision, ...]  #: chunks that only a person can settle, and jobs paid for twice
    fingerprint: str
    config: Config
    settings: dict[str, Json]
    extents: dict[str, Extent]  #: how long ``causes``, ``held``, ``nights``, ``quarantined`` and ``review`` are

    @property
    def bad(self) -> int:
        """Files that ended badly."""
        return sum(self.outcomes[outcome.value] for outcome in BAD)


@dataclass(frozen=True, slots=True)
class Page:
    """One page about one ledger. Times are in UTC."""

    ledger: str
    at: str
    versions: dict[str, str]
    manifests: tuple[Section, ...]


def page(
    connection: Transaction,
    rows: Sequence[reading.ManifestRow],
    about: Description,
    *,
    ledger: Location,
    now: datetime,
    running: Mapping[int, str] = MappingProxyType({}),
) -> Page:
    """The page about the manifests *rows* of the *ledger* that *about* describes.

    *running*: a row's id -> who holds its lock.
    """
    versions = {
        "orchestrator": orchestrator.__version__,
        "Python": platform.python_version(),
        f"{about.engine} ledger": str(about.version),
    }
    return Page(
        about.location,
        now.isoformat(timespec="seconds"),
        versions,
        tuple(section(connection, row, ledger, now, running.get(row.id)) for row in rows),
    )


def section(
    connection: Transaction, row: reading.ManifestRow, ledger: Location, now: datetime, running: str | None
) -> Section:
    """Return the page's section on one manifest."""
    scope = Scope(row.id, row.config_id)
    standing = _standing(connection, row, scope)
    runs = ledger_runs.latest(connection, row.id, MOST_NIGHTS, verdicts=False)
    tallies = ledger_runs.recorded(connection, [run.run_id for run in runs])
    found = latest_runs.of(runs, tallies)
    config, settings = ledger_page.kept_settings(connection, row.id)
    drift = drifts.of_latest(runs, tallies, (settings.get("drift") or {}).get("alert"))
    address = Address.of(Path(row.path), ledger, rehearsal=row.rehearsal)
    below = row.review.get("below_confidence")
    return Section(
        manifest=row.name,
        rehearsal=row.rehearsal,
        path=row.path,
        api=row.api,
        host=row.origin,
        project_id=row.project_id,
        since=latest_runs.since_before(found),
        drift=drift,
        todos=tuple(_todos(connection, row, address, standing, last=found[0] if found else None, drift=drift)),
        nights=tuple(found),
        running=running,
        below_confidence=below,
        histograms=_histograms(ledger_page.confidences(connection, scope), below),
        timeline=_timeline(connection, row.id, found, now),
        fingerprint=row.fingerprint,
        config=config,
        settings=settings,
        **standing.shown(nights=Extent.of(found, ledger_runs.how_many(connection, row.id, verdicts=False))),
    )


@dataclass(frozen=True, slots=True)
class _Standing:
    """How the files of one manifest stand, whole; a page shows the first of each list."""

    totals: reading.Totals
    other_rules: int
    spent: billing.Spent
    failures: Sequence[ledger_page.Failure]
    review: Sequence[Doubtful]
    quarantined: Quarantine
    held: Sequence[Decision]

    @property
    def outcomes(self) -> dict[str, int]:
        return {outcome.value: files for outcome, files in self.totals.outcomes.items()}

    def shown(self, nights: Extent) -> dict[str, Any]:
        """The fields of a section that show it."""
        of_causes = causes(self.failures)
        return {
            "files": sum(self.outcomes.values()) + self.totals.unfinished,
            "outcomes": self.outcomes,
            "unfinished": self.totals.unfinished,
            "other_rules": self.other_rules,
            "types": self.totals.types,
            "to_review": self.totals.review,
            "credits": self.spent.credits,
            "jobs_unbilled": self.spent.jobs_untold,
            "causes": tuple(of_causes[:MOST_CAUSES]),
            "causes_of": sum(failure.files for failure in self.failures),
            "review": tuple(self.review),
            "quarantined": self.quarantined,
            "held": tuple(self.held[:MOST_DECISIONS]),
            "extents": {
                "causes": Extent.of(of_causes[:MOST_CAUSES], len(of_causes)),
                "held": Extent.of(self.held[:MOST_DECISIONS], len(self.held)),
                "nights": nights,
                "quarantined": self.quarantined.extent,
                "review": Extent.of(self.review, self.totals.review),
            },
        }


def _standing(connection: Transaction, row: reading.ManifestRow, scope: Scope) -> _Standing:
    totals = reading.totals(connection, scope, staged=None, review=row.review)
    bad = any(totals.outcomes[outcome] for outcome in BAD)
    below, unmatched = row.review.get("below_confidence"), bool(row.review.get("unmatched"))
    doubtful = partial(ledger_page.doubtful, below_confidence=below, unmatched=unmatched, most=MOST_REVIEW)
    return _Standing(
        totals=totals,
        other_rules=reading.only_under_other_rules(connection, scope),
        spent=billing.spent(connection, row.id),
        failures=ledger_page.failures(connection, scope, MOST_FAILURES) if bad else [],
        review=doubtful(connection, scope) if totals.review else [],
        quarantined=retry.quarantined(connection, scope, row.max_generations, staged=None, most=MOST_QUARANTINED),
        held=reading.decisions(connection, row.id),
    )


def _todos(
    connection: Transaction,
    row: reading.ManifestRow,
    address: Address,
    standing: _Standing,
    *,
    last: Night | None,
    drift: Drift | None,
) -> list[Todo]:
    return todos(
        address,
        last=last,
        bad=sum(standing.outcomes[outcome] for outcome in BAD),
        unfinished=standing.totals.unfinished - reading.held_files(connection, row.id),
        other_rules=standing.other_rules,
        review=standing.totals.review,
        held=sum(each.event == "held" for each in standing.held),
        quarantined=standing.quarantined,
        drift=drift,
    )


def _histograms(confidences: Mapping[str, Mapping[int, int]], below: float | None) -> tuple[Histogram, ...]:
    """One for each type, that with the most files first."""
    found = []
    for label, percents in confidences.items():
        bins = [0] * BINS
        for percent, files in percents.items():
            bins[min(max(percent, 0) * BINS // 100, BINS - 1)] += files
        unsure = (
            0 if below is None else sum(files for percent, files in percents.items() if max(percent, 0) / 100 < below)
        )
        found.append(Histogram(label, sum(percents.values()), tuple(bins), unsure))
    return tuple(sorted(found, key=lambda each: (-each.files, each.type)))


def _timeline(connection: Transaction, manifest_id: int, found: Sequence[Night], now: datetime) -> Timeline | None:
    if not found:
        return None
    last = found[0]
    ended = last.finished_at or now.isoformat(timespec="milliseconds")
    course = timeline(connection, manifest_id, last.run_id, last.started_at, ended)
    return course if course.jobs else None


def _todos_after(code: int | None, address: Address) -> list[Todo]:
    """List what the last run's exit code asks of a person."""
    if code == ExitCode.OUT_OF_CREDITS:
        return [Todo("Buy credits or raise the manifest's limits, then go on.", address.command("run"))]
    if code is not None and code > ExitCode.UNFINISHED:
        return [Todo("The last run could not do its work: see what is wrong.", address.command("doctor"))]
    return []


def todos(
    address: Address,
    *,
    last: Night | None,
    bad: int,
    unfinished: int,
    other_rules: int,
    review: int,
    held: int,
    quarantined: Quarantine,
    drift: Drift | None,
) -> list[Todo]:
    """List what a person has to do, urgent first. *address*: how their commands name the work."""
    code = None if last is None else last.exit_code
    found = _todos_after(code, address)
    if held:
        why = f"{counted(held, 'chunk')} held: look for the job at the API; if there is none, send again."
        found.append(Todo(why, address.command("retry", "--held")))
    if unfinished and code != ExitCode.OUT_OF_CREDITS:
        found.append(Todo(f"{counted(unfinished, 'file')} without an outcome: go on.", address.command("run")))
    if bad > quarantined.files:
        why = f"{counted(bad - quarantined.files, 'file')} failed: send them again."
        found.append(Todo(why, address.command("retry")))
    if quarantined.files:
        names = [word for each in quarantined.first[:3] for word in ("--file", safe(each.file_id))]
        why = f"{counted(quarantined.files, 'file')} in quarantine: repair the documents; send them by name."
        found.append(Todo(why, address.command("retry", *names)))
    if drift is not None and drift.alarm:
        found.append(Todo("The answers have drifted: compare the last two runs.", address.command("diff")))
    if other_rules:
        why = f"{counted(other_rules, 'file')} with an outcome under other rules only: classify again."
        found.append(Todo(why, address.command("run")))
    if review:
        why = f"{counted(review, 'result')} to look at."
        found.append(Todo(why, address.command("export", "--review", "--format", "csv", "-o", "review.csv")))
    return found
