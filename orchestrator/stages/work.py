"""One shard of work carried to its end: the stages side by side, and the ways to stop them.

The stages share nothing but the ledger and what is in ``Work``; none holds work that the ledger does not have. Nothing
here cancels a create call: the submitter's calls drain, only reads are cut short.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol, TypeVar

import structlog

from orchestrator.api.client import Api
from orchestrator.clock import Clock, timestamp
from orchestrator.ledger.queue import Shard
from orchestrator.ledger.writer import Writer
from orchestrator.logs import EVENTS
from orchestrator.models import GOOD, FileResult, Outcome
from orchestrator.plaintext import cause, counted

log = structlog.get_logger()

#: How long create calls that are out may take to answer once the run is to stop; then they are left unanswered, to be
#: settled by the next run.
DRAIN_S = 4.0


#: How soon ``while_going_on`` notices the end of the run.
LOOK_S = 0.5

T = TypeVar("T")

#: Why a run leaves a chunk that is held.
HELD = "an unanswered create call needs a person: see `orchestrator status`"


class Stop:
    """Why and how far the run is to stop. The first reason of each kind stands."""

    def __init__(self) -> None:
        self.creates: BaseException | None = None  #: why nothing more may be sent, while the rest goes on
        self.everything: BaseException | None = None  #: why the run is to end now
        self.version = 0  #: how often a stage has had news for the others
        self.hurried = asyncio.Event()  #: calls that are out are not waited for either
        self._news = asyncio.Event()  # set by the next news, then replaced: no reader has to clear it
        self._sending_ended = asyncio.Event()

    @property
    def sending(self) -> bool:
        """Whether create calls may still leave."""
        return not self._sending_ended.is_set()

    def stop_creates(self, why: BaseException) -> None:
        if self.creates is None:
            self.creates = why
            log.warning("creates.stopped", why=str(why))
        self.finish()

    def stop_everything(self, why: BaseException) -> None:
        self.everything = self.everything or why
        self.finish()

    @contextmanager
    def at_failure(self) -> Iterator[None]:
        """A failure inside ends the run; raised in one task of a group, it would cancel the calls of all others."""
        try:
            yield
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - see the docstring
            self.stop_everything(error)

    def finish(self) -> None:
        """End sending for no special reason: all is done."""
        self._sending_ended.set()
        self.tell()

    def tell(self) -> None:
        """A stage has news: whoever waits for it looks again."""
        self.version += 1
        self._news.set()
        self._news = asyncio.Event()

    async def news(self, seen: int) -> int:
        """Return the version as soon as it is another than *seen*."""
        if self.version == seen:
            await self._news.wait()
        return self.version

    async def sleep(self, seconds: float) -> None:
        """Return after *seconds*, or as soon as nothing more may be sent."""
        await _wait(self._sending_ended, seconds)

    async def wait_for(self, more: asyncio.Event) -> None:
        """Return when there is *more* to send, nothing more may be sent, or an hour has passed; clear *more*."""
        waits = [asyncio.ensure_future(more.wait()), asyncio.ensure_future(self.sleep(3600.0))]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        more.clear()


@dataclass(slots=True)
class HeldBack:
    """Files that ``limits.max_credits`` has kept from being sent again, left to a later run."""

    halves: int = 0  #: of failed jobs, among which the one at fault is not looked for
    second_opinions: int = 0

    @property
    def words(self) -> str:
        """For a person; empty when nothing was held back."""
        parts = [
            f"{counted(self.halves, 'file')} of failed jobs" if self.halves else "",
            f"second opinions on {counted(self.second_opinions, 'file')}" if self.second_opinions else "",
        ]
        what = " and ".join(filter(None, parts))
        return f"limits.max_credits held back {what}" if what else ""


#: Different causes of failure that a watcher is shown.
MOST_CAUSES = 100


@dataclass(slots=True)
class Failures:
    """Files that ended badly with the same words, but for numbers and names in them."""

    words: str  #: of the first of them
    first: str  #: file ID
    files: int = 0


@dataclass(slots=True)
class Progress:
    """The doings of this run, for whoever watches it."""

    created: int = 0
    files_sent: int = 0  #: those of the jobs created or found
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    types: Counter[str] = field(default_factory=Counter)
    adopted: int = 0
    sent_again: int = 0
    parses_gone: int = 0  #: files that were to be classified on a parse, and have to be paid for
    uploaded: int = 0  #: documents
    not_uploaded: int = 0  #: documents that are left to a later run
    held_back: HeldBack = field(default_factory=HeldBack)
    warning: str | None = None
    credits: float | None = None  #: billed, as far as the API has said with the end of a job; None: it has not
    failures: dict[str, Failures] = field(default_factory=dict)  #: cause -> files, in the order they came up

    def ended(self, results: Iterable[FileResult]) -> None:
        """Count files that have an outcome now."""
        for result in results:
            self.outcomes[result.outcome] += 1
            if result.type is not None:
                self.types[result.type] += 1
            if result.outcome in GOOD:
                continue
            words = result.error or result.outcome.value
            known = cause(words)
            if known in self.failures or len(self.failures) < MOST_CAUSES:
                self.failures.setdefault(known, Failures(words, result.file_id)).files += 1


class Phase(StrEnum):
    """The stage that a run waits for, as a person would say it."""

    UPLOADING = "uploading"
    SUBMITTING = "submitting"
    PROCESSING = "processing"  #: the API is
    SETTLING = "settling"  #: whether unanswered create calls had an effect
    COLLECTING = "collecting"  #: late results, bills, jobs paid for twice


@dataclass(frozen=True, slots=True)
class Sight:
    """The stages as a watcher sees them."""

    phase: Phase = Phase.SUBMITTING
    in_flight: int = 0  #: jobs
    unsettled: int = 0  #: create calls without an answer, whose effect is being found out
    settles_in_s: float = 0.0  #: when the next of them may be settled


@dataclass(slots=True)
class Work:
    """The things that the stages of one shard share."""

    shard: Shard
    run_id: str
    api: Api
    writer: Writer
    clock: Clock
    settle_s: float
    stale_s: float
    progress: Progress
    late_s: float = 600.0  #: how long the rows of a job that has succeeded may take
    gone_s: float = 3600.0  #: how long the API must have denied to have a job
    stop: Stop = field(default_factory=Stop)
    #: Newest ``created_at`` that the API had listed when the run began; None where reconcile does without.
    mark: str | None = None
    taken_up: int = 0  #: chunks that the submitter has begun with
    ended: int = 0  #: jobs whose end was recorded
    #: Create calls that the API answered with a job: reconcile decides by it how often a chunk may be sent again.
    created: int = 0
    unanswered: asyncio.Event = field(default_factory=asyncio.Event)  #: a create call went unanswered
    unsettled: int = 0  #: unanswered create calls that reconcile has yet to settle
    next_look_at: float = 0.0  #: monotonic; when it looks at the API's jobs again
    look: Callable[[], Sight] = Sight  #: at the stages, for a watcher

    def at(self) -> str:
        """Now, as the ledger writes it."""
        return timestamp(self.clock.now())

    def seconds_since(self, at: str) -> float:
        """How long ago *at*, as the ledger writes it, was."""
        return (self.clock.now() - datetime.fromisoformat(at)).total_seconds()

    def warn(self, event: str, **fields: object) -> None:
        """Log a warning and keep it for the display."""
        log.warning(event, **fields)
        details = ", ".join(f"{name} {value}" for name, value in fields.items())
        self.progress.warning = f"{EVENTS.get(event, event)} ({details})"


class Stage(Protocol):
    """One loop over the ledger's rows in some status."""

    @property
    def idle(self) -> bool:
        """Nothing to do now, nor later unless another stage brings it."""

    async def run(self) -> None:
        """Work until cancelled. A failure of the run goes to ``Work.stop`` rather than being raised."""


async def run_stages(work: Work, senders: list[Stage], others: list[Stage], *, wait: bool) -> None:
    """Run all stages until every one is idle (with *wait* False: until the *senders* are), or the run is to stop.

    Afterwards ``work.stop`` says why, if it was early. Whatever is unfinished stands in the ledger.
    """
    stages = [*senders, *others]
    tasks = [asyncio.create_task(_guarded(work, stage)) for stage in stages]
    watched = stages if wait else senders
    seen = work.stop.version
    try:
        while work.stop.everything is None and not all(stage.idle for stage in watched):
            seen = await work.stop.news(seen)
    finally:
        work.stop.finish()
        for task in tasks[len(senders) :]:
            task.cancel()
        await _drain(tasks, work.stop.hurried)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _drain(tasks: list[asyncio.Task[None]], hurried: asyncio.Event) -> None:
    """Let *tasks* end, for as long as calls that are out may take, or until the run is *hurried*."""
    ends = [asyncio.ensure_future(asyncio.wait(tasks)), asyncio.ensure_future(hurried.wait())]
    await asyncio.wait(ends, timeout=DRAIN_S, return_when=asyncio.FIRST_COMPLETED)
    for end in ends:
        end.cancel()


async def _guarded(work: Work, stage: Stage) -> None:
    """A bug in one stage ends the run rather than hang it."""
    with work.stop.at_failure():
        await stage.run()


async def while_going_on(work: Work, tasks: list[asyncio.Task[T]]) -> list[T]:
    """Return what came of *tasks* until the run is to stop. Raises what one of them raised."""
    waiting = set(tasks)
    while waiting and work.stop.everything is None:
        _, waiting = await asyncio.wait(waiting, timeout=LOOK_S, return_when=asyncio.FIRST_EXCEPTION)
        if any(task.done() and not task.cancelled() and task.exception() for task in tasks):
            break
    for task in waiting:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return [task.result() for task in tasks if not task.cancelled()]


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Return when *event* is set, at the latest after *seconds*."""
    try:
        async with asyncio.timeout(max(seconds, 0)):
            await event.wait()
    except TimeoutError:
        pass
