"""submitting -> submitted, or pending again: finding out what an unanswered create call came to.

Only for an API without idempotency keys. A job does not say which files it is for, so the proof is its results: the
job whose rows are just the chunk's files is the chunk's. Absence is proved by two complete listings without a
candidate, the first of them a settle time after the call was over, the second a settle time after the first, and both
with the jobs that the ledger knows from about then. A doubt is held for a person: nothing is sent again on a guess.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Set

import structlog

from orchestrator.api.listing import complete_listing
from orchestrator.errors import WITHOUT_A_LIST, ApiError, RunStopped, Unanswered
from orchestrator.ledger import Transaction, jobs, projects, queue
from orchestrator.ledger.chunks import doubts
from orchestrator.models import TERMINAL, Chunk, RemoteJob
from orchestrator.plaintext import counted
from orchestrator.stages.polling.late import LONGEST_PAUSE_S
from orchestrator.stages.unanswered.audit import report_orphan
from orchestrator.stages.unanswered.doubt import Doubt
from orchestrator.stages.unanswered.evidence import Evidence
from orchestrator.stages.unanswered.judging import (
    FIRST_LOOK_S,
    PARTLY,
    Absent,
    Adopt,
    Case,
    Hold,
    SetAside,
    StayHeld,
    Wait,
    judge,
    one_each,
)
from orchestrator.stages.unanswered.likeness import Echoes, Likeness, compared
from orchestrator.stages.work import Work

log = structlog.get_logger()


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
        """*out* names the chunks whose create call is still out; *adopted* and *send_again* pass on what is found."""
        self._work = work
        self._out = out
        self._adopted = adopted
        self._send_again = send_again
        self._open: dict[int, Doubt] = {}
        self._evidence = Evidence()
        self._echoes = Echoes()
        self._undecided: dict[int, Chunk] = {}  #: all chunks of which it is not known what their calls made
        self._in_flight = frozenset[str]()  #: no results show yet that these jobs are of the calls answered with them
        self._elsewhere = False  #: the latest listing seems to be of another project than the ledger's jobs
        self._ready = False
        self._taking_up = False  #: a call has gone unanswered, and its chunk is still to be read
        self._gave_up = False
        self._look_s = FIRST_LOOK_S
        self._refused_since: float | None = None  #: monotonic; no look has been whole since
        self._unreadable = 0  #: rows of the latest listing
        self.held: set[int] = set()
        self.set_aside: dict[int, str] = {}  #: chunk id -> why this run leaves it undecided
        self._released: set[int] = set()  #: chunks that a person had sent again: their first call is in doubt for ever

    @property
    def idle(self) -> bool:
        at_work = self._open or self._taking_up or self._work.unanswered.is_set()
        return self._ready and (self._gave_up or not at_work)

    async def run(self) -> None:
        work = self._work
        if work.api.traits.idempotent:
            self._ready = self._gave_up = True  # unanswered calls are the submitter's to send again
            work.stop.tell()
            return
        await self._take_up(first=True)
        self._ready = True
        while True:
            self._taking_up = False
            work.stop.tell()
            if not self._open:
                await work.unanswered.wait()
            self._taking_up = True
            work.unanswered.clear()
            await self._take_up(first=False)
            if not self._open:
                await work.clock.sleep(0.05)  # the call's task is about to let go of the chunk
                await self._take_up(first=False)
                continue
            self._taking_up = False
            began = work.clock.monotonic()
            try:
                wait_s = await self._look()
            except WITHOUT_A_LIST as error:  # the list alone may be down: all else goes on meanwhile
                wait_s = await self._without_a_list(error, began)
            except RunStopped as error:
                self._gave_up = True
                work.stop.stop_creates(error)
                return
            work.stop.tell()
            work.unsettled, work.next_look_at = len(self._open), work.clock.monotonic() + wait_s
            await self._sleep(wait_s)

    async def _without_a_list(self, error: ApiError, began: float) -> float:
        """Seconds until the list is asked for again; what is open is left to a later run once that went on for long.

        Nothing but the list may be down: the API cannot be used when no other call was answered in all that time.
        """
        work, now = self._work, self._work.clock.monotonic()
        self._refused_since = began if self._refused_since is None else self._refused_since
        patience_s = work.api.retry_budget_s if isinstance(error, Unanswered) else work.settle_s
        if now - self._refused_since >= patience_s:
            if not work.api.answered_since(self._refused_since) and not await work.api.answers_for_a_job():
                self._gave_up = True
                work.stop.stop_creates(error if isinstance(error, RunStopped) else work.api.unreachable(error))
            why = f"whether a create call had an effect is not known: the API's list of jobs is refused ({error})"
            self.set_aside.update(dict.fromkeys(self._open, why))
            self._open.clear()
        self._look_s = min(2 * self._look_s, LONGEST_PAUSE_S)
        return min(self._look_s, work.settle_s)

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
        out, now = self._out(), work.clock.monotonic()

        def read(connection: Transaction) -> list[tuple[queue.Parked, Chunk]]:
            taken = self._open.keys() | self.set_aside.keys() | out
            parked = queue.unanswered(connection, work.shard)
            if first:
                self._released.update(queue.released(connection, work.shard))
            self.held.update(p.chunk_id for p in parked if p.held)
            new = [p for p in parked if (first or not p.held) and p.chunk_id not in taken]
            return [(p, queue.chunk(connection, p.chunk_id)) for p in new]

        for parked, chunk in await work.writer.write(read):
            self._open[parked.chunk_id] = Doubt(chunk, parked, now, now + work.settle_s, first)
            self._undecided[chunk.id] = chunk
            self._look_s = FIRST_LOOK_S
            log.info("create.parked", chunk_id=chunk.id, since=parked.sent_at, from_an_earlier_run=first)

    async def _look(self) -> float:
        """One complete listing and what follows from it; seconds until the next is worth making. Raises RunStopped."""
        work, began = self._work, self._work.clock.monotonic()
        candidates = await self._candidates()
        chunks = [open_.chunk for open_ in self._open.values()]
        await self._evidence.gather(work.api, candidates, chunks, each_alone=True)
        self._refused_since = None
        waits: dict[int, float | None] = {}
        for open_ in list(self._open.values()):
            proven = self._proven(open_, candidates)
            if proven:
                waits[open_.chunk.id] = await self._settle(open_, candidates, began, proven)
            for job in proven[1:] if open_.chunk.id not in self._undecided else ():
                await report_orphan(work, open_.chunk.id, job)
                candidates.remove(job)
        for chunk_id, open_ in list(self._open.items()):
            if chunk_id not in waits:
                waits[chunk_id] = await self._settle(open_, candidates, began, [])
        return min((wait for wait in waits.values() if wait is not None), default=0.0)

    def _others(self, open_: Doubt) -> list[Chunk]:
        """The chunks that an unknown job may be of, besides this one."""
        return [*self._undecided.values(), *open_.sharing]

    def _proven(self, open_: Doubt, candidates: list[RemoteJob]) -> list[RemoteJob]:
        alike = [
            job
            for job in open_.may_have_made(candidates, self._echoes)
            if self._echoes.is_alike(job, open_.chunk.config)
        ]
        return self._evidence.proven(alike, open_.chunk, self._others(open_), self._echoes)

    async def _candidates(self) -> list[RemoteJob]:
        """The jobs that the ledger does not know and that the call of an open chunk may have made."""
        work = self._work
        found = await complete_listing(work.api, patient=False, unreadable=self._can_not_read)
        listed = {job.id: job for job in found}

        def read(connection: Transaction) -> tuple[Set[str], Echoes, bool]:
            known, echoes = compared(connection, listed)
            self._in_flight = frozenset(job.job_id for job in queue.in_flight(connection, work.shard))
            for chunk_id, open_ in self._open.items():
                open_.learn(doubts.neighbours(connection, work.shard, chunk_id), listed)
                named = doubts.named_since(connection, chunk_id)
                mine = open_.may_have_made([job for job in listed.values() if job.id in named], echoes)
                unlisted = named & self._in_flight - listed.keys()
                open_.named = frozenset(job.id for job in mine) | unlisted
                open_.sharing = [queue.chunk(connection, other) for other in doubts.sharing(connection, chunk_id)]
                open_.vanished = frozenset(doubts.vanished_since(connection, chunk_id) - listed.keys())
            return known, echoes, projects.seem_elsewhere(connection, work.shard, listed.values())

        known, self._echoes, self._elsewhere = await work.writer.write(read)
        strangers = [job for job in listed.values() if job.id not in known]
        wanted = {job.id for open_ in self._open.values() for job in open_.may_have_made(strangers, self._echoes)}
        return [job for job in strangers if job.id in wanted]

    def _can_not_read(self, rows: int) -> None:
        self._unreadable = rows

    async def _settle(
        self, open_: Doubt, candidates: list[RemoteJob], began: float, proven: list[RemoteJob]
    ) -> float | None:
        """Carry out what follows for a chunk; seconds until the next look at it, or None."""
        work, chunk_id = self._work, open_.chunk.id
        case = self._case(open_, candidates, began, proven)
        match judge(case):
            case Wait(seconds, signs):
                open_.signs = signs
                if case.running:
                    self._look_s = seconds
                return seconds
            case Adopt(job, why):
                if why == PARTLY:
                    work.warn("job.adopted_in_part", chunk_id=chunk_id, job_id=job.id, why=why)
                await self._adopt(open_, job, why)
                candidates.remove(job)
            case Absent() if self._unreadable:
                rows = counted(self._unreadable, "row")
                await self._hold(open_, f"{rows} of the API's list of jobs can't be read; one may be this call's job")
            case Absent(why):
                await self._send_once_more(open_, why)
            case Hold(why):
                await self._hold(open_, why)
            case SetAside(why):
                del self._open[chunk_id]
                self.set_aside[chunk_id] = why
            case StayHeld():
                del self._open[chunk_id]
        return None

    def _case(self, open_: Doubt, candidates: list[RemoteJob], began: float, proven: list[RemoteJob]) -> Case:
        work, evidence, parked, chunk = self._work, self._evidence, open_.parked, open_.chunk
        mine = open_.may_have_made(candidates, self._echoes)
        clear = {job.id: job for job in mine if self._echoes.likeness(job, chunk.config) is not Likeness.UNCLEAR}
        empty = tuple(job for job in mine if job.status in TERMINAL and evidence.files.get(job.id) == frozenset())
        partial = evidence.partial(clear.values(), chunk, self._others(open_), self._echoes)
        several = [*proven, *partial] if chunk.id in self._released or parked.resends > 0 else []
        rivals = [other for other in self._open.values() if other.chunk.config == chunk.config]
        others = (self.held | self.set_aside.keys() | self._out() | self._released) - self._open.keys()
        unlike = (other for other in self._open.values() if other.chunk.config != chunk.config)
        return Case(
            began=began,
            taken_up=open_.taken_up,
            not_before=open_.not_before,
            settle_s=work.settle_s,
            stale_s=work.stale_s,
            look_s=self._look_s,
            signs=open_.signs,
            running=tuple(job for job in mine if job.status not in TERMINAL),
            empty=empty,
            unread=any(evidence.unread(job) for job in mine),
            why_unread=evidence.why_unread(mine),
            proven=tuple(proven),
            lacking=bool(several and proven) and evidence.good[proven[0].id] < frozenset(chunk.file_ids),
            partial=tuple(partial),
            late=tuple(job for job in (*empty, *several[1:]) if evidence.may_show_more(job, chunk)),
            shared=bool(several) and evidence.lacks(several[0], chunk, several[1:]),
            named=open_.named,
            vanished=open_.vanished,
            in_flight=self._in_flight,
            hints=tuple(job for job in mine if evidence.hints(job, chunk) and job not in partial),
            rivals=tuple(other.signs for other in rivals if other is not open_),
            one_each=one_each(
                empty,
                [other.parked.mark for other in rivals],
                nameless=evidence.nameless,
                others=bool(others or open_.vanished)
                or any(job.id not in clear for job in empty)
                or any(other.may_have_made(empty, self._echoes) for other in unlike),
            ),
            elsewhere=self._elsewhere,
            shown=open_.shown,
            calls_out=bool(self._out()),
            held=parked.held,
            accepted=parked.accepted,
            words=parked.words,
            resends=parked.resends,
            eased=bool(work.created) or parked.cut_off or open_.from_an_earlier_run,
            sending=work.stop.sending,
        )

    async def _adopt(self, open_: Doubt, job: RemoteJob, why: str) -> None:
        """Give *job* to the chunk; the chunk stays open where a create call has been answered with it meanwhile."""
        work, chunk = self._work, open_.chunk

        def write(connection: Transaction) -> bool:
            if queue.known_job_ids(connection, [job.id]):
                return False
            jobs.submitted(connection, chunk.id, job.id, at=work.at())
            jobs.note(connection, chunk.id, "adopted", why, at=work.at())
            return True

        if not await work.writer.write(write):
            return
        del self._open[chunk.id], self._undecided[chunk.id]
        self.held.discard(chunk.id)
        work.progress.adopted += 1
        work.progress.files_sent += len(open_.chunk.file_ids)
        log.info("job.adopted", chunk_id=chunk.id, job_id=job.id, why=why)
        self._adopted(chunk.id, job.id, len(chunk.file_ids))

    async def _send_once_more(self, open_: Doubt, why: str) -> None:
        work, chunk = self._work, open_.chunk
        del self._open[chunk.id], self._undecided[chunk.id]
        self.held.discard(chunk.id)

        def write(connection: Transaction) -> None:
            jobs.note(connection, chunk.id, "absent", why, at=work.at())
            jobs.send_again(connection, chunk.id, at=work.at())

        await work.writer.write(write)
        work.progress.sent_again += 1
        log.info("create.absent", chunk_id=chunk.id, why=why)
        self._send_again()

    async def _hold(self, open_: Doubt, why: str) -> None:
        work, chunk = self._work, open_.chunk
        del self._open[chunk.id]
        if open_.parked.held and open_.parked.words == why:
            return
        self.held.add(chunk.id)
        await work.writer.write(lambda connection: jobs.hold(connection, chunk.id, why, at=work.at()))
        work.warn("create.held", chunk_id=chunk.id, why=why)
