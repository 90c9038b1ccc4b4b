"""The course of a run so far, and how long the rest of it takes: from what was sent and done when."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from dataclasses import dataclass
from itertools import pairwise

#: The pace is that of so many seconds: over fewer it would jump, over more it would lag.
PACE_S = 30.0

#: But of so many changes at least: results come in lumps, as jobs are asked about now and then.
LEAST_CHANGES = 4

#: Results that come so many times as slowly as before come ever slower.
STEADY = 1.5

#: Moments remembered of what was sent; of more, every second one is forgotten.
MOST_MOMENTS = 2000


@dataclass(frozen=True, slots=True)
class _Moment:
    at: float
    files: int


class Course:
    """Files sent and files done over time, in monotonic seconds; both only grow.

    Two estimates, of which the longer one counts. By the pace at which files are done: right where the API is the
    bottleneck. By sending: the rest at the pace of sending, and then as long as a file takes from its
    sending to its result, which is how long ago as many files were sent as are done now; right where sending is the
    bottleneck, or all is sent and one waits. Before the first result neither says anything; nor once all is sent and
    results come ever slower: how long the slowest jobs take is not to be known from the quicker ones.
    """

    def __init__(self, now: float, sent: int, done: int) -> None:
        self._done: deque[_Moment] = deque([_Moment(now, done)])
        self._sent: list[_Moment] = [_Moment(now, sent)]
        self._all_done = [_Moment(now, done)]
        self._began = done

    def note(self, now: float, sent: int, done: int) -> None:
        """Take down how many files are sent and done by *now*."""
        if sent > self._sent[-1].files:
            self._sent = _thinned([*self._sent, _Moment(now, sent)])
        if done > self._done[-1].files:
            self._all_done = _thinned([*self._all_done, _Moment(now, done)])
            self._done.append(_Moment(now, done))
            while len(self._done) > LEAST_CHANGES and now - self._done[1].at >= PACE_S:
                self._done.popleft()

    def pace(self, now: float) -> float | None:
        """Files done a second, recently; None before there was a second result to measure from the first."""
        moments = [moment for moment in self._done if moment.files > self._began]
        if len(moments) < 2:
            return None
        first, last = moments[0], moments[-1]
        longest = max(after.at - before.at for before, after in pairwise(moments))
        until = max(last.at, now - longest)  # a pause that is longer than usual slows the pace down
        return (last.files - first.files) / max(until - first.at, 0.001)

    def left_s(self, now: float, files: int) -> float | None:
        """Seconds until all *files* are done; None while that is not known."""
        if self._done[-1].files <= self._began or (self._sent[-1].files >= files and self._is_slowing_down(now)):
            return None
        pace = self.pace(now)
        if pace is None and self._sent[-1].files >= files:
            return None  # the first result says only how long the quickest job took
        by_pace = None
        if pace:  # which holds from one lump of results to the next
            by_pace = max((files - self._done[-1].files) / pace - (now - self._done[-1].at), 1.0)
        estimates = [each for each in (by_pace, self._by_sending(now, files)) if each is not None]
        return max(estimates) if estimates and max(estimates) > 0 else None

    def _is_slowing_down(self, now: float) -> bool:
        """Whether, since all was sent, the last quarter of the time brought clearly fewer results than the others."""
        since = self._sent[-1].at
        before, lately = self._done_by(since), self._done_by(now - (now - since) / 4)
        return self._done[-1].files - lately < (lately - before) / 3 / STEADY

    def _done_by(self, at: float) -> int:
        place = bisect_right(self._all_done, at, key=lambda moment: moment.at)
        return self._all_done[max(place - 1, 0)].files

    def _by_sending(self, now: float, files: int) -> float | None:
        done, sent = self._done[-1], self._sent[-1]
        if sent.files < done.files:
            return None  # not told
        place = bisect_left(self._sent, done.files, key=lambda moment: moment.files)
        takes_s = done.at - self._sent[place].at
        if sent.files >= files:
            return sent.at + takes_s - now
        recent = self._sent[bisect_left(self._sent, now - PACE_S, key=lambda moment: moment.at) :]
        first = recent[0] if len(recent) > 1 else self._sent[0]
        if sent.files <= first.files:
            return None
        return (files - sent.files) / ((sent.files - first.files) / (now - first.at)) + takes_s


def _thinned(moments: list[_Moment]) -> list[_Moment]:
    return moments if len(moments) <= MOST_MOMENTS else [*moments[:-1:2], moments[-1]]
