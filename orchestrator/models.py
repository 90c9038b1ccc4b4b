"""The nouns: what a manifest asks for, what the API answered, and how each file ended. Standard library only."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Any

#: Most file IDs that one v1 create call takes (OpenAPI ``ClassifyJobCreate.file_ids.maxItems``).
MAX_CHUNK_SIZE = 500


class JobStatus(StrEnum):
    """Where a chunk and its job are. ``TERMINAL`` to ``MOVES`` below are the only other places that speak of this."""

    PENDING = "pending"  #: planned; no create call is out
    SUBMITTING = "submitting"  #: a create call was sent and no answer is recorded
    SUBMITTED = "submitted"  #: the API gave us a job id
    RUNNING = "running"  #: the API says that it works on it (v2 only)
    SUCCEEDED = "succeeded"  #: ended, results recorded (some of its files may have failed)
    FAILED = "failed"  #: ended in error, or the create call was refused
    CANCELLED = "cancelled"  #: ended by cancellation


TERMINAL = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})  #: will not change by itself

IN_FLIGHT = frozenset({JobStatus.SUBMITTED, JobStatus.RUNNING})  #: the API has the job and it has not ended

OPEN = frozenset(JobStatus) - TERMINAL  #: has not ended

#: Every allowed move; a move that is not here is a bug. Only ``jobs.disown`` leads back from an answer that was wrong.
MOVES: Mapping[JobStatus, frozenset[JobStatus]] = {
    JobStatus.PENDING: frozenset({JobStatus.SUBMITTING}),
    JobStatus.SUBMITTING: frozenset({JobStatus.PENDING, JobStatus.SUBMITTED, JobStatus.FAILED}),
    JobStatus.SUBMITTED: frozenset({JobStatus.RUNNING}) | TERMINAL,
    JobStatus.RUNNING: frozenset({JobStatus.SUBMITTED}) | TERMINAL,
    JobStatus.SUCCEEDED: frozenset(),
    JobStatus.FAILED: frozenset(),
    JobStatus.CANCELLED: frozenset(),
}

_UUID = re.compile(r"(?:dfl-)?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})", re.ASCII | re.IGNORECASE).fullmatch


def canonical_id(file_id: str) -> str:
    """The form in which file IDs are compared: a UUID in lower case and without ``dfl-``; any other ID as it is.

    The API types file IDs as UUIDs and answers with one spelling, whichever was sent; uploads give ``dfl-<uuid>``.
    """
    if file_id == file_id.lower() and not file_id.startswith("dfl-"):
        return file_id  # as most are: to match each of a million takes seconds
    found = _UUID(file_id)
    return found[1].lower() if found else file_id


def is_same_id(one: str, other: str) -> bool:
    """Whether two spellings name the same."""
    return one == other or canonical_id(one) == canonical_id(other)


class Outcome(StrEnum):
    """How one file ended."""

    CLASSIFIED = "classified"  #: the API named a type
    UNMATCHED = "unmatched"  #: the API answered and no rule matched (``result.type`` is null)
    FAILED = "failed"  #: no result (``result`` is null), or its job failed
    MISSING = "missing"  #: the job ended and has no row for the file
    CANCELLED = "cancelled"  #: the job was cancelled before it had a result


#: The outcomes a run is content with; every other one is for ``retry``.
GOOD = frozenset({Outcome.CLASSIFIED, Outcome.UNMATCHED})
BAD = tuple(outcome for outcome in Outcome if outcome not in GOOD)


class Mode(StrEnum):
    """The API's classification modes. Prices: https://developers.llamaindex.ai/llamaparse/general/pricing/"""

    FAST = "FAST"  #: 1 credit a page
    MULTIMODAL = "MULTIMODAL"  #: 2 credits a page; v1 only


CREDITS_PER_PAGE: Mapping[Mode, int] = {Mode.FAST: 1, Mode.MULTIMODAL: 2}


@dataclass(frozen=True, slots=True)
class Rule:
    """The API's ``ClassifierRule``: the type to assign and, in natural language, when."""

    type: str
    description: str


@dataclass(frozen=True, slots=True)
class ParsingConfiguration:
    """The pages to read, and their language. Exactly one of the two page fields is set.

    ``max_pages`` is always sent when ``target_pages`` is not: unset it would mean 5 pages on v1 and all pages on v2.
    ``target_pages`` counts from 0, as v1 does.
    """

    lang: str = "en"
    max_pages: int | None = 5
    target_pages: tuple[int, ...] | None = None

    @property
    def page_ceiling(self) -> int:
        """The most pages of one file that can be billed."""
        return len(set(self.target_pages)) if self.target_pages else (self.max_pages or 0)


@dataclass(frozen=True, slots=True)
class Echo:
    """A job's config as the API shows it, in a form that can be compared; None for what it does not show readably."""

    rules: tuple[tuple[str, str], ...] | None = None  #: (type, description) without odd white space, sorted
    mode: str | None = None  #: in capitals
    lang: tuple[str, ...] | None = None  #: sorted
    pages: tuple[str, tuple[int, ...]] | None = None  #: the field, and its number or its sorted numbers

    @staticmethod
    def of_rules(rules: Iterable[Rule]) -> tuple[tuple[str, str], ...]:
        """*rules* in the form in which they are compared: neither their order nor their white space counts."""
        return tuple(sorted((" ".join(rule.type.split()), " ".join(rule.description.split())) for rule in rules))

    @staticmethod
    def of_pages(field: str, pages: Iterable[int]) -> tuple[str, tuple[int, ...]]:
        return field, tuple(sorted(set(pages)))


@dataclass(frozen=True)
class Config:
    """Everything that changes the answer: rules in order, mode, parsing configuration.

    Or ``configuration_id``, v2's name for all three kept on the server; then ``rules`` is empty.
    """

    rules: tuple[Rule, ...]
    mode: Mode = Mode.FAST
    parsing_configuration: ParsingConfiguration = ParsingConfiguration()
    configuration_id: str | None = None

    @cached_property
    def canonical(self) -> str:
        """JSON text that two configs share if and only if the API would answer them alike."""
        parsing = self.parsing_configuration
        rules = [[rule.type, rule.description] for rule in self.rules]
        pages = {"max_pages": parsing.max_pages, "target_pages": parsing.target_pages}
        value = {"rules": rules, "mode": self.mode.value, "lang": parsing.lang, **pages}
        if self.configuration_id is not None:
            value["configuration_id"] = self.configuration_id
        return json.dumps(value, sort_keys=True, separators=(",", ":"))

    @cached_property
    def fingerprint(self) -> str:
        """32 hex digits; the key under which outcomes are kept."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()[:32]

    @cached_property
    def meaning(self) -> str:
        """``canonical`` without what can't change an answer: white space in descriptions, the order of target pages."""
        parsing = self.parsing_configuration
        pages = parsing.target_pages and tuple(sorted(set(parsing.target_pages)))
        rules = tuple(Rule(rule.type, " ".join(rule.description.split())) for rule in self.rules)
        return replace(self, rules=rules, parsing_configuration=replace(parsing, target_pages=pages)).canonical

    @cached_property
    def echo(self) -> Echo:
        """The echo of a job made with this config; an empty one where only the server knows the config."""
        if self.configuration_id is not None:
            return Echo()
        parsing = self.parsing_configuration
        if parsing.target_pages:
            pages = Echo.of_pages("target_pages", parsing.target_pages)
        else:
            pages = Echo.of_pages("max_pages", [] if parsing.max_pages is None else [parsing.max_pages])
        return Echo(Echo.of_rules(self.rules), self.mode.value, (parsing.lang.lower(),), pages)

    @classmethod
    def from_canonical(cls, text: str) -> Config:
        """The config whose ``canonical`` is *text*."""
        value = json.loads(text)
        pages = value["target_pages"]
        parsing = ParsingConfiguration(value["lang"], value["max_pages"], tuple(pages) if pages else None)
        rules = tuple(Rule(*rule) for rule in value["rules"])
        return cls(rules, Mode(value["mode"]), parsing, value.get("configuration_id"))

    def differences(self, other: Config) -> tuple[str, ...]:
        """The manifest's fields in which the two differ."""
        fields = ("rules", "mode", "parsing_configuration", "configuration_id")
        return tuple(name for name in fields if getattr(self, name) != getattr(other, name))

    @property
    def credits_per_file(self) -> int | None:
        """The most credits that one file can cost; None when mode and pages are known only to the server."""
        if self.configuration_id is not None:
            return None
        return CREDITS_PER_PAGE[self.mode] * self.parsing_configuration.page_ceiling

    def credits_ceiling(self, files: int) -> int | None:
        """The most credits that so many files can cost; None when that is not known."""
        each = self.credits_per_file
        return 0 if files == 0 else None if each is None else files * each


@dataclass(frozen=True, slots=True)
class Webhook:
    """One entry of ``webhook_configurations``, secrets filled in. Never stored, never printed: see ``__repr__``."""

    webhook_url: str
    webhook_events: tuple[str, ...] | None = None
    webhook_headers: Mapping[str, str] | None = None
    webhook_output_format: str | None = None  #: None: not sent, so that the API's own default applies
    webhook_signing_secret: str | None = None

    def __repr__(self) -> str:
        return "Webhook(<hidden>)"


@dataclass(frozen=True, slots=True)
class Review:
    """The results that a person should look at."""

    below_confidence: float | None = None
    unmatched: bool = False  #: also those that no rule matched


@dataclass(frozen=True, slots=True)
class Escalate:
    """The results that get a second opinion, in a better and more expensive mode."""

    below_confidence: float
    mode: Mode = Mode.MULTIMODAL


@dataclass(frozen=True, slots=True)
class Limits:
    """A guard on one run: beyond it nothing is sent."""

    max_files: int | None = None
    max_credits: int | None = None
    max_generations: int | None = None  #: most times that one file is deliberately submitted
    max_reclassify: int | None = None  #: most files with an outcome that a changed manifest sends again


@dataclass(frozen=True, slots=True)
class Chunk:
    """The file IDs of one create call, as the ledger knows them: in their canonical form."""

    id: int
    config: Config
    file_ids: tuple[str, ...]
    generation: int = 0  #: how many times these files were deliberately submitted before
    parse_job_id: str | None = None  #: v2: an earlier parse of its one file, to be classified instead of the file
    counts_for: str | None = None  #: fingerprint of the config that its results are kept under, if not ``config``
    spellings: tuple[str, ...] = ()  #: ``file_ids`` as the user wrote them, where some differ
    keyed_as: str | None = None  #: v2: its one file in the idempotency key, if that is not just its canonical form

    @property
    def as_written(self) -> tuple[str, ...]:
        """The file IDs as the user wrote them: what is sent."""
        return self.spellings or self.file_ids


@dataclass(frozen=True, slots=True)
class FileResult:
    """One row of a job's results. ``outcome`` is never MISSING: that is for rows that are not there."""

    file_id: str
    outcome: Outcome
    type: str | None = None
    confidence: float | None = None
    reasoning: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class JobResults:
    """All pages of a job's results: the rows that could be read, and what was wrong with the rest."""

    rows: tuple[FileResult, ...]
    oddities: tuple[str, ...] = field(default=())
    nameless: tuple[FileResult, ...] = field(default=())  #: rows whose ``file_id`` is null, as the contract allows
    refusal: str | None = None  #: the API's words instead of results: it has none (yet)


@dataclass(frozen=True, slots=True)
class JobRecord:
    """The facts about a job kept only because a user may ask later; times as the ledger writes them."""

    api_created_at: str | None = None
    api_updated_at: str | None = None
    effective_at: str | None = None
    job_record_id: str | None = None
    user_id: str | None = None
    project_id: str | None = None


@dataclass(frozen=True, slots=True)
class RemoteJob:
    """A classify job as the API reports it; ``status`` is None for a word that is not in the contract."""

    id: str
    status: JobStatus | None
    api_status: str
    echo: Echo = Echo()  #: of the config that it was made with
    error: str | None = None
    created_at: datetime | None = None
    ended_at: datetime | None = None  #: when the API last changed an ended job: near the moment it ended
    project_id: str | None = None
    file_id: str | None = None  #: v2: the one file
    transaction_id: str | None = None  #: v2: the idempotency key, echoed
    parse_job_id: str | None = None  #: v2: the parse job it ran on
    credits: float | None = None  #: v2: what it was billed, once billing knows
    results: JobResults | None = None  #: v2: in the same answer
    record: JobRecord = field(default=JobRecord(), compare=False)  #: decides nothing


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """An uploaded file as the API describes it."""

    id: str
    name: str | None = None
    external_id: str | None = None
    size: int | None = None  #: in bytes, where the API says it
    project_id: str | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Extent:
    """The length of a list of which only the first entries may be shown."""

    total: int
    truncated: bool  #: the list has fewer than ``total`` entries

    @classmethod
    def of(cls, told: Sized, total: int) -> Extent:
        return cls(max(total, len(told)), len(told) < total)


#: JSON as it comes off the wire: the one place where Any is honest.
Json = Any
