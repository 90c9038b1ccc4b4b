"""How a call ended: every status code and every transport error becomes one error of ours, here and nowhere else.

The question is always the same: can the call have had its effect? *Surely not* (NotCreated, Rejected, RunStopped) or
*perhaps* (Ambiguous). Whatever this module does not know is *perhaps*: that is the direction that costs no money.
"""

from __future__ import annotations

import errno
import re
import ssl
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from orchestrator.errors import (
    Ambiguous,
    ApiError,
    NotSent,
    OutOfCredits,
    Redirected,
    Rejected,
    Throttled,
    Unauthorized,
    Unreachable,
)
from orchestrator.models import Json
from orchestrator.plaintext import json_of

#: Raised before the first byte of the request leaves, as measured against real sockets for httpx 0.28. A ProxyError is
#: a proxy's refusal to make the tunnel: the API never heard of the call.
NOT_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
)

#: 4xx that do not prove that nothing happened: timeouts, conflicts with a call in progress.
UNSURE_4XX = frozenset({408, 409, 425})

#: Longest pause that an API can ask for; a longer one is taken as this.
MAX_RETRY_AFTER_S = 3600.0

#: A 429 that no waiting helps against: the vendor also answers so for what a plan includes.
_OUT_OF_CREDITS = re.compile(
    r"(exceed|exhaust|used up|out of|no more|not enough|insufficient)[^.]*credit"
    r"|credit[^.]*(exceed|exhaust|used up|ran out|run out)|no quota left",
    re.IGNORECASE,
)

#: A refusal that names a file or document is of that one.
_OF_A_FILE = re.compile(r"\b(file|document)s?\b", re.IGNORECASE)

_SECONDS = re.compile(r"[0-9]+", re.ASCII)


def of_transport(error: Exception) -> ApiError:
    """Return the error that a failure to send or to receive proves."""
    words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, NOT_SENT):
        if _is_certificate_error(error):
            return Unreachable(
                f"the API's certificate is not trusted ({words}); if a company's proxy opens the traffic, "
                "name its certificates in SSL_CERT_FILE"
            )
        if isinstance(error, httpx.ProxyError):
            return NotSent(f"the proxy does not let us through ({words}); see HTTPS_PROXY and NO_PROXY")
        return NotSent(f"no connection to the API ({words})")
    return Ambiguous(f"no answer from the API ({words})")


def of_response(
    status: int, headers: Mapping[str, str], body: bytes, *, creating: bool, cancelling: bool = False
) -> Json:
    """The JSON of a good answer. Raises the error that any other answer stands for.

    *creating*: the call was a create, so a missing route is the end of this API and not of one job. *cancelling*: the
    call was a cancel, so a conflict says that the job has ended, however often it is asked.
    """
    if 200 <= status < 300:
        return read_json(body)
    words = f"{status} {detail(body)}".strip()
    if 300 <= status < 400:
        raise Redirected(f"the API answered with a redirect ({words}), which is never followed")
    if status == 402 or (status == 429 and creating and _OUT_OF_CREDITS.search(words)):
        raise OutOfCredits(f"the plan's credits are used up ({words})")
    if status == 429:
        raise Throttled(words, retry_after_s(headers))
    if status in (401, 403):
        raise Unauthorized(
            f"the API refuses the key ({words}); check LLAMA_CLOUD_API_KEY, its region and its project",
            sure=status == 401 or not creating or _is_of_the_key(body),
        )
    if (status in UNSURE_4XX and not (cancelling and status == 409)) or not 400 <= status < 500:
        raise Ambiguous(words, retry_after_s=retry_after_s(headers))
    if creating and (status == 410 or (status == 404 and is_missing_route(body))):
        raise Unreachable(
            f"the create route is gone ({words}); if this is v1, which left the vendor's reference in August 2026, "
            "the vendor has withdrawn it: set `api: v2`"
        )
    raise Rejected(words, status)


def read_json(body: bytes) -> Json:
    """Raises Ambiguous(created=True): the API said yes, in words that can't be read."""
    try:
        return json_of(body)
    except (ValueError, RecursionError) as error:
        raise Ambiguous(f"the API's answer is not JSON ({type(error).__name__})", created=True) from error


def is_missing_route(body: bytes) -> bool:
    """A framework's own 404 rather than one that names a file or a configuration."""
    return detail(body) in ("", "Not Found")


def _is_of_the_key(body: bytes) -> bool:
    """Whether a refusal is the API's own, in JSON, and about more than a file: a proxy's page says nothing of a key."""
    words = detail(body)
    return bool(words) and not _OF_A_FILE.search(words)


def detail(body: bytes) -> str:
    """The API's words in an error body, at most 500 characters: a text, or a list of validation errors."""
    try:
        found = json_of(body)["detail"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return ""
    if isinstance(found, list):
        found = "; ".join(_validation_error(item) for item in found[:5])
    return str(found)[:500]


def _validation_error(item: Json) -> str:
    if not isinstance(item, dict):
        return str(item)
    where = ".".join(map(str, item.get("loc", ()))) if isinstance(item.get("loc"), list) else ""
    return f"{where}: {item.get('msg', '')}"


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The wait that ``Retry-After`` asks for, in seconds; None when absent or unreadable.

    A date is taken against the answer's own ``Date``, never against this machine's clock.
    """
    value = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(value):
        return min(float(value), MAX_RETRY_AFTER_S)
    then, answered = http_date(value), http_date(headers.get("date", ""))
    if then is None or answered is None:
        return None
    return min(max((then - answered).total_seconds(), 0.0), MAX_RETRY_AFTER_S)


def http_date(value: str) -> datetime | None:
    """An HTTP date, aware; None when it is not one."""
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def has_no_file_left(error: BaseException) -> bool:
    """Whether this process may open no more files, and *error*, a call that was not sent, comes from that."""
    return any(isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE) for cause in _causes(error))


def _is_certificate_error(error: BaseException) -> bool:
    return any(
        isinstance(cause, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(cause)
        for cause in _causes(error)
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """*error* and what it comes from."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__
