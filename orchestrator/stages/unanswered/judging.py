"""The judge of an unanswered create call that no job was proved to come from, by one complete listing. Pure.

``judge`` takes a ``Case``, everything that is known, and returns a finding; the reconciler carries it out. Times are
monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
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

#: Why a job is adopted.
WHOLE = "its results are of this chunk's files"
#: Why a job is adopted whose files are not just the chunk's. That is never done in silence.
PARTLY = "its results are of some of this chunk's files, or of all and of others, and no job of just these files came"
ELSEWHERE = "the API lists nothing of the project that this manifest's jobs are in: another key?"
#: Why nothing follows from a listing.
VANISHED = "other create calls were answered with jobs that the API lists no more, and one may be this chunk's"
UNSHOWN = "the API lists no job of this call, nor the jobs that this ledger knows from about then: that proves nothing"


@dataclass(frozen=True, slots=True)
class Signs:
    """The signs that the listings have shown for a chunk so far."""

    clean_at: float | None = None  #: start of the first listing in a row without a candidate
    doubtful_since: float | None = None  #: start of the first in a row whose ended candidates prove nothing
    blind_since: float | None = None  #: start of the first in a row without a candidate, and without a known job
    awaited: frozenset[str] | None = None  #: the jobs that were in flight when nothing else was to be waited for


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
    unread: bool = False  #: some ended candidate's results are yet to be read
    why_unread: str = ""  #: why one can't be read; empty where all can
    proven: tuple[RemoteJob, ...] = ()  #: candidates with results of just its files
    lacking: bool = False  #: sent more than once, and the first of *proven* has no good answer for some file
    partial: tuple[RemoteJob, ...] = ()  #: candidates with results of some of its files only, or of all and of others
    late: tuple[RemoteJob, ...] = ()  #: other candidates than the best that have succeeded and may show more results
    shared: bool = False  #: sent more than once, and others have good results of its files that the best lacks
    named: frozenset[str] = frozenset()  #: jobs in flight; later calls were answered with them, perhaps by mistake
    vanished: frozenset[str] = frozenset()  #: jobs that are not listed; later calls were answered with them by mistake
    in_flight: frozenset[str] = frozenset()  #: all jobs in flight: a call answered with one may have made another
    hints: tuple[RemoteJob, ...] = ()  #: other candidates with results of some of the chunk's files
    rivals: tuple[Signs, ...] = ()  #: of the other chunks that a job in *empty* may be of
    one_each: bool = False  #: *empty* are as many as these chunks, and no job can be of any other: see ``one_each``
    elsewhere: bool = False  #: the listing seems to be of another project than the ledger's jobs
    shown: bool = True  #: the listing shows the jobs that the ledger knows from just before and just after the call
    calls_out: bool = False  #: other create calls are under way: their jobs may be what the listing is checked by
    held: bool = False  #: waits for a person already
    accepted: bool = False  #: the API said yes, in words that cannot be read
    words: str | None = None  #: what is known of that answer
    resends: int = 0
    eased: bool = False  #: what failed the call is not known to fail every create call of this run
    sending: bool = True  #: the run may still send

    @property
    def told_apart(self) -> bool:
        """Whether the chunk may have any job in *empty*, as it makes no difference which is whose."""
        return bool(self.empty) and not (self.hints or self.partial) and self.one_each

    @property
    def blank(self) -> list[RemoteJob]:
        """Candidates that have succeeded and show no results yet: those may come late."""
        return [job for job in self.empty if job.status is JobStatus.SUCCEEDED]

    @property
    def patience_s(self) -> float:
        """How long a candidate may run before a person decides; who is held already waits only for a short one."""
        return min(self.stale_s, 5 * self.settle_s) if self.held else self.stale_s

    @property
    def patient(self) -> bool:
        """Whether that time is not over."""
        return self.began - self.taken_up <= self.patience_s

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
    """Return what to do with the chunk. It is sent again only when two listings prove that its call made no job."""
    if case.proven:
        return _judge_proven(case)
    if case.held and not _can_settle(case):
        return StayHeld()
    if case.running and not case.patient:
        return _hold(case, _overdue(case, _ids(case.running)))
    if case.unread and not case.why_unread:
        return Wait(0.0, case.signs)
    if case.running:
        return Wait(min(case.look_s * LOOK_GROWTH, LAST_LOOK_S), Signs())
    if case.why_unread:
        return _hold(case, case.why_unread)
    if case.empty or case.hints or case.partial:
        return _judge_doubtful(case)
    return _judge_clean(case)


def pause_s(settle_s: float) -> float:
    """How long to wait for what nothing but a later listing can tell."""
    return max(settle_s / 2, FIRST_LOOK_S)


def _ids(jobs: Sequence[RemoteJob]) -> list[str]:
    return [job.id for job in jobs]


def _few(job_ids: Sequence[str]) -> str:
    """*job_ids* for a person: the first few of them."""
    return ", ".join(job_ids[:5]) + (f" and {len(job_ids) - 5} more" if len(job_ids) > 5 else "")


def _overdue(case: Case, job_ids: Sequence[str], what: str = "not ended") -> str:
    return f"{what} for over {case.patience_s:g} s, and may be this chunk's: {_few(job_ids)}"


def _undecided(case: Case) -> str | None:
    """Why the best candidate is not adopted yet: another one may have good results that it lacks, or has them."""
    if case.blank:
        return _overdue(case, _ids(case.blank), "ended without results")
    if not case.shared:
        return None
    jobs = _few(_ids(case.proven + case.partial))
    return f"none of these jobs of this chunk has all the good results that they have together: {jobs}"


def _hold(case: Case, why: str) -> Finding:
    return StayHeld() if case.held else Hold(why)


def _can_settle(case: Case) -> bool:
    """Whether a held chunk may no longer need a person."""
    if case.running or case.unread or case.blank:
        return True
    if case.hints or (case.empty and not (case.partial or case.told_apart)):
        return False
    return bool(case.partial) or (not (case.elsewhere or case.vanished) and case.may_resend)


def _judge_proven(case: Case) -> Finding:
    """A job is the chunk's. Of one that was sent again, another job may have good answers that this one lacks."""
    if case.lacking:
        late = (*case.running, *case.late)
        if case.patient and (late or case.named or case.began < case.not_before):
            return Wait(pause_s(case.settle_s), case.signs)
        running = _overdue(case, _ids(case.running)) if case.running else None
        if why := running or _undecided(case):
            return Hold(why)
    return Adopt(case.proven[0], WHOLE)


def _judge_doubtful(case: Case) -> Finding:
    """Some candidates have ended without results that would show whose they are; those may come late."""
    since = case.began if case.signs.doubtful_since is None else case.signs.doubtful_since
    signs = Signs(doubtful_since=since, awaited=case.signs.awaited)
    for each in (signs, *(case.rivals if case.told_apart and not case.partial else ())):
        if each.doubtful_since is None or case.began - each.doubtful_since < case.settle_s:
            return Wait(pause_s(case.settle_s), signs)
    partly = bool(case.partial) and not case.hints
    if partly or case.told_apart:
        signs = _awaiting(case, signs)
        if left := _left(signs, case.named if partly else case.named | case.in_flight):
            return _await_results(case, left, signs)
    if partly and case.late and case.patient:
        return Wait(pause_s(case.settle_s), signs)
    if partly and (why := _undecided(case)):
        return Hold(why)
    if partly:
        return Adopt(case.partial[0], PARTLY)
    if case.told_apart:
        return Adopt(case.empty[0], "as many failed jobs without results as chunks without a job")
    if case.elsewhere:
        return _hold(case, ELSEWHERE)
    return _hold(case, f"these jobs may be this chunk's: {_few(_ids(case.hints + case.partial + case.empty))}")


def _judge_clean(case: Case) -> Finding:
    """No job in the listing can be the chunk's. A second listing, a settle time after the first, proves it."""
    if not (case.shown or case.elsewhere):
        return _judge_blind(case)
    clean_at = case.signs.clean_at
    if case.began < case.not_before:
        return Wait(case.not_before - case.began, Signs(clean_at=clean_at))
    if clean_at is None:
        return Wait(case.settle_s, Signs(clean_at=case.began))
    if case.began - clean_at < case.settle_s:
        return Wait(clean_at + case.settle_s - case.began, Signs(clean_at=clean_at))
    if case.elsewhere:
        return Hold(ELSEWHERE)
    signs = _awaiting(case, Signs(clean_at=clean_at, awaited=case.signs.awaited))
    if left := _left(signs, case.named):
        return _await_results(case, left, signs)
    if case.vanished:
        return Hold(f"{VANISHED}: {_few(sorted(case.vanished))}")
    if case.accepted:
        return Hold(_accepted(case))
    if not case.may_resend:
        return Hold(f"sent {case.resends + 1} times, and the API lists no job of any of these calls")
    if not case.sending:
        return SetAside("the API lists no job of its call, and this run may send nothing more")
    return Absent(f"two complete listings, {case.settle_s:g} s apart, have no job of this chunk")


def _awaiting(case: Case, signs: Signs) -> Signs:
    """*signs* with the jobs that are in flight now, if they are without: those made later are none of this chunk's."""
    return signs if signs.awaited is not None else replace(signs, awaited=case.named | case.in_flight)


def _left(signs: Signs, in_flight: frozenset[str]) -> list[str]:
    """The jobs of *in_flight* that are waited for."""
    return sorted(in_flight & (signs.awaited or frozenset()))


def _await_results(case: Case, left: Sequence[str], signs: Signs) -> Finding:
    """What jobs that other calls were answered with come to will tell whose they are; one may be the chunk's."""
    if not case.patient:
        return _hold(case, _overdue(case, left))
    return Wait(pause_s(case.settle_s), signs)


def _judge_blind(case: Case) -> Finding:
    """The listing shows nothing that may be the chunk's, nor what it would have to show: it proves nothing."""
    since = case.began if case.signs.blind_since is None else case.signs.blind_since
    left_s = max(since + case.settle_s, case.not_before) - case.began
    if left_s > 0 or case.calls_out:
        return Wait(left_s if left_s > 0 else pause_s(case.settle_s), Signs(blind_since=since))
    return _hold(case, _accepted(case) if case.accepted else UNSHOWN)


def _accepted(case: Case) -> str:
    """Why a chunk is held whose call the API accepted."""
    if case.words is None:
        return "the API accepted the call in words that cannot be read, and lists no such job"
    return f"{case.words}; and the API lists no job of just these files"


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


def is_borne_out(mark: str | None, since: Collection[RemoteJob]) -> bool:
    """Whether jobs made after *mark* was taken are dated after it: then the mark separates older jobs from later ones.

    Nobody's clock is believed: somebody's job may be dated ahead, and the API's clock may be put back.
    """
    dated = [job for job in since if job.created_at is not None]
    return bool(dated) and all(may_be_after(job, mark) for job in dated)
