"""What the server knows: its jobs, who bought which file when, and what is true of a file."""

from __future__ import annotations

import hashlib
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PROJECT = "7c7c7c7c-1111-4222-8333-444455556666"
USER = "user-1"


def fraction(*parts: object) -> float:
    """A number in [0, 1) that *parts* alone decide: no order of events changes it."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:7], "big") / (1 << 56)


def canonical(file_id: str) -> str:
    """One form for the ways in which the ID of a file may be written."""
    return file_id.lower().removeprefix("dfl-")


@dataclass(frozen=True)
class Truth:
    """How a file really ends: a type, None for no match; ``failed`` and ``sinks`` (its whole job) when it can't be."""

    type: str | None = None
    failed: bool = False
    sinks: bool = False

    @property
    def outcome(self) -> str:
        return "failed" if self.failed or self.sinks else "unmatched" if self.type is None else "classified"


@dataclass
class Job:
    """One classify job. ``born`` is monotonic; ``stamp`` is what the server's wall clock said then."""

    id: str
    api: str
    files: Sequence[str]
    asked: Mapping[str, Any]  #: the create call's body
    born: float
    stamp: float
    lasts_s: float
    foreign: bool = False
    told: int = 0  #: how often its results were read

    def over(self, now: float) -> bool:
        return now >= self.born + self.lasts_s


@dataclass(frozen=True)
class Purchase:
    """A create call that had its effect."""

    at: float
    job_id: str
    files: tuple[str, ...]


@dataclass
class Books:
    """All jobs by ID, in the order in which they were made, and the journal of what was bought."""

    seed: int
    truths: Mapping[str, Truth]
    jobs: dict[str, Job] = field(default_factory=dict)
    journal: list[Purchase] = field(default_factory=list)
    keys: dict[str, Job] = field(default_factory=dict)  #: v2: transaction ID -> job

    def add(self, job: Job) -> None:
        self.jobs[job.id] = job
        if not job.foreign:
            self.journal.append(Purchase(job.born, job.id, tuple(job.files)))

    def new_id(self, api: str) -> str:
        plain = str(uuid.UUID(bytes=hashlib.sha256(f"{self.seed} {len(self.jobs)}".encode()).digest()[:16], version=4))
        return plain if api == "v1" else f"clj-{plain}"

    def truth(self, file_id: str) -> Truth:
        return self.truths.get(canonical(file_id), Truth("invoice"))

    def sunk(self, job: Job) -> bool:
        """Whether one of its files sinks the whole job, so that none of them has a result."""
        return any(self.truth(file_id).sinks for file_id in job.files)

    def came_to_nothing(self, job: Job) -> bool:
        """Whether none of its files has a result: it ends in ERROR, and may be halved."""
        return self.sunk(job) or all(self.truth(file_id).failed for file_id in job.files)

    def bought_twice(self) -> dict[str, list[str]]:
        """File -> its jobs, for the files that were bought again while an earlier job had a result for them."""
        jobs_of = defaultdict(list)
        for purchase in self.journal:
            for file_id in purchase.files:
                jobs_of[canonical(file_id)].append(purchase.job_id)
        return {
            file_id: job_ids
            for file_id, job_ids in jobs_of.items()
            if len(job_ids) > 1 and not all(self.came_to_nothing(self.jobs[job_id]) for job_id in job_ids[:-1])
        }

    def answered(self) -> set[str]:
        """The files that some job was bought of which did not come to nothing."""
        good = (purchase for purchase in self.journal if not self.came_to_nothing(self.jobs[purchase.job_id]))
        return {canonical(file_id) for purchase in good for file_id in purchase.files}

    def bought(self) -> set[str]:
        return {canonical(file_id) for purchase in self.journal for file_id in purchase.files}
