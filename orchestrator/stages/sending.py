"""One chunk on its way to the API: its create call, repeated only where that is safe."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import structlog

from orchestrator.api.backoff import retrying
from orchestrator.api.listing import SharedListing
from orchestrator.errors import (
    WITHOUT_A_LIST,
    Ambiguous,
    AnothersJob,
    ApiError,
    ContractBroken,
    NotCreated,
    NotSent,
    Rejected,
    RunStopped,
    Throttled,
    Unauthorized,
)
from orchestrator.ledger import Transaction, jobs, projects, queue
from orchestrator.ledger.chunks import halving
from orchestrator.models import Chunk, FileResult, JobStatus, Outcome, RemoteJob
from orchestrator.stages.work import Work

log = structlog.get_logger()


class Sending:
    """One chunk on its way to the API."""

    def __init__(
        self,
        work: Work,
        rng: random.Random,
        chunk: Chunk,
        resumed: bool,
        listing: SharedListing,
        submitted: Callable[[int, str, int], None],
    ) -> None:
        self._work = work
        self._rng = rng
        self._chunk = chunk
        self._listing = listing
        self._submitted = submitted
        #: A call of this chunk may have had its effect: from then on no refusal proves that it had none.
        self._unsure = resumed
        self.held = False  #: the API stands by an answer that is another chunk's job
        self.out = False  #: its call may be out, or its outcome is being written down

    @property
    def chunk_id(self) -> int:
        return self._chunk.id

    async def run(self) -> None:
        """Raises RunStopped when nothing more should be sent, LedgerError when nothing more can be recorded."""
        work = self._work
        again = (NotSent, Throttled, Ambiguous) if work.api.traits.idempotent else (NotSent, Throttled)
        policy = retrying(
            on=again,
            given_up=lambda started, asked_s: (
                not work.stop.sending or work.api.given_up(started, asked_s) or work.api.too_late(asked_s)
            ),
            clock=work.clock,
            rng=self._rng,
            sleep=work.stop.sleep,
        )
        came_to: RemoteJob | ApiError | None = await policy(self._send)
        match came_to:
            case RemoteJob() as job:
                await self._answered(job)
            case Rejected() as refusal:
                await self._rejected(refusal)
            case Ambiguous() if not work.api.traits.idempotent:
                pass  # reconcile finds out what came of it
            case Ambiguous() as error if work.stop.sending and await self._is_listed():
                log.info("create.found", chunk_id=self._chunk.id, after=str(error))
            case NotCreated() | Ambiguous() as error if work.stop.sending:
                raise work.api.unreachable(error) from error
            case RunStopped() as error:
                raise error

    async def _rejected(self, refusal: Rejected) -> None:
        if self._chunk.parse_job_id is not None:
            await self._without_parse_job()
        elif self._unsure:
            await self._look_for_job(refusal)
        else:
            await self._refused(refusal)

    async def _without_parse_job(self) -> None:
        """The API has no such parse (any more): classify the file itself, which is billed.

        The key stays the same: if an unanswered call did make a job on the parse, the API gives that one.
        """
        work, chunk_id, unsure = self._work, self._chunk.id, self._unsure
        await work.writer.write(lambda connection: jobs.use_file(connection, chunk_id, unsure=unsure, at=work.at()))
        work.progress.parses_gone += 1
        self._chunk = replace(self._chunk, parse_job_id=None)
        await self.run()

    async def _look_for_job(self, refusal: Rejected) -> None:
        """A refusal says nothing of the call that went unanswered before: the API's list does.

        Only when no listing has a job of this chunk, until twice the settle time has passed, has the call failed.
        """
        work, chunk = self._work, self._chunk
        self.out = False
        work.warn("create.refused_after_unanswered", chunk_id=chunk.id, why=str(refusal))
        for wait_s in (0.0, work.settle_s, work.settle_s):
            await work.stop.sleep(wait_s)
            if not work.stop.sending:
                return
            try:
                listed = await self._listing.begun_after(work.clock.monotonic())
            except WITHOUT_A_LIST as error:
                work.warn("create.undecided", chunk_id=chunk.id, why=str(error))
                return
            if await work.writer.write(partial(projects.seem_elsewhere, shard=work.shard, listed=listed)):
                work.warn("create.undecided", chunk_id=chunk.id, why="the API lists another project's jobs")
                return
            if await self._take_listed(listed):
                return
        why = f"no listing until {2 * work.settle_s:g} s after the refusal has a job of this chunk"
        await work.writer.write(lambda connection: jobs.note(connection, chunk.id, "absent", why, at=work.at()))
        await self._refused(refusal)

    async def _is_listed(self) -> bool:
        """Take this chunk's job from the API's list, if it is there: its create calls may go unanswered for ever."""
        self.out = False
        try:
            return await self._take_listed(await self._listing.begun_after(self._work.clock.monotonic()))
        except WITHOUT_A_LIST as error:
            self._work.warn("create.undecided", chunk_id=self._chunk.id, why=str(error))
            return False

    async def _take_listed(self, listed: list[RemoteJob]) -> bool:
        """Whether one of *listed* is this chunk's job; it is recorded."""
        work, chunk = self._work, self._chunk
        mine = [job for job in listed if job.file_id is not None and work.api.dialect.echoes(chunk, job)]
        known = await work.writer.write(partial(queue.known_job_ids, job_ids=[job.id for job in mine]))
        job = next((job for job in mine if job.transaction_id or job.id not in known), None)
        if job is not None:
            await self._answered(job)
        return job is not None

    async def _send(self) -> RemoteJob | ApiError | None:
        """One create call: its job, or the error that it came to; None when the run stopped before it left.

        An error is on disk by then: the chunk's status says what it proves. Raises LedgerError.
        """
        self.out = False
        try:
            return await self._work.api.create(self._chunk, intend=self._intend)
        except _Withdrawn:
            return None
        except Rejected as error:
            return error
        except Ambiguous as error:
            self._unsure = True
            await self._write_unanswered(error)
            return error
        except AnothersJob as error:
            await self._anothers(str(error))
            return None if self.held else error
        except ContractBroken as error:
            await self._write_unanswered(Ambiguous(str(error)))
            return error
        except (NotCreated, RunStopped) as error:
            if isinstance(error, Unauthorized) and not error.sure and await self._key_reads():
                return Rejected(f"refused, though the key can read: {error}", 403)
            if not self._unsure:
                await self._not_created()
            return error

    async def _key_reads(self) -> bool:
        """Whether the API takes the key for a read: then what it refused is this call."""
        try:
            await self._work.api.try_page()
        except ApiError:
            return False
        return True

    async def _intend(self) -> None:
        work = self._work
        if not work.stop.sending:
            raise _Withdrawn
        self.out = True
        if self._unsure:
            return  # the first call's intent still stands
        chunk_id, mark = self._chunk.id, work.mark
        await work.writer.write(
            lambda connection: jobs.intend(connection, [chunk_id], mark=mark, at=work.at()),
            touches=(chunk_id,),
            last=True,
        )

    async def _not_created(self) -> None:
        work, chunk_id = self._work, self._chunk.id
        await work.writer.write(
            lambda connection: jobs.not_created(connection, chunk_id, at=work.at()), touches=(chunk_id,)
        )

    async def _write_unanswered(self, error: Ambiguous) -> None:
        work, chunk_id = self._work, self._chunk.id
        work.warn("create.unanswered", chunk_id=chunk_id, why=str(error))
        await work.writer.write(
            lambda connection: jobs.unanswered_call(
                connection, chunk_id, str(error), accepted=error.created, at=work.at()
            )
        )
        work.unanswered.set()

    async def _anothers(self, why: str) -> None:
        """The answer is a job of another call: what this one made is not known."""
        work, chunk_id, keyed = self._work, self._chunk.id, self._work.api.traits.idempotent
        await self._write_unanswered(Ambiguous(why, created=True))
        self.held = await work.writer.write(
            lambda connection: jobs.answered_with_anothers(connection, chunk_id, why, keyed=keyed, at=work.at())
        )

    async def _refused(self, error: Rejected) -> None:
        """The API will never take this chunk: its files fail with the API's words."""
        work, chunk = self._work, self._chunk
        work.warn("create.refused", chunk_id=chunk.id, why=str(error))
        results = [FileResult(file_id, Outcome.FAILED, error=str(error)) for file_id in chunk.file_ids]

        def write(connection: Transaction) -> None:
            jobs.end(
                connection,
                chunk.id,
                JobStatus.FAILED,
                zip(jobs.rows_of(connection, chunk.id), results, strict=True),
                at=work.at(),
                error=str(error),
            )
            halving.suspect(connection, chunk.id)  # one unknown file ID has the whole call refused

        await work.writer.write(write)
        work.progress.ended(results)

    async def _answered(self, job: RemoteJob) -> None:
        work, chunk = self._work, self._chunk

        project: str | None = None

        def write(connection: Transaction) -> bool:
            nonlocal project
            if projects.is_of_another_chunk(connection, chunk.id, job.id):
                return False
            jobs.submitted(connection, chunk.id, job.id, at=work.at())
            if job.project_id is not None:
                projects.made_in(connection, work.shard.manifest_id, job.project_id)
                project = projects.project(connection, work.shard.manifest_id)
            return True

        if not await work.writer.write(write, touches=(chunk.id, job.id)):
            await self._anothers(f"the API answered a create call with job {job.id}, which is another chunk's")
            return
        work.created += 1
        work.progress.created += 1
        work.progress.files_sent += len(chunk.file_ids)
        log.info("job.submitted", chunk_id=chunk.id, job_id=job.id, files=len(chunk.file_ids))
        self._submitted(chunk.id, job.id, len(chunk.file_ids))
        if job.project_id and project and not projects.same_project(job.project_id, project):
            # What was made with the other key can't be seen with this one, so all of it would seem to be lost.
            raise Unauthorized(
                f"the key is of project {job.project_id}, and the jobs of this manifest are in {project}; "
                "use that project's key, or another --ledger or another name"
            )


class _Withdrawn(Exception):
    """The run stopped before the call left: takes ``_intend`` out of the call that it is part of."""
