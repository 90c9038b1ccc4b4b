"""Evidence about jobs that the ledger does not know: whose files their results are."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from orchestrator.api.client import Api
from orchestrator.errors import Unanswered
from orchestrator.models import GOOD, TERMINAL, Chunk, JobResults, JobStatus, RemoteJob
from orchestrator.stages.collector import results_of
from orchestrator.stages.unanswered.likeness import Echoes, Likeness

#: Most jobs whose results are read at one look, the newest first: a project may have thousands of the same rules.
MOST_READ = 100


@dataclass(slots=True)
class Evidence:
    """Collects what is known of the jobs that the ledger does not know."""

    files: dict[str, frozenset[str]] = field(default_factory=dict)  #: ended jobs -> the files in their results
    good: dict[str, frozenset[str]] = field(default_factory=dict)  #: ended jobs -> the files with a good result
    nameless: set[str] = field(default_factory=set)  #: ended jobs with results that name no file
    unanswered: dict[str, str] = field(default_factory=dict)  #: ended jobs whose results can't be had, and why not

    async def gather(
        self, api: Api, candidates: Iterable[RemoteJob], chunks: Collection[Chunk], *, each_alone: bool = False
    ) -> None:
        """Read results of the ended *candidates*, the newest first.

        Read again is what has shown no results yet, or only some of one of *chunks*. *each_alone*: one whose results go
        unanswered while the API answers otherwise is left unread, and the others are read. Raises ApiError.
        """
        ended = sorted((job for job in candidates if job.status in TERMINAL), key=_newest_first)
        sets = {frozenset(chunk.file_ids) for chunk in chunks}
        ours = frozenset[str]().union(*sets)
        new = [job for job in ended if job.id not in self.files]
        seen = [(job, self.files[job.id]) for job in ended if job.id in self.files]
        again = [job for job, files in seen if not files or (files not in sets and not files.isdisjoint(ours))]
        for job in new[:MOST_READ] + again[:MOST_READ]:
            try:
                self.learn(job, await results_of(api, job))
            except Unanswered as error:
                if not each_alone or not await api.answers_for_a_job():
                    raise
                self.unanswered[job.id] = str(error)

    def learn(self, job: RemoteJob, results: JobResults) -> None:
        """Add what *results* of an ended *job* show to what earlier ones have shown."""
        self.unanswered.pop(job.id, None)
        self.files[job.id] = self.files.get(job.id, frozenset()).union(row.file_id for row in results.rows)
        good = (row.file_id for row in results.rows if row.outcome in GOOD)
        self.good[job.id] = self.good.get(job.id, frozenset()).union(good)
        if results.nameless:
            self.nameless.add(job.id)

    def unread(self, job: RemoteJob) -> bool:
        """Whether *job* has ended, and its results are yet to be read, or could not be at the latest look."""
        return job.status in TERMINAL and (job.id not in self.files or job.id in self.unanswered)

    def why_unread(self, jobs: Iterable[RemoteJob]) -> str:
        """Why nobody can read the results of some of *jobs*; empty where all can be read."""
        first = next((job for job in jobs if job.id in self.unanswered), None)
        if first is None:
            return ""
        return f"job {first.id} may be this chunk's, and its results can't be read: {self.unanswered[first.id]}"

    def proves(self, job: RemoteJob, chunk: Chunk) -> bool:
        """Whether *job*'s results are of *chunk*'s files, of all of them, and of no others."""
        return self.files.get(job.id) == frozenset(chunk.file_ids)

    def suggests(self, job: RemoteJob, chunk: Chunk) -> bool:
        """Whether *job*'s results are of *chunk*'s files only, or of all of them and of more."""
        files, ours = self.files.get(job.id, frozenset()), frozenset(chunk.file_ids)
        return bool(files) and (files < ours or files > ours)

    def lacks(self, job: RemoteJob, chunk: Chunk, others: Iterable[RemoteJob]) -> bool:
        """Whether *others* have good results of *chunk*'s files that *job* does not have."""
        theirs = frozenset[str]().union(*(self.good.get(other.id, frozenset()) for other in others))
        return not theirs.intersection(chunk.file_ids) <= self.good.get(job.id, frozenset())

    def may_show_more(self, job: RemoteJob, chunk: Chunk) -> bool:
        """Whether *job* may yet show results of *chunk*'s files: it runs, or has shown only some of them so far."""
        shown = self.files.get(job.id, frozenset())
        return job.status not in TERMINAL or (job.status is JobStatus.SUCCEEDED and shown < frozenset(chunk.file_ids))

    def hints(self, job: RemoteJob, chunk: Chunk) -> bool:
        """Whether some of *job*'s results are of *chunk*'s files: too much to send the chunk again."""
        return not self.files.get(job.id, frozenset()).isdisjoint(chunk.file_ids)

    def proven(
        self, jobs: Iterable[RemoteJob], chunk: Chunk, others: Collection[Chunk], echoes: Echoes
    ) -> list[RemoteJob]:
        """Those of *jobs* that are *chunk*'s and may be of none of *others*: the one with the most good answers first.

        There may be several, as when a person had the chunk sent again.
        """
        found = [job for job in jobs if self.proves(job, chunk) and not self.rivals(job, chunk, others, echoes)]
        return sorted(found, key=lambda job: (-len(self.good[job.id]), _oldest_first(job)))

    def partial(
        self, jobs: Iterable[RemoteJob], chunk: Chunk, others: Collection[Chunk], echoes: Echoes
    ) -> list[RemoteJob]:
        """Those of *jobs* with results of some of *chunk*'s files, or of more, that may be of none of *others*.

        The one with the most good answers first.
        """
        ours = frozenset(chunk.file_ids)
        found = [job for job in jobs if self.suggests(job, chunk) and not self.rivals(job, chunk, others, echoes)]
        shown = {job.id: (len(self.good[job.id] & ours), len(self.files[job.id] & ours)) for job in found}
        return sorted(found, key=lambda job: (*(-count for count in shown[job.id]), _oldest_first(job)))

    def rivals(self, job: RemoteJob, chunk: Chunk, others: Iterable[Chunk], echoes: Echoes) -> list[Chunk]:
        """Those of *others* that *job* may be of no less than of *chunk*, unless its echo shows that it is not.

        Its results are just of their files; or, as its echo may not tell two configs apart, of some of them.
        """
        partly = not self.proves(job, chunk)
        return [
            other
            for other in others
            if other.id != chunk.id
            and echoes.likeness(job, other.config) is not Likeness.OTHER
            and (self.proves(job, other) or (partly and other.config != chunk.config and self.suggests(job, other)))
        ]


def _newest_first(job: RemoteJob) -> tuple[bool, float, str]:
    return job.created_at is not None, -job.created_at.timestamp() if job.created_at else 0.0, job.id


def _oldest_first(job: RemoteJob) -> tuple[bool, float, str]:
    return job.created_at is None, job.created_at.timestamp() if job.created_at else 0.0, job.id
