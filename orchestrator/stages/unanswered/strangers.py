"""A look at the jobs that the ledger does not know, for a chunk whose own job the API denies having, or never ends.

An API may have answered the create call with another's job: then the chunk's own is among them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Set

from orchestrator.api.listing import complete_listing
from orchestrator.clock import time_of
from orchestrator.ledger import Transaction, queue
from orchestrator.ledger.chunks import doubts
from orchestrator.models import Chunk, JobStatus, RemoteJob
from orchestrator.stages.unanswered.doubt import Doubt
from orchestrator.stages.unanswered.evidence import Evidence
from orchestrator.stages.unanswered.likeness import Echoes, Likeness, compared
from orchestrator.stages.work import Work


class Strangers:
    """Lists the jobs once a run, and reads the results of those that a chunk's call may have made."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._evidence = Evidence()
        self._listed: dict[str, RemoteJob] | None = None
        self._awaited: dict[int, Set[str]] = {}  #: chunk -> the jobs that were in flight when it was first asked about
        self._one_at_a_time = asyncio.Lock()

    async def may_include_one_of(self, chunk_id: int, in_flight: Set[str]) -> bool | None:
        """Whether one has results of the chunk's files, or none that would show whose it is. Raises ApiError.

        None while it is not known: a job in flight may have been the answer to another call by mistake, too. Those
        that come later are not waited for.
        """
        chunk, candidates, _ = await self._look(chunk_id)
        if any(not self._is_of_others(job, chunk) for job in candidates):
            return True
        return None if self._awaited.setdefault(chunk_id, in_flight) & in_flight else False

    async def include_one_of(self, chunk_id: int) -> bool:
        """Whether one has succeeded with results of just the chunk's files, and echoes its config. Raises ApiError.

        Not for a chunk that a person had sent again: that may be the job of its first call.
        """
        work = self._work
        if chunk_id in await work.writer.write(lambda connection: queue.released(connection, work.shard)):
            return False
        chunk, candidates, echoes = await self._look(chunk_id)
        return any(
            job.status is JobStatus.SUCCEEDED
            and self._evidence.proves(job, chunk)
            and echoes.likeness(job, chunk.config) is Likeness.ALIKE
            for job in candidates
        )

    async def was_before(self, chunk_id: int, job: RemoteJob) -> bool:
        """Whether *job* was there when the chunk's call left, so that it is another's. Raises ApiError."""
        async with self._one_at_a_time:
            doubt, _, _ = await self._doubt(chunk_id)
        newest = time_of(doubt.floor) if doubt.floor else None
        return newest is not None and job.created_at is not None and job.created_at <= newest

    async def _look(self, chunk_id: int) -> tuple[Chunk, list[RemoteJob], Echoes]:
        """The chunk; the jobs that its call may have made, all of whose results have been read; what echoes show."""
        async with self._one_at_a_time:
            doubt, candidates, echoes = await self._doubt(chunk_id)
            while any(self._evidence.unread(job) for job in candidates):
                await self._evidence.gather(self._work.api, candidates, [doubt.chunk])
        return doubt.chunk, candidates, echoes

    async def _doubt(self, chunk_id: int) -> tuple[Doubt, list[RemoteJob], Echoes]:
        """The chunk's call, as if it were unanswered, and the jobs that it may have made; what echoes show."""
        work = self._work
        if self._listed is None:
            self._listed = {job.id: job for job in await complete_listing(work.api, patient=False)}
        listed, now = self._listed, work.clock.monotonic()

        def read(connection: Transaction) -> tuple[Doubt, list[RemoteJob], Echoes]:
            known, echoes = compared(connection, listed)
            doubt = Doubt(queue.chunk(connection, chunk_id), queue.call_of(connection, chunk_id), now, now, True)
            doubt.learn(doubts.neighbours(connection, work.shard, chunk_id), listed)
            unknown = [job for job in listed.values() if job.id not in known]
            return doubt, doubt.may_have_made(unknown, echoes), echoes

        return await work.writer.write(read)

    def _is_of_others(self, job: RemoteJob, chunk: Chunk) -> bool:
        return bool(self._evidence.files.get(job.id)) and not self._evidence.hints(job, chunk)
