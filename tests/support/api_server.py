"""A small classify API (v1 and v2) that runs as a process of its own and remembers every create call: the oracle.

It is deliberately not the product's sandbox: what it counts was never seen by the code under test. Started by
``procs.ApiServer``; prints its URL, and ends when its standard input does, so that no test leaves one behind.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
import sys
import uuid
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NoReturn

from aiohttp import web

V1, V2 = "/api/v1/classifier/jobs", "/api/v2/classify"
LABELS = ("invoice", "receipt", None)


@dataclass
class Knobs:
    """The behaviour that ``POST /_set`` changes, from the next call on."""

    job_s: tuple[float, float] = (0.1, 0.3)  #: shortest and longest that a job takes
    create_s: tuple[float, float] = (0.0, 0.05)  #: how long a create call takes to have its effect
    answer_s: tuple[float, float] = (0.0, 0.05)  #: and how long its answer then takes
    stuck: str = ""  #: jobs with a file ID that has this text do not end
    fails: str = ""  #: from now on there is no result for a file ID that this pattern is found in
    at_fault: str = ""  #: v1: from now on such a file ends its whole job in error, without any result
    hold_creates: bool = False  #: create calls wait, without effect, until this is taken back
    lose_call: float = 0.0  #: share of create calls whose connection is closed before they have their effect
    lose_answer: float = 0.0  #: and after


@dataclass
class Job:
    id: str
    body: dict[str, Any]
    file_ids: list[str]
    created_at: datetime
    takes_s: float
    bad: list[str]  #: its files without a result
    sunk: bool


@dataclass
class State:
    knobs: Knobs = field(default_factory=Knobs)
    jobs: dict[str, Job] = field(default_factory=dict)
    by_key: dict[str, Job] = field(default_factory=dict)
    created: Counter[str] = field(default_factory=Counter)  #: file ID -> jobs that were made for it
    posts: int = 0
    lost: int = 0  #: create calls that never had an effect
    requests: int = 0
    rng: random.Random = field(default_factory=lambda: random.Random(7))


STATE = web.AppKey("state", State)
Handler = Any


def answer_to(file_id: str) -> dict[str, Any]:
    """The same answer for the same file, always."""
    rng = random.Random(file_id)
    label = rng.choice(LABELS)
    return {"type": label, "confidence": round(rng.random(), 3), "reasoning": f"because of {file_id} – naïve ✓"}


def has_ended(state: State, job: Job) -> bool:
    stuck = state.knobs.stuck
    if stuck and any(stuck in file_id for file_id in job.file_ids):
        return False
    return (datetime.now(UTC) - job.created_at).total_seconds() >= job.takes_s


async def _make(request: web.Request, body: dict[str, Any], file_ids: list[str], key: str | None) -> Job:
    """Make a job, or find the one that was made under *key*, as slowly and surely as the knobs say."""
    state = request.app[STATE]
    state.posts += 1
    await asyncio.sleep(state.rng.uniform(*state.knobs.create_s))
    while state.knobs.hold_creates:  # noqa: ASYNC110 - a knob is plain data, set by another process
        await asyncio.sleep(0.01)
    if state.rng.random() < state.knobs.lose_call:
        state.lost += 1
        _hang_up(request)
    job = state.by_key.get(key) if key else None
    if job is None:
        bad, at_fault = _matching(state.knobs.fails, file_ids), _matching(state.knobs.at_fault, file_ids)
        takes_s = state.rng.uniform(*state.knobs.job_s)
        job = Job(str(uuid.uuid4()), body, file_ids, datetime.now(UTC), takes_s, bad, sunk=bool(at_fault))
        state.jobs[job.id] = job
        state.created.update(file_ids)
        if key:
            state.by_key[key] = job
    if state.rng.random() < state.knobs.lose_answer:
        _hang_up(request)
    await asyncio.sleep(state.rng.uniform(*state.knobs.answer_s))
    return job


def _matching(pattern: str, file_ids: list[str]) -> list[str]:
    return [file_id for file_id in file_ids if pattern and re.search(pattern, file_id)]


def _hang_up(request: web.Request) -> NoReturn:
    """End the exchange as a broken network does: no status line, nothing."""
    if request.transport is not None:
        request.transport.abort()
    raise asyncio.CancelledError


def _common(job: Job, status: str) -> dict[str, Any]:
    at = job.created_at.isoformat()
    return {"id": job.id, "status": status, "created_at": at, "updated_at": at, "project_id": "p"}


def _v1(state: State, job: Job) -> dict[str, Any]:
    echo = {name: job.body[name] for name in ("rules", "mode", "parsing_configuration")}
    word = "ERROR" if job.sunk or len(job.bad) == len(job.file_ids) else "PARTIAL_SUCCESS" if job.bad else "SUCCESS"
    return {**_common(job, word if has_ended(state, job) else "PENDING"), "user_id": "u", **echo}


def _v2(state: State, job: Job) -> dict[str, Any]:
    ended = has_ended(state, job)
    echo = {name: job.body[name] for name in ("file_input", "transaction_id", "configuration")}
    result = answer_to(job.file_ids[0]) if ended and not job.bad else None
    return {**_common(job, ("FAILED" if job.bad else "COMPLETED") if ended else "RUNNING"), **echo, "result": result}


def _page(request: web.Request, jobs: list[Job]) -> tuple[list[Job], str | None]:
    start, size = int(request.query.get("page_token") or 0), int(request.query.get("page_size") or 50)
    return jobs[start : start + size], str(start + size) if start + size < len(jobs) else None


async def v1_create(request: web.Request) -> web.Response:
    body = await request.json()
    return web.json_response(_v1(request.app[STATE], await _make(request, body, body["file_ids"], None)))


async def v1_results(request: web.Request) -> web.Response:
    job = request.app[STATE].jobs[request.match_info["id"]]
    results = {f: None if job.sunk or f in job.bad else answer_to(f) for f in job.file_ids}
    items = [{"id": f, "classify_job_id": job.id, "file_id": f, "result": result} for f, result in results.items()]
    return web.json_response({"items": items, "next_page_token": None})


async def v2_create(request: web.Request) -> web.Response:
    body = await request.json()
    job = await _make(request, body, [body["file_input"]], body["transaction_id"])
    return web.json_response(_v2(request.app[STATE], job))


async def get(request: web.Request) -> web.Response:
    state = request.app[STATE]
    job = state.jobs.get(request.match_info["id"])
    if job is None:
        return web.json_response({"detail": "Classify job not found"}, status=404)
    return web.json_response((_v1 if request.path.startswith(V1) else _v2)(state, job))


async def listing(request: web.Request) -> web.Response:
    state, wanted, is_v1 = request.app[STATE], request.query.getall("job_ids", []), request.path.startswith(V1)
    jobs = [state.jobs[job_id] for job_id in wanted] if wanted else list(reversed(state.jobs.values()))
    page, token = _page(request, [job for job in jobs if ("file_ids" in job.body) == is_v1])
    return web.json_response({"items": [(_v1 if is_v1 else _v2)(state, job) for job in page], "next_page_token": token})


async def stats(request: web.Request) -> web.Response:
    state = request.app[STATE]
    job_files = {job.id: job.file_ids for job in state.jobs.values()}
    return web.json_response(
        {
            "created": state.created,
            "jobs": job_files,
            "posts": state.posts,
            "lost": state.lost,
            "requests": state.requests,
        }
    )


async def change(request: web.Request) -> web.Response:
    for name, value in (await request.json()).items():
        setattr(request.app[STATE].knobs, name, value)
    return web.json_response({})


@web.middleware
async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
    request.app[STATE].requests += request.path.startswith("/api/")
    answer: web.StreamResponse = await handler(request)
    return answer


async def serve() -> None:
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # a client that is killed is no news here
    app = web.Application(middlewares=[count], client_max_size=2**26)
    app[STATE] = State()
    app.add_routes([
        web.post(V1, v1_create), web.get(V1, listing), web.get(V1 + "/{id}", get),
        web.get(V1 + "/{id}/results", v1_results),
        web.post(V2, v2_create), web.get(V2, listing), web.get(V2 + "/{id}", get),
        web.get("/_stats", stats), web.post("/_set", change),
    ])  # fmt: skip
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=512)
    await site.start()
    print(json.dumps(f"http://127.0.0.1:{runner.addresses[0][1]}"), flush=True)
    await asyncio.to_thread(sys.stdin.buffer.read)  # until whoever started this process ends


if __name__ == "__main__":
    asyncio.run(serve())
