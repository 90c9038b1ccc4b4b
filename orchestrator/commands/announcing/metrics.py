"""``--metrics-file``: the file that node_exporter's textfile collector reads, written at the end of each run."""

from __future__ import annotations

import os
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

import structlog

from orchestrator import ledger
from orchestrator import settings as settings_
from orchestrator.commands.access import ledger_path
from orchestrator.errors import LedgerError, OrchestratorError, SettingsError
from orchestrator.ledger import Ledger
from orchestrator.ledger.views import reading
from orchestrator.manifest.loading import Manifest
from orchestrator.plaintext import safe
from orchestrator.reports import metrics
from orchestrator.reports.output_files import replacing
from orchestrator.settings import Settings

log = structlog.get_logger()

#: For everybody to read: node_exporter runs as a user of its own.
MODE = 0o644


def target(manifest: Manifest, settings: Settings, option: str | None) -> Path | None:
    """The file to write: ``--metrics-file``, else ``ORCHESTRATOR_METRICS_FILE``; None without either.

    In a folder it is ``orchestrator-NAME.prom``, so that several manifests can share a setting. Raises SettingsError
    for a file that the collector would pass over, and where the extra is not installed.
    """
    named = option or settings.metrics_file
    if named is None:
        return None
    what = "--metrics-file" if option else "ORCHESTRATOR_METRICS_FILE"
    path = Path(os.path.expanduser(named))  # noqa: PTH111 - Path.expanduser raises where there is no home
    path = path if option else settings_.folder_of(manifest.path) / path
    if path.is_dir():
        path /= f"orchestrator-{manifest.name}.prom"
    if path.suffix != ".prom":
        raise SettingsError(
            f"{what} {safe(named)}: must end in .prom, or be a folder; node_exporter reads no other file"
        )
    if find_spec("prometheus_client") is None:
        raise SettingsError(f"{what} needs an extra; run: pip install 'orchestrator[metrics]'")
    return path


def write(path: Path, manifest: str, opened: Ledger, failure: metrics.Failure | None = None) -> None:
    """Write the figures of *manifest*. A file that can't be written is a warning in the log."""
    with opened.transaction() as connection:
        rows = reading.manifests(connection, manifest, rehearsal=False)
        runs = metrics.latest(connection, rows[0].id) if rows else metrics.Latest()
    try:
        with replacing(path, MODE) as temporary:
            temporary.write_text(metrics.metrics(manifest, runs, failure), encoding="utf-8")
    except LedgerError as error:
        log.warning("metrics.not_written", error=str(error))


def write_failure(
    manifest: Manifest, settings: Settings, options: tuple[str | None, str | None], exit_code: int, at: datetime
) -> None:
    """Write that a run ended without a record. *options*: ``--metrics-file`` and ``--ledger``.

    What cannot be read from the ledger is not overwritten: the last success stays in the file.
    """
    metrics_file, named = options
    try:
        path = target(manifest, settings, metrics_file)
    except SettingsError:
        return  # that is what the run ended with
    if path is None:
        return
    try:
        with ledger.open(ledger_path(manifest.path, settings, named), read_only=True) as opened:
            write(path, manifest.name, opened, metrics.Failure(exit_code, at))
    except OrchestratorError as error:
        log.warning("metrics.not_written", error=str(error))
