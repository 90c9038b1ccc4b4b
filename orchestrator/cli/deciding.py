"""Commands with which a person decides."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from orchestrator.cli.app import (
    ApiOption,
    BaseUrlOption,
    JsonOption,
    LedgerOption,
    ManifestArgument,
    RehearsalOption,
    app,
    collect_as_usual,
    find_ledger,
    load_manifest,
    load_settings,
    print_json,
    tell_of_new_ledger,
)
from orchestrator.errors import InputError
from orchestrator.plaintext import counted, safe


@app.command()
def accept(
    manifest: ManifestArgument,
    file: Annotated[list[str], typer.Option(metavar="ID", help="The file ID; repeatable.")],
    label: Annotated[
        str | None, typer.Option("--type", metavar="TYPE", help="What it is; default: what the API said.")
    ] = None,
    unmatched: Annotated[bool, typer.Option("--unmatched", help="It is of none of the types.")] = False,
    ledger: LedgerOption = None,
    sandbox: RehearsalOption = False,
) -> None:
    """Record a person's verdict on files; later runs respect it."""
    from orchestrator.commands import accept as command

    if label is not None and unmatched:
        raise InputError("--type and --unmatched exclude each other")
    loaded = load_manifest(manifest, None, resolve_secrets=False)
    path = find_ledger(manifest, ledger)
    accepted = command.accept(loaded, path, file, label=label, unmatched=unmatched, rehearsal=sandbox)
    for file_id, given in accepted.items():
        print(f"{safe(file_id)}: {safe(given or 'unmatched')}")


@app.command()
def cancel(
    manifest: ManifestArgument, ledger: LedgerOption = None, base_url: BaseUrlOption = None, as_json: JsonOption = False
) -> None:
    """Cancel what is in flight, where the API can (v2). Nothing is marked failed."""
    from orchestrator import logs
    from orchestrator.commands import cancel as command

    settings = load_settings(manifest)
    logs.configure(settings.log_level if not sys.stderr.isatty() else "WARNING")
    found = command.cancel(load_manifest(manifest, None), settings, find_ledger(manifest, ledger), base_url=base_url)
    if as_json:
        print_json(found.as_json())
        return
    print(
        f"{counted(found.in_flight, 'job')} in flight: {found.cancelled:,} cancelled, {found.ended_before:,} had ended"
    )
    if found.going_on:
        print(f"{found.going_on:,} could not be cancelled (yet): cancel again, or let a run collect them")
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
    """Record jobs that only the API knows of. After a lost ledger, or an earlier script."""
    from orchestrator import logs
    from orchestrator.commands import adopt as command

    settings = load_settings(manifest)
    logs.configure(settings.log_level if not sys.stderr.isatty() else "WARNING")
    path = find_ledger(manifest, ledger)
    tell_of_new_ledger(path)
    collect_as_usual()
    found = command.adopt(load_manifest(manifest, api), settings, path, base_url=base_url)
    if as_json:
        print_json(found.as_json())
        return
    listed = counted(found.jobs_listed, "job")
    print(f"{listed} listed, {found.jobs_alike:,} of this manifest's config were not in the ledger")
    print(f"{counted(found.jobs_adopted, 'job')} adopted with {counted(found.files_adopted, 'file')}")
    if found.jobs_running:
        print(f"{found.jobs_running:,} have not ended: run adopt again later, before the next run")
