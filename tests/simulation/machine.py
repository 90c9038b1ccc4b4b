"""A person and a schedule at work on one ledger, step by step as Hypothesis chooses, judged after every step.

`scripts/soak machine` plays many such stories; one that goes wrong is told in its shortest form. Between the steps a
model knows what the manifest asks for, what the server was made to do (its own journal, ``World.jobs``) and what a
person has decided; from these alone follows what the ledger, its export and each exit code have to say.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sqlite3
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from unittest.mock import patch

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from sqlalchemy import Connection

from orchestrator import ledger as ledger_room
from orchestrator.api import loop as api_loop
from orchestrator.api.client import Api
from orchestrator.clock import timestamp
from orchestrator.commands import accept as verdicts
from orchestrator.commands import cancel
from orchestrator.commands import run as runner
from orchestrator.commands.access import connect
from orchestrator.commands.summary import Summary
from orchestrator.errors import ApiError, ExitCode, LedgerError
from orchestrator.ledger import Ledger
from orchestrator.ledger.chunks.accept import PERSON
from orchestrator.ledger.chunks.retry import QUARANTINED, Selection
from orchestrator.ledger.views import export, reading
from orchestrator.manifest import loading
from orchestrator.manifest.loading import Manifest
from orchestrator.models import BAD, GOOD, Json, Outcome
from orchestrator.planning import retry
from orchestrator.planning import run as planning
from orchestrator.planning.options import Options
from orchestrator.planning.run import Plan
from orchestrator.reports import status
from orchestrator.stages.pipeline import Pipeline
from simulation import process as processes
from simulation.line import Line
from simulation.loop import EPOCH, VirtualClock, VirtualLoop
from simulation.price import kept, told
from simulation.process import COMPILED, ORIGIN, Crash, MortalLedger, Process, TimedStop, bury, quiet, unencrypted
from simulation.purchases import Purchases
from simulation.world import BAD_WORDS, LOST, PROJECT, REFUSED, TYPES, Climate, SimJob, World

FILES = tuple(f"file-{n}" for n in range(6))
#: Two sets of rules; each makes outcomes of its own.
RULES = ("plain", "strict")

#: Longer than any simulated job takes, and any doubt about one lasts.
CALM_S = 1200.0

#: One deliberate submission: (file, row of its config in the ledger, generation).
Submission = tuple[str, int, int]

#: Sends no file again.
NOTHING = Selection(file_ids=())


class Brief:
    """Shows only what differs from the usual: a story has many steps."""

    def __repr__(self) -> str:
        told = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}  # type: ignore[arg-type]  # every heir is a dataclass
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in told.items())})"


@dataclass(frozen=True, repr=False)
class Weather(Brief):
    """What the API and the disk do to one run."""

    creates: tuple[str, ...] = ()  #: the faults that create calls meet
    often: float = 1.0  #: how often they do
    reads: float = 0.0
    slow_to_show: bool = False  #: unanswered creates take effect late, and listings lag behind
    bad_jobs: float = 0.0
    missing_rows: float = 0.0
    odd_rows: float = 0.0
    refused_again: float = 0.0
    full_disk: float = 0.0
    small_pages: bool = False
    later_s: float = 0.0  #: so long after what was before
    seed: int = 0

    @property
    def climate(self) -> Climate:
        lag = float(self.slow_to_show)
        return Climate(
            create_faults=self.often if self.creates else 0.0,
            kinds=self.creates,
            read_faults=self.reads,
            crashes=0.0,
            late=lag,
            lag=lag,
            bad_jobs=self.bad_jobs,
            missing_rows=self.missing_rows,
            odd_rows=self.odd_rows,
            odd_words=self.odd_rows,
            at_fault=0.0,
            stops=0.0,
            ledger_faults=self.full_disk,
            strangers=0,
            newest_first=True,
            page_size=2 if self.small_pages else 100,
            outage=(0.0, 0.0),
            refused_again=self.refused_again,
        )


CALM = Weather()

weathers = st.builds(
    Weather,
    creates=st.lists(st.sampled_from(LOST + REFUSED), max_size=3, unique=True).map(tuple),
    often=st.sampled_from((1.0, 0.5)),
    reads=st.sampled_from((0.0, 0.2)),
    slow_to_show=st.booleans(),
    bad_jobs=st.sampled_from((0.0, 0.5, 1.0)),
    missing_rows=st.sampled_from((0.0, 0.3)),
    odd_rows=st.sampled_from((0.0, 0.3)),
    refused_again=st.sampled_from((0.0, 0.5)),
    full_disk=st.sampled_from((0.0, 0.0, 0.05)),
    small_pages=st.booleans(),
    later_s=st.sampled_from((0.0, 5.0, 300.0, 86400.0)),
    seed=st.integers(0, 99),
)


@dataclass(frozen=True, repr=False)
class End(Brief):
    """How a run ends: when it is done, unless it is set otherwise."""

    wait: bool = True  #: False: ``--no-wait``
    deadline_s: int | None = None
    dies_at: int | None = None  #: the process dies at its so-manieth point: a call, an answer, a transaction's edges


ends = (
    st.just(End())
    | st.just(End(wait=False))
    | st.builds(End, deadline_s=st.sampled_from((1, 5, 20, 60)))
    | st.builds(End, dies_at=st.integers(1, 40))
)


class Doomed(Process):
    """Dies at its *dies_at*-th point, if it gets there."""

    def __init__(self, world: World, loop: VirtualLoop, dies_at: int | None) -> None:
        super().__init__(world, loop, 0.0)
        self._left = dies_at

    def _is_last(self) -> bool:
        if self._left is not None:
            self._left -= 1
        return self._left == 0


class Told(NamedTuple):
    """How one submission of a file ended."""

    outcome: str
    type: str | None
    confidence: float | None

    @property
    def good(self) -> bool:
        return self.outcome in GOOD


class Row(NamedTuple):
    """One submission of one file as the ledger has it."""

    file_id: str
    config_id: int
    generation: int
    chunk_id: int
    depth: int
    api: str
    status: str
    job_id: str | None
    run_id: str
    sends: int
    held: int
    isolate: int
    outcome: str | None
    type: str | None
    confidence: float | None

    @property
    def submission(self) -> Submission:
        return self.file_id, self.config_id, self.generation


ROWS = """
    SELECT f.file_id, f.config_id, f.generation, f.chunk_id, j.depth, j.api, j.status, j.job_id, j.run_id, j.sends,
           j.held, j.isolate, r.outcome, r.type, r.confidence
    FROM files f JOIN jobs j ON j.id = f.chunk_id LEFT JOIN results r ON r.file_row = f.id ORDER BY f.id
"""


@dataclass(slots=True)
class Wanted:
    """The manifest as it is written now."""

    files: list[str] = field(default_factory=lambda: list(FILES[:3]))
    rules: str = RULES[0]
    chunk_size: int = 4


class Planned(NamedTuple):
    """What the ledger had when a run planned, and what was to be sent again then, as (file, generation)."""

    before: list[Row]
    chosen: set[tuple[str, int]]


class Machine(RuleBasedStateMachine):
    """The steps, and the judge behind them. One subclass for each API version."""

    api: ClassVar[str]
    stale_s: ClassVar[float]
    #: What all stories of this process came to.
    counts: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="machine-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))  # noqa: S108 - a private folder in memory
        self.path = self.folder / "ledger.db"
        self.world = World(self.api, 0, random.Random(0), CALM.climate)
        self.wanted = Wanted()
        self.load()
        self.purchases = Purchases(self.world, self.manifest)
        with Ledger(self.path):
            pass
        #: The judge's own eyes: they see what is committed, and nothing else.
        self.ledger = Ledger(self.path, read_only=True)
        self.reader = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, isolation_level=None)
        self.rows: list[Row] = []
        self.configs: dict[str, int] = {}  #: rules, as they are sent -> the row of their config
        self.named: dict[int, str] = {}  #: row of a config -> the rules that it stands for
        #: Every outcome that the ledger has shown: none may change or go.
        self.seen: dict[Submission, Told] = {}
        #: What a person has decided, and how often each (file, config) was to be sent once more.
        self.verdicts: dict[Submission, Told] = {}
        self.granted: Counter[tuple[str, int]] = Counter()
        self.stack = ExitStack()
        self.plans: list[Planned] = []
        for context in (unencrypted(), quiet()):
            self.stack.enter_context(context)

    def teardown(self) -> None:
        self.stack.close()
        self.reader.close()
        self.ledger.close()
        shutil.rmtree(self.folder)
        Machine.counts["stories"] += 1
        Machine.counts["jobs"] += len(self.world.jobs)

    # -- what the manifest says ----------------------------------------------------------------------------------

    def load(self) -> None:
        """Write the manifest to its file and read it as the program would."""
        rules = [{"type": label, "description": f"a {self.wanted.rules} {label}"} for label in TYPES]
        text = {
            "version": 1,
            "name": "night",
            "api": self.api,
            "project_id": PROJECT,
            "rules": rules,
            "chunk_size": self.wanted.chunk_size,
            "file_ids": self.wanted.files,
        }
        path = self.folder / "night.yaml"
        path.write_text(json.dumps(text))
        self.asked = json.dumps(rules)
        self.manifest = loading.load(str(path), environ={})

    def write(self) -> None:
        self.load()
        self.purchases.manifest = self.manifest

    @rule(file_ids=st.lists(st.sampled_from(FILES), min_size=1, max_size=5))
    def lists(self, file_ids: list[str]) -> None:
        """Some were there before, some twice: neither is a reason to buy them once more."""
        self.wanted.files = file_ids
        self.write()

    @rule(rules=st.sampled_from(RULES), chunk_size=st.sampled_from((1, 2, 4)))
    def changes(self, rules: str, chunk_size: int) -> None:
        self.wanted.rules, self.wanted.chunk_size = rules, chunk_size
        self.write()

    # -- what the world does -------------------------------------------------------------------------------------

    @rule(file_id=st.sampled_from(FILES), how=st.sampled_from(("sinks its job", "is unknown", "is good")))
    def file_becomes(self, file_id: str, how: str) -> None:
        """From now on every job with it ends in error, every create call with it is refused, or neither."""
        for files, name in ((self.world.sinking_files, "sinks its job"), (self.world.unknown_files, "is unknown")):
            (files.add if how == name else files.discard)(file_id)

    # -- what people and schedules do ----------------------------------------------------------------------------

    @rule(end=ends)
    def run(self, end: End) -> None:
        self.execute(Options(), end, CALM)

    @rule(end=ends, weather=weathers)
    def run_in(self, end: End, weather: Weather) -> None:
        self.execute(Options(), end, weather)

    @rule(dies_at=st.integers(1, 40), weather=weathers)
    def run_dies(self, dies_at: int, weather: Weather) -> None:
        self.execute(Options(), End(dies_at=dies_at), weather)

    @rule(
        end=ends,
        weather=weathers,
        outcomes=st.sampled_from(((), (), ("failed",), ("missing", "cancelled"), ("classified",))),
        file_ids=st.lists(st.sampled_from(FILES), max_size=2, unique=True),
        below=st.sampled_from((None, None, 0.5)),
    )
    def retry(
        self, end: End, weather: Weather, outcomes: tuple[str, ...], file_ids: list[str], below: float | None
    ) -> None:
        named = [file_id for file_id in file_ids if file_id in self.wanted.files]
        again = retry.selection(
            outcomes=outcomes, types=None, below_confidence=below, file_ids=named or None, run_id=None, error=None
        )
        self.execute(Options(command="retry", new=False, again=again), end, weather)

    @precondition(lambda self: any(row.held for row in self.rows))
    @rule()
    def retry_held(self) -> None:
        """A person has made sure that the API has no such job; where it has, nobody would say so."""
        made = {job.chunk_id for job in self.world.jobs}
        if not any(row.held and row.chunk_id in made for row in self.rows):
            self.execute(Options(command="retry", new=False, again=NOTHING, held=True), End(), CALM)

    @precondition(lambda self: self.rows)
    @rule(file_id=st.sampled_from(FILES), label=st.sampled_from((*TYPES, None)))
    def accept(self, file_id: str, label: str | None) -> None:
        """A person's verdict on any file of the manifest, in whatever state it is."""
        scope = self.scope()
        if not scope or file_id not in self.wanted.files:
            return
        generations = [
            row.generation
            for row in self.rows
            if (row.file_id, row.config_id) == (file_id, scope) and (row.status != "pending" or row.sends)
        ]
        with closing(VirtualLoop(self.world.now)) as loop:
            verdicts.accept(
                self.manifest,
                self.path,
                [file_id],
                label=label,
                unmatched=not label,
                rehearsal=False,
                clock=VirtualClock(loop, 0.0),
            )
        outcome = Outcome.UNMATCHED if label is None else Outcome.CLASSIFIED
        self.verdicts[file_id, scope, max(generations, default=-1) + 1] = Told(outcome, label, 1.0)
        Machine.counts["verdicts"] += 1
        self.judge()

    @rule()
    def settles(self) -> None:
        """In calm weather a few runs bring everything to its end, but for what only a person can decide."""
        for _ in range(3):
            self.world.now += CALM_S
            summary = self.execute(Options(), End(), CALM)
            if summary is not None and summary.exit_code <= ExitCode.SOME_FAILED:
                break
        rows = self.rows
        stuck = [row for row in rows if row.outcome is None and not row.held]
        assert not stuck and not self.waiting(), f"still open after three calm runs: {stuck} {self.waiting()}"
        if any(row.held for row in rows):
            self.person_settles({row.chunk_id for row in rows if row.held})
            rows = self.rows
        if not any(row.held for row in rows):
            sent = self.world.jobs[:]
            again = self.execute(Options(), End(), CALM)
            assert again is not None
            assert (again.requests, again.jobs_created, sent) == (0, 0, self.world.jobs), "a run had nothing to do"

    def person_settles(self, chunk_ids: set[int]) -> None:
        """No dead ends: what is held comes to an outcome once a person says to send it, whatever its calls came to."""
        self.purchases.write_off(chunk_ids)
        for options in (Options(command="retry", new=False, again=NOTHING, held=True), Options(), Options()):
            self.world.now += CALM_S
            self.execute(options, End(), CALM)
        left = [row for row in self.rows if row.outcome is None and row.chunk_id in chunk_ids]
        assert not left, f"no command leads to an outcome: {left}"
        Machine.counts["settled by a person"] += len(chunk_ids)

    # -- one process ---------------------------------------------------------------------------------------------

    def execute(self, options: Options, end: End, weather: Weather) -> Summary | None:
        """One `orchestrator run` or `retry` as its own process; its summary, if it lived to tell."""
        world = self.world
        world.rng, world.climate, world.calm = random.Random(weather.seed), weather.climate, weather == CALM
        world.now += weather.later_s
        open_before = self.work_left()
        runs, before, cancelled = self.runs(), self.rows, len(world.cancelled)
        options = replace(options, wait=end.wait, deadline=f"{end.deadline_s}s" if end.deadline_s else None)
        loop = VirtualLoop(world.now)
        loop.set_exception_handler(lambda _loop, _context: None)  # of a dead process nobody hears
        process = Doomed(world, loop, end.dies_at)
        summary: Summary | None = None
        now = EPOCH + timedelta(seconds=world.now)
        since = timestamp(now - timedelta(seconds=self.stale_s))
        most = told(self.manifest, self.path, options, now=now, stale_since=since)
        with self.replaced(process, loop, weather.seed), kept(world, most):
            try:
                clock = VirtualClock(loop, 0.0)
                settings = processes.SETTINGS.model_copy(update={"stale_s": self.stale_s, "base_url": ORIGIN})
                summary = runner.run(self.manifest, settings, options, clock=clock)
            except Crash:
                Machine.counts["crashes"] += 1
            except LedgerError:
                assert weather.full_disk, "the disk was not full"
            except ApiError:
                assert weather != CALM and options.again, "it is for want of a cancelled job that nothing is begun"
            finally:
                if not process.dead:
                    world.now = loop.time()
                loop.close()
        Machine.counts[options.command] += 1
        planned = self.plans[-1] if self.runs() > runs else None
        if planned:
            self.granted.update((file_id, self.scope()) for file_id, _ in planned.chosen)
        self.judge()
        self.judge_cancelled(world.cancelled[cancelled:], options, before)
        if planned:
            self.judge_plan(options, planned)
        if summary is not None:
            Machine.counts["adopted"] += summary.adopted
            Machine.counts["sent again"] += summary.sent_again
            self.judge_exit(summary, weather, options)
            lacking = [row for row in before if row.status == "succeeded" and row.outcome in BAD and row.api != PERSON]
            if options.command == "run" and not open_before and not lacking:  # late results are asked for
                assert summary.requests == 0, "a run with nothing to do sent something"
        return summary

    @contextmanager
    def replaced(self, process: Process, loop: VirtualLoop, seed: int) -> Iterator[None]:
        """The world in place of the machine's disk, time and network."""

        def open_ledger(*arguments: Any, **options: Any) -> MortalLedger:
            ledger = MortalLedger(*arguments, **options)
            ledger.process, ledger.world = process, self.world
            return ledger

        line = Line(self.world, self.purchases, process, loop, self.reader)
        rng = random.Random(seed)

        def pipeline(*arguments: Any, **options: Any) -> Pipeline:
            made = Pipeline(*arguments, **{**options, "rng": rng})
            made.work.stop = TimedStop(process, loop)
            return made

        def connected(*arguments: Any, **options: Any) -> Api:
            return connect(*arguments, **{**options, "rng": rng, "transport": line})

        def run(main: Coroutine[Any, Any, Any]) -> Any:
            try:
                return loop.run_until_complete(loop.create_task(main))
            except RuntimeError:
                if not process.dead:
                    raise
                raise Crash from None
            finally:
                bury(loop)

        with (
            patch.object(ledger_room, "open", open_ledger),
            patch.object(runner, "Pipeline", pipeline),
            patch.object(runner, "connect", connected),
            patch.object(cancel, "connect", connected),
            patch.object(planning, "plan", partial(self.planning, planning.plan)),
            patch.object(api_loop, "run", run),
        ):
            yield

    def planning(
        self, plan: Callable[..., Plan], connection: Connection, manifest: Manifest, options: Options, **rest: Any
    ) -> Plan:
        """Remember what the ledger said just before the plan, and who asked for what is bought from then on."""
        fresh = {row.submission for row in self.rows if row.outcome is None}
        chosen = set[tuple[str, int]]()
        self.look()
        if options.again:
            ended_well = {row.file_id for row in self.rows if row.submission in fresh and row.outcome in GOOD}
            chosen = {one for one in self.chosen(options.again) if one[0] not in ended_well}
        self.plans.append(Planned(self.rows, chosen))
        self.purchases.rules_of_run[rest["run_id"]] = self.asked
        self.purchases.retry_named([file_id for file_id, _ in chosen], self.asked)
        return plan(connection, manifest, options, **rest)

    # -- the judge -----------------------------------------------------------------------------------------------

    def look(self) -> list[Row]:
        """The ledger's rows as they are now; ``self.rows`` keeps them until the next step."""
        self.rows = [Row(*row) for row in self.reader.execute(ROWS)]
        for config_id, canonical in self.reader.execute("SELECT id, canonical FROM configs"):
            rules = [dict(zip(("type", "description"), rule, strict=True)) for rule in json.loads(canonical)["rules"]]
            self.configs[json.dumps(rules)] = config_id
        return self.rows

    def runs(self) -> int:
        """How many runs got as far as having a plan."""
        return int(self.reader.execute("SELECT count(*) FROM runs").fetchone()[0])

    def chosen(self, again: Selection) -> set[tuple[str, int]]:
        """What `retry` has to submit, as (file, generation): files with such an outcome, be it under other rules.

        Not those that are under way, of failed jobs about to be halved, or unnamed and quarantined or decided.
        """
        scope, named, found = self.scope(), again.file_ids is not None, set[tuple[str, int]]()
        statement = (
            "SELECT f.file_id FROM events e JOIN files f USING (chunk_id) "
            "WHERE f.config_id = ? AND event = ? AND note = f.file_id"
        )
        quarantined = {file_id for (file_id,) in self.reader.execute(statement, (scope, QUARANTINED))}
        standing = dict(self.standing().values())
        for file_id in set(self.wanted.files if again.file_ids is None else again.file_ids):
            rows = [row for row in self.rows if row.file_id == file_id and not self.forgotten(row, scope)]
            ended = sorted((row for row in rows if row.submission in standing), key=lambda row: row.config_id == scope)
            if not ended or any(row.outcome is None for row in rows):
                continue
            told = standing[ended[-1].submission]
            kept_back = ended[-1].api == PERSON or (file_id in quarantined and not told.good)
            halved = ended[-1].isolate and ended[-1].outcome == "failed" and ended[-1].config_id == scope
            sure = again.below_confidence is not None and (told.confidence or 9.0) >= again.below_confidence
            if told.outcome in again.outcomes and not halved and not sure and (named or not kept_back):
                generations = [row.generation for row in rows if row.config_id == scope]
                found.add((file_id, 1 + max(generations, default=-1)))
        return found

    def forgotten(self, row: Row, scope: int) -> bool:
        """Whether the next plan drops it: it was never sent, and nobody asked for it in particular."""
        return row.status == "pending" and not row.sends and (not row.generation or row.config_id != scope)

    def work_left(self) -> bool:
        """Whether a run of the manifest as it is now has something to do."""
        scope, rows = self.scope(), self.rows
        known = {row.file_id for row in rows if row.config_id == scope}
        return bool(set(self.wanted.files) - known or self.waiting()) or any(row.outcome is None for row in rows)

    def waiting(self) -> list[Row]:
        """Files of failed jobs that are still to be sent again in halves."""
        scope = self.scope()
        latest = {(row.file_id, row.config_id): row for row in sorted(self.rows, key=lambda row: row.generation)}
        return [row for row in latest.values() if row.isolate and row.outcome == "failed" and row.config_id == scope]

    def scope(self) -> int:
        """The row of the config of now; 0 before any run had it."""
        statement = "SELECT max(id) FROM configs WHERE fingerprint = ?"
        return self.reader.execute(statement, (self.manifest.config.fingerprint,)).fetchone()[0] or 0

    def bought(self, job: SimJob) -> set[Submission]:
        config_id = self.configs[job.rules]
        return {(file_id, config_id, generation) for file_id, generation in job.generations.items()}

    def alike(self, job: SimJob, row: Row) -> bool:
        """Whether *job* and the row's own both failed and have no results: nobody can tell which is whose."""
        own = [other for other in self.world.jobs if row.submission in self.bought(other)]
        return bool(own) and all(not one.rows and one.word in BAD_WORDS[self.api] for one in (job, *own))

    def told(self, row: Row) -> Told:
        """What the journal, or a person, says of a submission that the ledger has an outcome of."""
        if row.api == PERSON:
            return self.verdicts[row.submission]
        if row.job_id is None:
            refused = {(file_id, self.configs[rules], n) for file_id, rules, n in self.purchases.refused}
            assert row.submission in refused, f"no job or refusal speaks of {row}"
            return Told(Outcome.FAILED, None, None)
        job = next((job for job in self.world.jobs if job.id == row.job_id), None)
        assert job is not None, f"{row} has the job of nobody"
        bought = self.bought(job)
        assert row.submission in bought or self.alike(job, row), f"{row} has the job of {bought}"
        outcome, label = job.expected(row.file_id, self.api)
        if outcome not in GOOD:
            return Told(outcome, None, None)
        named = [result for file_id, result in job.rows if file_id == row.file_id]
        nameless = [result for file_id, result in job.rows if file_id is None]
        return Told(outcome, label, (named or nameless)[0]["confidence"])

    def standing(self) -> dict[tuple[str, int], tuple[Submission, Told]]:
        """What counts for each file under each config: the latest good outcome, else the latest."""
        found: dict[tuple[str, int], tuple[Submission, Told]] = {}
        for row in sorted((row for row in self.rows if row.outcome), key=lambda row: row.generation):
            told, before = self.told(row), found.get((row.file_id, row.config_id))
            if before is None or told.good or not before[1].good:
                found[row.file_id, row.config_id] = row.submission, told
        return found

    def judge(self) -> None:
        """All that has to hold whenever no program runs."""
        assert not self.world.violations, self.world.violations
        rows = self.look()
        for row in rows:
            if row.outcome is not None:
                expected = self.told(row)
                assert expected == (row.outcome, row.type, row.confidence), f"{row}: the API said {expected}"
                assert self.seen.setdefault(row.submission, expected) == expected
        kept = {row.submission for row in rows if row.outcome is not None}
        assert kept.issuperset(self.seen), f"outcomes are gone: {self.seen.keys() - kept}"
        self.judge_journal(rows)
        self.judge_generations(rows)
        self.judge_export()
        assert self.reader.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert self.reader.execute("PRAGMA foreign_key_check").fetchall() == []

    def judge_journal(self, rows: list[Row]) -> None:
        """Every job that was made is known, or its chunk is open; the line has told of any made twice."""
        by_submission = {row.submission: row for row in rows}
        recorded = {row.job_id for row in rows if row.job_id is not None}
        for job in self.world.jobs:
            for submission in self.bought(job):
                row = by_submission.get(submission)
                assert row is not None, f"{job.id} was paid for and {submission} is forgotten"
                known = row.job_id == job.id or row.status == "submitting" or job.written_off
                assert known or (row.job_id in recorded and job.id in recorded), f"{job.id} is lost: {row}"

    def judge_generations(self, rows: list[Row]) -> None:
        """A later generation has a reason: a retry, a failed job in halves, or a person's verdict."""
        sent = Counter((row.file_id, row.config_id) for row in rows if row.generation and not row.depth)
        for row in rows:
            if row.api == PERSON:
                sent[row.file_id, row.config_id] -= 1
        assert all(count <= self.granted[key] for key, count in sent.items()), f"sent again unasked: {sent}"
        by_submission = {row.submission: row for row in rows}
        halved = set[int]()
        for row in rows:
            if row.depth:
                parent = by_submission[row.file_id, row.config_id, row.generation - 1]
                assert parent.outcome == "failed", f"halved without need: {row} of {parent}"
                halved.add(parent.chunk_id)
        left = [
            row
            for row in rows
            if row.chunk_id in halved
            and row.outcome == "failed"
            and (row.file_id, row.config_id, row.generation + 1) not in by_submission
        ]
        assert not left, f"halved, and these are in neither half: {left}"

    def judge_export(self) -> None:
        """Export and status show what counts, and nothing else."""
        with self.ledger.transaction() as connection:
            connection.execution_options(compiled_cache=COMPILED)
            rows = reading.manifests(connection)
            exported = [
                dict(zip(export.COLUMNS, row, strict=True))
                for row in export.export_rows(connection, [row.id for row in rows])
            ]
            states = [status.status(connection, row) for row in rows]
        now = rows[0].config_id if rows else 0
        best: dict[str, tuple[Submission, Told]] = {}
        standing = self.standing()
        for (file_id, config_id), found in standing.items():
            rank = (config_id == now, config_id)
            if file_id not in best or rank > (best[file_id][0][1] == now, best[file_id][0][1]):
                best[file_id] = found
        shown = {
            row["file_id"]: (row["generation"], Told(row["outcome"], row["type"], row["confidence"]))
            for row in exported
        }
        assert shown == {file_id: (submission[2], told) for file_id, (submission, told) in best.items()}
        assert len(shown) == len(exported)
        for state in states:
            self.judge_status(state.as_json(), now, standing)

    def unfinished(self) -> list[Row]:
        """The submissions that have yet to get an outcome. What a person decided waits for no earlier job."""
        rows = self.rows
        decided = {(row.file_id, row.config_id): row.generation for row in rows if row.api == PERSON}
        return [
            row
            for row in rows
            if row.outcome is None and row.generation > decided.get((row.file_id, row.config_id), -1)
        ]

    def judge_status(
        self, state: dict[str, Json], now: int, standing: dict[tuple[str, int], tuple[Submission, Told]]
    ) -> None:
        """A file that is being sent again is unfinished; one that a person decided is not, whatever comes later."""
        open_ = [row.file_id for row in self.unfinished() if row.config_id == now]
        counts = Counter(
            told.outcome
            for (file_id, config_id), (_, told) in standing.items()
            if config_id == now and file_id not in open_
        )
        assert {outcome: state[outcome] for outcome in Outcome} == {outcome: counts[outcome] for outcome in Outcome}
        assert state["unfinished"] == len(open_)

    def judge_plan(self, options: Options, planned: Planned) -> None:
        """What was planned is what had to be: no less, no more."""
        scope, rows = self.scope(), self.rows
        named = self.named.setdefault(scope, self.wanted.rules)
        assert named == self.wanted.rules, f"outcomes of the {named} rules would count for the {self.wanted.rules} ones"
        new = {row.submission for row in rows if not row.depth} - {
            row.submission for row in planned.before if not self.forgotten(row, scope)
        }
        if options.new:
            listed = {row.file_id for row in rows if row.config_id == scope}
            assert listed.issuperset(self.wanted.files), "a file that is wanted was not planned"
        again = {(file_id, generation) for file_id, _, generation in new if generation or not options.new}
        assert again == planned.chosen, f"{again} instead of {planned.chosen}"

    def judge_cancelled(self, jobs: list[SimJob], options: Options, before: list[Row]) -> None:
        """Only a retry stops a job, and only one that it had in flight and whose file it is to send."""
        Machine.counts["cancelled"] += len(jobs)
        in_flight = {row.job_id: row.file_id for row in before if row.status in ("submitted", "running")}
        for job in jobs:
            assert options.again and options.again.of_cancelled, f"{job.id} was stopped and nobody asked for it"
            named = options.again.file_ids
            assert job.id in in_flight and (named is None or in_flight[job.id] in named), f"{job.id} was stopped"

    def judge_exit(self, summary: Summary, weather: Weather, options: Options) -> None:
        """The exit code is what the journal and the ledger add up to."""
        code, scope, standing, open_ = summary.exit_code, self.scope(), self.standing(), self.unfinished()
        outcomes = [standing.get((file_id, scope)) for file_id in set(self.wanted.files)]
        bad = any(found is not None and not found[1].good for found in outcomes)
        if code <= ExitCode.SOME_FAILED:
            assert not open_, f"exit {code} with work left: {open_}"
            if not options.new:
                return  # what a retry counts may be outcomes under other rules
            assert all(outcomes), f"exit {code} although files were never sent"
            assert code == (ExitCode.SOME_FAILED if bad else ExitCode.OK)
        elif code == ExitCode.UNFINISHED:
            assert open_ or not all(outcomes), "exit 3 with nothing left"
        else:
            assert weather != CALM, f"exit {code} in calm weather: {summary.reason}"


class V1(Machine):
    """A run waits for every job: there is no cancel."""

    api = "v1"
    stale_s = 600.0


class V2(Machine):
    """Some jobs take longer than a run waits, and a retry cancels them."""

    api = "v2"
    stale_s = 30.0


MACHINES: dict[str, type[Machine]] = {"v1": V1, "v2": V2}


def tell(api: str, stories: int, *, steps: int, seed: int | None = None, shrink: bool = True) -> Counter[str]:
    """Play *stories* of *steps* each, and say what they came to; without a *seed* the same ones every time.

    Raises AssertionError, or whatever escaped the program, with the story that led there in a note: the shortest one
    that *shrink* found.
    """
    Machine.counts.clear()
    played = MACHINES[api] if seed is None else hypothesis.seed(seed)(MACHINES[api])
    how = settings(
        max_examples=stories,
        stateful_step_count=steps,
        derandomize=seed is None,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(played, settings=how)
    return Counter(Machine.counts)


#: Stories that one process is handed at a time.
BATCH = 50


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/soak machine", description=__doc__)
    parser.add_argument("--examples", type=int, default=1000, metavar="N", help="stories of each API (default: 1000)")
    parser.add_argument("--steps", type=int, default=20, metavar="N", help="steps of each story (default: 20)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help=f"of the first {BATCH} stories (default: 0)")
    parser.add_argument("--api", choices=tuple(MACHINES), action="append", help="only this one (default: both)")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes (default: 2)")
    options = parser.parse_args()
    wrong = 0
    with ProcessPoolExecutor(options.jobs) as pool:
        for api in options.api or MACHINES:
            seeds = range(options.seed, options.seed + max(options.examples // BATCH, 1))
            sums, failed = Counter[str](), 0
            for counts, failure in pool.map(partial(_batch, api, options.steps), seeds):
                sums += counts
                failed += failure is not None
                if failure:
                    print(failure, flush=True)
            print(
                f"{api}: {sums['stories']} stories, {sums['run']} runs, {sums['retry']} retries, {sums['crashes']} "
                f"crashes, {sums['verdicts']} verdicts, {sums['jobs']} jobs, "
                f"{sums['cancelled']} cancelled, {sums['adopted']} adopted, {sums['sent again']} sent again: "
                f"{failed} went wrong, seeds {seeds[0]}-{seeds[-1]}",
                flush=True,
            )
            wrong += failed
    return min(wrong, 1)


def _batch(api: str, steps: int, seed: int) -> tuple[Counter[str], str | None]:
    """What BATCH stories came to, and how the first that went wrong did."""
    try:
        return tell(api, BATCH, steps=steps, seed=seed), None
    except Exception as error:  # noqa: BLE001 - whatever escapes is the finding
        replay = f"replay it: scripts/soak machine --api {api} --examples {BATCH} --steps {steps} --seed {seed}"
        return Counter(Machine.counts), "".join([*traceback.format_exception(error), replay])


if __name__ == "__main__":
    sys.exit(main())
