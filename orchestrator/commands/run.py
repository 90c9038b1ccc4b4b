"""One run: lock, plan, the stages, signals and deadline, summary. Knows no SQL and no HTTP; prints nothing."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import structlog

from orchestrator import __version__, ledger
from orchestrator import settings as settings_
from orchestrator.api import loop
from orchestrator.api.counting import Calls
from orchestrator.clock import Clock, SystemClock, timestamp
from orchestrator.commands import route
from orchestrator.commands.access import access, connect, hide_secrets, ledger_path, lock_name, reached
from orchestrator.commands.announcing import end as announcing
from orchestrator.commands.cancel import Canceller, stale_since
from orchestrator.commands.retry import BeforeRetry
from orchestrator.commands.stopping import deadline, signals
from orchestrator.commands.summary import Ended, Summary, conclude
from orchestrator.errors import LedgerBusy, OrchestratorError
from orchestrator.ledger import Ledger, Transaction, runs
from orchestrator.ledger.chunks import plan as ledger_plan
from orchestrator.ledger.queue import Shard, open_apis
from orchestrator.ledger.writer import Writer
from orchestrator.manifest.loading import Manifest
from orchestrator.plaintext import safe
from orchestrator.planning import documents
from orchestrator.planning import run as planning
from orchestrator.planning.limits import may_begin_again
from orchestrator.planning.options import Options
from orchestrator.planning.run import Plan
from orchestrator.settings import Settings
from orchestrator.stages.pipeline import Pipeline
from orchestrator.stages.polling import overdue
from orchestrator.stages.work import Progress, Work

log = structlog.get_logger()

#: The embedded sandbox shows a job as soon as it is made: no need to wait as long as for the API.
REHEARSAL_SETTLE_S = 3.0

#: The least time that the API gets to show a job of a run that was pushed out: how long it may have gone on sending.
TAKEN_OVER_SETTLE_S = 20.0

#: How long a run that is to end waits for the ledger while another process writes to it.
LAST_PATIENCE_S = 1.0

#: Called with the run's work while it goes on: shows it to a person.
Watcher = Callable[[Work, "Plan"], "AsyncIterator[None]"]


def run(
    manifest: Manifest,
    settings: Settings,
    options: Options,
    *,
    clock: Clock | None = None,
    watcher: Watcher | None = None,
) -> Summary:
    """Make the ledger agree with *manifest*, as far as this run gets; the summary's ``exit_code`` says how far.

    Raises OrchestratorError when nothing was begun.
    """
    clock = clock or SystemClock()
    began = clock.now()
    try:
        return _run(manifest, settings, options, clock, watcher)
    except Exception as error:
        announcing.of_failure(manifest, settings, options, error, clock, began)
        raise


def _run(manifest: Manifest, settings: Settings, options: Options, clock: Clock, watcher: Watcher | None) -> Summary:
    announcing.check(manifest, settings, options)
    base_url, key = access(manifest, settings, options.base_url, rehearsal=options.sandbox)
    hide_secrets(manifest, settings, key)
    deadline = options.deadline or settings.deadline
    named = "--deadline" if options.deadline else "ORCHESTRATOR_DEADLINE"
    deadline_s = settings_.seconds(deadline, named) if deadline else None
    if options.chunk_size is not None:
        manifest = replace(manifest, chunk_size=options.chunk_size)
    path = ledger_path(manifest.path, settings, options.ledger)
    created = not ledger.exists(path)
    if not options.new:
        ledger.require(path)
    rebuilding = may_begin_again(manifest, rehearsal=options.sandbox)
    run_id = runs.new_id(clock.now())
    holder = {
        "command": f"orchestrator {options.command} (run {run_id})",
        "since": timestamp(clock.now(), "seconds"),
    }
    with (
        structlog.contextvars.bound_contextvars(
            manifest=manifest.name, run_id=run_id, **({"rehearsal": True} if options.sandbox else {})
        ),
        ledger.lease(
            path, lock_name(manifest.name, rehearsal=options.sandbox), holder, away_s=settings.ledger_patience_s
        ) as lease,
        ledger.open(path, lease=lease, rebuilding=rebuilding, patience_s=_patience_s(deadline_s)) as opened,
    ):
        log.info("run.started", command=options.command, pid=os.getpid(), version=__version__)
        if created:
            log.info("ledger.created", path=safe(path.absolute()))
        if rebuilding and not options.sandbox:
            opened.rebuilt()
        execution = _Execution(manifest, settings, options, opened, clock, run_id, base_url, key, deadline_s, watcher)
        return execution.run()


def _patience_s(deadline_s: float | None) -> float:
    return ledger.PATIENCE_S if deadline_s is None else min(deadline_s, ledger.PATIENCE_S)


class _Execution:
    """One run under its lock, with its ledger open."""

    def __init__(
        self,
        manifest: Manifest,
        settings: Settings,
        options: Options,
        ledger: Ledger,
        clock: Clock,
        run_id: str,
        base_url: str,
        key: str,
        deadline_s: float | None,
        watcher: Watcher | None,
    ) -> None:
        self.manifest = manifest
        self.settings = settings
        self.options = options
        self.ledger = ledger
        self.clock = clock
        self.run_id = run_id
        self.base_url = base_url
        self.key = key
        self.deadline_s = deadline_s
        self.watcher = watcher
        self.began = clock.monotonic()
        self.requests: Calls = Counter()
        self.create_limit_per_s: float | None = None
        self.started_at = ""  #: of the run's record
        self.host = "rehearsal" if options.sandbox else settings_.origin(base_url)
        self.progress = Progress()
        self.left: dict[int | str, str] = {}
        self.documents: documents.Taken | None = None
        self.routed: route.Placed | None = None
        self.not_freed: dict[int, str] = {}
        self.late: overdue.Late = {}

    def run(self) -> Summary:
        self.manifest, self.documents = documents.take(self.manifest, self.ledger, write=True)
        if self.options.again is not None and not self.options.sandbox:
            canceller = Canceller(self.manifest, self.settings, self.ledger, self.clock, self.base_url, self.key)
            ends_at = None if self.deadline_s is None else self.began + self.deadline_s
            before = BeforeRetry(canceller, self.run_id, self.progress, self.requests, self.deadline_s, ends_at)
            self.options, self.not_freed = before.prepare(self.options, self.options.again)
            self.late = before.late
        if self.options.held:
            self.options = replace(self.options, stale_since=stale_since(self.clock, self.settings))
        plan, apis = self._plan()
        error: BaseException | None = None
        if apis:
            try:
                error = loop.run(self._carry_out(plan, apis))
            except OrchestratorError as failure:
                error = failure
        if error is not None and not isinstance(error, OrchestratorError):
            raise error
        if error is not None:
            self.ledger.patience_s = LAST_PATIENCE_S
        if self.manifest.route is not None and self.options.create and not self.options.sandbox:
            routed = route.carry_out(self.manifest, self.ledger, self.manifest.route, self.clock)
            self.routed = route.Placed(routed.placed, routed.already, routed.troubles, routed.left, routed.waiting)
        return self._conclude(plan, error)

    def _plan(self) -> tuple[Plan, list[str]]:
        """Write the plan into the ledger; the plan, and the API versions that something is to be done with."""
        now = self.clock.now()
        self.started_at = timestamp(now)
        with self.ledger.transaction() as connection:
            plan = planning.plan(
                connection,
                self.manifest,
                self.options,
                run_id=self.run_id,
                origin=self.host,
                now=now,
            )
            for chunk_id, rows in self.late.items():
                runs.count_results(connection, chunk_id, only=rows)
            if self.ledger.replaced:
                planning.doubt_pending(connection, plan, at=self.started_at)
            self.ledger.settle(connection)
            apis = self._apis_with_work(connection, plan)
        self.ledger.stage_again(lambda connection: ledger_plan.stage(connection, self.manifest.file_ids()))
        log.info(
            "run.planned",
            files=plan.counts.files,
            new=plan.counts.new,
            chunks=plan.chunks,
            done=plan.counts.done,
            duplicates=plan.counts.duplicates,
        )
        return plan, apis

    def _apis_with_work(self, connection: Transaction, plan: Plan) -> list[str]:
        """The API versions that something is to be done with; first those that only an earlier run used."""
        manifest = self.manifest
        apis = set(open_apis(connection, plan.scope.manifest_id))
        if manifest.escalate is not None:
            apis.add(manifest.api)  # an earlier run may have ended before it asked for second opinions
        if self.options.wait and self.options.create and not self.options.sandbox:
            apis |= {job.api for job in overdue.due(connection, plan.scope.manifest_id, began=self.clock.now())}
        return sorted(apis, key=lambda api: api == manifest.api)

    async def _carry_out(self, plan: Plan, apis: list[str]) -> BaseException | None:
        """Run the stages for each of *apis*; why they ended early, if so."""
        writer = Writer(self.ledger, self.clock)
        async with reached(self.base_url, self.options) as base_url:
            for api in apis:
                error = await self._carry_shard(plan, Shard(plan.scope.manifest_id, api), base_url, writer)
                if error is not None:
                    return error
        return None

    def _pipeline(self, shard: Shard, base_url: str, writer: Writer) -> Pipeline:
        """The stages for *shard*, with the waits that the settings, a rehearsal or a take-over ask for."""
        rng = random.Random()
        settle_s, late_s = self.settings.settle_s, self.settings.late_results_s
        if self.ledger.took_over:  # the run before may have sent its last call just before it lost the manifest
            settle_s = max(settle_s, TAKEN_OVER_SETTLE_S)
        return Pipeline(
            self.manifest,
            connect(
                self.manifest,
                shard.api,
                self.settings,
                base_url=base_url,
                key=self.key,
                clock=self.clock,
                rng=rng,
                may_send=(lambda: self.ledger.still_ours) if self.ledger.remote else None,
                at=None if self.options.sandbox else self.ledger.location,
            ),
            shard=shard,
            run_id=self.run_id,
            writer=writer,
            clock=self.clock,
            rng=rng,
            settle_s=min(settle_s, REHEARSAL_SETTLE_S) if self.options.sandbox else settle_s,
            stale_s=self.settings.stale_s,
            late_s=min(late_s, REHEARSAL_SETTLE_S) if self.options.sandbox else late_s,
            gone_s=self.settings.gone_s,
            progress=self.progress,
        )

    async def _carry_shard(self, plan: Plan, shard: Shard, base_url: str, writer: Writer) -> BaseException | None:
        """Run the stages for *shard* until they, a signal or the deadline end it; why it ended early, if so."""
        pipeline = self._pipeline(shard, base_url, writer)
        work = pipeline.work
        left_s = None if self.deadline_s is None else self.began + self.deadline_s - self.clock.monotonic()
        try:
            with signals(work), deadline(work, left_s):
                async with _watched(self.watcher, work, plan):
                    if self.options.create:
                        await pipeline.run(wait=self.options.wait)
                    else:
                        await pipeline.upload()
        finally:
            self.requests += pipeline.requests
            self.create_limit_per_s = pipeline.create_limit_per_s or self.create_limit_per_s
            self.left |= pipeline.left
            await pipeline.close()
        return work.stop.everything or work.stop.creates

    def _conclude(self, plan: Plan, error: OrchestratorError | None) -> Summary:
        ended = Ended(
            run_id=self.run_id,
            host=self.host,
            started_at=self.started_at,
            finished_at=timestamp(self.clock.now()),
            options=self.options,
            plan=plan,
            progress=self.progress,
            requests=self.requests,
            create_limit_per_s=self.create_limit_per_s,
            seconds=self.clock.monotonic() - self.began,
            left=[*self.left.values(), *self.not_freed.values()],
            error=error,
            documents=self.documents,
            routed=self.routed,
        )
        summary, recorded = self._recorded(ended)
        log.info(
            "run.finished",
            exit_code=summary.exit_code,
            reason=summary.reason,
            files=summary.files,
            unfinished=summary.unfinished,
        )
        if recorded:
            announcing.of_end(self.manifest, self.settings, self.options, self.ledger, summary, self.clock)
        elif error is not None:
            began = self.clock.now() - timedelta(seconds=ended.seconds)
            announcing.of_failure(self.manifest, self.settings, self.options, error, self.clock, began)
        return summary

    def _recorded(self, ended: Ended) -> tuple[Summary, bool]:
        """The run's summary, and whether the ledger has it: a deadline and a signal wait for no other process."""
        try:
            with self.ledger.transaction() as connection:
                summary = conclude(connection, self.manifest, ended)
                code, at = summary.exit_code, summary.finished_at
                runs.finish(connection, self.run_id, exit_code=code, summary=summary.as_json(), at=at)
        except LedgerBusy as busy:
            if ended.error is None:
                raise
            with self.ledger.glance() as connection:
                summary = conclude(connection, self.manifest, ended)
            told = "" if isinstance(ended.error, LedgerBusy) else f": {busy}"
            return replace(summary, reason=f"{summary.reason}; the end of this run is not recorded{told}"), False
        return summary, True


@asynccontextmanager
async def _watched(watcher: Watcher | None, work: Work, plan: Plan) -> AsyncIterator[None]:
    if watcher is None:
        yield
        return
    async with asynccontextmanager(watcher)(work, plan):
        yield
