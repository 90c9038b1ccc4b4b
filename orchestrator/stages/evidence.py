"""What is known of jobs that the ledger does not know: whose files their results are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from orchestrator.api.client import Api
from orchestrator.models import TERMINAL, Chunk, RemoteJob
from orchestrator.stages.collector import results_of


@dataclass(slots=True)
class Evidence:
    """What is known of the jobs that the ledger does not know."""

    files: dict[str, frozenset[str]] = field(default_factory=dict)  #: ended jobs -> the files in their results
    nameless: set[str] = field(default_factory=set)  #: ended jobs with results that name no file

    async def gather(self, api: Api, candidates: Iterable[RemoteJob]) -> None:
        """Read the results of the ended *candidates*; again where there were none yet. Raises ApiError."""
        for job in candidates:
            if job.status in TERMINAL and not self.files.get(job.id):
                results = await results_of(api, job)
                self.files[job.id] = frozenset(row.file_id for row in results.rows)
                if results.nameless:
                    self.nameless.add(job.id)

    def proves(self, job: RemoteJob, chunk: Chunk) -> bool:
        """Whether *job*'s results are all of *chunk*'s files, or *chunk*'s files all have results in *job*."""
        files, ours = self.files.get(job.id, frozenset()), frozenset(chunk.file_ids)
        return bool(files) and (files <= ours or files >= ours)

    def hints(self, job: RemoteJob, chunk: Chunk) -> bool:
        """Whether some of *job*'s results are of *chunk*'s files: too much to send the chunk again."""
        return not self.files.get(job.id, frozenset()).isdisjoint(chunk.file_ids)
