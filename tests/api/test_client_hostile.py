"""A hostile network or API gets neither the key, nor the memory, nor the time of a run."""

from __future__ import annotations

import asyncio
import gzip
from functools import partial

import httpx
import pytest
from aiohttp import web
from support.calling import ID, JOB, Serve, always, create, get, with_api
from support.server import CANARY

from orchestrator.api import wire
from orchestrator.api.client import Api
from orchestrator.api.dialect import Call
from orchestrator.api.wire import Wire
from orchestrator.errors import (
    Ambiguous,
    ApiError,
    ContractBroken,
    NotSent,
    Unreachable,
)
from orchestrator.models import Chunk, JobStatus


def test_query_values_are_escaped(serve: Serve) -> None:
    """A page token of the server's cannot become a parameter, a route or a line of its own."""
    server = serve(always(200, {"items": []}))
    with_api(server.url, lambda api: api.page("a&b=c#d/../e\r\nX-Evil: 1"))
    assert server.seen[0].path.startswith("/api/v1/classifier/jobs?")
    assert "X-Evil" not in server.seen[0].headers
    assert "&b=" not in server.seen[0].path


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_never_followed(serve: Serve, chunk: Chunk, status: int) -> None:
    """Neither for a create nor for a read: the key and the body would go where the answer says."""
    other = serve(always(200, JOB))
    server = serve(always(status, JOB, {"Location": other.url + "/stolen"}))
    for call in (create(chunk), get):
        with pytest.raises(ContractBroken, match="redirect"):
            with_api(server.url, call)
    assert other.seen == []
    assert len(server.seen) == 2


@pytest.mark.parametrize("status", [200, 400, 401, 500])
def test_an_answer_that_repeats_the_key_is_read_without_it(serve: Serve, status: int) -> None:
    """In whatever field; else it would end in the ledger, a log and a mail."""
    body = {**JOB, "error_message": f"sent by {CANARY}", "detail": f"Bearer {CANARY} is of another region"}
    server = serve(always(status, body))
    try:
        told = str(with_api(server.url, get, retry_budget_s=1))
    except ApiError as error:
        told = str(error)
    assert CANARY not in told
    assert "[hidden]" in told


def test_a_short_key_is_not_taken_out_of_answers(serve: Serve) -> None:
    """The sandbox takes any; one that is a word would spoil the JSON."""
    server = serve(always(200, JOB))
    assert with_api(server.url, lambda api: api.get(ID), key="status").status is JobStatus.SUBMITTED


@pytest.mark.parametrize(("left_s", "connect_s"), [(None, 10.0), (600.0, 10.0), (3.0, 3.0), (-5.0, 0.1)])
def test_a_connection_takes_no_longer_than_the_deadline_leaves(left_s: float | None, connect_s: float) -> None:
    """A resolver may never answer: what has no connection by the deadline did not leave."""
    seen: list[float] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.extensions["timeout"]["connect"])
        raise httpx.ConnectTimeout("")

    async def ask(api: Api) -> None:
        transport = httpx.MockTransport(answer)
        api.wire = Wire("https://api.test", CANARY, timeout_s=60, fresh_creates=True, transport=transport)
        api.ends_at = left_s  # the clock is at 0
        with pytest.raises(NotSent):
            await api.try_job(ID)

    with_api("https://api.test", ask)
    assert seen == [connect_s]


def test_a_hostile_job_id_reaches_nobody(serve: Serve) -> None:
    """No request leaves for an id that is a URL, a path or a query."""
    other = serve(always(200, JOB))
    server = serve(always(200, JOB))
    for job_id in (f"{other.url}/x", "../../v1/files", f"//{other.url}", "x?y", "x#y", "x@y", "x\r\ny"):
        for call in (Api.get, Api.results):
            with pytest.raises(ApiError):
                with_api(server.url, partial(call, job_id=job_id))
    assert server.seen + other.seen == []


def test_proxies_of_the_environment_are_not_used(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is a certificate store from there: the key goes to the API and nowhere else."""
    proxy = serve(always(200, JOB))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv(name.lower(), proxy.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent/ca.pem")
    server = serve(always(200, JOB))
    with_api(server.url, get)
    assert (len(server.seen), proxy.seen) == (1, [])


def test_netrc_does_not_replace_the_key(serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    """A ``.netrc`` entry for the host is for other programs."""
    netrc = f"{tmp_path}/netrc"
    with open(netrc, "w") as out:  # noqa: PTH123 - a plain name, as NETRC holds
        out.write("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", netrc)
    server = serve(always(200, JOB))
    with_api(server.url, get)
    assert server.seen[0].headers["Authorization"] == f"Bearer {CANARY}"


def test_a_compressed_answer_is_refused_unread(serve: Serve, chunk: Chunk) -> None:
    """A megabyte can unfold to a gigabyte; nobody asked for it."""
    bomb = gzip.compress(b"0" * 20_000_000)

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip", "Content-Type": "application/json"})

    server = serve(answer)
    with pytest.raises(Ambiguous, match="compressed") as caught:
        with_api(server.url, create(chunk))
    assert caught.value.created
    with pytest.raises(ContractBroken, match="compressed"):
        with_api(server.url, get, retry_budget_s=1)


def test_a_body_without_end_is_cut_off(serve: Serve, chunk: Chunk, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more is read than the bound, whatever the server sends."""
    monkeypatch.setattr(wire, "MAX_BODY_BYTES", 100_000)

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        for _ in range(1000):
            await response.write(b" " * 10_000)
        return response

    with pytest.raises(Ambiguous, match="over 100000 bytes") as caught:
        with_api(serve(answer).url, create(chunk))
    assert caught.value.created


def test_a_dripping_answer_ends_with_the_total_deadline(serve: Serve, chunk: Chunk) -> None:
    """Each byte comes in time; the whole does not. The call may have had its effect."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(1200):
            await response.write(b" ")
            await asyncio.sleep(0.05)
        return response

    async def timed(api: Api) -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(Ambiguous, match="TimeoutError"):
            await create(chunk)(api)
        return loop.time() - began

    assert with_api(serve(answer).url, timed, timeout_s=0.3) < 30


def test_tls_to_a_plain_port_is_not_sent_and_shows_no_key(serve: Serve, chunk: Chunk) -> None:
    """The handshake fails before the request, and the key, are written."""
    server = serve(always(200, JOB))
    with pytest.raises((NotSent, Unreachable)) as caught:
        with_api(server.url.replace("http:", "https:"), create(chunk))
    assert CANARY not in str(caught.value)
    assert server.seen == []


def test_no_error_of_httpx_escapes() -> None:
    """Whatever a transport raises, callers see our errors only, and the key in none of them."""

    class Broken(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            raise httpx.LocalProtocolError(f"Illegal header value {request.headers['x-none']!r}")

    async def go() -> None:
        wire = Wire("https://api.example", CANARY, timeout_s=1, fresh_creates=True, transport=Broken())
        with pytest.raises(Ambiguous) as caught:
            await wire.send(Call("GET", "/x"), kind="read")
        assert CANARY not in str(caught.value)
        await wire.close()

    asyncio.run(go())
