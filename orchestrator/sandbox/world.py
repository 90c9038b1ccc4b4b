"""The sandbox's memory: files, jobs, and a journal of every create that took effect.

A job is a few numbers. Its status and results are worked out when a call asks for them, so a million jobs are cheap and
nothing runs in the background.
"""

from __future__ import annotations

import base64
import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from orchestrator.models import Json, Rule
from orchestrator.sandbox import classifying
from orchestrator.sandbox.classifying import Answer
from orchestrator.sandbox.options import SandboxOptions
from orchestrator.sandbox.story import Story

HOSTILE = '\x1b]0;owned\x07\x1b[2J=cmd|"/C calc"!A1,<script>alert(1)</script>\u202e\r\n\x00%s{0}'


Keep = Callable[["Job"], bool]
Found = tuple[list["Job"], str | None]


class Phase(StrEnum):
    """Where a job is; each version of the API has its own words for it."""

    PENDING = "pending"
    RUNNING = "running"
    UNHEARD = "unheard"  #: not ended, and called by a word that is not in the contract
    DONE = "done"
    PARTIAL = "partial"  #: ended; some files have no result
    ERROR = "error"
    CANCELLED = "cancelled"


UNDER_WAY = frozenset({Phase.PENDING, Phase.RUNNING, Phase.UNHEARD})


@dataclass(frozen=True, slots=True)
class Spec:
    """A job's request; one object for all jobs with the same request."""

    rules: tuple[Rule, ...]
    mode: str
    lang: str
    max_pages: int | None
    target_pages: tuple[int, ...] | str | None
    configuration_id: str | None = None


@dataclass(slots=True, eq=False)
class Job:
    """One create that took effect, or is about to. Times are seconds since the sandbox began."""

    id: str
    number: int  #: what its story depends on
    version: str
    project_id: str
    file_ids: tuple[str, ...]
    spec: Spec
    transaction_id: str | None
    body_digest: bytes  #: SHA-256 of the create's body
    created_at: float
    ends_at: float
    cancelled: bool = False
    deleted: bool = False
    webhooks: tuple[dict[str, Json], ...] = ()


@dataclass(frozen=True, slots=True)
class File:
    """An uploaded file: of its content only the words are kept."""

    id: str
    name: str
    project_id: str
    purpose: str
    external_file_id: str | None
    uploaded_at: float
    words: frozenset[str]
    size: int = 0
    locked: bool = False  #: a PDF that needs a password: it has no result


class World:
    """The state behind the API. Every method is immediate; time is what the injected clock says when asked."""

    def __init__(self, options: SandboxOptions) -> None:
        self.options = options
        self.story = Story(options.seed, options.faults)
        self.files: dict[str, File] = {}
        self.uploads: list[File] = []  #: every upload that took effect; a deleted file stays
        self._by_external: dict[tuple[str, str], list[File]] = {}
        self.requests: Counter[str] = Counter()
        self.throttled: Counter[str] = Counter()
        self.webhooks: Counter[str] = Counter()  #: deliveries by how they ended
        self.on_webhooks: Callable[[Job], None] = lambda job: None  #: called with each new job that has webhooks
        self._began = options.clock.now()
        self._monotonic = options.clock.monotonic()
        self._journal: list[Job] = []
        self._listed: dict[str, list[Job]] = {"v1": [], "v2": []}
        self._jobs: dict[str, Job] = {}
        self._by_transaction: dict[tuple[str, str], Job] = {}
        self._late: list[tuple[float, int, Job]] = []
        self._specs: dict[Spec, Spec] = {}
        self._numbers = 0

    def now(self) -> float:
        """Seconds since the sandbox began, whole microseconds as timestamps on the wire have them."""
        return round(self.options.clock.monotonic() - self._monotonic, 6)

    def wall(self, at: float) -> datetime:
        return self._began + timedelta(seconds=at)

    def new_id(self, what: str) -> str:
        """A UUID. Job IDs of two sandboxes that began at different times differ, whatever the seed."""
        self._numbers += 1
        return self.story.uuid(what, self._began, self._numbers)

    def add_file(self, file: File) -> None:
        self.files[file.id] = file
        self.uploads.append(file)
        if file.external_file_id is not None:
            self._by_external.setdefault((file.project_id, file.external_file_id), []).append(file)

    def file(self, file_id: str) -> File | None:
        """The uploaded file *file_id*, whose UUID may stand without ``dfl-`` and in upper case, while it is there."""
        file = self.files.get(file_id) or self.files.get(f"dfl-{file_id.removeprefix('dfl-').lower()}")
        return file if file is not None and self.is_there(file) else None

    def files_of(self, external_file_id: str, project_id: str) -> list[File]:
        """The files that were uploaded under that name of the client's, oldest first."""
        return [file for file in self._by_external.get((project_id, external_file_id), ()) if self.is_there(file)]

    def is_there(self, file: File) -> bool:
        lasts = self.options.file_seconds
        return file.id in self.files and (not lasts or self.now() < file.uploaded_at + lasts)

    @property
    def journal(self) -> list[Job]:
        """Every create that took effect, in that order; a deleted job stays."""
        self._settle()
        return self._journal

    def add_job(
        self,
        *,
        version: str,
        project_id: str,
        file_ids: tuple[str, ...],
        spec: Spec,
        transaction_id: str | None,
        body_digest: bytes,
        late_s: float,
        webhooks: tuple[dict[str, Json], ...] = (),
    ) -> Job:
        """A new job, there to be read *late_s* and the option's delay from now."""
        self._settle()
        spec = self._specs.setdefault(spec, spec)
        job_id = ("clj-" if version == "v2" else "") + self.new_id("job")
        low, high = self.options.job_seconds
        created_at = round(self.now() + late_s + self.options.commit_delay_s, 6)
        lasts = low + (high - low) * self.story.unit("lasts", self._numbers)
        job = Job(
            job_id,
            self._numbers,
            version,
            project_id,
            file_ids,
            spec,
            transaction_id,
            body_digest,
            created_at,
            created_at + lasts,
            webhooks=webhooks,
        )
        if transaction_id is not None:
            self._by_transaction[project_id, transaction_id] = job
        if created_at > self.now():
            heapq.heappush(self._late, (created_at, job.number, job))
        else:
            self._commit(job)
        return job

    def find(self, version: str, job_id: str) -> Job | None:
        self._settle()
        job = self._jobs.get(job_id)
        return job if job is not None and job.version == version and not job.deleted else None

    def of_transaction(self, project_id: str, transaction_id: str) -> Job | None:
        return self._by_transaction.get((project_id, transaction_id))

    def delete(self, job: Job) -> None:
        """Forget *job*; its transaction_id may make a new one."""
        job.deleted = True
        if job.transaction_id is not None:
            del self._by_transaction[job.project_id, job.transaction_id]

    def page(self, version: str, token: str | None, size: int, keep: Keep, oldest: float = float("-inf")) -> Found:
        """Jobs that *keep* wants, newest first, none older than *oldest*; and the token of the next page.

        Raises ValueError for a token that was never given out.
        """
        self._settle()
        listed = self._listed[version]
        index = len(listed)
        if token is not None:
            index = min(index, int(base64.urlsafe_b64decode(token.encode())))
        shown_until = self.now() - self.options.list_lag_s
        found: list[Job] = []
        while index > 0 and len(found) < size:
            index -= 1
            job = listed[index]
            if job.created_at < oldest:
                return found, None
            if job.created_at <= shown_until and not job.deleted and keep(job):
                found.append(job)
        return found, base64.urlsafe_b64encode(str(index).encode()).decode() if index else None

    def phase(self, job: Job) -> Phase:
        """Where *job* is now."""
        story = self.story
        if job.cancelled:
            return Phase.CANCELLED
        now = self.now()
        if now < job.ends_at or story.happens("job-stick", job.number):
            if story.happens("job-unknown-status", job.number):
                return Phase.UNHEARD
            started = job.created_at + (job.ends_at - job.created_at) / 3
            return Phase.RUNNING if now >= started else Phase.PENDING
        if story.happens("job-cancel", job.number):
            return Phase.CANCELLED
        if self._rowless(job) or story.happens("error-with-rows", job.number):
            return Phase.ERROR
        failed = sum(self.file_failed(job, file_id) for file_id in job.file_ids)
        return Phase.ERROR if failed == len(job.file_ids) else Phase.PARTIAL if failed else Phase.DONE

    def file_failed(self, job: Job, file_id: str) -> bool:
        """Whether *file_id* has no result once *job* has ended."""
        story = self.story
        return (
            ((file := self.file(file_id)) is not None and file.locked)
            or story.happens("all-error", job.number)
            or story.happens("file-fails", file_id)
            or story.matches("fail-matching", file_id)
            or (story.happens("error-with-rows", job.number) and story.unit("half", job.number, file_id) < 0.5)
        )

    def rows(self, job: Job) -> Iterator[tuple[str | None, Answer | None]]:
        """The ended *job*'s rows, a failed file's with None; what the faults make of them included."""
        options, story = self.options, self.story
        if self._rowless(job) or self.phase(job) is Phase.CANCELLED:
            return
        file_ids = list(dict.fromkeys(job.file_ids))
        if options.shuffled:
            file_ids.sort(key=lambda file_id: story.digest("order", job.number, file_id))
        for file_id in file_ids:
            about = (job.number, file_id)
            failed = self.file_failed(job, file_id)
            if (failed and options.failed_file == "missing") or story.happens("row-missing", *about):
                continue
            answer = None if failed else self.answer(file_id, job.spec)
            yield (None if story.happens("row-null-id", *about) else file_id), answer
            if story.happens("row-repeat", *about):
                yield file_id, answer
            if story.happens("row-conflict", *about):
                yield file_id, _contrary(answer, job.spec.rules)
        if story.happens("row-extra", job.number):
            stranger = story.uuid("stranger", job.number)
            yield stranger, self.answer(stranger, job.spec)

    def answer(self, file_id: str, spec: Spec) -> Answer:
        """The answer of *spec* for the file; half as unsure in mode MULTIMODAL, so that a second opinion shows."""
        file, rules = self.file(file_id), spec.rules
        answer = (
            classifying.by_words(file.words, rules)
            if file is not None
            else classifying.made_up(self.story, file_id, rules, self.options.null_share)
        )
        label = "no-such-rule" if self.story.happens("label-unknown", file_id) else answer.type
        reasoning = HOSTILE if self.story.happens("hostile-text", file_id) else answer.reasoning
        unsure = (1 - answer.confidence) / (2 if spec.mode == "MULTIMODAL" else 1)
        return Answer(label, round(1 - unsure, 3), reasoning)

    def entries(self) -> list[dict[str, Json]]:
        """The journal as JSON."""
        return [
            {
                "at": self.wall(job.created_at).isoformat(),
                "version": job.version,
                "job_id": job.id,
                "project_id": job.project_id,
                "file_ids": job.file_ids,
                "transaction_id": job.transaction_id,
                "body_sha256": job.body_digest.hex(),
            }
            for job in self.journal
        ]

    def _rowless(self, job: Job) -> bool:
        return self.story.happens("job-error", job.number) or any(
            self.story.matches("poison-matching", file_id) for file_id in job.file_ids
        )

    def _settle(self) -> None:
        """Let the creates that are due take effect."""
        while self._late and self._late[0][0] <= self.now():
            self._commit(heapq.heappop(self._late)[2])

    def _commit(self, job: Job) -> None:
        self._journal.append(job)
        self._listed[job.version].append(job)
        self._jobs[job.id] = job
        if job.webhooks:
            self.on_webhooks(job)


def _contrary(answer: Answer | None, rules: tuple[Rule, ...]) -> Answer:
    """An answer that *answer* does not agree with."""
    other = next((rule.type for rule in rules if answer is None or rule.type != answer.type), None)
    return Answer(other, 0.5, "On second thoughts.")
