"""The decisions about one kind of call, without waiting: window, gate, pace and noise together."""

from __future__ import annotations

from orchestrator.api.pacing.gate import Gate
from orchestrator.api.pacing.noise import Noise
from orchestrator.api.pacing.pace import Basis, Pace
from orchestrator.api.pacing.window import WINDOWS_S, Window

#: A timer that fires late may be made up for by this much, so that oversleeping does not lower the pace.
SLACK_S = 0.02


class Pacer:
    """When the next call may leave; learns from each call that leaves, is accepted or is refused."""

    def __init__(self, ceiling_per_s: float, spread_s: float = 0.0) -> None:
        """*spread_s*: see ``Gate``."""
        self._window = Window()
        self._gate = Gate(spread_s)
        self._pace = Pace(ceiling_per_s, self._window)
        self._noise = Noise(self._pace)
        self._last = float("-inf")  # the slot that was used last

    @property
    def rate(self) -> float:
        """Calls a second."""
        return self._pace.rate

    @property
    def closed(self) -> bool:
        """Whether everything waits for a sign that the API accepts calls again; it may come at any time."""
        return self._gate.closed

    def earliest(self, came: float) -> float:
        """Return when a caller who came at *came* and is first in the queue may leave, as things are."""
        return self._gate.earliest(max(came, self._last + 1 / self._pace.rate))

    def leave(self, at: float, now: float) -> None:
        """The caller whose slot was *at* leaves *now*."""
        if at > self._last + 2 / self._pace.rate:
            self._pace.skip(now)
        self._last = max(at, now - SLACK_S)
        self._gate.leave(now)
        self._window.leave(now)

    # Of a pace that several processes keep, whose slots are given out elsewhere

    def opens(self, now: float) -> float:
        """Return when a slot may be, at the earliest."""
        return self._gate.earliest(now)

    def holds(self, slot: float) -> bool:
        """Whether a call may leave in *slot*, if nothing else becomes known: the trial may while the gate is closed."""
        return self._gate.lets(slot)

    def given(self, slot: float, *, idle: bool) -> None:
        """Somebody has got *slot*, still to come; *idle*: nobody wanted the one before it."""
        if idle:
            self._pace.skip(slot)
        self._window.leave(slot)

    def unused(self, slot: float) -> None:
        """Nothing left in *slot*."""
        self._window.refused(slot)
        self._pace.skip(slot)
        self._gate.stayed(slot)

    def trial(self, slot: float) -> None:
        """The call of *slot* is the trial of a closed gate, whosever it is."""
        self._gate.leave(slot)

    def known(self, rate: float) -> None:
        """The others have found *rate*."""
        self._pace.known(rate)

    @property
    def learnt(self) -> bool:
        """Whether the pace is the API's, not the ceiling of this process."""
        return self._pace.is_learnt

    def follow(self, rate: float) -> None:
        """Take over *rate* from one who knows better; a raise only with the gate open: it may be older than a fall."""
        if rate < self.rate or not self.closed:
            self._pace.follow(rate)

    def accepted(self, now: float, sent_at: float) -> None:
        """The call that left at *sent_at* was not refused."""
        self._noise.answered(refused=False)
        if self._gate.closed:
            if self._gate.is_key(sent_at):
                self._open(now, sent_at)
        elif self._gate.is_late(sent_at):
            self._gate.late_accepted()
        else:
            self._pace.calm += 1
            if not self._noise.accepted(sent_at):
                self._pace.accepted(now, sent_at)

    def throttled(self, now: float, sent_at: float, retry_after_s: float | None) -> None:
        """The call that left at *sent_at* was refused; the API may have said for how long to stay away."""
        gate, rare = self._gate, self._noise.rare
        self._window.refused(sent_at)
        self._noise.answered(refused=True)
        if retry_after_s is not None:
            gate.block(now + retry_after_s)
        if gate.is_late(sent_at):
            # It left before the pause began, and so is no reason for another; but it may correct the count.
            if gate.closed:
                self._pace.correct(sent_at)
            if not gate.late_refused():
                return
            # A pace that is near the limit has a call refused here and there: this is something else.
            self._pace.basis = Basis.GUESS
        elif gate.closed:
            if self._window.widen(sent_at - gate.full_at):
                self._pace.recount(sent_at)
            gate.trial_refused(now, self._window.clear_at(sent_at))
        elif self._noise.explains(now, sent_at):
            return
        elif self._refused(now, sent_at, retry_after_s, rare=rare):
            self._pause(now)
            return
        gate.close(now, sent_at)
        self._pace.refused()

    def _refused(self, now: float, sent_at: float, retry_after_s: float | None, *, rare: bool) -> bool:
        """Slow down after a refusal that met an open gate; return whether a pause without a trial is enough."""
        pace, window = self._pace, self._window
        if retry_after_s is not None:
            window.believe(sent_at, retry_after_s)
        rare = rare and not pace.is_attempt and retry_after_s is None and pace.rate >= 1 and window.is_shortest
        near = rare or (window.is_shortest and pace.is_near and pace.filled_window(sent_at))
        if self._gate.is_settled(sent_at) and not rare:
            before = pace.rate
            pace.slow_down(sent_at)
            self._noise.put_to_test(now, before, possible=window.is_shortest)
        self._gate.full(sent_at, max(now + 1 / pace.rate, window.clear_at(sent_at)))
        return near

    def _pause(self, now: float) -> None:
        """Wait without a trial: its answer may take long, and that the API accepts calls at this pace is known."""
        self._gate.pause(now, self._window.length_s)
        self._pace.begin(now)
        self._pace.refused()

    def _open(self, now: float, sent_at: float) -> None:
        """The call that left at *sent_at* was accepted after a refusal: calls leave at the pace again."""
        gate, pace = self._gate, self._pace
        if gate.is_late(sent_at) and sent_at < gate.trial_at - WINDOWS_S[0]:
            self._window.shorten()  # a longer window would still have been full
        gate.open(now, 0.0 if pace.basis is Basis.GUESS else self._window.length_s)
        pace.begin(now)
        pace.basis = Basis.GUESS
