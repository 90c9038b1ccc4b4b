"""The v2 classify API: one document a job, an idempotency key, bulk status. Facts: the vendor's OpenAPI and SDK."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence

from orchestrator.api.dialect import (
    Call,
    Page,
    RowReader,
    Target,
    Traits,
    checked_dict,
    checked_id,
    job_path,
    name,
    read_echo,
    read_job_id,
    read_jobs,
    read_record,
    read_time,
    words,
)
from orchestrator.api.v1 import webhook_body
from orchestrator.models import (
    TERMINAL,
    Chunk,
    Echo,
    JobResults,
    JobStatus,
    Json,
    ParsingConfiguration,
    RemoteJob,
    canonical_id,
)

JOBS = "/api/v2/classify"

#: ``page_size`` of the list call is 1-100; so many ``job_ids`` are answered in one page.
JOBS_PER_ASK = 100

STATUSES: Mapping[str, JobStatus] = {
    "PENDING": JobStatus.SUBMITTED,
    "RUNNING": JobStatus.RUNNING,
    "COMPLETED": JobStatus.SUCCEEDED,
    "FAILED": JobStatus.FAILED,
    "CANCELLED": JobStatus.CANCELLED,
}

_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?", re.ASCII)


class V2:
    """Builds and reads the calls of v2."""

    name = "v2"
    traits = Traits(
        files_per_job=1,
        idempotent=True,
        jobs_per_ask=JOBS_PER_ASK,
        can_cancel=True,
        tells_credits=True,
    )

    def __init__(self, target: Target) -> None:
        self._target = target

    def create(self, chunk: Chunk) -> Call:
        (file_id,) = chunk.as_written
        body: dict[str, Json] = {
            "file_input": chunk.parse_job_id or file_id,
            "transaction_id": transaction_id(self._target.project_id, chunk),
        }
        if chunk.config.configuration_id:
            body["configuration_id"] = chunk.config.configuration_id
        else:
            body["configuration"] = {
                "rules": [{"type": rule.type, "description": rule.description} for rule in chunk.config.rules],
                "mode": chunk.config.mode.value,
                "parsing_configuration": _parsing(chunk.config.parsing_configuration),
            }
        if self._target.webhooks:
            body["webhook_configurations"] = [webhook_body(webhook) for webhook in self._target.webhooks]
        if self._target.webhook_configuration_ids:
            body["webhook_configuration_ids"] = list(self._target.webhook_configuration_ids)
        return Call("POST", JOBS, self._target.query, body)

    def get(self, job_id: str) -> Call:
        return Call("GET", job_path(JOBS, job_id), (*self._target.query, ("expand", "usage")))

    def ask(self, job_ids: Sequence[str]) -> Call:
        ids = tuple(("job_ids", checked_id(job_id)) for job_id in job_ids)
        return Call("GET", JOBS, (*self._target.query, *ids, ("page_size", str(JOBS_PER_ASK)), ("expand", "usage")))

    def list(self, token: str | None, page_size: int) -> Call:
        paging = [("page_size", str(min(page_size, 100)))] + ([("page_token", token)] if token else [])
        return Call("GET", JOBS, (*self._target.query, *paging))

    def results(self, job_id: str, token: str | None) -> Call:
        return self.get(job_id)

    def cancel(self, job_id: str) -> Call:
        return Call("POST", job_path(JOBS, job_id, "/cancel"), self._target.query)

    def read_job(self, answer: Json) -> RemoteJob:
        job = checked_dict(answer)
        job_id, word = read_job_id(job), words(job.get("status")) or ""
        status = STATUSES.get(word)
        usage, document = job.get("usage"), name(job.get("file_input"))
        on_parse_job = job.get("document_input_type") == "parse_job_id"
        return RemoteJob(
            id=job_id,
            status=status,
            api_status=word,
            echo=_read_echo(job),
            error=words(job.get("error_message")),
            created_at=read_time(job.get("created_at")),
            ended_at=read_time(job.get("updated_at")) if status in TERMINAL else None,
            project_id=name(job.get("project_id")),
            file_id=None if document is None else canonical_id(document),
            transaction_id=name(job.get("transaction_id")),
            parse_job_id=name(job.get("parse_job_id")) or (document if on_parse_job else None),
            credits=_credits(usage.get("credits")) if isinstance(usage, dict) else None,
            results=_read_result(job) if status in TERMINAL else None,
            record=read_record(job),
        )

    def echoes(self, chunk: Chunk, job: RemoteJob) -> bool:
        """Whether *job* is of *chunk*'s create call: a reused key brings back its first job, whatever was asked.

        That may be a job on a parse of the file that this ledger has never heard of, or no longer counts on.
        """
        key = transaction_id(self._target.project_id, chunk)
        on_a_parse = job.transaction_id == key and job.file_id == job.parse_job_id
        return (
            (on_a_parse or job.file_id in (None, chunk.parse_job_id, *map(canonical_id, chunk.file_ids)))
            and job.transaction_id in (None, key)
            and (job.echo.rules is None or chunk.config.echo.rules in (None, job.echo.rules))
        )

    def read_page(self, answer: Json) -> Page:
        return read_jobs(answer, self.read_job)

    def read_results(self, answer: Json, job_id: str | None = None) -> tuple[JobResults, str | None]:
        job = self.read_job(answer)
        return job.results or JobResults(()), None


def transaction_id(project_id: str | None, chunk: Chunk) -> str:
    """The idempotency key of *chunk*'s one file: everything that changes the answer, and nothing else.

    Reusing a key returns the original job and ignores the body, so a key that left something out would bring back old
    answers for new rules; and because no part of it lives in the ledger only, even a lost ledger buys nothing twice.
    """
    file_ids = chunk.file_ids if chunk.keyed_as is None else (chunk.keyed_as,)
    parts = [project_id or "", *file_ids, chunk.config.fingerprint, str(chunk.generation)]
    if chunk.counts_for is not None:  # generations are counted under that config, and so may come again under this one
        parts.append(chunk.counts_for)
    return "orc-" + hashlib.sha256("\n".join(parts).encode()).hexdigest()[:48]


def pages_text(pages: Sequence[int]) -> str:
    """0-based page numbers as v2's 1-based text: ``[0, 1, 2, 6]`` is ``1-3,7``."""
    runs: list[list[int]] = []
    for page in sorted({page + 1 for page in pages}):
        if runs and page == runs[-1][1] + 1:
            runs[-1][1] = page
        else:
            runs.append([page, page])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def pages_of(text: Json) -> tuple[int, ...]:
    """v2's page text as 0-based numbers. Raises ValueError."""
    if not isinstance(text, str):
        raise ValueError(f"not a text: {type(text).__name__}")
    pages: list[int] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"not a range of pages: {part!r}")
        first, last = int(match[1]), int(match[2] or match[1])
        if not 0 <= first - 1 <= last - 1 <= first + 100_000:
            raise ValueError(f"not a range of pages: {part!r}")
        pages += range(first - 1, last)
    return tuple(pages)


def _parsing(parsing: ParsingConfiguration) -> dict[str, Json]:
    """``max_pages`` is always sent: left out it is 5 pages on v1 and all pages on v2."""
    if parsing.target_pages:
        return {"lang": parsing.lang, "target_pages": pages_text(parsing.target_pages)}
    return {"lang": parsing.lang, "max_pages": parsing.max_pages}


def _read_result(job: Mapping[str, Json]) -> JobResults:
    """The one row of an ended job; none where the API gave no result and no words either: it may come yet."""
    reader, why = RowReader(), words(job.get("error_message"))
    if job.get("result") is not None or (job.get("status") == "COMPLETED" and why):
        reader.read(job.get("file_input"), job.get("result"), why)
    return reader.done()


def _read_echo(job: Mapping[str, Json]) -> Echo:
    """The job's echo of what it was created with."""
    configuration = job.get("configuration")
    return read_echo(configuration if isinstance(configuration, dict) else {}, pages_of)


def _credits(value: Json) -> float | None:
    """*value* as an amount of credits; None when it can be none (JSON's integers know no end, and Python reads NaN)."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12:
        return float(value)
    return None
