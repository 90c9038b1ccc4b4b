"""Text from outside cannot steer a terminal."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.plaintext import safe, unsafe


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain – “typographic” ünïcode 漢字 🙂", "plain – “typographic” ünïcode 漢字 🙂"),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("a\r\nb\tc", r"a\r\nb\tc"),
        ("a\x00b\x7f", r"a\x00b\x7f"),
        ("\x9b31m", r"\x9b31m"),
        ("\x85", r"\x85"),
        ("invoice\u202efdp.exe", r"invoice\u202efdp.exe"),
        ("\u2066a\u2069", r"\u2066a\u2069"),
        ("a\u200bb\u200fc\ufeff", r"a\u200bb\u200fc\ufeff"),
        ("a\u2028b\u2029c", r"a\u2028b\u2029c"),
        ("\ud800", r"\ud800"),
    ],
    ids=ascii,
)
def test_what_could_harm_is_spelled_out(text: str, shown: str) -> None:
    """Escapes, line breaks, direction marks, invisible characters, halves; all else stays as it is."""
    assert safe(text) == shown


@given(st.text(st.characters(exclude_characters="\\")))
def test_what_was_spelled_out_can_be_read_back(text: str) -> None:
    """A path that the ledger has written is still the path of a file."""
    assert unsafe(safe(text)) == text


@given(st.text(st.characters()))
def test_it_is_one_printable_line(text: str) -> None:
    """No control character, no line break of any kind, and nothing that can't be encoded."""
    shown = safe(text)
    assert not {unicodedata.category(char) for char in shown} & {"Cc", "Cs", "Zl", "Zp"}
    assert len(shown.splitlines()) <= 1
    assert shown.encode().decode() == shown


@given(st.text(st.characters()), st.integers(1, 40))
def test_it_is_as_short_as_asked(text: str, most: int) -> None:
    """A cut shows."""
    shown = safe(text, most)
    assert len(shown) <= most
    assert shown == safe(text) or shown.endswith("…")


def test_what_is_no_text_is_shown_as_text() -> None:
    """Such as a path or a number."""
    assert safe(7) == "7"
    assert safe(None) == "None"
