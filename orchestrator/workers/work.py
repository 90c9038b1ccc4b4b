"""``orchestrator work``: one worker. It takes tasks, keeps the schedules and takes over from workers that died."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TypeVar

import structlog

from orchestrator import ledger
from orchestrator.errors import ExitCode, LedgerError
from orchestrator.ledger import Transaction
from orchestrator.ledger.workers import engine as jobs
from orchestrator.ledger.workers import roll, schedules, schema, tasks
from orchestrator.ledger.workers.tasks import Task
from orchestrator.workers import copies, cron
from orchestrator.workers.child import Children, Ended
from orchestrator.workers.engine import Engine, Later

log = structlog.get_logger()

T = TypeVar("T")

#: How often a worker beats, looks for the dead and for schedules that are due.
PULSE_S = 2.0

#: A worker whose own session is younger takes nothing over: after a server's restart every session is gone for a while.
SETTLED_S = 15.0

#: SIGTERM: runs have so long to end in order before they are killed, and the worker itself ends by ENDS_S.
ORDERLY_S = 7.0
ENDS_S = 9.5

#: A run that ended so is tried again; any other end that is no good one waits for a person.
AGAIN = frozenset({ExitCode.UNFINISHED, ExitCode.LOCKED, ExitCode.UNREACHABLE, ExitCode.LEDGER})

FIRST_WAIT_S = 10.0
LONGEST_WAIT_S = 900.0
#: Whoever holds the manifest may be done any moment.
LONGEST_WAIT_LOCKED_S = 60.0


def wait_s(exit_code: int | None, tries: int) -> float | None:
    """How long a run that ended with *exit_code* (None: by a signal) waits for its next try, after *tries* before it.

    None where trying again would not help.
    """
    if exit_code is not None and exit_code not in AGAIN:
        return None
    longest = LONGEST_WAIT_LOCKED_S if exit_code == ExitCode.LOCKED else LONGEST_WAIT_S
    return min(FIRST_WAIT_S * 2.0 ** min(tries, 10), longest)


class Worker:
    """One worker process."""

    def __init__(self, server: ledger.Server, slots: int, environ: Mapping[str, str]) -> None:
        self.host, self.pid, self.slots = socket.gethostname(), os.getpid(), slots
        self._server = server
        self._session = ledger.session(server, "orchestrator work")
        self._on_session = asyncio.Lock()
        self._children = Children({**environ, "PYTHONDONTWRITEBYTECODE": "1"})
        self._engine = Engine(ledger.parameters(server, "orchestrator work"), slots, self._carry_out)
        self._id: int | None = None
        self._held_since = 0.0  # when the session began, in the loop's time
        self._connections = 0
        self._suspects: frozenset[int] = frozenset()
        self._stuck: frozenset[str] = frozenset()
        self._away = False
        self._stopping = asyncio.Event()
        self._terminated = False

    @property
    def name(self) -> str:
        return f"{self.host}:{self.pid}"

    async def run(self) -> int:
        """Work until SIGTERM, SIGINT or a drain; the exit code. Raises LedgerError when it can't even begin."""
        loop = self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._terminate, number)
        await self._in_transaction(schema.prepare)
        await self._in_transaction(self._enter)
        log.info("worker.started", worker=self.name, slots=self.slots)
        pulse = asyncio.create_task(self._pulse())
        engine = asyncio.create_task(self._keep_engine())
        await self._stopping.wait()
        if not self._terminated:
            self._engine.stop(None)
        if self._engine.id is None:
            engine.cancel()  # it waits for the database
        await asyncio.gather(engine, return_exceptions=True)
        await self._children.ended()
        pulse.cancel()
        with suppress(asyncio.CancelledError):
            await pulse
        try:
            await self._in_transaction(self._leave)
        except LedgerError as error:
            log.warning("worker.ended", worker=self.name, error=str(error))
            return ExitCode.LEDGER
        log.info("worker.ended", worker=self.name)
        return ExitCode.OK

    def _terminate(self, number: int) -> None:
        if self._terminated:
            return
        self._terminated = True
        log.info("worker.stopping", worker=self.name, signal=signal.Signals(number).name, runs=len(self._children))
        # A statement may hang on a server that is gone; another worker then takes over what is not done.
        watchdog = threading.Timer(ENDS_S, os._exit, args=(int(ExitCode.LEDGER),))
        watchdog.daemon = True
        watchdog.start()
        self._engine.stop(ORDERLY_S)
        self._children.terminate()
        self._loop.call_later(ORDERLY_S, self._children.kill)
        self._stopping.set()

    async def _keep_engine(self) -> None:
        """Run the engine again whenever it ends by itself."""
        tries = 0
        while not self._stopping.is_set():
            began = self._loop.time()
            try:
                await self._engine.run()
                error = "it ended by itself"
            except LedgerError as away:
                error = str(away)
            if self._stopping.is_set():
                return
            log.warning("engine.restarted", error=error)
            tries = 1 if self._loop.time() - began > SETTLED_S else tries + 1
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), random.uniform(0.5, 1.0) * min(2.0**tries, 5.0))

    async def _carry_out(self, name: str) -> None:
        """Carry the task *name* out, as the engine asks. Raises Later where it is to be tried again."""
        task = await self._surely(lambda connection: tasks.start(connection, name, self._number, self.name))
        if task is None:
            return
        try:
            ended = await self._run(task)
        except asyncio.CancelledError:
            raise Later(0.0) from None  # the engine ends; the run goes on, or is stopped, without it
        if self._terminated and ended.exit_code in (None, ExitCode.UNFINISHED):
            again_s: float | None = 0.0  # for another worker, at once
        else:
            again_s = wait_s(ended.exit_code, task.tries)
        log.info("task.ended", task=name, exit_code=ended.exit_code, reason=ended.reason, again_in_s=again_s)
        await self._surely(
            lambda connection: tasks.end(
                connection,
                ended.task,
                self._number,
                exit_code=ended.exit_code,
                reason=ended.reason,
                again_in_s=again_s,
            )
        )
        if again_s is not None:
            raise Later(again_s)

    async def _run(self, task: Task) -> Ended:
        problem = await asyncio.to_thread(copies.difference, task.copies, self.host)
        if problem is not None:
            log.warning("task.refused", task=task.name, reason=problem)
            return Ended(task, None, problem)
        deadline = ["--deadline", task.deadline] if task.deadline else []
        arguments = ["run", task.path, "--ledger", str(self._server), "--json", "--log-format", "json", *deadline]
        log.info("task.started", task=task.name, path=task.path)
        try:
            return await self._children.carry_out(task, arguments)
        except OSError as error:
            return Ended(task, None, f"no process can be started: {error.strerror}")

    async def _pulse(self) -> None:
        while True:
            await asyncio.sleep(PULSE_S)
            try:
                await self._in_transaction(self._beat)
            except LedgerError as error:
                if not self._away:
                    log.warning("database.away", error=str(error))
                self._away = True
            else:
                if self._away:
                    log.info("database.back")
                self._away = False

    @property
    def _number(self) -> int:
        assert self._id is not None  # noqa: S101 - entered before anything else is done
        return self._id

    def _enter(self, connection: Transaction) -> None:
        self._id = roll.register(connection, self.host, self.pid, self.slots, self._engine.id)

    def _leave(self, connection: Transaction) -> None:
        roll.leave(connection, self._number)

    async def _surely(self, work: Callable[[Transaction], T]) -> T:
        """Do *work* in a transaction, however long the database is away, but no longer than the worker itself lives."""
        while True:
            try:
                return await self._in_transaction(work)
            except LedgerError:
                await asyncio.sleep(1.0)

    async def _in_transaction(self, work: Callable[[Transaction], T]) -> T:
        """Do *work* in a transaction of the worker's session, in a thread. Raises LedgerError."""

        async def alone() -> T:
            async with self._on_session:
                return await asyncio.to_thread(self._transact, work)

        return await asyncio.shield(alone())  # cancelled, it must not leave the session to two threads

    def _transact(self, work: Callable[[Transaction], T]) -> T:
        with self._session.transaction() as connection:
            if self._session.opened != self._connections:
                self._held_since, self._connections = self._loop.time(), self._session.opened
                if self._id is not None:
                    roll.hold(connection, self._id)
            return work(connection)

    def _beat(self, connection: Transaction) -> None:
        """Beat; then what any worker may do for all: ticks that are due, and what the dead and the engine forgot."""
        beat = roll.beat(connection, self._number, self._engine.id)
        if beat.draining is None:
            self._enter(connection)
        elif beat.draining and not self._stopping.is_set():
            log.info("worker.draining", worker=self.name)
            self._loop.call_soon_threadsafe(self._stopping.set)
        if beat.due:
            for name in schedules.tick(connection, cron.around, schedules.now(connection)):
                log.info("task.due", task=name)
        if self._engine.ended:
            jobs.rescue(connection, sorted(self._engine.ended))
            self._engine.ended.clear()
        self._free_stuck(connection, beat.doing)
        self._suspects = self._take_over(connection) if beat.missing else frozenset()
        if beat.forgotten and self._settled:
            for name in [*jobs.rescue_stalled(connection), *tasks.wake_forgotten(connection)]:
                log.warning("task.woken", task=name)

    def _free_stuck(self, connection: Transaction, doing: frozenset[str]) -> None:
        """Hand back the jobs whose end the engine could not note: they would keep every later one of theirs waiting.

        *doing*: the manifests that it has in hand by its own table. One that ends just now is missed only once.
        """
        engine_id, stuck = self._engine.id, doing - self._engine.in_hand
        if engine_id is not None:
            for name in stuck & self._stuck:
                jobs.hand_back(connection, engine_id, name)
        self._stuck = stuck

    @property
    def _settled(self) -> bool:
        return self._loop.time() - self._held_since > SETTLED_S

    def _take_over(self, connection: Transaction) -> frozenset[int]:
        """Hand on what workers had in hand that died: those missed twice in a row. Return those missed now."""
        others = [worker for worker in roll.states(connection) if worker.id != self._id]
        missing = {worker.id: worker for worker in others if not worker.lives}
        if not self._settled:
            return frozenset()
        for number in missing.keys() & self._suspects:
            gone = missing.pop(number)
            roll.leave(connection, number)
            rescued = jobs.rescue(connection, [gone.engine_id]) if gone.engine_id is not None else []
            log.warning("worker.gone", worker=gone.name, heard_at=str(gone.heard_at), rescued=rescued)
        return frozenset(missing)
