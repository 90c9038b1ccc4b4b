"""An unanswered create call on its way to a finding: what is known of it so far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from orchestrator.ledger import queue
from orchestrator.ledger.chunks import doubts
from orchestrator.models import Chunk, RemoteJob
from orchestrator.stages.unanswered.judging import Signs, is_borne_out, may_be_after
from orchestrator.stages.unanswered.likeness import Echoes, Likeness


@dataclass(slots=True)
class Doubt:
    """An unanswered chunk, and what this run has learnt of its call."""

    chunk: Chunk
    parked: queue.Parked
    taken_up: float  #: monotonic
    not_before: float  #: monotonic; a listing begun earlier proves no absence
    from_an_earlier_run: bool
    signs: Signs = field(default_factory=Signs)
    shown: bool = False  #: the latest listing has the known jobs next to the call
    named: frozenset[str] = frozenset()  #: jobs in flight that later calls were answered with
    sharing: list[Chunk] = field(default_factory=list)  #: chunks in flight with files of this one, under another config
    vanished: frozenset[str] = frozenset()  #: jobs that are not listed; later calls were answered with them by mistake
    floor: str | None = None  #: the call's mark, where known jobs bear it out

    def may_have_made(self, candidates: Iterable[RemoteJob], echoes: Echoes) -> list[RemoteJob]:
        """Return those *candidates* that this chunk's call may have made: of its config, not from before the call."""
        return [
            job
            for job in candidates
            if may_be_after(job, self.floor) and echoes.likeness(job, self.chunk.config) is not Likeness.OTHER
        ]

    def learn(self, neighbours: Iterable[doubts.Neighbour], listed: Mapping[str, RemoteJob]) -> None:
        """Learn from the known jobs that the latest listing shows next to the call."""
        known = list(neighbours)
        self.shown = bool(known) and all(each.job_id in listed for each in known)
        since = [listed[each.job_id] for each in known if each.same_run and each.job_id in listed]
        self.floor = self.parked.mark if is_borne_out(self.parked.mark, since) else None
