"""Commands for documents: up to the API, into folders by their type, and files away that are done with."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from orchestrator.cli.app import (
    ApiOption,
    BaseUrlOption,
    DeadlineOption,
    JsonOption,
    LedgerOption,
    LogFormatOption,
    ManifestArgument,
    QuietOption,
    RehearsalOption,
    app,
    find_ledger,
    load_manifest,
    load_settings,
    output_mode,
    run_options,
    say,
)
from orchestrator.errors import InputError
from orchestrator.plaintext import counted, safe

if TYPE_CHECKING:
    from orchestrator.commands.upload import Uploaded
    from orchestrator.manifest.sources import Route
    from orchestrator.planning.options import Options

_HOW = ("copy", "move", "link", "symlink")


@app.command()
def upload(
    what: Annotated[
        list[str], typer.Argument(metavar="MANIFEST | DOCUMENT...", help="A manifest; or files, folders and buckets.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="The list of file IDs; default: standard output."),
    ] = None,
    ids: Annotated[bool, typer.Option("--ids", help="Of documents: the file IDs alone, each once.")] = False,
    ledger: LedgerOption = None,
    api: ApiOption = None,
    base_url: BaseUrlOption = None,
    deadline: DeadlineOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    log_format: LogFormatOption = "auto",
) -> None:
    """Upload new documents, each content once, and classify nothing yet.

    Those of a MANIFEST wait for its `run`. Of DOCUMENTs named one by one a list with file_id,name is written.
    """
    from orchestrator.cli.running import execute

    options = run_options(ledger, base_url, None, deadline, True, False, None)
    if not _is_manifest(what):
        if api is not None:
            raise InputError("--api is for a manifest: documents are uploaded alike for both")
        _upload_documents(what, options, output, ids=ids, as_json=as_json, quiet=quiet, log_format=log_format)
    if output is not None or ids:
        raise InputError("-o and --ids are for documents named here; those of a manifest are in `orchestrator export`")
    (manifest,) = what
    if load_manifest(manifest, api, resolve_secrets=False).sources is None:
        raise InputError(f"{safe(manifest)}: no documents to upload; name their folders in `documents_from`")
    options = replace(options, command="upload", create=False)
    execute(manifest, api, options, as_json=as_json, quiet=quiet, log_format=log_format)


def _is_manifest(what: list[str]) -> bool:
    """Whether *what* is a manifest: one name, of no folder, bucket or document."""
    from orchestrator.documents.kinds import is_supported
    from orchestrator.manifest.sources import BUCKETS

    first = what[0]
    named = first.endswith((".yaml", ".yml")) or not (is_supported(first) or Path(first).is_dir())
    return len(what) == 1 and named and not first.startswith(BUCKETS)


def _upload_documents(
    what: list[str],
    options: Options,
    output: Path | None,
    *,
    ids: bool,
    as_json: bool,
    quiet: bool,
    log_format: str,
) -> NoReturn:
    from orchestrator.cli.answers import answer
    from orchestrator.cli.running import planning_shown, prepared
    from orchestrator.commands import upload as command
    from orchestrator.reports import output_files

    manifest = command.manifest_of(what)
    if output is not None:
        output_files.refuse_sources(output, *map(Path, what))
        for folder in filter(Path.is_dir, map(Path, what)):
            if output.resolve().is_relative_to(folder.resolve()):
                raise InputError(f"-o {safe(str(output))}: the next call would upload this list; write it elsewhere")
    if options.ledger is None and load_settings(manifest.path).ledger is None:
        options = replace(options, ledger=command.LEDGER)
    settings, watch, on_screen = prepared(manifest.path, options, quiet=quiet, log_format=log_format)
    with planning_shown(on_screen):
        found, code = command.upload(manifest, settings, options, watcher=watch)
    if as_json:
        answer(found, code)
    if output is not None or not as_json:
        form = output_files.IDS if ids else "csv"
        rows = ((file.file_id, file.name) for file in found.files)
        output_files.export(output, form, ("file_id", "name"), rows, mode=output_mode())
    if not quiet:
        for line in _upload_lines(found):
            say(line)
    raise typer.Exit(code)


def _upload_lines(found: Uploaded) -> list[str]:
    """How an upload of documents went, for a person."""
    from orchestrator.planning.documents import Taken

    taken = Taken(found.documents, found.contents, 0, found.skipped)
    lines = [f"{file.name or file.file_id}: {file.error}" for file in found.failed_files]
    if more := found.failed - len(lines):
        lines.append(f"and {more:,} more that failed")
    before = found.contents - found.uploaded - found.failed - found.unfinished
    at_api = f", {before:,} at the API before" if before else ""
    left = f", {found.unfinished:,} left: {found.reason}" if found.unfinished else ""
    return [*lines, f"{taken.words}; {found.uploaded:,} uploaded{at_api}{left}"]


@app.command()
def route(
    manifest: ManifestArgument,
    into: Annotated[str | None, typer.Option(metavar="DIR", help="Default: the manifest's `route`.")] = None,
    template: Annotated[
        str | None, typer.Option(metavar="PATH", help="{type}, {name}, {stem}, {suffix}, {outcome}, {date}.")
    ] = None,
    how: Annotated[str | None, typer.Option(metavar="copy|move|link|symlink")] = None,
    min_confidence: Annotated[
        float | None, typer.Option(min=0, max=1, help="Results with less confidence go to the folder for review.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show it; touch nothing.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Undo the last `route`.")] = False,
    ledger: LedgerOption = None,
    sandbox: RehearsalOption = False,
    as_json: JsonOption = False,
) -> None:
    """Put documents into folders by their type. Nothing is overwritten; file IDs without a document become lists."""
    from orchestrator import logs
    from orchestrator.cli.answers import answer
    from orchestrator.clock import SystemClock
    from orchestrator.commands import route as command

    if how is not None and how not in _HOW:
        raise InputError(f"--how {safe(how)}: must be one of {', '.join(_HOW)}")
    logs.configure("WARNING")
    loaded = load_manifest(manifest, None, resolve_secrets=False)
    chosen = _chosen(loaded.route, into, template=template, how=how, min_confidence=min_confidence)
    path = find_ledger(manifest, ledger)
    found = command.route(loaded, path, chosen, clock=SystemClock(), rehearsal=sandbox, dry_run=dry_run, undo=undo)
    if as_json:
        answer(found.measured(), 1 if found.troubles else 0)
    else:
        for line in _lines(found, dry_run=dry_run, undo=undo):
            print(line)
    raise typer.Exit(1 if found.troubles else 0)


def _chosen(
    route: Route | None, into: str | None, *, template: str | None, how: str | None, min_confidence: float | None
) -> Route:
    """The manifest's *route*, with what the command line says in its place. Raises InputError without any folder."""
    from orchestrator.manifest.sources import BUCKETS, Route

    if into is not None:
        folder = into.rstrip("/") if into.startswith(BUCKETS) else str(Path(into).absolute())
        route = replace(route, into=folder) if route else Route(folder)
    if route is None:
        raise InputError("where to? give --into DIR, or `route` in the manifest")
    return replace(
        route,
        template=template or route.template,
        how=how or route.how,
        min_confidence=route.min_confidence if min_confidence is None else min_confidence,
    )


def _lines(found: object, *, dry_run: bool, undo: bool) -> list[str]:
    from orchestrator.commands.route import Routed

    if not isinstance(found, Routed):
        raise TypeError(found)
    lines = [f"{move['document']} -> {move['target']} ({move['how']})" for move in found.planned]
    if more := found.placed - len(found.planned):
        lines += [f"and {more:,} more"] * (dry_run and more > 0)
    if undo:
        lines.append(f"{counted(found.undone, 'document')} taken back")
    else:
        verb = "would be put" if dry_run else "put"
        why = ", ".join(f"{number:,} {reason}" for reason, number in found.left_why.items())
        left = f"{found.left:,} left where they are" + f" ({why})" * bool(why)
        waiting = f", {found.waiting:,} without an outcome yet" * bool(found.waiting)
        lines.append(
            f"{counted(found.placed, 'document')} {verb} into {safe(found.into)}; "
            f"{found.already:,} in place before, {left}{waiting}"
        )
    lines += [f"  {name}: {number:,}" for name, number in found.folders.items()]
    lines += [f"  {name}: {counted(number, 'file ID')}" for name, number in found.lists.items()]
    lines += [f"not placed: {name}: {safe(why)}" for name, why in found.not_placed.items()]
    return lines


@app.command()
def prune(
    manifest: ManifestArgument,
    older_than: Annotated[str, typer.Option(metavar="7d", help="Only files uploaded longer ago than this.")] = "7d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how many; delete nothing.")] = False,
    ledger: LedgerOption = None,
    base_url: BaseUrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete files at the API that this ledger uploaded and whose outcome is good. They count as storage until then."""
    from orchestrator import logs
    from orchestrator.cli.answers import answer
    from orchestrator.clock import SystemClock
    from orchestrator.commands import prune as command

    settings = load_settings(manifest)
    logs.configure(settings.log_level if not sys.stderr.isatty() else "WARNING")
    found = command.prune(
        load_manifest(manifest, None),
        settings,
        find_ledger(manifest, ledger),
        older_than=older_than,
        dry_run=dry_run,
        base_url=base_url,
        clock=SystemClock(),
    )
    if as_json:
        answer(found)
    elif dry_run:
        print(f"{counted(found.found, 'file')} would be deleted")
    else:
        gone = f", {found.gone_before:,} were gone" if found.gone_before else ""
        print(f"{counted(found.deleted, 'file')} deleted{gone}")


_FIRST_MANIFEST = """\
# A first manifest. `orchestrator validate {file}` checks it, `orchestrator run {file} --sandbox` rehearses it for free,
# and `orchestrator run {file}` does it. Run it every night: what has an outcome is not sent or paid for again.

version: 1
name: {name}                      # the ledger's key for this work: keep it

documents_from: [{folder}]        # folders, relative to this file; each content is uploaded and classified once

rules:                            # the types to tell apart; the clearer the description, the better the answer
  - type: invoice
    description: contains an invoice number, line items, and a total amount to be paid
  - type: receipt
    description: proof of a payment already made, with a merchant name and a total
  - type: contract
    description: an agreement between two or more parties, with terms and signatures

parsing_configuration:
  lang: en                        # language of the documents
  max_pages: 5                    # pages read of each document; a page costs 1 credit in mode FAST

review:
  below_confidence: 0.6           # results with less confidence are marked for a person

limits:                           # a guard: if a run would pass it, nothing is sent
  max_credits: 10000

# route: {{into: sorted}}         # `run` copies each document into sorted/<type>/ at its end
"""


@app.command()
def init(
    folder: Annotated[str | None, typer.Argument(metavar="FOLDER", help="Where the documents are.")] = None,
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="FILE", help="The manifest to write.")
    ] = "orchestrator.yaml",
) -> None:
    """Write a commented first manifest. An existing file is left alone."""
    import json
    import re

    path = Path(output)
    where = Path(folder or "documents")
    shown = str(where if where.is_absolute() or folder is None else _from(path.absolute().parent, where.absolute()))
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", where.absolute().name).strip("-.")[:64] or "documents"
    text = _FIRST_MANIFEST.format(file=safe(path.name), name=name, folder=json.dumps(shown, ensure_ascii=False))
    try:
        if folder is not None and not where.is_dir():
            raise InputError(f"{safe(folder)}: no such folder")
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(f"{safe(path)} already exists; remove it, or write another with -o") from None
    except (OSError, UnicodeEncodeError) as error:
        raise InputError(f"{safe(path)}: {getattr(error, 'strerror', None) or 'the name is not valid text'}") from None
    print(f"{safe(path)} written: adapt the rules, then `orchestrator run {safe(path)} --sandbox`")
    if folder is None and not where.is_dir():
        say("put documents into the folder `documents` beside it, or name another one in documents_from")


def _from(base: Path, folder: Path) -> Path:
    """*folder* as seen from *base*, where it lies below it; absolute otherwise."""
    return folder.relative_to(base) if folder.is_relative_to(base) else folder
