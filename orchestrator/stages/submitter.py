"""pending -> submitted: create calls, each with its intent on disk before it leaves."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Set

import structlog

from orchestrator.api.listing import SharedListing, newest_mark
from orchestrator.api.wire import MAX_CONNECTIONS
from orchestrator.errors import Interrupted, RunStopped, Unauthorized
from orchestrator.ledger import queue
from orchestrator.models import Chunk
from orchestrator.stages.projects import refuse_other_project
from orchestrator.stages.sending import Sending
from orchestrator.stages.work import Work, while_going_on

log = structlog.get_logger()


class Submitter:
    """Sends the ledger's pending chunks, as many at once as the limiter's pace keeps busy.

    Each chunk has one task, which is never cancelled while its call is out: when nothing more may be sent, tasks that
    wait for their turn are ended (at a slow pace the last one's turn can be an hour off), and calls that are out are
    waited for.
    """

    def __init__(self, work: Work, rng: random.Random, *, submitted: Callable[[int, str, int], None]) -> None:
        """*submitted* is called with every new job: chunk id, job id, number of files."""
        self._work = work
        self._rng = rng
        self._submitted = submitted
        self._listing = SharedListing(work.api, work.clock)
        self.held: set[int] = set()  #: chunks whose key brings back another chunk's job
        self._busy: set[int] = set()
        self._sendings: dict[asyncio.Task[None], Sending] = {}
        self._cursor = 0
        self._exhausted = False
        self._marked = False
        self._proved = work.api.traits.idempotent  #: the API has answered a create call with a job, now or before
        self._to_look_again = False
        self._more = asyncio.Event()
        self._more.set()

    @property
    def idle(self) -> bool:
        stop = self._work.stop
        return not self._busy and (self._exhausted or not stop.sending)

    @property
    def busy(self) -> Set[int]:
        """Chunks being sent: their calls may be out."""
        return self._busy

    def look_again(self) -> None:
        """Some chunk has become pending."""
        self._to_look_again = True
        self._cursor = 0
        self._exhausted = False
        self._more.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            with self._work.stop.at_failure():
                await self._feed(tasks)
            for task, sending in self._sendings.items():
                if not sending.out:
                    task.cancel()

    async def _feed(self, tasks: asyncio.TaskGroup) -> None:
        """Start a task for each chunk until nothing more may be sent."""
        stop = self._work.stop
        try:
            await while_going_on(self._work, [asyncio.create_task(refuse_other_project(self._work))])
        except Unauthorized as error:
            stop.stop_creates(error)
            return
        if self._work.api.traits.idempotent:
            await self._resume(tasks)
        while stop.sending:
            await self._fill(tasks)
            stop.tell()
            await stop.wait_for(self._more)

    async def _resume(self, tasks: asyncio.TaskGroup) -> None:
        """Send again, under the same key, what was sent and never answered: the API gives the job it made, if any."""
        shard = self._work.shard
        parked = await self._work.writer.write(
            lambda connection: [
                queue.chunk(connection, chunk.chunk_id) for chunk in queue.unanswered(connection, shard)
            ]
        )
        for chunk in parked:
            self._start(tasks, chunk, resumed=True)

    async def _fill(self, tasks: asyncio.TaskGroup) -> None:
        """Take up pending chunks until as many are being sent as there are connections."""
        after, shard = self._cursor, self._work.shard
        self._to_look_again = False  # set again while this looks, what it finds is not the whole
        room = MAX_CONNECTIONS - len(self._busy)
        if not self._proved:
            # Absence is proved by jobs that are known. Until there is one, calls go one by one.
            self._proved = await self._work.writer.write(lambda connection: queue.knows_a_job(connection, shard))
            room = room if self._proved else 1 - len(self._busy)
        if room < (MAX_CONNECTIONS // 4 if self._proved else 1) and self._busy:
            return  # many at a time: one query for each chunk would be most of the work
        chunks = await self._work.writer.write(
            lambda connection: queue.pending(connection, shard, after=after, most=room)
        )
        if chunks and not self._marked and not self._work.api.traits.idempotent:
            try:
                marks = await while_going_on(self._work, [asyncio.create_task(newest_mark(self._work.api))])
            except (RunStopped, Interrupted) as error:
                self._work.stop.stop_creates(error)
                return
            if not marks:
                return
            (self._work.mark,), self._marked = marks, True
        for chunk in chunks:
            if chunk.id not in self._busy:
                self._start(tasks, chunk, resumed=False)
        if self._cursor == after and not self._to_look_again:
            self._exhausted = len(chunks) < room
            self._cursor = chunks[-1].id if chunks else after

    def _start(self, tasks: asyncio.TaskGroup, chunk: Chunk, *, resumed: bool) -> None:
        self._busy.add(chunk.id)
        self._work.taken_up += 1
        sending = Sending(self._work, self._rng, chunk, resumed, self._listing, self._submitted)
        task = tasks.create_task(self._submit(sending))
        self._sendings[task] = sending
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._busy.discard(self._sendings.pop(task).chunk_id)
        self._more.set()
        self._work.stop.tell()

    async def _submit(self, sending: Sending) -> None:
        """Take one chunk as far as it goes. Never raises: a failure here must not cancel another chunk's call."""
        with self._work.stop.at_failure():
            try:
                await sending.run()
                if sending.held:
                    self.held.add(sending.chunk_id)
            except (RunStopped, Interrupted) as error:
                self._work.stop.stop_creates(error)
