"""submitted -> ended: one watcher for all jobs of a shard; it collects the results of those that have ended."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime

import structlog

from orchestrator.errors import WITHOUT_A_LIST, WITHOUT_ALL_JOBS, ContractBroken, Rejected, Unanswered
from orchestrator.ledger import jobs, queue
from orchestrator.models import TERMINAL, Echo, JobStatus, RemoteJob
from orchestrator.stages.polling.denied import Denied
from orchestrator.stages.polling.late import Late, Look, look_at, take_in
from orchestrator.stages.polling.pages import NO_PAGES_S, PAGE, Pages, Watched
from orchestrator.stages.polling.poll_schedule import PollSchedule
from orchestrator.stages.unanswered.strangers import Strangers
from orchestrator.stages.work import HELD, Work

log = structlog.get_logger()

#: Status and result calls out at once; fewer where one call reports many jobs, as what to ask about is chosen
#: before a call waits for its turn.
READERS, BULK_READERS = 32, 6


class Poller:
    """Asks about jobs when they are likely to have ended (``PollSchedule``), and records those that have."""

    def __init__(self, work: Work, *, late: Late) -> None:
        self._work = work
        self._late = late  #: the jobs whose results are late wait there
        self._watched: dict[int, Watched] = {}
        self._schedule = PollSchedule(batch=work.api.traits.jobs_per_ask)
        self._readers = asyncio.Semaphore(READERS if work.api.traits.jobs_per_ask == 1 else BULK_READERS)
        self._bulk_from = 0.0  #: calls that name many jobs are not worth it before
        self._more = asyncio.Event()
        self._ready = False
        self._asking: set[int] = set()  #: a call about them is out, or their results are being fetched
        self._pages = Pages(
            work, self._watched, self._asking, self._schedule, news=self._take_news, ask_one=self._ask_one
        )
        self._strangers = Strangers(work)
        self.denied = Denied(
            work,
            strangers=self._strangers,
            in_flight=lambda: {watched.job_id for watched in self._watched.values()} | late.job_ids,
            back=self._take_back,
            unanswered=self._hand_over,
            disown=self._disown,
        )
        self.set_aside: dict[int, str] = {}  #: chunk id -> why this run leaves its job to a later one

    @property
    def in_flight(self) -> int:
        """Jobs that have not ended."""
        return len(self._watched)

    @property
    def idle(self) -> bool:
        return self._ready and not self._watched

    def watch(self, chunk_id: int, job_id: str, size: int, *, age_s: float | None = None) -> None:
        """Take up a job that an earlier run submitted *age_s* seconds ago; None: that this run has just submitted."""
        started = self._work.clock.monotonic() - (age_s or 0.0)
        old = (age_s or 0.0) > self._work.stale_s
        self._watched[chunk_id] = Watched(job_id, size, started, old=old, new=age_s is None)
        self._schedule.add(chunk_id, started, size)
        self._more.set()

    async def run(self) -> None:
        work = self._work
        for job in await work.writer.write(lambda connection: queue.in_flight(connection, work.shard)):
            age = (work.clock.now() - datetime.fromisoformat(job.submitted_at)).total_seconds()
            if job.chunk_id not in self._watched:
                self.watch(job.chunk_id, job.job_id, job.size, age_s=max(age, 0.0))
        self._ready = True
        work.stop.tell()
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._readers.acquire()
                keys = await self._next()
                now = work.clock.monotonic()
                for key in keys:
                    self._schedule.asked(key, now)
                idle = [key for key in keys if key not in self._asking]
                self._asking.update(idle)
                tasks.create_task(self._ask(idle))

    async def _next(self) -> list[int]:
        """Wait until some jobs are worth a call, and name them."""
        clock = self._work.clock
        while not (keys := self._schedule.due(clock.monotonic(), self._jobs_per_call())):
            self._more.clear()
            at = self._schedule.next_at()
            try:
                async with asyncio.timeout(None if at is None else max(at - clock.monotonic(), 0.001)):
                    await self._more.wait()
            except TimeoutError:
                pass
        return keys

    def _jobs_per_call(self) -> int:
        """How many jobs the next status call may ask about; for the schedule."""
        most = self._work.api.traits.jobs_per_ask
        if most > 1 and self._work.clock.monotonic() < self._bulk_from:
            most = 1  # the list is refused: by name, for a while
        elif most == 1 and self._pages.pay:
            most = PAGE
        self._schedule.batch = most
        return most

    async def _ask(self, keys: list[int]) -> None:
        """One status call, and what follows from it."""
        try:
            with self._work.stop.at_failure():
                await self._ask_about(keys)
        finally:
            self._asking.difference_update(keys)
            self._readers.release()

    async def _ask_about(self, keys: list[int]) -> None:
        by_job_id = {self._watched[key].job_id: key for key in keys if key in self._watched}
        if not by_job_id:
            return
        if len(by_job_id) == 1:
            ((job_id, key),) = by_job_id.items()
            await self._ask_one(key, job_id)
            return
        if self._work.api.traits.jobs_per_ask == 1:
            await self._pages.look_through(by_job_id)
            return
        try:
            said = await self._work.api.status(list(by_job_id))
        except WITHOUT_A_LIST as error:
            self._work.warn("status.bulk_refused", why=str(error))
            self._bulk_from = self._work.clock.monotonic() + NO_PAGES_S
            said = ()
        for job in said:
            chunk_id = by_job_id.pop(job.id, None)
            if chunk_id is not None:
                await self._take_news(chunk_id, job)
        for job_id, key in by_job_id.items():  # left out of the listing
            await self._ask_one(key, job_id)

    async def _ask_one(self, key: int, job_id: str) -> None:
        try:
            job = await self._work.api.get(job_id)
        except Rejected as error:
            if (watched := self._let_go(key)) is not None:
                self.denied.take_up(key, watched, str(error))
            return
        except Unanswered as error:
            self._wait_apart(key, f"job {job_id}: {error}")
            return
        if job.id == job_id:
            await self._take_news(key, job)
        else:
            self._leave(key, f"asked about job {job_id}, got {job.id}")

    async def _take_news(self, key: int, job: RemoteJob) -> None:
        watched, noticed_at = self._watched.get(key), self._work.clock.monotonic()
        if watched is None:
            return
        if not watched.told and not await self._is_of(key, job):
            await self._disown(key, _not_ours(job))
            return
        watched.told = True
        if job.status in TERMINAL:
            await self._ended(key, watched, job, noticed_at)
            return
        if job.status is None and job.api_status != watched.word:
            word = ascii(job.api_status)[:80]
            self._work.warn("job.status_unknown", chunk_id=key, job_id=job.id, status=word)
            await self._note(key, "status_unknown", word)
        watched.word = job.api_status
        await self._run_status(key, job)
        if watched.is_stale(self._work):
            await self._give_up(key, f"{job.api_status or 'no status'} for over {self._work.stale_s:g} s")

    async def _give_up(self, key: int, what: str) -> None:
        """Leave the job to a later run, unless the create call's answer named another's, and its own is there."""
        if not self._work.api.traits.idempotent:
            try:
                if await self._strangers.include_one_of(key):
                    await self._disown(key, f"{what}, and another job has the results of these files")
                    return
            except WITHOUT_ALL_JOBS as error:
                what += f"; whether another job has the results is not known ({error})"
        self._leave(key, f"stale: {what}")

    async def _is_of(self, key: int, job: RemoteJob) -> bool:
        """Whether nothing that the API tells of *job* says that it is of another call; its rules may be rewritten."""
        work = self._work
        if not work.api.traits.idempotent:
            return True
        chunk = await work.writer.write(lambda connection: queue.chunk(connection, key), touches=(key,))
        return work.api.dialect.echoes(chunk, replace(job, echo=Echo()))

    async def _run_status(self, key: int, job: RemoteJob) -> None:
        """Record that the API has begun, where it says so."""
        work = self._work
        if job.status is JobStatus.RUNNING:
            await work.writer.write(lambda connection: jobs.running(connection, key, at=work.at()), touches=(key,))

    async def _ended(self, key: int, watched: Watched, job: RemoteJob, noticed_at: float) -> None:
        """Take the results in. For that the ledger may have to be waited for: no sign of how long jobs take."""
        work = self._work
        try:
            look = await look_at(work, key, job)
            if look.answer.nameless and await self._was_before(key, job):
                raise ContractBroken(f"job {job.id} was there before the call, and its results name no file")
        except ContractBroken as error:
            work.warn("job.answers_against_contract", chunk_id=key, job_id=job.id, why=str(error))
            await self._disown(key, _not_ours(job))
            return
        except Unanswered as error:
            self._learn(key, job, noticed_at)
            self._wait_apart(key, f"job {job.id}: {error}")
            return
        if not await look.is_final(work, stale=watched.is_stale(self._work), waited_s=0.0):
            self._learn(key, job, noticed_at)
            self._wait_apart(key, look.lacks, look)
            return
        await take_in(work, look)
        if self._watched.pop(key, None) is None:
            return
        self._learn(key, job, noticed_at)
        work.stop.tell()

    async def _was_before(self, key: int, job: RemoteJob) -> bool:
        """Whether the job was made before the chunk's call, as far as that can be known."""
        if self._work.api.traits.idempotent:
            return False
        try:
            return await self._strangers.was_before(key, job)
        except WITHOUT_ALL_JOBS:
            return False

    def _learn(self, key: int, job: RemoteJob, now: float) -> None:
        """The job has ended, whatever becomes of its results: the others need no scouts any more."""
        duration = None
        if job.created_at and job.ended_at:
            duration = (job.ended_at - job.created_at).total_seconds()
        self._schedule.ended(key, now, duration)

    async def _disown(self, key: int, why: str) -> None:
        """The create call was answered with somebody else's job, or with none.

        Reconcile looks for the chunk's own; with idempotency keys, the next run asks for it by its key.
        """
        work = self._work
        keyed = work.api.traits.idempotent
        held = await work.writer.write(lambda connection: jobs.disown(connection, key, why, keyed=keyed, at=work.at()))
        self._let_go(key)
        if keyed:
            self.set_aside[key] = HELD if held else f"{why}; the next run asks for its own by its key"
        work.unanswered.set()
        work.stop.tell()

    def _wait_apart(self, key: int, why: str, ended: Look | None = None) -> None:
        """Hand the job over to those that wait without keeping the others waiting."""
        watched = self._let_go(key)
        if watched is not None:
            self._hand_over(key, watched, why, ended)

    def _hand_over(self, key: int, watched: Watched, why: str, ended: Look | None = None) -> None:
        self._late.take_up(key, watched.job_id, watched.size, watched.started, why, ended)
        self._work.stop.tell()

    async def _take_back(self, key: int, watched: Watched, job: RemoteJob) -> None:
        """The API does have the job that it denied; it may deny it again when it is asked about by name."""
        self._watched[key] = watched
        self._schedule.add(key, watched.started, watched.size)
        self._asking.add(key)
        try:
            await self._take_news(key, job)
        finally:
            self._asking.discard(key)
            self._more.set()

    async def _note(self, key: int, event: str, words: str) -> None:
        work = self._work
        await work.writer.write(lambda connection: jobs.note(connection, key, event, words, at=work.at()))

    def _leave(self, key: int, why: str) -> None:
        """This run asks no more about the job; a later one will."""
        if self._let_go(key) is not None:
            self.set_aside[key] = why
            self._work.stop.tell()

    def _let_go(self, key: int) -> Watched | None:
        """Take the job off the watch; None when it was not on it."""
        watched = self._watched.pop(key, None)
        if watched is not None:
            self._schedule.forget(key, self._work.clock.monotonic())
            self._more.set()  # whatever the watch waits for may come earlier now
        return watched


def _not_ours(job: RemoteJob) -> str:
    return f"the API answered with job {job.id}, which is not of these files"
