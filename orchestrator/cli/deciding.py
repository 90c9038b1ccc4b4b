"""Commands with which a person decides."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.app import (
    ApiOption,
    BaseUrlOption,
    FileFromOption,
    FileOption,
    JsonOption,
    LedgerOption,
    ManifestArgument,
    RehearsalOption,
    app,
    collect_as_usual,
    find_ledger,
    load_manifest,
    load_settings,
    named_files,
    tell_of_new_ledger,
)
from orchestrator.errors import InputError
from orchestrator.plaintext import counted, safe

if TYPE_CHECKING:
    pass

LabelOption = Annotated[
    str | None, typer.Option("--type", metavar="TYPE", help="What it is; default: what the API said.")
]
ErrorOption = Annotated[str | None, typer.Option(help="With --dismiss: all failed files whose error has this text.")]


def _refuse_contradictions(
    label: str | None, *, unmatched: bool, dismiss: bool, error: str | None, named: bool
) -> None:
    """Raise InputError for more than one verdict, and where no file is meant. *named*: files are given by name."""
    if (label is not None) + unmatched + dismiss > 1:
        raise InputError("--type, --unmatched and --dismiss exclude each other")
    if error is not None and not dismiss:
        raise InputError("--error is for --dismiss")
    if not named and error is None:
        which = "--file, --file-from or --error" if dismiss else "--file or --file-from"
        raise InputError(f"{'--dismiss: ' if dismiss else ''}which files? name them with {which}")


@app.command()
def accept(
    manifest: ManifestArgument,
    file: FileOption = None,
    file_from: FileFromOption = None,
    label: LabelOption = None,
    unmatched: Annotated[bool, typer.Option("--unmatched", help="It is none of the types.")] = False,
    dismiss: Annotated[bool, typer.Option("--dismiss", help="It failed, and that is known: leave it.")] = False,
    error: ErrorOption = None,
    by: Annotated[str | None, typer.Option(metavar="NAME", help="Who says so; default: the login name.")] = None,
    note: Annotated[str, typer.Option(metavar="TEXT", help="Why.")] = "",
    ledger: LedgerOption = None,
    sandbox: RehearsalOption = False,
    as_json: JsonOption = False,
) -> None:
    """Record a person's verdict on files; later runs respect it."""
    from orchestrator.cli.answers import Accepted, Verdict, answer
    from orchestrator.cli.screens.parts import called
    from orchestrator.clock import SystemClock
    from orchestrator.commands import accept as command
    from orchestrator.models import is_same_id

    _refuse_contradictions(label, unmatched=unmatched, dismiss=dismiss, error=error, named=bool(file or file_from))
    loaded = load_manifest(manifest, None, resolve_secrets=False)
    path = find_ledger(manifest, ledger)
    signature = command.Signature(by or command.login_name(), note)
    named = named_files(loaded, path, file, file_from, rehearsal=sandbox)
    said = {file_id: name for file_id, name in (named or {}).items() if not is_same_id(file_id, name)}
    if dismiss:
        dismissing = partial(command.dismiss, rehearsal=sandbox, clock=SystemClock(), signature=signature)
        verdicts = dict.fromkeys(dismissing(loaded, path, named, error), "dismissed")
    else:
        accepting = partial(command.accept, rehearsal=sandbox, clock=SystemClock(), signature=signature)
        accepted = accepting(loaded, path, named or (), label=label, unmatched=unmatched)
        verdicts = {file_id: of_type or "unmatched" for file_id, of_type in accepted.items()}
    if as_json:
        given = [Verdict(file_id, verdict, said.get(file_id)) for file_id, verdict in verdicts.items()]
        answer(Accepted(loaded.name, sandbox, signature.by, note, given))
        return
    for file_id, verdict in verdicts.items():
        print(f"{called(file_id, said.get(file_id))}: {safe(verdict)}")


@app.command()
def cancel(
    manifest: ManifestArgument, ledger: LedgerOption = None, base_url: BaseUrlOption = None, as_json: JsonOption = False
) -> None:
    """Cancel what is in flight, where the API can (v2). Nothing is marked failed."""
    from orchestrator import logs
    from orchestrator.cli.answers import answer
    from orchestrator.clock import SystemClock
    from orchestrator.commands import cancel as command

    settings, clock = load_settings(manifest), SystemClock()
    logs.configure(settings.log_level if not sys.stderr.isatty() else "WARNING")
    found = command.cancel(
        load_manifest(manifest, None), settings, find_ledger(manifest, ledger), clock, base_url=base_url
    )
    if as_json:
        answer(found)
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
    from orchestrator.cli.answers import answer
    from orchestrator.clock import SystemClock
    from orchestrator.commands import adopt as command

    settings = load_settings(manifest)
    logs.configure(settings.log_level if not sys.stderr.isatty() else "WARNING")
    path = find_ledger(manifest, ledger)
    tell_of_new_ledger(path)
    collect_as_usual()
    found = command.adopt(load_manifest(manifest, api), settings, path, SystemClock(), base_url=base_url)
    if as_json:
        answer(found)
        return
    listed = counted(found.jobs_listed, "job")
    print(f"{listed} listed, {found.jobs_alike:,} of this manifest's config were not in the ledger")
    print(f"{counted(found.jobs_adopted, 'job')} adopted with {counted(found.files_adopted, 'file')}")
    if found.jobs_adopted:
        print("the API has no verdicts of `accept`: give them again, or put a backup of the ledger back")
    if found.jobs_running:
        print(f"{found.jobs_running:,} have not ended: run adopt again later, before the next run")
