"""The faults that strike a call: instead of its answer, or in place of it once it has taken effect."""

from __future__ import annotations

import asyncio
import zlib
from functools import cache

from aiohttp import web

from orchestrator.sandbox.checking import Refused
from orchestrator.sandbox.story import Story

#: What a refusing fault answers; the real API's words where they are known.
REFUSALS = {
    "http-429": (429, "Rate limit exceeded."),
    "status-401": (401, "Invalid authentication token"),
    "status-402": (402, "You've exceeded the maximum number of credits for your plan."),
    "status-403": (403, "Not allowed for this project"),
    "status-404": (404, "Not Found"),
    "status-410": (410, "Gone"),
}

_SERVER_ERRORS = (500, 502, 503, 504)
_HTML = b"<!doctype html><html><body><h1>We'll be right back</h1></body></html>"
_BOMB_BYTES = 64 * 1024 * 1024

#: Seconds until a create that was answered with an error takes effect, unless ``commit-late-seconds`` says otherwise.
_COMMIT_LATE_S = 2.0


class Dropped(Exception):
    """The connection is to be closed without (the rest of) an answer."""


def before(story: Story, kind: str, number: int) -> web.Response | None:
    """Return the answer that a fault gives the *number*-th call of *kind* before it takes effect; None without a fault.

    Raises Dropped and Refused.
    """
    if story.happens("drop-before", number, kind=kind):
        raise Dropped
    if story.happens("http-5xx", number, kind=kind):
        status = _SERVER_ERRORS[int(story.unit("which 5xx", kind, number) * len(_SERVER_ERRORS))]
        raise Refused(status, f"Internal server error (correlation ID: {story.uuid('5xx', kind, number)})")
    if story.happens("redirect", number, kind=kind):
        return web.Response(status=307, headers={"Location": "/elsewhere"})
    for name, (status, detail) in REFUSALS.items():
        if story.happens(name, number, kind=kind):
            raise Refused(status, detail)
    return None


def late_s(story: Story, kind: str, number: int) -> float | None:
    """For a create that ``commit-late`` strikes: how many seconds after its 503 it takes effect."""
    if kind == "create" and story.happens("commit-late", number, kind=kind):
        return float(story.fault("commit-late-seconds") or _COMMIT_LATE_S)
    return None


async def after(
    story: Story, kind: str, number: int, request: web.Request, response: web.Response, stopping: asyncio.Event
) -> web.StreamResponse:
    """Return *response*, or what a fault makes of it after the call took effect. Raises Dropped."""
    if story.happens("hang", number, kind=kind):
        await stopping.wait()
        raise Dropped
    if story.happens("drop-after", number, kind=kind):
        if story.unit("half an answer", kind, number) < 0.5:
            await _half(request, response)
        raise Dropped
    if story.happens("garbage", number, kind=kind):
        body = response.body if isinstance(response.body, bytes) else b""
        if story.unit("what garbage", kind, number) < 0.5:
            return web.Response(body=_HTML, content_type="text/html")
        return web.Response(body=body[: len(body) // 2], content_type="application/json")
    if story.happens("gzip-bomb", number, kind=kind):
        headers = {"Content-Encoding": "gzip"}
        return web.Response(body=_bomb(), headers=headers, content_type="application/json")
    return response


async def _half(request: web.Request, response: web.Response) -> None:
    """Send the head and half of the body, as of an answer that goes on."""
    body = response.body if isinstance(response.body, bytes) else b""
    stream = web.StreamResponse(status=response.status, headers={"Content-Type": "application/json"})
    stream.content_length = len(body)
    await stream.prepare(request)
    await stream.write(body[: len(body) // 2])


@cache
def _bomb() -> bytes:
    packer = zlib.compressobj(1, wbits=31)
    piece = b" " * 1_048_576
    return b"".join([*(packer.compress(piece) for _ in range(_BOMB_BYTES // len(piece))), packer.flush()])
