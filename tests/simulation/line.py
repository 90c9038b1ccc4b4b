"""The line between one process and the simulated API: an httpx transport that answers, lies, hangs, or lets it die."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Protocol

import httpx

from orchestrator.models import Json
from orchestrator.stages.work import DRAIN_S
from simulation.custom import plain
from simulation.home import Reader
from simulation.loop import VirtualLoop
from simulation.purchases import Intent, Purchases
from simulation.world import LOST, MOST_LATE_S, REFUSED, SAID_YES, TIMEOUT_S, SimJob, World, rules_of


class Mortal(Protocol):
    """What the line knows of the process that uses it."""

    dead: bool
    stopped_at: float | None  #: when it was told to end in order
    replaced: bool  #: another run has its manifest

    def point(self, name: str) -> None:
        """The process may die here; raises when it does, or is dead already."""


class Line(httpx.AsyncBaseTransport):
    """Answers one process's requests out of *world*; reads its ledger with *reader*, a connection of its own."""

    def __init__(self, world: World, purchases: Purchases, process: Mortal, loop: VirtualLoop, reader: Reader) -> None:
        self._world = world
        self._purchases = purchases
        self._process = process
        self._loop = loop
        self._reader = reader

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        world, process = self._world, self._process
        world.now = self._loop.time()
        process.point("call.leaves")
        creating = request.method == "POST" and not _cancels(request)
        world.tell(request.method, request.url.raw_path.decode())
        if creating and (look := request.extensions.get("trace")) is not None:
            await look("http11.send_request_headers.started", {})
            if process.replaced:
                world.violated("a create call left although another run has the manifest")
        response = await (self._create(request) if creating else self._read(request))
        process.point("call.answered")
        return response

    # -- creates -------------------------------------------------------------------------------------------------

    async def _create(self, request: httpx.Request) -> httpx.Response:
        world = self._world
        body = json.loads(request.content)
        files = tuple(map(plain, body["file_ids"] if world.api == "v1" else [body["file_input"]]))
        intent = self._intent(files, body)
        if intent is None:
            world.violated(f"a create call for {files} left without an intent on disk")
        if world.in_outage() or world.chance(world.climate.create_faults):
            return await self._faulty_create(files, body, intent)
        return await self._honest_create(files, body, intent)

    def _intent(self, files: tuple[str, ...], body: dict[str, Json]) -> Intent | None:
        """What the committed row says that says that this call is about to be made."""
        rows = self._reader.execute(
            "SELECT j.size, c.canonical, f.chunk_id, j.depth > 0, j.escalation, j.run_id FROM files f "
            "JOIN jobs j ON j.id = f.chunk_id JOIN configs c ON c.id = j.config_id "
            "WHERE j.status = 'submitting' AND f.file_id = ? ORDER BY j.id DESC",
            (files[0],),
        ).fetchall()
        asked = body.get("configuration", body)
        rules = [[rule["type"], rule["description"]] for rule in asked["rules"]]
        for size, canonical, *intent in rows:
            config = json.loads(canonical)
            if size == len(files) and config["rules"] == rules and config["mode"] == asked["mode"]:
                chunk_id, half, second_opinion, run_id = intent
                generations = self._reader.execute(
                    "SELECT file_id, generation FROM files WHERE chunk_id = ?", (chunk_id,)
                ).fetchall()
                return Intent(chunk_id, dict(generations), bool(half), bool(second_opinion), run_id)
        return None

    async def _honest_create(
        self, files: tuple[str, ...], body: dict[str, Json], intent: Intent | None
    ) -> httpx.Response:
        if (refusal := self._refusal(files, body, intent)) is not None:
            return refusal
        world = self._world
        job = self._mistaken(files, body)
        if job is None or world.api == "v1":
            own = self._commit(files, body, intent, 0.0)
            job = job or own
        await self._take(world.rng.uniform(0.05, 3.0))
        return _answer(200, world.as_json(job))

    def _mistaken(self, files: tuple[str, ...], body: dict[str, Json]) -> SimJob | None:
        """The job that the API takes for the call's, if it mistakes another's; with a key it stands by that."""
        world, key = self._world, str(body.get("transaction_id"))
        if key in world.misled_keys or key in world.by_key:
            return world.misled_keys.get(key)
        job = world.anothers(files) if world.befalls(world.mood.mistaken) else None
        if job is not None:
            if world.mood.nobodys and world.dice.random() < 0.5:
                job = replace(job, id=f"nobodys-{len(world.jobs):04d}")
                world.made_up.append(job.id)
            world.tell("answers with", job.id)
            if world.api == "v2":
                world.misled_keys[key] = job
        return job

    def _refusal(self, files: tuple[str, ...], body: dict[str, Json], intent: Intent | None) -> httpx.Response | None:
        world = self._world
        if body.get("transaction_id") in world.by_key and world.chance(world.climate.refused_again):
            world.tell("refuses again", files)
            return _answer(422, {"detail": "simulated 422"})
        unknown = [file_id for file_id in files if file_id in world.unknown_files]
        if not unknown:
            return None
        self._purchases.refuse(files, rules_of(body), intent)
        return _answer(400, {"detail": f"File ID {unknown[0]} is not in Project ID project"})

    def _commit(self, files: tuple[str, ...], body: dict[str, Json], intent: Intent | None, delay_s: float) -> SimJob:
        world, known = self._world, len(self._world.jobs)
        job = world.commit(files, body, delay_s)
        if len(world.jobs) > known:
            world.tell("commits", job.id, files, f"{delay_s:.3f}")
            job.chunk_id = intent.chunk_id if intent else -1
            if intent is not None:
                job.generations = intent.generations
                self._purchases.judge(job, intent)
        self._process.point("create.committed")
        return job

    async def _faulty_create(
        self, files: tuple[str, ...], body: dict[str, Json], intent: Intent | None
    ) -> httpx.Response:
        world, rng = self._world, self._world.rng
        fault = "connect" if world.in_outage() and rng.random() < 0.5 else rng.choice(world.climate.kinds)
        if fault in ("401", "402") and rng.random() < 0.7:
            fault = "429"
        world.tell("create meets", fault)
        if fault in REFUSED:
            await self._take(rng.uniform(0.05, 2.0))
            return self._fail(fault)
        said_yes = fault in SAID_YES
        if said_yes and (refusal := self._refusal(files, body, intent)) is not None:
            return refusal
        job = None
        if (said_yes or rng.random() < 0.5) and not world.unknown_files.intersection(files):
            late = not said_yes and world.chance(world.climate.late)
            job = self._commit(files, body, intent, world.up_to(MOST_LATE_S) if late else 0.0)
        await self._take(1e6 if fault == "hang" else rng.uniform(0.05, 3.0))
        return self._fail(fault, job)

    async def _take(self, seconds: float) -> None:
        """The call is out for *seconds*. Cutting a create short early, when its answer may be near, is a violation."""
        world, process, began = self._world, self._process, self._loop.time()
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            now, stopped = self._loop.time(), process.stopped_at
            drained = stopped is not None and now - stopped >= DRAIN_S - 0.01
            if not process.dead and not drained and now - began < TIMEOUT_S - 0.01:
                world.violated(f"a create call was cut short {now - began:.3f} s after it left")
            raise
        finally:
            world.now = self._loop.time()

    # -- reads ---------------------------------------------------------------------------------------------------

    async def _read(self, request: httpx.Request) -> httpx.Response:
        world, rng = self._world, self._world.rng
        fault = rng.choice((*LOST[:-1], *REFUSED[:3])) if world.chance(world.climate.read_faults) else None
        if world.in_outage():
            fault = rng.choice(("connect", "503"))
        await asyncio.sleep(1e6 if fault == "hang" else rng.uniform(0.02, 0.5))
        world.now = self._loop.time()
        self._process.point("read.arrived")
        if fault is None:
            return self._told(request)
        if _cancels(request) and fault in LOST:
            self._told(request)
        return self._fail(fault)

    def _told(self, request: httpx.Request) -> httpx.Response:
        world, parts = self._world, request.url.path.strip("/").split("/")
        token = request.url.params.get("page_token")
        at = 3 if world.api == "v2" else 4
        if world.is_down("list" if len(parts) == at else "results" if parts[-1] == "results" else "get"):
            return _answer(world.mood.down_with, {"detail": f"simulated {world.mood.down_with}"})
        if len(parts) == at:
            asked = request.url.params.get_list("job_ids")
            shown = [world.as_json(job) for job in world.listed() if not asked or job.id in asked]
            return self._page(shown, token, world.climate.page_size if not asked else 100)
        job = world.find(parts[at])
        if job is None:
            return _answer(404, {"detail": "Classify job not found"})
        if _cancels(request) and not world.cancel(job):
            return _answer(409, {"detail": "Classify job has ended and cannot be cancelled"})
        if parts[-1] != "results":
            return _answer(200, world.as_json(job))
        if world.now < job.results_at:
            return _answer(404, {"detail": "Result not found. Check job status to see if it has completed."})
        rows = [
            {"id": f"{job.id}-{n}", "classify_job_id": job.id, "file_id": file_id, "result": result}
            for n, (file_id, result) in enumerate(world.told(job))
        ]
        return self._page(rows, token, world.climate.page_size)

    def _page(self, items: list[dict[str, Json]], token: str | None, size: int) -> httpx.Response:
        world, after = self._world, int(token[1:]) if token else 0
        following = f"p{after + size}" if after + size < len(items) else None
        if following and world.chance(world.climate.read_faults / 20):
            following = token or "p0"  # in a circle
        return _answer(200, {"items": items[after : after + size], "next_page_token": following})

    # -- both ----------------------------------------------------------------------------------------------------

    def _fail(self, fault: str, job: SimJob | None = None) -> httpx.Response:
        """What the program gets to see of *fault*."""
        match fault:
            case "connect":
                raise httpx.ConnectError("refused")
            case "read":
                raise httpx.ReadError("reset")
            case "protocol" | "hang":
                raise httpx.RemoteProtocolError("closed without an answer")
            case "html":
                return _raw(200, b"<html>welcome</html>")
            case "cut":
                return _raw(200, b'{"id": "job-')
            case "no id":
                return _answer(200, {"status": "PENDING"})
            case "429 wait":
                return _raw(429, b'{"detail": "slow down"}', {"retry-after": self._world.rng.choice(("1", "7"))})
        return _answer(int(fault), {"detail": f"simulated {fault}"})


def _cancels(request: httpx.Request) -> bool:
    return request.url.path.endswith("/cancel")


def _answer(status: int, body: Json) -> httpx.Response:
    return _raw(status, json.dumps(body).encode())


def _raw(status: int, body: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.Response(status, headers=headers, stream=httpx.ByteStream(body))
