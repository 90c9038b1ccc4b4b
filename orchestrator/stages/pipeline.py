"""The stages of one shard wired together: API client, submitter, poller, reconciler."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from orchestrator.api.client import Api
from orchestrator.api.counting import Calls
from orchestrator.api.dialect import Target
from orchestrator.api.files import Files
from orchestrator.clock import Clock
from orchestrator.errors import WITHOUT_A_LIST, RunStopped
from orchestrator.ledger import Transaction
from orchestrator.ledger.queue import Shard
from orchestrator.ledger.writer import Writer
from orchestrator.manifest.loading import Manifest
from orchestrator.stages import billing
from orchestrator.stages.escalating import plan_escalation
from orchestrator.stages.follow_up import FollowUp
from orchestrator.stages.halving import plan_halves
from orchestrator.stages.polling import overdue
from orchestrator.stages.polling.late import Late
from orchestrator.stages.polling.poller import Poller
from orchestrator.stages.submitter import Submitter
from orchestrator.stages.unanswered import audit, reconciler
from orchestrator.stages.uploader import Uploader
from orchestrator.stages.work import HELD, Phase, Progress, Sight, Stage, Work, run_stages, while_going_on


class Pipeline:
    """Everything that one run of one manifest has in motion."""

    def __init__(
        self,
        manifest: Manifest,
        api: Api,
        *,
        shard: Shard,
        run_id: str,
        writer: Writer,
        clock: Clock,
        rng: random.Random,
        settle_s: float,
        stale_s: float,
        late_s: float = 600.0,
        gone_s: float = 3600.0,
        progress: Progress | None = None,
    ) -> None:
        self.api = api
        self.work = Work(shard, run_id, api, writer, clock, settle_s, stale_s, progress or Progress(), late_s, gone_s)
        self.work.look = self.sight
        self._began = clock.now()
        self.late = Late(self.work, watch=self._watch)
        self.poller = Poller(self.work, late=self.late)
        self.submitter = Submitter(self.work, rng, submitted=self.poller.watch)
        self.reconciler = reconciler.Reconciler(
            self.work,
            out=lambda: self.submitter.busy,
            adopted=self.poller.watch,
            send_again=self.submitter.look_again,
        )
        files = Files(api, Target(manifest.project_id, manifest.organization_id))
        self.uploader = Uploader(self.work, files, rng, ready=self.submitter.look_again)

        carriers: list[Stage] = [self.uploader, self.submitter, self.poller, self.reconciler]
        self.halving = self._follow_up(manifest, plan_halves, lambda: all(stage.idle for stage in carriers))
        self.escalating = self._follow_up(manifest, plan_escalation, lambda: self.halving.idle)

    def _follow_up(
        self,
        manifest: Manifest,
        plan: Callable[[Transaction, Work, Manifest], int],
        others_idle: Callable[[], bool],
    ) -> FollowUp:
        """A stage that plans more chunks with *plan* when the others have nothing left to do."""
        return FollowUp(
            self.work,
            others_idle=others_idle,
            plan_more=lambda connection: plan(connection, self.work, manifest),
            send_again=self._look_again,
        )

    def sight(self) -> Sight:
        """The stages as a watcher sees them."""
        if not self.uploader.idle and self.submitter.idle:
            phase = Phase.UPLOADING
        elif not self.submitter.idle:
            phase = Phase.SUBMITTING
        elif self.poller.in_flight:
            phase = Phase.PROCESSING
        else:
            phase = Phase.SETTLING if self.work.unsettled else Phase.COLLECTING
        settles_in_s = max(self.work.next_look_at - self.work.clock.monotonic(), 0.0)
        return Sight(phase, self.poller.in_flight, self.work.unsettled, settles_in_s)

    def _watch(self, chunk_id: int, job_id: str, size: int, *, age_s: float | None = None) -> None:
        self.poller.watch(chunk_id, job_id, size, age_s=age_s)

    def _look_again(self) -> None:
        """More chunks are pending; their documents may have to be uploaded first."""
        self.uploader.look_again()
        self.submitter.look_again()

    @property
    def requests(self) -> Calls:
        return self.api.wire.requests

    @property
    def create_limit_per_s(self) -> float | None:
        """The pace of create calls that the API has taught this run by refusing; None when it refused none."""
        creates = self.api.limiters.creates
        return creates.rate_per_s if creates.refused else None

    @property
    def left(self) -> dict[int | str, str]:
        """Chunks and documents that this run leaves to a later one or to a person, and why."""
        held = dict.fromkeys(self.reconciler.held | self.submitter.held, HELD)
        left: dict[int | str, str] = {}
        apart = (self.poller.set_aside, self.poller.denied.left, self.late.left, self.reconciler.set_aside)
        for which in (self.uploader.left, *apart, held):
            left.update(which.items())
        return left

    async def upload(self) -> None:
        """Upload the documents that pending chunks wait for, and make no job; ``work.stop`` as in ``run``."""
        try:
            await run_stages(self.work, [self.uploader], [], wait=False)
        except RunStopped as error:
            self.work.stop.stop_everything(error)

    async def run(self, *, wait: bool) -> None:
        """Carry the shard as far as it goes; ``work.stop`` says why it ended early, if it did."""
        work = self.work
        try:
            await run_stages(
                work,
                [self.uploader, self.submitter],
                [self.poller, self.poller.denied, self.late, self.reconciler, self.halving, self.escalating],
                wait=wait,
            )
            if work.stop.everything is None and wait:
                await self._audit()
                await billing.sweep(work)
                await overdue.look(work, began=self._began)
        except RunStopped as error:
            work.stop.stop_everything(error)

    async def _audit(self) -> None:
        try:
            await while_going_on(self.work, [asyncio.create_task(audit.audit(self.work))])
        except WITHOUT_A_LIST as error:
            self.work.warn("audit.put_off", why=str(error))

    async def close(self) -> None:
        await self.api.close()
