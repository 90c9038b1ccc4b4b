"""The Typer app, the options that commands share, and how they find and show things."""

from __future__ import annotations

import gc
import json
import os
import sys
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, cast

import typer

from orchestrator import __version__
from orchestrator.clock import SystemClock, timestamp
from orchestrator.errors import InputError
from orchestrator.plaintext import safe

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    from orchestrator.ledger import Ledger, Location, Transaction
    from orchestrator.ledger.views.reading import ManifestRow
    from orchestrator.manifest.loading import Manifest
    from orchestrator.models import Json
    from orchestrator.planning.options import Options
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
    str | None, typer.Argument(metavar="MANIFEST", help="The YAML manifest; default: all in the ledger.")
]
LedgerOption = Annotated[
    str | None,
    typer.Option(
        "--ledger", metavar="PATH|URL", help="File, or postgresql://… Default: ledger.db beside the manifest."
    ),
]
ApiOption = Annotated[str | None, typer.Option("--api", metavar="v1|v2", help="API version; overrides the manifest's.")]
BaseUrlOption = Annotated[str | None, typer.Option("--base-url", metavar="URL", help="Overrides LLAMA_CLOUD_BASE_URL.")]
ChunkSizeOption = Annotated[
    int | None,
    typer.Option("--chunk-size", metavar="N", min=1, max=500, help="Files per create call; overrides the manifest's."),
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
MetricsFileOption = Annotated[
    str | None,
    typer.Option(
        "--metrics-file", metavar="X.prom", help="Write figures for Prometheus's node_exporter here (or a folder)."
    ),
]
TypesOption = Annotated[
    list[str] | None, typer.Option("--type", metavar="TYPE", help="Only files classified as this; repeatable.")
]
FileOption = Annotated[
    list[str] | None, typer.Option(metavar="ID", help="This file (ID, name, or document's path); repeatable.")
]
FileFromOption = Annotated[
    str | None, typer.Option(metavar="LIST", help="The file IDs in this list (.txt, .csv, .jsonl).")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
LogFormatOption = Annotated[
    str,
    typer.Option(
        "--log-format", metavar="auto|json|text", help="Log lines on standard error. auto: text where a person reads."
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="No progress and no summary; only errors.")]
RehearsalOption = Annotated[bool, typer.Option("--sandbox", help="The rehearsal's results instead of the real ones.")]


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False) -> None:
    if version:
        print(f"orchestrator {__version__}")
        raise typer.Exit


def run_options(
    ledger: str | None,
    base_url: str | None,
    chunk_size: int | None,
    deadline: str | None,
    no_wait: bool,
    sandbox: bool,
    fault: list[str] | None,
    metrics_file: str | None = None,
) -> Options:
    """Return the options that `run` and `retry` share. Raises InputError, also where nothing would be done."""
    _load_without_rich("structlog", "httpx")
    from orchestrator.planning.options import Options

    faults: Mapping[str, float | str] = {}
    if fault:
        if not sandbox:
            raise InputError("--fault is for the sandbox: add --sandbox")
        from orchestrator.sandbox import parse_faults

        faults = parse_faults(fault)
    return Options(ledger, base_url, chunk_size, deadline, not no_wait, sandbox, faults, metrics_file=metrics_file)


def _load_without_rich(*modules: str) -> None:
    """Each of *modules* would load rich for a screen of its own that we never show: a tenth of a run's start."""
    if "rich" in sys.modules:
        return
    sys.modules["rich"] = cast("ModuleType", None)  # "not installed", to an import
    try:
        for module in modules:
            import_module(module)
    finally:
        del sys.modules["rich"]


def collect_as_usual() -> None:
    """All modules are loaded, so garbage can come up from now on; ``__main__`` has put collections off until here."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)  # to look through more at once would hold calls up


def load_settings(manifest: str | None = None) -> Settings:
    from orchestrator import settings

    return settings.load(manifest)


def tell_of_settings(manifest: str) -> None:
    """Say which file the settings come from, and which variables are most likely misspelt."""
    from orchestrator import settings

    if file := settings.env_file(manifest):
        say(f"settings read from {file}")
    for name in settings.unknown(manifest):
        say(f"warning: {name} is not a setting; is it misspelt?")


def load_manifest(path: str, api: str | None, *, resolve_secrets: bool = True) -> Manifest:
    from orchestrator.manifest import loading

    return loading.load(path, environ=os.environ, api=checked_api(api), resolve_secrets=resolve_secrets)


def checked_api(value: str | None) -> str | None:
    if value not in (None, "v1", "v2"):
        raise InputError(f"--api {safe(value)}: must be v1 or v2")
    return value


def find_ledger(manifest: str | None, option: str | None) -> Location:
    from orchestrator.commands.access import ledger_path

    return ledger_path(manifest, load_settings(manifest), option)


def named_files(
    manifest: Manifest, location: Location, file: list[str] | None, file_from: str | None, *, rehearsal: bool
) -> dict[str, str] | None:
    """File ID -> how a person named it, for the files of ``--file`` and ``--file-from``; None without either.

    Raises ManifestError for a list that can't be read, InputError for a name that several files have.
    """
    from orchestrator.planning import documents, retry

    if not file and file_from is None:
        return None
    given = [*(file or ()), *(retry.listed(file_from) if file_from is not None else ())]
    return dict(zip(documents.called(manifest, location, given, rehearsal=rehearsal), given, strict=True))


def open_ledger(manifest: str | None, option: str | None) -> Ledger:
    from orchestrator import ledger

    return ledger.open(find_ledger(manifest, option), read_only=True)


def known_manifests(connection: Transaction, path: str | None, *, rehearsal: bool | None) -> list[ManifestRow]:
    """The ledger's rows of the manifest at *path*, or of all. Where it has none it is said; that is no error.

    *rehearsal* None: of both kinds. False: the real ones, or, where there are none to mix with, rehearsals.
    """
    from orchestrator.ledger.views import reading

    name = None if path is None else load_manifest(path, None, resolve_secrets=False).name
    rows = reading.manifests(connection, name, rehearsal=rehearsal)
    if not rows and rehearsal is False:
        rows = reading.manifests(connection, name, rehearsal=True)
    if not rows:
        say(f"nothing is recorded for {'any manifest' if name is None else f'manifest {name!r}'} yet")
    return rows


_user_umask = 0o077


def keep_private() -> None:
    """Keep the program's files private; a file that a person asks for has the mode that they set."""
    global _user_umask  # the process has one, and it can only be read by setting it
    _user_umask = os.umask(0o077)


def output_mode() -> int:
    """The mode of a new file that a person names with -o."""
    return 0o666 & ~_user_umask


_began_at = ""


def begin() -> None:
    """Note when the command began; ``--json`` has it."""
    global _began_at  # the process carries out one command
    _began_at = now()


def began_at() -> str:
    return _began_at or now()


def now() -> str:
    """The time as the ledger and ``--json`` write it."""
    return timestamp(SystemClock().now())


def print_json(value: Json) -> None:
    print(json.dumps(value, indent=2 if sys.stdout.isatty() else None, default=timestamp))


def tell_of_new_ledger(location: Location) -> None:
    """A mistyped path would make every file count as new: name it before anything is sent."""
    from orchestrator import ledger

    if not ledger.exists(location):
        say(f"no ledger at {location.absolute()} yet: every file counts as new")


def tell_of_doubts(manifest: Manifest) -> None:
    """Warn of what may be a mistake; it stops nothing."""
    for doubt in manifest.doubts():
        say(f"warning: {doubt}")


def say(text: str) -> None:
    tell(f"orchestrator: {safe(text)}")


def tell(line: str) -> None:
    """Print on standard error, where that can be written; the exit code says the rest."""
    with suppress(OSError):
        print(line, file=sys.stderr)
