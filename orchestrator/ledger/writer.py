"""Writes of many tasks as one commit: what waits for the disk together is written together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from typing import Any, NamedTuple, TypeVar

import structlog
from sqlalchemy import Connection

from orchestrator.clock import Clock
from orchestrator.errors import LedgerBusy
from orchestrator.ledger.opening import PATIENCE_S, Ledger

log = structlog.get_logger()

T = TypeVar("T")

#: Commits that wait longer than this for the disk are made beside the event loop, which they would hold up; others are
#: mostly work of our own, which two threads do no sooner than one.
SLOW_S = 0.005

#: What the last commit counts for in the mean that shows a slow disk.
NEWS = 0.3

#: While another process writes: the first and the longest pause, and how long until that is worth a word.
FIRST_PAUSE_S, LONGEST_PAUSE_S, WORTH_A_WORD_S = 0.001, 0.05, 5.0


class _Piece(NamedTuple):
    work: Callable[[Connection], Any]
    done: asyncio.Future[Any]
    touches: frozenset[int | str]
    last: bool


class Writer:
    """Runs pieces of work inside the ledger's transactions, several in one when the disk is slow.

    A piece is synchronous, so no cancellation can cut it in half, and its caller goes on only once it is on disk. What
    comes during a commit waits for the next. On a slow disk pieces run in another thread: they may use what
    they are given and the connection, and no two run at once. While another process writes, the event loop goes on. A
    piece is done once more where nothing of it was recorded, as a server's connection was lost.
    """

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._waiting: list[_Piece] = []
        self._flusher: asyncio.Task[None] | None = None
        self._disk_s = 0.0  # the mean wait for the disk, recently

    async def write(
        self, work: Callable[[Connection], T], *, touches: Collection[int | str] = (), last: bool = False
    ) -> T:
        """Do *work* in a transaction; returns when it is on disk. Raises LedgerError, and what *work* raises.

        *touches*: everything that *work* reads or writes, by ID; on a server it may then go in step with other work
        that touches nothing of it. *last*: what others write at the same time is to come before it.
        """
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Piece(work, done, frozenset(touches), last))
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._flush())
        return await done

    async def _flush(self) -> None:
        try:
            await self._clock.sleep(0)  # what this turn of the event loop brings goes together
            while self._waiting:
                batch, self._waiting = self._waiting, []
                await self._commit(batch)
        finally:
            self._flusher = None

    async def _commit(self, batch: list[_Piece]) -> None:
        try:
            answers = await self._in_turn(batch)
        except BaseException as error:  # noqa: BLE001 - everyone who waits must hear of it
            for piece in batch:
                if not piece.done.cancelled():
                    piece.done.set_exception(error)
            return
        for piece, answer in zip(batch, answers, strict=True):
            if not piece.done.cancelled():
                piece.done.set_result(answer)

    async def _in_turn(self, batch: list[_Piece]) -> list[Any]:
        """Work *batch* off once no other process writes. Raises LedgerBusy after ``PATIENCE_S``."""
        began, pause_s, told = self._clock.monotonic(), FIRST_PAUSE_S, False
        while True:
            try:
                slow = self._disk_s > SLOW_S or self._ledger.remote
                return await asyncio.to_thread(self._work_off, batch) if slow else self._work_off(batch)
            except LedgerBusy:
                waited_s = self._clock.monotonic() - began
                if waited_s >= PATIENCE_S:
                    raise
            if waited_s >= WORTH_A_WORD_S and not told:
                log.warning("ledger.busy", seconds=round(waited_s, 1))
                told = True
            await self._clock.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _work_off(self, batch: list[_Piece]) -> list[Any]:
        began, worked = self._clock.monotonic(), time.thread_time()
        with self._ledger.transaction(patience_s=0.0) as connection:
            answers = self._answers(connection, batch)
        waited = self._clock.monotonic() - began - (time.thread_time() - worked)
        self._disk_s += NEWS * (waited - self._disk_s)
        return answers

    def _answers(self, connection: Connection, batch: list[_Piece]) -> list[Any]:
        if not self._ledger.remote:
            return [piece.work(connection) for piece in batch]
        answers: dict[int, Any] = {}
        for group in _in_step(batch):
            works = [batch[place].work for place in group]
            answers.update(zip(group, self._ledger.in_step(connection, works), strict=True))
        return [answers[place] for place in range(len(batch))]


def _in_step(batch: list[_Piece]) -> list[list[int]]:
    """The places in *batch* of the pieces that may go in step, group by group: none touches what another one does.

    Who waits at the same time may be served in any order, but the answers of earlier calls come before the intents of
    new ones, as they did: the order of events tells which jobs were known when a call left.
    """
    groups: list[list[int]] = []
    for last in (False, True):
        open_: list[tuple[set[int | str], list[int]]] = []
        for place, piece in enumerate(batch):
            if piece.last is not last:
                continue
            found = next((group for group in open_ if piece.touches and not group[0] & piece.touches), None)
            if found is None:
                found = (set(), [])
                groups.append(found[1])
                if piece.touches:
                    open_.append(found)
            found[0].update(piece.touches)
            found[1].append(place)
    return groups
