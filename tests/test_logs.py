"""Log lines: one JSON object each, whatever is in them, and no secret in any."""

from __future__ import annotations

import base64
import io
import json
import logging
import warnings
from collections.abc import Iterator
from urllib.parse import quote

import httpx
import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.server import CANARY

from orchestrator import logs
from orchestrator.logs import HIDDEN, Redactor


@pytest.fixture
def out(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Where the log goes, at its most talkative, with the canary as a secret; everything as it was afterwards."""
    monkeypatch.setattr(logs, "redactor", Redactor())
    logs.redactor.add([CANARY])
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    logs.configure("DEBUG", stream=stream)
    yield stream
    structlog.reset_defaults()
    for handler in root.handlers[:]:
        root.removeHandler(handler)
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level)


def lines(out: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_line_is_one_json_object(out: io.StringIO) -> None:
    """With its time in UTC, level and event, in that order, so that a pattern can match them."""
    structlog.get_logger().info("job.submitted", chunk_id=7)
    (line,) = lines(out)
    assert (line["event"], line["level"], line["chunk_id"]) == ("job.submitted", "info", 7)
    assert str(line["timestamp"]).endswith("Z")
    assert list(line)[:3] == ["timestamp", "level", "event"]


@given(st.text(st.characters()))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_hostile_text_stays_inside_its_line(out: io.StringIO, text: str) -> None:
    """Escapes, line breaks, direction marks and halves of characters are spelled out, and nothing is lost."""
    out.seek(0)
    out.truncate()
    structlog.get_logger().warning("file.odd", words=text)
    written = out.getvalue()
    assert written.isascii()
    assert all(char >= " " for char in written.removesuffix("\n"))
    assert lines(out)[0]["words"] == text


@pytest.mark.parametrize(
    "text",
    [
        CANARY,
        f"Bearer {CANARY}",
        f"https://x/?key={CANARY}&a=b",
        base64.b64encode(CANARY.encode()).decode(),
        quote("a/b " + CANARY, safe=""),
    ],
)
def test_a_secret_never_gets_into_a_line(out: io.StringIO, text: str) -> None:
    """Not as an event, a text, inside a value of any kind, nor encoded."""
    log = structlog.get_logger()
    log.info(text)
    log.info("a", words=text)
    log.info("a", headers={"authorization": text}, more=[text, (text,)])
    log.info("a", error=ValueError(text))
    log.info("a", raw=text.encode())
    log.info("%s", text)
    assert CANARY not in out.getvalue()
    assert text not in out.getvalue()
    assert len(lines(out)) == 6


@pytest.mark.parametrize(
    "secret", ['quo"ted-secret', "quo'ted-secret", "back\\slash", "ünï-cödé", "line\nbreak", "漢字漢字漢字漢字"]
)
def test_a_secret_that_json_or_python_would_spell_otherwise_is_hidden(out: io.StringIO, secret: str) -> None:
    """Webhook secrets and header values are free text."""
    logs.redactor.add([secret])
    log = structlog.get_logger()
    try:
        raise ValueError(secret)
    except ValueError:
        log.exception("failed", words=secret, error=ValueError(secret), raw={"a": [secret]})
    logging.getLogger("some.library").warning("%r %s %a", secret, json.dumps(secret), secret)
    for form in (secret, repr(secret)[1:-1], ascii(secret)[1:-1], json.dumps(secret)[1:-1]):
        assert form not in out.getvalue()


def test_a_traceback_shows_neither_secrets_nor_the_values_of_variables(out: io.StringIO) -> None:
    """A bug is logged with its frames; what stood in them may be a document or a key."""

    def fail(private: str) -> None:
        raise RuntimeError(f"failed with {CANARY} {len(private)}")

    try:
        fail("the-text-of-a-document")
    except RuntimeError:
        structlog.get_logger().exception("run.crashed")
    (line,) = lines(out)
    assert HIDDEN in json.dumps(line)
    assert CANARY not in out.getvalue()
    assert "the-text-of-a-document" not in out.getvalue()


def test_other_libraries_logs_are_filtered_too(out: io.StringIO) -> None:
    """Whatever writes through the standard library's logging passes the same filter, tracebacks included."""
    log = logging.getLogger("some.library")
    log.warning("key %s", CANARY)
    try:
        raise ValueError(CANARY)
    except ValueError:
        log.exception("failed")
    assert "some.library" in out.getvalue()
    assert CANARY not in out.getvalue()


def test_httpx_does_not_tell_of_its_requests(out: io.StringIO) -> None:
    """At INFO it would log every URL with its query, and at DEBUG headers."""
    with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200))) as client:
        client.get(f"https://user:{CANARY}@example.com/?token={CANARY}")
    assert out.getvalue() == ""


def test_only_lines_of_the_level_are_written(out: io.StringIO) -> None:
    """And with quiet only errors."""
    logs.configure("WARNING", stream=out)
    structlog.get_logger().info("a")
    structlog.get_logger().warning("b")
    logs.configure("DEBUG", stream=out, quiet=True)
    structlog.get_logger().warning("c")
    structlog.get_logger().error("d")
    assert [line["event"] for line in lines(out)] == ["b", "d"]


def test_a_log_that_cannot_be_written_stops_nothing(out: io.StringIO) -> None:
    """A full disk under the log must not end a run that was paid for."""
    with open("/dev/full", "w", buffering=1) as full:  # noqa: PTH123 - the name of a device
        logs.configure("DEBUG", stream=full)
        structlog.get_logger().error("a")
        logging.getLogger("some.library").error("b")
        logs.configure("DEBUG", stream=out)
        with pytest.raises(OSError, match="No space left"):
            full.close()


def test_longer_secrets_are_hidden_first() -> None:
    """A secret that contains another leaves no rest."""
    redactor = Redactor()
    redactor.add(["abcdefgh", "abcdefgh-ijkl"])
    assert redactor.text("abcdefgh-ijkl abcdefgh") == f"{HIDDEN} {HIDDEN}"


def test_very_short_secrets_are_left_alone() -> None:
    """They would blank out ordinary words."""
    redactor = Redactor()
    redactor.add(["", "a", "invoice"])
    assert redactor.text("an invoice") == "an invoice"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=8, max_size=40), st.text(), st.text())
def test_no_secret_survives_its_redaction(secret: str, before: str, after: str) -> None:
    """Whatever stands around it."""
    redactor = Redactor()
    redactor.add([secret])
    shown = redactor.text(before + secret + after)
    assert secret not in shown.replace(HIDDEN, "\x00")


def test_warnings_are_still_errors_here() -> None:
    """These tests change the process's logging; the suite's own strictness must survive it."""
    with pytest.raises(UserWarning):
        warnings.warn("x", UserWarning, stacklevel=1)
