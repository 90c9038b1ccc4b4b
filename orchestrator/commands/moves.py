"""The moves that are missing: where each document is to go, and from where. Reads the journal, touches nothing."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date

from orchestrator.documents.bucket_shelf import BucketShelf
from orchestrator.documents.names import native, stored
from orchestrator.documents.routing import Sorted, belongs, numbered
from orchestrator.documents.shelf import Shelf, content_at, there
from orchestrator.errors import LedgerError
from orchestrator.ledger import Transaction
from orchestrator.ledger.documents import routes
from orchestrator.ledger.documents.routes import PLANNED, Candidate, Entry, Move
from orchestrator.manifest.sources import BUCKETS, Route
from orchestrator.models import Outcome
from orchestrator.plaintext import safe

#: Documents of the same name in one folder that numbers keep apart.
MOST_ALIKE = 10_000


@dataclass(slots=True)
class Missing:
    """The moves to be made, and how many documents need none."""

    moves: list[Move] = field(default_factory=list)
    already: int = 0  #: in place since an earlier call
    left: Counter[str] = field(default_factory=Counter)  #: stay where they are, as the route says: by outcome
    waiting: int = 0  #: stay where they are, as they have no outcome under the manifest's current rules


class Finder:
    """Finds what is not where *route* says. Without a *shelf* no name is asked for what has it."""

    def __init__(self, route: Route, root: str, shelf: Shelf | BucketShelf | None, today: date) -> None:
        self._route, self._root, self._shelf, self._today = route, root, shelf, today
        self._claimed: set[str] = set()

    def missing(self, connection: Transaction, manifest_id: int) -> Missing:
        """All that is not where it belongs, each name for one document."""
        journal = routes.journal(connection, manifest_id)
        latest = {(entry.document, entry.content): entry for entry in journal}
        moved = {(entry.document, entry.content) for entry in journal if _was_moved(entry)}
        self._claimed = {entry.target for entry in journal}
        found = Missing(waiting=routes.without_outcome(connection, manifest_id))
        for each in routes.candidates(connection, manifest_id):
            before = latest.get((each.path, each.content))
            where = belongs(self._route, _sorted(each), self._today)
            if where is None:
                found.left["review" if each.outcome is Outcome.CLASSIFIED else each.outcome.value] += 1
            elif before is None:
                if not each.gone or _is_back(each):
                    found.moves.append(self._move(each, each.path, self._free(where, each.content), self._route.how))
            elif before.status == PLANNED:
                pass  # a move that was begun; it is finished first
            elif not self._is_at(before, where):
                if there(native(before.target)):
                    found.moves.append(self._move(each, before.target, self._free(where, each.content), "move"))
                elif (each.path, each.content) in moved and _is_back(each):
                    found.moves.append(self._move(each, each.path, self._free(where, each.content), "move"))
                else:
                    found.already += 1  # somebody has taken it on from there
            elif (each.path, each.content) in moved and _is_back(each):
                found.moves.append(self._move(each, each.path, self._again(before, where), "move"))
            else:
                found.already += 1
        return found

    def _move(self, document: Candidate, source: str, target: str, how: str) -> Move:
        self._claimed.add(target)
        return Move(document.path, document.content, source, target, how)

    def _is_at(self, before: Entry, where: tuple[str, ...]) -> bool:
        """Whether a document was brought to the place *where*, perhaps with a number to its name."""
        names = os.path.relpath(native(before.target), self._root).split("/")
        if tuple(names[:-1]) != where[:-1]:
            return False
        return names[-1] == where[-1] or any(
            names[-1] == numbered(where, number)[-1] for number in _numbers_in(names[-1])
        )

    def _free(self, where: tuple[str, ...], content: str) -> str:
        """The first name that nothing of other content has, and no other document is on its way to."""
        for number in range(1, MOST_ALIKE):
            path = numbered(where, number)
            target = stored("/".join((self._root, *path)))
            if target in self._claimed:
                continue
            shelf = self._shelf
            taken = there("/".join((self._root, *path))) if shelf is None else shelf.there(path)
            if not taken or (shelf is not None and shelf.content(path) == content):
                return target
        raise LedgerError(f"{self._root}: {MOST_ALIKE:,} documents are named {safe(where[-1])}; sort them elsewhere")

    def _again(self, before: Entry, where: tuple[str, ...]) -> str:
        """The target of a document that is back where it was taken from: that of *before*, unless another has it."""
        path = (*where[:-1], native(before.target).rpartition("/")[2])
        if self._shelf is None or self._shelf.content(path) in (None, before.content):
            return before.target
        return self._free(where, before.content)


def _sorted(found: Candidate) -> Sorted:
    name = native(found.path).rpartition("/")[2]
    return Sorted(name, found.outcome, found.type, found.confidence, found.review)


def _was_moved(entry: Entry) -> bool:
    """Whether *entry* took the document itself away."""
    return entry.how == "move" and entry.source == entry.document


def _is_back(found: Candidate) -> bool:
    """Whether the document is in its own place now. One in a bucket is not asked for once it was not found there."""
    path = native(found.path)
    if found.gone and path.startswith(BUCKETS):
        return False
    return there(path) and content_at(path) == found.content


def _numbers_in(name: str) -> Iterator[int]:
    """The number that ``numbered`` may have given *name*."""
    start = name.rfind(" (")
    digits = name[start + 2 : name.find(")", start)] if start >= 0 else ""
    if digits.isdecimal() and len(digits) < 6:
        yield int(digits)
