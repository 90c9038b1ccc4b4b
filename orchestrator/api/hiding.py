"""Secrets that the API's answers repeat: taken out of the decoded texts, where no escape hides them."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.errors import Ambiguous, ApiError
from orchestrator.logs import Redactor
from orchestrator.models import Json

#: The fields with words of the API's own, which are kept and shown. Elsewhere a manifest's secret may be a word of the
#: config that an answer echoes.
WORDS = frozenset({"error_message", "reasoning", "detail", "message", "error"})


class Hiding:
    """Takes the key out of all of an answer, and *secrets* too out of its words."""

    def __init__(self, key: str, secrets: Sequence[str]) -> None:
        keys = [key] if len(key) >= 16 else []  # a short key is none of the vendor's, and may be a word of any answer
        self._always, self._in_words = Redactor(), Redactor()
        self._always.add(keys)
        self._in_words.add([*keys, *secrets])

    def of(self, answer: Json, body: bytes) -> Json:
        """*answer* without secrets. Raises Ambiguous for one that is nested too deeply to look through.

        *body*: what *answer* was decoded from. Thousands of texts are looked through only if that may hold a secret.
        """
        if not self._in_words.may_change(_as_decoded(body)):
            return answer
        try:
            return self._without(answer, self._always)
        except RecursionError as error:
            raise Ambiguous("the API's answer is nested too deeply", created=True) from error

    def of_error(self, error: ApiError) -> None:
        """Take the secrets out of *error*'s words."""
        error.args = tuple(self._in_words.text(part) if isinstance(part, str) else part for part in error.args)

    def _without(self, value: Json, redactor: Redactor) -> Json:
        if isinstance(value, str):
            return redactor.text(value)
        if isinstance(value, list):
            return [self._without(item, redactor) for item in value]
        if isinstance(value, dict):
            return {
                name: self._without(item, self._in_words if name in WORDS else redactor) for name, item in value.items()
            }
        return value


def _as_decoded(body: bytes) -> str:
    """The texts of a JSON *body* in one; those with other escapes than for quotes and line ends stay escaped."""
    text = body.decode("utf-8", "backslashreplace").replace("\0", "\\")  # one with NUL is not in UTF-8
    return text.replace('\\"', '"').replace("\\n", "\n") if "\\" in text else text
