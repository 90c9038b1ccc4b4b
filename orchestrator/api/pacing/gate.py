"""The gate that a refusal closes: when the next call may leave, and which answers are still about earlier calls."""

from __future__ import annotations

from enum import Enum, auto

#: As many calls refused together are a limit well passed, not a call that came a little early; each accepted among them
#: counts against it by a part.
WAVE_CALLS = 3
ACCEPTED_COUNTS = 0.25

LONGEST_PAUSE_S = 30.0

#: A trial call whose answer takes longer than this no longer keeps the others waiting.
TRIAL_S = 5.0


class State(Enum):
    """Where the gate stands; a pause that is over leaves it PAUSED, so that late refusals still count against it."""

    OPEN = auto()  #: calls leave at the pace
    PAUSED = auto()  #: calls wait a moment, then leave at the pace without a trial
    CLOSED = auto()  #: one trial call at a time leaves, until one that left after the refused call is accepted


class Gate:
    """Closed by a refusal, opened by a call that left later and was accepted; or only paused."""

    def __init__(self, spread_s: float = 0.0) -> None:
        """*spread_s*: how long calls go on leaving after a refusal, because other processes hear of it so late."""
        self.state = State.OPEN
        self._spread_s = spread_s
        self.trial_at = float("-inf")  #: when a trial call may leave
        self.full_at = 0.0  #: when the call left that closed the gate; trials that fail do not move it
        self._blocked_until = float("-inf")  # nothing leaves before: a Retry-After, or no room in the window
        self._refused_sent = float("-inf")  # when the call left that was refused last; while CLOSED
        self._trials = 0  # refused; while CLOSED
        self._trial_left = float("-inf")  # when the last trial left, and when it might
        self._trial_might_at = float("-inf")
        self._stopped_at = float("-inf")  # when the last pause or closing began
        self._wave = 0.0  # calls refused that left before the pause; while PAUSED
        self._settled_from = float("-inf")

    @property
    def closed(self) -> bool:
        return self.state is State.CLOSED

    def earliest(self, at: float) -> float:
        """Return when a call that the pace lets leave at *at* may leave."""
        at = max(at, self._blocked_until)
        return max(at, self.trial_at) if self.closed else at

    def lets(self, at: float) -> bool:
        """Whether a call that was to leave at *at* may: no pause has begun meanwhile, or it is the trial."""
        return at >= self._blocked_until and (not self.closed or at == self._trial_left)

    def leave(self, now: float) -> None:
        """Note a call that leaves *now*: while the gate is closed it is a trial, and the others wait for its answer."""
        if self.closed:
            self._trial_left, self._trial_might_at = now, self.trial_at
            self.trial_at = now + TRIAL_S

    def stayed(self, at: float) -> None:
        """No call left at *at* after all: if it was to be the trial, another may be it."""
        if self.closed and at == self._trial_left:
            self.trial_at = self._trial_might_at

    def block(self, until: float) -> None:
        """Let nothing leave before *until*."""
        self._blocked_until = max(self._blocked_until, until)

    def is_late(self, sent_at: float) -> bool:
        """Whether the call that left at *sent_at* left before the last pause or closing was known.

        The trial did not, however soon after the one before it was refused: nothing else left meanwhile.
        """
        return sent_at <= self._stopped_at and sent_at != self._trial_left

    def is_settled(self, sent_at: float) -> bool:
        """Whether the call that left at *sent_at* can no longer have met what was sent too fast before."""
        return sent_at >= self._settled_from

    def is_key(self, sent_at: float) -> bool:
        """Whether the call that left at *sent_at*, now accepted, opens the closed gate."""
        return sent_at > self._refused_sent

    def late_accepted(self) -> None:
        """A late call was accepted: it counts against a wave of refusals."""
        self._wave = max(self._wave - ACCEPTED_COUNTS, 0.0)

    def late_refused(self) -> bool:
        """A late call was refused; return whether there are so many that the gate must close."""
        if self.state is not State.PAUSED:
            return False
        self._wave += 1
        return self._wave >= WAVE_CALLS

    def trial_refused(self, now: float, clear_at: float) -> None:
        """A trial call was refused: wait twice as long for the next, or only until the window has room again."""
        self._trials += 1
        later = now + min(2.0 ** (self._trials - 1), LONGEST_PAUSE_S)
        self.trial_at = clear_at if now < clear_at < later else later

    def full(self, sent_at: float, until: float) -> None:
        """The call that left at *sent_at* met a full window, which has room again *until* then."""
        self.full_at, self.trial_at = sent_at, until

    def open(self, now: float, settles_s: float) -> None:
        """Open *now*; calls that leave within *settles_s* may still meet what was sent too fast before."""
        self.state, self._trials, self._settled_from = State.OPEN, 0, now + settles_s

    def pause(self, now: float, settles_s: float) -> None:
        """Let nothing leave before the window has room, then go on without a trial."""
        self.block(self.trial_at)
        self.state, self._stopped_at, self._wave = State.PAUSED, now + self._spread_s, 1.0
        self._settled_from = self.trial_at + settles_s

    def close(self, now: float, sent_at: float) -> None:
        """Close, or stay closed, because the call that left at *sent_at* was refused."""
        self.state, self._stopped_at, self._refused_sent = State.CLOSED, now + self._spread_s, sent_at
