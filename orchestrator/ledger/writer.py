"""Writes of many tasks as one commit: what waits for the disk together is written together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection

from orchestrator.clock import Clock
from orchestrator.ledger.database import Ledger

T = TypeVar("T")

#: Longest that a write waits for company.
MAX_WAIT_S = 0.05


class Writer:
    """Runs pieces of work inside the ledger's transactions, several in one when the disk is slow.

    A piece is synchronous, so no cancellation can cut it in half, and its caller goes on only once it is on disk. The
    wait for company follows what the last commit took: nothing on a fast disk, up to MAX_WAIT_S on a slow one.
    """

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._waiting: list[tuple[Callable[[Connection], Any], asyncio.Future[Any]]] = []
        self._flusher: asyncio.Task[None] | None = None
        self._commit_s = 0.0

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Do *work* in a transaction; returns when it is on disk. Raises LedgerError, and what *work* raises."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, done))
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._flush())
        return await done

    async def _flush(self) -> None:
        await self._clock.sleep(min(MAX_WAIT_S, 2 * self._commit_s) if self._commit_s > 0.002 else 0)
        batch, self._waiting, self._flusher = self._waiting, [], None
        began = self._clock.monotonic()
        try:
            with self._ledger.transaction() as connection:
                answers = [work(connection) for work, _ in batch]
        except BaseException as error:  # noqa: BLE001 - everyone who waits must hear of it
            for _, done in batch:
                if not done.cancelled():
                    done.set_exception(error)
            return
        self._commit_s = self._clock.monotonic() - began
        for (_, done), answer in zip(batch, answers, strict=True):
            if not done.cancelled():
                done.set_result(answer)
