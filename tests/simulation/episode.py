"""One episode: run the real program again and again on one real ledger, through faults and crashes, to its end."""

from __future__ import annotations

import random
import shutil
import tempfile
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

from support.postgres import Postgres

from orchestrator.commands.access import dialect_of
from orchestrator.ledger import Ledger
from orchestrator.ledger.chunks.retry import Selection
from orchestrator.manifest.loading import Manifest
from orchestrator.models import Chunk, Config, Escalate, Limits, Outcome, Review, Rule
from orchestrator.planning.options import Options
from orchestrator.stages.polling import pages
from simulation.custom import UUID, in_flight, plain, until
from simulation.home import File, OnServer
from simulation.loop import EPOCH
from simulation.oracle import Judge
from simulation.price import kept, told
from simulation.process import Program, quick, quiet, unencrypted
from simulation.purchases import Purchases
from simulation.world import PROJECT, TYPES, Climate, World, rules_of

#: After at most so many runs the weather clears; then the work must be at its end after so many.
HOSTILE_RUNS, MOST_CALM_RUNS = 7, 25

RUN = Options()
RUN_CHANGED = Options(reclassify=True)
RETRY = Options(command="retry", new=False, again=Selection())
RETRY_HELD = replace(RETRY, held=True)
RETRY_UNSURE = replace(RETRY, again=Selection(outcomes=tuple(Outcome), below_confidence=0.3))


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
    retries: int = 0  #: jobs made because a retry asked for them
    halves: int = 0  #: jobs made of halves of failed ones
    second_opinions: int = 0
    changed_rules: int = 0
    asked_a_person: int = 0  #: chunks that nothing but a person's decision could settle
    held: int = 0  #: at the very end
    taken_over: int = 0  #: runs whose manifest another one took
    cuts: int = 0  #: connections to the ledger that were cut around a commit
    virtual_s: float = 0.0
    violations: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)  #: all that happened, if it went wrong


def play(seed: int, api: str, postgres: Postgres | None = None) -> Episode:
    """The episode of *seed*: the same every time. Its ledger is in a file, or in a database on *postgres*."""
    folder = Path(tempfile.mkdtemp(prefix="episode-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))  # noqa: S108 - a private folder in memory
    try:
        # In every third episode pages of the listing stand in for calls by name, as with many jobs they would.
        eager = patch.multiple(pages, PAGES_FROM=2, WORTH_CALLS=1) if seed % 3 == 0 else nullcontext()
        with unencrypted(), quick(), quiet(), eager:
            if postgres is None:
                return _Play(seed, api, File(folder / "ledger.db")).play()
            url = postgres.new_database()
            try:
                return _Play(seed, api, OnServer(url)).play()
            finally:
                postgres.sql(f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")
    finally:
        shutil.rmtree(folder)


class _Wrong(Exception):
    """The world has seen what must never happen: the episode is over."""


class _Play:
    def __init__(self, seed: int, api: str, home: File | OnServer) -> None:
        self.rng = random.Random(f"{api} {seed}")
        self.world = World(api, seed, self.rng, Climate.draw(self.rng))
        self.dice = random.Random(f"custom dice {api} {seed}")  #: for what a custom brings
        self.home = home
        self.episode = Episode(seed, api)
        self.manifest = self._manifest()
        self.purchases = Purchases(self.world, self.manifest)
        self._last = RUN
        self._refused = False
        self._add_strangers()

    def _manifest(self) -> Manifest:
        rng, world = self.rng, self.world
        name = UUID if world.custom.spelling else "file-"
        ids = [f"{name}{n:02d}" for n in range(rng.choice((1, 4, 9, 16)))]
        world.unknown_files = {file_id for file_id in ids if rng.random() < world.climate.at_fault / 2}
        world.sinking_files = {file_id for file_id in ids if rng.random() < world.climate.at_fault}
        return Manifest(
            path="night.yaml",
            name="night",
            api=world.api,
            config=_config(0),
            project_id=PROJECT,
            organization_id=None,
            webhook_configurations=(),
            webhook_configuration_ids=(),
            chunk_size=rng.choice((1, 2, 4)),
            review=Review(),
            limits=Limits(max_generations=rng.choice((None, None, 2, 4)), max_reclassify=world.custom.most_changed),
            sha256="0" * 64,
            escalate=Escalate(0.5) if world.api == "v1" and rng.random() < 0.4 else None,
            ids=world.custom.listed(ids, self.dice),
        )

    @property
    def rules(self) -> str:
        return rules_of(self._body(self.manifest.ids[0]))

    def _body(self, file_id: str) -> dict[str, object]:
        call = dialect_of(self.manifest, self.world.api).create(Chunk(0, self.manifest.config, (file_id,)))
        return {name: value for name, value in call.body.items() if name != "transaction_id"}

    def _add_strangers(self) -> None:
        self.world.add_strangers(self._body("theirs"))

    def play(self) -> Episode:
        episode, world, purchases = self.episode, self.world, self.purchases
        try:
            self._hostile_nights()
            world.calm = True
            self._raise_limit()
            self._converge(RUN)
            made = -1
            while self._count("held = 1 AND finished_at IS NULL") and len(world.jobs) > made:
                # What the run before made may be what a listing is checked by, once it has ended.
                made = len(world.jobs)
                self._converge(RUN)
            self._judge(after="the next quiet run")
            self._decide_what_is_held()
            self._retry_until_all_is_well()
            self._judge(after="everything")
        except _Wrong:
            pass
        episode.violations = world.violations
        episode.events = world.events if world.violations else []
        episode.trace, episode.virtual_s = world.trace, world.now
        episode.taken_over, episode.cuts = self.home.taken_over, self.home.cuts
        episode.created = sum(job.chunk_id is not None for job in world.jobs)
        episode.retries, episode.halves = purchases.retries, purchases.halves
        episode.second_opinions = purchases.second_opinions
        return episode

    # -- nights ----------------------------------------------------------------------------------------------------

    def _hostile_nights(self) -> None:
        """Runs, retries, changed rules, in whatever order, until the weather clears or nothing is left to do."""
        for _ in range(HOSTILE_RUNS):
            self._run(self._whim())
            if not self._unfinished() and self.rng.random() < 0.5:
                return

    def _whim(self) -> Options:
        """What the people of this night do."""
        whim = self.rng.random()
        if not self.episode.runs or whim < 0.5:
            return RUN
        if whim < 0.55 or (self.world.custom.most_changed is not None and self.dice.random() < 0.3):
            self.manifest = replace(self.manifest, config=_config(self.rng.randrange(2)))
            self.episode.changed_rules += 1
            return RUN
        if self._refused and self.dice.random() < 0.5:
            return RUN_CHANGED
        if whim < 0.7:
            return self._last  # once more: it may have died
        return RETRY if whim < 0.88 else RETRY_UNSURE if whim < 0.95 else RETRY_HELD

    def _run(self, options: Options) -> None:
        """One process, and the time until the next. Raises _Wrong."""
        world, purchases, run_id = self.world, self.purchases, f"run-{self.episode.runs}"
        purchases.manifest = self.manifest
        purchases.rules_of_run[run_id] = self.rules
        if options.again is not None:
            purchases.retry(sorted(self._ids()), self.rules, options.again.below_confidence)
        Ledger(self.home.location).close()  # a reader can't open what is not there
        with closing(self.home.reader()) as reader:
            program = Program(world, purchases, self.home, reader, self.rng)
            now = EPOCH + timedelta(seconds=world.now)
            try:
                with kept(world, told(self.manifest, self.home.location, options, now=now)):
                    program.run(self.manifest, options, run_id)
            except Exception as error:  # noqa: BLE001 - whatever escapes the program is a finding
                world.violated(f"a bug came to light: {error!r}")
        self._last, self._refused = options, program.refused
        self.episode.runs += 1
        self.episode.crashes += program.died
        self.episode.adopted += program.adopted
        self.episode.sent_again += program.sent_again
        self._stop_if_wrong()
        self._tomorrow()
        world.now += self.rng.choice((0.1, 5.0, 60.0, 5000.0, 86400.0))

    def _tomorrow(self) -> None:
        """What the API has forgotten by the next run, and how the list is then spelt."""
        world, custom = self.world, self.world.custom
        if custom.spelling:
            self.manifest = replace(self.manifest, ids=custom.listed(sorted(self._ids()), self.dice))
        if world.calm or not self.episode.runs:
            return
        with closing(self.home.reader()) as reader:
            open_, ended = in_flight(reader)
        shown = [job_id for job_id in ended if job_id not in world.denied]  # by which the key is known to be right
        for job_id in open_:
            when = until(self.dice, custom, world.now) if shown and job_id not in world.denied else None
            if when is not None:
                world.deny(job_id, when)

    def _raise_limit(self) -> None:
        """A person lets the rules that are asked for now be asked for."""
        self.manifest = replace(self.manifest, limits=replace(self.manifest.limits, max_reclassify=None))

    def _ids(self) -> set[str]:
        return {*map(plain, self.manifest.ids)}

    def _stop_if_wrong(self) -> None:
        if self.world.violations:
            raise _Wrong

    # -- the end ---------------------------------------------------------------------------------------------------

    def _converge(self, options: Options) -> None:
        """Run to the end of what can be done without a person. Raises _Wrong."""
        self._run(options)
        for _ in range(MOST_CALM_RUNS):
            if not self._unfinished():
                return
            self._run(RUN)
        self.world.violated(f"not at its end after {MOST_CALM_RUNS} quiet runs")
        raise _Wrong

    def _unfinished(self) -> bool:
        """Whether another run has something to do: chunks that are open and not held for a person, or never planned."""
        with closing(self.home.reader()) as reader:
            open_, planned = reader.execute(
                "SELECT (SELECT count(*) FROM jobs WHERE finished_at IS NULL AND held = 0), (SELECT count(DISTINCT "
                "f.file_id) FROM files f JOIN manifests m ON m.config_id = f.config_id)"
            ).fetchone()
        return bool(open_) or planned < len(self._ids())

    def _judge(self, *, after: str) -> None:
        with Ledger(self.home.location) as ledger, ledger.transaction() as connection:
            Judge(connection, self.world, self.purchases).judge(after=after)
        self._stop_if_wrong()

    def _decide_what_is_held(self) -> None:
        """A person has what is held sent again: then nothing is held any more."""
        held = self._count("held = 1 AND finished_at IS NULL")
        self.episode.asked_a_person += held
        if held:
            self._converge(RETRY_HELD)
            self.episode.held = self._count("held = 1 AND finished_at IS NULL")
            if self.episode.held:
                self.world.violated(f"{self.episode.held} chunks are held although a person decided, and all is quiet")
                raise _Wrong

    def _count(self, condition: str) -> int:
        with closing(self.home.reader()) as reader:
            return int(reader.execute(f"SELECT count(*) FROM jobs WHERE {condition}").fetchone()[0])  # noqa: S608 - constants of ours

    def _retry_until_all_is_well(self) -> None:
        """Retries, at last in jobs of one file and as often as need be: every file that can be classified is."""
        for changes in ({}, {"limits": Limits()}, {"chunk_size": 1}):
            self.manifest = replace(self.manifest, **changes)
            if not (bad := self._bad()):
                return
            named = (
                Selection(file_ids=tuple(sorted(bad))) if changes else Selection()
            )  # what is quarantined is to be named
            self._converge(replace(RETRY, again=named))
        if bad := self._bad():
            self.world.violated(f"{sorted(bad)} are still without a good answer, after all the retries in the world")
            raise _Wrong

    def _bad(self) -> set[str]:
        """The files that could have a good answer and have none."""
        with closing(self.home.reader()) as reader:
            good = reader.execute(
                "SELECT f.file_id FROM manifests m JOIN files f ON f.config_id = m.config_id AND f.standing = 1 "
                "JOIN results r ON r.file_row = f.id WHERE r.outcome IN ('classified', 'unmatched')"
            ).fetchall()
        return self._ids() - {file_id for (file_id,) in good} - self.world.sinking_files - self.world.unknown_files


def _config(version: int) -> Config:
    """The rules, and how they read after somebody changed them."""
    return Config(
        tuple(Rule(label, f"looks like an {label} to {('everybody', 'an expert')[version]}") for label in TYPES)
    )
