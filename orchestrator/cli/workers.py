"""Commands for several hosts that share a ledger: what carries tasks out, what asks for them, and who is at it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.app import JsonOption, app, find_ledger, load_manifest, load_settings, say
from orchestrator.errors import InputError
from orchestrator.plaintext import safe

if TYPE_CHECKING:
    from orchestrator.ledger import Server

ServerOption = Annotated[
    str | None,
    typer.Option("--ledger", metavar="URL", help="The ledger in PostgreSQL; default: ORCHESTRATOR_LEDGER."),
]


def _server(manifest: str | None, option: str | None) -> Server:
    """The ledger's database. Raises InputError for a ledger in a file, and where the extra is not installed."""
    from pathlib import Path

    location = find_ledger(manifest, option)
    if isinstance(location, Path):
        raise InputError(
            f"{safe(location)}: workers need a ledger that every host reaches; name it: --ledger postgresql://…"
        )
    try:
        import procrastinate  # noqa: F401 - only whether it is there
    except ImportError:
        raise InputError("workers need Procrastinate; install it: pip install 'orchestrator[distributed]'") from None
    return location


@app.command()
def work(
    slots: Annotated[int, typer.Option("--slots", metavar="N", min=1, max=64, help="Manifests at the same time.")] = 2,
    ledger: ServerOption = None,
) -> None:
    """Carry out what is submitted, on this host, until SIGTERM. Any number of hosts may do so."""
    import asyncio

    from orchestrator import logs

    server = _server(None, ledger)
    logs.configure(load_settings().log_level, form="json")
    from orchestrator.workers.work import Worker

    raise typer.Exit(asyncio.run(Worker(server, slots, os.environ).run()))


@app.command()
def submit(
    manifests: Annotated[list[str], typer.Argument(metavar="MANIFEST...", help="At the same path on every host.")],
    ledger: ServerOption = None,
    now: Annotated[bool, typer.Option("--now", help="Also run it at once if the manifest has a schedule.")] = False,
    lists_change: Annotated[
        bool, typer.Option("--lists-change", help="Workers compare only the manifest; its lists change every time.")
    ] = False,
    deadline: Annotated[
        str | None, typer.Option("--deadline", metavar="6h", help="Stop each run after this long.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Have workers carry manifests out: once, or at the times of their `schedule:`."""
    server = _server(manifests[0], ledger)
    from orchestrator.cli.answers import answer
    from orchestrator.workers import submit as workers

    loaded = [load_manifest(path, None, resolve_secrets=False) for path in manifests]
    done = workers.submit(server, loaded, now=now, lists=not lists_change, deadline=deadline)
    if as_json:
        answer(workers.Submission(str(server), done))
        return
    for one in done:
        words = ["submitted"] if one.asked else []
        if one.next_at is not None and one.zone is not None:
            words.append(f"next by schedule {workers.local(one.next_at, one.zone)}")
        print(f"{safe(one.manifest)}: {'; '.join(words)}")


@app.command()
def workers(
    action: Annotated[str, typer.Argument(metavar="list|drain")] = "list",
    worker: Annotated[str | None, typer.Argument(metavar="HOST:PID", help="The worker to drain.")] = None,
    ledger: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """List workers, tasks and schedules; or drain a worker: it ends once it has carried out what it has in hand."""
    server = _server(None, ledger)
    from orchestrator.cli.answers import answer
    from orchestrator.workers import view

    if action == "drain":
        host, _, pid = (worker or "").rpartition(":")
        if not host or not pid.isdecimal():
            raise InputError("drain needs a worker as HOST:PID; `orchestrator workers` lists them")
        view.drain(server, host, int(pid))
        say(f"{safe(worker or '')} takes no more tasks and ends when it has carried out those in hand")
        return
    if action != "list" or worker is not None:
        raise InputError(f"{safe(action)}: must be list, or drain HOST:PID")
    found = view.look(server)
    if as_json:
        answer(found)
        return
    for line in found.lines():
        print(safe(line))
    if not found.workers:
        say(f"no worker is at work; start one: orchestrator work --ledger {safe(str(server))}")
