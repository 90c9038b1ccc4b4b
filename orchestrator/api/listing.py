"""All the jobs of a project, page by page: what absence is proved by."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from orchestrator.api.client import Api
from orchestrator.api.dialect import refuse_circle
from orchestrator.clock import Clock
from orchestrator.errors import ContractBroken, Redirected, Rejected, Unanswered
from orchestrator.models import RemoteJob
from orchestrator.plaintext import counted

log = structlog.get_logger()

#: More pages in a row without a job, each with the token of a next one, than any listing has.
MAX_EMPTY_PAGES = 10


async def complete_listing(
    api: Api, *, patient: bool = True, unreadable: Callable[[int], None] | None = None
) -> list[RemoteJob]:
    """Every job of the project once. Raises ApiError rather than return part of them.

    *unreadable* is called with how many rows can't be read, each of which may be any job; without it they raise
    ContractBroken. Not *patient*, it raises Unanswered when the list is down.

    A job that comes on two pages, as those that follow a new one do, is what the later page says of it.

    The order of a listing is documented nowhere, so that no page proves what the next one can't have.
    """
    listed: list[RemoteJob] = []
    token: str | None = None
    seen: set[str] = set()
    empty = bad = 0
    while True:
        page = await api.page(token, patient=patient)
        empty = 0 if page.jobs or page.unreadable else empty + 1
        bad += page.unreadable
        listed += page.jobs
        if page.next_token is None:
            if bad and unreadable is None:
                raise ContractBroken(
                    f"{counted(bad, 'row')} of the API's list of jobs can't be read; nothing was concluded from it"
                )
            if unreadable is not None:
                unreadable(bad)
            return _once_each(listed)
        token = page.next_token
        refuse_circle(token, seen, "the list of jobs", endless=empty >= MAX_EMPTY_PAGES)


def _once_each(jobs: list[RemoteJob]) -> list[RemoteJob]:
    return list({job.id: job for job in jobs}.values())


class SharedListing:
    """A complete listing, read once for all who look for a job at about the same time."""

    def __init__(self, api: Api, clock: Clock) -> None:
        self._api = api
        self._clock = clock
        self._lock = asyncio.Lock()
        self._began = float("-inf")
        self._jobs: list[RemoteJob] = []

    async def begun_after(self, moment: float) -> list[RemoteJob]:
        """All jobs, by a listing that began at *moment* (monotonic) or later. Raises ApiError.

        Unanswered when the list alone is down.
        """
        async with self._lock:
            if self._began < moment:
                began = self._clock.monotonic()
                self._jobs = await complete_listing(self._api, patient=False)
                self._began = began
            return self._jobs


async def newest_mark(api: Api) -> str | None:
    """The newest time that the API lists; None when it lists nothing to go by, or only its list is down.

    Jobs created from now on are younger, unless the API's clock is put back, or somebody's job is dated ahead.
    Raises RunStopped, Interrupted.
    """
    try:
        try:
            page = await api.page(None, page_size=1, patient=False)
        except (Unanswered, Redirected) as error:
            if await api.answers_for_a_job():
                log.warning("listing.down", why=str(error))
                return None
            if isinstance(error, Redirected):
                raise
            page = await api.page(None, page_size=1)
    except Rejected:
        return None
    times = [job.created_at for job in page.jobs if job.created_at]
    return max(times).isoformat() if times else None
