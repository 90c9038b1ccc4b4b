"""The stages of one shard wired together: API client, submitter, poller, reconciler."""

from __future__ import annotations

import random
from functools import partial

import httpx

from orchestrator import billing, reconcile
from orchestrator import settings as settings_
from orchestrator.api.client import Api, Limiters, Wire
from orchestrator.api.dialect import Dialect, Target
from orchestrator.api.limiter import AdaptiveLimiter
from orchestrator.api.v1 import V1
from orchestrator.api.v2 import V2
from orchestrator.clock import Clock
from orchestrator.engine import Progress, Stage, Work, run_stages
from orchestrator.errors import RunStopped
from orchestrator.escalate import plan_escalation
from orchestrator.follow_up import FollowUp
from orchestrator.isolate import plan_halves
from orchestrator.ledger.jobs import Shard
from orchestrator.ledger.writer import Writer
from orchestrator.logs import redactor
from orchestrator.manifest import Manifest
from orchestrator.poller import Poller
from orchestrator.settings import Settings
from orchestrator.submitter import Submitter

#: The key that a rehearsal uses; the embedded sandbox takes any.
REHEARSAL_KEY = "a-rehearsal-needs-no-key"


def access(manifest: Manifest, settings: Settings, base_url: str | None, *, rehearsal: bool = False) -> tuple[str, str]:
    """The base URL to call, *base_url* if given, and the key; no log line shows a secret from now on.

    Raises SettingsError.
    """
    base = settings_.checked_base_url(base_url or settings.base_url)
    key = REHEARSAL_KEY if rehearsal else settings_.key_of(settings)
    redactor.add([key, *manifest.secrets])
    return base, key


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
) -> Api:
    """The API at *base_url*, paced by the settings' ceilings."""
    dialect = dialect_of(manifest, api)
    wire = Wire(
        base_url,
        key,
        timeout_s=settings.timeout_s,
        fresh_creates=not dialect.traits.idempotent,
        secrets=manifest.secrets,
        transport=transport,
    )
    limiter = partial(AdaptiveLimiter, clock=clock)
    limiters = Limiters(limiter(settings.creates_per_s), limiter(settings.reads_per_s), limiter(settings.lists_per_s))
    return Api(dialect, wire, limiters, clock=clock, rng=rng, retry_budget_s=settings.retry_budget_s)


class Pipeline:
    """Everything that one run of one manifest has in motion."""

    def __init__(
        self,
        manifest: Manifest,
        settings: Settings,
        *,
        base_url: str,
        key: str,
        shard: Shard,
        run_id: str,
        writer: Writer,
        clock: Clock,
        rng: random.Random,
        progress: Progress | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        api = connect(
            manifest, shard.api, settings, base_url=base_url, key=key, clock=clock, rng=rng, transport=transport
        )
        self.api = api
        self.work = Work(shard, run_id, api, writer, clock, settings.settle_s, settings.stale_s, progress or Progress())
        self.poller = Poller(self.work)
        self.submitter = Submitter(self.work, rng, submitted=self.poller.watch)
        self.reconciler = reconcile.Reconciler(
            self.work,
            out=lambda: self.submitter.busy,
            adopted=self.poller.watch,
            send_again=self.submitter.look_again,
        )

        carriers: list[Stage] = [self.submitter, self.poller, self.reconciler]
        self.isolator = FollowUp(
            self.work,
            others_idle=lambda: all(stage.idle for stage in carriers),
            plan_more=lambda connection: plan_halves(connection, self.work, manifest),
            send_again=self.submitter.look_again,
        )
        self.escalator = FollowUp(
            self.work,
            others_idle=lambda: self.isolator.idle,
            plan_more=lambda connection: plan_escalation(connection, self.work, manifest),
            send_again=self.submitter.look_again,
        )

    @property
    def requests(self) -> int:
        return self.api.wire.requests.total()

    @property
    def left(self) -> dict[int, str]:
        """Chunks that this run leaves to a later one or to a person, and why."""
        held = dict.fromkeys(
            self.reconciler.held, "an unanswered create call needs a person: see `orchestrator status`"
        )
        return {**self.poller.set_aside, **self.reconciler.set_aside, **held}

    async def run(self, *, wait: bool) -> None:
        """Carry the shard as far as it goes; ``work.stop`` says why it ended early, if it did."""
        work = self.work
        try:
            await run_stages(
                work, self.submitter, [self.poller, self.reconciler, self.isolator, self.escalator], wait=wait
            )
            if work.stop.everything is None and wait:
                await reconcile.audit(work)
                await billing.sweep(work)
        except RunStopped as error:
            work.stop.stop_everything(error)

    async def close(self) -> None:
        await self.api.close()
