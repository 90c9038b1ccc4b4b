"""Real processes for the tests: an API server to talk to, and the program itself, started, signalled and read."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import IO, Any, Self

import httpx
import psycopg

HERE = Path(__file__).parent
ORCHESTRATOR = (sys.executable, "-m", "orchestrator")
KEY = "llx-canary-6d1f"

#: Every run has to be over by then; a hang is a failure, not a long test.
PATIENCE_S = 300.0


@dataclass(frozen=True)
class Stats:
    """The calls that the server saw."""

    created: Mapping[str, int]  #: file ID -> jobs that were made for it
    jobs: Mapping[str, list[str]]  #: job ID -> its files
    posts: int
    lost: int  #: create calls that never had an effect
    requests: int

    @property
    def twice(self) -> list[str]:
        return [file_id for file_id, times in self.created.items() if times > 1]


class ApiServer:
    """``api_server.py`` as a child process, for as long as the block runs."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "api_server.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        self.url: str = json.loads(self._process.stdout.readline())
        self._client = httpx.Client(base_url=self.url, trust_env=False, verify=False, timeout=60)  # noqa: S501 - loopback, no TLS
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._client.close()
        self._process.kill()
        with self._process:  # closes the pipes and reaps
            pass

    def set(self, **knobs: Any) -> None:
        """Change ``api_server.Knobs``."""
        self._client.post("/_set", json=knobs).raise_for_status()

    def stats(self) -> Stats:
        return Stats(**self._client.get("/_stats").raise_for_status().json())


def write_manifest(
    folder: Path, file_ids: Iterable[str], *, api: str = "v1", chunk_size: int = 10, name: str = "night"
) -> Path:
    """A manifest of *file_ids* in *folder*; beside it the ledger will be."""
    path = folder / f"{name}.yaml"
    folder.joinpath(f"{name}.txt").write_text("".join(f"{file_id}\n" for file_id in file_ids))
    chunks = f"chunk_size: {chunk_size}\n" if api == "v1" else ""
    path.write_text(
        f"version: 1\nname: {name}\napi: {api}\n{chunks}rules:\n"
        "  - {type: invoice, description: contains an invoice number and a total amount}\n"
        "  - {type: receipt, description: proof of payment with a merchant name}\n"
        f"file_ids_from: [{name}.txt]\n"
    )
    return path


def environment(url: str, **more: str) -> dict[str, str]:
    """The variables that the program needs, and none of this process's own."""
    return {
        "LLAMA_CLOUD_API_KEY": KEY,
        "LLAMA_CLOUD_BASE_URL": url,
        "ORCHESTRATOR_SETTLE_S": "0.5",
        "ORCHESTRATOR_LATE_RESULTS_S": "2",
        "PATH": os.defpath,
        **more,
    }


@dataclass
class Ended:
    """How a run ended."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def summary(self) -> dict[str, Any]:
        """Its ``--json`` object."""
        summary: dict[str, Any] = json.loads(self.out)
        return summary


class Run:
    """``orchestrator run MANIFEST --json``, or another *command*, as a child process with no terminal."""

    def __init__(
        self,
        manifest: Path,
        env: Mapping[str, str],
        *options: str,
        cwd: Path | None = None,
        umask: int = 0o022,
        before: Callable[[], None] | None = None,
        command: str = "run",
    ) -> None:
        """*before* is called in the child, ahead of the program."""
        self._files = ExitStack()
        self._out = self._files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - kill() closes the stack
        self._err = self._files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        self.began = monotonic()
        self.process = subprocess.Popen(
            [*ORCHESTRATOR, command, str(manifest), "--json", *options],
            env=dict(env),
            cwd=cwd or manifest.parent,
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            umask=umask,
            preexec_fn=before,
            start_new_session=True,
        )

    def ended(self) -> Ended:
        """Wait for its end."""
        try:
            code = self.process.wait(PATIENCE_S)
            return Ended(code, _text(self._out), self.log_so_far(), monotonic() - self.began)
        finally:
            self.kill()

    def kill(self) -> None:
        """kill -9, unless it has ended."""
        self.process.kill()
        self.process.wait()
        self._files.close()

    def log_so_far(self) -> str:
        return _text(self._err)


def _text(file: IO[bytes]) -> str:
    return os.pread(file.fileno(), 1 << 24, 0).decode()


def run(manifest: Path, env: Mapping[str, str], *options: str, **how: Any) -> Ended:
    """Start ``orchestrator run`` and wait for its end."""
    return Run(manifest, env, *options, **how).ended()


def wait_until(done: Callable[[], bool], *, what: str) -> None:
    """Return as soon as *done*; another process is at work meanwhile. Fails after PATIENCE_S."""
    until = monotonic() + PATIENCE_S
    while not done():
        if monotonic() > until:
            raise AssertionError(f"waited {PATIENCE_S:g} s in vain for {what}")
        sleep(0.01)


@dataclass(frozen=True)
class LedgerState:
    """The content of a ledger, read from a copy: the next run must find the file as the last one left it."""

    integrity: str
    chunks: Mapping[str, int]  #: status -> chunks
    intents: frozenset[str]  #: files of chunks whose create call was, or may have been, sent
    open: frozenset[str]  #: files of chunks that have not ended
    held: frozenset[str]  #: those of them that wait for a person: their call got lost twice
    outcomes: Mapping[str, str | None]  #: file ID -> type, for those that have an outcome


def read_ledger(path: Path | str) -> LedgerState:
    """The state of the ledger at *path*, or at a server's URL; nobody may be writing to it."""
    if isinstance(path, str):
        with psycopg.connect(path) as server:
            known = server.execute("SELECT to_regclass('jobs')").fetchone() != (None,)
            return _state("ok", lambda statement: server.execute(statement.encode()).fetchall(), known=known)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.db"
        for ending in ("", "-wal"):
            source = Path(f"{path}{ending}")
            if source.exists():
                shutil.copyfile(source, f"{copy}{ending}")
        with closing(sqlite3.connect(copy)) as connection:
            (integrity,) = connection.execute("PRAGMA integrity_check").fetchone()
            known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'jobs'").fetchone() is not None
            return _state(integrity, lambda statement: connection.execute(statement).fetchall(), known=known)


def _state(integrity: str, rows: Callable[[str], list[tuple[Any, ...]]], *, known: bool) -> LedgerState:
    def files(condition: str) -> frozenset[str]:
        chosen = f"SELECT f.file_id FROM files f JOIN jobs j ON j.id = f.chunk_id WHERE {condition}"  # noqa: S608 - ours
        return frozenset(file_id for (file_id,) in rows(chosen))

    if not known:
        return LedgerState(integrity, {}, frozenset(), frozenset(), frozenset(), {})
    return LedgerState(
        integrity=integrity,
        chunks=dict(rows("SELECT status, count(*) FROM jobs GROUP BY status")),
        intents=files("j.status <> 'pending'"),
        open=files("j.status IN ('pending', 'submitting', 'submitted', 'running')"),
        held=files("j.held = 1 AND j.status = 'submitting'"),
        outcomes=dict(
            rows("SELECT f.file_id, r.type FROM files f JOIN results r ON r.file_row = f.id WHERE f.standing = 1")
        ),
    )
