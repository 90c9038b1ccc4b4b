"""A whole run against a v1 API in virtual time: what it asked, and how long it took."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import httpx
from simulation.loop import EPOCH, VirtualClock, VirtualLoop
from simulation.process import SETTINGS, quiet, unencrypted
from support.ledgers import SMALL, plan

from orchestrator.commands.access import connect
from orchestrator.ledger import Ledger
from orchestrator.ledger.queue import Shard
from orchestrator.ledger.sql import scalar_int
from orchestrator.ledger.writer import Writer
from orchestrator.manifest.loading import Manifest
from orchestrator.models import Json, Limits, Review
from orchestrator.stages.pipeline import Pipeline

#: What a list call answers: (status, body) for all jobs, the newest first, and the token of the page.
Listing = Callable[[list[Json], str | None], tuple[int, Json]]


class V1Api(httpx.AsyncBaseTransport):
    """Jobs that take 12 to 20 s, with every file an invoice; *listing* says what a list call answers."""

    def __init__(self, loop: VirtualLoop, listing: Listing, broken: int, denied: bool) -> None:
        """The results of the first *broken* jobs answer 500 for ever; *denied*: no job is found by its name."""
        self._loop = loop
        self._listing = listing
        self._broken = broken
        self._denied = denied
        self.read_at = 0.0  #: when good results were last read
        self._jobs: dict[str, tuple[float, float, list[str]]] = {}  # id -> created, ends, files
        self._rng = random.Random(5)
        self.calls: Counter[str] = Counter()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.05)
        parts = request.url.path.removeprefix("/api/v1/classifier/jobs").strip("/").split("/")
        if request.method == "POST":
            self.calls["create"] += 1
            now, file_ids = self._loop.time(), json.loads(request.content)["file_ids"]
            self._jobs[f"job-{len(self._jobs)}"] = (now, now + self._rng.uniform(12, 20), file_ids)
            return _answer(200, self._job(f"job-{len(self._jobs) - 1}"))
        if parts == [""]:
            self.calls["list"] += 1
            status, body = self._listing(
                [self._job(job_id) for job_id in reversed(self._jobs)], request.url.params.get("page_token")
            )
            return _answer(status, body)
        self.calls["results" if parts[1:] else "get"] += 1
        if parts[1:] and int(parts[0].removeprefix("job-")) < self._broken:
            return _answer(500, {"detail": "oops"})
        if parts[1:]:
            self.read_at = self._loop.time()
            result = {"type": "invoice", "confidence": 0.9, "reasoning": "has a total"}
            rows = [{"id": "r", "file_id": file_id, "result": result} for file_id in self._jobs[parts[0]][2]]
            return _answer(200, {"items": rows, "next_page_token": None})
        return _answer(404, {"detail": "not found"}) if self._denied else _answer(200, self._job(parts[0]))

    def _job(self, job_id: str) -> dict[str, Json]:
        created, ends, _ = self._jobs[job_id]
        return {
            "id": job_id,
            "status": "SUCCESS" if self._loop.time() >= ends else "PENDING",
            "rules": [],
            "user_id": "u",
            "project_id": "p",
            "created_at": (EPOCH + timedelta(seconds=created)).isoformat(),
            "updated_at": (EPOCH + timedelta(seconds=min(ends, self._loop.time()))).isoformat(),
        }


def _answer(status: int, body: Json) -> httpx.Response:
    return httpx.Response(status, stream=httpx.ByteStream(json.dumps(body).encode()))


def honest(jobs: list[Json], token: str | None) -> tuple[int, Json]:
    """A good API's list: a hundred a page."""
    after = int(token or 0)
    following = str(after + 100) if jobs[after + 100 :] else None
    return 200, {"items": jobs[after : after + 100], "next_page_token": following}


def run(
    folder: Path, jobs: int, *, size: int = 1, listing: Listing = honest, broken: int = 0, denied: bool = False
) -> tuple[Counter[str], float]:
    """The calls of a run of *jobs* jobs of *size* files, of which all but the *broken* ones' results were recorded.

    And how long it took until the last of them were read.
    """
    with unencrypted(), quiet():
        return _run(folder, jobs, size, listing, broken, denied)


def _run(folder: Path, jobs: int, size: int, listing: Listing, broken: int, denied: bool) -> tuple[Counter[str], float]:
    loop = VirtualLoop(0.0)
    clock, api = VirtualClock(loop, 0.0), V1Api(loop, listing, broken, denied)
    manifest = Manifest(
        path="m.yaml",
        name="m",
        api="v1",
        config=SMALL,
        project_id=None,
        organization_id=None,
        webhook_configurations=(),
        webhook_configuration_ids=(),
        chunk_size=size,
        review=Review(),
        limits=Limits(),
        sha256="0" * 64,
        ids=(),
    )
    with Ledger(folder / "ledger.db") as ledger:
        with ledger.transaction() as connection:
            scope = plan(connection, SMALL, [f"file-{number}" for number in range(jobs * size)], size=size)
        rng = random.Random(1)
        pipeline = Pipeline(
            manifest,
            connect(
                manifest,
                "v1",
                SETTINGS,
                base_url="https://api.example",
                key="key",
                clock=clock,
                rng=rng,
                transport=api,
            ),
            shard=Shard(scope.manifest_id, "v1"),
            run_id="r",
            writer=Writer(ledger, clock),
            clock=clock,
            rng=rng,
            settle_s=SETTINGS.settle_s,
            stale_s=SETTINGS.stale_s,
        )

        async def go() -> None:
            await pipeline.run(wait=True)
            await pipeline.close()

        loop.run_until_complete(go())
        took = api.read_at
        loop.close()
        with ledger.transaction() as connection:
            assert (
                scalar_int(connection, "SELECT count(*) FROM results WHERE outcome = 'classified'")
                == (jobs - broken) * size
            )
    return api.calls, took
