"""Whose jobs the unknown ones are, by their results: what is read, how much of it, and what follows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from orchestrator.api.client import Api
from orchestrator.models import Chunk, FileResult, JobResults, JobStatus, Mode, Outcome, RemoteJob
from orchestrator.stages.unanswered.evidence import MOST_READ, Evidence
from orchestrator.stages.unanswered.likeness import Echoes

START = datetime(2026, 11, 25, 2, tzinfo=UTC)


def ended(job_id: str, *, minutes: float | None = 0.0) -> RemoteJob:
    at = None if minutes is None else START + timedelta(minutes=minutes)
    return RemoteJob(job_id, JobStatus.SUCCEEDED, "SUCCESS", created_at=at)


def results(*file_ids: str, nameless: int = 0) -> JobResults:
    row = FileResult("", Outcome.CLASSIFIED, "invoice")
    return JobResults(tuple(replace(row, file_id=file_id) for file_id in file_ids), (), (row,) * nameless)


class Results:
    """An API that has results only; it keeps account of the jobs that it was asked about."""

    def __init__(self, of: Mapping[str, JobResults] = {}) -> None:
        self.of = dict(of)
        self.asked: list[str] = []

    async def results(self, job_id: str) -> JobResults:
        self.asked.append(job_id)
        return self.of.get(job_id, results())


def gather(evidence: Evidence, api: Results, jobs: Iterable[RemoteJob], *chunks: Chunk) -> list[str]:
    """The jobs whose results are read at one look."""
    api.asked.clear()
    asyncio.run(evidence.gather(cast(Api, api), jobs, chunks))
    return list(api.asked)


def test_ended_jobs_are_read_the_newest_first_and_those_without_a_date_before_all() -> None:
    """What has no date may be new. A job that runs has nothing to read."""
    running = RemoteJob("running", JobStatus.SUBMITTED, "PENDING", created_at=START)
    jobs = [
        ended("old", minutes=-1),
        running,
        ended("new", minutes=1),
        ended("b"),
        ended("a"),
        ended("x", minutes=None),
    ]
    assert gather(Evidence(), Results(), jobs) == ["x", "new", "a", "b", "old"]


def test_at_one_look_only_so_many_are_read() -> None:
    """A project may have thousands; the rest is read at the next look, beside those without results as yet."""
    jobs = [ended(f"{n:03}", minutes=-n) for n in range(MOST_READ + 50)]
    evidence, api = Evidence(), Results()
    assert MOST_READ == 100
    assert gather(evidence, api, jobs) == [job.id for job in jobs[:100]]
    assert gather(evidence, api, jobs) == [job.id for job in (*jobs[100:], *jobs[:100])]
    assert gather(evidence, api, jobs) == [job.id for job in jobs[:100]]


def test_jobs_are_read_again_until_their_results_are_whole(chunk: Chunk) -> None:
    """Some of a chunk's files may become all of them; all of them, or others', are the end of it."""
    api = Results({"part": results("file-a"), "whole": results("file-a", "file-b"), "foreign": results("x")})
    jobs = [ended(name) for name in ("empty", "foreign", "part", "whole")]
    evidence = Evidence()
    assert gather(evidence, api, jobs, chunk) == ["empty", "foreign", "part", "whole"]
    assert gather(evidence, api, jobs, chunk) == ["empty", "part"]
    api.of["part"] = results("file-b")
    gather(evidence, api, jobs, chunk)
    assert evidence.files["part"] == {"file-a", "file-b"}, "a row that was seen once counts"
    assert gather(evidence, api, jobs, chunk) == ["empty"]


def test_results_that_name_no_file_are_remembered() -> None:
    """Such a job may be anybody's."""
    evidence = Evidence()
    gather(evidence, Results({"odd": results(nameless=1)}), [ended("odd"), ended("plain")])
    assert evidence.nameless == {"odd"}


def test_a_job_is_unread_until_somebody_has_looked() -> None:
    """Only an ended one has something to read."""
    evidence = Evidence()
    assert evidence.unread(ended("j"))
    assert not evidence.unread(RemoteJob("j", JobStatus.SUBMITTED, "PENDING"))
    gather(evidence, Results(), [ended("j")])
    assert not evidence.unread(ended("j"))


@pytest.mark.parametrize(
    ("files", "proves", "suggests", "hints"),
    [
        ((), False, False, False),
        (("file-a", "file-b"), True, False, True),
        (("file-a",), False, True, True),
        (("file-a", "file-b", "x"), False, True, True),
        (("file-a", "x"), False, False, True),
        (("x",), False, False, False),
    ],
    ids=["none", "all", "some", "all and others", "some and others", "others"],
)
def test_what_results_say_about_a_chunk(
    chunk: Chunk, files: tuple[str, ...], proves: bool, suggests: bool, hints: bool
) -> None:
    """The exact set proves; a part of it, or more than it, suggests; one file is a hint."""
    evidence = Evidence({"j": frozenset(files)})
    job = ended("j")
    assert (evidence.proves(job, chunk), evidence.suggests(job, chunk), evidence.hints(job, chunk)) == (
        proves,
        suggests,
        hints,
    )


@pytest.mark.parametrize(
    ("files", "ids"),
    [
        ("a b", [2]),
        ("a", [2, 3, 4, 5]),
        ("b", [2, 4]),
        ("a b c", [2, 5]),
    ],
    ids=["all", "just another's", "some of both", "all and another's"],
)
def test_a_job_may_be_of_other_chunks_no_less(chunk: Chunk, files: str, ids: list[int]) -> None:
    """Of those of the same files, and of those in another mode that it has as much of; not where its echo tells."""
    config, told = chunk.config, replace(ended("j"), echo=chunk.config.echo)
    other = replace(config, mode=Mode.MULTIMODAL)
    mine = replace(chunk, file_ids=("a", "b"))
    others = [
        replace(chunk, id=2, config=other, file_ids=("b", "a")),
        replace(chunk, id=3, file_ids=("a",)),
        replace(chunk, id=4, config=other, file_ids=("a", "b", "d")),
        replace(chunk, id=5, config=other, file_ids=("a", "c")),
        replace(chunk, id=6, file_ids=("b", "c")),
    ]
    evidence = Evidence({"j": frozenset(files.split())})
    truly = Echoes.learnt([(config, told)])
    silent = replace(told, echo=replace(told.echo, mode=None))
    found = [each.id for each in evidence.rivals(silent, mine, [mine, *others], truly)]
    assert found == ids
    assert [each.id for each in evidence.rivals(told, mine, [mine, *others], truly)] == [n for n in ids if n == 3]


def test_a_job_that_nobody_has_looked_at_says_nothing(chunk: Chunk) -> None:
    """Neither for nor against."""
    evidence, job = Evidence(), ended("j")
    assert not (evidence.proves(job, chunk) or evidence.suggests(job, chunk) or evidence.hints(job, chunk))


SOME, ALL, MORE = frozenset({"file-a"}), frozenset({"file-a", "file-b"}), frozenset({"file-a", "file-b", "x"})


@pytest.mark.parametrize(
    ("status", "files", "more"),
    [
        (JobStatus.RUNNING, frozenset[str](), True),
        (JobStatus.SUCCEEDED, frozenset[str](), True),
        (JobStatus.SUCCEEDED, SOME, True),
        (JobStatus.SUCCEEDED, ALL, False),
        (JobStatus.SUCCEEDED, MORE, False),
        (JobStatus.SUCCEEDED, frozenset({"x"}), False),
        (JobStatus.FAILED, frozenset[str](), False),
        (JobStatus.CANCELLED, SOME, False),
    ],
)
def test_results_may_come_late_of_a_job_that_has_not_failed(
    chunk: Chunk, status: JobStatus, files: frozenset[str], more: bool
) -> None:
    """While it shows none, or some of the chunk's files and no other."""
    assert Evidence({"j": files}).may_show_more(RemoteJob("j", status, ""), chunk) is more


def test_the_job_with_the_most_good_answers_comes_first_and_may_lack_some_of_the_others(chunk: Chunk) -> None:
    """Of jobs of all of its files, and of jobs of some of them."""
    evidence = Evidence(
        {"bad": ALL, "a": ALL, "b": SOME, "both": MORE, "other": frozenset({"x"})},
        {"bad": frozenset(), "a": SOME, "b": frozenset({"file-b"}), "both": ALL, "other": frozenset({"x"})},
    )
    bad, a, b, both, other = (ended(name) for name in ("bad", "a", "b", "both", "other"))
    assert evidence.proven([bad, b, a, both], chunk, [chunk], Echoes()) == [a, bad]
    assert evidence.partial([bad, other, b, both], chunk, [chunk], Echoes()) == [both, b]
    assert evidence.lacks(a, chunk, [bad, b])
    assert not evidence.lacks(a, chunk, [bad, other])
    assert not evidence.lacks(both, chunk, [a, b, other])


def test_only_the_chunks_own_files_count_for_the_order_of_jobs_of_some_of_them(chunk: Chunk) -> None:
    """First their good answers, then their answers."""
    three = replace(chunk, file_ids=("a", "b", "c"))
    evidence = Evidence(
        {name: frozenset(files) for name, files in {"one": "a", "two": "ab", "all": "abcx", "good": "c"}.items()},
        {name: frozenset(files) for name, files in {"one": "", "two": "", "all": "x", "good": "c"}.items()},
    )
    jobs = [ended(name) for name in ("one", "two", "all", "good")]
    assert [job.id for job in evidence.partial(jobs, three, [], Echoes())] == ["good", "all", "two", "one"]


def test_of_jobs_with_as_many_good_answers_the_oldest_comes_first(chunk: Chunk) -> None:
    """One without a date may be of any time: last, and those without by their names."""
    jobs = [
        RemoteJob("b", JobStatus.SUCCEEDED, ""),
        RemoteJob("a", JobStatus.SUCCEEDED, ""),
        RemoteJob("late", JobStatus.SUCCEEDED, "", created_at=START + timedelta(1)),
        RemoteJob("old", JobStatus.SUCCEEDED, "", created_at=START),
        RemoteJob("before all", JobStatus.SUCCEEDED, "", created_at=datetime(1969, 1, 1, tzinfo=UTC)),
    ]
    names = ["before all", "old", "late", "a", "b"]
    for files, order in ((ALL, Evidence.proven), (SOME, Evidence.partial)):
        evidence = Evidence(dict.fromkeys(names, files), dict.fromkeys(names, files))
        assert [job.id for job in order(evidence, jobs, chunk, [], Echoes())] == names
