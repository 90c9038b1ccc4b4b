"""Jobs that the API denies having: each waits apart from all others, is asked about again, and looked for in the list.

A call by name may be what is broken, and a new job need not be everywhere at once. So a denial is believed only when it
is repeated and no listing shows the job; that the job is gone for good, only a later run believes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Set
from dataclasses import dataclass

from orchestrator.api.listing import SharedListing
from orchestrator.errors import WITHOUT_ALL_JOBS, Rejected, Unanswered
from orchestrator.ledger import jobs, queue
from orchestrator.models import TERMINAL, JobResults, JobStatus, RemoteJob
from orchestrator.stages.matching import collect_chunk
from orchestrator.stages.polling.late import Look, take_in
from orchestrator.stages.polling.pages import Watched
from orchestrator.stages.unanswered.strangers import Strangers
from orchestrator.stages.work import Work

#: A job is denied so often before that is believed.
TRIES = 3

#: The first pause before a job is asked about again, and the longest; calls under way at once.
FIRST_PAUSE_S, LONGEST_PAUSE_S, READERS = 1.0, 60.0, 8

#: A listing is read again for the next job once it is so old.
LISTING_S = 60.0


@dataclass(slots=True)
class _Denial:
    watched: Watched
    why: str
    due: float
    pause_s: float = FIRST_PAUSE_S
    denials: int = 1
    listed_at: float = float("-inf")  #: monotonic, when a listing showed the job, which had not ended
    waits: bool = False  #: until no other job is in flight: one may be in this one's place


class Denied:
    """Asks again about the jobs that the poller hands over, and finds out what has become of them."""

    def __init__(
        self,
        work: Work,
        *,
        strangers: Strangers,
        in_flight: Callable[[], Set[str]],
        back: Callable[[int, Watched, RemoteJob], Awaitable[None]],
        unanswered: Callable[[int, Watched, str], None],
        disown: Callable[[int, str], Awaitable[None]],
    ) -> None:
        """*in_flight*: the jobs that others wait for. *back* takes a job with its news, *unanswered* one about which
        the API gives no answer, *disown* a chunk whose call was answered with a job that is not its own.
        """
        self._work = work
        self._in_flight = in_flight
        self._back = back
        self._unanswered = unanswered
        self._disown = disown
        self._strangers = strangers
        self._listing = SharedListing(work.api, work.clock)
        self._denied: dict[int, _Denial] = {}
        self._asking: set[int] = set()
        self._readers = asyncio.Semaphore(READERS)
        self.set_aside: dict[int, str] = {}  #: chunk id -> why this run leaves its job to a later one

    @property
    def idle(self) -> bool:
        return not self._denied

    def take_up(self, chunk_id: int, watched: Watched, why: str) -> None:
        """Find out about a job that the API has just denied having, in the words *why*."""
        now = self._work.clock.monotonic()
        self._denied[chunk_id] = _Denial(watched, why, now + FIRST_PAUSE_S)
        self._work.stop.tell()

    @property
    def left(self) -> dict[int, str]:
        """Chunks whose jobs are not recorded, and why."""
        waiting = {key: f"the API denies having job {each.watched.job_id}" for key, each in self._denied.items()}
        return {**waiting, **self.set_aside}

    async def run(self) -> None:
        work, seen = self._work, -1
        async with asyncio.TaskGroup() as tasks:
            while True:
                for key in self._due():
                    self._asking.add(key)
                    tasks.create_task(self._ask(key, self._denied[key]))
                dues = [each.due for key, each in self._denied.items() if not each.waits and key not in self._asking]
                try:
                    async with asyncio.timeout(max(min(dues) - work.clock.monotonic(), 0.001) if dues else None):
                        seen = await work.stop.news(seen)
                except TimeoutError:
                    pass

    def _due(self) -> list[int]:
        """The jobs to be asked about now. Asked for at each news of the run: in flight there may be thousands."""
        now, idle = self._work.clock.monotonic(), [key for key in self._denied if key not in self._asking]
        waiting = [key for key in idle if self._denied[key].waits]
        due = [key for key in idle if not self._denied[key].waits and self._denied[key].due <= now]
        return due if not waiting or self._in_flight() else due + waiting

    async def _ask(self, key: int, denial: _Denial) -> None:
        """One look."""
        try:
            with self._work.stop.at_failure():
                async with self._readers:
                    await self._look(key, denial)
        finally:
            self._asking.discard(key)
            self._work.stop.tell()

    async def _look(self, key: int, denial: _Denial) -> None:
        watched = denial.watched
        try:
            job = await self._work.api.get(watched.job_id)
        except Rejected as error:
            denial.why = str(error)
            denial.denials += 1
            if denial.denials < TRIES:
                self._later(denial)
            else:
                await self._look_further(key, denial)
        except Unanswered as error:
            del self._denied[key]
            self._unanswered(key, watched, f"job {watched.job_id}: {error}")
        else:
            if job.id == watched.job_id:
                await self._give_back(key, denial, job)
            else:
                self._leave(key, f"asked about job {watched.job_id}, got {job.id}")

    def _later(self, denial: _Denial) -> None:
        denial.pause_s = min(2 * denial.pause_s, LONGEST_PAUSE_S)
        denial.due = self._work.clock.monotonic() + denial.pause_s

    def _leave(self, key: int, why: str) -> None:
        """This run asks no more about the job; a later one will."""
        del self._denied[key]
        self.set_aside[key] = why

    async def _give_back(self, key: int, denial: _Denial, job: RemoteJob) -> None:
        del self._denied[key]  # it is on the watch before anything is waited for
        await self._back(key, denial.watched, job)

    async def _look_further(self, key: int, denial: _Denial) -> None:
        """Asked about by name the API denies the job again and again: is it in the list, and if not, since when?"""
        work, watched = self._work, denial.watched
        if (job := await self._listed(denial)) is not None:
            if job.status in TERMINAL or watched.is_stale(work):
                await self._give_back(key, denial, job)
            else:
                self._later(denial)
            return
        if watched.new and not watched.told and work.api.traits.idempotent:
            if work.clock.monotonic() - watched.started > work.settle_s:  # a new job may not be everywhere at once
                await self._disown(key, f"the API answered with job {watched.job_id}, which it denies having")
                del self._denied[key]
            else:
                self._later(denial)
            return
        words = f"the API no longer has job {watched.job_id}"
        gone_since = await work.writer.write(lambda connection: queue.first_noted(connection, key, jobs.DENIED))
        if gone_since is not None and work.seconds_since(gone_since) >= work.gone_s:
            if await self._was_anothers(key, denial, words):
                return
            if await self._has_others(key):
                await self._is_gone(key, RemoteJob(watched.job_id, JobStatus.SUCCEEDED, queue.GONE, error=words))
                return
            words += "; nothing shows that the key is of the same project"
        work.warn("job.gone", chunk_id=key, job_id=watched.job_id, why=denial.why)
        await work.writer.write(
            lambda connection: jobs.note(connection, key, jobs.DENIED, denial.why, at=work.at()),
        )
        self._leave(key, f"{words} ({denial.why}); wrong project, or expired")

    async def _listed(self, denial: _Denial) -> RemoteJob | None:
        """The job as a listing shows it; None when none does, or there is none to look in."""
        work, watched = self._work, denial.watched
        if work.api.traits.jobs_per_ask > 1:  # the list was asked first
            return None
        now = work.clock.monotonic()
        try:
            listed = await self._listing.begun_after(max(now - LISTING_S, watched.started, denial.listed_at))
        except WITHOUT_ALL_JOBS:
            return None
        job = next((job for job in listed if job.id == watched.job_id), None)
        if job is not None:
            denial.listed_at = now
        return job

    async def _has_others(self, key: int) -> bool:
        """Whether the API answers for other jobs of the ledger: then the key is of their project."""
        work = self._work
        others = await work.writer.write(lambda connection: queue.jobs_beside(connection, key, most=5))
        for job_id in [*sorted(self._in_flight())[:5], *others]:
            try:
                if (await work.api.get(job_id)).id == job_id:
                    return True
            except (Rejected, Unanswered):
                continue
        return False

    async def _was_anothers(self, key: int, denial: _Denial, words: str) -> bool:
        """Whether the job may never have been the chunk's: another may be. What follows is done."""
        if self._work.api.traits.idempotent:
            return False
        try:
            found = await self._strangers.may_include_one_of(key, self._in_flight())
        except WITHOUT_ALL_JOBS as error:
            self._leave(key, f"{words}; whether another is of its files is not known ({error})")
            return True
        if found is None:
            denial.waits = True
        elif found:
            await self._disown(key, f"{words}, and has another that may be of its files")
            del self._denied[key]
        return found is not False

    async def _is_gone(self, key: int, job: RemoteJob) -> None:
        """Its files are missing from now on: ``retry`` may send them."""
        work = self._work
        chunk = await work.writer.write(lambda connection: queue.chunk(connection, key))
        answer = JobResults(())
        await take_in(work, Look(chunk, job, answer, collect_chunk(chunk, job, answer), ""))
        del self._denied[key]
