"""Writes of many tasks as one commit: what waits for the disk together is written together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection

from orchestrator.clock import Clock
from orchestrator.ledger.opening import Ledger

T = TypeVar("T")

#: Commits that wait longer than this for the disk are made beside the event loop, which they would hold up; others are
#: mostly work of our own, which two threads do no sooner than one.
SLOW_S = 0.005

#: What the last commit counts for in the mean that shows a slow disk.
NEWS = 0.3


class Writer:
    """Runs pieces of work inside the ledger's transactions, several in one when the disk is slow.

    A piece is synchronous, so no cancellation can cut it in half, and its caller goes on only once it is on disk. What
    comes during a commit waits for the next. On a slow disk pieces run in another thread: they may use what
    they are given and the connection, and no two run at once.
    """

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._waiting: list[_Piece] = []
        self._flusher: asyncio.Task[None] | None = None
        self._disk_s = 0.0  # the mean wait for the disk, recently

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Do *work* in a transaction; returns when it is on disk. Raises LedgerError, and what *work* raises."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, done))
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
            slow = self._disk_s > SLOW_S
            answers = await asyncio.to_thread(self._work_off, batch) if slow else self._work_off(batch)
        except BaseException as error:  # noqa: BLE001 - everyone who waits must hear of it
            for _, done in batch:
                if not done.cancelled():
                    done.set_exception(error)
            return
        for (_, done), answer in zip(batch, answers, strict=True):
            if not done.cancelled():
                done.set_result(answer)

    def _work_off(self, batch: list[_Piece]) -> list[Any]:
        began, worked = self._clock.monotonic(), time.thread_time()
        with self._ledger.transaction() as connection:
            answers = [work(connection) for work, _ in batch]
        waited = self._clock.monotonic() - began - (time.thread_time() - worked)
        self._disk_s += NEWS * (waited - self._disk_s)
        return answers


_Piece = tuple[Callable[[Connection], Any], asyncio.Future[Any]]
