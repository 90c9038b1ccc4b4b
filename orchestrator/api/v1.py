"""The v1 classifier jobs API: many files a job, no idempotency key. Facts: the vendor's OpenAPI and CLI reference.

The vendor took v1 out of its reference on 2026-08-31; "existing integrations keep working".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from orchestrator.api.dialect import (
    Call,
    Page,
    RowReader,
    Target,
    Traits,
    checked_dict,
    items_and_token,
    job_path,
    name,
    read_echo,
    read_job_id,
    read_jobs,
    read_record,
    read_time,
    words,
)
from orchestrator.models import (
    MAX_CHUNK_SIZE,
    TERMINAL,
    Chunk,
    JobResults,
    JobStatus,
    Json,
    ParsingConfiguration,
    RemoteJob,
    Webhook,
    is_same_id,
)

JOBS = "/api/v1/classifier/jobs"

#: The API's words for a job; a word that is not here is not terminal.
STATUSES: Mapping[str, JobStatus] = {
    "PENDING": JobStatus.SUBMITTED,
    "SUCCESS": JobStatus.SUCCEEDED,
    "PARTIAL_SUCCESS": JobStatus.SUCCEEDED,
    "ERROR": JobStatus.FAILED,
    "CANCELLED": JobStatus.CANCELLED,
}


class V1:
    """Builds and reads the calls of v1."""

    name = "v1"
    traits = Traits(
        files_per_job=MAX_CHUNK_SIZE,
        idempotent=False,
        jobs_per_ask=1,
        can_cancel=False,
        tells_credits=False,
    )

    def __init__(self, target: Target) -> None:
        self._target = target

    def create(self, chunk: Chunk) -> Call:
        config = chunk.config
        body: dict[str, Json] = {
            "file_ids": list(chunk.as_written),
            "rules": [{"type": rule.type, "description": rule.description} for rule in config.rules],
            "mode": config.mode.value,
            "parsing_configuration": _parsing(config.parsing_configuration),
        }
        if self._target.webhooks:
            body["webhook_configurations"] = [webhook_body(webhook) for webhook in self._target.webhooks]
        return Call("POST", JOBS, self._target.query, body)

    def get(self, job_id: str) -> Call:
        return Call("GET", job_path(JOBS, job_id), self._target.query)

    def ask(self, job_ids: Sequence[str]) -> Call:
        return self.get(job_ids[0])

    def list(self, token: str | None, page_size: int) -> Call:
        paging = [("page_size", str(page_size))] + ([("page_token", token)] if token else [])
        return Call("GET", JOBS, (*self._target.query, *paging))

    def results(self, job_id: str, token: str | None) -> Call:
        paging = [("page_token", token)] if token else []
        return Call("GET", job_path(JOBS, job_id, "/results"), (*self._target.query, *paging))

    def cancel(self, job_id: str) -> Call:
        raise NotImplementedError("v1 has no cancel; ask traits.can_cancel first")

    def read_job(self, answer: Json) -> RemoteJob:
        job = checked_dict(answer)
        job_id, word = read_job_id(job), words(job.get("status")) or ""
        status = STATUSES.get(word)
        return RemoteJob(
            id=job_id,
            status=status,
            api_status=word,
            echo=read_echo(job, _page_numbers),
            error=words(job.get("error_message")),
            created_at=read_time(job.get("created_at")),
            ended_at=read_time(job.get("updated_at")) if status in TERMINAL else None,
            project_id=name(job.get("project_id")),
            record=read_record(job),
        )

    def echoes(self, chunk: Chunk, job: RemoteJob) -> bool:
        """v1 jobs say nothing that would distinguish two chunks of a config."""
        return True

    def read_page(self, answer: Json) -> Page:
        return read_jobs(answer, self.read_job)

    def read_results(self, answer: Json, job_id: str | None = None) -> tuple[JobResults, str | None]:
        items, token = items_and_token(answer)
        reader = RowReader()
        for item in items:
            row = item if isinstance(item, dict) else {}  # one row that can't be read costs no other its result
            named = row.get("classify_job_id")
            if job_id is not None and isinstance(named, str) and not is_same_id(named, job_id):
                reader.oddities.append(f"a result row is of another job: {named[:80]!a}")
                continue
            reader.read(row.get("file_id"), row.get("result"))
        return reader.done(), token


def webhook_body(webhook: Webhook) -> dict[str, Json]:
    """A webhook as both versions take it: only what was given, as unknown or null keys may be refused there."""
    fields: dict[str, Json] = {
        "webhook_url": webhook.webhook_url,
        "webhook_events": list(webhook.webhook_events) if webhook.webhook_events is not None else None,
        "webhook_headers": dict(webhook.webhook_headers) if webhook.webhook_headers is not None else None,
        "webhook_output_format": webhook.webhook_output_format,
        "webhook_signing_secret": webhook.webhook_signing_secret,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _parsing(parsing: ParsingConfiguration) -> dict[str, Json]:
    """``max_pages`` and ``target_pages`` are never both sent: the vendor's guide says that they exclude each other."""
    if parsing.target_pages:
        return {"lang": parsing.lang, "target_pages": list(parsing.target_pages)}
    return {"lang": parsing.lang, "max_pages": parsing.max_pages}


def _page_numbers(value: Json) -> Iterable[int]:
    return (int(page) for page in value)
