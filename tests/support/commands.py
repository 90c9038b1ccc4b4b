"""The program as cron and people use it, and a small v1 API for it to talk to."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from aiohttp import web
from support import forked
from support.forked import Done
from support.server import CANARY, Answer, Server

from orchestrator.models import Json

Serve = Callable[[Answer], Server]


#: An outage lasts too long at once. Of all else the outcome must not come from how fast the machine is.
OUTAGE = {"ORCHESTRATOR_RETRY_BUDGET_S": "0.1"}


MANIFEST = """\
version: 1
name: letters
rules:
  - type: invoice
    description: contains line items and a total
  - type: receipt
    description: proof of a payment that was made
chunk_size: {size}
file_ids:
{ids}
"""


#: What a terminal obeys, hides, or turns around.
HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\n\x9b31m\u202egnp.exe\u2066\u200b\u2028\x00\ud800END"


HARMFUL = {chr(code) for code in (*range(0x20), *range(0x7F, 0xA0), 0x202E, 0x2066, 0x200B, 0x2028)} - {"\n"}


class Classify:
    """A v1 API whose jobs end at once, with every file an invoice; results come in pages."""

    def __init__(self, page_size: int = 1000) -> None:
        self.jobs: dict[str, list[str]] = {}
        self.results: dict[str, Json] = {}  #: of each job's files: what ``result`` was when it was made
        self.page_size = page_size
        self.status = "SUCCESS"
        self.error: str | None = None
        self.result: Json = {"type": "invoice", "confidence": 0.9, "reasoning": "has a total"}
        self.refuse_after: int | None = None  #: answer 402 to every create after so many

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        parts = request.path.removeprefix("/api/v1/classifier/jobs").strip("/").split("/")
        if request.method == "POST":
            if self.refuse_after is not None and len(self.jobs) >= self.refuse_after:
                return web.json_response({"detail": "No quota left to create a job"}, status=402)
            job_id = f"job-{len(self.jobs)}"
            self.jobs[job_id] = (await request.json())["file_ids"]
            self.results[job_id] = self.result
            return web.json_response(self._job(job_id))
        if parts == [""]:
            return web.json_response({"items": [self._job(job_id) for job_id in self.jobs]})
        if parts[1:] == ["results"]:
            start = int(request.query.get("page_token", "0"))
            end = start + self.page_size
            file_ids = self.jobs[parts[0]]
            result = self.results[parts[0]]
            items = [{"id": "i", "file_id": file_id, "result": result} for file_id in file_ids[start:end]]
            return web.json_response({"items": items, "next_page_token": str(end) if end < len(file_ids) else None})
        return web.json_response(self._job(parts[0]))

    def _job(self, job_id: str) -> dict[str, Json]:
        return {
            "id": job_id,
            "status": self.status,
            "error_message": self.error,
            "rules": [],
            "user_id": "u",
            "project_id": "p",
            "created_at": "2026-11-25T02:00:00Z",
        }


def refusing(status: int, detail: str = "no", headers: dict[str, str] | None = None) -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response({"detail": detail}, status=status, headers=headers)

    return answer


class Cli:
    """Runs the program in a folder of its own, as cron would: no terminal, few variables."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {
            "PATH": os.environ["PATH"],
            "LLAMA_CLOUD_API_KEY": CANARY,
            "ORCHESTRATOR_SETTLE_S": "0.1",
            "ORCHESTRATOR_LATE_RESULTS_S": "0.2",
            "ORCHESTRATOR_RETRY_BUDGET_S": "600",
            "ORCHESTRATOR_CREATES_PER_S": "1000",
            "ORCHESTRATOR_READS_PER_S": "1000",
            "ORCHESTRATOR_LISTS_PER_S": "1000",
        }

    def __call__(self, *arguments: str, stdout: str | None = None, stderr: str | None = None, **environ: str) -> Done:
        """The result; that the key is in no output and in no file is checked every time."""
        done = forked.run(
            *arguments, folder=self.folder, environ={**self.environ, **environ}, stdout=stdout, stderr=stderr
        )
        assert CANARY not in done.stdout + done.stderr
        for path in self.folder.rglob("*"):
            if path.is_file():
                assert CANARY.encode() not in path.read_bytes(), path
        return done

    def process(
        self,
        *arguments: str,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
        environ: Mapping[str, str] = MappingProxyType({}),
    ) -> subprocess.CompletedProcess[bytes]:
        """The same as a process that starts again, with streams of one's own."""
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "orchestrator", *arguments],
            cwd=self.folder,
            env={**self.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            check=False,
        )

    def manifest(self, *file_ids: str, size: int = 100) -> None:
        ids = "\n".join(f"  - {file_id}" for file_id in file_ids)
        (self.folder / "m.yaml").write_text(MANIFEST.format(size=size, ids=ids))

    def use(self, server: Server) -> None:
        self.environ["LLAMA_CLOUD_BASE_URL"] = server.url

    def state(self) -> dict[str, Json]:
        """The state of the one manifest, as ``status`` reports it."""
        (state,) = json.loads(self("status", "--json").stdout)["manifests"]
        return dict(state)

    def exported(self) -> list[dict[str, Json]]:
        return [json.loads(line) for line in self("export").stdout.splitlines()]


def creates(server: Server) -> int:
    return sum(seen.method == "POST" for seen in server.seen)


@contextmanager
def command_line(folder: Path) -> Iterator[Cli]:
    """The program in *folder*, with a manifest of three files; that nobody else can read what it left is checked."""
    cli = Cli(folder)
    cli.manifest("a", "b", "c")
    yield cli
    for path in folder.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 or path.name == "m.yaml", path
