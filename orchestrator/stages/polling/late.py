"""Ended jobs whose results come late, and jobs that the API gives no answer about: each waits apart from all others.

A job that succeeded and lacks rows is asked again with growing pauses. Only when rows are still lacking after a run
has waited for ``late_s``, or a day longer has passed over several runs, do their files count as missing: sent again,
they would be bought again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from orchestrator.errors import ContractBroken, Rejected, Unanswered
from orchestrator.ledger import Transaction, jobs, queue
from orchestrator.models import GOOD, TERMINAL, Chunk, JobResults, JobStatus, RemoteJob
from orchestrator.stages.collector import record, results_of
from orchestrator.stages.matching import Collected, collect_chunk
from orchestrator.stages.work import Work

log = structlog.get_logger()

#: The first pause before a job is asked again, and the longest; calls under way at once, so few that all others go on.
FIRST_PAUSE_S, LONGEST_PAUSE_S, READERS = 1.0, 60.0, 4

#: How long a job that failed or was cancelled is asked for results that the API refuses: it need not have any. Also how
#: long each run asks again before it gives up.
BAD_LATE_S = 5.0

#: So much longer than ``late_s`` it has to be by the clock when a run has not waited as long itself: the clock may have
#: been put right by hours since the run before.
CLOCK_S = 86_400.0

#: The event of a job that was first seen to have succeeded with rows lacking.
LATE = "results_late"


@dataclass(slots=True)
class _Waiting:
    job_id: str
    size: int
    started: float
    since: float  #: monotonic, when this run first was in trouble with it
    why: str
    seen: Look | None
    due: float
    pause_s: float = FIRST_PAUSE_S


class Late:
    """Asks again about the jobs that the poller hands over, and records those that are complete, or late too long."""

    def __init__(self, work: Work, *, watch: Callable[..., None]) -> None:
        """*watch* takes back a job that has not ended: ``Poller.watch``."""
        self._work = work
        self._watch = watch
        self._waiting: dict[int, _Waiting] = {}
        self._asking: set[int] = set()
        self._more = asyncio.Event()
        self._readers = asyncio.Semaphore(READERS)
        self.set_aside: dict[int, str] = {}  #: chunk id -> why this run leaves its job to a later one

    @property
    def idle(self) -> bool:
        return not self._waiting

    @property
    def job_ids(self) -> set[str]:
        """The jobs that wait here."""
        return {waiting.job_id for waiting in self._waiting.values()}

    def take_up(
        self, chunk_id: int, job_id: str, size: int, started: float, why: str, seen: Look | None = None
    ) -> None:
        """Ask again later about a job, which had ended when it was *seen*."""
        now = self._work.clock.monotonic()
        self._waiting[chunk_id] = _Waiting(job_id, size, started, now, why, seen, now + FIRST_PAUSE_S)
        self._work.warn("job.late", chunk_id=chunk_id, job_id=job_id, why=why)
        self._more.set()

    async def run(self) -> None:
        clock = self._work.clock
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._more.clear()
                now = clock.monotonic()
                for key, waiting in self._waiting.items():
                    if waiting.due <= now and key not in self._asking:
                        self._asking.add(key)
                        tasks.create_task(self._ask(key, waiting))
                dues = [waiting.due for key, waiting in self._waiting.items() if key not in self._asking]
                try:
                    async with asyncio.timeout(max(min(dues) - clock.monotonic(), 0.001) if dues else None):
                        await self._more.wait()
                except TimeoutError:
                    pass

    async def _ask(self, key: int, waiting: _Waiting) -> None:
        """One look."""
        try:
            with self._work.stop.at_failure():
                async with self._readers:
                    await self._look(key, waiting)
        finally:
            self._asking.discard(key)
            self._more.set()

    async def _look(self, key: int, waiting: _Waiting) -> None:
        work = self._work
        try:
            job = await self._get(waiting)
            if job.id != waiting.job_id:
                self._later(key, waiting, f"asked about job {waiting.job_id}, got {job.id}")
                return
            if job.status not in TERMINAL:
                if waiting.seen is None:
                    self._hand_back(key, waiting)
                else:
                    self._later(key, waiting, f"job {job.id} had ended and is {job.api_status} again")
                return
            look = await look_at(work, key, job, waiting.seen.answer if waiting.seen else None)
        except (Rejected, Unanswered) as error:
            self._later(key, waiting, f"job {waiting.job_id}: {error}")
            return
        except ContractBroken:  # the poller knows what is to become of it
            self._hand_back(key, waiting)
            return
        waiting.seen = look
        now = work.clock.monotonic()
        stale, waited_s = now - waiting.started > work.stale_s, now - waiting.since
        if await look.is_final(work, stale=stale, waited_s=waited_s):
            await take_in(work, look)
            del self._waiting[key]
        else:
            self._later(key, waiting, look.lacks)

    async def _get(self, waiting: _Waiting) -> RemoteJob:
        """The job as it is now; as it was seen, where the API denies one that had ended: its results may come yet."""
        api, job_id = self._work.api, waiting.job_id
        try:
            return await api.get(job_id)
        except Rejected as error:
            if waiting.seen is None:
                raise
            job, refusal = waiting.seen.job, str(error)
        if job.results is None:  # they are asked for by themselves
            return job
        try:
            listed = await api.status([job_id])  # a call by name may be what is broken
        except Rejected:
            listed = ()
        # What came with the job when it was seen is no news.
        seen = replace(job, results=replace(job.results, refusal=refusal))
        return next((job for job in listed if job.id == job_id), seen)

    def _hand_back(self, key: int, waiting: _Waiting) -> None:
        if self._waiting.pop(key, None) is not None:
            age_s = self._work.clock.monotonic() - waiting.started
            self._watch(key, waiting.job_id, waiting.size, age_s=age_s)
            self._work.stop.tell()

    def _later(self, key: int, waiting: _Waiting, why: str) -> None:
        """Ask again after a longer pause, or in a later run."""
        work, now = self._work, self._work.clock.monotonic()
        most_s = work.late_s if waiting.seen is not None else work.api.retry_budget_s
        if now - waiting.since > most_s:
            self._leave(key, why)
            return
        waiting.why = why
        waiting.pause_s = min(2 * waiting.pause_s, LONGEST_PAUSE_S)
        waiting.due = min(now + waiting.pause_s, waiting.since + most_s + 0.01)

    def _leave(self, key: int, why: str) -> None:
        if self._waiting.pop(key, None) is not None:
            self.set_aside[key] = why
            self._work.stop.tell()

    @property
    def left(self) -> dict[int, str]:
        """Chunks whose jobs are not recorded, and why."""
        return {**{key: waiting.why for key, waiting in self._waiting.items()}, **self.set_aside}


@dataclass(frozen=True, slots=True)
class Look:
    """The rows read of an ended job so far, over all looks."""

    chunk: Chunk
    job: RemoteJob
    answer: JobResults
    collected: Collected
    lacks: str  #: why more is to be expected; empty when nothing is

    async def is_final(self, work: Work, *, stale: bool, waited_s: float) -> bool:
        """Whether it is to be recorded: complete, or waited for. If not, what was seen is kept, and since when.

        *waited_s*: by this run.
        """
        if not self.lacks:
            return True
        began = await work.writer.write(self._wait_began(work))
        if waited_s < min(work.late_s, BAD_LATE_S):
            return False
        if self.job.status is not JobStatus.SUCCEEDED:
            return work.seconds_since(began) >= min(work.late_s, BAD_LATE_S)
        long_enough = waited_s >= work.late_s or work.seconds_since(began) >= work.late_s + CLOCK_S
        # Without any answer about results the job is waited for until it is stale, too.
        return long_enough and (stale or self.answer.refusal is None)

    def _wait_began(self, work: Work) -> Callable[[Transaction], str]:
        def read(connection: Transaction) -> str:
            jobs.keep_seen(connection, self.chunk.id, self.answer.rows, at=work.at())
            if began := queue.first_noted(connection, self.chunk.id, LATE):
                return began
            jobs.note(connection, self.chunk.id, LATE, self.lacks, at=work.at())
            return work.at()

        return read


async def look_at(work: Work, key: int, job: RemoteJob, seen: JobResults | None = None) -> Look:
    """Read the results of an ended *job*; what earlier reads have *seen*, also those of earlier runs, counts too.

    Raises ContractBroken, and Unanswered when the API gives no answer.
    """
    chunk, kept = await work.writer.write(
        lambda connection: (queue.chunk(connection, key), jobs.rows_seen(connection, key)), touches=(key,)
    )
    answer = with_earlier(await results_of(work.api, job), seen or JobResults(kept))
    collected = collect_chunk(chunk, job, answer)
    return Look(chunk, job, answer, collected, _lacks(job, answer, collected))


def with_earlier(answer: JobResults, seen: JobResults | None) -> JobResults:
    """*answer* with the rows of an earlier read that it lacks, or has without a result."""
    if seen is None or not (seen.rows or seen.nameless):
        return answer
    good = {row.file_id for row in answer.rows if row.outcome in GOOD}
    told = {row.file_id for row in answer.rows}
    kept = [row for row in seen.rows if row.file_id not in (good if row.outcome in GOOD else told)]
    return replace(answer, rows=(*answer.rows, *kept), nameless=answer.nameless or seen.nameless)


def _lacks(job: RemoteJob, answer: JobResults, collected: Collected) -> str:
    if answer.refusal is not None and not answer.rows:
        return f"job {job.id} has ended, and the API has no results of it yet ({answer.refusal})"
    if job.status is not JobStatus.SUCCEEDED:
        return ""
    lacking = len(collected.without_row)
    if not lacking:
        return ""
    return f"job {job.id} succeeded, and the results of {lacking} of its {len(collected.results)} files have not come"


async def take_in(work: Work, look: Look) -> None:
    """Record the end of a job, and show it to whoever watches the run."""
    chunk, job, collected = look.chunk, look.job, look.collected
    # A later generation of a file takes the place of an earlier one: what it touches is not in the chunk alone.
    touches: tuple[int | str, ...] = () if chunk.generation else (chunk.id, *chunk.file_ids)
    await work.writer.write(lambda connection: record(connection, chunk, job, collected, at=work.at()), touches=touches)
    work.progress.ended(collected.results)
    if job.credits is not None:
        work.progress.credits = (work.progress.credits or 0.0) + job.credits
    for oddity in collected.oddities:
        work.warn("results.odd", chunk_id=chunk.id, job_id=job.id, what=oddity)
    log.info("job.ended", chunk_id=chunk.id, job_id=job.id, status=job.api_status, files=len(chunk.file_ids))
    work.ended += 1
    work.stop.tell()
