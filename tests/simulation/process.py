"""One process of the program in the simulated world: the real run, until it ends or dies."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any
from unittest.mock import patch

import httpx
import structlog
from sqlalchemy import Connection, Engine, create_engine

from orchestrator.commands.access import connect
from orchestrator.commands.run import TAKEN_OVER_SETTLE_S, _Execution
from orchestrator.errors import Interrupted, LedgerBusy, LedgerError, LockHeld, OrchestratorError, OutOfCredits
from orchestrator.ledger import Ledger
from orchestrator.ledger.chunks import plan as ledger_plan
from orchestrator.ledger.postgres import session
from orchestrator.ledger.queue import Shard
from orchestrator.ledger.sqlite import database, place
from orchestrator.ledger.writer import Writer
from orchestrator.manifest.loading import Manifest
from orchestrator.planning import run as planning
from orchestrator.planning.options import Options
from orchestrator.settings import Settings
from orchestrator.stages.pipeline import Pipeline
from orchestrator.stages.work import DRAIN_S, Stop
from simulation.custom import changed, plain
from simulation.home import File, OnServer, Reader
from simulation.line import Line
from simulation.loop import VirtualClock, VirtualLoop
from simulation.purchases import Purchases
from simulation.world import SETTLE_S, TIMEOUT_S, World

ORIGIN = "https://api.example"

SETTINGS = Settings(
    timeout_s=TIMEOUT_S,
    settle_s=SETTLE_S,
    stale_s=60,
    late_results_s=30,
    retry_budget_s=20,
    gone_s=3600,
    _env_file=None,
    LLAMA_CLOUD_API_KEY="sim",
)


class _Compiled(dict[tuple[object, ...], object]):
    """Statements that SQLAlchemy has compiled: every run opens a ledger of its own and would compile them again."""

    def get(self, key: tuple[object, ...], default: object = None) -> object:
        return super().get(key[1:], default)  # without the dialect, of which each ledger has its own

    def __setitem__(self, key: tuple[object, ...], compiled: object) -> None:
        super().__setitem__(key[1:], compiled)


COMPILED = {"sqlite": _Compiled(), "postgresql": _Compiled()}


class Crash(BaseException):
    """The process dies here."""


class Process:
    """One run of the program as the operating system sees it: after a crash nothing that it does counts."""

    def __init__(self, world: World, loop: VirtualLoop, crash_rate: float) -> None:
        self._world = world
        self._loop = loop
        self._crash_rate = crash_rate
        self.dead = False
        self.stopped_at: float | None = None
        self.replaced = False  #: another run has taken its manifest over
        self.hazard: Callable[[], None] | None = None  #: what else may happen at each point, on a server

    def point(self, name: str) -> None:
        """A place where the process may die. Raises Crash, for ever after it has."""
        if self.hazard is not None and not self.dead:
            self.hazard()
        if not self.dead and self._is_last():
            self.dead = True
            self._world.now = self._loop.time()
            self._world.tell("crash at", name)
            if self._loop.is_running():
                self._loop.stop()
        if self.dead:
            raise Crash(name)

    def _is_last(self) -> bool:
        """Whether the process dies at this point."""
        return self._world.chance(self._crash_rate)


class MortalLedger(Ledger):
    """The real ledger, whose process may die before, inside and after each transaction, and whose disk may be full."""

    process: Process | None = None
    world: World

    @property
    def still_ours(self) -> bool:
        """As ``Ledger``; by the world's time, in which whoever is taken over has stood still for long."""
        return super().still_ours and not (self.process is not None and self.process.replaced)

    @contextmanager
    def transaction(self, *, patience_s: float | None = None) -> Iterator[Connection]:
        if self.process is None:
            with super().transaction(patience_s=patience_s) as connection:
                yield connection
            return
        self.process.point("transaction.begins")
        with super().transaction(patience_s=patience_s) as connection:
            yield connection
            if self.world.chance(self.world.climate.ledger_faults):
                self.world.tell("disk full")
                raise LedgerError("disk full (simulated)")
            self.process.point("transaction.commits")
        self.process.point("transaction.committed")


class Program:
    """What one execution of `orchestrator run` or `retry` does, without command line and signals."""

    def __init__(
        self, world: World, purchases: Purchases, home: File | OnServer, reader: Reader, rng: random.Random
    ) -> None:
        """*reader*: a connection of the judge's own, which sees what is committed and nothing else."""
        self.world = world
        self.purchases = purchases
        self.home = home
        self.reader = reader
        self.rng = rng
        self.adopted = self.sent_again = 0
        self.died = False
        self.refused = False  #: too many files would be classified again

    def run(self, manifest: Manifest, options: Options, run_id: str) -> None:
        """From its start to its end or death; whatever else comes out is a bug. Raises anything."""
        world = self.world
        loop = VirtualLoop(world.now)
        loop.set_exception_handler(lambda _loop, _context: None)  # of a dead process nobody hears
        process = Process(world, loop, world.climate.crashes)
        try:
            with (
                self.home.lease(process, world) as lease,
                closing(MortalLedger(self.home.location, lease=lease)) as ledger,
            ):
                ledger.process, ledger.world, self.ledger = process, world, ledger
                world.tell("run begins:", options.command)
                try:
                    loop.run_until_complete(loop.create_task(self._run(process, loop, manifest, options, run_id)))
                finally:
                    if process.dead:
                        bury(loop)
        except Crash:
            pass
        except RuntimeError:
            if not process.dead:
                raise
        except (LedgerError, LockHeld) as error:
            if isinstance(error, LockHeld) and not process.replaced:
                raise
            world.tell("run ends:", error)
        finally:
            self.died = process.dead
            if not process.dead:
                world.now = loop.time()
            process.dead = True
            bury(loop)
            loop.close()

    async def _run(
        self, process: Process, loop: VirtualLoop, manifest: Manifest, options: Options, run_id: str
    ) -> None:
        world = self.world
        skew = self.rng.choice((0.0, 0.0, 0.0, 3600.0, -3600.0)) if not world.calm else 0.0
        clock = VirtualClock(loop, 0.0 if world.custom.denied else skew)
        execution = _Execution(manifest, SETTINGS, options, self.ledger, clock, run_id, ORIGIN, "key", None, None)
        asked = self._asked_to_change(manifest, options, run_id)
        try:
            with self._released(), self.ledger.transaction() as connection:
                plan = planning.plan(connection, manifest, options, run_id=run_id, origin=ORIGIN, now=clock.now())
                apis = execution._apis_with_work(connection, plan)
            self.ledger.stage_again(lambda connection: ledger_plan.stage(connection, manifest.file_ids()))
        except OutOfCredits as refusal:
            self.refused = True
            world.tell("run ends:", refusal)
        self._judge_refusal(manifest, asked)
        if self.refused:
            return
        error = None
        if apis:
            rng = random.Random(self.rng.random())
            line = Line(world, self.purchases, process, loop, self.reader)
            api = connect(
                manifest,
                world.api,
                SETTINGS,
                base_url=ORIGIN,
                key="simulation",
                clock=clock,
                rng=rng,
                transport=line,
                may_send=(lambda: self.ledger.still_ours) if self.ledger.remote else None,
            )
            pipeline = Pipeline(
                manifest,
                api,
                shard=Shard(plan.scope.manifest_id, world.api),
                run_id=run_id,
                writer=(InlineWriter if self.ledger.remote else Writer)(self.ledger, clock),
                clock=clock,
                rng=rng,
                settle_s=max(SETTINGS.settle_s, TAKEN_OVER_SETTLE_S if self.ledger.took_over else 0.0),
                stale_s=SETTINGS.stale_s,
                late_s=SETTINGS.late_results_s,
                gone_s=SETTINGS.gone_s,
                progress=execution.progress,
            )
            pipeline.work.stop = TimedStop(process, loop)
            if world.chance(world.climate.stops):
                after_s = self.rng.choice((0.5, 3.0, 20.0)) * self.rng.random()
                loop.call_later(after_s, pipeline.work.stop.stop_everything, Interrupted("told to stop"))
            try:
                await pipeline.run(wait=not world.chance(0.05))
            finally:
                self.adopted += execution.progress.adopted
                self.sent_again += execution.progress.sent_again
                execution.left |= pipeline.left
                await pipeline.close()
            self._judge_stop(process, loop)
            error = pipeline.work.stop.everything or pipeline.work.stop.creates
        world.now = loop.time()
        if error is not None and not isinstance(error, OrchestratorError):
            raise error  # a crash, or a bug of the program's
        summary = execution._conclude(plan, error)
        world.tell("run ends:", summary.exit_code, summary.reason)
        self._judge_end(summary.exit_code)

    def _asked_to_change(self, manifest: Manifest, options: Options, run_id: str) -> tuple[int, int]:
        """How many files with an outcome this run is surely, and at most, to send under changed rules unasked."""
        if not options.new or options.reclassify:
            return 0, 0
        return changed(self.reader, [*map(plain, manifest.ids)], self.purchases.rules_of_run[run_id])

    def _judge_refusal(self, manifest: Manifest, asked: tuple[int, int]) -> None:
        most = manifest.limits.max_reclassify
        if most is not None and all(self.refused != (files > most) for files in asked):
            self.world.violated(f"refused: {self.refused}, with {asked} files to classify again, of at most {most}")

    def _judge_stop(self, process: Process, loop: VirtualLoop) -> None:
        """A run that is told to end waits for the calls that are out, so long and no longer."""
        if process.stopped_at is not None and loop.time() - process.stopped_at > DRAIN_S + 0.01:
            self.world.violated(f"went on for {loop.time() - process.stopped_at:.3f} s after it was told to end")

    @contextmanager
    def _released(self) -> Iterator[None]:
        """The chunks that are no longer held after the block have been written off by a person."""
        held = "SELECT id FROM jobs WHERE held = 1 AND finished_at IS NULL"
        before = {chunk_id for (chunk_id,) in self.reader.execute(held)}
        try:
            yield
        finally:
            self.purchases.write_off(before - {chunk_id for (chunk_id,) in self.reader.execute(held)})

    def _judge_end(self, exit_code: int) -> None:
        """Exit code 0 and 1 say that nothing is left to do, 0 that all is well."""
        (open_,) = self.reader.execute("SELECT count(*) FROM jobs WHERE finished_at IS NULL").fetchone()
        bad = self.reader.execute(
            "SELECT f.file_id, r.outcome FROM manifests m JOIN files f ON f.config_id = m.config_id AND f.standing = 1 "
            "LEFT JOIN results r ON r.file_row = f.id "
            "WHERE r.outcome IS NULL OR r.outcome NOT IN ('classified', 'unmatched')"
        ).fetchall()
        if (exit_code in (0, 1) and open_) or (exit_code == 0 and bad):
            self.world.violated(f"exit code {exit_code} with {open_} open chunks and {bad}")


class InlineWriter(Writer):
    """Waits for the server where it is: virtual time has no threads to wait for."""

    async def _in_turn(self, batch: list[Any]) -> list[Any]:
        while True:
            try:
                return self._work_off(batch)
            except LedgerBusy:
                await self._clock.sleep(0.05)


class TimedStop(Stop):
    """Remembers when the run was told to end, and the calls that were out had DRAIN_S left."""

    def __init__(self, process: Process, loop: VirtualLoop) -> None:
        super().__init__()
        self._process = process
        self._loop = loop

    def stop_everything(self, why: BaseException) -> None:
        if self._process.stopped_at is None:
            self._process.stopped_at = self._loop.time()
        super().stop_everything(why)


def bury(loop: VirtualLoop) -> None:
    """End what is left of a dead process's tasks; whatever their finalizers try, every way out raises Crash."""

    async def end() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    loop.run_until_complete(end())


@contextmanager
def unencrypted() -> Iterator[None]:
    """Spare each run the reading of all certificates there are: nothing is encrypted here."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with patch.object(httpx, "create_ssl_context", lambda **_: context):
        yield


@contextmanager
def quick() -> Iterator[None]:
    """Spare each ledger that is opened what is the same for all: compiled statements, and this machine's mounts."""

    def create(*args: object, **options: object) -> Engine:
        engine: Engine = create_engine(*args, **options)  # type: ignore[call-overload]  # as it was called
        engine.update_execution_options(compiled_cache=COMPILED[engine.name])
        return engine

    with (
        patch.object(database, "create_engine", create),
        patch.object(session, "create_engine", create),
        patch.object(place, "refuse_mount", lambda path: None),
    ):
        yield


@contextmanager
def quiet() -> Iterator[None]:
    """No log lines while the block runs."""
    before, driver = structlog.get_config(), logging.getLogger("psycopg")
    level = driver.level
    driver.setLevel(logging.CRITICAL)  # it warns of each connection that is cut
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)
        driver.setLevel(level)
