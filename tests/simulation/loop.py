"""An event loop on which time passes only when there is nothing else to do."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

#: When every simulated world begins.
EPOCH = datetime(2026, 11, 25, 2, tzinfo=UTC)

#: More turns of the loop than any episode needs: past it something spins.
MAX_TURNS = 100_000


class Stuck(AssertionError):
    """Nothing is ready and no timer is set, or nothing else ever happens: the program waits for ever."""


class _Jump(selectors.BaseSelector):
    """Instead of waiting for files, lets the loop's time jump to its next timer."""

    def __init__(self) -> None:
        self.now = 0.0
        self._turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._turns += 1
        if timeout is None:
            raise Stuck("every task waits and no timer is set")
        if self._turns > MAX_TURNS:
            self._turns = 0
            raise Stuck(f"{MAX_TURNS} turns of the loop and no end")
        self.now += max(timeout, 0.0)
        return []

    def register(self, fileobj: object, events: int, data: object = None) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, events, data)  # type: ignore[arg-type]  # the loop's own wake-up pipe

    def unregister(self, fileobj: object) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, 0, None)  # type: ignore[arg-type]  # as above

    def get_key(self, fileobj: object) -> selectors.SelectorKey:
        raise KeyError(fileobj)

    def get_map(self) -> Mapping[object, selectors.SelectorKey]:  # type: ignore[override]  # nothing is ever in it
        return {}


class VirtualLoop(asyncio.SelectorEventLoop):
    """Begins at *now*; ``time()`` is the time of the world, in seconds since EPOCH."""

    def __init__(self, now: float) -> None:
        self._jump = _Jump()
        self._jump.now = now
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now


class VirtualClock:
    """The clock of one process; *skew_s* is how wrong the machine's wall clock is."""

    def __init__(self, loop: VirtualLoop, skew_s: float) -> None:
        self._loop = loop
        self._skew = timedelta(seconds=skew_s)

    def monotonic(self) -> float:
        return self._loop.time()

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self._loop.time()) + self._skew

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(seconds, 0.0))
