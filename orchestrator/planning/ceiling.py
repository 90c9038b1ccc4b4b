"""The most that a run can send and cost, line by line: what it sets out to send, and what may come of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.ledger.chunks.plan import OpenChunks
from orchestrator.manifest.loading import Manifest
from orchestrator.models import Config, JobStatus


@dataclass(frozen=True, slots=True)
class Line:
    """At most so many files are sent, at most so many credits billed; None: not known."""

    files: int = 0
    credits: int | None = 0

    def __add__(self, other: Line) -> Line:
        known = self.credits is not None and other.credits is not None
        return Line(self.files + other.files, (self.credits or 0) + (other.credits or 0) if known else None)

    @classmethod
    def of(cls, config: Config, files: int) -> Line:
        return cls(files, config.credits_ceiling(files))


@dataclass(frozen=True, slots=True)
class Ceiling:
    """``sum`` is never passed. What the API already has is paid for, and not in it."""

    chosen: Line  #: what the next run sends of its own: new files, or those of a retry
    planned: Line  #: planned by an earlier run and not sent
    unanswered: Line  #: the create call had no answer: sent again if the API proves to have no such job
    halves: Line  #: if jobs fail: their files, halved down to the one at fault
    second_opinions: Line  #: with ``escalate``, if no answer is sure
    sum: Line


def ceiling(
    manifest: Manifest, chosen: Iterable[tuple[Config, int]], left: Iterable[OpenChunks], unsure: int, size: int
) -> Ceiling:
    """The ceiling of a run that sends *chosen*, files by config, in chunks of *size*, after what was *left* before.

    *unsure*: results of before that ``escalate`` asks for again.
    """
    own = planned = unanswered = halves = Line()
    to_come = unsure  # files whose answers may be unsure
    for config, files in chosen:
        own += Line.of(config, files)
        halves += Line.of(config, files * halvings(min(size, files)))
        to_come += files
    for chunks in left:
        line = Line.of(chunks.config, chunks.files)
        if chunks.status is JobStatus.PENDING:
            planned += line
        elif chunks.status is JobStatus.SUBMITTING:
            unanswered += line
        halves += Line.of(chunks.config, chunks.files * halvings(chunks.size))
        to_come += chunks.files
    second = Line()
    if manifest.stronger_config is not None:
        second = Line.of(manifest.stronger_config, to_come)
        halves += Line.of(manifest.stronger_config, to_come * halvings(min(manifest.chunk_size, to_come)))
    return Ceiling(own, planned, unanswered, halves, second, own + planned + unanswered + halves + second)


def halvings(size: int) -> int:
    """How often a chunk of *size* files can be cut in two, each time sending every file of it once more."""
    return max(size - 1, 0).bit_length()
