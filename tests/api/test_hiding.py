"""Secrets that the API's answers repeat are taken out, however they are escaped."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.api.hiding import Hiding
from orchestrator.errors import Rejected
from orchestrator.models import Json

KEY, SECRET = "llx-0123456789abcdef/A", "whsec/signing-Secret"
HIDING = Hiding(KEY, [SECRET])

#: A body that may hold anything, as it has escapes.
UNKNOWN = b"\\"


def shown(body: str) -> Json:
    """What is left of an answer that comes as *body*."""
    return HIDING.of(json.loads(body), body.encode())


def escaped(text: str) -> str:
    return "".join(f"\\u{ord(character):04x}" for character in text)


SPELLINGS = (
    str,
    escaped,
    lambda text: text.replace("/", "\\/"),
    lambda text: quote(text, ""),
    lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    lambda text: escaped(text).upper().replace("\\U", "\\\\u"),
    lambda text: "".join(f"&#{ord(character)};" for character in text),
)


@pytest.mark.parametrize("secret", [KEY, SECRET])
@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("field", ["error_message", "reasoning"])
def test_no_words_of_an_answer_keep_a_secret(secret: str, spelling: object, field: str) -> None:
    """JSON's escapes hid it from a search of the bytes."""
    assert callable(spelling)
    body = f'{{"items": [{{"result": {{"{field}": "is {spelling(secret)}!"}}}}]}}'
    assert shown(body) == {"items": [{"result": {field: "is [hidden]!"}}]}


def test_the_config_that_an_answer_echoes_stays_as_it_is() -> None:
    """A manifest's secret may be a word of it; the key is none."""
    body = json.dumps({"rules": [{"description": SECRET, "type": KEY}]})
    assert shown(body) == {"rules": [{"description": SECRET, "type": "[hidden]"}]}


PIECES = st.sampled_from(
    [SECRET, SECRET[:9], SECRET[9:], '"', "\n", "\t", "/", "\\", "n", "%", "&#", "\0", "é", "\ud83d", "x"]
)
TEXTS = st.lists(PIECES, max_size=6).map("".join)


@given(
    st.recursive(TEXTS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just("reasoning"), inner)),
    st.booleans(),
    st.sampled_from(["utf-8", "utf-16", "utf-16-le", "utf-32-be"]),
)
def test_a_quick_look_at_the_whole_misses_nothing(said: Json, ascii_only: bool, encoding: str) -> None:
    """Only a body that surely holds no secret is spared the look at each of its texts."""
    answer = {"detail": said}
    body = json.dumps(answer, ensure_ascii=ascii_only).encode(encoding, "surrogatepass")
    assert HIDING.of(answer, UNKNOWN) == HIDING.of(json.loads(body), body)


def test_an_answer_without_secrets_is_handed_on_as_it_is() -> None:
    """To look through the texts of 500 results took longer than to decode them."""
    body = b'{"reasoning": "names \\"total\\"\\nand a date"}'
    answer = json.loads(body)
    assert HIDING.of(answer, body) is answer


def test_a_refusal_keeps_no_secret() -> None:
    """Its words go to the log, the ledger and the screen."""
    error = Rejected(f"422 wrong header {SECRET}", 422)
    HIDING.of_error(error)
    assert str(error) == "422 wrong header [hidden]"
