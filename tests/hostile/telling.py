"""How jobs and results are reported in JSON, honestly or oddly: v1's words and v2's."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from hostile.books import PROJECT, USER, Books, Job, canonical, fraction
from hostile.temper import Temper

Json = Any

#: A field that is left out.
ABSENT = object()

V2_WORDS = {"PENDING": "PENDING", "SUCCESS": "COMPLETED", "PARTIAL_SUCCESS": "COMPLETED", "ERROR": "FAILED"}


def _at(seconds: float) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)


def stamp(kind: str, at: float) -> Json:
    """The moment *at* (seconds since 1970) in the way *kind* names."""
    plain = _at(at).isoformat().replace("+00:00", "Z")
    match kind:
        case "absent":
            return ABSENT
        case "null":
            return None
        case "year1":
            return "0001-01-01T00:00:00Z"
        case "constant":
            return "2024-02-29T12:00:00Z"
        case "two hours early":
            return _at(at - 7200).isoformat()
        case "eight hours off":
            return _at(at + 8 * 3600).isoformat()
        case "a day late":
            return _at(at + 86400).isoformat()
        case "a minute late":
            return _at(at + 60).isoformat()
        case "before":
            return _at(at - 100).isoformat()
        case "naive":
            return plain.removesuffix("Z")
        case "space":
            return plain.replace("T", " ")
        case "offset":
            return _at(at).astimezone().isoformat().replace("+00:00", "+14:00")
        case "number":
            return at
        case "year9999":
            return "9999-12-31T23:59:59.999999-12:00"
        case "garbage":
            return "the day before yesterday"
        case "leap second":
            return "2016-12-31T23:59:60Z"
        case _:
            return plain


def _without_absent(fields: Mapping[str, Json]) -> dict[str, Json]:
    return {name: value for name, value in fields.items() if value is not ABSENT}


def _echoed(config: dict[str, Json], odd: tuple[str, ...]) -> dict[str, Json]:
    """Rules, mode and parsing configuration of a create call, as a server may repeat them."""
    rules = [dict(rule) for rule in config["rules"]]
    parsing: Json = dict(config["parsing_configuration"])
    mode: Json = config["mode"]
    told: Json = rules
    for name in odd:
        match name:
            case "no mode":
                mode = ABSENT
            case "null mode":
                mode = None
            case "lower mode":
                mode = str(config["mode"]).lower()
            case "no parsing":
                parsing = ABSENT
            case "null parsing":
                parsing = None
            case "empty parsing":
                parsing = {}
            case "white space":
                told = [{**rule, "description": f" {rule['description'].replace(' ', '  ', 1)}\n"} for rule in rules]
            case "trimmed":
                told = [{**rule, "description": " ".join(rule["description"].split())} for rule in rules]
            case "rules reordered":
                told = rules[::-1]
            case "no rules":
                told = ABSENT
            case "null rules":
                told = None
            case "empty rules":
                told = []
            case "rules dict":
                told = {rule["type"]: rule["description"] for rule in rules}
            case _ if isinstance(parsing, dict):
                parsing = _parsing(parsing, name)
            case _:
                pass
    return _without_absent({"rules": told, "mode": mode, "parsing_configuration": parsing})


def _parsing(parsing: dict[str, Json], name: str) -> dict[str, Json]:
    changes: dict[str, dict[str, Json]] = {
        "null max_pages": {"max_pages": None},
        "no max_pages": {"max_pages": ABSENT},
        "no lang": {"lang": ABSENT},
        "lang list": {"lang": [parsing.get("lang", "en")]},
        "text max_pages": {"max_pages": str(parsing.get("max_pages", 5))},
        "null target_pages": {"target_pages": None},
        "extra": {"ocr": True},
    }
    return _without_absent({**parsing, **changes.get(name, {})})


def status(job: Job, books: Books, temper: Temper, now: float) -> Json:
    """The status word of *job*; v1's, for v2 to be translated."""
    truths = [books.truth(file_id) for file_id in job.files]
    if not job.over(now):
        early = {"unknown first": "QUEUED", "null first": None, "lower": "pending", "spaced": " PENDING"}
        return early.get(temper.words, "PENDING")
    if temper.words == "back and forth" and int(now * 5) % 3 == 0 and now < job.born + job.lasts_s + 2:
        return "PENDING"
    if books.came_to_nothing(job):
        word = "ERROR"
    else:
        word = "PARTIAL_SUCCESS" if any(truth.failed for truth in truths) else "SUCCESS"
    return {"lower": word.lower(), "spaced": f" {word}"}.get(temper.words, word)


def job(job: Job, books: Books, temper: Temper, now: float, *, listed: bool = False) -> dict[str, Json]:
    """*job* as create, get and list tell it."""
    odd = temper.echo if listed or temper.echo_known_too else ()
    strange = fraction(books.seed, "stamps", job.id) < temper.odd_jobs
    created, updated = (temper.created, temper.updated) if strange else ("told", "told")
    last = job.stamp + (job.lasts_s if job.over(now) else 0.0)
    word = status(job, books, temper, now)
    config = {name: job.asked[name] for name in ("rules", "mode", "parsing_configuration")}
    fields = {
        "id": job.id.upper() if "upper id" in odd and job.api == "v1" else job.id,
        "project_id": ABSENT if "no project" in odd else None if "null project" in odd else PROJECT,
        "user_id": USER,
        "status": ABSENT if "no status" in odd and not job.over(now) else word,
        "created_at": stamp(created, job.stamp),
        "updated_at": stamp(updated, last),
        "error_message": "it could not be read" if word == "ERROR" else None,
        "not_in_the_contract": {"deep": [1, None]} if "extra" in odd else ABSENT,
    }
    if job.api == "v1":
        return _without_absent(fields | _echoed(config, odd))
    if isinstance(word, str):
        fields["status"] = V2_WORDS.get(
            word, {v.lower(): V2_WORDS[v] for v in V2_WORDS}.get(word.strip().lower(), word)
        )
        if temper.words == "lower":
            fields["status"] = fields["status"].lower()
    fields |= {
        "file_input": job.files[0],
        "document_input_type": "file_id",
        "configuration": _echoed(config, odd),
        "transaction_id": job.asked.get("transaction_id"),
        "result": _v2_result(job, books, temper, now),
    }
    return _without_absent(fields)


def _verdict(file_id: str, books: Books, temper: Temper) -> Json:
    truth = books.truth(file_id)
    if truth.failed or truth.sinks:
        return None
    answer = {"type": truth.type, "confidence": 0.9, "reasoning": "it looks like one. " + "é" * temper.padding}
    changes: dict[str, tuple[str, Json]] = {
        "text confidence": ("confidence", "0.9"), "big confidence": ("confidence", 1.7),
        "null confidence": ("confidence", None), "no confidence": ("confidence", ABSENT),
        "no reasoning": ("reasoning", ABSENT), "null reasoning": ("reasoning", None),
        "whole confidence": ("confidence", 1), "nested": ("reasoning", "é\u0000\ud83d" + "[" * 50),
        "extra": ("why", [truth.type]),
    }  # fmt: skip
    for name in temper.rows:
        if name in changes:
            field, value = changes[name]
            answer[field] = value
    return _without_absent(answer)


def _v2_result(job: Job, books: Books, temper: Temper, now: float) -> Json:
    if not job.over(now) or (now < job.born + job.lasts_s + temper.late_s and temper.late_s):
        return None
    return _verdict(job.files[0], books, temper)


def rows(job: Job, books: Books, temper: Temper, now: float) -> Json:
    """What v1's results route says of an ended job, as a whole."""
    items: list[Json] = []
    if not books.sunk(job):
        items = [_row(job, number, file_id, books, temper) for number, file_id in enumerate(job.files)]
    job.told += 1
    if now < job.born + job.lasts_s + temper.late_s:
        match temper.late:
            case "none":
                items = []
            case "null":
                items = [{**item, "result": None} for item in items]
            case "part":
                items = items[: len(items) // 2]
            case "shrinking":
                items = items[: max(0, len(items) - job.told)]
            case _:
                pass
    elif temper.rows:
        items = _odd_rows(job, items, books, temper)
    return {"items": items, "next_page_token": None, "total_size": None}


def _row(job: Job, number: int, file_id: str, books: Books, temper: Temper) -> dict[str, Json]:
    odd = temper.rows
    row_id: Json = f"{int(fraction(books.seed, job.id, number) * (1 << 48)):032x}"
    if number == 0:
        row_id = 7 if "number id" in odd else None if "null id" in odd else ABSENT if "no id" in odd else row_id
    told = file_id
    if "upper case" in odd:
        told = told.upper().replace("DFL-", "dfl-")
    if "prefixed" in odd:
        told = f"dfl-{canonical(told)}"
    times = {} if "no times" in odd else {"created_at": stamp("told", job.stamp), "updated_at": None}
    fields = {"id": row_id, "classify_job_id": job.id, "file_id": told, "result": _verdict(file_id, books, temper)}
    return _without_absent(fields | times)


def _odd_rows(job: Job, items: list[Json], books: Books, temper: Temper) -> list[Json]:
    """Rows beside those of the job's files, and their order."""
    more: list[Json] = []
    stranger = "aaaaaaaa-0000-4000-8000-000000000000"
    wrong = {"type": "receipt", "confidence": 0.99, "reasoning": "of another job"}
    for name in temper.rows:
        match name:
            case "twice":
                more += items
            case "twice null":
                more += [{**item, "result": None} for item in items]
            case "twice reasoning":
                more += [{**item, "result": item["result"] and {**item["result"], "reasoning": "x"}} for item in items]
            case "nameless" if len(items) == 1:
                items = [{**items[0], "file_id": None}]
            case "other job" if items:
                more.append({**items[0], "classify_job_id": stranger, "result": wrong})
            case "never sent":
                more.append({"id": stranger, "classify_job_id": job.id, "file_id": stranger, "result": wrong})
            case "null row":
                more.append(None)
            case "text row":
                more.append("row")
            case _:
                pass
    told = more + items if fraction(books.seed, job.id, "front") < 0.5 else items + more
    if "shuffled" in temper.rows:
        random.Random(f"{books.seed} {job.id}").shuffle(told)
    return told
