"""Text from outside, read as JSON or made harmless for a terminal (no escape, line break, hidden mark); plurals;
errors that say the same.
"""

from __future__ import annotations

import json
import re
from typing import Any

#: Longest integer that is read as a number; Python refuses to read one of more than 4,300 digits.
MAX_DIGITS = 1000

#: C0, DEL, C1, zero-width, bidirectional controls, line separators, byte order mark, and half characters.
_HARMFUL = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069\ufeff\ud800-\udfff]")

#: What ``safe`` writes for such a character.
_SPELT_OUT = re.compile(r"\\(?:[tnr]|x[0-9a-f]{2}|u[0-9a-f]{4})")

#: What differs from file to file in otherwise equal words: IDs, names in quotes, paths, numbers.
_VARYING = re.compile(
    r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F-]{10,}|\b[0-9a-fA-F]{16,}\b|'[^']{1,200}'|\"[^\"]{1,200}\"|\d+(?:[-.:,]\d+)*"
)


def json_of(text: str | bytes) -> Any:
    """The JSON in *text*; an endless integer in it is the text of its digits, and makes nothing else unreadable.

    Raises ValueError, RecursionError.
    """
    return json.loads(text, parse_int=lambda digits: int(digits) if len(digits) <= MAX_DIGITS else digits)


def cause(words: str) -> str:
    """*words* without what differs from file to file: equal for failures of the same cause."""
    return " ".join(_VARYING.sub("…", words).split()).casefold()


def amount(value: float) -> str:
    """``12,345``; two digits of a fraction, where there is one."""
    return f"{value:,.2f}".removesuffix(".00")


def counted(number: float, noun: str) -> str:
    """``1 file``, ``2,000 files``, ``0.25 credits``."""
    return f"{amount(number)} {noun}" if number == 1 else f"{amount(number)} {noun}s"


def safe(text: object, most: int | None = None) -> str:
    """*text* on one line, harmful characters spelled out as ``\\x1b``; at most *most* characters."""
    shown = _HARMFUL.sub(lambda match: ascii(match[0])[1:-1], str(text))
    return shown if most is None or len(shown) <= most else shown[: max(most - 1, 0)] + "…"


def unsafe(shown: str) -> str:
    """The text of which ``safe`` made *shown*, unless there was a backslash in it."""
    return _SPELT_OUT.sub(lambda match: match[0].encode().decode("unicode_escape"), shown)


def span(seconds: float) -> str:
    """A duration as one says it: ``45 s``, ``12 min``, ``3.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
