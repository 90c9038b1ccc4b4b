"""What every failure of a call proves: surely not sent, refused, or perhaps done."""

from __future__ import annotations

import errno
import inspect
import json
import ssl

import httpcore
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.api import status_codes
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

#: The classes that were seen, against real sockets, only when not one byte had left.
PROVEN = {"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol", "InvalidURL"}


def exceptions_of(module: object) -> list[type[Exception]]:
    found = [value for _, value in inspect.getmembers(module, inspect.isclass)]
    return [value for value in found if issubclass(value, Exception)]


def made(kind: type[Exception]) -> Exception:
    """An instance, whatever its constructor asks for."""
    error = kind.__new__(kind)
    Exception.__init__(error, "boom")
    return error


@pytest.mark.parametrize("kind", exceptions_of(httpx) + exceptions_of(httpcore), ids=lambda kind: kind.__qualname__)
def test_only_the_proven_classes_mean_that_nothing_was_sent(kind: type[Exception]) -> None:
    """Every exception that httpx has, and every one below it, is ambiguous unless it is one of the six."""
    proven = kind.__module__.startswith("httpx") and kind.__name__ in PROVEN
    assert type(status_codes.of_transport(made(kind))) is (NotSent if proven else Ambiguous)


def test_every_proven_class_exists() -> None:
    """The list above names classes that httpx really has."""
    assert {kind.__name__ for kind in exceptions_of(httpx)} >= PROVEN


@pytest.mark.parametrize("error", [TimeoutError(), OSError("x"), ssl.SSLError("x"), RuntimeError("x")])
def test_what_is_no_httpx_error_is_ambiguous(error: Exception) -> None:
    """The total deadline, or whatever else, proves nothing."""
    assert type(status_codes.of_transport(error)) is Ambiguous


def test_an_untrusted_certificate_ends_the_run() -> None:
    """Trying again does not make a certificate better, wherever in the chain of causes it stands."""
    error = httpx.ConnectError("failed")
    error.__cause__ = ssl.SSLCertVerificationError("CERTIFICATE_VERIFY_FAILED: self-signed")
    assert type(status_codes.of_transport(error)) is Unreachable


def of(status: int, body: bytes = b"", headers: dict[str, str] | None = None, *, creating: bool = True) -> ApiError:
    with pytest.raises(ApiError) as caught:
        status_codes.of_response(status, httpx.Headers(headers or {}), body, creating=creating)
    return caught.value


STOPS = {401: Unauthorized, 402: OutOfCredits, 403: Unauthorized, 429: Throttled}


def expected(status: int, *, creating: bool) -> type[ApiError]:
    if status in STOPS:
        return STOPS[status]
    if 300 <= status < 400:
        return Redirected
    if status in (408, 409, 425) or not 400 <= status < 500:
        return Ambiguous
    if creating and status in (404, 410):  # with an empty body: no such route
        return Unreachable
    return Rejected


@pytest.mark.parametrize("creating", [True, False])
def test_every_status_code_has_its_kind(creating: bool) -> None:
    """All codes from 100 to 999 but the good ones."""
    for status in (*range(100, 200), *range(300, 1000)):
        assert type(of(status, creating=creating)) is expected(status, creating=creating), status


@pytest.mark.parametrize("status", [200, 201, 202, 299])
def test_every_2xx_is_an_answer(status: int) -> None:
    """The contract says 200; a server that says 201 has created the job all the same."""
    assert status_codes.of_response(status, {}, b'{"id": "a"}', creating=True) == {"id": "a"}


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b'{"id": ', b"\xff\xfe", b"[" * 200_000], ids=lambda body: repr(body[:6])
)
def test_a_yes_that_cannot_be_read_is_ambiguous_and_surely_created(body: bytes) -> None:
    """HTML, half of an answer, other bytes, endless depth."""
    error = of(200, body)
    assert isinstance(error, Ambiguous)
    assert error.created


def test_an_endless_number_makes_nothing_else_unreadable() -> None:
    """Python reads none of over 4,300 digits; neither an answer nor the words of a refusal are lost for it."""
    digits = b"9" * 5000
    answer = status_codes.of_response(200, {}, b'{"id": "a", "total_size": %s}' % digits, creating=True)
    assert answer == {"id": "a", "total_size": digits.decode()}
    assert str(of(400, b'{"detail": "no such file", "code": %s}' % digits)) == "400 no such file"


def test_a_missing_file_is_a_refusal_and_a_missing_route_is_the_end() -> None:
    """The framework's own 404 has no other words than "Not Found"."""
    assert type(of(404, b'{"detail": "Not Found"}')) is Unreachable
    assert type(of(404, b'{"detail": "Classify configuration cfg-1 not found"}')) is Rejected
    assert type(of(404, b'{"detail": "Not Found"}', creating=False)) is Rejected
    assert type(of(410, b'{"detail": "v1 is gone"}')) is Unreachable


def test_a_refusal_carries_the_status_and_the_apis_words() -> None:
    """A person reads why."""
    error = of(400, b'{"detail": "File ID a is not in Project ID b"}')
    assert isinstance(error, Rejected)
    assert (error.status, str(error)) == (400, "400 File ID a is not in Project ID b")


def test_validation_errors_name_their_field() -> None:
    """422 bodies are a list."""
    body = {"detail": [{"loc": ["body", "rules", 0, "description"], "msg": "too short", "type": "t"}, "odd", {"x": 1}]}
    assert str(of(422, json.dumps(body).encode())) == "422 body.rules.0.description: too short; odd; :"


@given(
    st.binary() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda v: json.dumps(v).encode())
)
def test_no_error_body_is_too_odd_to_be_told(body: bytes) -> None:
    """Whatever a refusal's body is, its detail is a short text."""
    assert len(status_codes.detail(body)) <= 500


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_no_detail_is_too_odd_to_be_told(value: object) -> None:
    """Whatever stands under ``detail``, too."""
    body = json.dumps({"detail": value}).encode()
    assert len(status_codes.detail(body)) <= 500
    assert len(status_codes.detail(json.dumps({"detail": [{"loc": value, "msg": value}]}).encode())) <= 500


DATE = "Wed, 25 Nov 2026 02:00:00 GMT"


def wait(value: str, date: str = DATE) -> float | None:
    return status_codes.retry_after_s(httpx.Headers({b"retry-after": value.encode(), b"date": date.encode()}))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("007", 7.0),
        ("3600", 3600.0),
        ("3601", 3600.0),
        ("999999999", 3600.0),
        ("1234567890", 3600.0),
        ("9" * 400, 3600.0),
        ("Wed, 25 Nov 2026 02:00:30 GMT", 30.0),
        ("Wed, 25 Nov 2026 03:00:30 +0100", 30.0),
        ("Wed, 25 Nov 2026 02:00:30 -0000", 30.0),
        ("Wed Nov 25 02:00:30 2026", 30.0),
        ("Wed, 25 Nov 2026 01:00:00 GMT", 0.0),
        ("Thu, 26 Nov 2026 02:00:00 GMT", 3600.0),
    ],
)
def test_retry_after_in_both_forms(value: str, seconds: float) -> None:
    """Seconds, or a date against the answer's own ``Date``; a date that has passed is 0, an hour is the most."""
    assert wait(value) == seconds


@pytest.mark.parametrize(
    "value",
    ["", "１２", "1_0", "nan", "inf", "-1", "+1", "1.5", "1e3", "0x10", "soon", "25 Nov", "99:99", "²"],
)
def test_what_is_not_a_wait_is_none(value: str) -> None:
    """Digits of other scripts and Python's own number spellings are not HTTP."""
    assert wait(value) is None


def test_a_date_without_the_answers_own_date_is_none() -> None:
    """This machine's clock is never asked."""
    assert wait("Wed, 25 Nov 2026 02:00:30 GMT", date="") is None


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_no_retry_after_is_too_odd(value: str) -> None:
    """Any text gives None or a wait within an hour."""
    found = status_codes.retry_after_s({"retry-after": value, "date": DATE})
    assert found is None or 0 <= found <= 3600


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_no_date_is_too_odd(value: str) -> None:
    """A date is aware or None."""
    found = status_codes.http_date(value)
    assert found is None or found.tzinfo is not None


OF_A_KEY = b'{"detail": "this key is of another region"}'
OF_A_FILE = b'{"detail": "file a is of another project"}'
CREDITS = b'{"detail": "monthly credits exceeded"}'


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (httpx.ConnectError("refused"), NotSent, "no connection to the API (ConnectError: refused)"),
        (
            httpx.ProxyError("407"),
            NotSent,
            "the proxy does not let us through (ProxyError: 407); see HTTPS_PROXY and NO_PROXY",
        ),
        (httpx.ReadTimeout("late"), Ambiguous, "no answer from the API (ReadTimeout: late)"),
        (TimeoutError(), Ambiguous, "no answer from the API (TimeoutError)"),
    ],
)
def test_a_failure_is_told_in_words(error: Exception, kind: type[ApiError], words: str) -> None:
    """With the class, and what it says if it says something."""
    found = status_codes.of_transport(error)
    assert (type(found), str(found)) == (kind, words)


@pytest.mark.parametrize(
    "cause", [ssl.SSLCertVerificationError("self-signed"), OSError("[SSL: CERTIFICATE_VERIFY_FAILED] unknown issuer")]
)
def test_a_certificate_error_is_known_by_its_class_or_its_words(cause: Exception) -> None:
    """Either is enough; libraries wrap it."""
    error = httpx.ConnectError("failed")
    error.__context__ = cause
    assert type(status_codes.of_transport(error)) is Unreachable


@pytest.mark.parametrize(
    ("status", "creating", "kind"),
    [
        (402, True, OutOfCredits),
        (402, False, OutOfCredits),
        (429, True, OutOfCredits),
        (429, False, Throttled),
        (428, True, Rejected),
        (430, True, Rejected),
        (500, True, Ambiguous),
    ],
)
def test_words_about_credits_count_in_a_429_to_a_create_alone(
    status: int, creating: bool, kind: type[ApiError]
) -> None:
    """No waiting helps against that one."""
    assert type(of(status, CREDITS, creating=creating)) is kind


@pytest.mark.parametrize(
    ("status", "creating", "body", "sure"),
    [
        (401, True, b"<html>", True),
        (401, True, OF_A_FILE, True),
        (403, True, b"<html>", False),
        (403, True, OF_A_FILE, False),
        (403, True, OF_A_KEY, True),
        (403, False, b"<html>", True),
        (403, False, OF_A_FILE, True),
    ],
)
def test_a_403_to_a_create_is_of_the_key_only_in_the_apis_own_words(
    status: int, creating: bool, body: bytes, sure: bool
) -> None:
    """A proxy's page, or a refusal of one file, does not end the run at once."""
    error = of(status, body, creating=creating)
    assert isinstance(error, Unauthorized)
    assert error.sure is sure


@pytest.mark.parametrize(
    ("status", "cancelling", "kind"),
    [
        (409, True, Rejected),
        (409, False, Ambiguous),
        (408, True, Ambiguous),
        (425, True, Ambiguous),
        (410, True, Rejected),
        (500, True, Ambiguous),
    ],
)
def test_a_conflict_with_a_cancel_says_that_the_job_has_ended(
    status: int, cancelling: bool, kind: type[ApiError]
) -> None:
    """With any other call it may be a call in progress."""
    with pytest.raises(ApiError) as caught:
        status_codes.of_response(status, {}, b'{"detail": "ended"}', creating=False, cancelling=cancelling)
    assert type(caught.value) is kind


def test_only_2xx_is_an_answer_however_good_the_body() -> None:
    """The codes beside them too."""
    assert type(of(199, b'{"id": "a"}')) is Ambiguous
    assert type(of(300, b'{"id": "a"}')) is Redirected


def test_long_refusals_are_cut() -> None:
    """To five validation errors, and to 500 characters."""
    errors = [{"loc": ["body", n], "msg": "bad"} for n in range(7)]
    found = status_codes.detail(json.dumps({"detail": errors}).encode())
    assert found == "; ".join(f"body.{n}: bad" for n in range(5))
    assert status_codes.detail(json.dumps({"detail": "x" * 900}).encode()) == "x" * 500


def test_a_refused_connection_is_no_want_of_descriptors() -> None:
    """Both are errors of the operating system."""
    error = httpx.ConnectError("refused")
    error.__cause__ = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
    assert not status_codes.has_no_file_left(error)
    error.__cause__ = OSError(errno.EMFILE, "too many open files")
    assert status_codes.has_no_file_left(error)
