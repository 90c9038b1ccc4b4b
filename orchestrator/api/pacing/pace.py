"""How many calls a second: the fall after a refusal, and the climb while callers wait."""

from __future__ import annotations

from enum import Enum, auto

from orchestrator.api.pacing.window import WINDOWS_S, Window

#: Part of a known limit that is used: the rest absorbs the jitter of the network.
MARGIN = 0.98

#: How far a pace falls that was refused although nothing shows how far it was off.
DECREASE = 0.7

#: Even a pace that is refused all the time tries again.
SLOWEST_PER_S = 1 / 5

#: The pace is judged by the answers to this many calls, sent over at least a second and at most this many.
STEP_CALLS = 10
LONGEST_STEP_S = 20.0

#: Accepted calls before the first attempt to go past a known limit, and at most before any; at a slow pace, where one
#: call stands for 1.5 s, the time counts instead.
CALM_CALLS = 200
CALM_CALL_S = 1.5
MOST_CALM_CALLS = 6400

#: The first and the largest raise of an attempt; each raise is twice the one before.
FIRST_RAISE = 0.005
LARGEST_RAISE = 0.04


class Basis(Enum):
    """Why the pace is what it is; from the refusal that lowered it until the gate opens."""

    GUESS = auto()
    KNOWN = auto()  #: it should hold: it has before, or it is just below the documented limit
    COUNTED = auto()  #: it comes from the calls accepted within a window


class Pace:
    """Calls a second, never above the ceiling."""

    def __init__(self, ceiling_per_s: float, window: Window) -> None:
        self.rate = ceiling_per_s
        self.basis = Basis.GUESS
        self.calm = 0  #: calls accepted since the last refusal
        self._ceiling = ceiling_per_s
        self._window = window
        self._counted_at = 0.0  # the end of the window whose calls were counted
        self._most = 0  # accepted in that window
        self._began = float("-inf")  # when calls began to leave at the pace, after the last refusal
        self._judged_from = 0.0
        # The climb.
        self._bad: float | None = None  # refused recently
        self._good = 0.0  # has stood the test of one step
        self._proven = 0.0  # has stood that of a long calm
        self._raise = FIRST_RAISE
        self._calm_needed = CALM_CALLS

    @property
    def is_learnt(self) -> bool:
        """Whether the API's refusals have made it lower than the ceiling."""
        return self.rate < self._ceiling

    @property
    def is_attempt(self) -> bool:
        """Whether the pace is a little more than what has stood the test of a long calm."""
        return self._bad is None and 0 < self._proven < self.rate

    @property
    def is_near(self) -> bool:
        """Whether the pace is near the documented limit."""
        return self.rate >= 0.9 * self._ceiling

    def filled_window(self, at: float) -> bool:
        """Whether the pace had held for a whole window at *at*, so that it can hardly be above the limit."""
        return self._window.count(at) >= 0.9 * self.rate * self._window.length_s >= STEP_CALLS

    def begin(self, now: float) -> None:
        """Calls leave at the pace from *now*: judge it by those alone."""
        self._began = self._judged_from = now

    def skip(self, now: float) -> None:
        """A slot went unused: callers, not the pace, are what is scarce, and so the pace proves nothing."""
        self._judged_from = now

    def refused(self) -> None:
        """The calm is over; the next climb begins with the smallest raise."""
        self.calm, self._raise = 0, FIRST_RAISE

    def accepted(self, now: float, sent_at: float) -> None:
        """The call that left at *sent_at* was accepted: when it ends a step, the pace has stood its test."""
        step_s = min(max(WINDOWS_S[0], STEP_CALLS / self.rate), LONGEST_STEP_S)
        if sent_at < self._judged_from + step_s:
            return
        self._judged_from = now
        if not self._window.is_shortest and self._window.count(now) > 1.1 * self._most:
            self._window.shorten()  # it was no full window that refused, but an API in trouble
        self._climb(now)

    def known(self, rate: float) -> None:
        """Others have found that *rate* is what the API accepts, or nearly."""
        if rate < self.rate:
            self.rate, self._bad = max(rate, SLOWEST_PER_S), rate / MARGIN

    def follow(self, rate: float) -> None:
        """Keep *rate*, which another process has learnt from the same answers: more was refused."""
        self.rate = min(max(rate, SLOWEST_PER_S), self._ceiling)
        self._bad = self.rate / MARGIN

    def restore(self, rate: float) -> None:
        """Go back to *rate*: the refusals that lowered the pace had nothing to do with it."""
        self.rate, self._bad = max(rate, self.rate), None

    def correct(self, sent_at: float) -> None:
        """A call that left at *sent_at* turns out to be refused: the count that the pace comes from was too high."""
        if self.basis is Basis.COUNTED and sent_at < self._counted_at:
            self._measure(sent_at)

    def recount(self, at: float) -> None:
        """The window is longer than was thought: count again, unless that would raise the pace."""
        if 0 < self._window.count(at) / self._window.length_s < self.rate:
            self._measure(at)

    def slow_down(self, at: float) -> None:
        """Choose the pace after a call that left at *at* was refused."""
        rate, count, length_s = self.rate, self._window.count(at), self._window.length_s
        measured = count / length_s
        if measured and (measured < rate / 2 or (count >= STEP_CALLS and measured < 0.9 * rate)):
            self._measure(at)
            return
        self._bad = rate
        lower = [known for known in (self._good, self._proven) if known < 0.99 * rate]
        if self._proven in lower and rate <= 1.05 * self._proven:
            self.rate = self._proven  # an attempt to get a little more has failed
            self._calm_needed = min(2 * self._calm_needed, MOST_CALM_CALLS)
        elif at - self._began >= max(length_s, STEP_CALLS / rate):
            self.rate = MARGIN * rate
        else:
            self.rate = max(lower, default=0.0) or DECREASE * rate
        # The documented limit itself is refused now and then, when the network lets calls catch up with one another.
        known = self.rate in lower or self.rate == MARGIN * self._ceiling
        self.basis = Basis.KNOWN if known else Basis.GUESS
        self.rate = max(self.rate, SLOWEST_PER_S)
        self._good = max((known for known in lower if known <= self.rate), default=0.0)
        self._proven = min(self._proven, self._good)

    def _measure(self, at: float) -> None:
        """Take the calls accepted in the window that ends at *at* for the limit."""
        self._most = self._window.count(at)
        measured = self._most / self._window.length_s
        self.rate = max(MARGIN * measured, SLOWEST_PER_S)
        self._bad, self._counted_at, self.basis = measured, at, Basis.COUNTED
        self._good = self._proven = 0.0
        self._calm_needed = CALM_CALLS

    def _climb(self, now: float) -> None:
        """The pace has stood its test: raise it if there is something to gain."""
        self._good = max(self._good, self.rate)
        top = self._ceiling
        if self._bad is not None:
            top = min(top, MARGIN * self._bad)
            calm = max(self.calm, (now - self._began) / CALM_CALL_S)
            if top <= self.rate < self._ceiling and calm >= self._calm_needed:
                self._proven, self._bad, self._raise, top = self.rate, None, FIRST_RAISE, self._ceiling
        if self.rate < top:
            step = self._raise * self.rate
            self._raise = min(2 * self._raise, LARGEST_RAISE)
            self.rate = min(top, self.rate + (step if self._bad is None else max(step, (top - self.rate) / 4)))
