"""``orchestrator cancel``: ask the API to stop what is in flight, where it can."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestrator.cancelling import Canceller
from orchestrator.clock import SystemClock
from orchestrator.errors import InputError
from orchestrator.ledger import Ledger, database, jobs, place, reading
from orchestrator.manifest import Manifest
from orchestrator.models import JobStatus, Json
from orchestrator.pipeline import access
from orchestrator.settings import Settings


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What became of the jobs that were in flight."""

    manifest: str
    in_flight: int
    cancelled: int
    ended_before: int  #: had ended; their results are recorded
    going_on: int  #: have not ended, as far as the API tells
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

        canceller = Canceller(manifest, settings, ledger, clock, base, key)
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
    return Cancelled(manifest.name, sum(map(len, by_api.values())), cancelled, ended, going_on, cannot)
