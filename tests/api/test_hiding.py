"""Secrets that the API's answers repeat are taken out, however they are escaped."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from orchestrator.api.hiding import Hiding
from orchestrator.errors import Rejected
from orchestrator.models import Json

KEY, SECRET = "llx-0123456789abcdef/A", "whsec/signing-Secret"
HIDING = Hiding(KEY, [SECRET])


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
    answer: Json = json.loads(f'{{"items": [{{"result": {{"{field}": "is {spelling(secret)}!"}}}}]}}')
    assert HIDING.of(answer) == {"items": [{"result": {field: "is [hidden]!"}}]}


def test_the_config_that_an_answer_echoes_stays_as_it_is() -> None:
    """A manifest's secret may be a word of it; the key is none."""
    assert HIDING.of({"rules": [{"description": SECRET, "type": KEY}]}) == {
        "rules": [{"description": SECRET, "type": "[hidden]"}]
    }


def test_a_refusal_keeps_no_secret() -> None:
    """Its words go to the log, the ledger and the screen."""
    error = Rejected(f"422 wrong header {SECRET}", 422)
    HIDING.of_error(error)
    assert str(error) == "422 wrong header [hidden]"
