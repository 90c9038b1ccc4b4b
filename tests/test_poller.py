"""Asking about many v1 jobs: pages of the listing stand in for calls by name, and are believed only so far."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from ledgers import SMALL, plan
from simulation.episode import SETTINGS, quiet, unencrypted
from simulation.loop import EPOCH, VirtualClock, VirtualLoop

from orchestrator.ledger import Ledger
from orchestrator.ledger.database import scalar_int
from orchestrator.ledger.jobs import Shard
from orchestrator.ledger.writer import Writer
from orchestrator.manifest import Manifest
from orchestrator.models import Json, Limits, Review
from orchestrator.pipeline import Pipeline

JOBS = 150

#: What a list call answers: (status, body) for all jobs, the newest first, and the token of the page.
Listing = Callable[[list[Json], str | None], tuple[int, Json]]


class V1Api(httpx.AsyncBaseTransport):
    """Jobs of one file that take 12 to 20 s; *listing* says what a list call answers, see Listing."""

    def __init__(self, loop: VirtualLoop, listing: Listing) -> None:
        self._loop = loop
        self._listing = listing
        self._jobs: dict[str, tuple[float, float, str]] = {}  # id -> created, ends, file
        self._rng = random.Random(5)
        self.calls: Counter[str] = Counter()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.05)
        parts = request.url.path.removeprefix("/api/v1/classifier/jobs").strip("/").split("/")
        if request.method == "POST":
            self.calls["create"] += 1
            now, (file_id,) = self._loop.time(), json.loads(request.content)["file_ids"]
            self._jobs[f"job-{len(self._jobs)}"] = (now, now + self._rng.uniform(12, 20), file_id)
            return _answer(200, self._job(f"job-{len(self._jobs) - 1}"))
        if parts == [""]:
            self.calls["list"] += 1
            status, body = self._listing(
                [self._job(job_id) for job_id in reversed(self._jobs)], request.url.params.get("page_token")
            )
            return _answer(status, body)
        self.calls["results" if parts[1:] else "get"] += 1
        if parts[1:]:
            row = {"id": "r", "file_id": self._jobs[parts[0]][2], "result": {"type": "invoice", "confidence": 0.9}}
            return _answer(200, {"items": [row], "next_page_token": None})
        return _answer(200, self._job(parts[0]))

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


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with unencrypted(), quiet():
        yield


def run(folder: Path, listing: Listing) -> tuple[Counter[str], float]:
    """The calls of a run of ``JOBS`` jobs, all of which were recorded, and how long it took."""
    loop = VirtualLoop(0.0)
    clock, api = VirtualClock(loop, 0.0), V1Api(loop, listing)
    manifest = Manifest(
        path="m.yaml",
        name="m",
        api="v1",
        config=SMALL,
        project_id=None,
        organization_id=None,
        webhook_configurations=(),
        webhook_configuration_ids=(),
        chunk_size=1,
        review=Review(),
        limits=Limits(),
        sha256="0" * 64,
        ids=(),
    )
    with Ledger(folder / "ledger.db") as ledger:
        with ledger.transaction() as connection:
            scope = plan(connection, SMALL, [f"file-{number}" for number in range(JOBS)], size=1)
        pipeline = Pipeline(
            manifest,
            SETTINGS,
            base_url="https://api.example",
            key="key",
            shard=Shard(scope.manifest_id, "v1"),
            run_id="r",
            writer=Writer(ledger, clock),
            clock=clock,
            rng=random.Random(1),
            transport=api,
        )

        async def go() -> None:
            await pipeline.run(wait=True)
            await pipeline.close()

        loop.run_until_complete(go())
        took = loop.time()
        loop.close()
        with ledger.transaction() as connection:
            assert scalar_int(connection, "SELECT count(*) FROM results WHERE outcome = 'classified'") == JOBS
    return api.calls, took


def honest(jobs: list[Json], token: str | None) -> tuple[int, Json]:
    after = int(token or 0)
    return 200, {
        "items": jobs[after : after + 100],
        "next_page_token": str(after + 100) if jobs[after + 100 :] else None,
    }


def unhelpful(jobs: list[Json], token: str | None) -> tuple[int, Json]:
    return 200, {"items": [], "next_page_token": None}


def test_pages_of_the_listing_save_most_calls(tmp_path: Path) -> None:
    """At most 0.6 of the status calls that asking by name takes, and no later."""
    (tmp_path / "by_name").mkdir()
    by_name, took_by_name = run(tmp_path / "by_name", unhelpful)
    calls, took = run(tmp_path, honest)
    assert calls["create"] == calls["results"] == JOBS
    assert calls["get"] + calls["list"] <= 0.6 * (by_name["get"] + by_name["list"])
    assert took <= took_by_name


@pytest.mark.parametrize(
    "listing",
    [
        unhelpful,
        lambda jobs, token: (200, {"items": jobs[-1:], "next_page_token": "again"}),
        lambda jobs, token: (404, {"detail": "no such route"}),
        lambda jobs, token: (200, {"items": [{**job, "status": "PENDING"} for job in jobs]}),
    ],
    ids=["empty", "going in circles", "gone", "stale"],
)
def test_a_listing_that_does_not_help_is_done_without(tmp_path: Path, listing: Listing) -> None:
    """Jobs that it leaves out, or is wrong about, are asked about by name, and it is not read again and again."""
    calls, took = run(tmp_path, listing)
    assert calls["list"] <= 0.5 * JOBS
    assert calls["get"] <= 4 * JOBS
    assert took <= 60
