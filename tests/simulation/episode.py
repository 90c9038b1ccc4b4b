"""One episode: run the real pipeline again and again on one real ledger, through faults and crashes, to its end."""

from __future__ import annotations

import asyncio
import logging
import random
import shutil
import sqlite3
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import httpx
import structlog
from sqlalchemy import Connection

from orchestrator import follow_up
from orchestrator.engine import Interrupted, Stop
from orchestrator.errors import LedgerError
from orchestrator.ledger import Ledger, planning, runs
from orchestrator.ledger.jobs import Shard, tally
from orchestrator.ledger.writer import Writer
from orchestrator.manifest import Manifest
from orchestrator.models import Chunk, Config, Limits, Review, Rule
from orchestrator.pipeline import Pipeline, dialect_of
from orchestrator.planner import files_per_chunk
from orchestrator.settings import Settings
from simulation.line import Line
from simulation.loop import VirtualClock, VirtualLoop
from simulation.oracle import judge
from simulation.world import SETTLE_S, TIMEOUT_S, TYPES, Climate, World

#: After so many runs the weather clears; by MOST_RUNS everything must have ended.
HOSTILE_RUNS, MOST_RUNS = 7, 20

SETTINGS = Settings(
    timeout_s=TIMEOUT_S, settle_s=SETTLE_S, stale_s=60, retry_budget_s=20, _env_file=None, LLAMA_CLOUD_API_KEY="sim"
)


#: Statements that SQLAlchemy has compiled: every run opens a ledger of its own and would compile them anew.
_COMPILED: dict[object, object] = {}


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

    def point(self, name: str) -> None:
        """A place where the process may die. Raises Crash, for ever after it has."""
        if not self.dead and self._world.chance(self._crash_rate):
            self.dead = True
            self._world.now = self._loop.time()
            self._world.tell("crash at", name)
            self._loop.stop()
        if self.dead:
            raise Crash(name)


class MortalLedger(Ledger):
    """The real ledger, whose process may die before, inside and after each transaction, and whose disk may be full."""

    process: Process | None = None
    world: World

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        if self.process is None:
            with super().transaction() as connection:
                yield connection
            return
        self.process.point("transaction.begins")
        with super().transaction() as connection:
            connection.execution_options(compiled_cache=_COMPILED)
            yield connection
            if self.world.chance(self.world.climate.ledger_faults):
                self.world.tell("disk full")
                raise LedgerError("disk full (simulated)")
            self.process.point("transaction.commits")
        self.process.point("transaction.committed")


@dataclass(slots=True)
class Episode:
    """What one episode came to."""

    seed: int
    api: str
    trace: str = ""
    runs: int = 0
    crashes: int = 0
    created: int = 0
    adopted: int = 0
    sent_again: int = 0
    held: int = 0
    virtual_s: float = 0.0
    violations: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)


def play(seed: int, api: str) -> Episode:
    """The episode of *seed*: the same every time, whatever happened before."""
    with unencrypted(), quiet(), patch.object(follow_up, "LOOK_S", 0.5):
        return _play(seed, api)


@contextmanager
def unencrypted() -> Iterator[None]:
    """Spare each run the reading of all certificates there are: nothing is encrypted here."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with patch.object(httpx, "create_ssl_context", lambda **_: context):
        yield


@contextmanager
def quiet() -> Iterator[None]:
    """No log lines while the block runs."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)


def _play(seed: int, api: str) -> Episode:
    folder = Path(tempfile.mkdtemp(prefix="episode-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))  # noqa: S108 - a private folder in memory
    try:
        return _Play(seed, api, folder / "ledger.db").run()
    finally:
        shutil.rmtree(folder)


class _Play:
    def __init__(self, seed: int, api: str, path: Path) -> None:
        self.rng = random.Random(f"{api} {seed}")
        self.world = World(api, seed, self.rng, Climate.draw(self.rng))
        self.path = path
        self.episode = Episode(seed, api)
        self.manifest = self._manifest()

    def _manifest(self) -> Manifest:
        rng, world = self.rng, self.world
        rules = tuple(Rule(label, f"looks like an {label} to everybody") for label in TYPES)
        ids = [f"file-{n:02d}" for n in range(rng.choice((1, 4, 9, 16)))]
        world.unknown_files = {file_id for file_id in ids if rng.random() < world.climate.poison / 2}
        world.sinking_files = {file_id for file_id in ids if rng.random() < world.climate.poison}
        return Manifest(
            path="night.yaml",
            name="night",
            api=world.api,
            config=Config(rules),
            project_id="project",
            organization_id=None,
            webhook_configurations=(),
            webhook_configuration_ids=(),
            chunk_size=rng.choice((1, 2, 4)),
            review=Review(),
            limits=Limits(),
            sha256="0" * 64,
            ids=tuple(ids),
        )

    def run(self) -> Episode:
        episode, world = self.episode, self.world
        while True:
            try:
                self._one_run()
            except Exception as error:  # noqa: BLE001 - whatever escapes the program is a finding
                world.violated(f"a bug came to light: {error!r}")
            episode.runs += 1
            if world.violations or not self._unfinished():
                break
            if episode.runs >= MOST_RUNS:
                world.violated(f"not at its end after {MOST_RUNS} runs")
                break
            world.calm = episode.runs >= HOSTILE_RUNS
            world.now += self.rng.choice((0.1, 5.0, 60.0, 5000.0, 86400.0))
        if not world.violations:
            with Ledger(self.path) as ledger, ledger.transaction() as connection:
                episode.held = judge(connection, world, self.manifest.ids)
        episode.violations, episode.events = world.violations, world.events
        episode.trace, episode.virtual_s = world.trace, world.now
        episode.created = sum(job.chunk_id is not None for job in world.jobs)
        return episode

    def _unfinished(self) -> bool:
        """Whether another run has something to do: chunks that are open and not held for a person, or never planned."""
        with closing(self._reader()) as reader:
            open_, isolate, planned = reader.execute(
                "SELECT (SELECT count(*) FROM jobs WHERE finished_at IS NULL AND held = 0), "
                "(SELECT count(*) FROM jobs WHERE isolate = 1), (SELECT count(DISTINCT file_id) FROM files)"
            ).fetchone()
        return bool(open_ or isolate) or planned < len(self.manifest.ids)

    def _reader(self) -> sqlite3.Connection:
        """A connection of the judge's own: it sees what is committed, and nothing else."""
        return sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, isolation_level=None)

    def _one_run(self) -> None:
        """One process from its start to its end or death."""
        world = self.world
        loop = VirtualLoop(world.now)
        loop.set_exception_handler(lambda _loop, _context: None)  # of a dead process nobody hears
        process = Process(world, loop, world.climate.crashes)
        ledger = MortalLedger(self.path)
        ledger.process, ledger.world = process, world
        reader = self._reader()
        world.tell("run begins")
        main = loop.create_task(self._program(ledger, process, loop, reader))
        try:
            loop.run_until_complete(main)
        except Crash:
            pass
        except RuntimeError:
            if not process.dead:
                raise
        except LedgerError as error:
            world.tell("run ends:", error)
        finally:
            self.episode.crashes += process.dead
            if not process.dead:
                world.now = loop.time()
            process.dead = True
            _bury(loop)
            reader.close()
            ledger.close()
            loop.close()

    async def _program(
        self, ledger: MortalLedger, process: Process, loop: VirtualLoop, reader: sqlite3.Connection
    ) -> None:
        """What one execution of `orchestrator run` does, without command line and signals."""
        world, episode = self.world, self.episode
        skew = self.rng.choice((0.0, 0.0, 0.0, 3600.0, -3600.0)) if not world.calm else 0.0
        clock = VirtualClock(loop, skew)
        run_id = f"run-{episode.runs}"
        with ledger.transaction() as connection:
            scope = self._plan(connection, run_id, clock.now().isoformat(timespec="milliseconds"))
            isolate = connection.exec_driver_sql("SELECT count(*) FROM jobs WHERE isolate = 1").scalar_one()
            unfinished = tally(connection, scope.manifest_id)
        if not unfinished and not isolate:
            return
        pipeline = Pipeline(
            self.manifest,
            SETTINGS,
            base_url="https://api.example",
            key="simulation",
            shard=Shard(scope.manifest_id, world.api),
            run_id=run_id,
            writer=Writer(ledger, clock),
            clock=clock,
            rng=random.Random(self.rng.random()),
            transport=Line(world, process, loop, reader),
        )
        pipeline.work.stop = _TimedStop(process, loop)
        if episode.runs == 0:
            self._add_strangers(pipeline)
        if world.chance(world.climate.stops):
            after_s = self.rng.choice((0.5, 3.0, 20.0)) * self.rng.random()
            loop.call_later(after_s, pipeline.work.stop.stop_everything, Interrupted("told to stop"))
        try:
            await pipeline.run(wait=not world.chance(0.05))
        finally:
            episode.adopted += pipeline.work.progress.adopted
            episode.sent_again += pipeline.work.progress.sent_again
            await pipeline.close()
        stop = pipeline.work.stop
        why = stop.everything or stop.creates
        world.now = loop.time()
        world.tell("run ends:", type(why).__name__, why)
        if why is not None and not isinstance(why, Exception):
            raise why
        if why is not None and not hasattr(why, "exit_code"):
            raise why  # a bug of the program's

    def _add_strangers(self, pipeline: Pipeline) -> None:
        call = dialect_of(self.manifest, self.world.api).create(Chunk(0, self.manifest.config, ("theirs",)))
        self.world.add_strangers({name: value for name, value in call.body.items() if name != "transaction_id"})

    def _plan(self, connection: Connection, run_id: str, at: str) -> planning.Scope:
        manifest = self.manifest
        planning.stage(connection, manifest.file_ids())
        scope = planning.register(
            connection,
            manifest.name,
            rehearsal=False,
            origin="https://api.example",
            project_id=manifest.project_id,
            config=manifest.config,
            review=manifest.review,
            max_generations=manifest.limits.max_generations,
            path=manifest.path,
            sha256=manifest.sha256,
        )
        planning.forget_unsent(connection, scope, api=manifest.api)
        runs.begin(connection, run_id, scope.manifest_id, command="run", api=manifest.api, at=at)
        planning.select_new(connection, scope)
        planning.cut(
            connection,
            scope,
            chunk_size=files_per_chunk(manifest),
            job_config_id=scope.config_id,
            api=manifest.api,
            run_id=run_id,
            at=at,
        )
        return scope


class _TimedStop(Stop):
    """Remembers when the run was told to end, and the calls that were out had DRAIN_S left."""

    def __init__(self, process: Process, loop: VirtualLoop) -> None:
        super().__init__()
        self._process = process
        self._loop = loop

    def stop_everything(self, why: BaseException) -> None:
        if self._process.stopped_at is None:
            self._process.stopped_at = self._loop.time()
        super().stop_everything(why)


def _bury(loop: VirtualLoop) -> None:
    """End what is left of a dead process's tasks; whatever their finalizers try, every way out raises Crash."""

    async def bury() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    loop.run_until_complete(bury())
