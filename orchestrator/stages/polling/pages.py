"""Pages of the listing, asked for instead of many jobs by name where the API has no call that names several."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from orchestrator.errors import WITHOUT_ALL_JOBS
from orchestrator.models import TERMINAL, RemoteJob
from orchestrator.stages.polling.poll_schedule import PollSchedule
from orchestrator.stages.work import Work

#: Pages of the listing show all jobs in flight, the newest first. They are read once so many jobs are watched, while
#: each saves at least so many calls; a page that did not is left for a while.
PAGES_FROM, PAGE, WORTH_CALLS, NO_PAGES_S = 40, 100, 3, 60.0

#: A listing that calls a job unfinished which has ended, so often in a row, lags.
LAGS = 2

#: Jobs whose news are taken in at once: the results of a hundred would be much to hold in memory.
AT_ONCE = 32


@dataclass(slots=True)
class Watched:
    """A job in flight, as the poller knows it."""

    job_id: str
    size: int
    started: float
    old: bool  #: has been in flight for longer than is normal: asked once, then left to a later run
    new: bool = False  #: this run has just submitted it
    told: bool = False  #: the API has told this run of it
    word: str = ""
    heard: float = 0.0  #: when the API last reported it

    def is_stale(self, work: Work) -> bool:
        """Whether it has been in flight for longer than a run should wait."""
        return self.old or work.clock.monotonic() - self.started > work.stale_s


class Pages:
    """Reads the newest pages of the listing while that saves calls, and asks by name about what they leave out."""

    def __init__(
        self,
        work: Work,
        watched: dict[int, Watched],
        asking: set[int],
        schedule: PollSchedule,
        *,
        news: Callable[[int, RemoteJob], Awaitable[None]],
        ask_one: Callable[[int, str], Awaitable[None]],
    ) -> None:
        """*watched*, *asking*, *schedule* are the poller's own; *news* takes in a job's news, *ask_one* gets it."""
        self._work = work
        self._watched = watched
        self._asking = asking
        self._schedule = schedule
        self._news = news
        self._ask_one = ask_one
        self._one_listing = asyncio.Lock()
        self._lags = 0
        self._not_before = 0.0  #: pages are not worth a call before

    @property
    def pay(self) -> bool:
        """Whether a page is likely to save calls now."""
        return len(self._watched) >= PAGES_FROM and self._work.clock.monotonic() >= self._not_before

    async def look_through(self, due: dict[str, int]) -> None:
        """Ask for the newest pages of the listing, then by name about the jobs of *due* that they leave out."""
        asked_at = self._work.clock.monotonic()
        async with self._one_listing:
            # A call before this one may have had news of them.
            due = {
                job_id: key
                for job_id, key in due.items()
                if (watched := self._watched.get(key)) is not None and watched.heard < asked_at
            }
            said = await self._read(due) if due else []
        by_name = dict(due)
        for _, job in said:
            by_name.pop(job.id, None)
        # A listing may lag, so one job that it calls unfinished is asked about by name each time.
        check = next((key for key, job in said if job.id in due and job.status not in TERMINAL), None)
        try:
            await _all_of(
                [
                    *(partial(self._news, key, job) for key, job in said),
                    *(partial(self._ask_one, key, job_id) for job_id, key in by_name.items()),
                ]
            )
            if check in self._watched:
                await self._ask_one(check, self._watched[check].job_id)
                self._lags = self._lags + 1 if check not in self._watched else 0
                if self._lags >= LAGS:
                    self._do_without()
        finally:
            self._asking.difference_update(key for key, _ in said)

    async def _read(self, due: dict[str, int]) -> list[tuple[int, RemoteJob]]:
        """Read watched jobs from the newest pages, except those being asked about; empty where pages don't pay."""
        work, said = self._work, list[tuple[int, RemoteJob]]()
        by_job_id = {watched.job_id: key for key, watched in self._watched.items()}
        most, missing, token, read = -(-len(by_job_id) // PAGE), set(due), None, 0
        if len(due) < WORTH_CALLS * most:
            return said
        try:
            while missing and read < most and (token is not None or not read):
                page = await work.api.page(token, page_size=PAGE, patient=False)
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
                    said.append((key, job))
        except WITHOUT_ALL_JOBS as error:
            work.warn("status.listing_refused", why=str(error))
        if not read or len(due) - len(missing) < WORTH_CALLS * read:
            self._do_without()
        return said

    def _do_without(self) -> None:
        self._not_before = self._work.clock.monotonic() + NO_PAGES_S


async def _all_of(parts: list[Callable[[], Awaitable[None]]]) -> None:
    """Carry all of them to their end, some at a time, whatever becomes of one. Raises the first failure."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def carry(part: Callable[[], Awaitable[None]]) -> None:
        async with turns:
            await part()

    for failure in await asyncio.gather(*map(carry, parts), return_exceptions=True):
        if failure is not None:
            raise failure
