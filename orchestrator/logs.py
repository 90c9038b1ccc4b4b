"""The only structlog set-up: one JSON object a line on stderr, and no secret in it.

Global by nature: structlog and logging are configured once for the process.
"""

from __future__ import annotations

import base64
import json
import logging
import sys
from collections.abc import Iterable, MutableMapping
from contextlib import suppress
from typing import Any, TextIO
from urllib.parse import quote

import structlog

HIDDEN = "[hidden]"


class Redactor:
    """Takes exact secrets, and the forms that base64, URLs, JSON and Python's repr give them, out of any text."""

    def __init__(self) -> None:
        self._secrets: list[str] = []

    def add(self, secrets: Iterable[str]) -> None:
        for secret in secrets:
            if len(secret) >= 8:  # shorter ones would blank out ordinary words
                encoded = base64.b64encode(secret.encode()).decode().rstrip("=")
                escaped = [repr(secret)[1:-1], ascii(secret)[1:-1], json.dumps(secret)[1:-1]]
                self._secrets += {secret, encoded, quote(secret, safe=""), *escaped}
        self._secrets.sort(key=len, reverse=True)

    def text(self, value: str) -> str:
        for secret in self._secrets:
            value = value.replace(secret, HIDDEN)
        return value

    def __call__(self, _: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {name: self._value(value) for name, value in event.items()}

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, int | float | bool) or value is None:
            return value
        return self.text(repr(value))


redactor = Redactor()


class _Filtered:
    """A stream that removes secrets, whatever library writes to it; a failing write stops no run."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(redactor.text(text))
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


def _in_order(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Put timestamp, level and event first: easier to read, and one pattern matches all three."""
    first = {name: event.pop(name) for name in ("timestamp", "level", "event")}
    return {**first, **event}


def configure(level: str, *, stream: TextIO | None = None, quiet: bool = False) -> None:
    """Log lines of *level* and above go to *stream* (stderr) as JSON; with *quiet* only errors do.

    ASCII only, so that no locale can break a line and no terminal escape gets through.
    """
    out = _Filtered(stream or sys.stderr)
    least = logging.ERROR if quiet else logging.getLevelNamesMapping()[level]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.ExceptionRenderer(
                structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=20)
            ),
            redactor,
            _in_order,
            structlog.processors.JSONRenderer(ensure_ascii=True, default=repr),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.PrintLoggerFactory(out),  # type: ignore[arg-type]  # it asks for no more than write and flush
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(stream=out, level=logging.WARNING, format="%(levelname)s %(name)s %(message)s", force=True)
    for noisy in ("httpx", "httpcore", "asyncio", "aiohttp"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
