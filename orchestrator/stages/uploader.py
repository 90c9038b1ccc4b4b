"""Documents on their way to the API: each content that a pending chunk waits for is found there, or uploaded once."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections.abc import Callable, Sequence

import structlog

from orchestrator.api.backoff import retrying
from orchestrator.api.files import IDS_PER_ASK, ContentChanged, Files, Upload
from orchestrator.documents.hashing import PREFIX, open_document
from orchestrator.documents.names import for_upload, native
from orchestrator.errors import (
    Ambiguous,
    Interrupted,
    LedgerError,
    NotCreated,
    NotSent,
    Rejected,
    RunStopped,
    Throttled,
)
from orchestrator.ledger import Transaction, jobs
from orchestrator.ledger.documents import uploads
from orchestrator.ledger.documents.uploads import Wanted
from orchestrator.manifest.sources import BUCKETS
from orchestrator.models import FileResult, JobStatus, Outcome, RemoteFile
from orchestrator.plaintext import safe
from orchestrator.stages.work import Work

log = structlog.get_logger()

#: Documents being uploaded at once. Each holds one piece of 256 KiB.
MOST_AT_ONCE = 32

#: An upload whose answer was lost may take effect this long after its call ended.
SETTLE_S = 20.0

#: How often one run sends the same document without learning what became of it.
MOST_SENDS = 10


class Uploader:
    """Uploads what pending chunks wait for. The ledger is the queue: it holds nothing but the uploads in progress."""

    def __init__(self, work: Work, files: Files, rng: random.Random, *, ready: Callable[[], None]) -> None:
        """*ready* is called when a chunk has all its documents at the API."""
        self._work = work
        self._files = files
        self._rng = rng
        self._ready = ready
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._out: set[str] = set()  #: contents whose upload may be out
        self._after = 0
        self._exhausted = False
        self._more = asyncio.Event()
        self._more.set()
        self.left: dict[str, str] = {}  #: content -> why a later run has to deal with it

    @property
    def idle(self) -> bool:
        return not self._busy and (self._exhausted or not self._work.stop.sending)

    def look_again(self) -> None:
        """Some chunk has become pending."""
        self._after, self._exhausted = 0, False
        self._more.set()

    async def run(self) -> None:
        stop = self._work.stop
        async with asyncio.TaskGroup() as tasks:
            with stop.at_failure():
                while stop.sending:
                    await self._fill(tasks)
                    stop.tell()
                    await stop.wait_for(self._more)
            for content, task in self._busy.items():
                if content not in self._out:
                    task.cancel()

    async def _fill(self, tasks: asyncio.TaskGroup) -> None:
        room = MOST_AT_ONCE - len(self._busy)
        if self._exhausted or (room < MOST_AT_ONCE // 4 and self._busy):
            return
        shard, after = self._work.shard, self._after
        # As many as one call can look at; those that prove to be there take no room.
        found = await self._work.writer.write(
            lambda connection: uploads.wanted(
                connection,
                shard.manifest_id,
                shard.api,
                after=after,
                most=IDS_PER_ASK + len(self._busy) + len(self.left),
            )
        )
        found = [item for item in found if item.content not in self._busy and item.content not in self.left]
        known = [item for item in found if item.file_id is not None]
        if known:
            await self._look_at(known)
            self._exhausted = False
            self._more.set()
            return
        for item in found[:room]:
            if item.content not in self._busy:
                self._after = item.row
                self._start(tasks, item)
        self._exhausted = not found

    def _start(self, tasks: asyncio.TaskGroup, item: Wanted) -> None:
        task = tasks.create_task(self._guarded(item))
        self._busy[item.content] = task
        task.add_done_callback(lambda _: self._ended(item.content))

    def _ended(self, content: str) -> None:
        self._busy.pop(content, None)
        self._out.discard(content)
        self._more.set()
        self._work.stop.tell()

    async def _guarded(self, item: Wanted) -> None:
        """Never raises: a failure here must not cut another upload short."""
        with self._work.stop.at_failure():
            try:
                await self._bring(item)
            except (RunStopped, Interrupted) as error:
                self._work.stop.stop_creates(error)

    async def _look_at(self, known: Sequence[Wanted]) -> None:
        """Ask which files of earlier runs the API still has, and upload the others again. Raises RunStopped."""
        work, manifest_id = self._work, self._work.shard.manifest_id
        file_ids = [item.file_id for item in known[:IDS_PER_ASK] if item.file_id is not None]
        try:
            there = await self._files.still_there(file_ids)
        except Rejected as error:
            work.warn("files.not_looked_at", why=str(error))
            there = set(file_ids)
        except (RunStopped, Interrupted) as error:
            work.stop.stop_creates(error)
            return

        def write(connection: Transaction) -> bool:
            complete = False
            for item in known[:IDS_PER_ASK]:
                if item.file_id in there:
                    complete |= uploads.there(
                        connection, manifest_id, item.content, str(item.file_id), ours=item.ours, at=work.at()
                    )
                else:
                    uploads.lost(connection, manifest_id, item.content)
            return complete

        if gone := len(file_ids) - len(there):
            log.info("files.gone", files=gone)
        if await work.writer.write(write):
            self._ready()

    async def _bring(self, item: Wanted) -> None:
        """Take one content as far as it goes. Raises RunStopped, LedgerError."""
        work = self._work
        sent = item.sent_at is not None
        for _ in range(MOST_SENDS):
            if await self._found(item, sent=sent):
                return
            if sent and not await self._proved_absent(item):
                return
            try:
                file = await self._sent(item)
            except Ambiguous as error:
                sent = True
                work.warn("upload.unanswered", content=item.content, why=str(error))
                continue
            except ContentChanged as error:
                await self._changed(item, str(error))
                return
            except Rejected as error:
                await self._refused(item, str(error))
                return
            except NotCreated as error:
                if work.stop.sending:
                    raise work.api.unreachable(error) from error
                return
            if file is not None:
                await self._there(item, file, ours=True)
                work.progress.uploaded += 1
            return
        self._leave(item, f"sent {MOST_SENDS} times without an answer")

    async def _found(self, item: Wanted, *, sent: bool) -> bool:
        """Whether the API has the content already: from another machine, an earlier ledger, or an unanswered call."""
        try:
            files = await self._files.of_external_id(item.content)
        except Rejected as error:
            self._leave(item, f"the API does not say whether it has the document: {error}")
            return True
        now = self._work.clock.now()
        files = [file for file in files if file.expires_at is None or file.expires_at > now]
        if not files:
            return False
        if len(files) > 1:
            self._work.warn("files.alike", content=item.content, files=len(files))
        await self._there(item, files[-1], ours=sent)
        return True

    async def _proved_absent(self, item: Wanted) -> bool:
        """Wait as long as an unanswered upload may still take effect, then look again."""
        work = self._work
        await work.stop.sleep(min(work.settle_s, SETTLE_S))
        return work.stop.sending and not await self._found(item, sent=True)

    async def _sent(self, item: Wanted) -> RemoteFile | None:
        """Upload the document; None when the run was stopped before. Raises ApiError."""
        work = self._work
        if item.path is None:
            raise ContentChanged("the document is gone")
        path = native(item.path)
        try:
            in_bucket = path.startswith(BUCKETS)
            descriptor = await asyncio.to_thread(open_document, path) if in_bucket else open_document(path)
        except OSError as error:
            raise ContentChanged(f"can't be read ({error.strerror})") from error
        try:
            size = os.fstat(descriptor).st_size
            if size != item.size:
                raise ContentChanged("the document has changed")
            policy = retrying(
                on=(NotSent, Throttled),
                given_up=lambda started, asked_s: (
                    not work.stop.sending or work.api.given_up(started, asked_s) or work.api.too_late(asked_s)
                ),
                clock=work.clock,
                rng=self._rng,
                sleep=work.stop.sleep,
            )
            return await policy(self._send, item, path, descriptor)
        except _Withdrawn:
            return None
        finally:
            os.close(descriptor)

    async def _send(self, item: Wanted, path: str, descriptor: int) -> RemoteFile:
        """One call. What it proves is written down."""
        work, manifest_id = self._work, self._work.shard.manifest_id

        async def intend() -> None:
            if not work.stop.sending:
                raise _Withdrawn
            self._out.add(item.content)
            await work.writer.write(
                lambda connection: uploads.intend(connection, manifest_id, item.content, at=work.at())
            )

        upload = Upload(
            name=for_upload(path.rpartition("/")[2]),
            external_id=item.content,
            size=item.size,
            descriptor=descriptor,
            check=_checker(item.content),
        )
        try:
            return await self._files.upload(upload, intend=intend)
        except LedgerError:
            raise
        except (NotCreated, Rejected, RunStopped):
            await work.writer.write(lambda connection: uploads.not_sent(connection, manifest_id, item.content))
            self._out.discard(item.content)
            raise

    async def _there(self, item: Wanted, file: RemoteFile, *, ours: bool) -> None:
        work, manifest_id = self._work, self._work.shard.manifest_id
        complete = await work.writer.write(
            lambda connection: uploads.there(connection, manifest_id, item.content, file.id, ours=ours, at=work.at())
        )
        log.info("file.uploaded" if ours else "file.found", file_id=file.id, content=item.content)
        if complete:
            self._ready()

    async def _refused(self, item: Wanted, why: str) -> None:
        """The API will never take this document: its outcome is failed, with the API's words."""
        work, manifest_id = self._work, self._work.shard.manifest_id
        work.warn("upload.refused", document=safe(item.path, 200), why=why)

        def write(connection: Transaction) -> int:
            chunks = uploads.take_out(connection, manifest_id, item.content, run_id=work.run_id, at=work.at())
            for chunk_id in chunks:
                (row,) = jobs.file_rows(connection, chunk_id).values()
                result = FileResult(item.content, Outcome.FAILED, error=f"not uploaded: {why}")
                jobs.end(connection, chunk_id, JobStatus.FAILED, [(row, result)], at=work.at(), error=result.error)
            return len(chunks)

        files = await work.writer.write(write)
        work.progress.ended([FileResult(item.content, Outcome.FAILED, error=f"not uploaded: {why}")] * files)
        self._ready()  # the rest of its chunk may have waited for it

    async def _changed(self, item: Wanted, why: str) -> None:
        """The document is not what it was when it was read: nothing of it is sent, and the next run looks again."""
        manifest_id = self._work.shard.manifest_id
        await self._work.writer.write(lambda connection: uploads.drop(connection, manifest_id, item.content))
        self._leave(item, why)
        self._ready()

    def _leave(self, item: Wanted, why: str) -> None:
        name = safe(item.path or item.content, 200)
        self._work.warn("upload.left", document=name, why=why)
        self._work.progress.not_uploaded += 1
        self.left[item.content] = f"document {name} was not uploaded: {why}"


class _Withdrawn(Exception):
    """The run stopped before the call left."""


def _checker(content: str) -> Callable[[bytes], None]:
    """Takes every piece of a document and then b"": raises ContentChanged when together they are not *content*."""
    seen = hashlib.sha256()

    def check(piece: bytes) -> None:
        seen.update(piece)
        if not piece and PREFIX + seen.hexdigest() != content:
            raise ContentChanged("the document has changed")

    return check
