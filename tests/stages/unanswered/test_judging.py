"""The judge of an unanswered create call: every finding, and what it takes to come to it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.models import JobStatus, RemoteJob
from orchestrator.stages.unanswered.judging import (
    LAST_LOOK_S,
    MAX_RESENDS,
    PARTLY,
    SLACK,
    UNSHOWN,
    VANISHED,
    WHOLE,
    Absent,
    Adopt,
    Case,
    Finding,
    Hold,
    SetAside,
    Signs,
    StayHeld,
    Wait,
    is_borne_out,
    judge,
    may_be_after,
    one_each,
)

RUNNING = RemoteJob("running", JobStatus.SUBMITTED, "PENDING")
FAILED = RemoteJob("failed", JobStatus.FAILED, "ERROR")
MIXED = RemoteJob("mixed", JobStatus.SUCCEEDED, "SUCCESS")
BLANK = replace(MIXED, id="blank")

#: Nothing like it is listed, for the second time, a settle time after the first.
CLEAN = Case(
    began=200.0,
    taken_up=100.0,
    not_before=160.0,
    settle_s=60.0,
    stale_s=3600.0,
    look_s=4.0,
    signs=Signs(clean_at=140.0),
    eased=True,
)
ABSENT = Absent("two complete listings, 60 s apart, have no job of this chunk")

#: An ended job without results may be its own, and has had a settle time to show some.
DOUBTFUL = replace(CLEAN, signs=Signs(doubtful_since=140.0), empty=(FAILED,))
#: There are as many such jobs as chunks that they may be of.
TOLD_APART = replace(DOUBTFUL, one_each=True)

#: A job that a call was answered with, perhaps by mistake.
IN_FLIGHT = frozenset({"running"})

STALE = Hold("not ended for over 3600 s, and may be this chunk's: running")
LATE = Wait(30.0, Signs(doubtful_since=140.0, awaited=frozenset()))
OWN = Adopt(MIXED, WHOLE)
ONE_EACH = Adopt(FAILED, "as many failed jobs without results as chunks without a job")

CASES: dict[str, tuple[Case, Finding]] = {
    "two clean listings prove absence": (CLEAN, ABSENT),
    "the first clean listing begins the settle time": (
        replace(CLEAN, signs=Signs()),
        Wait(60.0, Signs(clean_at=200.0)),
    ),
    "a job that is listed no more and was some call's answer may be its own": (
        replace(CLEAN, vanished=frozenset({"z", "a"})),
        Hold(f"{VANISHED}: a, z"),
    ),
    "held, and it still may": (replace(CLEAN, held=True, vanished=IN_FLIGHT), StayHeld()),
    "the second has to be a settle time later": (
        replace(CLEAN, signs=Signs(clean_at=150.0)),
        Wait(10.0, Signs(clean_at=150.0)),
    ),
    "a listing too soon after the call proves nothing": (
        replace(CLEAN, not_before=230.0),
        Wait(30.0, Signs(clean_at=140.0)),
    ),
    "a clean listing ends a doubt": (
        replace(CLEAN, signs=Signs(doubtful_since=190.0)),
        Wait(60.0, Signs(clean_at=200.0)),
    ),
    "another project's listing proves nothing": (
        replace(CLEAN, elsewhere=True),
        Hold("the API lists nothing of the project that this manifest's jobs are in: another key?"),
    ),
    "a call that the API accepted is never sent again": (
        replace(CLEAN, accepted=True),
        Hold("the API accepted the call in words that cannot be read, and lists no such job"),
    ),
    "where every call fails, one resend is enough": (
        replace(CLEAN, eased=False, resends=1),
        Hold("sent 2 times, and the API lists no job of any of these calls"),
    ),
    "where others succeed, there may be more": (replace(CLEAN, resends=MAX_RESENDS - 1), ABSENT),
    "but not for ever": (
        replace(CLEAN, resends=MAX_RESENDS),
        Hold(f"sent {MAX_RESENDS + 1} times, and the API lists no job of any of these calls"),
    ),
    "a run that may not send leaves it to the next": (
        replace(CLEAN, sending=False),
        SetAside("the API lists no job of its call, and this run may send nothing more"),
    ),
    "a job in flight that a later call was answered with may be its own": (
        replace(CLEAN, named=IN_FLIGHT),
        Wait(30.0, Signs(clean_at=140.0, awaited=IN_FLIGHT)),
    ),
    "that too is waited for only so long": (replace(CLEAN, began=3701.0, named=IN_FLIGHT), STALE),
    "to the very second": (
        replace(CLEAN, began=3700.0, named=IN_FLIGHT),
        Wait(30.0, Signs(clean_at=140.0, awaited=IN_FLIGHT)),
    ),
    "one that came later is not": (
        replace(CLEAN, named=IN_FLIGHT, signs=Signs(clean_at=140.0, awaited=frozenset({"ended"}))),
        ABSENT,
    ),
    "nor one that is just in flight": (replace(CLEAN, in_flight=IN_FLIGHT), ABSENT),
    "a candidate that runs is waited for, ever more patiently": (
        replace(CLEAN, running=(RUNNING,)),
        Wait(6.0, Signs()),
    ),
    "but is looked at now and then": (replace(CLEAN, running=(RUNNING,), look_s=14.0), Wait(LAST_LOOK_S, Signs())),
    "a running candidate comes before one that has ended": (
        replace(DOUBTFUL, running=(RUNNING,)),
        Wait(6.0, Signs()),
    ),
    "it is waited for only so long": (replace(CLEAN, began=3701.0, running=(RUNNING,)), STALE),
    "held, it is waited for a short time": (
        replace(CLEAN, held=True, began=400.0, running=(RUNNING,)),
        Wait(6.0, Signs()),
    ),
    "and not an hour": (replace(CLEAN, held=True, began=401.0, running=(RUNNING,)), StayHeld()),
    "what is yet to be read is read first": (
        replace(DOUBTFUL, unread=True, running=(RUNNING,)),
        Wait(0.0, Signs(doubtful_since=140.0)),
    ),
    "what can't be read is for a person": (
        replace(CLEAN, unread=True, why_unread="500"),
        Hold("500"),
    ),
    "held, and it still can't be read": (replace(CLEAN, held=True, unread=True, why_unread="500"), StayHeld()),
    "but a candidate that runs may settle it": (
        replace(CLEAN, unread=True, why_unread="500", running=(RUNNING,)),
        Wait(6.0, Signs()),
    ),
    "and one that is proved does": (replace(CLEAN, unread=True, why_unread="500", proven=(MIXED,)), OWN),
    "a listing without the jobs that are known proves nothing": (
        replace(CLEAN, shown=False),
        Wait(60.0, Signs(blind_since=200.0)),
    ),
    "nor do two of them": (replace(CLEAN, shown=False, signs=Signs(blind_since=140.0)), Hold(UNSHOWN)),
    "unless calls are out whose jobs may show it to be whole": (
        replace(CLEAN, shown=False, signs=Signs(blind_since=140.0), calls_out=True),
        Wait(30.0, Signs(blind_since=140.0)),
    ),
    "nor one too soon after the call": (
        replace(CLEAN, shown=False, signs=Signs(blind_since=140.0), not_before=230.0),
        Wait(30.0, Signs(blind_since=140.0)),
    ),
    "a listing that shows them begins the proof": (
        replace(CLEAN, signs=Signs(blind_since=140.0)),
        Wait(60.0, Signs(clean_at=200.0)),
    ),
    "held, and still nothing known is shown": (
        replace(CLEAN, held=True, shown=False, signs=Signs(blind_since=140.0)),
        StayHeld(),
    ),
    "results of some of its files only may become more": (
        replace(CLEAN, partial=(MIXED,)),
        Wait(30.0, Signs(doubtful_since=200.0)),
    ),
    "and are its own when they do not": (replace(DOUBTFUL, empty=(), partial=(MIXED,)), Adopt(MIXED, PARTLY)),
    "also beside failed jobs": (replace(TOLD_APART, partial=(MIXED,)), Adopt(MIXED, PARTLY)),
    "but not beside a hint": (
        replace(DOUBTFUL, empty=(), partial=(MIXED,), hints=(FAILED,)),
        Hold("these jobs may be this chunk's: failed, mixed"),
    ),
    "held, and now in part": (replace(DOUBTFUL, empty=(), held=True, partial=(MIXED,)), Adopt(MIXED, PARTLY)),
    "what was answered is told": (
        replace(CLEAN, accepted=True, words="the API answered with job x"),
        Hold("the API answered with job x; and the API lists no job of just these files"),
    ),
    "also where nothing known is shown": (
        replace(CLEAN, accepted=True, words="odd", shown=False, signs=Signs(blind_since=140.0)),
        Hold("odd; and the API lists no job of just these files"),
    ),
    "an ended candidate without results begins a doubt": (
        replace(DOUBTFUL, signs=Signs(clean_at=140.0)),
        Wait(30.0, Signs(doubtful_since=200.0)),
    ),
    "its results may be late": (
        replace(DOUBTFUL, signs=Signs(doubtful_since=150.0)),
        Wait(30.0, Signs(doubtful_since=150.0)),
    ),
    "and if they do not come, a person decides": (DOUBTFUL, Hold("these jobs may be this chunk's: failed")),
    "results of some of its files are a doubt too": (
        replace(DOUBTFUL, hints=(MIXED,), one_each=True),
        Hold("these jobs may be this chunk's: mixed, failed"),
    ),
    "one job for each chunk: it makes no difference which": (TOLD_APART, ONE_EACH),
    "while another call was answered with what may be its own, it does": (
        replace(TOLD_APART, named=IN_FLIGHT),
        Wait(30.0, Signs(doubtful_since=140.0, awaited=IN_FLIGHT)),
    ),
    "or with any job: the call may have made another": (
        replace(TOLD_APART, in_flight=IN_FLIGHT),
        Wait(30.0, Signs(doubtful_since=140.0, awaited=IN_FLIGHT)),
    ),
    "which is waited for only so long": (replace(TOLD_APART, began=3701.0, in_flight=IN_FLIGHT), STALE),
    "and not when it came later": (
        replace(TOLD_APART, in_flight=IN_FLIGHT, signs=Signs(doubtful_since=140.0, awaited=frozenset())),
        ONE_EACH,
    ),
    "results of some of its files wait for one of just these": (
        replace(DOUBTFUL, partial=(MIXED,), named=IN_FLIGHT, in_flight=frozenset({"other"})),
        Wait(30.0, Signs(doubtful_since=140.0, awaited=IN_FLIGHT | {"other"})),
    ),
    "but not for what no later call was answered with": (
        replace(DOUBTFUL, partial=(MIXED,), in_flight=IN_FLIGHT),
        Adopt(MIXED, PARTLY),
    ),
    "as soon as the rivals have waited too": (
        replace(TOLD_APART, rivals=(Signs(doubtful_since=150.0),)),
        Wait(30.0, Signs(doubtful_since=140.0)),
    ),
    "a rival that has shown no doubt yet is waited for": (
        replace(TOLD_APART, rivals=(Signs(clean_at=100.0),)),
        Wait(30.0, Signs(doubtful_since=140.0)),
    ),
    "proof of absence begins with the very second from which it counts": (replace(CLEAN, not_before=200.0), ABSENT),
    "many jobs are named only in part": (
        replace(DOUBTFUL, empty=tuple(replace(FAILED, id=f"j{n}") for n in range(7))),
        Hold("these jobs may be this chunk's: j0, j1, j2, j3, j4 and 2 more"),
    ),
    "five are named": (
        replace(DOUBTFUL, empty=tuple(replace(FAILED, id=f"j{n}") for n in range(5))),
        Hold("these jobs may be this chunk's: j0, j1, j2, j3, j4"),
    ),
    "six are one more": (
        replace(DOUBTFUL, empty=tuple(replace(FAILED, id=f"j{n}") for n in range(6))),
        Hold("these jobs may be this chunk's: j0, j1, j2, j3, j4 and 1 more"),
    ),
    "the first of several partial jobs is taken": (
        replace(DOUBTFUL, empty=(), partial=(MIXED, FAILED)),
        Adopt(MIXED, PARTLY),
    ),
    "a job of several calls that may show more is waited for": (
        replace(DOUBTFUL, partial=(MIXED, FAILED), late=(FAILED,)),
        LATE,
    ),
    "just so long": (replace(DOUBTFUL, began=3700.0, partial=(MIXED,), late=(FAILED,)), LATE),
    "and no longer": (
        replace(DOUBTFUL, empty=(), began=3701.0, partial=(MIXED, FAILED), late=(FAILED,)),
        Adopt(MIXED, PARTLY),
    ),
    "of a held chunk only a short time": (
        replace(DOUBTFUL, empty=(), held=True, began=401.0, partial=(MIXED, FAILED), late=(FAILED,)),
        Adopt(MIXED, PARTLY),
    ),
    "one that has shown nothing at all may be its own": (
        replace(DOUBTFUL, empty=(BLANK,), began=3701.0, partial=(MIXED, FAILED), late=(BLANK, FAILED)),
        Hold("ended without results for over 3600 s, and may be this chunk's: blank"),
    ),
    "jobs of several calls with good results of their own each are left to a person": (
        replace(DOUBTFUL, empty=(), partial=(MIXED, FAILED), shared=True),
        Hold("none of these jobs of this chunk has all the good results that they have together: mixed, failed"),
    ),
    "held, and they still are": (
        replace(DOUBTFUL, empty=(), held=True, partial=(MIXED, FAILED), shared=True),
        Hold("none of these jobs of this chunk has all the good results that they have together: mixed, failed"),
    ),
    "the first of several jobs that are one each is taken": (
        replace(TOLD_APART, empty=(FAILED, replace(FAILED, id="second"))),
        ONE_EACH,
    ),
    "a partial job waits for no rival": (
        replace(TOLD_APART, partial=(MIXED,), rivals=(Signs(),)),
        Adopt(MIXED, PARTLY),
    ),
    "nor does a job that cannot be told apart": (
        replace(DOUBTFUL, rivals=(Signs(),)),
        Hold("these jobs may be this chunk's: failed"),
    ),
    "held, and what has ended is yet to be read": (
        replace(CLEAN, held=True, resends=MAX_RESENDS, unread=True),
        Wait(0.0, Signs(clean_at=140.0)),
    ),
    "where every call fails, the first resend is allowed": (replace(CLEAN, eased=False), ABSENT),
    "a blind listing just before the settle time ends waits for what is left": (
        replace(CLEAN, shown=False, signs=Signs(blind_since=140.5)),
        Wait(0.5, Signs(blind_since=140.5)),
    ),
    "a short settle time is not looked at more often than a first look": (
        replace(CLEAN, settle_s=0.2, shown=False, signs=Signs(blind_since=140.0), calls_out=True),
        Wait(0.5, Signs(blind_since=140.0)),
    ),
    "nor is a doubt": (
        replace(DOUBTFUL, settle_s=0.2, signs=Signs()),
        Wait(0.5, Signs(doubtful_since=200.0)),
    ),
    "a job of just its files is its own": (replace(DOUBTFUL, proven=(MIXED, BLANK), running=(RUNNING,)), OWN),
    "held, too, whatever else there is": (
        replace(DOUBTFUL, held=True, elsewhere=True, shown=False, proven=(MIXED,), hints=(MIXED,)),
        OWN,
    ),
    "without a good answer for each file it waits for one that runs": (
        replace(CLEAN, proven=(MIXED,), lacking=True, running=(RUNNING,)),
        Wait(30.0, CLEAN.signs),
    ),
    "and for one that may show more": (
        replace(CLEAN, began=3700.0, proven=(MIXED,), lacking=True, late=(BLANK,)),
        Wait(30.0, CLEAN.signs),
    ),
    "and for one that another call was answered with": (
        replace(CLEAN, proven=(MIXED,), lacking=True, named=IN_FLIGHT),
        Wait(30.0, CLEAN.signs),
    ),
    "and for one that may not be listed yet": (
        replace(CLEAN, proven=(MIXED,), lacking=True, not_before=200.5),
        Wait(30.0, CLEAN.signs),
    ),
    "and counts if no other can come": (replace(CLEAN, proven=(MIXED,), lacking=True, not_before=200.0), OWN),
    "one that runs for long leaves it to a person": (
        replace(CLEAN, began=3701.0, proven=(MIXED,), lacking=True, running=(RUNNING,), late=(BLANK,)),
        STALE,
    ),
    "so does one that shows nothing": (
        replace(CLEAN, began=3701.0, proven=(MIXED,), lacking=True, late=(BLANK, FAILED), empty=(BLANK,)),
        Hold("ended without results for over 3600 s, and may be this chunk's: blank"),
    ),
    "but not one that shows some, nor one in flight": (
        replace(CLEAN, began=3701.0, proven=(MIXED,), lacking=True, late=(BLANK,), named=IN_FLIGHT),
        OWN,
    ),
    "so do others with the good answers that it lacks": (
        replace(CLEAN, proven=(MIXED, BLANK), partial=(FAILED,), lacking=True, shared=True),
        Hold("none of these jobs of this chunk has all the good results that they have together: mixed, blank, failed"),
    ),
    "held, and still doubtful": (replace(DOUBTFUL, held=True), StayHeld()),
    "held, and one has just succeeded, whose results may come": (
        replace(CLEAN, held=True, empty=(BLANK,), late=(BLANK,)),
        Wait(30.0, Signs(doubtful_since=200.0)),
    ),
    "held, and they have not come": (replace(DOUBTFUL, held=True, empty=(BLANK,), late=(BLANK,)), StayHeld()),
    "held, and some results are of its files": (replace(CLEAN, held=True, hints=(MIXED,)), StayHeld()),
    "held, and the listing is of another project": (replace(CLEAN, held=True, elsewhere=True), StayHeld()),
    "held, and accepted": (replace(CLEAN, held=True, accepted=True), StayHeld()),
    "held, and sent too often": (replace(CLEAN, held=True, resends=MAX_RESENDS), StayHeld()),
    "held, and now proved absent": (replace(CLEAN, held=True), ABSENT),
    "held, and now told apart": (replace(TOLD_APART, held=True), ONE_EACH),
}


@pytest.mark.parametrize("name", CASES)
def test_each_finding(name: str) -> None:
    """One row for each way to a finding."""
    case, finding = CASES[name]
    assert judge(case) == finding


TIMES = st.floats(0, 1000)
JOBS = st.lists(st.sampled_from([FAILED, MIXED]), max_size=2).map(tuple)


@given(
    st.builds(
        Case,
        began=TIMES,
        taken_up=TIMES,
        not_before=TIMES,
        settle_s=st.just(60.0),
        stale_s=st.sampled_from([100.0, 3600.0]),
        look_s=st.just(1.0),
        signs=st.builds(Signs, st.none() | TIMES, st.none() | TIMES),
        running=st.sampled_from([(), (RUNNING,)]),
        empty=JOBS,
        hints=JOBS,
        partial=JOBS,
        unread=st.booleans(),
        shown=st.booleans(),
        resends=st.integers(0, 4),
    )
)
def test_absence_always_takes_two_clean_listings(case: Case) -> None:
    """Whatever else is known: no candidate, two listings a settle time apart, and a resend left."""
    if isinstance(judge(case), Absent):
        assert not (case.running or case.empty or case.hints or case.elsewhere or case.accepted)
        assert case.shown and not (case.partial or case.unread)
        assert case.signs.clean_at is not None
        assert case.began - case.signs.clean_at >= case.settle_s
        assert case.began >= case.not_before
        assert case.resends < (MAX_RESENDS if case.eased else 1)
        assert case.sending


MARK = "2026-01-02T03:00:00+00:00"


@pytest.mark.parametrize(
    ("empty", "marks", "nameless", "others", "expected"),
    [
        ([FAILED], [None], (), False, True),
        ([FAILED, replace(FAILED, id="second")], [None, MARK], (), False, True),
        ([FAILED], [None, None], (), False, False),
        ([FAILED, replace(FAILED, id="second")], [None], (), False, False),
        ([FAILED], [None], (), True, False),
        ([MIXED], [None], (), False, False),
        ([FAILED, replace(FAILED, id="second", status=JobStatus.CANCELLED)], [None, None], (), False, False),
        ([FAILED], [None], ("failed",), False, True),
        ([FAILED, replace(FAILED, id="second")], [None, None], ("failed",), False, False),
        ([replace(FAILED, created_at=datetime(2026, 1, 1, tzinfo=UTC))], [MARK], (), False, False),
    ],
    ids=[
        "one and one",
        "two and two",
        "a chunk too many",
        "a job too many",
        "another chunk may own one",
        "one that succeeded shows results some day",
        "they ended differently",
        "its results name no file",
        "one of two names no file",
        "older than the calls",
    ],
)
def test_when_jobs_are_one_each(
    empty: list[RemoteJob], marks: list[str | None], nameless: tuple[str, ...], others: bool, expected: bool
) -> None:
    """Only failed jobs that end alike, as many as the chunks, with no other possible owner."""
    assert one_each(empty, marks, nameless=nameless, others=others) is expected


def test_a_job_from_before_the_call_is_not_its_own() -> None:
    """The clocks of one service differ by a little, so a little earlier still counts."""
    marked = datetime.fromisoformat(MARK)
    assert timedelta(minutes=10) == SLACK
    assert may_be_after(replace(FAILED, created_at=marked - SLACK), MARK)
    assert not may_be_after(replace(FAILED, created_at=marked - SLACK - timedelta(seconds=1)), MARK)
    assert may_be_after(FAILED, MARK)
    assert may_be_after(replace(FAILED, created_at=marked), None)


def test_a_mark_counts_where_later_jobs_bear_it_out() -> None:
    """A clock that was put back, or somebody's job dated ahead, makes all later ones seem older."""
    marked = datetime.fromisoformat(MARK)
    later, older = (replace(FAILED, created_at=marked + timedelta(hours=hours)) for hours in (1, -1))
    assert is_borne_out(MARK, [later])
    assert not is_borne_out(MARK, [later, older])
    assert not is_borne_out(MARK, [FAILED])
    assert not is_borne_out(MARK, [])


def test_the_numbers_of_the_judge() -> None:
    """A call is sent again three times at most, and a running candidate is looked at every 15 s at least."""
    assert MAX_RESENDS == 3
    assert LAST_LOOK_S == 15


def test_by_default_a_chunk_was_never_resent_and_nothing_is_known_to_be_an_accident() -> None:
    """The careful reading: one resend, and no more."""
    case = Case(began=0.0, taken_up=0.0, not_before=0.0, settle_s=1.0, stale_s=1.0, look_s=1.0)
    assert (case.resends, case.may_resend) == (0, True)
    assert not replace(case, resends=1).may_resend
