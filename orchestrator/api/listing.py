"""All the jobs of a project, page by page: what absence is proved by."""

from __future__ import annotations

import asyncio
from datetime import datetime

from orchestrator.api.client import Api, refuse_circle
from orchestrator.clock import Clock
from orchestrator.errors import Rejected
from orchestrator.models import RemoteJob

#: More pages in a row without a job, each with the token of a next one, than any listing has.
MAX_EMPTY_PAGES = 10


async def complete_listing(api: Api, *, since: datetime | None = None) -> list[RemoteJob]:
    """Every job of the project once, at least back to *since*. Raises ApiError rather than return part of them.

    A job that comes on two pages, as those that follow a new one do, is what the later page says of it.

    The order of a listing is documented nowhere: it ends early only where all it has shown so far ran from new to old.
    """
    listed: list[RemoteJob] = []
    token: str | None = None
    seen: set[str] = set()
    newest_first = True
    empty = 0
    while True:
        page = await api.page(token)
        empty = 0 if page.jobs else empty + 1
        for job in page.jobs:
            before = listed[-1].created_at if listed else None
            if job.created_at is None or (before is not None and job.created_at > before):
                newest_first = False
            listed.append(job)
        if page.next_token is None:
            return _once_each(listed)
        oldest = listed[-1].created_at if listed else None
        if since and newest_first and oldest and oldest < since:
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
        """All jobs, by a listing that began at *moment* (monotonic) or later. Raises ApiError."""
        async with self._lock:
            if self._began < moment:
                began = self._clock.monotonic()
                self._jobs = await complete_listing(self._api)
                self._began = began
            return self._jobs


async def newest_mark(api: Api) -> str | None:
    """A time that every job created from now on is younger than; None when the API lists nothing to go by."""
    try:
        page = await api.page(None, page_size=1)
    except Rejected:
        return None
    times = [job.created_at for job in page.jobs if job.created_at]
    return max(times).isoformat() if times else None
