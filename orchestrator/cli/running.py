"""Commands that check, plan and do the work."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from orchestrator.cli.app import (
    ApiOption,
    BaseUrlOption,
    ChunkSizeOption,
    DeadlineOption,
    FaultOption,
    FileFromOption,
    FileOption,
    JsonOption,
    LedgerOption,
    LogFormatOption,
    ManifestArgument,
    MetricsFileOption,
    NoWaitOption,
    QuietOption,
    RehearsalOption,
    SandboxOption,
    TypesOption,
    app,
    checked_api,
    collect_as_usual,
    find_ledger,
    load_manifest,
    load_settings,
    named_files,
    print_json,
    run_options,
    say,
    tell_of_doubts,
    tell_of_new_ledger,
    tell_of_settings,
)
from orchestrator.errors import ExitCode, InputError, ManifestError
from orchestrator.plaintext import safe

if TYPE_CHECKING:
    from orchestrator.commands.run import Watcher
    from orchestrator.commands.summary import Summary
    from orchestrator.manifest.loading import Manifest
    from orchestrator.planning.options import Options
    from orchestrator.settings import Settings


@app.command()
def validate(manifest: ManifestArgument, api: ApiOption = None, as_json: JsonOption = False) -> None:
    """Check a manifest offline. Every mistake is named as FILE:LINE:COL: message."""
    from orchestrator.cli import answers
    from orchestrator.manifest import loading

    found, problems = loading.check(manifest, environ=os.environ, api=checked_api(api))
    if problems or found is None:
        raise ManifestError(problems)
    tell_of_doubts(found)
    if as_json:
        config = found.config
        answers.answer(
            answers.Validated(found.name, safe(manifest), found.api, config.mode, len(config.rules), config.fingerprint)
        )
        return
    print(f"{safe(manifest)}: good")


@app.command()
def plan(
    manifest: ManifestArgument,
    ledger: LedgerOption = None,
    api: ApiOption = None,
    chunk_size: ChunkSizeOption = None,
    sandbox: RehearsalOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show what `run` would do and cost; no network, no key."""
    from orchestrator.cli.answers import answer
    from orchestrator.cli.screens.parts import show
    from orchestrator.cli.screens.plan import plan_view
    from orchestrator.clock import SystemClock
    from orchestrator.planning import preview as planning

    loaded = load_manifest(manifest, api, resolve_secrets=False)
    if chunk_size is not None:
        loaded = replace(loaded, chunk_size=chunk_size)
    path = find_ledger(manifest, ledger)
    preview = planning.preview(loaded, path, rehearsal=sandbox, now=SystemClock().now())
    tell_of_new_ledger(path)
    tell_of_doubts(loaded)
    if as_json:
        answer(preview)
    else:
        show(plan_view(preview, _again(manifest, ledger)))


@app.command()
def run(
    manifest: ManifestArgument,
    ledger: LedgerOption = None,
    api: ApiOption = None,
    base_url: BaseUrlOption = None,
    chunk_size: ChunkSizeOption = None,
    deadline: DeadlineOption = None,
    no_wait: NoWaitOption = False,
    sandbox: SandboxOption = False,
    fault: FaultOption = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Also what `retry` would send.")] = False,
    known_ok: Annotated[
        bool,
        typer.Option("--known-ok", help="Exit 0 if an earlier finished run already had every failure."),
    ] = False,
    reclassify: Annotated[
        bool, typer.Option("--reclassify", help="This once, classify again all files whose rules have changed.")
    ] = False,
    metrics_file: MetricsFileOption = None,
    sample: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Send only N of the new files, chosen at random; the rest stay new."),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed draws the same sample.")] = 0,
    log_format: LogFormatOption = "auto",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make the ledger agree with the manifest. Submits what is new, collects what is in flight."""
    options = run_options(ledger, base_url, chunk_size, deadline, no_wait, sandbox, fault, metrics_file)
    options = replace(options, reclassify=reclassify, sample=sample, seed=seed)
    if retry_failed:
        from orchestrator.ledger.chunks.retry import Selection

        options = replace(options, again=Selection())
    options = replace(options, known_ok=known_ok)
    execute(manifest, api, options, as_json=as_json, quiet=quiet, log_format=log_format)


@app.command()
def retry(
    manifest: ManifestArgument,
    ledger: LedgerOption = None,
    api: ApiOption = None,
    base_url: BaseUrlOption = None,
    chunk_size: ChunkSizeOption = None,
    deadline: DeadlineOption = None,
    no_wait: NoWaitOption = False,
    sandbox: SandboxOption = False,
    fault: FaultOption = None,
    metrics_file: MetricsFileOption = None,
    log_format: LogFormatOption = "auto",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    outcome: Annotated[list[str] | None, typer.Option(help="Only files with this outcome; repeatable.")] = None,
    label: TypesOption = None,
    below_confidence: Annotated[
        float | None, typer.Option(min=0, max=1, help="Only results with less confidence.")
    ] = None,
    file: FileOption = None,
    file_from: FileFromOption = None,
    run_id: Annotated[str | None, typer.Option("--run", help="Only files whose outcome is of this run.")] = None,
    error: Annotated[str | None, typer.Option(help="Only files whose error has this text.")] = None,
    mode: Annotated[str | None, typer.Option(metavar="FAST|MULTIMODAL", help="Overrides the manifest's mode.")] = None,
    lang: Annotated[str | None, typer.Option(help="Overrides the manifest's language.")] = None,
    max_pages: Annotated[int | None, typer.Option(min=1, help="Overrides the manifest's max_pages.")] = None,
    held: Annotated[
        bool, typer.Option("--held", help="Also send held chunks again, after you have checked them.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be sent and its ceiling.")] = False,
) -> None:
    """Send again what failed, is missing or was cancelled."""
    from orchestrator.planning import retry as planning

    options = run_options(ledger, base_url, chunk_size, deadline, no_wait, sandbox, fault, metrics_file)
    loaded = load_manifest(manifest, api, resolve_secrets=not dry_run)
    named = named_files(loaded, find_ledger(manifest, ledger), file, file_from, rehearsal=sandbox)
    again = planning.selection(
        outcomes=outcome, types=label, below_confidence=below_confidence, file_ids=named, run_id=run_id, error=error
    )
    if chunk_size is not None:
        loaded = replace(loaded, chunk_size=chunk_size)
    config = planning.overridden(loaded, mode=mode, lang=lang, max_pages=max_pages)
    options = replace(options, command="retry", new=False, again=again, config=config, held=held)
    if dry_run:
        _preview_retry(loaded, manifest, ledger, options, as_json=as_json)
    else:
        execute(manifest, api, options, as_json=as_json, quiet=quiet, log_format=log_format)


def _preview_retry(loaded: Manifest, manifest: str, ledger: str | None, options: Options, *, as_json: bool) -> None:
    from orchestrator.cli.answers import answer
    from orchestrator.cli.screens.parts import show
    from orchestrator.cli.screens.retry import retry_view
    from orchestrator.clock import SystemClock
    from orchestrator.commands import cancel
    from orchestrator.planning import retry as planning

    clock = SystemClock()
    since = cancel.stale_since(clock, load_settings(manifest))
    found = planning.preview(loaded, find_ledger(manifest, ledger), options, now=clock.now(), stale_since=since)
    if as_json:
        answer(found)
    else:
        show(retry_view(found, _again(manifest, ledger)))


@app.command()
def sandbox(
    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="0: any free port.")] = 8787,
    fault: FaultOption = None,
    switch: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A switch for what the API's contract leaves open; repeatable. `--set ?` lists them.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed replays the same story.")] = 0,
    key: Annotated[str | None, typer.Option(metavar="KEY", help="The only key accepted; default: any.")] = None,
    ready_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the base URL here once it listens.")
    ] = None,
) -> None:
    """Serve the embedded API on loopback until interrupted."""
    from orchestrator.sandbox import serve

    serve(
        port=port,
        faults=fault or [],
        switches=switch or [],
        seed=seed,
        key=key,
        ready_file=ready_file,
        announce=_announce,
    )


@app.command()
def schema(
    command: Annotated[
        str | None, typer.Argument(metavar="COMMAND", help="A command with --json; default: the manifest's schema.")
    ] = None,
) -> None:
    """Print a JSON Schema. The manifest's, for editors; or that of what COMMAND prints with --json."""
    from orchestrator.cli import answers
    from orchestrator.manifest import loading

    print_json(loading.json_schema() if command is None else answers.schema(command))


def _announce(base_url: str) -> None:
    """At once: whoever reads it through a pipe waits for it."""
    print(base_url, flush=True)
    if sys.stderr.isatty():
        say("use it with LLAMA_CLOUD_BASE_URL set to this and any LLAMA_CLOUD_API_KEY; Ctrl-C ends it")


def execute(path: str, api: str | None, options: Options, *, as_json: bool, quiet: bool, log_format: str) -> NoReturn:
    """Run, show how it went, and exit with its code."""
    from orchestrator.commands import access
    from orchestrator.commands import run as command

    settings, watch, on_screen = prepared(path, options, quiet=quiet, log_format=log_format)
    loaded = load_manifest(path, api)
    if on_screen and options.new:
        tell_of_new_ledger(access.ledger_path(path, settings, options.ledger))
    collect_as_usual()
    with planning_shown(on_screen):
        summary = command.run(loaded, settings, options, watcher=watch)
    if on_screen:  # elsewhere the log says it
        tell_of_doubts(loaded)
    _show_end(summary, _again(path, options.ledger), as_json=as_json, quiet=quiet)
    raise typer.Exit(summary.exit_code)


def prepared(path: str, options: Options, *, quiet: bool, log_format: str) -> tuple[Settings, Watcher | None, bool]:
    """The settings for *path*, and who watches the run, on a screen or not; its log is set up."""
    from orchestrator import logs
    from orchestrator.commands import access

    settings = load_settings(path)
    if not quiet:
        tell_of_settings(path)
    form, watch, on_screen = _log_form(log_format), None, False
    if not quiet and (sys.stderr.isatty() or form == "text"):
        from orchestrator.cli import live

        on_screen = live.is_screen(sys.stderr)
        watch = live.watcher(sys.stderr) if on_screen or form == "text" else None
    logs.configure(
        settings.log_level,
        quiet=on_screen or quiet,
        form=form,
        folder=access.log_folder(path, settings, options.ledger),
        # A person who did not ask for the lines has the display instead; every line is in the log of the run.
        shown="WARNING" if watch is not None and log_format == "auto" else None,
    )
    return settings, watch, on_screen


def planning_shown(on_screen: bool) -> AbstractContextManager[None]:
    """Show on a screen that a run is being planned, until it shows itself."""
    if not on_screen:
        return nullcontext()
    from orchestrator.cli import live

    return live.planning(sys.stderr)


def _show_end(summary: Summary, again: str, *, as_json: bool, quiet: bool) -> None:
    """Show how the run went; *again*: the arguments with which another command finds the same work."""
    from orchestrator import logs

    if as_json:
        from orchestrator.cli.answers import answer

        answer(summary)
    elif not quiet:
        from orchestrator.cli.screens.parts import show
        from orchestrator.cli.screens.summary import summary_view

        show(summary_view(summary, again))
    if summary.exit_code > ExitCode.SOME_FAILED and (as_json or quiet):
        say(summary.reason)
    if summary.exit_code == ExitCode.CONTRACT:
        say(f"the log of this run: {logs.path_of_run()}")


def _log_form(asked: str) -> str:
    """``json``, or ``text`` where a person reads the lines: standard input or error is a terminal."""
    if asked not in ("auto", "json", "text"):
        raise InputError(f"--log-format {safe(asked)}: must be auto, json or text")
    if asked != "auto":
        return asked
    return "text" if any(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr)) else "json"


def _again(path: str, ledger: str | None) -> str:
    """The arguments with which another command finds the same work."""
    return safe(shlex.join([path, *(["--ledger", ledger] if ledger else [])]))
