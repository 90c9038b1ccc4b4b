"""Webhooks, for rehearsals: the events of a job, signed as the API signs them, delivered to this machine only.

The API promises neither order nor exactly one delivery; the sandbox makes at most three attempts at each event.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import json
from collections.abc import Mapping
from urllib.parse import urlsplit

import aiohttp

from orchestrator.models import Json
from orchestrator.sandbox.world import UNDER_WAY, Job, Phase, World

#: The event of each phase; a status outside the contract has none.
EVENTS: Mapping[Phase, str] = {
    Phase.PENDING: "classify.pending",
    Phase.RUNNING: "classify.running",
    Phase.DONE: "classify.success",
    Phase.PARTIAL: "classify.partial_success",
    Phase.ERROR: "classify.error",
    Phase.CANCELLED: "classify.cancelled",
}

#: The phases that are announced up to one; every other one is announced after pending and running.
_ON_THE_WAY: Mapping[Phase, tuple[Phase, ...]] = {
    Phase.PENDING: (Phase.PENDING,),
    Phase.UNHEARD: (Phase.PENDING,),
    Phase.CANCELLED: (Phase.PENDING, Phase.CANCELLED),
}

#: Seconds before the second and the third attempt.
WAITS_S = (1.0, 2.0)
TIMEOUT_S = 30.0

#: Most seconds until a cancellation is noticed.
_LOOK_S = 0.5
_AT_ONCE = 20
#: A rehearsal ends with its last job, whose event is then still on its way.
_GRACE_S = 1.0


class Deliveries:
    """Follows each job that has webhooks. ``World.webhooks`` counts what was delivered, failed and not allowed."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(_AT_ONCE)

    def begin(self, job: Job) -> None:
        """Deliver *job*'s events from now on."""
        task = asyncio.get_running_loop().create_task(self._follow(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Give the events of jobs that have ended a moment to be delivered, then end every delivery."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_GRACE_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _follow(self, job: Job) -> None:
        world, sent = self._world, set[Phase]()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(TIMEOUT_S)) as session:
            while not job.deleted:
                phase = world.phase(job)
                for due in _ON_THE_WAY.get(phase, (Phase.PENDING, Phase.RUNNING, phase)):
                    if due not in sent:
                        sent.add(due)
                        await self._announce(session, EVENTS[due], job)
                if phase not in UNDER_WAY:
                    return
                await world.options.clock.sleep(_LOOK_S if world.now() > job.ends_at else self._until_change(job))

    async def _announce(self, session: aiohttp.ClientSession, event: str, job: Job) -> None:
        for hook in job.webhooks:
            if hook.get("webhook_events") is None or event in hook["webhook_events"]:
                await self._deliver(session, hook, event, job)

    def _until_change(self, job: Job) -> float:
        now, started = self._world.now(), job.created_at + (job.ends_at - job.created_at) / 3
        return max(0.01, min(_LOOK_S, (started if now < started else job.ends_at) - now))

    async def _deliver(self, session: aiohttp.ClientSession, hook: Mapping[str, Json], event: str, job: Job) -> None:
        world, url = self._world, hook.get("webhook_url") or ""
        if not _on_loopback(url):
            world.webhooks["not allowed"] += 1
            return
        body, headers = message(world, hook, event, job)
        for wait_s in (*WAITS_S, None):
            try:
                async with self._slots, session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                    if 200 <= answer.status < 300:
                        world.webhooks["delivered"] += 1
                        return
            except (aiohttp.ClientError, OSError, ValueError, TimeoutError):
                pass  # the next attempt may do better
            if wait_s is not None:
                await world.options.clock.sleep(wait_s)
        world.webhooks["failed"] += 1


def message(world: World, hook: Mapping[str, Json], event: str, job: Job) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of one delivery. Without ``webhook_output_format: json`` the body is encoded twice."""
    event_id = world.story.uuid("event", job.number, event)
    value: Json = {
        "event_id": event_id,
        "event_type": event,
        "timestamp": world.wall(world.now()).timestamp(),
        "data": {"id": job.id, "job_id": job.id},
    }
    if hook.get("webhook_output_format") != "json":
        value = json.dumps(value)
    body = json.dumps(value).encode()
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "llamaindex-webhook-service/1.0",
        "X-Webhook-Event-ID": event_id,
        "X-Webhook-Event-Type": event,
        **{name: str(text) for name, text in (hook.get("webhook_headers") or {}).items()},
    }
    if secret := hook.get("webhook_signing_secret"):
        headers["LC-Signature"] = f"sha256={hmac.new(str(secret).encode(), body, hashlib.sha256).hexdigest()}"
    return body, headers


def _on_loopback(url: str) -> bool:
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
