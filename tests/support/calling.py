"""Calls to a server of the test's own, with waits that cost no time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from aiohttp import web
from support.server import CANARY, Answer, FakeClock, Server

from orchestrator.api.client import Api
from orchestrator.api.dialect import Dialect, Target
from orchestrator.api.limiter import AdaptiveLimiter, Limiters
from orchestrator.api.v1 import V1
from orchestrator.api.wire import Wire
from orchestrator.models import Chunk, Json

T = TypeVar("T")


Serve = Callable[[Answer], Server]


ID = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"


JOB = {"id": ID, "status": "PENDING", "rules": [], "user_id": "u", "project_id": "p"}


def always(status: int, body: Json = None, headers: dict[str, str] | None = None) -> Answer:
    """A server that gives one answer."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response(body, status=status, headers=headers)

    return answer


def in_turn(*answers: Answer) -> Answer:
    """A server that gives these answers one after the other, and the last one for ever."""
    rest: Iterator[Answer] = iter(answers)
    last = answers[-1]

    async def answer(request: web.Request) -> web.StreamResponse:
        return await next(rest, last)(request)

    return answer


def with_api(
    base_url: str,
    use: Callable[[Api], Awaitable[T]],
    *,
    dialect: Dialect | None = None,
    timeout_s: float = 60,
    retry_budget_s: float = 60,
    clock: FakeClock | None = None,
    key: str = CANARY,
) -> T:
    """Return the result of *use* with an API at *base_url* whose waits cost no time."""

    async def go() -> T:
        time = clock or FakeClock()
        wire = Wire(base_url, key, timeout_s=timeout_s, fresh_creates=True)
        limiters = Limiters(*(AdaptiveLimiter(1000, time) for _ in range(4)))
        api = Api(
            dialect or V1(Target()),
            wire,
            limiters,
            clock=time,
            rng=random.Random(1),
            retry_budget_s=retry_budget_s,
        )
        try:
            return await use(api)
        finally:
            await api.close()

    return asyncio.run(go())


def create(chunk: Chunk) -> Callable[[Api], Awaitable[object]]:
    async def intend() -> None:
        """Nothing to write down."""

    return lambda api: api.create(chunk, intend=intend)


def get(api: Api) -> Awaitable[object]:
    return api.get(ID)


def drop(request: web.Request) -> None:
    """Cut the connection."""
    assert request.transport is not None
    request.transport.abort()
