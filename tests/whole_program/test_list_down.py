"""Only the API's list of jobs is down, in whatever way: everything that can be done without it is done."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable

import aiohttp
import pytest
from aiohttp import web
from support.commands import Classify, Cli, Serve, creates
from support.sandboxes import sandbox

#: Patience is a quarter of it, at most 10 s: no outcome here comes from the rest.
SOON = {"ORCHESTRATOR_RETRY_BUDGET_S": "2"}

Listing = Callable[[], web.Response]


def elsewhere() -> web.Response:
    return web.Response(status=307, headers={"Location": "/login"})


def unchanged() -> web.Response:
    return web.Response(status=304)


def broken() -> web.Response:
    return web.json_response({"detail": "Internal server error"}, status=500)


def busy() -> web.Response:
    return web.json_response({"detail": "Service Unavailable"}, status=503, headers={"Retry-After": "3600"})


def limited() -> web.Response:
    return web.json_response({"detail": "Too Many Requests"}, status=429, headers={"Retry-After": "3600"})


def refused() -> web.Response:
    return web.json_response({"detail": "Method Not Allowed"}, status=405)


class NoList(Classify):
    """Answers each call for the list with *listing* after *takes_s*, and loses that to create call *loses*."""

    def __init__(self, listing: Listing, *, loses: int = 0, takes_s: float = 0.0) -> None:
        super().__init__()
        self.listing, self.loses, self.takes_s = listing, loses, takes_s

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if request.method == "GET" and request.path == "/api/v1/classifier/jobs":
            await asyncio.sleep(self.takes_s)
            return self.listing()
        answer = await super().__call__(request)
        return broken() if request.method == "POST" and len(self.jobs) == self.loses else answer


@pytest.mark.parametrize("listing", [elsewhere, unchanged, broken, busy, limited, refused])
def test_a_first_night_without_a_list_is_done(cli: Cli, serve: Serve, listing: Listing) -> None:
    """Jobs are made, asked for by name, and end: exit 0, and no file is sent twice."""
    server = serve(NoList(listing))
    cli.use(server)
    cli.manifest("a", "b", "c", size=1)
    done = cli("run", "m.yaml", "--json", **SOON)
    assert (done.returncode, json.loads(done.stdout)["classified"], creates(server)) == (0, 3, 3), done


@pytest.mark.parametrize(
    ("listing", "takes_s"), [(elsewhere, 0), (broken, 0), (broken, 2.2), (busy, 0), (limited, 0), (refused, 0)]
)
def test_only_the_call_in_doubt_waits_for_a_list(cli: Cli, serve: Serve, listing: Listing, takes_s: float) -> None:
    """Exit 3 with words, in this run and in one that has nothing else to do; once there is a list, its job is found.

    One of the list's answers may take longer than an outage may last.
    """
    api = NoList(listing, loses=2, takes_s=takes_s)
    server = serve(api)
    cli.use(server)
    cli.manifest("a", "b", "c", size=1)
    for _ in range(2):
        done = cli("run", "m.yaml", "--json", **SOON)
        told = json.loads(done.stdout)
        assert (done.returncode, told["unfinished"], creates(server)) == (3, 1, 3), done
        assert "list of jobs" in told["reason"]
    assert cli.state()["classified"] == 2
    cli.use(serve(api_of(api)))
    assert cli("run", "m.yaml").returncode == 0
    assert cli.state()["classified"] == 3
    assert len(api.jobs) == 3


def api_of(other: NoList) -> Classify:
    """The same jobs, with a list."""
    api = Classify()
    api.jobs, api.results = other.jobs, other.results
    return api


@pytest.mark.parametrize("fault", ["list.redirect", "list.http-5xx"])
def test_v2_jobs_are_asked_for_by_name(cli: Cli, fault: str) -> None:
    """The list would report them all at once; a redirect of it alone breaks no contract for the others."""
    with sandbox(faults={fault: 1.0}) as (url, embedded):
        cli.environ["LLAMA_CLOUD_BASE_URL"] = url
        cli.manifest(*(f"file-{number}" for number in range(5)))
        done = cli("run", "m.yaml", "--api", "v2", "--json", **SOON)
        told = json.loads(done.stdout)
        assert (done.returncode in (0, 1), told["unfinished"], len(embedded.state.journal)) == (True, 0, 5), done


def test_one_job_that_is_redirected_keeps_no_other_from_ending(cli: Cli, serve: Serve) -> None:
    """It is set aside with words, exit 3; the others' calls were answered, so the API is where it should be."""

    class OneElsewhere(Classify):
        async def __call__(self, request: web.Request) -> web.StreamResponse:
            if request.method == "GET" and "/job-1" in request.path:
                return elsewhere()
            return await super().__call__(request)

    cli.use(serve(OneElsewhere()))
    cli.manifest("a", "b", "c", size=1)
    done = cli("run", "m.yaml", "--json", **SOON)
    told = json.loads(done.stdout)
    assert (done.returncode, told["classified"], told["unfinished"]) == (3, 2, 1), done
    assert "redirect" in told["reason"]


@pytest.mark.parametrize("api", ["v1", "v2"])
def test_endless_numbers_beside_the_data_are_passed_over(cli: Cli, serve: Serve, api: str) -> None:
    """Python reads no integer of 5,000 digits: a page's size, or one file's confidence, cost no job its end."""
    with sandbox(strict_ids=False, null_share=0.0) as (url, _):
        cli.environ["LLAMA_CLOUD_BASE_URL"] = serve(Digits(url)).url
        cli.manifest("a", "b")
        done = cli("run", "m.yaml", "--api", api, "--json")
        assert (done.returncode, json.loads(done.stdout)["unfinished"]) == (0, 0), done
        assert [row["confidence"] for row in cli.exported()] == [None, None]


class Digits:
    """Passes calls on to the API at *url*; some numbers of its answers have 5,000 digits."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        headers = {name: request.headers[name] for name in ("Authorization", "Content-Type") if name in request.headers}
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                request.method, f"{self.url}{request.path_qs}", headers=headers, data=await request.read()
            ) as answer,
        ):
            body = await answer.text()
            for name in ("total_size", "confidence"):
                body = re.sub(rf'"{name}": ?[0-9.a-z]+', f'"{name}": {"9" * 5000}', body)
            return web.Response(status=answer.status, text=body, content_type="application/json")
