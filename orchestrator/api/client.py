"""Calls to the API in jobs and results: paced, and where they change nothing tried again. ``wire`` sends them."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

import structlog

from orchestrator.api.backoff import asked_s, retrying
from orchestrator.api.dialect import Call, Dialect, Page, merged, refuse_circle
from orchestrator.api.limiter import Limiter, Limiters, Ticket
from orchestrator.api.status_codes import has_no_file_left
from orchestrator.api.wire import Wire
from orchestrator.clock import Clock
from orchestrator.errors import (
    Ambiguous,
    AnothersJob,
    ApiError,
    ContractBroken,
    Interrupted,
    LedgerError,
    NotSent,
    Redirected,
    Rejected,
    Throttled,
    Unanswered,
    Unauthorized,
    Unreachable,
)
from orchestrator.models import MAX_CHUNK_SIZE, Chunk, JobResults, Json, RemoteJob

log = structlog.get_logger()

T = TypeVar("T")

#: How long one read may go without a good answer when others need not wait for it; and as a share of the retry budget.
PATIENCE_S, PATIENCE = 10.0, 0.25

#: A job that nobody has: what the API says of it shows that it answers calls for one job.
NO_JOB = "00000000-0000-0000-0000-000000000000"

#: Page sizes for a list call, from the one asked for down: an API may refuse large ones.
SMALLER_PAGES = (25, 10)

#: The same for one job's results, in pages and rows together: a job has at most 500 files.
MAX_RESULTS = 20 * MAX_CHUNK_SIZE


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
        self._has_read = False  # a call for one job has had a good answer
        self._asked_at: float | None = None  # when the first call left that nothing has answered since
        self.last_trouble: str | None = None
        self._not_before: dict[Limiter, float] = {}  # monotonic; until when the API asks to wait
        self._lead_s = limiters.creates.lead.first_s  # how long before it leaves a create call is got ready

    def given_up(self, started: float, asked_s: float = 0.0) -> bool:
        """Whether a call first sent at *started* has been without an answer, like all others, for the whole budget.

        Or will have been, once the *asked_s* have passed that the API asks to wait.
        """
        return self._clock.monotonic() + asked_s - max(started, self._answered_at) >= self.retry_budget_s

    def answered_since(self, moment: float) -> bool:
        """Whether any call has had a good answer since *moment* (monotonic), however long ago it left."""
        return self._answered_at > moment

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
        self._refuse_long_wait(self.limiters.reads, patient=True)
        return await self._attempt(self.dialect.get(job_id), "read", self.limiters.reads, self.dialect.read_job)

    async def try_page(self) -> Page:
        """The first jobs of the project's list, asked for once. Raises ApiError."""
        self._refuse_long_wait(self.limiters.lists, patient=False)
        return await self._attempt(self.dialect.list(None, 20), "list", self.limiters.lists, self.dialect.read_page)

    async def answers_for_a_job(self) -> bool:
        """Whether the API answers a call for one job, if not with a job: then only its list is down.

        Raises Unauthorized.
        """
        try:
            await self.try_job(NO_JOB)
        except Rejected:
            return True
        except Unauthorized:
            raise
        except ApiError:
            return False
        return True

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
        So it does when one job's call alone is redirected.
        """
        patience_s = self._patience_s
        # A list is done without; to wait for the others is to wait for the API.
        self._refuse_long_wait(limiter, patient=bool(patient) or limiter is not self.limiters.lists)

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
            answer: T = await policy(self._attempt, call, kind, limiter, read)
            self._has_read = self._has_read or kind == "read"
            return answer
        except Redirected as error:
            if kind == "read" and self._has_read:  # of this one alone
                raise Unanswered(str(error)) from error
            raise
        except (NotSent, Throttled, Ambiguous) as error:
            wait_s = asked_s(error)
            if patient or (isinstance(error, Throttled) and limiter is self.limiters.reads):
                over = self.given_up(began, wait_s) or self.too_late(wait_s)
            else:  # others need not wait for it, however long its answer took or asks to wait
                over = patient is None and self.given_up(began, wait_s)
            if not over:
                raise Unanswered(f"no good answer ({error})") from error
            if isinstance(error, Ambiguous) and error.created:
                raise ContractBroken(f"the API's answers can't be read: {error}") from error
            raise self.unreachable(error) from error

    @property
    def _patience_s(self) -> float:
        return min(PATIENCE_S, PATIENCE * self.retry_budget_s)

    def _refuse_long_wait(self, limiter: Limiter, *, patient: bool) -> None:
        """Raises Unanswered, *patient* Unreachable, when the API has asked to leave such calls alone for too long."""
        wait_s = self._not_before.get(limiter, float("-inf")) - self._clock.monotonic()
        if wait_s > (self.retry_budget_s if patient else self._patience_s):
            what = "its list of jobs is" if limiter is self.limiters.lists else "jobs are"
            words = f"the API asks to wait for {wait_s:.0f} s before {what} asked for again"
            raise Unreachable(words) if patient else Unanswered(words)

    def unreachable(self, error: ApiError) -> Unreachable | Interrupted | LedgerError:
        """The end of a run that *error* has outlasted: the budget for an outage, or the time left to the deadline."""
        if isinstance(error, NotSent) and has_no_file_left(error):
            return LedgerError("too many open files: allow this program more of them, see `ulimit -n`")
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
        ticket = await (limiter.slot() if intend is None else limiter.slot(lambda: self._lead_s))
        try:
            if intend is not None:
                await self._prepare(intend, ticket, limiter)
                ticket = await limiter.renewed(ticket)
            if self._asked_at is None:
                self._asked_at = self._clock.monotonic()
            left_s = None if self.ends_at is None else self.ends_at - self._clock.monotonic()
            answer = read(await self.wire.send(call, kind=kind, left_s=left_s))
        except Throttled as error:
            self._asked_at = None
            limiter.throttled(ticket, error.retry_after_s)
            self._not_before[limiter] = self._clock.monotonic() + asked_s(error)
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

    async def _prepare(self, intend: Callable[[], Awaitable[None]], ticket: Ticket, limiter: Limiter) -> None:
        """Run *intend* so that the call leaves on time: calls that a slow disk lets go in pairs look like a burst."""
        began = self._clock.monotonic()
        await intend()
        ready = self._clock.monotonic()
        self._lead_s = limiter.lead.after(self._lead_s, ready - began)
        if ready < ticket.sent_at:
            await self._clock.sleep(ticket.sent_at - ready)

    def _trouble(self, kind: str, error: ApiError) -> None:
        self.last_trouble = str(error)
        told = {"asks_to_wait_s": wait_s} if (wait_s := asked_s(error)) else {}
        log.info("call.failed", kind=kind, error=type(error).__name__, words=str(error), **told)

    async def close(self) -> None:
        self.limiters.close()
        await self.wire.close()
