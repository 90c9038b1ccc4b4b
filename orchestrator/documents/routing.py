"""Where a document belongs, by how its content was classified. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date

from orchestrator.documents.names import component, shortened
from orchestrator.manifest.sources import LEAVE, Route
from orchestrator.models import Outcome

#: What a template may name.
FIELDS = ("type", "name", "stem", "suffix", "outcome", "date")

_FIELD = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Sorted:
    """A document and what it was found to be; ``review`` says why a person should look at it, if one should."""

    name: str
    outcome: Outcome
    type: str | None
    confidence: float | None
    review: str | None


def belongs(route: Route, document: Sorted, today: date) -> tuple[str, ...] | None:
    """Folders and name below ``route.into``; None: it stays where it is. The first rule that applies wins."""
    if document.outcome not in (Outcome.CLASSIFIED, Outcome.UNMATCHED):
        return _in(route.failed, document)
    unsure = route.min_confidence is not None and (document.confidence or 0.0) < route.min_confidence
    if document.review == "low_confidence" or (unsure and document.outcome is Outcome.CLASSIFIED):
        return _in(route.review, document)
    if document.outcome is Outcome.UNMATCHED:
        return _in(route.unmatched, document)
    stem, dot, suffix = document.name.rpartition(".")
    values = {
        "type": document.type or "",
        "name": document.name,
        "stem": stem or document.name,
        "suffix": suffix if dot else "",
        "outcome": document.outcome.value,
        "date": today.isoformat(),
    }
    return tuple(
        component(_FIELD.sub(lambda field: values[field[1]], part)) for part in route.template.split("/") if part
    )


def unknown_field(template: str) -> str | None:
    """The first field of *template* that there is none of."""
    return next((name for name in _FIELD.findall(template) if name not in FIELDS), None)


def numbered(path: tuple[str, ...], number: int) -> tuple[str, ...]:
    """*path* itself for 1; for 2 and more the number stands before the suffix."""
    return path if number == 1 else (*path[:-1], shortened(path[-1], f" ({number})"))


def _in(folder: str, document: Sorted) -> tuple[str, ...] | None:
    if folder == LEAVE:
        return None
    return (*(component(part) for part in folder.split("/") if part), component(document.name))
