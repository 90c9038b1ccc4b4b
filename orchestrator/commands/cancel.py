"""Asking the API to stop jobs, and recording what they came to. Never marks as ended what the API does not call so."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog

from orchestrator import ledger
from orchestrator.api import loop
from orchestrator.api.client import Api
from orchestrator.clock import Clock, timestamp
from orchestrator.commands.access import access, connect, hide_secrets
from orchestrator.errors import ContractBroken, InputError, Rejected
from orchestrator.ledger import Ledger, queue
from orchestrator.ledger import scope as ledger_scope
from orchestrator.ledger.chunks.cancel import select_stuck
from orchestrator.ledger.chunks.retry import Allowed, Selection
from orchestrator.ledger.views import reading
from orchestrator.manifest.loading import Manifest
from orchestrator.models import TERMINAL, JobResults, JobStatus, RemoteJob
from orchestrator.settings import Settings, origin
from orchestrator.stages.collector import end_job

log = structlog.get_logger()

#: Most calls out at once.
AT_ONCE = 32

#: How often a job that is to be cancelled is looked at until it is.
LOOK_S = 1.0

#: The status codes of an API that does not have a job.
DENIED = (404, 410)

V1_CANNOT = "v1 has no call to cancel a job: only `retry --held` sends the files of one that never ends again"


@dataclass(frozen=True, slots=True)
class Canceller:
    """Cancels jobs of one manifest, those of either API version."""

    manifest: Manifest
    settings: Settings
    ledger: Ledger
    clock: Clock
    base_url: str
    key: str

    def cancel(
        self, api: str, open_jobs: Iterable[tuple[int, str]], *, wait_s: float, denied: bool = False
    ) -> dict[int, JobStatus] | None:
        """Cancel jobs, given as (chunk id, job id); those that have ended since, and how. None: the API has no cancel.

        Waits up to *wait_s* in all for those that take their time. A job that the API denies having counts as ended
        only where *denied* says that a person wants it so. Raises ApiError; what was recorded until then stays.
        """
        return loop.run(self._cancel(api, list(open_jobs), wait_s, denied))

    async def _cancel(
        self, name: str, open_jobs: Sequence[tuple[int, str]], wait_s: float, denied: bool
    ) -> dict[int, JobStatus] | None:
        api = connect(
            self.manifest,
            name,
            self.settings,
            base_url=self.base_url,
            key=self.key,
            clock=self.clock,
            rng=random.Random(),
        )
        room = asyncio.Semaphore(AT_ONCE)
        until = self.clock.monotonic() + wait_s
        ended: dict[int, JobStatus] = {}

        async def one(chunk_id: int, job_id: str) -> None:
            async with room:
                status = await self._end(api, chunk_id, job_id, until, denied)
            if status is not None:
                ended[chunk_id] = status

        try:
            if not api.traits.can_cancel:
                return None
            await asyncio.gather(*(one(*job) for job in open_jobs))
        finally:
            await api.close()
        return ended

    async def _end(self, api: Api, chunk_id: int, job_id: str, until: float, denied: bool) -> JobStatus | None:
        """Cancel one job and record how it ended; None when it has not, as far as the API says. Raises ApiError."""
        try:
            try:
                job = await self._stopped(api, job_id, until)
            except Rejected as error:
                if not (denied and error.status in DENIED and await self._is_of_the_project(api, chunk_id)):
                    raise
                job = RemoteJob(job_id, JobStatus.SUCCEEDED, queue.GONE, error=f"the API does not have job {job_id}")
            if job.id != job_id or job.status not in TERMINAL:
                log.warning("job.not_cancelled", chunk_id=chunk_id, job_id=job_id, status=ascii(job.api_status)[:80])
                return None
            with self.ledger.transaction() as connection:
                end_job(connection, chunk_id, job, job.results or JobResults(()), at=timestamp(self.clock.now()))
        except (Rejected, ContractBroken) as error:
            log.warning("job.not_cancelled", chunk_id=chunk_id, job_id=job_id, why=str(error))
            return None
        log.info("job.cancelled", chunk_id=chunk_id, job_id=job_id, status=job.api_status)
        return job.status

    async def _is_of_the_project(self, api: Api, chunk_id: int) -> bool:
        """Whether the key may be of the ledger's project: the API has another of its jobs, or there is no other."""
        with self.ledger.transaction() as connection:
            others = queue.jobs_beside(connection, chunk_id, most=5)
        for job_id in others:
            try:
                await api.get(job_id)
            except Rejected:
                continue
            return True
        return not others

    async def _stopped(self, api: Api, job_id: str, until: float) -> RemoteJob:
        """The job after it was asked to stop. Raises Rejected when the API does not know it."""
        try:
            job = await api.cancel(job_id)
        except Rejected as error:
            # It has ended, most likely, and then has a result; if not, waiting would not help.
            log.info("job.cancel_refused", job_id=job_id, why=str(error))
            return await api.get(job_id)
        while job.status not in TERMINAL and self.clock.monotonic() < until:
            await self.clock.sleep(LOOK_S)
            job = await api.get(job_id)
        return job


def stale_since(clock: Clock, settings: Settings) -> str:
    """Jobs in flight since before then are stuck."""
    return timestamp(clock.now() - timedelta(seconds=settings.stale_s))


def free_stuck(
    canceller: Canceller, selection: Selection, *, held: bool, deadline_s: float | None
) -> tuple[str | None, dict[int, str]]:
    """Cancel the stuck jobs of files that *selection* names, so that these may be sent again.

    The time it began, since when some may turn out to have ended well, or None where no job is stuck; and, chunk id ->
    why not, the jobs that go on: of v1 none where a person has *held* files sent without that. Raises ApiError, and
    then nothing may be sent.
    """
    manifest, settings, clock = canceller.manifest, canceller.settings, canceller.clock
    with canceller.ledger.transaction() as connection:
        known = reading.manifests(connection, manifest.name, rehearsal=False)
        if not known or known[0].origin != origin(canceller.base_url):
            return None, {}  # nothing was sent, or elsewhere: planning refuses that
        scope = ledger_scope.find_scope(connection, manifest.name, rehearsal=False, config=manifest.config)
        since = stale_since(clock, settings)
        allowed = Allowed(manifest.limits.max_generations)
        stuck = select_stuck(connection, scope, selection, allowed, manifest.file_ids(), since=since)
        stuck = [job for job in stuck if job.api != "v1" or not held]
    if not stuck:
        return None, {}
    began = timestamp(clock.now())
    wait_s = settings.settle_s if deadline_s is None else min(settings.settle_s, deadline_s)
    left: dict[int, str] = {}
    for api in sorted({job.api for job in stuck}):
        of_api = [job for job in stuck if job.api == api]
        ended = canceller.cancel(api, [(job.chunk_id, job.job_id) for job in of_api], wait_s=wait_s, denied=held)
        for job in of_api:
            if ended is None:
                left[job.chunk_id] = V1_CANNOT
            elif job.chunk_id not in ended:
                left[job.chunk_id] = f"job {job.job_id} could not be cancelled, so its file was not sent again"
    if left:
        log.warning("retry.not_cancelled", jobs=len(left), why=next(iter(left.values())))
    return began, left


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The end of the jobs that were in flight."""

    manifest: str
    host: str  #: the API's, as the ledger names it
    in_flight: int
    cancelled: int
    ended_before: int  #: had ended; their results are recorded
    going_on: int  #: have not ended, as far as the API says
    cannot: int  #: of an API version without cancel


def cancel(
    manifest: Manifest, settings: Settings, path: ledger.Location, clock: Clock, *, base_url: str | None
) -> Cancelled:
    """Cancel the manifest's jobs that are in flight and record it. Raises OrchestratorError."""
    ledger.require(path)
    base, key = access(manifest, settings, base_url)
    hide_secrets(manifest, settings, key)
    holder = {"command": "orchestrator cancel", "since": timestamp(clock.now(), "seconds")}
    with ledger.lease(path, manifest.name, holder) as lease, ledger.open(path, lease=lease) as opened:
        with opened.transaction() as connection:
            rows = reading.manifests(connection, manifest.name, rehearsal=False)
            if not rows:
                raise InputError(f"{path}: this ledger has no manifest {manifest.name!r}")
            by_api = {
                api: queue.in_flight(connection, queue.Shard(rows[0].id, api))
                for api in queue.open_apis(connection, rows[0].id)
            }

        canceller = Canceller(manifest, settings, opened, clock, base, key)
        cancelled = ended = going_on = cannot = 0
        for api, open_jobs in by_api.items():
            found = canceller.cancel(api, [(job.chunk_id, job.job_id) for job in open_jobs], wait_s=0)
            if found is None:
                cannot += len(open_jobs)
                continue
            stopped = Counter(found.values())[JobStatus.CANCELLED]
            cancelled += stopped
            ended += len(found) - stopped
            going_on += len(open_jobs) - len(found)
    in_flight = sum(map(len, by_api.values()))
    return Cancelled(manifest.name, origin(base), in_flight, cancelled, ended, going_on, cannot)
