"""The child process that carries one run out: started, ended with its worker, and read."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from orchestrator.ledger.workers.tasks import Task
from orchestrator.plaintext import safe


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended: its exit code, None when a signal ended it, and why in words."""

    task: Task  #: as it stood when the run began
    exit_code: int | None
    reason: str


class Children:
    """The runs that this worker carries out, by manifest. They outlive a loss of the database, and never the worker."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._processes: dict[str, Process] = {}
        self._ends: dict[str, asyncio.Task[Ended]] = {}

    def __len__(self) -> int:
        return len(self._ends)

    async def carry_out(self, task: Task, arguments: Sequence[str]) -> Ended:
        """Start ``orchestrator ARGUMENTS`` for *task*, or go on waiting for the run of it that was started before.

        Cancelled, it leaves the child at work.
        """
        name = task.name
        if name not in self._ends:
            self._ends[name] = asyncio.create_task(self._run(task, arguments))
        try:
            return await asyncio.shield(self._ends[name])
        finally:
            if (end := self._ends.get(name)) is not None and end.done():
                del self._ends[name]

    def terminate(self) -> None:
        """Ask every run to end in order."""
        self._signal("terminate")

    def kill(self) -> None:
        self._signal("kill")

    async def ended(self) -> None:
        """Wait until no run is left."""
        await asyncio.gather(*self._ends.values(), return_exceptions=True)

    def _signal(self, how: str) -> None:
        for process in list(self._processes.values()):
            with suppress(ProcessLookupError):
                getattr(process, how)()

    async def _run(self, task: Task, arguments: Sequence[str]) -> Ended:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "orchestrator.workers.leash", *arguments),
            stdin=PIPE,  # the leash
            stdout=PIPE,
            stderr=None,  # its log lines are among ours
            env=dict(self._environ),
        )
        self._processes[task.name] = process
        try:
            assert process.stdout is not None  # noqa: S101 - as asked for above
            said = await process.stdout.read()
            code = await process.wait()
        finally:
            del self._processes[task.name]
        if code < 0:
            return Ended(task, None, f"ended by signal {-code}; nothing recorded is lost")
        return Ended(task, code, _reason(said))


def _reason(said: bytes) -> str:
    """The reason in a run's ``--json`` object."""
    try:
        value = json.loads(said)
    except ValueError:
        return ""
    return safe(str(value.get("reason", ""))) if isinstance(value, dict) else ""
