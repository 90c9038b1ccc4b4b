"""Calls over real sockets: bounded in time and size, never redirected, never to another host, reads sent again."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import TypeVar

import httpx
import pytest
from aiohttp import web
from conftest import CANARY, Answer, FakeClock, Server

from orchestrator.api import client
from orchestrator.api.client import Api, Limiters, Wire
from orchestrator.api.dialect import Call, Dialect, Target
from orchestrator.api.limiter import AdaptiveLimiter
from orchestrator.api.v1 import V1
from orchestrator.api.v2 import V2
from orchestrator.errors import (
    Ambiguous,
    ApiError,
    ContractBroken,
    NotSent,
    OutOfCredits,
    Rejected,
    Throttled,
    Unauthorized,
    Unreachable,
)
from orchestrator.models import Chunk, JobStatus, Json, Outcome

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
    timeout_s: float = 10,
    retry_budget_s: float = 60,
    clock: FakeClock | None = None,
    key: str = CANARY,
) -> T:
    """What *use* makes of an API at *base_url* whose waits cost no time."""

    async def go() -> T:
        time = clock or FakeClock()
        wire = Wire(base_url, key, timeout_s=timeout_s, fresh_creates=True)
        limiters = Limiters(*(AdaptiveLimiter(1000, time) for _ in range(3)))
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


def test_a_create_carries_the_key_and_the_body(serve: Serve, chunk: Chunk) -> None:
    """The key travels in one header only, and the body is the dialect's."""
    server = serve(always(200, JOB))
    with_api(server.url, create(chunk))
    (seen,) = server.seen
    assert (seen.method, seen.path) == ("POST", "/api/v1/classifier/jobs")
    assert json.loads(seen.body) == V1(Target()).create(chunk).body
    headers = {name.lower(): value for name, value in seen.headers.items()}
    assert headers.pop("authorization") == f"Bearer {CANARY}"
    assert headers["content-type"] == "application/json"
    assert headers["accept-encoding"] == "identity"
    assert CANARY not in repr(headers) + seen.path + seen.body.decode()


def test_a_base_path_is_kept(serve: Serve) -> None:
    """A self-hosted API may live below a path."""
    server = serve(always(200, JOB))
    with_api(server.url + "/llama", get)
    assert server.seen[0].path == f"/llama/api/v1/classifier/jobs/{ID}"


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
    monkeypatch.setattr(client, "MAX_BODY_BYTES", 100_000)

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
        for _ in range(100):
            await response.write(b" ")
            await asyncio.sleep(0.05)
        return response

    async def timed(api: Api) -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(Ambiguous, match="TimeoutError"):
            await create(chunk)(api)
        return loop.time() - began

    assert with_api(serve(answer).url, timed, timeout_s=0.3) < 2


def drop(request: web.Request) -> None:
    """Cut the connection."""
    assert request.transport is not None
    request.transport.abort()


def test_a_connection_that_ends_unanswered_is_ambiguous(serve: Serve, chunk: Chunk) -> None:
    """The server has the whole request; nobody knows what it did with it. One create, one request."""

    async def answer(request: web.Request) -> web.StreamResponse:
        drop(request)
        return web.Response()

    server = serve(answer)
    with pytest.raises(Ambiguous) as caught:
        with_api(server.url, create(chunk))
    assert not caught.value.created
    assert len(server.seen) == 1


def test_a_connection_that_ends_half_way_through_the_answer_is_ambiguous(serve: Serve, chunk: Chunk) -> None:
    """Half of an answer is none."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"id": "')
        drop(request)
        return response

    with pytest.raises(Ambiguous):
        with_api(serve(answer).url, create(chunk))


def test_a_refused_connection_is_not_sent(chunk: Chunk, unused_port: int) -> None:
    """Nothing listens, so nothing left."""
    with pytest.raises(NotSent):
        with_api(f"http://127.0.0.1:{unused_port}", create(chunk))


def test_tls_to_a_plain_port_is_not_sent_and_shows_no_key(serve: Serve, chunk: Chunk) -> None:
    """The handshake fails before the request, and the key, are written."""
    server = serve(always(200, JOB))
    with pytest.raises((NotSent, Unreachable)) as caught:
        with_api(server.url.replace("http:", "https:"), create(chunk))
    assert CANARY not in str(caught.value)
    assert server.seen == []


KINDS: list[tuple[int, type[ApiError], type[ApiError]]] = [
    (400, Rejected, Rejected),
    (401, Unauthorized, Unauthorized),
    (402, OutOfCredits, OutOfCredits),
    (403, Unauthorized, Unauthorized),
    (404, Rejected, Rejected),
    (408, Ambiguous, Unreachable),
    (409, Ambiguous, Unreachable),
    (410, Unreachable, Rejected),
    (413, Rejected, Rejected),
    (422, Rejected, Rejected),
    (425, Ambiguous, Unreachable),
    (429, Throttled, Unreachable),
    (500, Ambiguous, Unreachable),
    (502, Ambiguous, Unreachable),
    (503, Ambiguous, Unreachable),
    (504, Ambiguous, Unreachable),
]


@pytest.mark.parametrize(("status", "creating", "reading"), KINDS)
def test_what_each_status_comes_to(
    serve: Serve, chunk: Chunk, status: int, creating: type[ApiError], reading: type[ApiError]
) -> None:
    """A create is sent once whatever the answer; a read goes on until the budget is used up, or is refused."""
    server = serve(always(status, {"detail": "words of the API"}))
    with pytest.raises(creating, match="words of the API"):
        with_api(server.url, create(chunk))
    assert len(server.seen) == 1
    with pytest.raises(reading, match="words of the API"):
        with_api(server.url, get, retry_budget_s=30)
    assert (len(server.seen) > 2) == (reading is Unreachable)


def test_a_read_is_sent_again_until_it_is_answered(serve: Serve) -> None:
    """429, 5xx, a lost connection, and words that are no JSON: each is passing trouble."""

    async def dropped(request: web.Request) -> web.StreamResponse:
        drop(request)
        return web.Response()

    async def html(_: web.Request) -> web.StreamResponse:
        return web.Response(text="<html>", content_type="text/html")

    server = serve(
        in_turn(always(429), always(500), dropped, html, always(503), always(200, {**JOB, "status": "SUCCESS"}))
    )
    job = with_api(server.url, lambda api: api.get(ID))
    assert job.status is JobStatus.SUCCEEDED
    assert len(server.seen) == 6


def test_reads_give_up_only_when_the_budget_is_used_up(serve: Serve) -> None:
    """By the clock, not by a number of attempts."""
    clock = FakeClock()
    with pytest.raises(Unreachable, match="could not be used for 900 s"):
        with_api(serve(always(500)).url, get, retry_budget_s=900, clock=clock)
    assert 900 <= clock.seconds < 900 + 31


def test_a_wait_that_the_api_asks_for_is_kept(serve: Serve) -> None:
    """No request leaves before ``Retry-After`` has passed."""
    clock = FakeClock()
    server = serve(in_turn(always(429, None, {"Retry-After": "40"}), always(200, JOB)))
    with_api(server.url, get, clock=clock, retry_budget_s=3600)
    assert clock.seconds >= 40
    assert len(server.seen) == 2


def test_answers_that_never_can_be_read_break_the_contract(serve: Serve) -> None:
    """The API is there, and speaks another language."""
    with pytest.raises(ContractBroken, match="can't be read"):
        with_api(serve(always(200, ["not", "a", "job"])).url, get, retry_budget_s=5)


def pages(total: int, size: int) -> Answer:
    """The results of *total* files, *size* a page."""

    async def answer(request: web.Request) -> web.StreamResponse:
        start = int(request.query.get("page_token", "0"))
        items = [
            {"file_id": f"f{n}", "result": {"type": "a", "confidence": 1, "reasoning": ""}}
            for n in range(start, min(start + size, total))
        ]
        token = str(start + size) if start + size < total else None
        return web.json_response({"items": items, "next_page_token": token})

    return answer


@pytest.mark.parametrize(("total", "size", "calls"), [(0, 40, 1), (1, 40, 1), (40, 40, 1), (41, 40, 2), (500, 40, 13)])
def test_every_page_of_results_is_read(serve: Serve, total: int, size: int, calls: int) -> None:
    """No row is lost at a page's edge, and no page is asked for twice."""
    server = serve(pages(total, size))
    results = with_api(server.url, lambda api: api.results(ID))
    assert [row.file_id for row in results.rows] == [f"f{n}" for n in range(total)]
    assert {row.outcome for row in results.rows} <= {Outcome.CLASSIFIED}
    assert len(server.seen) == calls


@pytest.mark.parametrize("tokens", [["a", "a"], ["a", "b", "a"]])
def test_pages_that_go_in_circles_end_the_run(serve: Serve, tokens: list[str]) -> None:
    """A repeated token is no end of the listing, and nothing is concluded from what was read."""
    answers = [always(200, {"items": [], "next_page_token": token}) for token in tokens]
    server = serve(in_turn(*answers))
    with pytest.raises(ContractBroken, match="circles"):
        with_api(server.url, lambda api: api.results(ID))
    assert len(server.seen) == len(tokens)


def test_v2_tells_of_many_jobs_at_once(serve: Serve) -> None:
    """One list call; jobs that the API leaves out are simply not in the answer."""
    server = serve(always(200, {"items": [{"id": "a", "status": "RUNNING"}, {"id": "b", "status": "COMPLETED"}]}))
    jobs = with_api(server.url, lambda api: api.status(["a", "b", "c"]), dialect=V2(Target()))
    assert [(job.id, job.status) for job in jobs] == [("a", JobStatus.RUNNING), ("b", JobStatus.SUCCEEDED)]
    assert "job_ids=a&job_ids=b&job_ids=c" in server.seen[0].path


def test_another_calls_job_breaks_the_contract(serve: Serve, chunk: Chunk) -> None:
    """v2 gives back the first job of a key that it knows; taking it for ours would file old answers under new rules."""
    one = Chunk(1, chunk.config, ("dfl-a",))
    answer = {"id": "clj-1", "status": "PENDING", "file_input": "dfl-b"}
    with pytest.raises(ContractBroken, match="another call"):
        with_api(serve(always(200, answer)).url, create(one), dialect=V2(Target()))


def test_nothing_leaves_before_the_intent_is_written(serve: Serve, chunk: Chunk) -> None:
    """When it can't be written, nothing leaves at all."""
    server = serve(always(200, JOB))

    async def disk_full() -> None:
        assert server.seen == []
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        with_api(server.url, lambda api: api.create(chunk, intend=disk_full))
    assert server.seen == []


def test_creates_never_reuse_a_connection(serve: Serve, chunk: Chunk) -> None:
    """On v1 a connection that the server has just closed would look like a call that may have been sent."""
    peers: list[object] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        peers.append(request.transport.get_extra_info("peername"))
        return web.json_response(JOB)

    server = serve(answer)

    async def twice(api: Api) -> None:
        for _ in range(2):
            await create(chunk)(api)

    with_api(server.url, twice)
    assert len(set(peers)) == 2


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
