"""Failures by cause: many files that ended with the same words, but for numbers and names in them, are one cause."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.ledger.views.page import Failure
from orchestrator.plaintext import cause

#: Examples of a cause by name.
MOST_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Cause:
    """So many files ended like this. ``words``: the API's, of one of them."""

    outcome: str
    words: str
    files: int
    examples: tuple[str, ...]  #: file IDs
    called: tuple[str, ...] = ()  #: what those are called: a name, or the ID again


def causes(failures: Iterable[Failure]) -> list[Cause]:
    """*failures* put together by cause, the most frequent first."""
    found: dict[tuple[str, str], Cause] = {}
    for failure in failures:
        key = (failure.outcome, cause(failure.error))
        known = found.get(key, Cause(failure.outcome, failure.error, 0, ()))
        examples = dict(zip(known.examples, known.called, strict=True))
        examples |= {failure.first: failure.first_name, failure.last: failure.last_name}
        shown = list(examples.items())[:MOST_EXAMPLES]
        found[key] = Cause(
            failure.outcome,
            known.words,
            known.files + failure.files,
            tuple(file_id for file_id, _ in shown),
            tuple(name for _, name in shown),
        )
    return sorted(found.values(), key=lambda each: (-each.files, each.outcome, each.words))
