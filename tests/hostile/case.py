"""One case: a night's work, a server in some temper, the real program run again and again, and the judgement."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support import forked

from hostile.books import Books, Job, Truth, canonical, fraction
from hostile.server import KEY, Loop, Server
from hostile.temper import SETTLE_S, Temper, drawn

#: Seconds: an outage that the program bears, a job's patience, and beyond which a run counts as hanging: to find the
#: one file that sinks its job, level by level, takes a busy machine most of that.
BUDGET_S, STALE_S, HANGS_S = 4, 6, 90
#: What the hostile runs may be given besides.
DEADLINE_S = 6
#: Seconds by which a run may pass its deadline: mostly the time that it takes to start on a busy machine.
PASSES_S = 8

#: Exit codes that say something fit to say about a bad API: all but usage, locked, ledger and bug.
FIT = frozenset({0, 1, 3, 5, 6, 7, 9})

#: Once the server is honest: what a person does, in this order, for as long as not all is as it should be.
RETRY = "retry --held"
REMEDIES = (("run",), ("adopt", "run"), (RETRY, "run"))

OUTCOMES = "SELECT f.file_id, r.outcome, r.type FROM files f JOIN results r ON r.file_row = f.id WHERE f.standing = 1"
#: The files without a result of a chunk that was given a job of its other files: it may be a colleague's.
PARTLY = (
    "SELECT f.file_id FROM files f JOIN results r ON r.file_row = f.id JOIN events e ON e.chunk_id = f.chunk_id "
    "WHERE f.standing = 1 AND r.outcome = 'missing' AND e.event = 'adopted' AND e.note LIKE '%no job of just these%'"
)
HELD = "SELECT f.file_id FROM files f JOIN jobs j ON j.id = f.chunk_id WHERE j.held = 1 AND j.status = 'submitting'"


@dataclass
class Night:
    """What a case asks of the program."""

    api: str
    file_ids: list[str]
    rules: list[dict[str, str]]
    chunk_size: int
    mode: str
    parsing: dict[str, Any]
    truths: dict[str, Truth]

    def write(self, folder: Path) -> Path:
        """The manifest, as JSON: which is YAML too."""
        manifest = {
            "version": 1, "name": "hostile", "api": self.api, "mode": self.mode, "rules": self.rules,
            "parsing_configuration": self.parsing, "file_ids": self.file_ids,
        }  # fmt: skip
        path = folder / "hostile.yaml"
        path.write_text(json.dumps(manifest | ({"chunk_size": self.chunk_size} if self.api == "v1" else {}), indent=1))
        return path


@dataclass
class Told:
    """How a case went; ``wrong`` is empty when all promises were kept."""

    seed: int
    api: str
    temper: Temper
    wrong: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    files: int = 0
    jobs: int = 0
    retried: bool = False  #: whether a person had to say that held chunks may be sent again
    seconds: float = 0.0

    @property
    def doubtful(self) -> bool:
        """Whether nothing speaks against it but time, or an exit code that the fork server has lost."""
        signs = (" hung", "its deadline", "exit 255")
        return bool(self.wrong) and all(any(sign in what for sign in signs) for what in self.wrong)

    def __str__(self) -> str:
        how = ", ".join(f"{name}={value!r}" for name, value in self.temper.told.items())
        return "\n".join(
            [f"seed {self.seed} ({self.api}, {self.files} files): {'; '.join(self.wrong) or 'held'}",
             f"  the server: {how or 'honest'}", *(f"  {line}" for line in self.runs)]
        )  # fmt: skip


def drawn_night(rng: random.Random) -> Night:
    api = rng.choice(("v1", "v1", "v2"))
    files = [str(uuid.UUID(int=rng.getrandbits(128), version=4)) for _ in range(rng.choice((3, 8, 20)))]
    if api == "v2" or rng.random() < 0.1:
        files = [f"dfl-{file_id}" for file_id in files]
    types = rng.sample(("invoice", "receipt", "contract", "bank statement", "CV_2-b"), rng.randint(1, 4))
    rules = [
        {"type": name, "description": f"it has what a {name} has: a date,\ta name -  and a total."} for name in types
    ]
    truths = {}
    for file_id in files:
        die = rng.random()
        truth = Truth(rng.choice(types)) if die < 0.85 else Truth(None) if die < 0.95 else Truth(failed=True)
        truths[canonical(file_id)] = truth
    if api == "v1" and rng.random() < 0.05:
        truths[canonical(rng.choice(files))] = Truth(sinks=True)
    parsing: dict[str, Any] = rng.choice(
        ({"max_pages": 5}, {"max_pages": 2, "lang": "de"}, {"target_pages": [0, 2]}, {})
    )
    mode = rng.choice(("FAST", "FAST", "MULTIMODAL")) if api == "v1" else "FAST"
    return Night(api, files, rules, rng.choice((1, 2, 4, 10)), mode, parsing, truths)


def _nothing(_: Path) -> None:
    """No hand is laid on the ledger."""


def judged(seed: int, loop: Loop, temper: Temper | None = None) -> Told:
    """Case *seed*; once more when it is doubtful that the program is at fault: the machine may have been busy."""
    told = play(seed, loop, temper)
    return play(seed, loop, temper) if told.doubtful else told


def play(seed: int, loop: Loop, temper: Temper | None = None, between: Callable[[Path], None] = _nothing) -> Told:
    """Case *seed*, once; with *temper* in place of the one that it would draw.

    *between* is handed the ledger when the server has become honest.
    """
    rng = random.Random(seed)
    night = drawn_night(rng)
    temper = temper or drawn(rng)
    books = Books(seed, night.truths)
    server = Server(seed, temper, books)
    _add_strangers(night, temper, books, server)
    told = Told(seed, night.api, temper, files=len(night.file_ids))
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "night"
        folder.mkdir()
        night.write(folder)
        url = server.start(loop.loop)
        try:
            _run_all(night, folder, url, server, told, between, hurried=rng.random() < 0.5)
        finally:
            server.stop()
    told.wrong += [f"the server itself failed: {fault}" for fault in server.faults[:2]]
    told.jobs = len(books.journal)
    told.seconds = time.monotonic() - began
    return told


def _add_strangers(night: Night, temper: Temper, books: Books, server: Server) -> None:
    """Jobs of others under the same rules, made before the program comes."""
    first = night.file_ids[: night.chunk_size] if night.api == "v1" else night.file_ids[:1]
    for number in range(temper.foreign):
        stranger = str(uuid.UUID(int=int(fraction(books.seed, "stranger", number) * (1 << 60)), version=4))
        sets = {"subset": first[: max(1, len(first) - 1)], "superset": [*first, stranger]}
        files = sets.get(temper.foreign_files, [stranger]) if number == 0 and night.api == "v1" else [stranger]
        parsing = {"lang": "en"} | ({} if "target_pages" in night.parsing else {"max_pages": 5}) | night.parsing
        asked = {"rules": night.rules, "mode": night.mode, "parsing_configuration": parsing}
        born = server.now() - 100 + number
        stamp = server.wall() + (temper.foreign_dated_s or number - 100)
        lasts_s = 1.0 if temper.foreign_ends else 1e9
        books.add(Job(books.new_id(night.api), night.api, files, asked, born, stamp, lasts_s, foreign=True))


def _run_all(
    night: Night, folder: Path, url: str, server: Server, told: Told, between: Callable[[Path], None], *, hurried: bool
) -> None:
    """Two runs in the server's temper, then what a person does once it is honest."""
    environ = {
        "LLAMA_CLOUD_API_KEY": KEY, "LLAMA_CLOUD_BASE_URL": url, "PATH": os.defpath,
        "ORCHESTRATOR_SETTLE_S": str(SETTLE_S), "ORCHESTRATOR_TIMEOUT_S": "1.5", "ORCHESTRATOR_LATE_RESULTS_S": "8",
        "ORCHESTRATOR_RETRY_BUDGET_S": str(BUDGET_S), "ORCHESTRATOR_STALE_S": str(STALE_S),
        "ORCHESTRATOR_LISTS_PER_S": "50",
    }  # fmt: skip
    for _ in range(2):
        if not _called(
            "run", *(("--deadline", f"{DEADLINE_S}s") if hurried else ()), folder=folder, environ=environ, told=told
        ):
            return
    server.be_honest()
    between(folder / "ledger.db")
    for remedy in REMEDIES:
        if not _not_right(night, folder, server.books):
            break
        if RETRY in remedy:  # what it buys is bought on purpose, and what is held waits for it
            _judge(night, folder, server.books, told, "before a retry")
            told.retried = True
        for command in remedy:
            if not _called(*command.split(), folder=folder, environ=environ, told=told):
                return
    _judge(night, folder, server.books, told, "in the end")


def _called(command: str, *options: str, folder: Path, environ: Mapping[str, str], told: Told) -> bool:
    """``orchestrator COMMAND``; False when it hung, since nothing after it can be judged."""
    began = time.monotonic()
    try:
        done = forked.run(
            command, "hostile.yaml", "--json", *options, folder=folder, environ=environ, timeout_s=HANGS_S
        )
    except TimeoutError:
        told.wrong.append(f"{command} hung")
        told.runs.append(f"{command}: still at work after {HANGS_S} s")
        return False
    seconds = time.monotonic() - began
    try:
        summary = json.loads(done.stdout)
        said = str(summary.get("reason", "")) or "-"
    except ValueError:
        said = done.stdout[:200] or "nothing on stdout"
        told.wrong.append(f"{command} printed no JSON")
    told.runs.append(f"{command} {' '.join(options)}: exit {done.returncode}, {seconds:.1f} s: {said[:300]}")
    if "--deadline" in options and seconds > DEADLINE_S + PASSES_S:
        told.wrong.append(f"{command} passed its deadline by {seconds - DEADLINE_S:.1f} s")
    if done.returncode not in FIT:
        told.wrong.append(f"{command} exit {done.returncode}")
        told.runs.append(done.stderr[-700:].strip().replace("\n", "\n    "))
    elif "Traceback" in done.stderr:
        told.wrong.append(f"{command} logged a traceback")
        told.runs.append(done.stderr[-700:].strip().replace("\n", "\n    "))
    return True


def _judge(night: Night, folder: Path, books: Books, told: Told, when: str) -> None:
    """Add what was bought twice, unless it was asked for, and what is not as it should be.

    Files whose create call came to nothing may be held: no list says for sure that it did. Or they are missing, where
    a colleague's job with results of the other files looks like what the call made.
    """
    if not told.retried and (twice := books.bought_twice()):
        told.wrong.append(f"bought twice: {len(twice)} files, {next(iter(twice.items()))}")
    wrong = _not_right(night, folder, books)
    if not told.retried:
        held = {canonical(file_id) for (file_id,) in _rows(folder, HELD)} - books.answered()
        partly = {canonical(file_id) for (file_id,) in _rows(folder, PARTLY)} - books.bought()
        wrong = {file_id: why for file_id, why in wrong.items() if file_id not in held | partly}
    if wrong:
        told.wrong.append(f"not right {when}: {len(wrong)} files, {next(iter(wrong.items()))}")


def _rows(folder: Path, query: str) -> list[tuple[Any, ...]]:
    """What the ledger says; nothing when there is none."""
    path = folder / "ledger.db"
    if not path.exists():
        return []
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def _not_right(night: Night, folder: Path, books: Books) -> dict[str, str]:
    """File -> what is wrong, for those whose outcome is not the true one, or that were never sent."""
    taken = {canonical(file_id) for job in books.jobs.values() if job.foreign for file_id in job.files}
    sent = books.bought() | taken
    got = {canonical(file_id): (outcome, label) for file_id, outcome, label in _rows(folder, OUTCOMES)}
    wrong = {}
    for file_id in map(canonical, night.file_ids):
        truth = night.truths[file_id]
        if file_id not in sent:
            wrong[file_id] = "never sent"
        elif file_id not in got:
            wrong[file_id] = "no outcome"
        elif got[file_id] != (truth.outcome, truth.type):
            wrong[file_id] = f"{got[file_id]}, and is {(truth.outcome, truth.type)}"
    return wrong
