"""Pieces of work that go in step: each one's next statement goes to the server with that of all others.

A statement waits for a network. Twenty pieces of ten statements, one after the other, wait two hundred times; in step
they wait ten times. Each piece runs in a thread of its own as if it were alone, but only one of them at a time: it
stops where it sends a statement, until those of all have been sent and answered together.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import psycopg
from sqlalchemy import Connection, Engine, event

T = TypeVar("T")

#: Pieces that go in step at once.
MOST = 48


class _Abandoned(BaseException):
    """Another piece has failed, and with it the transaction of all."""


class _Walker:
    """One piece on its way."""

    def __init__(self, work: Callable[[Connection], Any]) -> None:
        self.work = work
        self.go = threading.Semaphore(0)
        self.statement: tuple[Any, str, Any] | None = None  #: cursor, text and parameters, to be sent
        self.failure: BaseException | None = None  #: what the statement came to, if not to an answer
        self.done = False
        self.answer: Any = None
        self.error: BaseException | None = None


class InStep:
    """Lets pieces that use connections of *engine* go in step."""

    def __init__(self, engine: Engine) -> None:
        self._here = threading.local()
        self._back = threading.Semaphore(0)
        self._pool: ThreadPoolExecutor | None = None
        event.listen(engine, "do_execute", self._stop)

    def run(
        self, connection: Connection, raw: psycopg.Connection[Any], works: Sequence[Callable[[Connection], T]]
    ) -> list[T]:
        """The answers of *works*, each called with *connection*; *raw* is its driver's side. Raises what one raises."""
        if len(works) == 1:
            return [works[0](connection)]
        self._pool = self._pool or ThreadPoolExecutor(MOST, "in-step")
        answers: list[T] = []
        for at in range(0, len(works), MOST):
            walkers = [_Walker(work) for work in works[at : at + MOST]]
            for walker in walkers:
                self._pool.submit(contextvars.copy_context().run, self._walk, walker, connection)
            self._lead(raw, walkers)
            answers += [walker.answer for walker in walkers]
        return answers

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def _lead(self, raw: psycopg.Connection[Any], walkers: list[_Walker]) -> None:
        while walking := [walker for walker in walkers if not walker.done]:
            for walker in walking:
                walker.go.release()
                self._back.acquire()
            failed = next((walker.error for walker in walkers if walker.error is not None), None)
            walking = [walker for walker in walking if not walker.done]
            if failed is not None:
                for walker in walking:
                    walker.failure = _Abandoned()
                    walker.go.release()
                    self._back.acquire()
                raise failed
            if walking:
                self._send(raw, walking)

    def _send(self, raw: psycopg.Connection[Any], walking: list[_Walker]) -> None:
        """Send the next statement of each; who finds an error fails with it, and the others are abandoned."""
        try:
            with raw.pipeline():
                for walker in walking:
                    assert walker.statement is not None  # noqa: S101 - it has stopped for one
                    cursor, text, parameters = walker.statement
                    cursor.execute(text, parameters)
        except psycopg.Error as error:
            walking[0].failure = error

    def _walk(self, walker: _Walker, connection: Connection) -> None:
        self._here.walker = walker
        walker.go.acquire()
        try:
            walker.answer = walker.work(connection)
        except BaseException as error:  # noqa: BLE001 - whoever leads raises it
            walker.error = error
        finally:
            walker.done, self._here.walker = True, None
            self._back.release()

    def _stop(self, cursor: Any, statement: str, parameters: Any, _: object) -> bool:
        """Whether a statement has been executed here, as SQLAlchemy asks: that of a piece that goes in step."""
        walker: _Walker | None = getattr(self._here, "walker", None)
        if walker is None:
            return False
        walker.statement = (cursor, statement, parameters)
        self._back.release()
        walker.go.acquire()
        if walker.failure is not None:
            raise walker.failure
        return True
