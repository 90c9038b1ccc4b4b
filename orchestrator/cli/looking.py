"""Commands that only look."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.app import (
    BaseUrlOption,
    JsonOption,
    LedgerOption,
    ManifestArgument,
    MaybeManifest,
    RehearsalOption,
    TypesOption,
    app,
    find_ledger,
    known_manifests,
    open_ledger,
    output_mode,
    say,
)
from orchestrator.errors import ExitCode, InputError
from orchestrator.plaintext import counted, safe

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.ledger import Location, Transaction
    from orchestrator.ledger.views.reading import ManifestRow
    from orchestrator.models import Json

#: How far back a run is looked for by its ID.
MOST_RUNS = 100_000

FormOption = Annotated[
    str | None,
    typer.Option("--format", metavar="jsonl|csv|parquet|xlsx", help="Default: by the suffix of -o, or jsonl."),
]

OutputOption = Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="Default: standard output.")]

OfRunOption = Annotated[
    str | None, typer.Option("--run", metavar="RUN|latest", help="Only what this run sent, superseded or not.")
]


@app.command()
def status(
    manifest: MaybeManifest = None,
    ledger: LedgerOption = None,
    sandbox: RehearsalOption = False,
    runs: Annotated[int, typer.Option("--runs", metavar="N", min=0, help="How many of the latest runs to list.")] = 5,
    as_json: JsonOption = False,
) -> None:
    """Where everything is."""
    from orchestrator.cli.answers import answer
    from orchestrator.cli.screens.parts import show
    from orchestrator.cli.screens.status import status_view
    from orchestrator.ledger import server_state
    from orchestrator.reports import status as reports
    from orchestrator.workers.lines import lines

    with open_ledger(manifest, ledger) as opened, opened.transaction() as connection:
        rows = known_manifests(connection, manifest, rehearsal=True if sandbox else None)
        at = find_ledger(manifest, ledger)
        running = _running(at, rows)
        states = [reports.status(connection, row, most_runs=runs, running=running.get(row.id)) for row in rows]
        server = server_state(at)
    if as_json:
        answer(reports.Standing(opened.describe().location, states, server))
        return
    show(status_view(states, at, server))
    for line in lines(at):
        print(safe(line))


@app.command()
def export(
    manifest: MaybeManifest = None,
    ledger: LedgerOption = None,
    form: FormOption = None,
    output: OutputOption = None,
    sandbox: RehearsalOption = False,
    review: Annotated[bool, typer.Option("--review", help="Only what a person should look at.")] = False,
    history: Annotated[bool, typer.Option("--history", help="Every generation, not only the one that counts.")] = False,
    run: OfRunOption = None,
    types: TypesOption = None,
    ids: Annotated[bool, typer.Option("--ids", help="The file IDs alone, each once, one a line.")] = False,
    bom: Annotated[bool, typer.Option("--bom", help="Mark a CSV as UTF-8, for spreadsheets.")] = False,
) -> None:
    """Write one row per file with an outcome."""
    from orchestrator.ledger.documents import names
    from orchestrator.ledger.views import export as ledger_export
    from orchestrator.reports import output_files

    if ids and form is not None:
        raise InputError("--ids is a format of its own: leave --format out")
    form = output_files.IDS if ids else output_files.format_of(form, output)
    if bom and form != "csv":
        raise InputError("--bom is for CSV: add --format csv, or name a .csv file with -o")
    with open_ledger(manifest, ledger) as opened, opened.transaction() as connection:
        if output is not None:
            output_files.refuse_sources(output, *opened.describe().files, *([Path(manifest)] if manifest else []))
        rows = known_manifests(connection, manifest, rehearsal=sandbox)
        further = names.further_columns(connection, [row.id for row in rows])
        results = ledger_export.export_rows(
            connection, [row.id for row in rows], history=history or run is not None, further=further
        )
        columns = (*ledger_export.COLUMNS, *map(ledger_export.column_of, further))
        of_runs = None if run is None else _runs_called(connection, [row.id for row in rows], run)
        results = _only(results, columns, of_runs, types, review=review)
        if any(row.rehearsal for row in rows):
            say("these rows are of a rehearsal (column rehearsal); nothing was billed")
            columns, results = (*columns, "rehearsal"), ((*row, True) for row in results)
        count = output_files.export(output, form, columns, results, mode=output_mode(), bom=bom)
    if output is not None:
        say(f"{counted(count, 'row')} written to {safe(output)}")


@app.command()
def report(
    manifest: MaybeManifest = None,
    ledger: LedgerOption = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE.html", help="Default: standard output.")
    ] = None,
    show: Annotated[
        bool, typer.Option("--open", help="Show it in the browser; without -o, report.html beside the ledger.")
    ] = False,
    sandbox: RehearsalOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write one self-contained page. Did it work, what changed, what to do; plots of the latest runs."""
    from orchestrator.cli.answers import answer
    from orchestrator.clock import SystemClock
    from orchestrator.commands.access import beside
    from orchestrator.reports import output_files
    from orchestrator.reports.page.content import page as page_of
    from orchestrator.reports.page.html import html

    with open_ledger(manifest, ledger) as opened, opened.transaction() as connection:
        mode = output_mode() if output is not None else 0o600
        if show and output is None:
            output = beside(manifest, opened.location) / "report.html"
        if output is not None:
            output_files.refuse_sources(output, *opened.describe().files, *([Path(manifest)] if manifest else []))
        rows = known_manifests(connection, manifest, rehearsal=True if sandbox else None)
        running = _running(find_ledger(manifest, ledger), rows)
        about, now = opened.describe(), SystemClock().now()
        found = page_of(connection, rows, about, ledger=opened.location, now=now, running=running)
    if as_json:
        answer(found)
    if output is not None:
        with output_files.replacing(output, mode) as temporary:
            temporary.write_text(html(found), encoding="utf-8")
        say(f"report written to {safe(output)}")
    elif not as_json:
        print(html(found), end="")
    if show and output is not None:
        _show_in_browser(output)


def _show_in_browser(page: Path) -> None:
    import webbrowser

    if not webbrowser.open(page.absolute().as_uri()):
        say("no browser can be started here; open the file by hand")


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the copy goes.")],
    manifest: MaybeManifest = None,
    ledger: LedgerOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace whatever is there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Copy the ledger while it is in use. An older backup of the same ledger is replaced, nothing else."""
    from orchestrator import ledger as ledgers
    from orchestrator.cli.answers import BackedUp, answer

    path = find_ledger(manifest, ledger)
    size = ledgers.backup(path, file, force=force)
    if as_json:
        answer(BackedUp(safe(path.absolute()), safe(file.absolute()), size))
        return
    say(f"{path.absolute()} copied to {file} ({size / 1e6:,.1f} MB)")


@app.command()
def move_ledger(
    source: Annotated[str, typer.Argument(metavar="FROM", help="The ledger: a file, or postgresql://HOST/DATABASE.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="Where it goes: a new file, or an empty database.")],
    as_json: JsonOption = False,
) -> None:
    """Move a ledger to another file or database. Each row is compared; the old ledger refuses runs from then on."""
    from orchestrator.cli.answers import answer
    from orchestrator.clock import SystemClock
    from orchestrator.commands.move_ledger import move

    moved = move(find_ledger(None, source), find_ledger(None, target), clock=SystemClock())
    if as_json:
        answer(moved)
        return
    names = ", ".join(map(safe, moved.manifests)) or "no manifest yet"
    print(f"{counted(moved.rows, 'row')} moved and compared ({names})")
    print(f"from now on: --ledger {moved.target}, or ORCHESTRATOR_LEDGER={moved.target}")
    say(f"{moved.source} stays as it is for reading, and refuses every run")


@app.command()
def doctor(
    manifest: MaybeManifest = None,
    ledger: LedgerOption = None,
    base_url: BaseUrlOption = None,
    notify_test: Annotated[bool, typer.Option("--notify-test", help="Send a test to all that `notify` names.")] = False,
    as_json: JsonOption = False,
) -> None:
    """See whether all is ready for a run. Settings, ledger, key, clock, reachability: each good, or what to do."""
    from orchestrator.cli.answers import Examined, Line, answer
    from orchestrator.clock import SystemClock
    from orchestrator.commands import doctor as command

    findings = []
    for finding in command.examine(manifest, ledger, base_url, SystemClock(), notify_test=notify_test):
        findings.append(finding)
        if not as_json:
            print(f"{'good' if finding.good else 'BAD '}  {finding.what:9} {safe(finding.words)}")
    code = next((finding.exit_code for finding in findings if not finding.good), ExitCode.OK)
    if as_json:
        lines = [Line(finding.what, finding.good, finding.words) for finding in findings]
        answer(Examined(code is ExitCode.OK, lines), code)
    raise typer.Exit(int(code))


@app.command()
def diff(
    manifest: ManifestArgument,
    run_a: Annotated[str | None, typer.Argument(metavar="RUN_A", help="Default: the latest two runs.")] = None,
    run_b: Annotated[str | None, typer.Argument(metavar="RUN_B")] = None,
    ledger: LedgerOption = None,
    sandbox: RehearsalOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show what changed from one run to another. Types, flipped files, new failures, confidence."""
    from orchestrator.cli.answers import answer
    from orchestrator.cli.screens.diff import diff_view
    from orchestrator.cli.screens.parts import show
    from orchestrator.reports import diff as reports

    with open_ledger(manifest, ledger) as opened, opened.transaction() as connection:
        rows = known_manifests(connection, manifest, rehearsal=sandbox)
        if not rows:
            raise InputError(f"{opened.location}: nothing to compare")
        found = reports.diff(connection, rows[0], run_a, run_b)
    if found.rehearsal:
        say("these runs are rehearsals; nothing was billed")
    if as_json:
        answer(found)
    else:
        show(diff_view(found))


def _only(
    results: Iterator[tuple[Json, ...]],
    columns: Sequence[str],
    run_ids: set[str] | None,
    types: list[str] | None,
    *,
    review: bool,
) -> Iterator[tuple[Json, ...]]:
    """Yield the *results* of these runs and types; with *review* only those that a person should look at."""
    if run_ids is not None:
        results = (row for row in results if row[columns.index("run_id")] in run_ids)
    if types:
        results = (row for row in results if row[columns.index("type")] in types)
    if review:
        results = (row for row in results if row[columns.index("review")])
    return results


def _runs_called(connection: Transaction, manifest_ids: list[int], run: str) -> set[str]:
    """The run with the ID *run*, or the ``latest`` of each manifest. Raises InputError where there is none."""
    from orchestrator.ledger.views import runs

    found = [
        [record.run_id for record in runs.latest(connection, row, MOST_RUNS, verdicts=True)] for row in manifest_ids
    ]
    chosen = {ids[0] for ids in found if ids} if run == "latest" else {run} & {name for ids in found for name in ids}
    if not chosen:
        raise InputError(f"--run {safe(run)}: no such run; `orchestrator status --runs 30` lists them")
    return chosen


def _running(ledger: Location, rows: Sequence[ManifestRow]) -> dict[int, str]:
    """Return the holder of each of the *rows*' locks; nothing for one that is free."""
    from orchestrator import ledger as ledgers

    locks = {row.id: f"{row.name}~rehearsal" if row.rehearsal else row.name for row in rows}
    server = ledgers.server_state(ledger)
    if server is not None:  # asked once, however many manifests there are
        held = {claim.manifest: claim.holder for claim in server.claims if claim.held}
        return {manifest_id: held[name] for manifest_id, name in locks.items() if name in held}
    holders = {manifest_id: ledgers.holder(ledger, name) for manifest_id, name in locks.items()}
    return {manifest_id: holder for manifest_id, holder in holders.items() if holder}
