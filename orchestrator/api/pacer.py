"""How fast calls may leave, learnt from the API's own refusals: the decisions, without waiting.

The limit is not known beforehand: the documented one is only the ceiling, and a free account has 20 calls a minute
where a paid one has 40 a second. What is learnt, and how:

* A refusal says that the API's window is full just now, so the calls it accepted within that window *are* the limit.
  The window is taken to be a second; when a lone trial call is refused long after such a window must have emptied, it
  is taken to be the next longer one that APIs use (``WINDOWS_S``).
* A refusal close to the documented limit is mostly a call that the network let catch up with the one before: a short
  pause, no trial, and a slightly lower pace only when such refusals are not rare.
* A refusal that no count explains (a token bucket that has run dry) makes the pace fall by a factor.
* Refusals that go on at a pace well below what was accepted have nothing to do with it (an API in trouble, a proxy):
  the pace goes back to what it was, and while they become no more frequent they change nothing.
* The pace creeps up only while callers wait for it: quickly to just below what was last refused, then, after a long
  calm, carefully past it. Each attempt that fails doubles the calm before the next.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from dataclasses import dataclass

#: The windows over which APIs count calls, shortest first.
WINDOWS_S = (1.0, 10.0, 60.0)

#: Part of a known limit that is used: the rest absorbs the jitter of the network.
MARGIN = 0.98

#: How far a pace falls that was refused although nothing tells how far it was off.
DECREASE = 0.7

#: Even a pace that is refused all the time tries again.
SLOWEST_PER_S = 1 / 5
LONGEST_PAUSE_S = 30.0

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

#: As many calls refused together are a limit well passed, not a call that came a little early; each accepted among them
#: counts against it by a part.
WAVE_CALLS = 3
ACCEPTED_COUNTS = 0.25

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

#: A trial call whose answer takes longer than this no longer keeps the others waiting.
TRIAL_S = 5.0

#: A timer that fires late may be made up for by this much, so that oversleeping does not lower the pace.
SLACK_S = 0.02

#: A call may take this much less to arrive than the one before it did.
JITTER_S = 0.05


@dataclass(slots=True)
class _Test:
    """Whether refusals go on at a pace at which there should be none."""

    since: float
    pace: float  #: to go back to when there are none
    accepted: int = 0
    refused: int = 0


class Pacer:
    """The decisions, without waiting: all times are monotonic seconds handed in by the caller."""

    def __init__(self, ceiling_per_s: float) -> None:
        self.ceiling = ceiling_per_s
        self.rate = ceiling_per_s
        self.blocked_until = float("-inf")  #: nothing leaves before: a Retry-After, or no room in the window
        self._history: list[float] = []  # when calls left that were not refused; in order
        self._last = float("-inf")  # the slot that was used last
        self._window_s = WINDOWS_S[0]
        # The gate: closed by a refusal, opened by a call that left later and was accepted.
        self._refused_sent: float | None = None  # when the refused call left; None: open
        self._closed_at = float("-inf")
        self._full_at = 0.0  # when the call left that closed the gate; trials that fail do not move it
        self._retry_at = float("-inf")  # when a trial call may leave
        self._opened_at = float("-inf")
        self._trials = 0
        self._wave: float | None = None  # after a pause without a trial: calls refused that left before it
        self._lately = 2.0  # calls refused, fading with each accepted; at first the least refusal is news
        self._settled_from = float("-inf")  # calls that left earlier may have met what was sent too fast before
        self._trusted = False  # the pace is one that should hold, not a guess
        self._counted = False  # the pace comes from the calls accepted until ...
        self._counted_at = 0.0
        self._most = 0  # accepted in that window
        self._told_at_count = 0  # accepted in the window that a Retry-After spoke of
        # What tells noise from a limit.
        self._answers: deque[bool] = deque(maxlen=20)  # whether the last calls were refused
        self._fell_from: float | None = None  # the pace before it began to fall; None: it has not, or that is long ago
        self._soon = 0  # refusals in a row that came soon after the one before
        self._test: _Test | None = None
        self._noise: float | None = None  # part of the calls refused whatever the pace; None: none is known of
        self._no_noise_until = float("-inf")
        # The climb.
        self._bad: float | None = None  # refused of late
        self._good = 0.0  # has stood the test of one step
        self._proven = 0.0  # has stood that of a long calm
        self._judged_from = 0.0
        self._raise = FIRST_RAISE
        self._calm = 0  # calls accepted since the last refusal
        self._calm_needed = CALM_CALLS

    def earliest(self, came: float) -> float:
        """When a caller who came at *came* and is first in the queue may leave, as things are."""
        at = max(came, self._last + 1 / self.rate, self.blocked_until)
        return at if self._refused_sent is None else max(at, self._retry_at)

    @property
    def closed(self) -> bool:
        """Whether everything waits for a sign that the API accepts calls again; it may come at any time."""
        return self._refused_sent is not None

    def leave(self, at: float, now: float) -> None:
        """The caller whose slot was *at* leaves *now*."""
        if at > self._last + 2 / self.rate:
            # A slot went unused: callers, not the pace, are what is scarce, and so the pace proves nothing.
            self._judged_from = now
        self._last = max(at, now - SLACK_S)
        if self.closed:
            self._retry_at = now + TRIAL_S
        self._history.append(now)
        if len(self._history) > 64 and self._history[len(self._history) // 2] < now - 2 * WINDOWS_S[-1]:
            del self._history[: len(self._history) // 2]

    def accepted(self, now: float, sent_at: float) -> None:
        """The call that left at *sent_at* was not refused."""
        self._lately *= 1 - 1 / RARE_CALLS
        self._answers.append(False)
        if sent_at <= self._closed_at and not self.closed:
            if self._wave is not None:
                self._wave = max(self._wave - ACCEPTED_COUNTS, 0.0)
            return
        if self._refused_sent is not None:
            if sent_at > self._refused_sent:
                if sent_at <= self._closed_at and sent_at < self._retry_at - WINDOWS_S[0]:
                    self._window_s = WINDOWS_S[0]  # a longer window would still have been full
                self._refused_sent, self._trials, self._judged_from, self._opened_at = None, 0, now, now
                self._settled_from = now + self._window_s if self._trusted else now
                self._trusted = self._counted = False
            return
        self._calm += 1
        if self._calm >= CALM_CALLS:
            self._fell_from = None
        if self._test is not None and sent_at > self._test.since:
            self._test.accepted += 1
            if self._test.accepted >= (TEST_CALLS if self.rate >= SLOW_PER_S else SLOW_TEST_CALLS):
                self.rate, self._test = max(self.rate, self._test.pace), None
            return
        if sent_at >= self._judged_from + min(max(WINDOWS_S[0], STEP_CALLS / self.rate), LONGEST_STEP_S):
            self._judged_from = now
            if self._window_s > WINDOWS_S[0] and self._count(now) > 1.1 * self._most:
                self._window_s = WINDOWS_S[0]  # it was no full window that refused, but an API in trouble
            self._climb(now)

    def throttled(self, now: float, sent_at: float, retry_after_s: float | None) -> None:
        """The call that left at *sent_at* was refused; the API may have said for how long to stay away."""
        index = bisect_left(self._history, sent_at)
        if index < len(self._history) and self._history[index] == sent_at:
            del self._history[index]
        lately = self._lately
        self._lately += 1
        if retry_after_s is not None:
            self.blocked_until = max(self.blocked_until, now + retry_after_s)
        self._answers.append(True)
        if not self.closed and sent_at > self._closed_at and self._is_noise(now, sent_at):
            return
        if sent_at <= self._closed_at:
            # It left before the pause began, and so is no reason for another; but it may correct the count.
            if self._counted and self.closed and sent_at < self._counted_at:
                self._measure(sent_at)
            if self._wave is None:
                return
            self._wave += 1
            if self._wave < WAVE_CALLS:
                return
            # A pace that is near the limit has a call refused here and there: this is something else.
            self._trusted = False
        elif self.closed:
            self._trials += 1
            self._widen(sent_at)
            later, clear = now + min(2.0 ** (self._trials - 1), LONGEST_PAUSE_S), self._clear_at(sent_at)
            self._retry_at = clear if now < clear < later else later
        else:
            self._full_at = sent_at
            if retry_after_s is not None:
                self._believe(sent_at, retry_after_s)
            rare = lately < 1 and retry_after_s is None and self.rate >= 1 and self._window_s == WINDOWS_S[0]
            near = rare or self._is_near(sent_at)
            if sent_at >= self._settled_from and not rare:
                before = self.rate
                self._slow_down(sent_at)
                self._put_to_test(now, before)
            self._retry_at = max(now + 1 / self.rate, self._clear_at(sent_at))
            if near:
                # No trial: its answer may take long, and that the API accepts calls at about this pace is known.
                self.blocked_until = max(self.blocked_until, self._retry_at)
                self._closed_at = self._opened_at = self._judged_from = now
                self._settled_from = self._retry_at + self._window_s
                self._calm, self._raise, self._wave = 0, FIRST_RAISE, 1.0
                return
        self._refused_sent, self._closed_at, self._wave = sent_at, now, None
        self._calm, self._raise = 0, FIRST_RAISE

    def _clear_at(self, at: float) -> float:
        """When the window that is full at *at* has room again."""
        index = bisect_right(self._history, at - self._window_s)
        return (self._history[index] if index < len(self._history) else at) + self._window_s + JITTER_S

    def _count(self, at: float, window_s: float | None = None) -> int:
        """Calls accepted in the window that ends at *at*, as far as is known."""
        history = self._history
        return bisect_left(history, at) - bisect_right(history, at - (window_s or self._window_s))

    def _put_to_test(self, now: float, before: float) -> None:
        """The pace was *before* until a refusal lowered it: if that did not help, find out whether any pace would."""
        if self._fell_from is None:
            self._fell_from, self._soon = before, 0
            return
        self._soon = self._soon + 1 if self._calm < SOON_CALLS else 0
        if self._soon >= SOON_TIMES and self._window_s == WINDOWS_S[0] and now >= self._no_noise_until:
            self._soon = 0
            self._test = _Test(now, self.rate)
            self.rate = max(TEST_PACE * self.rate, SLOWEST_PER_S)

    def _is_noise(self, now: float, sent_at: float) -> bool:
        """Whether the refusal of the call that left at *sent_at* is to change nothing."""
        refused = sum(self._answers) / len(self._answers)
        if self._noise is not None:
            if refused <= 2 * self._noise + MORE_NOISE:
                return True
            self._noise, self._no_noise_until = None, now + NO_NOISE_S
        test = self._test
        if test is None or sent_at <= test.since:
            return False
        if sum(list(self._answers)[-4:]) >= WAVE_CALLS:
            self._test = None  # that is no noise
            return False
        test.refused += 1
        if test.refused >= NOISE_REFUSED and test.accepted >= NOISE_CALLS and self._fell_from is not None:
            self._noise = test.refused / (test.refused + test.accepted)
            self.rate, self._bad, self._test, self._fell_from = max(self._fell_from, self.rate), None, None, None
        return True

    def _is_near(self, at: float) -> bool:
        """Whether the pace is hardly above the limit: it held for a whole window, and that window was as full as it."""
        full = self._count(at) >= 0.9 * self.rate * self._window_s >= STEP_CALLS
        return full and self._window_s == WINDOWS_S[0] and self.rate >= 0.9 * self.ceiling

    def _slow_down(self, at: float) -> None:
        """Choose the pace after a call that left at *at* was refused."""
        rate, count = self.rate, self._count(at)
        measured = count / self._window_s
        if measured and (measured < rate / 2 or (count >= STEP_CALLS and measured < 0.9 * rate)):
            self._measure(at)
            return
        self._counted = self._trusted = False
        self._bad = rate
        lower = [known for known in (self._good, self._proven) if known < 0.99 * rate]
        if self._proven in lower and rate <= 1.05 * self._proven:
            self.rate = self._proven  # an attempt to get a little more has failed
            self._calm_needed = min(2 * self._calm_needed, MOST_CALM_CALLS)
        elif at - self._opened_at >= max(self._window_s, STEP_CALLS / rate):
            self.rate = MARGIN * rate
        else:
            self.rate = max(lower, default=0.0) or DECREASE * rate
        # The documented limit itself is refused now and then, when the network lets calls catch up with one another.
        self._trusted = self.rate in lower or self.rate == MARGIN * self.ceiling
        self.rate = max(self.rate, SLOWEST_PER_S)
        self._good = max((known for known in lower if known <= self.rate), default=0.0)
        self._proven = min(self._proven, self._good)

    def _widen(self, at: float) -> None:
        """A trial call that left at *at* was refused: the window is longer than was thought."""
        # Also a window that starts by the API's own clock has room again within its length.
        waited = at - self._full_at
        wider = next((window for window in WINDOWS_S if window > waited), WINDOWS_S[-1])
        if wider <= self._window_s:
            return
        self._window_s = wider
        measured = self._count(at) / self._window_s
        if 0 < measured < self.rate:
            self._measure(at)

    def _believe(self, at: float, retry_after_s: float) -> None:
        """Take the wait that the API asks for as a sign of its window when the same count of calls leads to it twice.

        Once is not enough: it may be a penalty that has nothing to do with a window.
        """
        window_s = next((window for window in WINDOWS_S if window >= retry_after_s), WINDOWS_S[-1])
        if window_s > self._window_s:
            count, before = self._count(at, window_s), self._told_at_count
            self._told_at_count = count
            if before and 0.9 * before <= count <= 1.1 * before:
                self._window_s = window_s

    def _measure(self, at: float) -> None:
        """Take the calls accepted in the window that ends at *at* for the limit."""
        self._most = self._count(at)
        measured = self._most / self._window_s
        self.rate = max(MARGIN * measured, SLOWEST_PER_S)
        self._bad, self._counted_at = measured, at
        self._counted = self._trusted = True
        self._good = self._proven = 0.0
        self._calm_needed = CALM_CALLS

    def _climb(self, now: float) -> None:
        """The pace has stood its test: raise it if there is something to gain."""
        self._good = max(self._good, self.rate)
        top = self.ceiling
        if self._bad is not None:
            top = min(top, MARGIN * self._bad)
            calm = max(self._calm, (now - self._opened_at) / CALM_CALL_S)
            if top <= self.rate < self.ceiling and calm >= self._calm_needed:
                self._proven, self._bad, self._raise, top = self.rate, None, FIRST_RAISE, self.ceiling
        if self.rate < top:
            step = self._raise * self.rate
            self._raise = min(2 * self._raise, LARGEST_RAISE)
            self.rate = min(top, self.rate + (step if self._bad is None else max(step, (top - self.rate) / 4)))
