"""submitting -> submitted, or pending again: finding out what an unanswered create call came to.

Only for an API without idempotency keys. A job does not say which files it is for, so the proof is its results: the
job whose rows are the chunk's files is the chunk's. Absence is proved by two complete listings without a candidate,
the first of them a settle time after the call was over, the second a settle time after the first. What is left in
doubt is held for a person; nothing is ever sent again on a guess.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from orchestrator.api.listing import complete_listing
from orchestrator.errors import RunStopped
from orchestrator.ledger import Transaction, jobs, projects, queue
from orchestrator.models import TERMINAL, Chunk, JobStatus, RemoteJob
from orchestrator.stages.audit import report_orphan
from orchestrator.stages.evidence import Evidence
from orchestrator.stages.work import Work

log = structlog.get_logger()

#: How far the listing goes back beyond the newest job known before a call: clocks of one service differ.
SLACK = timedelta(minutes=10)

#: How often a job that may be ours is looked at until it ends: from, to.
FIRST_LOOK_S, LAST_LOOK_S = 0.5, 15.0


#: Most times that a chunk is sent again, each on a proof of absence of its own. Where the API fails every create call
#: of a run, the fault is no accident, and one is enough for that run; that this program was killed says nothing of it.
MAX_RESENDS = 3


@dataclass(slots=True)
class _Open:
    """An unanswered chunk on its way to a verdict."""

    chunk: Chunk
    parked: queue.Parked
    taken_up: float  #: monotonic
    not_before: float  #: monotonic; a listing begun earlier proves no absence
    from_an_earlier_run: bool
    clean_at: float | None = None  #: monotonic start of the first listing that had no candidate
    doubtful_since: float | None = None

    def may_have_made(self, candidates: Iterable[RemoteJob]) -> list[RemoteJob]:
        """Those of *candidates* that this chunk's call may have made: of its config, and not from before the call."""
        return [job for job in candidates if job.config == self.chunk.config and _is_after(job, self.parked.mark)]


def _is_after(job: RemoteJob, mark: str | None) -> bool:
    """Whether *job* may have been made by a call that left when *mark* was the newest time that the API listed."""
    return mark is None or job.created_at is None or job.created_at >= datetime.fromisoformat(mark) - SLACK


class Reconciler:
    """Settles the shard's unanswered chunks while the others go on."""

    def __init__(
        self,
        work: Work,
        *,
        out: Callable[[], Set[int]],
        adopted: Callable[[int, str, int], None],
        send_again: Callable[[], None],
    ) -> None:
        """*out* names the chunks whose create call is still out; *adopted* and *send_again* pass on the verdicts."""
        self._work = work
        self._out = out
        self._adopted = adopted
        self._send_again = send_again
        self._open: dict[int, _Open] = {}
        self._evidence = Evidence()
        self._elsewhere = False  #: the latest listing seems to be of another project than the ledger's jobs
        self._ready = False
        self._gave_up = False
        self._look_s = FIRST_LOOK_S
        self.held: set[int] = set()
        self.set_aside: dict[int, str] = {}  #: chunk id -> why this run leaves it undecided
        self._released: set[int] = set()  #: chunks that a person had sent again: their first call is in doubt for ever

    @property
    def idle(self) -> bool:
        return self._ready and (self._gave_up or not (self._open or self._work.unanswered.is_set()))

    async def run(self) -> None:
        work = self._work
        if work.api.traits.idempotent:
            self._ready = self._gave_up = True  # unanswered calls are the submitter's to send again
            work.stop.changed.set()
            return
        await self._take_up(first=True)
        self._ready = True
        while True:
            work.stop.changed.set()
            if not self._open:
                await work.unanswered.wait()
            work.unanswered.clear()
            await self._take_up(first=False)
            if not self._open:
                await work.clock.sleep(0.05)  # the call's task is about to let go of the chunk
                await self._take_up(first=False)
                continue
            try:
                wait_s = await self._look()
            except RunStopped as error:
                self._gave_up = True
                work.stop.stop_creates(error)
                return
            work.stop.changed.set()
            await self._sleep(wait_s)

    async def _sleep(self, seconds: float) -> None:
        """Until the next look is due, or another call went unanswered."""
        try:
            async with asyncio.timeout(seconds):
                await self._work.unanswered.wait()
        except TimeoutError:
            pass
        await self._work.clock.sleep(min(seconds, 0.2))

    async def _take_up(self, *, first: bool) -> None:
        """Add chunks that have become unanswered; at *first* also the held ones, for which proof may have come."""
        work = self._work
        out = self._out()
        now = work.clock.monotonic()

        def read(connection: Transaction) -> list[tuple[queue.Parked, Chunk]]:
            taken = self._open.keys() | self.set_aside.keys() | out
            parked = queue.unanswered(connection, work.shard)
            if first:
                self._released.update(queue.released(connection, work.shard))
            self.held.update(p.chunk_id for p in parked if p.held)
            new = [p for p in parked if (first or not p.held) and p.chunk_id not in taken]
            return [(p, queue.chunk(connection, p.chunk_id)) for p in new]

        for parked, chunk in await work.writer.write(read):
            self._open[parked.chunk_id] = _Open(chunk, parked, now, now + work.settle_s, first)
            self._look_s = FIRST_LOOK_S
            log.info("create.parked", chunk_id=chunk.id, since=parked.sent_at, from_an_earlier_run=first)

    async def _look(self) -> float:
        """One complete listing and what follows from it; seconds until the next is worth making. Raises RunStopped."""
        work = self._work
        began = work.clock.monotonic()
        candidates = await self._candidates(open_.parked.mark for open_ in self._open.values())
        await self._evidence.gather(work.api, candidates)
        for open_ in list(self._open.values()):
            proven = [job for job in open_.may_have_made(candidates) if self._evidence.proves(job, open_.chunk)]
            if proven:
                oldest, *extra = sorted(proven, key=lambda job: (job.created_at is None, job.created_at, job.id))
                await self._adopt(open_, oldest, "its results are of this chunk's files")
                candidates.remove(oldest)
                for job in extra:
                    await report_orphan(work, open_.chunk.id, job)
                    candidates.remove(job)
        waits = [await self._judge(open_, candidates, began) for open_ in list(self._open.values())]
        return min((wait for wait in waits if wait is not None), default=0.0)

    async def _candidates(self, marks: Iterable[str | None]) -> list[RemoteJob]:
        """The jobs that the ledger does not know and that were created with the config of an open chunk."""
        work = self._work
        configs = {open_.chunk.config for open_ in self._open.values()}
        marks = list(marks)
        since = None if None in marks else min(datetime.fromisoformat(mark) for mark in marks if mark)
        listed = await complete_listing(work.api, since=since and since - SLACK)
        alike = [job for job in listed if job.config in configs]

        def read(connection: Transaction) -> tuple[set[str], bool]:
            elsewhere = projects.seem_elsewhere(connection, work.shard, listed)
            return queue.known_job_ids(connection, [job.id for job in alike]), elsewhere

        known, self._elsewhere = await work.writer.write(read)
        return [job for job in alike if job.id not in known]

    async def _judge(self, open_: _Open, candidates: list[RemoteJob], began: float) -> float | None:
        """A verdict on one chunk that no job was proved to be of; seconds until the next look, None when settled."""
        work, settle_s = self._work, self._work.settle_s
        mine = open_.may_have_made(candidates)
        running = [job for job in mine if job.status not in TERMINAL]
        empty = [job for job in mine if job.status in TERMINAL and not self._evidence.files.get(job.id)]
        hints = [job for job in mine if self._evidence.hints(job, open_.chunk)]
        told_apart = bool(empty) and not hints and self._none_is_left_out(open_, empty)
        unsettled = hints or (empty and not told_apart) or self._elsewhere or not self._may_send_again(open_)
        if open_.parked.held and unsettled:
            # No person has decided yet, and nothing has turned up since that would settle it.
            del self._open[open_.chunk.id]
            return None
        if began - open_.taken_up > work.stale_s:
            del self._open[open_.chunk.id]
            self.set_aside[open_.chunk.id] = (
                f"undecided for over {work.stale_s:g} s: jobs that may be its own have not ended"
            )
            return None
        if running:
            open_.clean_at = open_.doubtful_since = None
            self._look_s = min(self._look_s * 1.5, LAST_LOOK_S)
            return self._look_s
        if empty or hints:
            open_.clean_at = None
            open_.doubtful_since = began if open_.doubtful_since is None else open_.doubtful_since
            wait_for = self._rivals(open_) if told_apart else [open_]
            if any(began - (other.doubtful_since or began) < settle_s for other in wait_for):
                return max(settle_s / 2, FIRST_LOOK_S)  # an ended job's results may be late
            if told_apart:
                await self._adopt(open_, empty[0], "as many failed jobs without results as chunks without a job")
                candidates.remove(empty[0])
                return None
            await self._hold(
                open_, f"these jobs may be this chunk's: {', '.join(job.id for job in (hints + empty)[:5])}"
            )
            return None
        open_.doubtful_since = None
        if began < open_.not_before:
            return open_.not_before - began
        if open_.clean_at is None:
            open_.clean_at = began
            return settle_s
        if began - open_.clean_at < settle_s:
            return open_.clean_at + settle_s - began
        if self._elsewhere:
            await self._hold(
                open_, "the API lists nothing of the project that this manifest's jobs are in: another key?"
            )
        elif open_.parked.accepted:
            await self._hold(open_, "the API accepted the call in words that can't be read, and lists no such job")
        elif not self._may_send_again(open_):
            sends = open_.parked.resends + 1
            await self._hold(open_, f"sent {sends} times, and the API lists no job of any of these calls")
        elif work.stop.sending:
            await self._absent(open_)
        else:
            del self._open[open_.chunk.id]
            self.set_aside[open_.chunk.id] = "the API lists no job of its call, and this run may send nothing more"
        return None

    def _rivals(self, open_: _Open) -> list[_Open]:
        """The chunks, this one among them, that a job of its config may be of."""
        return [other for other in self._open.values() if other.chunk.config == open_.chunk.config]

    def _none_is_left_out(self, open_: _Open, empty: list[RemoteJob]) -> bool:
        """Whether *empty*, failed jobs without results, are as many as the chunks that they may be of.

        Which is whose makes no difference then. A chunk that a person had sent again may be the true owner of one.
        """
        rivals = self._rivals(open_)
        others = (self.held | self.set_aside.keys() | self._out() | self._released) - self._open.keys()
        statuses = {job.status for job in empty}
        newest = max(other.parked.mark or "" for other in rivals)
        return (
            len(rivals) == len(empty)
            and not others
            and len(statuses) == 1
            and JobStatus.SUCCEEDED not in statuses
            and (len(empty) == 1 or self._evidence.nameless.isdisjoint(job.id for job in empty))
            and all(_is_after(job, newest or None) for job in empty)
        )

    def _may_send_again(self, open_: _Open) -> bool:
        """Whether proof of absence is enough to send the chunk again. Each run may try what earlier ones left."""
        parked = open_.parked
        eased = self._work.progress.created or parked.cut_off or open_.from_an_earlier_run
        return not parked.accepted and parked.resends < (MAX_RESENDS if eased else 1)

    async def _adopt(self, open_: _Open, job: RemoteJob, why: str) -> None:
        work, chunk = self._work, open_.chunk
        del self._open[chunk.id]
        self.held.discard(chunk.id)

        def write(connection: Transaction) -> None:
            jobs.submitted(connection, chunk.id, job.id, at=work.at())
            jobs.note(connection, chunk.id, "adopted", why, at=work.at())

        await work.writer.write(write)
        work.progress.adopted += 1
        log.info("job.adopted", chunk_id=chunk.id, job_id=job.id, why=why)
        self._adopted(chunk.id, job.id, len(chunk.file_ids))

    async def _absent(self, open_: _Open) -> None:
        work, chunk = self._work, open_.chunk
        del self._open[chunk.id]
        self.held.discard(chunk.id)
        why = f"two complete listings, {work.settle_s:g} s apart, have no job of this chunk"

        def write(connection: Transaction) -> None:
            jobs.note(connection, chunk.id, "absent", why, at=work.at())
            jobs.send_again(connection, chunk.id, at=work.at())

        await work.writer.write(write)
        work.progress.sent_again += 1
        log.info("create.absent", chunk_id=chunk.id, why=why)
        self._send_again()

    async def _hold(self, open_: _Open, why: str) -> None:
        work, chunk = self._work, open_.chunk
        del self._open[chunk.id]
        self.held.add(chunk.id)
        await work.writer.write(lambda connection: jobs.hold(connection, chunk.id, why, at=work.at()))
        work.warn("create.held", chunk_id=chunk.id, why=why)
