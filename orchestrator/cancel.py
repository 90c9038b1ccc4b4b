"""``orchestrator cancel``: ask the API to stop what is in flight, where it can."""

from __future__ import annotations

import asyncio
import random
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog

from orchestrator.api.client import Api
from orchestrator.clock import SystemClock
from orchestrator.collector import collect
from orchestrator.errors import InputError, Rejected
from orchestrator.ledger import Ledger, database, jobs, place, reading
from orchestrator.manifest import Manifest
from orchestrator.models import TERMINAL, JobResults, Json
from orchestrator.pipeline import access, connect
from orchestrator.poller import record
from orchestrator.settings import Settings

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What became of the jobs that were in flight."""

    manifest: str
    in_flight: int
    cancelled: int
    ended_before: int  #: had ended, or could not be cancelled: the next run collects them
    cannot: int  #: of an API version without cancel

    def as_json(self) -> dict[str, Json]:
        return asdict(self)


def cancel(manifest: Manifest, settings: Settings, path: Path, *, base_url: str | None) -> Cancelled:
    """Cancel the manifest's jobs that are in flight and record it. Raises OrchestratorError."""
    place.require(path)
    clock = SystemClock()
    base, key = access(manifest, settings, base_url)
    holder = {"command": "orchestrator cancel", "since": clock.now().isoformat(timespec="seconds")}
    with database.run_lock(path, manifest.name, holder) as lock, Ledger(path, lock=lock) as ledger:
        with ledger.transaction() as connection:
            rows = reading.manifests(connection, manifest.name, rehearsal=False)
            if not rows:
                raise InputError(f"{path}: this ledger has no manifest {manifest.name!r}")
            by_api = {
                api: jobs.in_flight(connection, jobs.Shard(rows[0].id, api))
                for api in jobs.open_apis(connection, rows[0].id)
            }

        async def go() -> tuple[int, int, int]:
            cancelled = ended = cannot = 0
            for name, open_jobs in by_api.items():
                api = connect(manifest, name, settings, base_url=base, key=key, clock=clock, rng=random.Random())
                try:
                    if not api.traits.can_cancel:
                        cannot += len(open_jobs)
                        continue
                    for job in open_jobs:
                        done = await _cancel(api, ledger, job, clock.now().isoformat(timespec="milliseconds"))
                        cancelled, ended = cancelled + done, ended + (not done)
                finally:
                    await api.close()
            return cancelled, ended, cannot

        cancelled, ended, cannot = asyncio.run(go())
    return Cancelled(manifest.name, sum(map(len, by_api.values())), cancelled, ended, cannot)


async def _cancel(api: Api, ledger: Ledger, open_job: jobs.OpenJob, at: str) -> bool:
    """Whether the job is now cancelled; its files are recorded then. Raises ApiError."""
    try:
        job = await api.cancel(open_job.job_id)
    except Rejected as error:
        log.info("job.not_cancelled", job_id=open_job.job_id, why=str(error))
        return False
    if job.id != open_job.job_id or job.status not in TERMINAL:
        return False  # asked for, not yet done: the next run sees how it ended
    with ledger.transaction() as connection:
        chunk = jobs.chunk(connection, open_job.chunk_id)
        types = [rule.type for rule in chunk.config.rules]
        record(connection, chunk, job, collect(chunk.file_ids, types, job, job.results or JobResults(())), at=at)
    return True
