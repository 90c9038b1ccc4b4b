"""Calls to the API: paced, bounded in time and size, never redirected, and never to another host.

``Api`` speaks in jobs and results; ``Wire`` below it sends one request and turns whatever happens into JSON or one
of our errors (see ``http_errors``).
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial
from typing import TypeVar

import httpx
import structlog

from orchestrator.api import http_errors
from orchestrator.api.backoff import asked_s, retrying
from orchestrator.api.counting import Calls, counted
from orchestrator.api.dialect import Call, Dialect, Page, merged, refuse_circle
from orchestrator.api.hiding import Hiding
from orchestrator.api.limiter import Limiter, Limiters, Ticket
from orchestrator.api.network import Network
from orchestrator.clock import Clock
from orchestrator.errors import (
    Ambiguous,
    AnothersJob,
    ApiError,
    ContractBroken,
    Interrupted,
    NotSent,
    Rejected,
    SettingsError,
    Throttled,
    Unanswered,
    Unreachable,
)
from orchestrator.models import MAX_CHUNK_SIZE, Chunk, JobResults, Json, RemoteJob

log = structlog.get_logger()

T = TypeVar("T")

#: Most bytes of one answer that are read; 500 results are some 300 kB.
MAX_BODY_BYTES = 32 * 1024 * 1024

CONNECT_TIMEOUT_S = 10.0

#: Connections kept; callers are bounded to as many, as httpx searches its queue of waiters for every answer.
MAX_CONNECTIONS = 256

#: A call's turn is given at most this long before it leaves, for its intent to be written meanwhile.
LONGEST_LEAD_S = 0.1

#: How long one read may go without a good answer when others need not wait for it; and as a share of the retry budget.
PATIENCE_S, PATIENCE = 10.0, 0.25

#: Page sizes for a list call, from the one asked for down: an API may refuse large ones.
SMALLER_PAGES = (25, 10)

#: The same for one job's results, in pages and rows together: a job has at most 500 files.
MAX_RESULTS = 20 * MAX_CHUNK_SIZE


OWN_HEADERS = {"user-agent": "orchestrator", "accept": "application/json", "accept-encoding": "identity"}


class Wire:
    """Sends one request at a time to one origin."""

    def __init__(
        self,
        base_url: str,
        key: str,
        *,
        timeout_s: float,
        fresh_creates: bool,
        secrets: Sequence[str] = (),
        network: Network = Network(),  # noqa: B008 - frozen
        transport: httpx.AsyncBaseTransport | None = None,
        may_send: Callable[[], bool] | None = None,
    ) -> None:
        """*fresh_creates*: creates never reuse a connection, as one that the API has just closed looks like a call
        that may have been sent. *secrets*: what no words of the API's may repeat. *transport* is for tests.
        *may_send* is asked just before the first byte of a create call or an upload leaves.

        Raises SettingsError for a proxy or certificates in the environment that can't be used.
        """
        self._origin = httpx.URL(base_url)
        self._timeout_s = timeout_s
        self._key = key
        self._hiding = Hiding(key, secrets)
        self._may_send = may_send
        self.requests: Calls = Counter()
        self.server_time: datetime | None = None
        reads = httpx.Limits(max_connections=None, max_keepalive_connections=MAX_CONNECTIONS)
        creates = httpx.Limits(max_connections=None, max_keepalive_connections=0) if fresh_creates else reads
        build = partial(
            httpx.AsyncClient,
            transport=transport,
            verify=network.certificates(base_url),
            trust_env=network.trusts(base_url),
            follow_redirects=False,
            timeout=httpx.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s)),
            headers={**network.headers, **OWN_HEADERS},
        )
        try:
            self._reading, self._creating = build(limits=reads), build(limits=creates)
        except (ValueError, ImportError, httpx.InvalidURL):  # never its words: the URL may hold a password
            raise SettingsError("the proxy in HTTPS_PROXY or ALL_PROXY can't be used; write http://host:port") from None

    async def send(self, call: Call, *, kind: str) -> Json:
        """One attempt, over within ``timeout_s``. Raises ApiError."""
        with counted(self.requests, kind):
            return await self._send(call, kind)

    async def _send(self, call: Call, kind: str) -> Json:
        creating = kind == "create"
        url = self._origin.copy_with(raw_path=self._origin.raw_path.rstrip(b"/") + call.path.encode("ascii"))
        content: bytes | AsyncIterator[bytes] | None = None if call.body is None else json.dumps(call.body).encode()
        headers = {"authorization": f"Bearer {self._key}", **dict(call.headers)}
        if content is not None:
            headers["content-type"] = "application/json"
        elif call.stream is not None:
            content = call.stream()
        buying = kind in ("create", "upload")
        client = self._creating if buying else self._reading
        last_look = {"trace": self._last_look} if buying and self._may_send is not None else None
        try:
            async with asyncio.timeout(self._timeout_s + call.extra_s):
                request = client.build_request(
                    call.method, url, params=call.query, content=content, headers=headers, extensions=last_look
                )
                response = await client.send(request, stream=True)
                try:
                    body = await self._read(response)
                finally:
                    await response.aclose()
                    client.cookies.clear()  # the key alone says who asks
        except ApiError:
            raise
        except Exception as error:
            raise http_errors.of_transport(error) from error
        self.server_time = http_errors.http_date(response.headers.get("date", "")) or self.server_time
        if call.empty_answer and response.is_success:
            return None
        try:
            answer = http_errors.of_response(
                response.status_code, response.headers, body, creating=creating, cancelling=kind == "cancel"
            )
        except ApiError as error:
            self._hiding.of_error(error)
            raise
        return self._hiding.of(answer)

    async def _last_look(self, event: str, _: object) -> None:
        """Raise NotSent where the run may not send any more: a process can stand still after its last question."""
        if event.endswith("send_request_headers.started") and self._may_send is not None and not self._may_send():
            raise NotSent("the ledger has not been heard of for too long, so the call was not sent")

    async def _read(self, response: httpx.Response) -> bytes:
        """The body as it came, bounded. A compressed one is refused: nobody asked for it, and it can be a bomb."""
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise Ambiguous("the API's answer is compressed, unasked", created=response.is_success)
        body = bytearray()
        async for piece in response.aiter_raw():
            body += piece
            if len(body) > MAX_BODY_BYTES:
                raise Ambiguous(f"the API's answer is over {MAX_BODY_BYTES} bytes", created=response.is_success)
        return bytes(body)

    async def close(self) -> None:
        await self._reading.aclose()
        await self._creating.aclose()


class Api:
    """The classify API in our words. Reads are retried until nobody has had an answer for the retry budget."""

    def __init__(
        self,
        dialect: Dialect,
        wire: Wire,
        limiters: Limiters,
        *,
        clock: Clock,
        rng: random.Random,
        retry_budget_s: float,
    ) -> None:
        self.dialect = dialect
        self.traits = dialect.traits
        self.wire = wire
        self.limiters = limiters
        self._clock = clock
        self._rng = rng
        self.retry_budget_s = retry_budget_s
        self.ends_at: float | None = None  #: monotonic, the run's deadline
        self._most_listed = 100
        self._answered_at = clock.monotonic()
        self._asked_at: float | None = None  # when the first call left that nothing has answered since
        self.last_trouble: str | None = None
        self._intend_s = 0.0  # how long writing an intent has taken recently

    def given_up(self, started: float, asked_s: float = 0.0) -> bool:
        """Whether a call first sent at *started* has been without an answer, like all others, for the whole budget.

        Or will have been, once the *asked_s* have passed that the API asks to wait.
        """
        return self._clock.monotonic() + asked_s - max(started, self._answered_at) >= self.retry_budget_s

    def too_late(self, asked_s: float) -> bool:
        """Whether the *asked_s* that the API asks to wait end after the run's deadline: they are not begun."""
        return asked_s > 0 and self.ends_at is not None and self._clock.monotonic() + asked_s > self.ends_at

    def silent(self) -> tuple[float, float] | None:
        """Seconds for which calls were out and nothing answered, and those until reads give up; None if all is well."""
        if self._asked_at is None:
            return None
        silent_s = self._clock.monotonic() - self._asked_at
        return silent_s, max(self.retry_budget_s - silent_s, 0.0)

    async def create(self, chunk: Chunk, *, intend: Callable[[], Awaitable[None]]) -> RemoteJob:
        """One attempt at creating *chunk*'s job. *intend* runs when a slot is free, before anything leaves.

        Raises ApiError, and what *intend* raises.
        """
        call = self.dialect.create(chunk)
        job = await self._attempt(call, "create", self.limiters.creates, self.dialect.read_job, intend)
        if not self.dialect.echoes(chunk, job):
            raise AnothersJob(f"the API answered a create call with job {job.id}, which is of another call")
        return job

    async def status(self, job_ids: Sequence[str]) -> tuple[RemoteJob, ...]:
        """Return what the API says of *job_ids* (at most ``traits.jobs_per_ask``), or of some. Raises ApiError."""
        call = self.dialect.ask(job_ids)
        if self.traits.jobs_per_ask == 1:
            return (await self._persist(call, "read", self.limiters.reads, self.dialect.read_job),)
        return (await self._persist(call, "list", self.limiters.lists, self.dialect.read_page, patient=False)).jobs

    async def get(self, job_id: str) -> RemoteJob:
        call, read = self.dialect.get(job_id), self.dialect.read_job
        return await self._persist(call, "read", self.limiters.reads, read, patient=None)

    async def try_job(self, job_id: str) -> RemoteJob:
        """Ask once what the API says of a job. Raises ApiError."""
        return await self._attempt(self.dialect.get(job_id), "read", self.limiters.reads, self.dialect.read_job)

    async def try_page(self) -> Page:
        """The first jobs of the project's list, asked for once. Raises ApiError."""
        return await self._attempt(self.dialect.list(None, 20), "list", self.limiters.lists, self.dialect.read_page)

    async def results(self, job_id: str) -> JobResults:
        """All pages of an ended job's results. Raises ApiError; ContractBroken when they have no end."""
        pages: list[JobResults] = []
        token: str | None = None
        seen: set[str] = set()
        read = 0
        while True:
            call = self.dialect.results(job_id, token)
            read_page = partial(self.dialect.read_results, job_id=job_id)
            page, token = await self._persist(call, "read", self.limiters.reads, read_page, patient=False)
            pages.append(page)
            if token is None:
                return merged(pages)
            read += 1 + len(page.rows) + len(page.oddities)
            refuse_circle(token, seen, f"results of job {job_id}", endless=read > MAX_RESULTS)

    async def page(self, token: str | None, *, page_size: int = 100, patient: bool = True) -> Page:
        """One page of all the jobs of the project; a smaller one where the API refuses the size. Raises ApiError."""
        while True:
            size = min(page_size, self._most_listed)
            call, read = self.dialect.list(token, size), self.dialect.read_page
            try:
                return await self._persist(call, "list", self.limiters.lists, read, patient=patient)
            except Rejected as error:
                smaller = next((fewer for fewer in SMALLER_PAGES if fewer < size), None)
                if error.status != 422 or smaller is None:
                    raise
                self._most_listed = smaller

    async def cancel(self, job_id: str) -> RemoteJob:
        """Ask the API to stop a job. Raises Rejected when it has ended already."""
        return await self._persist(self.dialect.cancel(job_id), "cancel", self.limiters.reads, self.dialect.read_job)

    async def _persist(
        self, call: Call, kind: str, limiter: Limiter, read: Callable[[Json], T], *, patient: bool | None = True
    ) -> T:
        """Send a call that changes nothing, again and again if need be. Raises ApiError, but none that may pass.

        Not *patient*, it raises Unanswered after a short while without a good answer; with None, if others had one.
        """
        patience_s = min(PATIENCE_S, PATIENCE * self.retry_budget_s)

        def out_of_patience(started: float, asked_s: float) -> bool:
            if patient or (patient is None and self._answered_at <= started):
                return False
            return self._clock.monotonic() + asked_s - started >= patience_s

        def given_up(started: float, asked_s: float) -> bool:
            return self.given_up(started, asked_s) or out_of_patience(started, asked_s) or self.too_late(asked_s)

        began = self._clock.monotonic()
        policy = retrying(
            on=(NotSent, Throttled, Ambiguous),
            given_up=given_up,
            clock=self._clock,
            rng=self._rng,
            sleep=self._clock.sleep,
        )
        try:
            return await policy(self._attempt, call, kind, limiter, read)
        except (NotSent, Throttled, Ambiguous) as error:
            held_up = patient or (isinstance(error, Throttled) and limiter is self.limiters.reads)
            if not self.given_up(began, asked_s(error)) and not (held_up and self.too_late(asked_s(error))):
                raise Unanswered(f"no good answer ({error})") from error
            if isinstance(error, Ambiguous) and error.created:
                raise ContractBroken(f"the API's answers can't be read: {error}") from error
            raise self.unreachable(error) from error

    def unreachable(self, error: ApiError) -> Unreachable | Interrupted:
        """The end of a run that *error* has outlasted: the budget for an outage, or the time left to the deadline."""
        wait_s = asked_s(error)
        if self.too_late(wait_s) and wait_s < self.retry_budget_s:
            return Interrupted(f"the API asks to wait for {wait_s:g} s, past the deadline; run again to go on: {error}")
        if wait_s > 0:
            return Unreachable(
                f"the API asks to wait for {wait_s:g} s, and an outage may last {self.retry_budget_s:g} s: {error}"
            )
        return Unreachable(f"the API could not be used for {self.retry_budget_s:g} s: {error}")

    async def _attempt(
        self,
        call: Call,
        kind: str,
        limiter: Limiter,
        read: Callable[[Json], T],
        intend: Callable[[], Awaitable[None]] | None = None,
    ) -> T:
        ticket = await (limiter.slot() if intend is None else limiter.slot(lambda: self._intend_s))
        try:
            if intend is not None:
                await self._prepare(intend, ticket)
            if self._asked_at is None:
                self._asked_at = self._clock.monotonic()
            answer = read(await self.wire.send(call, kind=kind))
        except Throttled as error:
            self._asked_at = None
            limiter.throttled(ticket, error.retry_after_s)
            self._trouble(kind, error)
            raise
        except ApiError as error:
            limiter.accepted(ticket)
            if not isinstance(error, NotSent | Ambiguous):
                self._answered_at, self._asked_at = self._clock.monotonic(), None
            self._trouble(kind, error)
            raise
        except BaseException:
            limiter.accepted(ticket)  # cancelled: the slot is used up all the same
            raise
        limiter.accepted(ticket)
        self._answered_at, self._asked_at = self._clock.monotonic(), None
        return answer

    async def _prepare(self, intend: Callable[[], Awaitable[None]], ticket: Ticket) -> None:
        """Run *intend* so that the call leaves on time: calls that a slow disk lets go in pairs look like a burst."""
        began = self._clock.monotonic()
        await intend()
        ready = self._clock.monotonic()
        self._intend_s = min(max(ready - began, 0.9 * self._intend_s), LONGEST_LEAD_S)
        if ready < ticket.sent_at:
            await self._clock.sleep(ticket.sent_at - ready)

    def _trouble(self, kind: str, error: ApiError) -> None:
        self.last_trouble = str(error)
        told = {"asks_to_wait_s": wait_s} if (wait_s := asked_s(error)) else {}
        log.info("call.failed", kind=kind, error=type(error).__name__, words=str(error), **told)

    async def close(self) -> None:
        await self.wire.close()
