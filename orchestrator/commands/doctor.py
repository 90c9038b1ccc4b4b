"""``orchestrator doctor``: is everything there for tonight's run? Each line is good, or says what to do."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from orchestrator import __version__, ledger
from orchestrator import settings as settings_
from orchestrator.api import loop
from orchestrator.api.dialect import Target
from orchestrator.api.network import Network
from orchestrator.api.v1 import V1
from orchestrator.api.v2 import V2
from orchestrator.api.wire import Wire
from orchestrator.clock import Clock
from orchestrator.commands.access import ledger_path, network_of
from orchestrator.commands.announcing import notify
from orchestrator.errors import ExitCode, LedgerError, OrchestratorError, Rejected
from orchestrator.ledger.views import reading
from orchestrator.manifest import loading as manifests
from orchestrator.manifest.loading import Manifest
from orchestrator.plaintext import counted, safe
from orchestrator.planning import preview as planning
from orchestrator.planning.limits import may_begin_again, refuse_incomplete
from orchestrator.settings import Settings
from orchestrator.workers import lines as workers

#: A clock that is off by more makes the times in the ledger misleading.
SKEW_S = 30.0

#: Less free space than this will not see a large night through.
FREE_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, how it is, and the exit code that a run would end with because of it."""

    what: str
    words: str
    exit_code: ExitCode = ExitCode.OK

    @property
    def good(self) -> bool:
        return self.exit_code is ExitCode.OK


def examine(
    manifest: str | None, location: str | None, base_url: str | None, clock: Clock, *, notify_test: bool = False
) -> Iterator[Finding]:
    """Every finding, as it is made. Sends one list call, which costs nothing; changes nothing.

    *notify_test*: also a message to every service that is notified.
    """
    yield Finding("program", f"orchestrator {__version__}, Python {sys.version.split()[0]}, {ledger.ENGINE}")
    try:
        settings = settings_.load(manifest)
    except OrchestratorError as error:
        yield Finding("settings", str(error), error.exit_code)
        return
    yield from _settings(manifest, settings)
    api, found = "v1", None
    if manifest is not None:
        found, problems = manifests.check(manifest, environ=os.environ)
        if found is None:
            yield Finding(
                "manifest",
                f"{problems[0]}" + (f" (and {len(problems) - 1} more)" if problems[1:] else ""),
                ExitCode.USAGE,
            )
        else:
            api = found.api
            yield _manifest(found, settings, location, clock)
            yield from _notify(found, settings, test=notify_test)
    yield from _ledger(manifest, found, settings, location)
    yield from _reach(settings, base_url, api, clock)


def _settings(manifest: str | None, settings: Settings) -> Iterator[Finding]:
    """The file they come from, the variables that no setting has, and whether the deadline is a time."""
    strange = settings_.unknown(manifest)
    file = settings_.env_file(manifest)
    yield (
        Finding("settings", f"misspelt and ignored: {', '.join(strange)}", ExitCode.USAGE)
        if strange
        else Finding(
            "settings",
            f"{file.absolute() if file else 'no .env'}; log level {settings.log_level}, "
            f"settle {settings.settle_s:g} s, deadline {settings.deadline or 'none'}",
        )
    )
    if settings.deadline is not None:
        try:
            settings_.seconds(settings.deadline, "ORCHESTRATOR_DEADLINE")
        except OrchestratorError as error:
            yield Finding("settings", str(error), error.exit_code)


def _manifest(found: Manifest, settings: Settings, option: str | None, clock: Clock) -> Finding:
    """Ask ``plan``, by the same function: its lists, its limits, and whether its name is another's."""
    good = f"{found.path}: good; {found.name}, {found.api}, {counted(len(found.config.rules), 'rule')}"
    try:
        path = ledger_path(found.path, settings, option)
        preview = planning.preview(found, path, rehearsal=False, now=clock.now())
    except LedgerError:
        return Finding("manifest", good)  # the ledger has a line of its own
    except OrchestratorError as error:
        return Finding("manifest", str(error).splitlines()[0], error.exit_code)
    if preview.over_limits:
        return Finding("manifest", preview.over_limits, ExitCode.OUT_OF_CREDITS)
    return Finding("manifest", f"{good}; {counted(preview.files, 'file')}, {preview.new:,} of them new")


def _notify(found: Manifest, settings: Settings, *, test: bool) -> Iterator[Finding]:
    """The services that are notified, by their kind: their addresses are secrets."""
    urls = notify.urls(found, settings)
    try:
        notify.check(found, settings)
    except OrchestratorError as error:
        yield Finding("notify", str(error), error.exit_code)
        return
    if not urls:
        if test:
            yield Finding("notify", "nobody to notify; add `notify` to the manifest", ExitCode.USAGE)
        return
    unknown = [number for number, service in enumerate(notify.services(urls), 1) if service is None]
    if unknown:
        which = ", ".join(map(str, unknown))
        yield Finding(
            "notify", f"Apprise does not know number {which} of {counted(len(urls), 'service')}", ExitCode.USAGE
        )
    elif test:
        words = f"a test of the notifications of {found.name}, from {socket.gethostname()}"
        taken = notify.send(urls, "test", f"orchestrator: {found.name}", words)
        good = ExitCode.OK if taken == len(urls) else ExitCode.UNREACHABLE
        yield Finding("notify", f"a test message was taken by {taken} of {counted(len(urls), 'service')}", good)
    else:
        kinds = ", ".join(safe(url.partition("://")[0], 20) for url in urls)
        yield Finding("notify", f"{counted(len(urls), 'service')} ({kinds}); try with --notify-test")


def _ledger(manifest: str | None, found: Manifest | None, settings: Settings, option: str | None) -> Iterator[Finding]:
    try:
        path = ledger_path(manifest, settings, option).absolute()
        if not ledger.exists(path):
            if found is None or not may_begin_again(found, rehearsal=False):
                ledger.refuse_gone(path)
            yield _room(path, "none yet; the first run creates it")
            return
        with ledger.open(path, read_only=True) as opened:
            if problem := opened.check():
                yield Finding("ledger", problem, ExitCode.LEDGER)
                return
            size = opened.describe().bytes
            with opened.transaction() as connection:
                ledger.refuse_moved(connection, path)
                if found is not None:
                    refuse_incomplete(connection, found, rehearsal=False)
                names = [row.name for row in reading.manifests(connection)]
    except OrchestratorError as error:
        yield Finding("ledger", str(error), error.exit_code)
        return
    yield from _server(path)
    yield _room(path, f"sound; {size / 1e6:,.1f} MB; manifests: {', '.join(names) or 'none'}")


def _server(path: ledger.Location) -> Iterator[Finding]:
    """The server of the ledger: its state, who holds a manifest there, and the workers with their tasks."""
    try:
        server = ledger.server_state(path)
        if server is None:
            return
        good = ExitCode.OK if server.may_run else ExitCode.LEDGER
        yield Finding("server", server.words + ("" if server.may_run else ": no run can write there"), good)
        yield from (Finding("server", line) for line in server.news)
        yield from (Finding("workers", safe(line)) for line in workers.lines(path))
    except LedgerError as error:
        yield Finding("server", str(error), error.exit_code)


def _room(path: ledger.Location, words: str) -> Finding:
    room = ledger.room(path)
    if room.problem:
        return Finding("ledger", room.problem, ExitCode.LEDGER)
    free = room.free_bytes
    if free is None:
        return Finding("ledger", f"{path}: {words}")
    if free < FREE_BYTES:
        return Finding("ledger", f"{path}: only {free / 1e6:,.0f} MB free on its disk", ExitCode.LEDGER)
    return Finding("ledger", f"{path}: {words}; {free / 1e9:,.1f} GB free")


def _reach(settings: Settings, base_url: str | None, api: str, clock: Clock) -> Iterator[Finding]:
    try:
        base = settings_.checked_base_url(base_url or settings.base_url, allow_http=settings.allow_http)
        key = settings_.key_of(settings)
        network = network_of(settings)
    except OrchestratorError as error:
        yield Finding("key", str(error), error.exit_code)
        return
    yield Finding("key", f"set, {len(key)} characters")
    yield Finding("network", settings_.in_clear(base) or network.words(base))
    try:
        server_time = loop.run(_server_time(base, key, settings, network, api))
    except Rejected as error:
        yield Finding(
            "api", f"{base} refuses to list {api} jobs ({error}); is `api: {api}` right?", ExitCode.UNREACHABLE
        )
        return
    except OrchestratorError as error:
        yield Finding("api", f"{base}: {error}", error.exit_code)
        return
    old = (
        "; it left the vendor's reference in August 2026 and still works; no end date is announced"
        if api == "v1"
        else ""
    )
    yield Finding("api", f"{base} answers and accepts the key ({api}{old})")
    if server_time is None:
        yield Finding("clock", "the API gives no time to compare with")
        return
    skew = (clock.now() - server_time).total_seconds()
    words = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the API's; set this machine's"
    yield Finding("clock", words if abs(skew) > SKEW_S else "agrees with the API's", ExitCode.OK)


async def _server_time(base: str, key: str, settings: Settings, network: Network, api: str) -> datetime | None:
    dialect = V2(Target()) if api == "v2" else V1(Target())
    wire = Wire(base, key, timeout_s=min(settings.timeout_s, 10.0), fresh_creates=False, network=network)
    try:
        dialect.read_page(await wire.send(dialect.list(None, 1), kind="list"))
        return wire.server_time.astimezone(UTC) if wire.server_time else None
    finally:
        await wire.close()
