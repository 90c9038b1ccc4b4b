"""Results are matched to the files of a chunk: exactly one outcome for each, whatever the API's answer says. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from orchestrator.api.dialect import NO_RESULT
from orchestrator.errors import ContractBroken
from orchestrator.models import GOOD, Chunk, FileResult, JobResults, JobStatus, Outcome, RemoteJob, canonical_id

#: What becomes of a file for which an ended job has no row.
WITHOUT_ROW: Mapping[JobStatus, Outcome] = {
    JobStatus.SUCCEEDED: Outcome.MISSING,
    JobStatus.FAILED: Outcome.FAILED,
    JobStatus.CANCELLED: Outcome.CANCELLED,
}


_SAID_NOTHING: Mapping[Outcome, str] = {
    Outcome.MISSING: "the job ended and its results have no row for this file",
    Outcome.FAILED: "the job failed; the API gave no reason",
    Outcome.CANCELLED: "the job was cancelled",
}


@dataclass(frozen=True, slots=True)
class Collected:
    """How each file of a chunk ended, in the chunk's order, and what was odd about the answer."""

    results: tuple[FileResult, ...]
    oddities: tuple[str, ...]

    @property
    def without_row(self) -> tuple[str, ...]:
        return tuple(result.file_id for result in self.results if result.outcome is Outcome.MISSING)


def collect(file_ids: Collection[str], types: Collection[str], job: RemoteJob, answer: JobResults) -> Collected:
    """Exactly one result for each of *file_ids*, whatever *answer* says. *types* are the labels that the rules name.

    Raises ContractBroken when the rows are all of other files: this is not our job, and nothing may be recorded.
    """
    if job.status not in WITHOUT_ROW:
        raise ValueError(f"job {job.id} has not ended")
    own = {canonical_id(file_id): file_id for file_id in file_ids}
    oddities = list(answer.oddities)
    by_file: dict[str, list[FileResult]] = {}
    strangers: list[str] = []
    for row in answer.rows:
        file_id = own.get(row.file_id)
        if file_id is None:
            strangers.append(row.file_id)
            continue
        found = row if row.file_id == file_id else replace(row, file_id=file_id)
        if (others := by_file.get(file_id)) is None:
            by_file[file_id] = [found]
        elif found not in others:
            others.append(found)
    oddities += [f"two different results for {file_id}" for file_id, several in by_file.items() if len(several) > 1]
    rows = {file_id: several[0] if len(several) == 1 else _the_one(several) for file_id, several in by_file.items()}
    if strangers:
        if not rows:
            raise ContractBroken(f"job {job.id} has results only for files that were never sent in it")
        which = "1 file that was" if len(strangers) == 1 else f"{len(strangers):,} files that were"
        oddities.append(f"results for {which} never sent, such as {strangers[0]!a}")
    without = [file_id for file_id in file_ids if file_id not in rows]
    if len(without) == len(answer.nameless) == 1 and not strangers:
        rows[without[0]] = replace(answer.nameless[0], file_id=without[0])
        oddities.append(f"the row that names no file is taken for that of {without[0]}, the only file without one")
    if job.error is not None:  # the job's words say more than that there is no result
        for file_id, row in rows.items():
            rows[file_id] = replace(row, error=job.error) if row.error == NO_RESULT else row
    unknown = {row.type for row in rows.values() if row.type is not None} - set(types)
    oddities += [f"a type that no rule names: {label!a}" for label in sorted(unknown)] if types else []
    return Collected(tuple(rows.get(file_id) or _rowless(file_id, job) for file_id in file_ids), tuple(oddities))


def _rowless(file_id: str, job: RemoteJob) -> FileResult:
    outcome = WITHOUT_ROW[job.status or JobStatus.FAILED]
    return FileResult(file_id, outcome, error=job.error or _SAID_NOTHING[outcome])


def _the_one(rows: list[FileResult]) -> FileResult:
    """The one of a file's *rows* that counts: a good one before one without a result; a conflict of good ones."""
    good = [row for row in rows if row.outcome in GOOD]
    answers = {(row.type, row.confidence): row for row in good}
    if len(answers) > 1:
        return _conflict(*list(answers.values())[:2])
    return good[0] if good else rows[0]


def _conflict(first: FileResult, second: FileResult) -> FileResult:
    words = " / ".join(f"{row.type or row.outcome.value} {row.confidence}" for row in (first, second))
    return FileResult(first.file_id, Outcome.FAILED, error=f"the API gave two different results: {words}")


def collect_chunk(chunk: Chunk, job: RemoteJob, answer: JobResults, *, partly: bool = False) -> Collected:
    """One result for each of *chunk*'s files, from all that *job* answered; *partly*: it has other files too.

    Raises ContractBroken as ``collect`` does.
    """
    types = [rule.type for rule in chunk.config.rules]
    answer = _of_the_file(chunk, job, answer)
    if partly:
        answer = JobResults(tuple(row for row in answer.rows if row.file_id in set(chunk.file_ids)), answer.oddities)
    elif answer.refusal is not None:
        answer = replace(answer, oddities=(f"no results: {answer.refusal}",))
    return collect(chunk.file_ids, types, job, answer)


def _of_the_file(chunk: Chunk, job: RemoteJob, answer: JobResults) -> JobResults:
    """A job made on a parse job names that one in its result: it is the result of the chunk's one file."""
    parses = {chunk.parse_job_id, job.parse_job_id} - {None}
    if not parses or len(chunk.file_ids) != 1:
        return answer
    (file_id,) = chunk.file_ids
    rows = (replace(row, file_id=file_id) if row.file_id in parses else row for row in answer.rows)
    return replace(answer, rows=tuple(rows))
