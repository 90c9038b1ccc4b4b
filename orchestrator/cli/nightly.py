"""Commands for the nights that nobody watches: what a schedule calls, its entry, and the logs."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.app import LedgerOption, ManifestArgument, MetricsFileOption, app, load_settings
from orchestrator.errors import InputError, LedgerError
from orchestrator.plaintext import safe

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")

#: How often a log that is followed is looked at.
FOLLOW_S = 0.5


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def nightly(
    context: typer.Context,
    manifest: ManifestArgument,
    ledger: LedgerOption = None,
    sandbox: Annotated[bool, typer.Option("--sandbox", help="Rehearse on an embedded API: free, no key.")] = False,
    metrics_file: MetricsFileOption = None,
) -> None:
    """Run as a schedule does; takes the options of `run`. Prints only what cron should mail; reports to the monitor."""
    sys.dont_write_bytecode = True  # a full disk would keep half a file, and no later night could start
    from orchestrator.commands import nightly as command

    task = command.Task(manifest, load_settings(manifest), ledger, sandbox, tuple(context.args), metrics_file)
    raise typer.Exit(command.nightly(task, _print))


@app.command()
def schedule(
    kind: Annotated[str, typer.Argument(metavar="cron|systemd|launchd")],
    manifest: ManifestArgument,
    ledger: LedgerOption = None,
    deadline: Annotated[str, typer.Option("--deadline", metavar="6h", help="Stop the night after this long.")] = "6h",
) -> None:
    """Print the entry that calls `nightly` every night, with this machine's paths."""
    from orchestrator import settings as settings_
    from orchestrator.cli.app import load_manifest
    from orchestrator.commands import accept
    from orchestrator.commands.access import beside, ledger_path, log_folder
    from orchestrator.reports import schedule as reports
    from orchestrator.reports.last_run import program

    if kind not in reports.KINDS:
        raise InputError(f"{safe(kind)}: must be one of {', '.join(reports.KINDS)}")
    settings_.seconds(deadline, "--deadline")
    settings, name = load_settings(manifest), load_manifest(manifest, None, resolve_secrets=False).name
    at = ledger_path(manifest, settings, ledger).absolute()
    writes = [beside(manifest, at).absolute(), log_folder(manifest, settings, ledger).absolute()]
    if writes[1].is_relative_to(writes[0]):
        writes = writes[:1]
    options = ["--deadline", deadline, *(["--ledger", str(at)] if ledger else [])]
    night = reports.Night(program(), Path(manifest).absolute(), name, accept.login_name(), writes, options)
    print(reports.entry(kind, night), end="")


@app.command()
def logs(
    manifest: ManifestArgument,
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="Default: the latest.")] = None,
    ledger: LedgerOption = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")] = False,
    level: Annotated[str, typer.Option(metavar="|".join(LEVELS), help="Least severe line shown.")] = "DEBUG",
    as_json: Annotated[bool, typer.Option("--json", help="The lines as they are: one JSON object each.")] = False,
) -> None:
    """Show the log of a run as a person reads it."""
    from orchestrator.cli.app import load_manifest
    from orchestrator.commands.access import log_folder
    from orchestrator.logs import in_words

    if level.upper() not in LEVELS:
        raise InputError(f"--level {safe(level)}: must be one of {', '.join(LEVELS)}")
    name = load_manifest(manifest, None, resolve_secrets=False).name
    folder = log_folder(manifest, load_settings(manifest), ledger) / name
    path = _log_of(folder, run)
    least = LEVELS.index(level.upper())
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            while True:
                line = file.readline()
                if line.endswith("\n"):
                    event = _event(line)
                    if LEVELS.index(str(event.get("level", "INFO")).upper()) >= least:
                        print(line.rstrip("\n") if as_json else in_words(event), flush=follow)
                    if event["event"] != "run.finished" or not follow:
                        continue
                    return
                if not follow:
                    return
                file.seek(file.tell() - len(line.encode()))
                time.sleep(FOLLOW_S)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise LedgerError(f"{path}: {error.strerror or error}") from error


def _event(line: str) -> dict[str, object]:
    """The line's event; a line that was cut short by a kill or a full disk is one of its own."""
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if isinstance(event, dict) and "event" in event and str(event.get("level", "info")).upper() in LEVELS:
        return event
    return {"level": "info", "event": "log.cut_short", "text": line.strip()[:200]}


def _log_of(folder: Path, run: str | None) -> Path:
    """The log of *run*, or the latest, in *folder*. Raises InputError where there is none."""
    path = folder / f"{run}.jsonl" if run else max(folder.glob("*.jsonl"), key=_written, default=None)
    if path is None or path.parent != folder or not path.is_file():
        kept = ", ".join(sorted(found.stem for found in folder.glob("*.jsonl"))[-5:])
        raise InputError(
            f"no log of {'run ' + safe(run) if run else 'any run'} in {folder}; there are: {kept or 'none'}"
        )
    return path


def _written(path: Path) -> float:
    return path.stat().st_mtime


def _print(text: str) -> None:
    print(text, flush=True)
