"""The calls that the API has accepted, and the window over which it seems to count them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort

#: The windows over which APIs count calls, shortest first.
WINDOWS_S = (1.0, 10.0, 60.0)

#: A call may take this much less to arrive than the one before it did.
JITTER_S = 0.05


class Window:
    """The calls that left and were not refused, and the length of the API's window as far as it is known."""

    def __init__(self) -> None:
        self.length_s = WINDOWS_S[0]
        self._history: list[float] = []  # when the calls left; in order
        self._asked_at_count = 0  # accepted in the window that a Retry-After spoke of

    @property
    def is_shortest(self) -> bool:
        return self.length_s == WINDOWS_S[0]

    def leave(self, now: float) -> None:
        """Note a call that leaves *now*; another process's may have left earlier than the last one noted."""
        history = self._history
        insort(history, now)
        if len(history) > 64 and history[len(history) // 2] < now - 2 * WINDOWS_S[-1]:
            del history[: len(history) // 2]

    def refused(self, sent_at: float) -> None:
        """Take out the call that left at *sent_at*: the API does not count it."""
        index = bisect_left(self._history, sent_at)
        if index < len(self._history) and self._history[index] == sent_at:
            del self._history[index]

    def count(self, at: float, length_s: float | None = None) -> int:
        """Return the calls accepted in the window that ends at *at*, as far as is known."""
        return bisect_left(self._history, at) - bisect_right(self._history, at - (length_s or self.length_s))

    def clear_at(self, at: float) -> float:
        """Return when the window that is full at *at* has room again."""
        index = bisect_right(self._history, at - self.length_s)
        return (self._history[index] if index < len(self._history) else at) + self.length_s + JITTER_S

    def shorten(self) -> None:
        """Go back to the shortest window: a longer one would have answered otherwise."""
        self.length_s = WINDOWS_S[0]

    def widen(self, waited_s: float) -> bool:
        """Make room for a trial call refused *waited_s* after the window was full; return whether that changed it."""
        # Also a window that starts by the API's own clock has room again within its length.
        wider = next((window for window in WINDOWS_S if window > waited_s), WINDOWS_S[-1])
        if wider <= self.length_s:
            return False
        self.length_s = wider
        return True

    def believe(self, at: float, retry_after_s: float) -> None:
        """Take the wait that the API asks for as a sign of its window when the same count of calls leads to it twice.

        Once is not enough: it may be a penalty that has nothing to do with a window.
        """
        length_s = next((window for window in WINDOWS_S if window >= retry_after_s), WINDOWS_S[-1])
        if length_s > self.length_s:
            count, before = self.count(at, length_s), self._asked_at_count
            self._asked_at_count = count
            if before and 0.9 * before <= count <= 1.1 * before:
                self.length_s = length_s
