"""The sandbox as an HTTP server on loopback: each call through key, rate limit and faults to its handler."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import math
import signal
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from email.utils import format_datetime
from pathlib import Path

from aiohttp import web

from orchestrator.errors import InputError
from orchestrator.models import Json
from orchestrator.sandbox import faults, files, v1, v2
from orchestrator.sandbox.checking import Call, Refused, Upload
from orchestrator.sandbox.limits import Limit
from orchestrator.sandbox.options import SandboxOptions, parse_faults, parse_switches
from orchestrator.sandbox.webhooks import Deliveries
from orchestrator.sandbox.world import World

Handler = Callable[[World, Call], tuple[int, Json]]

ROUTES: tuple[tuple[str, str, str, Handler], ...] = (
    ("POST", v1.JOBS, "create", v1.create),
    ("GET", v1.JOBS, "list", v1.list_jobs),
    ("GET", v1.JOBS + "/{id}", "get", v1.get),
    ("GET", v1.JOBS + "/{id}/results", "results", v1.results),
    ("POST", v2.JOBS, "create", v2.create),
    ("GET", v2.JOBS, "list", v2.list_jobs),
    ("GET", v2.JOBS + "/{id}", "get", v2.get),
    ("POST", v2.JOBS + "/{id}/cancel", "cancel", v2.cancel),
    ("DELETE", v2.JOBS + "/{id}", "delete", v2.delete),
    ("POST", files.FILES, "upload", files.upload),
    ("GET", files.FILES, "files", files.list_files),
    ("GET", files.FILES + "/{id}", "files", files.get),
    ("DELETE", files.FILES + "/{id}", "files", files.delete),
)

#: The kinds that are limited together with another one.
_LIMITED_AS = {"results": "get", "cancel": "get", "delete": "get", "files": "get"}

#: Outside the API, without key, rate or fault: the creates that took effect, for checks from another process.
JOURNAL = "/_sandbox/journal"

#: Largest body that is read; the vendor's own limit on an upload.
MAX_BODY_BYTES = 512 * 1024 * 1024


class Sandbox:
    """The embedded API. Between ``start`` and ``stop`` it answers; ``state`` outlives both."""

    def __init__(self, options: SandboxOptions = SandboxOptions()) -> None:  # noqa: B008 - frozen
        self.options = options
        self.state = World(options)
        self._limits = {
            "create": Limit(options.creates_per_s, 1.0, options.window),
            "get": Limit(options.gets_per_s, 1.0, options.window),
            "list": Limit(options.lists_per_s, 1.0, options.window),
            "upload": Limit(5 * options.uploads_per_s, 5.0, options.window),
        }
        self._per_minute = Limit(options.calls_per_minute, 60.0, options.window)
        self._stopping = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._deliveries = Deliveries(self.state)
        self.state.on_webhooks = self._deliveries.begin

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listen, on loopback only; the base URL."""
        if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
            raise ValueError(f"{host}: the sandbox listens on loopback only")
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        for method, path, kind, handler in ROUTES:
            app.router.add_route(method, path, self._answering(kind, handler))
        app.router.add_get(JOURNAL, self._journal)
        app.router.add_route("*", "/{path:.*}", _no_route)
        self._stopping = asyncio.Event()
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        return f"http://{host}:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Close every connection and the socket. What was remembered stays; calling it again does nothing."""
        self._stopping.set()
        await self._deliveries.stop()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _answering(self, kind: str, handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """*handler* behind everything that a call of *kind* has to get through."""
        world, story = self.state, self.state.story

        async def answer(request: web.Request) -> web.StreamResponse:
            world.requests[kind] += 1
            number = world.requests[kind]
            try:
                if struck := faults.before(story, kind, number):
                    return struck
                self._admit(request, kind)
                call = await _call(request)
                late_s = faults.late_s(story, kind, number)
                if late_s is not None:
                    handler(world, replace(call, late_s=late_s))
                    raise Refused(503, "Classify endpoints are currently unavailable.")
                response = self._json(*handler(world, call))
                if slow_s := story.seconds("slow", kind=kind):
                    await world.options.clock.sleep(slow_s)
                return await faults.after(story, kind, number, request, response, self._stopping)
            except Refused as refused:
                return self._refusal(refused, kind)
            except (faults.Dropped, ConnectionResetError):  # the latter: a client that was killed while it sent
                if request.transport is not None:
                    request.transport.abort()
                return web.Response()

        return answer

    def _admit(self, request: web.Request, kind: str) -> None:
        """Raises Refused without a key, or above the rate."""
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip() or (self.options.key or key) != key:
            raise Refused(401, "Invalid authentication token")
        now = self.state.now()
        limits = (self._limits[_LIMITED_AS.get(kind, kind)], self._per_minute)
        wait_s = max((wait for limit in limits if (wait := limit.admit(now)) is not None), default=None)
        if wait_s is not None:
            raise Refused(429, f"Rate limit exceeded for calls of the kind {kind!r}.", wait_s=wait_s)

    def _json(self, status: int, value: Json, headers: dict[str, str] | None = None) -> web.Response:
        body = None if status == 204 else json.dumps(value).encode()
        date = {"Date": format_datetime(self.options.clock.now(), usegmt=True)}
        return web.Response(status=status, body=body, headers=date | (headers or {}), content_type="application/json")

    def _refusal(self, refused: Refused, kind: str) -> web.Response:
        headers = {}
        if refused.status == 429:
            self.state.throttled[kind] += 1
            if self.options.retry_after:
                headers["Retry-After"] = str(math.ceil(refused.wait_s))
        return self._json(refused.status, {"detail": refused.detail}, headers)

    async def _journal(self, request: web.Request) -> web.Response:
        state = self.state
        uploads = [
            {"id": file.id, "name": file.name, "external_file_id": file.external_file_id} for file in state.uploads
        ]
        return self._json(
            200,
            {
                "creates": state.entries(),
                "uploads": uploads,
                "requests": dict(state.requests),
                "throttled": dict(state.throttled),
                "webhooks": dict(state.webhooks),
            },
        )


def serve(
    *,
    port: int,
    faults: Iterable[str],
    seed: int,
    key: str | None,
    ready_file: Path | None,
    announce: Callable[[str], None],
    switches: Iterable[str] = (),
) -> None:
    """Serve until SIGINT or SIGTERM. *announce* gets the base URL, and *ready_file* holds it, once it listens.

    Raises InputError for a fault or a switch that can't be used, and for a port that is taken.
    """
    options = SandboxOptions(seed=seed, key=key, faults=parse_faults(faults), **parse_switches(switches))

    def ready(base_url: str) -> None:
        if ready_file is not None:
            ready_file.write_text(f"{base_url}\n")
        announce(base_url)

    asyncio.run(_serve(options, port, ready))


async def _serve(options: SandboxOptions, port: int, ready: Callable[[str], None]) -> None:
    sandbox, over = Sandbox(options), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    try:
        base_url = await sandbox.start(port=port)
    except OSError as error:
        await sandbox.stop()
        raise InputError(f"--port {port}: {error.strerror}") from error
    try:
        ready(base_url)
        await over.wait()
    finally:
        await sandbox.stop()


async def _call(request: web.Request) -> Call:
    """*request*, read whole."""
    query = {name: request.query.getall(name) for name in request.query}
    path_id = request.match_info.get("id", "")
    if request.content_type != "multipart/form-data":
        return Call(query, path_id, await request.read())
    form = await request.post()
    fields = {name: value for name, value in form.items() if isinstance(value, str)}
    part = form.get("file")
    upload = Upload(purpose=fields.get("purpose"), external_file_id=fields.get("external_file_id"))
    if isinstance(part, web.FileField):
        upload = replace(upload, filename=part.filename, content=part.file.read())
    return Call(query, path_id, upload=upload)


async def _no_route(request: web.Request) -> web.Response:
    """404; for a path that has other methods 405, as FastAPI answers."""
    here = request.path.strip("/").split("/")
    methods = [method for method, path, _, _ in ROUTES if _fits(here, path.strip("/").split("/"))]
    if methods:
        return web.json_response({"detail": "Method Not Allowed"}, status=405, headers={"Allow": ", ".join(methods)})
    return web.json_response({"detail": "Not Found"}, status=404)


def _fits(here: list[str], route: list[str]) -> bool:
    return len(here) == len(route) and all(part in ("{id}", given) for given, part in zip(here, route, strict=True))
