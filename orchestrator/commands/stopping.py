"""The ways to end a run early from outside: a signal, or its deadline."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from orchestrator.errors import ExitCode, Interrupted
from orchestrator.stages.work import Work

log = structlog.get_logger()


@contextmanager
def signals(work: Work) -> Iterator[None]:
    """A signal to end ends the run in order; a second one does not wait for calls that are out; a third kills.

    A signal that is ignored (nohup) stays ignored.
    """
    loop = asyncio.get_running_loop()

    def signalled(name: str) -> None:
        if work.stop.hurried.is_set():
            os._exit(int(ExitCode.UNFINISHED))
        log.warning("run.stopping", why=name)
        if work.stop.everything is not None:
            work.stop.hurried.set()
        work.stop.stop_everything(Interrupted(f"stopped by {name}; run again to go on"))

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    caught = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in caught:
        loop.add_signal_handler(number, signalled, number.name)
    try:
        yield
    finally:
        for number in caught:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number])


@contextmanager
def deadline(work: Work, seconds: float | None) -> Iterator[None]:
    if seconds is None:
        yield
        return
    work.api.ends_at = work.clock.monotonic() + seconds
    handle = asyncio.get_running_loop().call_later(
        seconds, work.stop.stop_everything, Interrupted("the deadline has passed; run again to go on")
    )
    try:
        yield
    finally:
        handle.cancel()
