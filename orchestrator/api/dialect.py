"""The questions that the engine asks of an API version: how to write a call, how to read its answer, what it can do."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol
from urllib.parse import quote

from orchestrator.clock import time_of, timestamp
from orchestrator.errors import Ambiguous, ContractBroken
from orchestrator.models import (
    Chunk,
    Echo,
    FileResult,
    JobRecord,
    JobResults,
    Json,
    Outcome,
    RemoteJob,
    Rule,
    Webhook,
    canonical_id,
)

#: Longest text of the API's about a job that is kept: it is recorded for each of the job's files.
MAX_WORDS = 2000

#: The same for IDs and labels, of which none of ours has over 200 characters, and for a result's reasoning.
MAX_NAME, MAX_REASONING = 250, 10_000

#: More pages than any listing has; past it the API is going in circles.
MAX_PAGES = 100_000

#: Ids of jobs as both versions give them; anything else never becomes part of a URL.
_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request, before anyone adds a host or a key."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: Json = None
    stream: Callable[[], AsyncIterator[bytes]] | None = None  #: a body that is not JSON, made again for each attempt
    headers: tuple[tuple[str, str], ...] = ()
    extra_s: float = 0.0  #: how much longer than others the call may take
    empty_answer: bool = False  #: a good answer has no body


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing, and the token of the next one."""

    jobs: tuple[RemoteJob, ...]
    next_token: str | None
    unreadable: int = 0  #: rows that are no job that can be read


@dataclass(frozen=True, slots=True)
class Target:
    """Where the work goes, beyond the base URL."""

    project_id: str | None = None
    organization_id: str | None = None
    webhooks: tuple[Webhook, ...] = ()
    webhook_configuration_ids: tuple[str, ...] = ()

    @property
    def query(self) -> tuple[tuple[str, str], ...]:
        pairs = (("project_id", self.project_id), ("organization_id", self.organization_id))
        return tuple((name, value) for name, value in pairs if value)


@dataclass(frozen=True, slots=True)
class Traits:
    """The abilities of an API version; the engine asks for these and never which version it is."""

    files_per_job: int
    idempotent: bool  #: an unanswered create may be sent again with the same key
    jobs_per_ask: int  #: how many jobs one status call can ask about
    can_cancel: bool
    tells_credits: bool  #: what a job was billed, once it has ended


class Dialect(Protocol):
    """One API version. Reading raises Ambiguous(created=True) for answers that are not what the contract says."""

    @property
    def name(self) -> str: ...
    @property
    def traits(self) -> Traits: ...
    def create(self, chunk: Chunk) -> Call: ...
    def get(self, job_id: str) -> Call: ...
    def ask(self, job_ids: Sequence[str]) -> Call: ...
    def list(self, token: str | None, page_size: int) -> Call: ...
    def results(self, job_id: str, token: str | None) -> Call: ...
    def cancel(self, job_id: str) -> Call: ...
    def read_job(self, answer: Json) -> RemoteJob: ...
    def echoes(self, chunk: Chunk, job: RemoteJob) -> bool: ...
    def read_page(self, answer: Json) -> Page: ...
    def read_results(self, answer: Json, job_id: str | None = None) -> tuple[JobResults, str | None]: ...


def job_path(prefix: str, job_id: str, suffix: str = "") -> str:
    """*prefix*/*job_id*suffix. Raises Ambiguous for an id that could lead elsewhere."""
    return f"{prefix}/{quote(checked_id(job_id), safe='')}{suffix}"


def checked_id(value: Json) -> str:
    """*value* as a job id. Raises Ambiguous(created=True)."""
    if isinstance(value, str) and _JOB_ID.fullmatch(value):
        return value
    raise Ambiguous("the API's answer has no usable job id", created=True)


def read_job_id(job: Mapping[str, Json]) -> str:
    """The id of *job*, in one spelling however an answer spells it. Raises Ambiguous(created=True)."""
    return canonical_id(checked_id(job.get("id")))


def checked_dict(value: Json) -> dict[str, Json]:
    """*value* as a JSON object. Raises Ambiguous(created=True)."""
    if isinstance(value, dict):
        return value
    raise Ambiguous("the API's answer is not an object", created=True)


def items_and_token(answer: Json) -> tuple[list[Json], str | None]:
    """A page's rows and the next page's token; a bare array is a whole listing (older self-hosted servers)."""
    if isinstance(answer, list):
        return answer, None
    page = checked_dict(answer)
    items, token = page.get("items"), page.get("next_page_token")
    if not isinstance(items, list) or not (token is None or isinstance(token, str)):
        raise Ambiguous("the API's answer is not a page", created=True)
    return items, token or None


def read_jobs(answer: Json, read: Callable[[Json], RemoteJob]) -> Page:
    """A page whose rows *read* reads; one that can't be read costs no other row its news."""
    items, token = items_and_token(answer)
    jobs: list[RemoteJob] = []
    for item in items:
        with suppress(Ambiguous):
            jobs.append(read(item))
    return Page(tuple(jobs), token, len(items) - len(jobs))


def read_echo(said: Mapping[str, Json], numbers: Callable[[Json], Iterable[int]]) -> Echo:
    """The config in *said*, field by field; *numbers* reads the target pages as page numbers from 0."""
    parsing = said.get("parsing_configuration")
    parsing = parsing if isinstance(parsing, dict) else {}
    mode, lang = said.get("mode"), parsing.get("lang")
    languages = [
        each.lower() if isinstance(each, str) else None for each in (lang if isinstance(lang, list) else [lang])
    ]
    return Echo(
        _read_rules(said.get("rules")),
        mode.strip().upper() if isinstance(mode, str) else None,
        None if None in languages else tuple(sorted(each for each in languages if each)),
        _read_pages(parsing, numbers),
    )


def _read_rules(value: Json) -> tuple[tuple[str, str], ...] | None:
    try:
        return Echo.of_rules(Rule(str(rule["type"]), str(rule["description"])) for rule in value) or None
    except (KeyError, TypeError, AttributeError, RecursionError):
        return None


def _read_pages(
    parsing: Mapping[str, Json], numbers: Callable[[Json], Iterable[int]]
) -> tuple[str, tuple[int, ...]] | None:
    target, most = parsing.get("target_pages"), parsing.get("max_pages")
    try:
        if target:
            return Echo.of_pages("target_pages", numbers(target))
    except (TypeError, ValueError, OverflowError):
        return None
    return Echo.of_pages("max_pages", [most]) if isinstance(most, int) and not isinstance(most, bool) else None


def read_time(value: Json) -> datetime | None:
    """An ISO 8601 time, aware; None when absent, unreadable or beyond reason."""
    return time_of(value) if isinstance(value, str) else None


def read_record(job: Mapping[str, Json]) -> JobRecord:
    """Return what *job* says of itself beyond what the engine needs."""
    times = (read_time(job.get(name)) for name in ("created_at", "updated_at", "effective_at"))
    names = (words(job.get(name)) for name in ("job_record_id", "user_id", "project_id"))
    return JobRecord(*(None if time is None else timestamp(time) for time in times), *names)


def plain(value: Json) -> str | None:
    """Server text that can be stored: half characters, which no database takes, are spelled out.

    Raises Ambiguous(created=True) for what is nested too deeply to be written as text.
    """
    if value is None:
        return None
    try:
        return str(value).encode("utf-8", "backslashreplace").decode()
    except RecursionError as error:
        raise Ambiguous("the API's answer is nested too deeply", created=True) from error


def words(value: Json) -> str | None:
    """Return the API's words about a job, cut to a bounded length."""
    return bounded(value, MAX_WORDS)


def bounded(value: Json, most: int) -> str | None:
    """Server text that can be stored, cut to *most* characters. Raises Ambiguous as ``plain`` does."""
    if isinstance(value, str) and value.isascii() and len(value) <= most:
        return value  # as most is
    said = plain(value)
    return said if said is None or len(said) <= most else said[: most - 1] + "…"


def name(value: Json) -> str | None:
    """An ID or a label of the API's; one that is longer than any of ours is cut, and is equal to none of ours."""
    return bounded(value, MAX_NAME)


#: The words for a file whose row has no result, where the API gives none of its own.
NO_RESULT = "the API gave no result for this file"


@dataclass(slots=True)
class RowReader:
    """Reads result rows one by one; what can't be read is noted, never guessed."""

    rows: list[FileResult] = field(default_factory=list)
    oddities: list[str] = field(default_factory=list)
    nameless: list[FileResult] = field(default_factory=list)

    def read(self, file_id: Json, result: Json, why: str | None = None) -> None:
        """Add the row of *file_id*; *why* is the API's own explanation for a missing result."""
        rows = self.rows
        if not isinstance(file_id, str):
            self.oddities.append("a result row names no file")
            if file_id is not None:
                return
            file_id, rows = "", self.nameless
        file_id = canonical_id(bounded(file_id, MAX_NAME) or "")
        if result is None:
            rows.append(FileResult(file_id, Outcome.FAILED, error=why or NO_RESULT))
            return
        if not isinstance(result, dict) or "type" not in result or not isinstance(result["type"], str | None):
            self.oddities.append(f"the result row of {file_id} can't be read")
            return
        label = bounded(result["type"], MAX_NAME)
        outcome = Outcome.UNMATCHED if label is None else Outcome.CLASSIFIED
        confidence = self._confidence(file_id, result.get("confidence"))
        rows.append(FileResult(file_id, outcome, label, confidence, bounded(result.get("reasoning"), MAX_REASONING)))

    def _confidence(self, file_id: str, value: Json) -> float | None:
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
            return float(value)
        self.oddities.append(f"the confidence of {file_id} is not a number from 0 to 1")
        return None

    def done(self) -> JobResults:
        return JobResults(tuple(self.rows), tuple(self.oddities), tuple(self.nameless))


def merged(pages: Iterable[JobResults]) -> JobResults:
    """All pages as one."""
    rows: list[FileResult] = []
    oddities: list[str] = []
    nameless: list[FileResult] = []
    for page in pages:
        rows += page.rows
        oddities += page.oddities
        nameless += page.nameless
    return JobResults(tuple(rows), tuple(oddities), tuple(nameless))


def refuse_circle(token: str, seen: set[str], what: str, *, endless: bool = False) -> None:
    """Raises ContractBroken when *token* was given before, or the pages are *endless*."""
    if token in seen or endless or len(seen) >= MAX_PAGES:
        raise ContractBroken(f"the API's pages go in circles ({what}); nothing was concluded from them")
    seen.add(token)
