"""Refusals that have nothing to do with the pace: an API in trouble, a proxy."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from orchestrator.api.pacing.gate import WAVE_CALLS
from orchestrator.api.pacing.pace import CALM_CALLS, SLOWEST_PER_S, Pace

#: One call refused in this many costs less than a lower pace.
RARE_CALLS = 100

#: A refusal so soon after the last, though the pace has fallen, is put to the test: a still lower pace, for so many
#: calls (fewer where each takes long). NOISE_REFUSED of them refused in spite of that, once NOISE_CALLS were accepted,
#: are noise.
SOON_CALLS = 50
SOON_TIMES = 3
TEST_PACE = 0.7
TEST_CALLS = 60
SLOW_PER_S, SLOW_TEST_CALLS = 5.0, 20
NOISE_CALLS, NOISE_REFUSED = 10, 2

#: Noise is given up when over twice as many are refused, and a bit; and then not believed in for a while.
MORE_NOISE = 0.2
NO_NOISE_S = 60.0


@dataclass(slots=True)
class _Test:
    """A time at a pace at which there should be no refusals."""

    since: float
    pace: float  #: to go back to when there are none
    accepted: int = 0
    refused: int = 0


class Noise:
    """Distinguishes noise from a limit, and gives the pace back what noise took from it."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._recent = 2.0  # calls refused, fading with each accepted; at first the least refusal is news
        self._answers: deque[bool] = deque(maxlen=20)  # the last answers, True for a refusal
        self._fell_from: float | None = None  # the pace before it began to fall; None: it has not, or that is long ago
        self._soon = 0  # refusals in a row that came soon after the one before
        self._test: _Test | None = None
        self._part: float | None = None  # part of the calls refused whatever the pace; None: none is known of
        self._unlikely_until = float("-inf")

    @property
    def rare(self) -> bool:
        """Whether hardly any call has been refused recently."""
        return self._recent < 1

    def answered(self, *, refused: bool) -> None:
        """Note the answer to a call."""
        self._recent = self._recent + 1 if refused else self._recent * (1 - 1 / RARE_CALLS)
        self._answers.append(refused)

    def accepted(self, sent_at: float) -> bool:
        """An open gate's call was accepted; return whether it was part of a test, and so says nothing of the pace."""
        if self._pace.calm >= CALM_CALLS:
            self._fell_from = None
        test = self._test
        if test is None or sent_at <= test.since:
            return False
        test.accepted += 1
        if test.accepted >= (TEST_CALLS if self._pace.rate >= SLOW_PER_S else SLOW_TEST_CALLS):
            self._pace.rate, self._test = max(self._pace.rate, test.pace), None
        return True

    def explains(self, now: float, sent_at: float) -> bool:
        """Whether the refusal of the call that left at *sent_at* is to change nothing."""
        if self._part is not None:
            if sum(self._answers) / len(self._answers) <= 2 * self._part + MORE_NOISE:
                return True
            self._part, self._unlikely_until = None, now + NO_NOISE_S
        test = self._test
        if test is None or sent_at <= test.since:
            return False
        if sum(list(self._answers)[-4:]) >= WAVE_CALLS:
            self._test = None  # that is no noise
            return False
        test.refused += 1
        if test.refused >= NOISE_REFUSED and test.accepted >= NOISE_CALLS and self._fell_from is not None:
            self._part = test.refused / (test.refused + test.accepted)
            self._pace.restore(self._fell_from)
            self._test = self._fell_from = None
        return True

    def put_to_test(self, now: float, before: float, *, possible: bool) -> None:
        """The pace was *before* until a refusal lowered it: if that did not help, find out whether any pace would."""
        if self._fell_from is None:
            self._fell_from, self._soon = before, 0
            return
        self._soon = self._soon + 1 if self._pace.calm < SOON_CALLS else 0
        if self._soon >= SOON_TIMES and possible and now >= self._unlikely_until:
            self._soon = 0
            self._test = _Test(now, self._pace.rate)
            self._pace.rate = max(TEST_PACE * self._pace.rate, SLOWEST_PER_S)
