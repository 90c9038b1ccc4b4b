"""Procrastinate's worker, kept going: it ends by itself when the database was away, and nobody else would notice."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from procrastinate import App, PsycopgConnector
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job
from procrastinate.retry import BaseRetryStrategy, RetryDecision
from procrastinate.worker import Worker
from psycopg import Error
from psycopg_pool import PoolTimeout

from orchestrator.errors import LedgerError
from orchestrator.ledger.workers.engine import QUEUE, RESCUE_S, TASK

#: How often the engine looks for a job that it was not notified of, such as one that had to wait.
LOOK_S = 10.0

#: How long a statement of the engine's waits for a connection.
PATIENCE_S = 5.0


class Later(Exception):
    """The task is to be tried again *in_s* seconds from now."""

    def __init__(self, in_s: float) -> None:
        super().__init__(f"again in {in_s:g} s")
        self.in_s = in_s


def _handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Be silent about a job whose end can't be noted: the database is away, or another engine got it meanwhile.

    The worker finds out by itself, and ``tasks`` knows who has the manifest.
    """
    if not isinstance(context.get("exception"), ConnectorException):
        loop.default_exception_handler(context)


class _Strategy(BaseRetryStrategy):
    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        """Try again what asks for it; all else is over, however it ended."""
        return RetryDecision(retry_in={"seconds": round(exception.in_s)}) if isinstance(exception, Later) else None


class Engine:
    """Takes jobs, as many at once as there are slots, and calls *carry_out* with each one's manifest."""

    def __init__(self, parameters: str, slots: int, carry_out: Callable[[str], Awaitable[None]]) -> None:
        """*parameters*: what libpq is to connect with."""
        for name in ("procrastinate", "psycopg.pool"):  # all that matters is logged in our words
            logging.getLogger(name).addHandler(logging.NullHandler())
            logging.getLogger(name).propagate = False
        self._parameters = parameters
        self._slots = slots
        self._carry_out = carry_out
        self._worker: Worker | None = None
        self._stopped = False
        self._in_hand: Counter[str] = Counter()
        self.ended: set[int] = set()  #: its earlier numbers: under each of them it ended by itself

    @property
    def id(self) -> int | None:
        """Its number in Procrastinate's table; None while it takes no jobs."""
        return self._worker.worker_id if self._worker is not None else None

    @property
    def in_hand(self) -> frozenset[str]:
        """The manifests that it carries out."""
        return frozenset(name for name, times in list(self._in_hand.items()) if times)

    async def run(self) -> None:
        """Take jobs until it is stopped, or ends by itself. Raises LedgerError when the database is away."""
        connector = PsycopgConnector(
            conninfo=self._parameters, min_size=1, max_size=3, timeout=PATIENCE_S, reconnect_timeout=PATIENCE_S
        )
        app = App(connector=connector)
        asyncio.get_running_loop().set_exception_handler(_handle)

        @app.task(name=TASK, queue=QUEUE, retry=_Strategy())
        async def run(manifest: str) -> None:
            self._in_hand[manifest] += 1
            try:
                await self._carry_out(manifest)
            finally:
                self._in_hand[manifest] -= 1

        try:
            async with app.open_async():
                if self._stopped:
                    return
                self._worker = Worker(
                    app,
                    queues=[QUEUE],
                    concurrency=self._slots,
                    fetch_job_polling_interval=LOOK_S,
                    abort_job_polling_interval=60.0,
                    update_heartbeat_interval=LOOK_S,
                    stalled_worker_timeout=RESCUE_S,
                    shutdown_graceful_timeout=PATIENCE_S,
                    delete_jobs="always",
                    install_signal_handlers=False,
                )
                await self._worker.run()  # type: ignore[no-untyped-call]  # Procrastinate leaves it out
        except (ConnectorException, Error, PoolTimeout) as error:
            raise LedgerError(f"the database is away: {error.__cause__ or error}".splitlines()[0]) from error
        finally:
            if self._worker is not None and self._worker.worker_id is not None:
                self.ended.add(self._worker.worker_id)
            self._worker = None

    def stop(self, within_s: float | None) -> None:
        """Take no more jobs; ``run`` ends when those in hand have, or are cancelled after *within_s*."""
        self._stopped = True
        if self._worker is not None:
            self._worker.shutdown_graceful_timeout = within_s
            with suppress(RuntimeError):
                self._worker.stop()  # type: ignore[no-untyped-call]  # likewise
