"""How a command reaches the API and finds the ledger."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import structlog

from orchestrator import ledger
from orchestrator import settings as settings_
from orchestrator.api.client import Api
from orchestrator.api.dialect import Dialect, Target
from orchestrator.api.limiter import AdaptiveLimiter, Limiters
from orchestrator.api.network import Network, custom_headers
from orchestrator.api.sharing import KINDS, shared
from orchestrator.api.v1 import V1
from orchestrator.api.v2 import V2
from orchestrator.api.wire import Wire
from orchestrator.clock import Clock
from orchestrator.errors import SettingsError
from orchestrator.logs import redactor
from orchestrator.manifest.loading import Manifest
from orchestrator.planning.options import Options
from orchestrator.reports.last_run import Address
from orchestrator.settings import Settings

log = structlog.get_logger()

#: The key that a rehearsal uses; the embedded sandbox takes any.
REHEARSAL_KEY = "a-rehearsal-needs-no-key"


def access(manifest: Manifest, settings: Settings, base_url: str | None, *, rehearsal: bool = False) -> tuple[str, str]:
    """The base URL to call, *base_url* if given, and the key. Raises SettingsError."""
    base = settings_.checked_base_url(base_url or settings.base_url, allow_http=settings.allow_http)
    key = REHEARSAL_KEY if rehearsal else settings_.key_of(settings)
    if not rehearsal and (warning := settings_.in_clear(base)):
        log.warning("api.in_clear", words=warning)
    return base, key


def hide_secrets(manifest: Manifest, settings: Settings, key: str) -> None:
    """From now on no output of this process shows the key, the manifest's secrets or those of custom headers."""
    redactor.add([key, *manifest.secrets, *network_of(settings).headers.values()])


def network_of(settings: Settings) -> Network:
    """The way to the API that the environment describes. Raises SettingsError."""
    headers = settings.custom_headers.get_secret_value() if settings.custom_headers else ""
    return Network(settings.trust_env, custom_headers(headers))


def dialect_of(manifest: Manifest, api: str) -> Dialect:
    """The API version *api*, speaking for the manifest's project and webhooks."""
    target = Target(
        project_id=manifest.project_id,
        organization_id=manifest.organization_id,
        webhooks=manifest.webhook_configurations,
        webhook_configuration_ids=manifest.webhook_configuration_ids,
    )
    return V2(target) if api == "v2" else V1(target)


def connect(
    manifest: Manifest,
    api: str,
    settings: Settings,
    *,
    base_url: str,
    key: str,
    clock: Clock,
    rng: random.Random,
    transport: httpx.AsyncBaseTransport | None = None,
    may_send: Callable[[], bool] | None = None,
    at: ledger.Location | None = None,
) -> Api:
    """The API at *base_url*, paced by the settings' ceilings. *may_send*: whether the manifest is still this run's.

    *at*: the ledger on whose server all processes that use this key keep one pace together.
    """
    dialect, network = dialect_of(manifest, api), network_of(settings)
    urls = [webhook.webhook_url for webhook in manifest.webhook_configurations if webhook.webhook_url]
    wire = Wire(
        base_url,
        key,
        timeout_s=settings.timeout_s,
        fresh_creates=not dialect.traits.idempotent,
        secrets=(*manifest.secrets, *network.headers.values(), *urls),
        network=network,
        transport=transport,
        may_send=may_send,
    )
    limiters = _limiters(settings, clock)
    if isinstance(at, ledger.Server):
        project = hashlib.sha256(f"{base_url}\0{key}".encode()).hexdigest()[:32]
        limiters = shared(limiters, ledger.pace(at, project, KINDS), clock)
    return Api(dialect, wire, limiters, clock=clock, rng=rng, retry_budget_s=settings.retry_budget_s)


def _limiters(settings: Settings, clock: Clock) -> Limiters:
    """The paces of this process alone."""
    return Limiters(
        creates=AdaptiveLimiter(settings.creates_per_s, clock),
        reads=AdaptiveLimiter(settings.reads_per_s, clock),
        lists=AdaptiveLimiter(settings.lists_per_s, clock),
        uploads=AdaptiveLimiter(settings.uploads_per_s, clock),
    )


def ledger_path(manifest: str | None, settings: Settings, option: str | None) -> ledger.Location:
    """``--ledger``, else ``ORCHESTRATOR_LEDGER``, else ``ledger.db`` beside *manifest*, links resolved (or here).

    No output of this process shows a database's password from now on.

    Raises SettingsError where it is unclear which of two ledgers is meant.
    """
    redactor.add(settings_.database_passwords())
    if option is not None:
        return ledger.locate(os.path.expanduser(option))  # noqa: PTH111 - as the settings are read
    if settings.ledger is not None:
        return ledger.locate(settings.ledger)
    if manifest is None:
        return Path.cwd() / "ledger.db"
    real, beside_link = settings_.folder_of(manifest) / "ledger.db", Path(manifest).absolute().parent / "ledger.db"
    if not beside_link.exists() or beside_link.resolve() == real.resolve():
        return real
    # An earlier version put it beside the link: to begin another one would pay for everything again.
    if real.exists():
        raise SettingsError(f"{manifest} is a link, and both {real} and {beside_link} exist; say which with --ledger")
    return beside_link


def log_folder(manifest: str | None, settings: Settings, option: str | None) -> Path:
    """The folder of the runs' logs: ``ORCHESTRATOR_LOG_DIR``, else ``logs`` beside the ledger.

    On a server nothing is beside the ledger: then beside *manifest*, or here.
    """
    if settings.log_dir is not None:
        folder = settings_.folder_of(manifest) if manifest else Path.cwd()
        return folder / os.path.expanduser(settings.log_dir)  # noqa: PTH111 - as above
    return beside(manifest, ledger_path(manifest, settings, option)) / "logs"


def beside(manifest: str | None, location: ledger.Location) -> Path:
    """The folder for what goes beside the ledger; of a ledger on a server, that of *manifest*, or the current one."""
    if isinstance(location, Path):
        return location.parent
    return settings_.folder_of(manifest) if manifest else Path.cwd()


def address(manifest: str, settings: Settings, option: str | None, *, rehearsal: bool = False) -> Address:
    """How a command that works from any folder names the work of *manifest*."""
    return Address.of(Path(os.path.realpath(manifest)), ledger_path(manifest, settings, option), rehearsal=rehearsal)


def lock_name(name: str, *, rehearsal: bool) -> str:
    return f"{name}~rehearsal" if rehearsal else name


@asynccontextmanager
async def reached(base_url: str, options: Options) -> AsyncIterator[str]:
    """The base URL to talk to, for a rehearsal that of a sandbox that lives as long as the block."""
    if not options.sandbox:
        yield base_url
        return
    from orchestrator.sandbox import Sandbox, SandboxOptions

    sandbox = Sandbox(SandboxOptions(faults=options.faults, unknown_files="accept"))
    url = await sandbox.start()
    log.info("rehearsal.started", note="an embedded sandbox answers; nothing is sent to the API and nothing is billed")
    try:
        yield url
    finally:
        await sandbox.stop()
