"""The sandbox's switches, for what the public contract leaves open, and the faults that it can play."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

from orchestrator.clock import Clock, SystemClock
from orchestrator.errors import InputError

#: What ``kind`` of call a fault may be narrowed to: ``create.drop-after=0.1`` leaves every other call alone.
KINDS = ("create", "get", "results", "list", "cancel", "delete", "upload", "files")

#: On any call. A probability, but for ``slow``.
CALL_FAULTS: Mapping[str, str] = {
    "http-5xx": "answers 500, 502, 503 or 504; nothing happened",
    "http-429": "answers 429 whatever the rate; nothing happened",
    "status-401": "answers 401",
    "status-402": "answers 402: out of credits",
    "status-403": "answers 403",
    "status-404": "answers 404",
    "status-410": "answers 410",
    "redirect": "answers 307 to another path",
    "drop-before": "the connection is closed; nothing happened",
    "drop-after": "the call takes effect and the connection is closed, half an answer sent or none",
    "commit-late": "creates only: answers 503, and the job appears commit-late-seconds later",
    "garbage": "takes effect; 200 with HTML or with JSON cut short",
    "gzip-bomb": "takes effect; 200 whose small body unpacks to 64 MiB",
    "hang": "takes effect and never answers",
    "slow": "takes effect; the answer comes so many seconds late",
}

#: On a job or an upload, once and for all. Probabilities, but for those that take a regular expression.
JOB_FAULTS: Mapping[str, str] = {
    "job-error": "ends in error, no rows",
    "job-stick": "never ends",
    "job-cancel": "ends cancelled",
    "job-unknown-status": "until it ends its status is a word that is not in the contract",
    "all-error": "every file of it fails",
    "error-with-rows": "ends in error, though some of its files have a result",
    "poison-matching": "REGEX: one matching file ends its whole job in error, no rows",
    "file-fails": "per file: no result for it",
    "fail-matching": "REGEX: no result for a matching file",
    "unsupported-matching": "REGEX: an upload with a matching name is refused",
    "parse-gone": "v2, per parse job: it is there no more, and a create on it is refused",
}

#: On a job's rows, per row but for ``page-loop`` (per job) and ``row-extra`` (per job). Probabilities.
ROW_FAULTS: Mapping[str, str] = {
    "row-missing": "the row is not there",
    "row-repeat": "the row is there twice",
    "row-conflict": "the row is there twice and the two disagree",
    "row-null-id": "the row's file_id is null",
    "row-extra": "one more row, for a file that was never sent",
    "label-unknown": "the type is none of the rules'",
    "hostile-text": "the reasoning is full of escape sequences, formulas and markup",
    "page-loop": "the results' next_page_token leads back to the same page",
}

_SECONDS = frozenset({"slow", "commit-late-seconds"})
_REGEXES = frozenset({"poison-matching", "fail-matching", "unsupported-matching"})
_KNOWN = (*CALL_FAULTS, "commit-late-seconds", *JOB_FAULTS, *ROW_FAULTS)

Faults = dict[str, float | str]


@dataclass(frozen=True)
class SandboxOptions:
    """How the sandbox behaves; the defaults are what the real API most likely does."""

    seed: int = 0  #: the same seed and the same requests replay the same story
    key: str | None = None  #: the only key accepted; None: any that is not empty
    faults: Mapping[str, float | str] = field(default_factory=dict)  #: see ``parse_faults``; may change while it runs
    clock: Clock = field(default_factory=SystemClock)

    # How fast. Per second unless it says otherwise; 0 is no limit.
    creates_per_s: float = 40.0
    gets_per_s: float = 80.0  #: reads of one job, results included, and cancel and delete
    lists_per_s: float = 5.0
    uploads_per_s: float = 10.0  #: counted over 5 s: 50 may come at once
    calls_per_minute: float = 0.0  #: over all kinds together; the free tier has 20
    window: Literal["sliding", "fixed", "bucket"] = "sliding"
    retry_after: bool = False  #: 429 carries ``Retry-After``; the real API's does not

    # How long. Seconds.
    job_seconds: tuple[float, float] = (1.0, 2.5)
    commit_delay_s: float = 0.0  #: from a create's answer until the job can be read
    list_lag_s: float = 0.0  #: from a job's creation until lists show it
    file_seconds: float = 0.0  #: from an upload until the file has expired; 0: never
    file_lag_s: float = 0.0  #: from an upload until lists show the file
    usage_on: Literal["get", "both"] = "get"  #: v2: which calls report credits: of one job, or lists too
    usage_lag_s: float = 0.0  #: v2: from a job's end until its credits are known

    # What the contract leaves open.
    early_results: Literal["404", "empty"] = "404"  #: v1: results of a job that has not ended
    error_results: Literal["rows", "empty", "404"] = "rows"  #: v1: results of a job that ended in error
    failed_file: Literal["null", "missing"] = "null"  #: v1: a failed file has a row with ``result: null``, or none
    id_form: Literal["canonical", "as-sent", "upper", "dfl"] = "canonical"  #: how answers spell the UUID of a file
    shuffled: bool = True  #: v1: rows are not in the order of ``file_ids``
    both_page_fields: Literal["accept", "refuse"] = "accept"  #: ``max_pages`` beside ``target_pages``
    max_files: int = 0  #: uploads beyond so many are refused with 402; 0: no limit
    max_upload_bytes: int = 512 * 1024 * 1024  #: larger uploads are refused with 413
    #: IDs never uploaded: a made-up answer; 400; or ``uploads``: 400 for those that look like an upload's (``dfl-``)
    unknown_files: Literal["accept", "uploads", "refuse"] = "uploads"
    strict_ids: bool = True  #: v1: file IDs must be a UUID, bare or after ``dfl-``
    bare_list: bool = False  #: v1: lists are an array without paging
    page_size: int = 50  #: lists that ask for none
    max_page_size: int | None = None  #: v1: most jobs in a page, whatever is asked
    results_page_size: int | None = None  #: v1: rows in a page of results; None: all in one
    refusal: int = 409  #: v2: cancel of an ended job, delete of one that has not
    null_share: float = 0.06  #: of made-up answers: no rule matched


class FaultError(InputError, ValueError):
    """A fault or switch that can't be used; the message names what is allowed."""


def parse_faults(items: Iterable[str]) -> Faults:
    """``["drop-after=0.03", "create.http-5xx=0.1"]`` as a dict. Raises FaultError, a ValueError."""
    return dict(map(_parse, items))


def parse_switches(items: Iterable[str]) -> dict[str, Any]:
    """``["window=fixed", "job_seconds=0.5,2"]`` as arguments of SandboxOptions. Raises FaultError."""
    return dict(map(_switch, items))


def _switch(item: str) -> tuple[str, Any]:
    name, _, text = item.partition("=")
    kinds = {name: kind for name, kind in get_type_hints(SandboxOptions).items() if name not in _OWN_FLAGS}
    name = name.replace("-", "_")
    if name not in kinds:
        raise FaultError(f"switch {item!r}: must be NAME=VALUE with one of these names: {', '.join(kinds)}")
    words = get_args(kinds[name])
    try:
        if kinds[name] is bool:
            return name, {"true": True, "false": False}[text]
        if get_origin(kinds[name]) is tuple:
            low, high = map(float, text.split(","))
            return name, (low, high)
        if get_origin(kinds[name]) is Literal:
            return name, words[words.index(text)]
        number = float(text) if kinds[name] is float else int(text)
        if not 0 <= number < float("inf"):
            raise ValueError(text)
    except (ValueError, KeyError):
        fits = " or ".join(words) if get_origin(kinds[name]) is Literal else _FORMS.get(kinds[name], "a whole number")
        raise FaultError(f"switch {item!r}: {text!r} must be {fits}") from None
    return name, number


#: Options of SandboxOptions that have a flag of their own, or none.
_OWN_FLAGS = frozenset({"seed", "key", "faults", "clock"})
_FORMS: Mapping[Any, str] = {
    bool: "true or false",
    float: "a number, 0 or more",
    tuple[float, float]: "two numbers of seconds, such as 0.5,2",
}


def _parse(item: str) -> tuple[str, float | str]:
    given, equals, text = item.partition("=")
    kind, dot, name = given.rpartition(".")
    if not equals or name not in _KNOWN or (dot and (kind not in KINDS or name not in CALL_FAULTS)):
        raise FaultError(
            f"fault {item!r}: must be NAME=VALUE with one of these names: {', '.join(_KNOWN)}; "
            f"those on calls may be narrowed to KIND.NAME, KIND being one of {', '.join(KINDS)}"
        )
    if name in _REGEXES:
        try:
            re.compile(text)
        except re.error as error:
            raise FaultError(f"fault {item!r}: not a regular expression: {error}") from None
        return given, text
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    top, meaning = (86_400.0, "seconds") if name in _SECONDS else (1.0, "a probability from 0 to 1")
    if not 0 <= value <= top:
        raise FaultError(f"fault {item!r}: {text!r} must be {meaning}")
    return given, value
