"""Calls over real sockets: a create is sent once, a read until it is answered, and every page is read."""

from __future__ import annotations

import json
import os
import resource

import pytest
from aiohttp import web
from support.calling import ID, JOB, Serve, always, create, drop, get, in_turn, with_api
from support.server import CANARY, Answer, FakeClock

from orchestrator.api.client import Api
from orchestrator.api.dialect import Target
from orchestrator.api.listing import complete_listing
from orchestrator.api.v1 import V1
from orchestrator.api.v2 import V2
from orchestrator.errors import (
    Ambiguous,
    ApiError,
    ContractBroken,
    Interrupted,
    LedgerError,
    NotSent,
    OutOfCredits,
    Rejected,
    Throttled,
    Unanswered,
    Unauthorized,
    Unreachable,
)
from orchestrator.models import Chunk, JobStatus, Json, Outcome, RemoteJob


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


@pytest.mark.parametrize("patient", [True, False])
def test_a_wait_that_is_too_long_is_begun_by_no_later_call(serve: Serve, patient: bool) -> None:
    """The call that was told so gave up; the next one waited for the whole hour, without a word."""
    server, clock = serve(in_turn(always(429, None, {"Retry-After": "3600"}), always(200, JOB))), FakeClock()

    async def ask_twice(api: Api) -> None:
        with pytest.raises(Throttled):
            await api.try_job(ID)
        with pytest.raises(Unreachable, match=r"asks to wait for 3600 s before jobs are asked for again"):
            await (api.get(ID) if patient else api.try_job(ID))

    with_api(server.url, ask_twice, clock=clock)
    assert (len(server.seen), clock.seconds < 60) == (1, True)


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


def test_a_wait_that_comes_with_a_503_is_kept(serve: Serve) -> None:
    """An API in trouble knows best when to come back."""
    clock = FakeClock()
    server = serve(in_turn(always(503, None, {"Retry-After": "40"}), always(200, JOB)))
    with_api(server.url, get, clock=clock, retry_budget_s=3600)
    assert clock.seconds >= 40
    assert len(server.seen) == 2


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("asked_s", ["45", "3600", "9" * 30])
def test_a_wait_that_outlasts_the_budget_is_not_begun(serve: Serve, status: int, asked_s: str) -> None:
    """The end is reported at once, with the wait that the API asked for."""
    clock = FakeClock()
    server = serve(always(status, None, {"Retry-After": asked_s}))
    with pytest.raises(Unreachable, match=r"asks to wait for (45|3600) s, and an outage may last 10 s"):
        with_api(server.url, get, clock=clock, retry_budget_s=10)
    assert len(server.seen) == 1
    assert clock.seconds < 1


def test_no_file_left_for_a_connection_is_no_outage(serve: Serve) -> None:
    """`ulimit -n 14` ended in 7, as if the API could not be reached."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def with_all_in_use(api: Api) -> None:
        await api.get(ID)
        lowest_free = os.dup(0)
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        try:
            await api.get(ID)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    server = serve(always(200, JOB, {"Connection": "close"}))
    with pytest.raises(LedgerError, match=r"too many open files.*ulimit"):
        with_api(server.url, with_all_in_use, retry_budget_s=1)


@pytest.mark.parametrize("status", [429, 503])
def test_a_wait_that_outlasts_the_deadline_is_not_begun(serve: Serve, status: int) -> None:
    """All reads are held up by a 429, so that the run ends; a 503 holds up this one."""
    clock = FakeClock()
    server = serve(always(status, None, {"Retry-After": "45"}))

    async def before_the_deadline(api: Api) -> RemoteJob:
        api.ends_at = clock.monotonic() + 30
        return await api.get("job-1")

    end = {429: Interrupted, 503: Unanswered}[status]
    with pytest.raises(end, match="45 s, past the deadline" if status == 429 else "503"):
        with_api(server.url, before_the_deadline, clock=clock, retry_budget_s=900)
    assert (len(server.seen), clock.seconds < 1) == (1, True)


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


def counting_up(items: list[Json]) -> Answer:
    """Pages of *items* that each name a next one, never the same."""

    async def answer(request: web.Request) -> web.StreamResponse:
        token = int(request.query.get("page_token", "0")) + 1
        return web.json_response({"items": items, "next_page_token": str(token)})

    return answer


def test_results_without_end_end_the_run(serve: Serve) -> None:
    """A job has at most 500 files: no number of fresh tokens keeps a run reading, or fills its memory."""
    server = serve(counting_up([{"file_id": "f", "result": None}] * 500))
    with pytest.raises(ContractBroken, match="nothing was concluded"):
        with_api(server.url, lambda api: api.results(ID))
    assert len(server.seen) < 30


def test_a_listing_of_empty_pages_ends_the_run(serve: Serve) -> None:
    """It proves nothing, and would else be read for hours."""
    server = serve(counting_up([]))
    with pytest.raises(ContractBroken, match="nothing was concluded"):
        with_api(server.url, complete_listing)
    assert len(server.seen) < 30


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


def test_a_job_on_two_pages_is_one_job(serve: Serve) -> None:
    """Counted twice, one failed job without results was taken for those of two unanswered calls."""
    pages = in_turn(
        always(200, {"items": [JOB], "next_page_token": "2"}), always(200, {"items": [{**JOB, "status": "ERROR"}]})
    )
    (job,) = with_api(serve(pages).url, complete_listing)
    assert job.status is JobStatus.FAILED


def test_silence_is_counted_from_the_first_call_that_nothing_answered(serve: Serve) -> None:
    """Any answer ends it, a refusal too; while it lasts, what is left of the budget is known."""
    clock = FakeClock()
    told: list[tuple[float, float] | None] = []

    async def ask(api: Api) -> None:
        told.append(api.silent())
        api._asked_at = clock.monotonic()
        clock.seconds += 40
        told.append(api.silent())
        await api.get(ID)
        told.append(api.silent())

    with_api(serve(always(200, JOB)).url, ask, retry_budget_s=60, clock=clock)
    assert told == [None, (40.0, 20.0), None]
