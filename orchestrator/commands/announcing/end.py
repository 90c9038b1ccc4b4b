"""The reports that a run sends out at its end: the page, the metrics file, a notification, traces.

All is recorded by then. A report that fails is a warning in the log; none of it changes how the run ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path

import structlog

from orchestrator import ledger
from orchestrator.clock import Clock, timestamp
from orchestrator.commands.access import ledger_path, lock_name
from orchestrator.commands.announcing import metrics, notify, traces
from orchestrator.commands.summary import Summary
from orchestrator.errors import ExitCode, LedgerError, LockHeld, OrchestratorError, SettingsError
from orchestrator.ledger import Ledger
from orchestrator.ledger.views import reading, traced
from orchestrator.ledger.views import runs as ledger_runs
from orchestrator.manifest.loading import Manifest
from orchestrator.plaintext import safe
from orchestrator.planning.options import Options
from orchestrator.settings import Settings

log = structlog.get_logger()


def check(manifest: Manifest, settings: Settings, options: Options) -> None:
    """Raise SettingsError for a report that this installation cannot make, before anything is sent."""
    if options.sandbox and options.metrics_file:
        raise SettingsError("--metrics-file is for real runs; leave it out of a rehearsal")
    metrics.target(manifest, settings, options.metrics_file)
    if not options.sandbox:
        notify.check(manifest, settings)


def of_end(
    manifest: Manifest, settings: Settings, options: Options, opened: Ledger, summary: Summary, clock: Clock
) -> None:
    """Report a run that is recorded."""
    if summary.drift is not None and summary.drift.alarm:
        log.warning("answers.drifted", note=summary.drift.words, distance=summary.drift.distance)
    if options.sandbox:
        return
    with _harmless():
        if manifest.report is not None:
            _write_page(Path(manifest.path).parent / manifest.report, manifest, options, opened, clock)
    with _harmless():
        path = metrics.target(manifest, settings, options.metrics_file)
        if path is not None:
            metrics.write(path, manifest.name, opened)
    with _harmless():
        if options.wait or summary.exit_code != ExitCode.UNFINISHED:  # with --no-wait that is how it is meant to end
            notify.of_end(manifest, settings, options.ledger, opened, summary)
    with _harmless():
        if traces.wanted(settings):
            _trace(settings, options, opened, summary, clock)


@contextmanager
def _harmless() -> Iterator[None]:
    """Whatever goes wrong in the block is a warning: the run is recorded, and how it ended must not change."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - see above
        log.warning("end.not_told", error=str(error), kind=type(error).__name__)


def of_failure(
    manifest: Manifest, settings: Settings, options: Options, error: Exception, clock: Clock, began: datetime
) -> None:
    """Report a run that *error* ended without a record; nothing for a run that another one kept out."""
    if options.sandbox or isinstance(error, LockHeld):
        return
    code = error.exit_code if isinstance(error, OrchestratorError) else ExitCode.BUG
    why = str(error).partition("\n")[0] if isinstance(error, OrchestratorError) else "a bug in this program"
    metrics.write_failure(manifest, settings, (options.metrics_file, options.ledger), code, clock.now())
    if notify.urls(manifest, settings):
        with suppress(OrchestratorError), _ledger_if_any(manifest, settings, options, clock) as opened:
            notify.of_failure(manifest, settings, options.ledger, opened, code, why)
    if traces.wanted(settings):
        about = {"orchestrator.manifest": manifest.name}
        traces.send(settings, traces.Ended(options.command, began, clock.now(), code, why, about), [])


def _trace(settings: Settings, options: Options, opened: Ledger, summary: Summary, clock: Clock) -> None:
    """Send the spans of a run that is recorded."""
    with opened.transaction() as connection:
        (row,) = reading.manifests(connection, summary.manifest, rehearsal=False)
        (run,) = ledger_runs.latest(connection, row.id, 1, verdicts=False)
        jobs = traced.jobs(connection, row.id, run.run_id, since=run.started_at, most=traces.MOST_JOBS)
    about = {
        "orchestrator.manifest": summary.manifest,
        "orchestrator.run.id": summary.run_id,
        "orchestrator.run.files": summary.files,
        "orchestrator.run.jobs_created": summary.jobs_created,
        "orchestrator.run.credits": summary.credits,
    }
    began, code = datetime.fromisoformat(run.started_at), summary.exit_code
    traces.send(settings, traces.Ended(options.command, began, clock.now(), code, summary.reason, about), jobs)


#: How long a run that has failed waits for the ledger in order to report it.
LAST_PATIENCE_S = 1.0


@contextmanager
def _ledger_if_any(manifest: Manifest, settings: Settings, options: Options, clock: Clock) -> Iterator[Ledger | None]:
    """The ledger, under the run's own lock; None where there is none or it can't be used."""
    with ExitStack() as stack:
        opened = None
        with suppress(OrchestratorError):
            path = ledger_path(manifest.path, settings, options.ledger)
            if ledger.exists(path):
                holder = {"command": "orchestrator run (notifying)", "since": timestamp(clock.now(), "seconds")}
                lease = stack.enter_context(ledger.lease(path, lock_name(manifest.name, rehearsal=False), holder))
                opened = stack.enter_context(ledger.open(path, lease=lease, patience_s=LAST_PATIENCE_S))
        yield opened


def _write_page(path: Path, manifest: Manifest, options: Options, opened: Ledger, clock: Clock) -> None:
    """The page that the manifest asks for."""
    from orchestrator.reports.output_files import replacing
    from orchestrator.reports.page.content import page
    from orchestrator.reports.page.html import html

    about = opened.describe()
    with opened.transaction() as connection:
        rows = reading.manifests(connection, manifest.name, rehearsal=False)
        found = page(connection, rows, about, ledger=opened.location, now=clock.now())
    try:
        with replacing(path) as temporary:
            temporary.write_text(html(found), encoding="utf-8")
    except LedgerError as error:
        log.warning("page.not_written", error=str(error))
    else:
        log.info("page.written", path=safe(path))
