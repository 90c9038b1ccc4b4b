"""The simulated API of both versions: what it has committed, what it shows of that and when, and how each job ends."""

from __future__ import annotations

import hashlib
import json
import math
import random
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property

from orchestrator.models import Json
from simulation.custom import Custom
from simulation.loop import EPOCH

#: A commit may come so long after its call is over, and a listing may lag so far behind a commit: each under settle_s.
MOST_LATE_S, MOST_LAG_S = 9.5, 9.5
#: As a manifest has to write it.
PROJECT = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
SETTLE_S = 10.0
TIMEOUT_S = 5.0
#: Results of an ended job may take so long; the program asks three times within three seconds.
MOST_RESULTS_LAG_S = 2.5

#: What comes back instead of the answer, once a call has arrived: the call may have had its effect.
LOST = ("500", "502", "503", "504", "408", "409", "read", "protocol", "hang", "html", "cut", "no id")
#: Those in which the API did say yes.
SAID_YES = ("html", "cut", "no id")
#: What surely had no effect.
REFUSED = ("connect", "429", "429 wait", "401", "402")

#: The types that the simulated rules name.
TYPES = ("invoice", "receipt")

GOOD_WORDS = {"v1": ("SUCCESS", "PARTIAL_SUCCESS"), "v2": ("COMPLETED",)}
BAD_WORDS = {"v1": ("ERROR", "CANCELLED"), "v2": ("FAILED", "CANCELLED")}


def rules_of(request: dict[str, Json]) -> str:
    """The rules that the body of a create call carries, as text that can be compared."""
    return json.dumps(request.get("configuration", request)["rules"])


@dataclass(frozen=True, slots=True)
class Climate:
    """How hostile one episode is; rates are chances a call, a job, a row or a crash point."""

    create_faults: float
    kinds: tuple[str, ...]  #: the faults that creates meet
    read_faults: float
    crashes: float
    late: float
    lag: float
    bad_jobs: float
    missing_rows: float
    odd_rows: float
    odd_words: float
    at_fault: float
    stops: float
    ledger_faults: float
    strangers: int
    newest_first: bool
    page_size: int
    outage: tuple[float, float]
    refused_again: float  #: v2: another send of a key that has a job is refused

    @classmethod
    def draw(cls, rng: random.Random) -> Climate:
        """Some episodes are calm in some ways and hostile in others."""

        def rate(*choices: float) -> float:
            return rng.choice(choices)

        began = rng.uniform(0, 20)
        return cls(
            create_faults=rate(0, 0.2, 0.5, 0.8),
            kinds=rng.choice((LOST * 2 + REFUSED, tuple(rng.sample(LOST + REFUSED, 3)))),
            read_faults=rate(0, 0.1, 0.3),
            crashes=rate(0, 0.005, 0.02, 0.06),
            late=rate(0, 0.5, 1),
            lag=rate(0, 0.5, 1),
            bad_jobs=rate(0, 0, 0.2, 0.6),
            missing_rows=rate(0, 0, 0.1),
            odd_rows=rate(0, 0, 0.2),
            odd_words=rate(0, 0, 0.3),
            at_fault=rate(0, 0, 0.1),
            stops=rate(0, 0.3),
            ledger_faults=rate(0, 0, 0.01),
            strangers=rng.choice((0, 0, 2, 5)),
            newest_first=rng.random() < 0.7,
            page_size=rng.choice((2, 3, 100)),
            outage=(began, began + rate(0, 0, 8, 30)),
            refused_again=rate(0, 0, 0.5),
        )


@dataclass(frozen=True, slots=True)
class Mood:
    """What some APIs do besides, for which the program was once not made."""

    late_rows: float = 0.0  #: rows of a job that has succeeded come late, and go again until all have come
    mistaken: float = 0.0  #: a create call is answered with another job
    down: str = ""  #: the route that answers ``down_with``, alone, for some time
    down_at: tuple[float, float] = (0.0, 0.0)
    in_any_order: bool = False  #: the listing
    nobodys: bool = False  #: half of the mistaken answers name a job that the API denies having
    down_with: int = 500

    @classmethod
    def draw(cls, api: str, seed: int) -> Mood:
        """Of some seeds; those of the others are the episodes that they were before there were moods."""
        if not (seed % 2 if seed >= 300 else seed % 11 == 6 or seed % 13 == 10):
            return cls()
        rng = random.Random(f"mood {api} {seed}")
        began = rng.uniform(0, 30)
        mood = cls(
            late_rows=rng.choice((0.0, 0.3, 0.8)),
            mistaken=rng.choice((0.0, 0.0, 0.3)),
            down=rng.choice(("", "", "list", "get", "results")),
            down_at=(began, began + rng.choice((8.0, 60.0, 4000.0))),
            in_any_order=rng.random() < 0.3,
            nobodys=rng.random() < 0.5,
            down_with=rng.choice((500, 404)),
        )
        # A job of which no results are to be had is believed to have none in the end.
        return replace(mood, down_with=500) if mood.down == "results" else mood


#: The rows of a job have all come so long after the first could, at the latest: sooner than the program gives up.
MOST_ROWS_LATE_S = 20.0


@dataclass(slots=True)
class SimJob:
    """One job that the API has made, or surely will have made by ``commit_at``; it was or will be paid for."""

    id: str
    files: tuple[str, ...]
    request: dict[str, Json]
    commit_at: float
    listed_at: float
    ends_at: float
    results_at: float
    word: str
    odd_word: str | None
    rows: list[tuple[str | None, Json]]
    whole_at: float = 0.0  #: all rows are shown from then on
    chunk_id: int | None = None  #: None: a stranger's
    generations: dict[str, int] = field(default_factory=dict)  #: of each file, as the ledger counts them
    written_off: bool = False  #: a person had its chunk sent again, knowing that it may exist

    @property
    def rules(self) -> str:
        """What was asked, as text that can be compared."""
        return rules_of(self.request)

    @property
    def mode(self) -> str:
        return str(self.request.get("configuration", self.request)["mode"])

    @property
    def provable(self) -> bool:
        """Whether its rows are all of its own files, and there are some."""
        return bool(self.rows) and all(file in self.files for file, _ in self.rows)

    def confidence(self, file_id: str) -> float:
        """How sure the answer for *file_id* is; 0 without one."""
        return next((float(result["confidence"]) for file, result in self.rows if file == file_id and result), 0.0)

    def expected(self, file_id: str, api: str) -> tuple[str, str | None]:
        """(outcome, type) that an honest reader of this job reports for *file_id*."""
        named = {file for file, _ in self.rows}
        nameless = sum(file is None for file, _ in self.rows)
        # A row without a name is that of the only file that has none, if no row is of a file of others.
        files = {*self.files}
        mine = None if nameless == 1 and files - named == {file_id} and named <= {*files, None} else file_id
        for file, result in self.rows:
            if file == mine and (result is not None or api == "v1"):
                if result is None:
                    return "failed", None
                return ("unmatched", None) if result["type"] is None else ("classified", result["type"])
        if self.word in GOOD_WORDS[api]:
            return "missing", None
        return ("cancelled" if self.word == "CANCELLED" else "failed"), None


@dataclass
class World:
    """Everything outside the program. ``violations`` is what must never have happened."""

    api: str
    seed: int
    rng: random.Random
    climate: Climate
    now: float = 0.0
    calm: bool = False  #: from now on nothing goes wrong any more
    jobs: list[SimJob] = field(default_factory=list)
    by_key: dict[str, SimJob] = field(default_factory=dict)
    cancelled: list[SimJob] = field(default_factory=list)  #: those that were stopped because somebody asked for it
    misled_keys: dict[str, SimJob] = field(default_factory=dict)  #: v2: keys that bring back another's job
    made_up: list[str] = field(default_factory=list)  #: v1: jobs that never were, of mistaken answers
    denied: dict[str, float] = field(default_factory=dict)  #: job -> until when the API says that it has none such
    unknown_files: set[str] = field(default_factory=set)
    sinking_files: set[str] = field(default_factory=set)
    violations: list[str] = field(default_factory=list)
    _trace: hashlib._Hash = field(default_factory=hashlib.sha256)
    events: list[str] = field(default_factory=list)

    def tell(self, *what: object) -> None:
        """One event of the episode, in the order in which they happened."""
        line = f"{self.now:.6f} {' '.join(map(str, what))}"
        self.events.append(line)
        self._trace.update(line.encode() + b"\n")

    @property
    def trace(self) -> str:
        return self._trace.hexdigest()

    def violated(self, what: str) -> None:
        self.tell("VIOLATION", what)
        self.violations.append(what)

    def chance(self, rate: float) -> bool:
        return not self.calm and self.rng.random() < rate

    def up_to(self, most: float) -> float:
        """Any delay up to *most*; half of the time *most* itself."""
        return self.rng.choice((most, self.rng.uniform(0, most)))

    @cached_property
    def mood(self) -> Mood:
        return Mood.draw(self.api, self.seed)

    @cached_property
    def custom(self) -> Custom:
        return Custom.draw(self.api, self.seed)

    @cached_property
    def dice(self) -> random.Random:
        """For what the mood brings: it changes nothing in episodes without."""
        return random.Random(f"dice {self.api} {self.seed}")

    def befalls(self, rate: float) -> bool:
        return rate > 0 and not self.calm and self.dice.random() < rate

    def is_down(self, route: str) -> bool:
        began, ended = self.mood.down_at
        return route == self.mood.down and not self.calm and began <= self.now < ended

    def anothers(self, files: tuple[str, ...]) -> SimJob | None:
        """Some job that is not of *files*, for an API that mistakes it for theirs; one whose rows will tell."""
        others = [
            job
            for job in self.jobs
            if job.files != files
            and job.commit_at <= self.now
            and (self.api == "v2" or (job.provable and job.word in GOOD_WORDS[self.api]))
        ]
        return self.dice.choice(others) if others else None

    def shown(self, job: SimJob) -> list[tuple[str | None, Json]]:
        """The rows of *job* that are shown now: any of them, until all have come."""
        if self.now >= job.whole_at:
            return job.rows
        return [row for row in job.rows if self.dice.random() < 0.5]

    def told(self, job: SimJob) -> list[tuple[str | None, Json]]:
        """The rows that are shown, each with its file as this API spells it."""
        return [(file and self.custom.answered(file), result) for file, result in self.shown(job)]

    def in_outage(self) -> bool:
        began, ended = self.climate.outage
        return not self.calm and began <= self.now < ended

    def commit(self, files: tuple[str, ...], request: dict[str, Json], delay_s: float) -> SimJob:
        """A create call takes effect after *delay_s*; a known idempotency key brings back its first job."""
        key = request.get("transaction_id")
        known = self.by_key.get(str(key)) if key is not None else None
        if known is not None:
            known.commit_at = min(known.commit_at, self.now + delay_s)
            return known
        rng, at = self.rng, self.now + delay_s
        lag = self.up_to(MOST_LAG_S) if self.chance(self.climate.lag) else 0.0
        ends = at + rng.choice((rng.uniform(0.3, 3), rng.uniform(1, 20), rng.uniform(1, 120)))
        results = ends + (rng.uniform(0, MOST_RESULTS_LAG_S) if self.chance(0.2) and self.api == "v1" else 0.0)
        word = self._end(files, "MULTIMODAL" in str(request))
        odd = rng.choice(("QUEUED", "PAUSED", "")) if self.chance(self.climate.odd_words) else None
        job_id = f"job-{len(self.jobs):04d}"
        rows = self._rows(files, word)
        job = SimJob(job_id, files, request, at, at + lag, ends, results, word, odd, rows)
        if word in GOOD_WORDS[self.api] and job.provable and self.befalls(self.mood.late_rows):
            job.whole_at = results + self.dice.uniform(0, MOST_ROWS_LATE_S)
        self.jobs.append(job)
        if key is not None:
            self.by_key[str(key)] = job
        return job

    def _end(self, files: tuple[str, ...], second_opinion: bool) -> str:
        if self.sinking_files.intersection(files):
            return BAD_WORDS[self.api][0]
        if self.chance(max(self.climate.bad_jobs, 0.3 * second_opinion)):  # or hardly one would ever be halved
            return self.rng.choice(BAD_WORDS[self.api])
        return GOOD_WORDS[self.api][0] if self.calm else self.rng.choice(GOOD_WORDS[self.api])

    def _rows(self, files: tuple[str, ...], word: str) -> list[tuple[str | None, Json]]:
        rng, rows = self.rng, list[tuple[str | None, Json]]()
        bad = word in BAD_WORDS[self.api]
        keep = rng.choice((0.0, 0.5)) if bad and self.api == "v1" else float(not bad)
        for file_id in files:
            absent = self.api == "v1" and self.chance(self.climate.missing_rows)
            if rng.random() >= keep or absent or file_id in self.sinking_files:
                continue
            null = self.chance(0.4 if word == "PARTIAL_SUCCESS" else 0.05)
            label = rng.choice((*TYPES, None))
            result = {"type": label, "confidence": round(rng.random(), 3), "reasoning": f"seen in {file_id}"}
            rows.append((file_id, None if null else result))
            if self.api == "v1" and self.chance(self.climate.odd_rows):
                rows.append(rng.choice((rows[-1], (f"stranger-{rng.randrange(9)}", result), (None, result))))
        rng.shuffle(rows)
        return rows

    def add_strangers(self, request: dict[str, Json]) -> None:
        """Jobs of somebody else in the same project, some of them made with the very same rules."""
        for n in range(self.climate.strangers):
            files = (f"theirs-{n}",)
            other = {**request, "rules": [{"type": "other", "description": "what somebody else asks"}]}
            job = self.commit(files, self.rng.choice((request, other)), self.rng.uniform(-900, 20))
            job.rows = [(files[0], None)]
            job.word = GOOD_WORDS[self.api][0]

    def cancel(self, job: SimJob) -> bool:
        """Stop *job*; whether it had not ended before."""
        if self.now >= job.ends_at:
            return False
        job.ends_at, job.word, job.rows = self.now, "CANCELLED", []
        self.cancelled.append(job)
        return True

    @cached_property
    def _manners(self) -> tuple[str, float, float]:
        """How this API echoes what was sent, how far its clock is off, and until when; by the seed alone."""
        rng = random.Random(f"manners {self.seed}")
        echo = rng.choice(
            ("true", "true", "true", "case", "no mode", "own mode", "no parsing", "order", "space", "cut")
        )
        return echo, rng.choice((0.0, 0.0, 3600.0, -3600.0)), rng.uniform(0, 90_000)

    @property
    def echoes_truly(self) -> bool:
        """Whether a job's echo is what was sent, so that it can be compared without knowing the API."""
        return self._manners[0] in ("true", "case", "order", "space")

    def _dated(self, moment: float, job: SimJob) -> str:
        """*moment* by the API's clock, which is put right some day; strangers' jobs may be dated a day ahead."""
        _, off_s, until = self._manners
        ahead_s = 86400.0 if job.chunk_id is None and self.seed % 4 == 1 else 0.0
        return (EPOCH + timedelta(seconds=moment + ahead_s + (off_s if job.commit_at < until else 0.0))).isoformat()

    def _echo(self, job: SimJob) -> dict[str, Json]:
        """What was sent, in the words of this API."""
        told = {name: job.request[name] for name in ("rules", "mode", "parsing_configuration")}
        rules = told["rules"]
        match self._manners[0]:
            case "case":
                return told | {"mode": told["mode"].lower()}
            case "no mode":
                return told | {"mode": None}
            case "own mode":
                return told | {"mode": f"{told['mode']}-2"}
            case "no parsing":
                return told | {"parsing_configuration": None}
            case "order":
                return told | {"rules": rules[::-1]}
            case "space":
                return told | {"rules": [{**rule, "description": f" {rule['description']}\n"} for rule in rules]}
            case "cut":
                return told | {"rules": [{**rule, "description": rule["description"][:-1]} for rule in rules]}
        return told

    def _has(self, job: SimJob) -> bool:
        return self.denied.get(job.id, 0.0) <= self.now

    def is_gone(self, job: SimJob) -> bool:
        """Whether the API will never have *job* again."""
        return self.denied.get(job.id) == math.inf

    def deny(self, job_id: str, until: float) -> None:
        """The API has no such job until then; one that it never has again has ended, whatever it came to."""
        self.tell("denies", job_id, until)
        self.denied[job_id] = until
        for job in self.jobs:
            if job.id == job_id and self.is_gone(job):
                job.ends_at = min(job.ends_at, self.now)

    def find(self, job_id: str) -> SimJob | None:
        return next(
            (job for job in self.jobs if job.id == job_id and job.commit_at <= self.now and self._has(job)), None
        )

    def listed(self) -> list[SimJob]:
        """What a listing shows now, in the order that this API lists in."""
        shown = [job for job in self.jobs if max(job.commit_at, job.listed_at) <= self.now and self._has(job)]
        if self.mood.in_any_order:
            return sorted(shown, key=lambda job: hashlib.sha256(job.id.encode()).digest())
        return sorted(shown, key=lambda job: job.commit_at, reverse=self.climate.newest_first)

    def as_json(self, job: SimJob) -> dict[str, Json]:
        """The job as GET and list tell it."""
        ended = self.now >= job.ends_at
        word = job.word if ended else (job.odd_word if job.odd_word is not None else self._open_word(job))
        told: dict[str, Json] = {
            "id": job.id,
            "project_id": PROJECT,
            "user_id": "user",
            "status": word,
            "error_message": "it failed" if ended and job.word in BAD_WORDS[self.api] else None,
            "created_at": self._dated(job.commit_at, job),
            "updated_at": self._dated(min(self.now, job.ends_at), job),
        }
        if self.api == "v1":
            return told | self._echo(job)
        told |= {name: job.request.get(name) for name in ("file_input", "transaction_id", "configuration")}
        if told["file_input"] is not None:
            told["file_input"] = self.custom.answered(told["file_input"])
        if ended and self.shown(job):
            told["result"] = job.rows[0][1]
        return told

    def _open_word(self, job: SimJob) -> str:
        return "RUNNING" if self.api == "v2" and self.now > (job.commit_at + job.ends_at) / 2 else "PENDING"
