"""The power goes: whatever part of the unsynced writes reached the disk, no create call is forgotten.

A real run is recorded: its SQL, and what the API saw in between. The SQL is played again on a file system that
journals every write and sync; from that journal disks are built as they may look after a power loss at any moment.
"""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw
import pytest
from aiohttp import web
from sqlalchemy import event
from sqlalchemy.engine import Engine
from support.procs import write_manifest
from support.server import Server

from orchestrator.commands import run
from orchestrator.manifest import loading as manifests
from orchestrator.planning.options import Options
from orchestrator.settings import Settings

JOBS = "/api/v1/classifier/jobs"
SECTOR = 512
IMAGES = 300

HAS_TABLES = "SELECT 1 FROM sqlite_master WHERE name = 'jobs'"
KNOWN = "SELECT f.file_id, j.job_id FROM files f JOIN jobs j ON j.id = f.chunk_id WHERE j.status <> 'pending'"


@dataclass(frozen=True)
class Sql:
    text: str


@dataclass(frozen=True)
class Seen:
    """What the API saw: a create call of these files, or a question about the job that it made of them."""

    file_ids: tuple[str, ...]
    job_id: str | None = None


@dataclass(frozen=True)
class Write:
    file: str
    offset: int
    data: bytes


@dataclass(frozen=True)
class Truncate:
    file: str
    size: int


@dataclass(frozen=True)
class Sync:
    file: str


Change = Write | Truncate
Step = Change | Sync | Seen


@contextmanager
def recorded_sql(script: list[Sql | Seen]) -> Iterator[None]:
    """Every statement that any SQLAlchemy engine sends to SQLite, values filled in."""

    def trace(connection: sqlite3.Connection, _: object) -> None:
        connection.set_trace_callback(lambda text: None if text.startswith("--") else script.append(Sql(text)))

    event.listen(Engine, "connect", trace)
    try:
        yield
    finally:
        event.remove(Engine, "connect", trace)


def an_api(script: list[Sql | Seen]) -> Callable[[web.Request], Any]:
    """Answers of v1; jobs end at once. What it sees goes into *script*, in order with the SQL."""
    jobs: dict[str, dict[str, Any]] = {}

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            body = await request.json()
            job_id = f"job-{len(jobs)}"
            script.append(Seen(tuple(body["file_ids"])))
            jobs[job_id] = {**body, "id": job_id, "status": "SUCCESS", "created_at": "2026-11-25T02:00:00Z"}
            return web.json_response(jobs[job_id])
        if request.path == JOBS:
            return web.json_response({"items": [], "next_page_token": None})
        job_id = request.path.removeprefix(JOBS + "/").split("/")[0]
        script.append(Seen(tuple(jobs[job_id]["file_ids"]), job_id))
        if not request.path.endswith("/results"):
            return web.json_response(jobs[job_id])
        result = {"type": "invoice", "confidence": 0.9, "reasoning": "x" * 400}
        items = [{"file_id": file_id, "result": result} for file_id in jobs[job_id]["file_ids"]]
        return web.json_response({"items": items, "next_page_token": None})

    return answer


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Sql | Seen]]:
    """The recording of one complete run."""
    script: list[Sql | Seen] = []
    server = Server(an_api(script))
    server.start()
    path = write_manifest(tmp_path_factory.mktemp("recorded"), [f"f{i}" for i in range(90)], chunk_size=3)
    settings = Settings.model_validate({"LLAMA_CLOUD_API_KEY": "key", "LLAMA_CLOUD_BASE_URL": server.url})
    with recorded_sql(script):
        summary = run.run(manifests.load(str(path), environ={}), settings, Options())
    assert (summary.exit_code, summary.jobs_created) == (0, 30)
    yield script
    server.stop()


class JournalFile(apsw.VFSFile):
    def __init__(self, name: Any, flags: list[int], steps: list[Step]) -> None:
        super().__init__("", name, flags)
        path = name.filename() if isinstance(name, apsw.URIFilename) else str(name or "")
        self._file = "wal" if path.endswith("-wal") else "db"
        self._steps = steps

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - SQLite's name
        self._steps.append(Write(self._file, offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:  # noqa: N802
        self._steps.append(Truncate(self._file, size))
        super().xTruncate(size)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._steps.append(Sync(self._file))
        super().xSync(flags)


class JournalVFS(apsw.VFS):
    def __init__(self, steps: list[Step]) -> None:
        self._steps = steps
        super().__init__("journal", "")

    def xOpen(self, name: Any, flags: list[int]) -> JournalFile:  # noqa: N802
        return JournalFile(name, flags, self._steps)


def journal(script: list[Sql | Seen], folder: Path, *pragmas: str) -> list[Step]:
    """Play *script* on the journalling file system; *pragmas* are set after the program's own."""
    steps: list[Step] = []
    vfs = JournalVFS(steps)
    folder.mkdir()
    with closing(apsw.Connection(str(folder / "ledger.db"), vfs="journal")) as connection:
        for entry in script:
            if isinstance(entry, Seen):
                steps.append(entry)
                continue
            more = pragmas if entry.text.startswith("PRAGMA synchronous") else ()
            for statement in (entry.text, *more):
                connection.execute(statement).fetchall()
        before_close = len(steps)
    vfs.unregister()
    return steps[:before_close]


@dataclass
class Disk:
    """Files as they may be after the power was lost: synced writes all there, of the others any part."""

    durable: dict[str, bytearray] = field(default_factory=lambda: {"db": bytearray(), "wal": bytearray()})
    floating: list[Change] = field(default_factory=list)

    def take(self, step: Step) -> None:
        match step:
            case Write() | Truncate():
                self.floating.append(step)
            case Sync(file):
                for change in self.floating:
                    if change.file == file:
                        _apply(self.durable[file], change)
                self.floating = [change for change in self.floating if change.file != file]
            case Seen():
                pass

    def after_power_loss(self, rng: random.Random) -> dict[str, bytes]:
        """One of the possible images: each floating write there, lost, or torn at a sector."""
        files = {name: bytearray(content) for name, content in self.durable.items()}
        keep = rng.choice((0.0, 0.5, 0.9))
        for change in self.floating:
            if rng.random() < keep:
                _apply(files[change.file], _torn(change, rng) if rng.random() < 0.3 else change)
        return {name: bytes(content) for name, content in files.items()}


def _apply(content: bytearray, change: Change) -> None:
    match change:
        case Write(_, offset, data):
            content.extend(bytes(max(0, offset + len(data) - len(content))))
            content[offset : offset + len(data)] = data
        case Truncate(_, size):
            del content[size:]


def _torn(change: Change, rng: random.Random) -> Change:
    if isinstance(change, Truncate):
        return change
    return Write(change.file, change.offset, change.data[: rng.randrange(0, len(change.data) + 1, SECTOR)])


def losses(steps: list[Step], folder: Path, *, images: int) -> list[str]:
    """What is wrong with any of *images* disks, each of a power loss at some moment after the first create call."""
    rng = random.Random(1)
    first = next(i for i, step in enumerate(steps) if isinstance(step, Seen))
    moments = sorted(rng.randrange(first + 1, len(steps) + 1) for _ in range(images))
    disk, seen, found, at = Disk(), [], [], 0
    for moment in moments:
        for step in steps[at:moment]:
            disk.take(step)
            if isinstance(step, Seen):
                seen.append(step)
        at = moment
        found += [f"at {moment}: {what}" for what in forgotten(disk.after_power_loss(rng), seen, folder / "image.db")]
    return found


def forgotten(files: dict[str, bytes], seen: list[Seen], path: Path) -> Iterator[str]:
    """What the ledger in *files* does not know although the API saw it happen."""
    path.write_bytes(files["db"])
    Path(f"{path}-wal").write_bytes(files["wal"])
    Path(f"{path}-shm").unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA synchronous=OFF")  # this copy may be lost
            ((integrity,),) = connection.execute("PRAGMA integrity_check").fetchall()
            known = connection.execute(KNOWN).fetchall() if connection.execute(HAS_TABLES).fetchall() else []
    except sqlite3.DatabaseError as error:
        yield f"can't be read: {error}"
        return
    if integrity != "ok":
        yield integrity
    job_of = dict(known)
    for event_ in seen:
        for file_id in event_.file_ids:
            if file_id not in job_of:
                yield f"the create call of {file_id} is forgotten"
            elif event_.job_id is not None and job_of[file_id] != event_.job_id:
                yield f"job {event_.job_id} of {file_id} is forgotten"


def test_no_power_loss_makes_the_ledger_forget_a_create_call(script: list[Sql | Seen], tmp_path: Path) -> None:
    """In every image the ledger is sound, has the intent of each call that left, and each job it asked about."""
    steps = journal(script, tmp_path / "played")
    assert losses(steps, tmp_path, images=IMAGES) == []


def test_nor_does_one_while_the_log_is_written_back(script: list[Sql | Seen], tmp_path: Path) -> None:
    """The same with a checkpoint every few pages, so that many losses fall on one."""
    steps = journal(script, tmp_path / "played", "PRAGMA wal_autocheckpoint=8")
    assert sum(isinstance(step, Sync) and step.file == "db" for step in steps) > 10, "there were no checkpoints"
    assert losses(steps, tmp_path, images=IMAGES) == []


def test_the_images_would_show_a_ledger_that_does_not_sync(script: list[Sql | Seen], tmp_path: Path) -> None:
    """The control: with SQLite's usual synchronous=NORMAL, create calls are forgotten."""
    steps = journal(script, tmp_path / "played", "PRAGMA synchronous=NORMAL")
    assert any("forgotten" in what for what in losses(steps, tmp_path, images=IMAGES))


def test_the_recording_has_the_ledgers_own_settings(script: list[Sql | Seen]) -> None:
    """What is played is what the program does: in particular how it asks SQLite to sync."""
    texts = [entry.text for entry in script if isinstance(entry, Sql)]
    assert "PRAGMA synchronous=FULL" in texts
    assert "PRAGMA journal_mode=WAL" in texts
    assert json.dumps(texts).count("'submitting'") > 30
