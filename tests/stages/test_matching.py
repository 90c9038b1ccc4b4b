"""An ended job's answer becomes exactly one outcome for each of its files, whatever the answer is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import ContractBroken
from orchestrator.models import GOOD, TERMINAL, Chunk, Config, FileResult, JobResults, JobStatus, Outcome, RemoteJob
from orchestrator.stages.matching import WITHOUT_ROW, collect, collect_chunk

TYPES = ("invoice", "receipt")
WORDS = {
    JobStatus.SUCCEEDED: "SUCCESS",
    JobStatus.FAILED: "ERROR",
    JobStatus.CANCELLED: "CANCELLED",
}


def ended(status: JobStatus = JobStatus.SUCCEEDED, error: str | None = None) -> RemoteJob:
    return RemoteJob("job-1", status, WORDS[status], error=error)


def row(file_id: str, label: str | None = "invoice", confidence: float | None = 0.9) -> FileResult:
    outcome = Outcome.UNMATCHED if label is None else Outcome.CLASSIFIED
    return FileResult(file_id, outcome, label, confidence, "because")


def no_result(file_id: str) -> FileResult:
    return FileResult(file_id, Outcome.FAILED, error="the API gave no result for this file")


IDS = st.sampled_from([f"f{n}" for n in range(12)])
ROWS = st.lists(
    st.builds(row, IDS, st.sampled_from(["invoice", "receipt", "unknown", None]), st.sampled_from([0.1, 0.9, None]))
    | st.builds(no_result, IDS),
    max_size=20,
)


@given(st.lists(IDS, unique=True, min_size=1), ROWS, st.sampled_from(sorted(TERMINAL)))
def test_every_file_has_exactly_one_result(file_ids: list[str], rows: list[FileResult], status: JobStatus) -> None:
    """In the chunk's order; a file that was not sent has none, and no result is made up."""
    try:
        collected = collect(file_ids, TYPES, ended(status), JobResults(tuple(rows)))
    except ContractBroken:
        assert rows
        assert not {found.file_id for found in rows} & set(file_ids)
        return
    assert [result.file_id for result in collected.results] == file_ids
    for result in collected.results:
        given_rows = {found for found in rows if found.file_id == result.file_id}
        if len(given_rows) == 1:
            assert given_rows == {result}
        elif given_rows:
            good = {(found.outcome, found.type, found.confidence) for found in given_rows if found.outcome in GOOD}
            kept = (result.outcome, result.type, result.confidence)
            assert {kept} == good if len(good) == 1 else result.outcome is Outcome.FAILED
        else:
            assert result.outcome is WITHOUT_ROW[status]
            assert result.error


@given(st.lists(IDS, unique=True, min_size=1), ROWS)
def test_the_order_of_rows_does_not_matter(file_ids: list[str], rows: list[FileResult]) -> None:
    """The API promises none."""

    def outcomes(ordered: list[FileResult]) -> object:
        try:
            results = collect(file_ids, TYPES, ended(), JobResults(tuple(ordered))).results
        except ContractBroken:
            return "not ours"
        return [(result.outcome, result.type, result.confidence) for result in results]

    assert outcomes(rows) == outcomes(rows[::-1]) == outcomes(sorted(rows, key=repr))


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (JobStatus.SUCCEEDED, Outcome.MISSING),
        (JobStatus.FAILED, Outcome.FAILED),
        (JobStatus.CANCELLED, Outcome.CANCELLED),
    ],
)
def test_a_file_without_a_row_ends_as_its_job(status: JobStatus, outcome: Outcome) -> None:
    """With the API's words, or else with ours."""
    silent, told = (
        collect(["a", "b"], TYPES, ended(status, error), JobResults((row("a"),))).results for error in (None, "broken")
    )
    assert silent[0] == told[0] == row("a")
    assert (silent[1].outcome, told[1].outcome) == (outcome, outcome)
    assert silent[1].error
    assert told[1].error == "broken"


def test_the_good_rows_of_a_failed_job_count() -> None:
    """They were paid for."""
    collected = collect(["a", "b"], TYPES, ended(JobStatus.FAILED), JobResults((row("a"),)))
    assert [result.outcome for result in collected.results] == [Outcome.CLASSIFIED, Outcome.FAILED]


def test_only_missing_files_are_asked_about_again() -> None:
    """A failed file has a row; a missing one may get it yet."""
    answer = JobResults((row("a"), no_result("b")))
    assert collect(["a", "b", "c"], TYPES, ended(), answer).without_row == ("c",)


def test_the_same_row_twice_is_one_result() -> None:
    """Nothing is odd about it."""
    collected = collect(["a"], TYPES, ended(), JobResults((row("a"), row("a"))))
    assert (collected.results, collected.oddities) == ((row("a"),), ())


def test_a_row_without_a_result_does_not_undo_a_good_one() -> None:
    """Nor do other words for the same answer; that there were two is noted."""
    wordy = replace(row("a"), reasoning="in other words")
    for rows in ((row("a"), no_result("a")), (no_result("a"), row("a")), (row("a"), wordy)):
        collected = collect(["a"], TYPES, ended(), JobResults(rows))
        assert collected.results == (row("a"),)
        assert collected.oddities == ("two different results for a",)


def test_a_file_without_a_result_has_the_words_of_its_job() -> None:
    """They say more than that there is no result."""
    job = ended(JobStatus.SUCCEEDED, "PDF_IS_PROTECTED: b.pdf needs a password")
    kept, failed = collect(["a", "b"], TYPES, job, JobResults((row("a"), no_result("b")))).results
    assert (kept, failed.error) == (row("a"), "PDF_IS_PROTECTED: b.pdf needs a password")


def test_two_different_rows_are_no_result() -> None:
    """Neither the first nor the last wins; both are shown."""
    collected = collect(["a"], TYPES, ended(), JobResults((row("a", "invoice", 0.9), row("a", "receipt", 0.4))))
    (result,) = collected.results
    assert (result.outcome, result.type) == (Outcome.FAILED, None)
    assert result.error == "the API gave two different results: invoice 0.9 / receipt 0.4"
    assert collected.oddities == ("two different results for a",)


def test_rows_of_other_files_are_noted() -> None:
    """They are nobody's outcome."""
    collected = collect(["a"], TYPES, ended(), JobResults((row("a"), row("x"), row("y"))))
    assert collected.results == (row("a"),)
    assert collected.oddities == ("results for 2 files that were never sent, such as 'x'",)


def test_rows_of_other_files_only_are_another_job() -> None:
    """Nothing of it may be recorded."""
    with pytest.raises(ContractBroken, match="never sent in it"):
        collect(["a"], TYPES, ended(), JobResults((row("x"),)))


def test_a_row_without_a_name_is_the_only_file_it_can_be_of() -> None:
    """It was paid for; as missing, its file would be bought again."""
    collected = collect(["a", "b"], TYPES, ended(), JobResults((row("a"),), (), (row("", "receipt"),)))
    assert collected.results == (row("a"), row("b", "receipt"))
    assert collected.oddities == ("the row that names no file is taken for that of b, the only file without one",)


@pytest.mark.parametrize(
    ("file_ids", "rows", "nameless"),
    [("abc", "a", 1), ("abc", "a", 2), ("ab", "a", 2), ("ab", "ax", 1), ("a", "a", 1)],
)
def test_where_it_could_be_of_several_it_is_of_none(file_ids: str, rows: str, nameless: int) -> None:
    """Two files, two such rows, or a row of another file: nothing is guessed."""
    answer = JobResults(tuple(map(row, rows)), (), (row("", "receipt"),) * nameless)
    collected = collect(file_ids, TYPES, ended(), answer)
    assert not [result for result in collected.results if result.type == "receipt"]


def test_a_type_that_no_rule_names_is_noted() -> None:
    """It stands, as the API said it; a manifest whose rules the API keeps can't know."""
    answer = JobResults((row("a", "poem"),))
    assert collect(["a"], TYPES, ended(), answer).oddities == ("a type that no rule names: 'poem'",)
    assert collect(["a"], (), ended(), answer).oddities == ()
    assert collect(["a"], TYPES, ended(), answer).results == (row("a", "poem"),)


def test_hostile_text_in_a_remark_is_spelled_out() -> None:
    """Labels and file ids come from outside."""
    answer = JobResults((row("a", "\x1b[2J\n"), row("\x1b]0;x\x07")))
    assert all(odd.isprintable() for odd in collect(["a"], TYPES, ended(), answer).oddities)


def test_what_was_odd_about_rows_is_kept() -> None:
    """The reader's remarks and the collector's are one list."""
    answer = JobResults((row("a"),), ("a result row names no file",))
    assert collect(["a"], TYPES, ended(), answer).oddities == ("a result row names no file",)


@pytest.mark.parametrize("status", [*sorted(set(JobStatus) - TERMINAL), None])
def test_a_job_that_has_not_ended_is_not_collected(status: JobStatus | None) -> None:
    """Unknown is never success."""
    with pytest.raises(ValueError, match="has not ended"):
        collect(["a"], TYPES, RemoteJob("job-1", status, "X"), JobResults((row("a"),)))


UPPER = "182BD5E5-6E1A-4FE4-A799-AA6D9A6AB26E"


def test_a_file_is_known_in_every_spelling_and_named_as_in_the_chunk() -> None:
    """The API answers with one spelling, whichever was sent."""
    collected = collect([UPPER], TYPES, ended(), JobResults((row(UPPER.lower()),)))
    assert collected.results == (row(UPPER),)


def test_of_two_rows_without_a_result_the_first_counts() -> None:
    """That there were two is noted."""
    other = replace(no_result("a"), error="another reason")
    collected = collect(["a"], TYPES, ended(), JobResults((no_result("a"), other)))
    assert (collected.results, collected.oddities) == ((no_result("a"),), ("two different results for a",))


def test_a_conflict_names_what_matched_no_rule() -> None:
    """No type is an answer too."""
    (result,) = collect(["a"], TYPES, ended(), JobResults((row("a"), row("a", None)))).results
    assert result.error == "the API gave two different results: invoice 0.9 / unmatched 0.9"


def test_the_types_of_a_chunk_are_those_of_its_rules(chunk: Chunk) -> None:
    """A label that none of them names is odd."""
    answer = JobResults((row("file-a"), row("file-b", "poem")))
    assert collect_chunk(chunk, ended(), answer).oddities == ("a type that no rule names: 'poem'",)


def test_a_job_of_other_files_too_is_nothing_odd_when_that_is_known(chunk: Chunk) -> None:
    """Their rows are left out, and what else was odd is kept; unasked they are strangers."""
    answer = JobResults((row("file-a"), row("file-b"), row("x")), ("odd",))
    known, unknown = (collect_chunk(chunk, ended(), answer, partly=partly) for partly in (True, False))
    assert known.results == unknown.results == (row("file-a"), row("file-b"))
    assert known.oddities == ("odd",)
    assert unknown == collect_chunk(chunk, ended(), answer)
    assert unknown.oddities == ("odd", "results for 1 file that was never sent, such as 'x'")


def test_a_refusal_of_results_is_told(chunk: Chunk) -> None:
    """In the API's words."""
    collected = collect_chunk(chunk, ended(JobStatus.FAILED), JobResults((), refusal="no such job"))
    assert collected.oddities == ("no results: no such job",)
    assert [result.outcome for result in collected.results] == [Outcome.FAILED] * 2


@pytest.mark.parametrize(
    ("known", "told"), [("p", None), (None, "p"), ("p", "p"), ("p", "q")], ids=["sent", "echoed", "both", "differ"]
)
def test_a_row_named_by_a_parse_job_is_of_the_one_file(config: Config, known: str | None, told: str | None) -> None:
    """A job made on a parse job names that one in its result, whether we sent it or the API says it."""
    chunk, job = Chunk(1, config, ("a",), parse_job_id=known), replace(ended(), parse_job_id=told)
    assert collect_chunk(chunk, job, JobResults((row("p"),))).results == (row("a"),)
    with pytest.raises(ContractBroken):
        collect_chunk(chunk, job, JobResults((row("x"),)))


def test_a_parse_job_is_nobodys_name_where_there_are_several_files(config: Config) -> None:
    """It could be of any of them; so nothing may be recorded. Nor is one known where none was used."""
    with pytest.raises(ContractBroken):
        collect_chunk(Chunk(1, config, ("a", "b"), parse_job_id="p"), ended(), JobResults((row("p"),)))
    with pytest.raises(ContractBroken):
        collect_chunk(Chunk(1, config, ("a",)), ended(), JobResults((row("p"),)))
