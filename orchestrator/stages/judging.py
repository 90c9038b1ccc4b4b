"""What one complete listing says of one unanswered create call that no job was proved to be of. Pure.

``judge`` takes a ``Case``, everything that is known, and returns a finding; the reconciler carries it out. Times are
monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta

from orchestrator.clock import time_of
from orchestrator.models import JobStatus, RemoteJob

#: The wait before a running candidate is looked at again: at first, at most, and its growth from look to look.
FIRST_LOOK_S, LAST_LOOK_S, LOOK_GROWTH = 0.5, 15.0, 1.5

#: How far before a call's mark a job may be dated and still be the call's: the clocks of one service differ.
SLACK = timedelta(minutes=10)

#: Most times that a chunk is sent again, each after a proof of absence of its own. Once only in a run whose create
#: calls have all failed: then the failure is no accident. A call that this program's own death cut off does not count.
MAX_RESENDS = 3


@dataclass(frozen=True, slots=True)
class Signs:
    """What the listings have shown for a chunk so far."""

    clean_at: float | None = None  #: start of the first listing in a row without a candidate
    doubtful_since: float | None = None  #: start of the first in a row whose ended candidates prove nothing


@dataclass(frozen=True, slots=True)
class Case:
    """One unanswered chunk and its candidates: the jobs in a listing begun at *began* that its call may have made."""

    began: float
    taken_up: float
    not_before: float  #: a listing begun earlier proves no absence: the call may still take effect
    settle_s: float
    stale_s: float
    look_s: float  #: how long the last wait for a running candidate was
    signs: Signs = Signs()
    running: tuple[RemoteJob, ...] = ()  #: candidates that have not ended
    empty: tuple[RemoteJob, ...] = ()  #: ended candidates without results
    hints: tuple[RemoteJob, ...] = ()  #: candidates with results of some of the chunk's files
    rivals: tuple[Signs, ...] = ()  #: of the other chunks that a job in *empty* may be of
    one_each: bool = False  #: *empty* are as many as these chunks, and no job can be of any other: see ``one_each``
    elsewhere: bool = False  #: the listing seems to be of another project than the ledger's jobs
    held: bool = False  #: waits for a person already
    accepted: bool = False  #: the API said yes, in words that cannot be read
    resends: int = 0
    eased: bool = False  #: what failed the call is not known to fail every create call of this run
    sending: bool = True  #: the run may still send

    @property
    def told_apart(self) -> bool:
        """Whether the chunk may have any job in *empty*, as it makes no difference which is whose."""
        return bool(self.empty) and not self.hints and self.one_each

    @property
    def may_resend(self) -> bool:
        """Whether proof of absence is enough to send the chunk again. Each run may try what earlier ones left."""
        return not self.accepted and self.resends < (MAX_RESENDS if self.eased else 1)


@dataclass(frozen=True, slots=True)
class Adopt:
    """*job* is the chunk's."""

    job: RemoteJob
    why: str


@dataclass(frozen=True, slots=True)
class Hold:
    """A person has to decide."""

    why: str


@dataclass(frozen=True, slots=True)
class StayHeld:
    """A person has to decide, as before: nothing has turned up that would settle it."""


@dataclass(frozen=True, slots=True)
class Absent:
    """The call made no job: the chunk may be sent again."""

    why: str


@dataclass(frozen=True, slots=True)
class SetAside:
    """This run leaves the chunk to a later one."""

    why: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing is settled yet: look again after *seconds*, with *signs* in mind."""

    seconds: float
    signs: Signs


Finding = Adopt | Hold | StayHeld | Absent | SetAside | Wait


def judge(case: Case) -> Finding:
    """What to do with the chunk. It is sent again only when two listings prove that its call made no job."""
    if case.held and not _can_settle(case):
        return StayHeld()
    if case.began - case.taken_up > case.stale_s:
        return SetAside(f"undecided for over {case.stale_s:g} s: jobs that may be its own have not ended")
    if case.running:
        return Wait(min(case.look_s * LOOK_GROWTH, LAST_LOOK_S), Signs())
    if case.empty or case.hints:
        return _judge_doubtful(case)
    return _judge_clean(case)


def _can_settle(case: Case) -> bool:
    """Whether a held chunk no longer needs a person."""
    doubtful = bool(case.hints) or (bool(case.empty) and not case.told_apart)
    return not doubtful and not case.elsewhere and case.may_resend


def _judge_doubtful(case: Case) -> Finding:
    """Some candidates have ended without results that would tell whose they are; those may come late."""
    since = case.began if case.signs.doubtful_since is None else case.signs.doubtful_since
    signs = Signs(doubtful_since=since)
    for each in (signs, *(case.rivals if case.told_apart else ())):
        if each.doubtful_since is None or case.began - each.doubtful_since < case.settle_s:
            return Wait(max(case.settle_s / 2, FIRST_LOOK_S), signs)
    if case.told_apart:
        return Adopt(case.empty[0], "as many failed jobs without results as chunks without a job")
    return Hold(f"these jobs may be this chunk's: {', '.join(job.id for job in (case.hints + case.empty)[:5])}")


def _judge_clean(case: Case) -> Finding:
    """No job in the listing can be the chunk's. A second listing, a settle time after the first, proves it."""
    clean_at = case.signs.clean_at
    if case.began < case.not_before:
        return Wait(case.not_before - case.began, Signs(clean_at=clean_at))
    if clean_at is None:
        return Wait(case.settle_s, Signs(clean_at=case.began))
    if case.began - clean_at < case.settle_s:
        return Wait(clean_at + case.settle_s - case.began, Signs(clean_at=clean_at))
    if case.elsewhere:
        return Hold("the API lists nothing of the project that this manifest's jobs are in: another key?")
    if case.accepted:
        return Hold("the API accepted the call in words that cannot be read, and lists no such job")
    if not case.may_resend:
        return Hold(f"sent {case.resends + 1} times, and the API lists no job of any of these calls")
    if not case.sending:
        return SetAside("the API lists no job of its call, and this run may send nothing more")
    return Absent(f"two complete listings, {case.settle_s:g} s apart, have no job of this chunk")


def one_each(
    empty: Sequence[RemoteJob], marks: Collection[str | None], *, nameless: Collection[str], others: bool
) -> bool:
    """Whether *empty*, ended jobs without results, are one each of the chunks whose calls left at *marks*.

    Then it makes no difference which job is whose. *nameless*: ended jobs whose results name no file. *others*: some
    other chunk, one that a person had sent again for example, may be the true owner of a job.
    """
    statuses = {job.status for job in empty}
    newest = max((mark for mark in marks if mark and time_of(mark)), default=None)
    return (
        len(marks) == len(empty)
        and not others
        and len(statuses) == 1
        and JobStatus.SUCCEEDED not in statuses
        and (len(empty) == 1 or not any(job.id in nameless for job in empty))
        and all(may_be_after(job, newest) for job in empty)
    )


def may_be_after(job: RemoteJob, mark: str | None) -> bool:
    """Whether a call that left when *mark* was the newest time in the listing may have made *job*."""
    newest = time_of(mark) if mark else None  # an earlier version kept whatever the API said
    return newest is None or job.created_at is None or job.created_at >= newest - SLACK
