"""Webhooks of the sandbox: delivered to this machine, signed, tried three times, and to no other host."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web
from support.commands import Serve, command_line
from support.talking import Talk, talking, uid

from orchestrator.clock import SystemClock

#: More than the hundredths of a second that jobs last here.
PATIENCE_S = 10.0


class Receiver:
    """A server of the user's that keeps what it gets, and refuses the first *refusals* deliveries."""

    def __init__(self, refusals: int = 0) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.refusals = refusals
        self.tries = 0

    async def answer(self, request: web.Request) -> web.Response:
        self.tries += 1
        if self.tries <= self.refusals:
            return web.Response(status=503)
        self.got.append((dict(request.headers), await request.read()))
        return web.Response(status=204)

    async def start(self) -> tuple[str, web.AppRunner]:
        app = web.Application()
        app.router.add_post("/hook", self.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}/hook", runner


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not done():  # noqa: ASYNC110 - counts of the sandbox, which has no event for a test
            await asyncio.sleep(0.01)


def delivered(receiver: Receiver, count: int, version: str = "v2", **hook: Any) -> Talk:
    """Create a job with one webhook, and wait for *count* deliveries."""

    async def main() -> Talk:
        async with talking(clock=SystemClock(), job_seconds=(0.03, 0.03)) as talk:
            url, runner = await receiver.start()
            create = talk.classify if version == "v2" else talk.create
            answer = await create(uid(1), webhook_configurations=[{"webhook_url": url, **hook}])
            assert answer.status_code == 200, answer.text
            await until(lambda: len(receiver.got) == count)
            await until(lambda: talk.sandbox.state.webhooks["delivered"] == count)
            await runner.cleanup()
            return talk

    return asyncio.run(main())


def test_each_step_of_a_job_is_an_event() -> None:
    """Pending, running, success; an object when JSON is asked for."""
    receiver = Receiver()
    delivered(receiver, 3, webhook_output_format="json", webhook_headers={"X-Team": "papers"})
    values = [json.loads(body) for _, body in receiver.got]
    assert [value["event_type"] for value in values] == ["classify.pending", "classify.running", "classify.success"]
    assert len({value["event_id"] for value in values}) == 3
    headers, body = receiver.got[0]
    assert headers["X-Webhook-Event-Type"] == "classify.pending"
    assert headers["X-Webhook-Event-ID"] == json.loads(body)["event_id"]
    assert (headers["X-Team"], headers["User-Agent"]) == ("papers", "llamaindex-webhook-service/1.0")
    assert "LC-Signature" not in headers


def test_a_secret_signs_the_raw_body_which_is_encoded_twice_by_default() -> None:
    """HMAC-SHA256, as a receiver checks it; on v1 as well."""
    receiver = Receiver()
    delivered(receiver, 1, "v1", webhook_events=["classify.success"], webhook_signing_secret="s3cret")
    headers, body = receiver.got[0]
    assert headers["LC-Signature"] == f"sha256={hmac.new(b's3cret', body, hashlib.sha256).hexdigest()}"
    assert json.loads(json.loads(body))["event_type"] == "classify.success"


def test_a_refused_delivery_is_tried_again() -> None:
    """After a second, as the API does."""
    receiver = Receiver(refusals=1)
    delivered(receiver, 1, webhook_events=["classify.success"])
    assert receiver.tries == 2


def test_a_rehearsal_delivers_what_its_manifest_asks_for(tmp_path: Path, serve: Serve) -> None:
    """The last event, too, though the run ends with its last job."""

    async def fine(_: web.Request) -> web.StreamResponse:
        return web.Response(status=200)

    receiver = serve(fine)
    with command_line(tmp_path) as cli:
        cli.manifest(uid(1))
        with (tmp_path / "m.yaml").open("a") as manifest:
            manifest.write(f"webhook_configurations: [{{webhook_url: {receiver.url}/hook}}]\n")
        assert cli("run", "m.yaml", "--sandbox").returncode == 0
    events = [seen.headers["X-Webhook-Event-Type"] for seen in receiver.seen]
    assert events == ["classify.pending", "classify.running", "classify.success"]


def test_nothing_is_delivered_to_another_host() -> None:
    """A rehearsal reaches nobody outside this machine."""

    async def main() -> None:
        async with talking(clock=SystemClock(), job_seconds=(0.01, 0.01)) as talk:
            hook = {"webhook_url": "https://hooks.example.com/x", "webhook_events": ["classify.success"]}
            assert (await talk.classify(uid(1), webhook_configurations=[hook])).status_code == 200
            await until(lambda: talk.sandbox.state.webhooks["not allowed"] == 1)
            assert talk.sandbox.state.webhooks["delivered"] == 0

    asyncio.run(main())
