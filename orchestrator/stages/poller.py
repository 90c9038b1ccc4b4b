"""submitted -> ended: one watcher for all jobs of a shard; it collects the results of those that have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import structlog

from orchestrator.errors import ContractBroken, Rejected
from orchestrator.ledger import jobs, queue
from orchestrator.models import TERMINAL, Chunk, JobStatus, RemoteJob
from orchestrator.stages.collector import Collected, collect_chunk, record, results_of
from orchestrator.stages.poll_schedule import PollSchedule
from orchestrator.stages.work import Work

log = structlog.get_logger()

#: Status and result calls out at once; fewer where one call reports many jobs, as what to ask about is chosen
#: before a call waits for its turn.
READERS, BULK_READERS = 32, 6

#: Where a call can't name several jobs, pages of the listing tell of all that are in flight, the newest first. They are
#: read once so many jobs are watched, while each saves at least so many calls; a page that did not is left for a while.
PAGES_FROM, PAGE, WORTH_CALLS, NO_PAGES_S = 40, 100, 3, 60.0

#: A listing that calls a job unfinished which has ended, so often in a row, lags.
LAGS = 2

#: An ended job whose results lack rows, or a job that the API does not know: asked this often before it is believed.
TRIES = 3
TRY_AGAIN_S = 1.0


@dataclass(slots=True)
class _Watched:
    job_id: str
    size: int
    started: float
    old: bool  #: has been in flight for longer than is normal: asked once, then left to a later run
    word: str = ""
    unknown_tries: int = 0
    heard: float = 0.0  #: when the API last reported it


class Poller:
    """Asks about jobs when they are likely to have ended (``PollSchedule``), and records those that have."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._watched: dict[int, _Watched] = {}
        self._schedule = PollSchedule(batch=work.api.traits.jobs_per_ask)
        self._readers = asyncio.Semaphore(READERS if work.api.traits.jobs_per_ask == 1 else BULK_READERS)
        self._one_listing = asyncio.Lock()
        self._lags = 0
        self._pages_from = 0.0  #: pages of the listing are not worth a call before
        self._more = asyncio.Event()
        self._ready = False
        self._asking: set[int] = set()  #: a call about them is out, or their results are being fetched
        self.set_aside: dict[int, str] = {}  #: chunk id -> why this run leaves its job to a later one

    @property
    def idle(self) -> bool:
        return self._ready and not self._watched

    def watch(self, chunk_id: int, job_id: str, size: int, *, age_s: float = 0.0) -> None:
        """Take up a job that was submitted *age_s* seconds ago."""
        started = self._work.clock.monotonic() - age_s
        self._watched[chunk_id] = _Watched(job_id, size, started, old=age_s > self._work.stale_s)
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
        """How many jobs the next status call may tell of; the schedule is to know."""
        most = self._work.api.traits.jobs_per_ask
        if most == 1 and len(self._watched) >= PAGES_FROM and self._work.clock.monotonic() >= self._pages_from:
            most = PAGE
        self._schedule.batch = most
        return most

    async def _ask(self, keys: list[int]) -> None:
        """One status call, and what follows from it. A failure that ends the run goes to ``stop``."""
        try:
            await self._ask_about(keys)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - handed to the run; raised here it would cancel the other calls
            self._work.stop.stop_everything(error)
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
            await self._look_through_pages(by_job_id)
            return
        try:
            told = await self._work.api.status(list(by_job_id))
        except Rejected as error:
            self._work.warn("status.bulk_refused", why=str(error))
            told = ()
        for job in told:
            told_of = by_job_id.pop(job.id, None)
            if told_of is not None:
                await self._told(told_of, job)
        for job_id, key in by_job_id.items():  # left out of the listing
            await self._ask_one(key, job_id)

    async def _look_through_pages(self, due: dict[str, int]) -> None:
        """Ask for the newest pages of the listing, then by name about the jobs that they leave out."""
        asked_at = self._work.clock.monotonic()
        async with self._one_listing:
            # A call before this one may have reported them.
            due = {
                job_id: key
                for job_id, key in due.items()
                if (watched := self._watched.get(key)) is not None and watched.heard < asked_at
            }
            told = await self._read_pages(due) if due else []
        by_name = dict(due)
        for _, job in told:
            by_name.pop(job.id, None)
        # A listing may lag, so one job that it calls unfinished is asked about by name each time.
        check = next((key for key, job in told if job.id in due and job.status not in TERMINAL), None)
        try:
            await _all_of(
                [
                    *(partial(self._told, key, job) for key, job in told),
                    *(partial(self._ask_one, key, job_id) for job_id, key in by_name.items()),
                ]
            )
            if check in self._watched:
                await self._ask_one(check, self._watched[check].job_id)
                self._lags = self._lags + 1 if check not in self._watched else 0
                if self._lags >= LAGS:
                    self._pages_from = self._work.clock.monotonic() + NO_PAGES_S
        finally:
            self._asking.difference_update(key for key, _ in told)

    async def _read_pages(self, due: dict[str, int]) -> list[tuple[int, RemoteJob]]:
        """Read the newest pages about watched jobs that nobody else asks about; nothing where they don't pay."""
        work, told = self._work, list[tuple[int, RemoteJob]]()
        by_job_id = {watched.job_id: key for key, watched in self._watched.items()}
        most, missing, token, read = -(-len(by_job_id) // PAGE), set(due), None, 0
        if len(due) < WORTH_CALLS * most:
            return told
        try:
            while missing and read < most and (token is not None or not read):
                page = await work.api.page(token, page_size=PAGE)
                token, read, now = page.next_token, read + 1, work.clock.monotonic()
                for job in page.jobs:
                    key = by_job_id.get(job.id)
                    if key is None or key not in self._watched or (key in self._asking and job.id not in missing):
                        continue
                    if job.id not in missing:
                        self._asking.add(key)
                        self._schedule.asked(key, now)
                    missing.discard(job.id)
                    self._watched[key].heard = now
                    told.append((key, job))
        except (Rejected, ContractBroken) as error:
            work.warn("status.listing_refused", why=str(error))
        if not read or len(due) - len(missing) < WORTH_CALLS * read:
            self._pages_from = work.clock.monotonic() + NO_PAGES_S
        return told

    async def _ask_one(self, key: int, job_id: str) -> None:
        try:
            job = await self._work.api.get(job_id)
        except Rejected as error:
            await self._unknown(key, error)
            return
        if job.id == job_id:
            await self._told(key, job)
        else:
            self._leave(key, f"asked about job {job_id}, told about {job.id}")

    async def _told(self, key: int, job: RemoteJob) -> None:
        watched = self._watched.get(key)
        if watched is None:
            return
        if job.status in TERMINAL:
            await self._ended(key, watched, job)
            return
        if job.status is None and job.api_status != watched.word:
            word = ascii(job.api_status)[:80]
            self._work.warn("job.status_unknown", chunk_id=key, job_id=job.id, status=word)
            await self._note(key, "status_unknown", word)
        watched.word = job.api_status
        await self._run_status(key, job)
        if self._is_old(watched):
            self._leave(key, f"stale: {job.api_status or 'no status'} for over {self._work.stale_s:g} s")

    async def _run_status(self, key: int, job: RemoteJob) -> None:
        """Record that the API has begun, where it tells."""
        work = self._work
        if job.status is JobStatus.RUNNING:
            await work.writer.write(lambda connection: jobs.running(connection, key, at=work.at()))

    async def _ended(self, key: int, watched: _Watched, job: RemoteJob) -> None:
        work = self._work
        chunk = await work.writer.write(lambda connection: queue.chunk(connection, key))
        last_chance = self._is_old(watched)
        try:
            collected, refusal = await self._collect(chunk, job)
        except ContractBroken as error:
            work.warn("job.answers_against_contract", chunk_id=key, job_id=job.id, why=str(error))
            if work.api.traits.idempotent:
                await self._note(key, "against_contract", str(error))
                self._leave(key, str(error))
            else:
                await self._disown(key, job)
            return
        if refusal is not None and job.status is JobStatus.SUCCEEDED and not last_chance:
            # Recorded as missing, its files could be bought again. At the last chance they are.
            self._leave(key, f"job {job.id} succeeded, and the API has no results of it yet ({refusal})")
            return
        await work.writer.write(lambda connection: record(connection, chunk, job, collected, at=work.at()))
        if self._watched.pop(key, None) is None:
            return
        duration = None
        if job.created_at and job.ended_at:
            duration = (job.ended_at - job.created_at).total_seconds()
        self._schedule.ended(key, work.clock.monotonic(), duration)
        for result in collected.results:
            work.progress.outcomes[result.outcome] += 1
            if result.type is not None:
                work.progress.types[result.type] += 1
        for oddity in collected.oddities:
            work.warn("results.odd", chunk_id=key, job_id=job.id, what=oddity)
        log.info("job.ended", chunk_id=key, job_id=job.id, status=job.api_status, files=watched.size)
        work.stop.tell()

    async def _disown(self, key: int, job: RemoteJob) -> None:
        """The create call was answered with somebody else's job: reconcile looks for the chunk's own."""
        work = self._work
        why = f"the API answered with job {job.id}, which is not of these files"
        await work.writer.write(lambda connection: jobs.disown(connection, key, why, at=work.at()))
        if self._watched.pop(key, None) is not None:
            self._schedule.forget(key, work.clock.monotonic())
        work.unanswered.set()
        work.stop.tell()

    async def _collect(self, chunk: Chunk, job: RemoteJob) -> tuple[Collected, str | None]:
        """The job's results, and why the API has none; fetched again a few times while files have no row."""
        for attempt in range(1, TRIES + 1):
            answer = await results_of(self._work.api, job)
            collected = collect_chunk(chunk, job, answer)
            complete = (answer.rows or answer.nameless) and not collected.without_row
            if complete or job.results is not None or attempt == TRIES:
                break
            await self._work.clock.sleep(TRY_AGAIN_S * attempt)
        return collected, answer.refusal

    def _is_old(self, watched: _Watched) -> bool:
        """Whether the job has been in flight for longer than this run should wait."""
        return watched.old or self._work.clock.monotonic() - watched.started > self._work.stale_s

    async def _unknown(self, key: int, error: Rejected) -> None:
        """The API says that it has no such job. Believed only when it says so again and again."""
        work, watched = self._work, self._watched.get(key)
        if watched is None:
            return
        watched.unknown_tries += 1
        if watched.unknown_tries >= TRIES:
            work.warn("job.gone", chunk_id=key, job_id=watched.job_id, why=str(error))
            await self._note(key, "gone", str(error))
            self._leave(key, f"the API no longer knows job {watched.job_id} ({error}); wrong project, or expired")

    async def _note(self, key: int, event: str, words: str) -> None:
        work = self._work
        await work.writer.write(lambda connection: jobs.note(connection, key, event, words, at=work.at()))

    def _leave(self, key: int, why: str) -> None:
        """This run asks no more about the job; a later one will."""
        if self._watched.pop(key, None) is not None:
            self._schedule.forget(key, self._work.clock.monotonic())
            self.set_aside[key] = why
            self._work.stop.tell()


async def _all_of(parts: list[Callable[[], Awaitable[None]]]) -> None:
    """Carry all of them to their end, some at a time, whatever becomes of one. Raises the first failure."""
    turns = asyncio.Semaphore(READERS)  # the results of a hundred jobs at once would be much to hold in memory

    async def carry(part: Callable[[], Awaitable[None]]) -> None:
        async with turns:
            await part()

    for failure in await asyncio.gather(*map(carry, parts), return_exceptions=True):
        if failure is not None:
            raise failure
