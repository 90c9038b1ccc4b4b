"""Answers that do not help: lost, refused, throttled."""

from __future__ import annotations

import json
import time
from email.utils import formatdate
from typing import Any

from hostile.wire import Answer, Manner

DETAILS = {
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request timeout",
    409: "Duplicate resource",
    429: "Rate limit exceeded. Maximum 40 classify job creations per second.",
    503: "Classify endpoints are currently unavailable.",
}


def said(value: Any, status: int = 200, manner: Manner = Manner.PLAIN) -> Answer:
    """*value* as JSON."""
    return Answer(status, json.dumps(value).encode(), manner)


def refused(status: int, manner: Manner = Manner.PLAIN) -> Answer:
    """*status* with what the API has to say about it."""
    if status == 422:
        problem = {"loc": ["query", "page_size"], "msg": "Input should be less", "type": "less_than_equal"}
        return said({"detail": [problem]}, status, manner)
    return said({"detail": DETAILS.get(status, f"Something is wrong. Correlation ID: {status}")}, status, manner)


def lost(form: str, job: Any) -> Answer:
    """An answer to a create call from which nobody learns the ID of *job*, which is None when none was made."""
    match form:
        case "silent" | "reset" | "cut" | "hang":
            return said(job, manner=Manner(form))
        case "204":
            return Answer(204, b"")
        case _ if form.isdigit():
            return refused(int(form))
        case "garbage":
            return Answer(200, b"\x00\xff\xfe{]")
        case "html":
            return Answer(200, b"<html><body>Welcome</body></html>", Manner.PLAIN, {"Content-Type": "text/html"})
        case "no id" | "null id" if job:
            rest = {name: value for name, value in job.items() if name != "id"}
            return said(rest | ({"id": None} if form == "null id" else {}))
        case "truncated" if job:
            return Answer(200, json.dumps(job).encode()[:-20])
        case "array":
            return said([job] if job else [])
        case _:
            return Answer(200, b"")


def throttled(status: int, retry_after: str | None) -> Answer:
    """Told to wait."""
    answer = refused(status)
    if retry_after is None:
        return answer
    dates = {"past": -3600, "near": 1}
    text = formatdate(time.time() + dates[retry_after], usegmt=True) if retry_after in dates else retry_after
    text = "Fri, 31 Dec 9999 23:59:59 GMT" if text == "year9999" else text
    return Answer(answer.status, answer.body, headers={"Retry-After": text.encode().decode("latin-1")})
