"""The command line: arguments in, exit code out. The only module that prints; heavy modules load where used."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from dataclasses import replace
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from orchestrator import __version__
from orchestrator.errors import ExitCode, InputError, ManifestError, OrchestratorError
from orchestrator.plaintext import safe

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from orchestrator.ledger import Ledger
    from orchestrator.ledger.reading import ManifestRow
    from orchestrator.manifest import Manifest
    from orchestrator.models import Json
    from orchestrator.runner import Options
    from orchestrator.settings import Settings

app = typer.Typer(
    name="orchestrator",
    help="Batch runner for LlamaCloud classify jobs: every file ends with one recorded outcome, paid for once.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ManifestArgument = Annotated[str, typer.Argument(metavar="MANIFEST", help="The YAML manifest.")]
MaybeManifest = Annotated[
    str | None, typer.Argument(metavar="[MANIFEST]", help="The YAML manifest; default: all in the ledger.")
]
LedgerOption = Annotated[
    str | None, typer.Option("--ledger", metavar="PATH", help="The ledger. Default: ledger.db beside the manifest.")
]
ApiOption = Annotated[str | None, typer.Option("--api", metavar="v1|v2", help="API version, over the manifest's.")]
BaseUrlOption = Annotated[str | None, typer.Option("--base-url", metavar="URL", help="Over LLAMA_CLOUD_BASE_URL.")]
ChunkSizeOption = Annotated[
    int | None, typer.Option("--chunk-size", min=1, max=500, help="Files per create call, over the manifest's.")
]
DeadlineOption = Annotated[
    str | None, typer.Option("--deadline", metavar="2h", help="Stop after this long (exit 3); run again to go on.")
]
NoWaitOption = Annotated[bool, typer.Option("--no-wait", help="Submit; leave polling and results to a later run.")]
SandboxOption = Annotated[
    bool, typer.Option("--sandbox", help="Rehearse on an embedded API: free, no key, kept apart.")
]
FaultOption = Annotated[
    list[str] | None, typer.Option("--fault", metavar="NAME=VALUE", help="A fault for the sandbox to play; repeatable.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="No progress and no summary; only errors.")]
RehearsalOption = Annotated[bool, typer.Option("--sandbox", help="The rehearsal's results instead of the real ones.")]


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False) -> None:
    if version:
        print(f"orchestrator {__version__}")
        raise typer.Exit


@app.command()
def validate(manifest: ManifestArgument, api: ApiOption = None) -> None:
    """Check a manifest offline; every mistake as FILE:LINE:COL: message."""
    from orchestrator import manifest as manifests

    found, problems = manifests.check(manifest, environ=os.environ, api=_api(api))
    if problems or found is None:
        raise ManifestError(problems)
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
    from orchestrator import planner, screens

    loaded = _load(manifest, api, resolve_secrets=False)
    if chunk_size is not None:
        loaded = replace(loaded, chunk_size=chunk_size)
    preview = planner.preview(loaded, _ledger_path(manifest, ledger), rehearsal=sandbox)
    if as_json:
        _print_json(preview.as_json())
    else:
        screens.console(sys.stdout).print(screens.plan_view(preview))


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
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make the ledger agree with the manifest: submit what is new, collect what is in flight."""
    options = _options(ledger, base_url, chunk_size, deadline, no_wait, sandbox, fault)
    if retry_failed:
        from orchestrator.ledger.planning import Selection

        options = replace(options, again=Selection())
    _execute(manifest, api, options, as_json=as_json, quiet=quiet)


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
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    outcome: Annotated[list[str] | None, typer.Option(help="Only files with this outcome; repeatable.")] = None,
    label: Annotated[
        list[str] | None, typer.Option("--type", help="Only files classified as this; repeatable.")
    ] = None,
    below_confidence: Annotated[float | None, typer.Option(min=0, max=1, help="Only results less sure.")] = None,
    file: Annotated[list[str] | None, typer.Option(help="Only this file ID; repeatable.")] = None,
    file_from: Annotated[str | None, typer.Option(metavar="LIST", help="Only the file IDs in this list.")] = None,
    run_id: Annotated[str | None, typer.Option("--run", help="Only files whose outcome is of this run.")] = None,
    error: Annotated[str | None, typer.Option(help="Only files whose error has this text.")] = None,
    mode: Annotated[str | None, typer.Option(metavar="FAST|MULTIMODAL", help="Over the manifest's mode.")] = None,
    lang: Annotated[str | None, typer.Option(help="Over the manifest's language.")] = None,
    max_pages: Annotated[int | None, typer.Option(min=1, help="Over the manifest's max_pages.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be sent and its ceiling.")] = False,
) -> None:
    """Submit again the files that failed, are missing or were cancelled."""
    from orchestrator import reprocess

    again = reprocess.selection(
        outcomes=outcome,
        types=label,
        below_confidence=below_confidence,
        file_ids=[*(file or ()), *(reprocess.listed(file_from) if file_from else ())],
        run_id=run_id,
        error=error,
    )
    loaded = _load(manifest, api, resolve_secrets=not dry_run)
    config = reprocess.overridden(loaded, mode=mode, lang=lang, max_pages=max_pages)
    if dry_run:
        found = reprocess.preview(loaded, _ledger_path(manifest, ledger), again, config, rehearsal=sandbox)
        if as_json:
            _print_json(found)
        else:
            print(f"{found['files']:,} files in {found['chunks']:,} create calls")
            print(f"up to {found['credits_ceiling']:,} credits")
            for file_id in found["file_ids"]:
                print(f"  {safe(file_id)}")
        return
    options = _options(ledger, base_url, chunk_size, deadline, no_wait, sandbox, fault)
    options = replace(options, command="retry", new=False, again=again, config=config)
    _execute(manifest, api, options, as_json=as_json, quiet=quiet)


@app.command()
def status(
    manifest: MaybeManifest = None,
    ledger: LedgerOption = None,
    sandbox: RehearsalOption = False,
    as_json: JsonOption = False,
) -> None:
    """Where everything is."""
    from orchestrator import screens
    from orchestrator.status import status as state_of

    with _open(manifest, ledger) as opened, opened.transaction() as connection:
        rows = _manifests(connection, manifest, rehearsal=True if sandbox else None)
        states = [state_of(connection, row) for row in rows]
    if as_json:
        _print_json({"ledger": str(opened.path), "manifests": states})
    else:
        screens.console(sys.stdout).print(screens.status_view(states))


@app.command()
def export(
    manifest: MaybeManifest = None,
    ledger: LedgerOption = None,
    form: Annotated[str, typer.Option("--format", metavar="jsonl|csv|parquet")] = "jsonl",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Default: standard output.")
    ] = None,
    sandbox: RehearsalOption = False,
    review: Annotated[bool, typer.Option("--review", help="Only what a person should look at.")] = False,
    history: Annotated[bool, typer.Option("--history", help="Every generation, not only the one that counts.")] = False,
) -> None:
    """Write one row per file with an outcome."""
    from orchestrator import export as exports
    from orchestrator.ledger import reading

    if form not in exports.FORMATS:
        raise InputError(f"--format {form}: must be one of {', '.join(exports.FORMATS)}")
    with _open(manifest, ledger) as opened, opened.transaction() as connection:
        rows = _manifests(connection, manifest, rehearsal=sandbox)
        rehearsed = not rows and not sandbox
        if rehearsed:  # nothing real to mix with: show what there is, and say what it is
            rows = _manifests(connection, manifest, rehearsal=True)
        results = reading.export_rows(connection, [row.id for row in rows], history=history)
        columns: tuple[str, ...] = reading.COLUMNS
        if review:
            results = (row for row in results if row[columns.index("review")])
        if sandbox or rehearsed:
            _say("these rows are of a rehearsal (column rehearsal); nothing was billed")
            columns, results = (*columns, "rehearsal"), ((*row, True) for row in results)
        count = exports.export(output, form, columns, results)
    if output is not None:
        _say(f"{count:,} rows written to {safe(output)}")


@app.command()
def doctor(
    manifest: MaybeManifest = None,
    ledger: LedgerOption = None,
    base_url: BaseUrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look at settings, ledger, key, clock and reachability: each good, or what to do."""
    from orchestrator import doctor as doctors

    findings = []
    for finding in doctors.examine(manifest, ledger, base_url):
        findings.append(finding)
        if not as_json:
            print(f"{'good' if finding.good else 'BAD '}  {finding.what:9} {safe(finding.words)}")
    code = next((finding.exit_code for finding in findings if not finding.good), ExitCode.OK)
    if as_json:
        lines = [{"what": finding.what, "good": finding.good, "words": finding.words} for finding in findings]
        _print_json({"good": code is ExitCode.OK, "exit_code": int(code), "findings": lines})
    raise typer.Exit(int(code))


@app.command()
def accept(
    manifest: ManifestArgument,
    file: Annotated[list[str], typer.Option(help="The file ID; repeatable.")],
    label: Annotated[str | None, typer.Option("--type", help="What it is; default: what the API said.")] = None,
    unmatched: Annotated[bool, typer.Option("--unmatched", help="It is of none of the types.")] = False,
    ledger: LedgerOption = None,
    sandbox: RehearsalOption = False,
) -> None:
    """Record a person's verdict on files; later runs respect it."""
    from orchestrator import verdicts

    if label is not None and unmatched:
        raise InputError("--type and --unmatched exclude each other")
    loaded = _load(manifest, None, resolve_secrets=False)
    path = _ledger_path(manifest, ledger)
    accepted = verdicts.accept(loaded, path, file, label=label, unmatched=unmatched, rehearsal=sandbox)
    for file_id, given in accepted.items():
        print(f"{safe(file_id)}: {safe(given or 'unmatched')}")


@app.command()
def diff(
    manifest: ManifestArgument,
    run_a: Annotated[str | None, typer.Argument(metavar="[RUN_A", help="Default: the latest two runs.")] = None,
    run_b: Annotated[str | None, typer.Argument(metavar="RUN_B]")] = None,
    ledger: LedgerOption = None,
    sandbox: RehearsalOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show what changed from one run to another: types, flipped files, new failures, confidence."""
    from orchestrator import diff as diffs
    from orchestrator import screens

    with _open(manifest, ledger) as opened, opened.transaction() as connection:
        rows = _manifests(connection, manifest, rehearsal=sandbox)
        if not rows:
            raise InputError(f"{opened.path}: this ledger has nothing of that manifest")
        found = diffs.diff(connection, rows[0], run_a, run_b)
    if as_json:
        _print_json(found)
    else:
        screens.console(sys.stdout).print(screens.diff_view(found))


@app.command()
def cancel(
    manifest: ManifestArgument, ledger: LedgerOption = None, base_url: BaseUrlOption = None, as_json: JsonOption = False
) -> None:
    """Cancel what is in flight, where the API can (v2); nothing is marked failed."""
    from orchestrator import cancel as cancels

    found = cancels.cancel(_load(manifest, None), _settings(), _ledger_path(manifest, ledger), base_url=base_url)
    if as_json:
        _print_json(found.as_json())
        return
    print(f"{found.in_flight:,} jobs in flight: {found.cancelled:,} cancelled, {found.ended_before:,} had ended")
    if found.cannot:
        print(f"{found.cannot:,} are v1 jobs, which can't be cancelled: v1 has no such call; a run collects them")


@app.command()
def adopt(
    manifest: ManifestArgument,
    ledger: LedgerOption = None,
    api: ApiOption = None,
    base_url: BaseUrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Record outcomes of jobs that the API has and the ledger does not: after a lost ledger, or an earlier script."""
    from orchestrator import adopt as adopts
    from orchestrator import logs

    settings = _settings()
    logs.configure(settings.log_level if not sys.stderr.isatty() else "WARNING")
    found = adopts.adopt(_load(manifest, api), settings, _ledger_path(manifest, ledger), base_url=base_url)
    if as_json:
        _print_json(found.as_json())
        return
    print(f"{found.jobs_listed:,} jobs listed, {found.jobs_alike:,} of this manifest's config were not in the ledger")
    print(f"{found.jobs_adopted:,} jobs adopted with {found.files_adopted:,} files")
    if found.jobs_running:
        print(f"{found.jobs_running:,} have not ended: run adopt again later, before the next run")


@app.command()
def sandbox(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free port.")] = 8787,
    fault: FaultOption = None,
    seed: Annotated[int, typer.Option(help="The same seed tells the same story.")] = 0,
    key: Annotated[str | None, typer.Option(help="The only key accepted; default: any.")] = None,
    ready_file: Annotated[Path | None, typer.Option(help="Write the base URL here once it listens.")] = None,
) -> None:
    """Serve the embedded API on loopback until interrupted."""
    from orchestrator.sandbox import serve

    serve(port=port, faults=fault or [], seed=seed, key=key, ready_file=ready_file, announce=print)


@app.command()
def schema() -> None:
    """Print the manifest's JSON Schema, for editors."""
    from orchestrator import manifest

    _print_json(manifest.json_schema())


def _options(
    ledger: str | None,
    base_url: str | None,
    chunk_size: int | None,
    deadline: str | None,
    no_wait: bool,
    sandbox: bool,
    fault: list[str] | None,
) -> Options:
    """What `run` and `retry` have in common."""
    from orchestrator.runner import Options

    if fault and not sandbox:
        raise InputError("--fault is for the sandbox: add --sandbox")
    return Options(ledger, base_url, chunk_size, deadline, not no_wait, sandbox, tuple(fault or ()))


def _execute(path: str, api: str | None, options: Options, *, as_json: bool, quiet: bool) -> NoReturn:
    """Run, show how it went, and exit with its code."""
    from orchestrator import logs, runner, screens

    try:
        settings = _settings()
        on_terminal = sys.stderr.isatty()
        logs.configure("ERROR" if on_terminal or quiet else settings.log_level)
        loaded = _load(path, api)
        watcher = screens.watcher(screens.console(sys.stderr)) if on_terminal and not quiet else None
        summary = runner.run(loaded, settings, options, watcher=watcher)
    except OrchestratorError as error:
        if as_json:
            _print_json(_no_summary(path, error))
        raise
    if as_json:
        _print_json(summary.as_json())
    elif not quiet:
        screens.console(sys.stdout).print(
            screens.summary_view(summary, safe(path) + (f" --ledger {safe(options.ledger)}" if options.ledger else ""))
        )
    if summary.exit_code > ExitCode.SOME_FAILED and (as_json or quiet):
        _say(summary.reason)
    raise typer.Exit(summary.exit_code)


def _no_summary(path: str, error: OrchestratorError) -> dict[str, Json]:
    """What ``--json`` prints of a run that did not begin."""
    counts = ("files", "classified", "unmatched", "failed", "missing", "cancelled", "unfinished", "skipped")
    names = (*counts, "jobs_created", "requests", "seconds")
    return {
        "manifest": path,
        "run_id": None,
        **dict.fromkeys(names, 0),
        "exit_code": int(error.exit_code),
        "reason": str(error),
    }


def _settings() -> Settings:
    from orchestrator import settings

    return settings.load()


def _load(path: str, api: str | None, *, resolve_secrets: bool = True) -> Manifest:
    from orchestrator import manifest

    return manifest.load(path, environ=os.environ, api=_api(api), resolve_secrets=resolve_secrets)


def _api(value: str | None) -> str | None:
    if value not in (None, "v1", "v2"):
        raise InputError(f"--api {safe(value)}: must be v1 or v2")
    return value


def _ledger_path(manifest: str | None, option: str | None) -> Path:
    from orchestrator.runner import ledger_path

    return ledger_path(manifest, _settings(), option)


def _open(manifest: str | None, option: str | None) -> Ledger:
    from orchestrator.ledger import Ledger

    return Ledger(_ledger_path(manifest, option), read_only=True)


def _manifests(connection: Connection, path: str | None, *, rehearsal: bool | None) -> list[ManifestRow]:
    """The ledger's rows of the manifest at *path*, or of all; none is no error where none was asked for."""
    from orchestrator.ledger import reading

    name = None if path is None else _load(path, None, resolve_secrets=False).name
    return reading.manifests(connection, name, rehearsal=rehearsal)


def _print_json(value: Json) -> None:
    print(json.dumps(value, indent=2 if sys.stdout.isatty() else None))


def _say(text: str) -> None:
    print(f"orchestrator: {safe(text)}", file=sys.stderr)


def _fail(error: OrchestratorError) -> int:
    """Show a deliberate error: the problems of a manifest one a line, any other on one line."""
    if isinstance(error, ManifestError):
        for problem in error.problems:
            print(safe(problem), file=sys.stderr)
    else:
        _say(str(error))
    return int(error.exit_code)


def _crash() -> int:
    """A bug: the traceback goes to the log, without the values of variables, which may be secret."""
    from orchestrator.logs import redactor

    for line in traceback.format_exc().splitlines():
        print(redactor.text(line.encode("ascii", "backslashreplace").decode()), file=sys.stderr)
    _say("this is a bug; nothing recorded is lost, and running again goes on where this stopped")
    return int(ExitCode.BUG)


def _interrupted(number: int, _: object) -> NoReturn:
    """A signal to end where no create call can be out; while one can, the runner listens itself."""
    _say(f"stopped by {signal.Signals(number).name}")
    sys.exit(int(ExitCode.UNFINISHED))


def _written_out(code: int) -> int:
    """*code*, unless standard output can't be written: its disk is full, or its reader has gone."""
    if not isinstance(sys.stdout, TextIOWrapper):  # closed from the start
        return code
    try:
        sys.stdout.flush()
    except OSError as error:
        # The interpreter would try again as it ends, and turn the exit code into one of its own.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _say(f"standard output: {error.strerror or error}")
        return int(ExitCode.LEDGER)
    return code


def main() -> NoReturn:
    """The console script: every way out is one of ``ExitCode``."""
    os.umask(0o077)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # ignored under nohup
            signal.signal(number, _interrupted)
    code: int = ExitCode.OK
    try:
        app()  # ends in SystemExit: 0, 2 for a wrong call, or what a command asked for with typer.Exit
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else ExitCode.OK
    except OrchestratorError as error:
        code = _fail(error)
    except Exception:  # noqa: BLE001 - the outermost frame: what gets here is a bug, and cron must see 70
        code = _crash()
    sys.exit(_written_out(int(code)))
