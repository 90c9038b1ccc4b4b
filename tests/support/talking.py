"""A conversation with the embedded API over real sockets, in time that nobody waits for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from support.server import FakeClock

from orchestrator.models import Json
from orchestrator.sandbox import Sandbox, SandboxOptions

V1, V2, FILES = "/api/v1/classifier/jobs", "/api/v2/classify", "/api/v1/beta/files"

RULES = [
    {"type": "invoice", "description": "asks to be paid: invoice number, line items and a total amount due"},
    {"type": "contract", "description": "an agreement between parties, with clauses and signatures"},
]
INVOICE = b"INVOICE. Invoice number 17. Line items: two bolts. Total amount due: 12.50"

#: One for all clients: no call here is encrypted, and making a context takes longer than most of the tests.
TLS = httpx.create_ssl_context()

#: After so many seconds every job has ended.
LATER_S = 3.0


def uid(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


@dataclass
class Talk:
    """A sandbox that runs, a client of it, and its clock."""

    sandbox: Sandbox
    client: httpx.AsyncClient
    clock: FakeClock

    async def create(self, *file_ids: str, **fields: Json) -> httpx.Response:
        return await self.client.post(V1, json={"file_ids": file_ids or [uid(1)], "rules": RULES, **fields})

    async def classify(self, document: str = uid(1), **fields: Json) -> httpx.Response:
        return await self.client.post(V2, json={"file_input": document, "configuration": {"rules": RULES}, **fields})

    async def upload(self, content: bytes = INVOICE, name: str = "a.txt", **fields: str) -> httpx.Response:
        data = {"purpose": "classify", **fields}
        return await self.client.post(FILES, data=data, files={"file": (name, content)})

    async def ended(self, *file_ids: str, **fields: Json) -> dict[str, Json]:
        """A v1 job that has ended, as a read of it tells."""
        job_id = (await self.create(*file_ids, **fields)).json()["id"]
        self.clock.seconds += LATER_S
        return dict(await self.json(f"{V1}/{job_id}"))

    async def rows(self, job_id: str) -> list[Json]:
        page = await self.json(f"{V1}/{job_id}/results")
        return list(page["items"])

    async def json(self, path: str, **query: str | list[str]) -> Any:
        response = await self.client.get(path, params=query)
        assert response.status_code == 200, response.text
        return response.json()


@asynccontextmanager
async def talking(**options: Any) -> AsyncIterator[Talk]:
    clock = FakeClock()
    unlimited = {"creates_per_s": 0, "gets_per_s": 0, "lists_per_s": 0, "uploads_per_s": 0}
    sandbox = Sandbox(SandboxOptions(**{"clock": clock, **unlimited, **options}))
    base_url = await sandbox.start()
    headers = {"Authorization": "Bearer llx-any"}
    try:
        async with httpx.AsyncClient(
            base_url=base_url, headers=headers, verify=TLS, trust_env=False, timeout=60
        ) as client:
            yield Talk(sandbox, client, clock)
    finally:
        await sandbox.stop()


def converse(story: Callable[[Talk], Awaitable[None]], **options: Any) -> None:
    """Run *story* with a sandbox that has these options."""

    async def main() -> None:
        async with talking(**options) as talk:
            await story(talk)

    asyncio.run(main())
