"""Documents put where they belong: journaled, never over anything, and finished by the next call if one is killed."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from orchestrator import ledger
from orchestrator.clock import Clock, timestamp
from orchestrator.commands.access import lock_name
from orchestrator.commands.moves import Finder
from orchestrator.documents.bucket_shelf import BucketShelf
from orchestrator.documents.names import component, native
from orchestrator.documents.routing import Sorted, belongs, unknown_field
from orchestrator.documents.shelf import NotPlaced, Shelf, Taken, there
from orchestrator.errors import InputError
from orchestrator.ledger import Ledger, Transaction
from orchestrator.ledger.documents import routes
from orchestrator.ledger.documents.routes import DONE, PLANNED, UNDONE, Entry, Move
from orchestrator.ledger.views import reading
from orchestrator.manifest.loading import Manifest
from orchestrator.manifest.sources import BUCKETS, Route
from orchestrator.models import Extent
from orchestrator.plaintext import safe
from orchestrator.reports.output_files import replacing

log = structlog.get_logger()

#: How many documents a result names.
MOST_NAMED = 20

#: What has been placed is recorded at least this often; after a kill the rest is looked at once more.
RECORD_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Placed:
    """The result of a run's own routing."""

    placed: int
    already: int
    not_placed: int
    left: int = 0  #: stay where they are, as the route says
    waiting: int = 0  #: have no outcome yet


@dataclass(slots=True)
class Routed:
    """The result of a call of ``route``, or with ``--dry-run`` what it would be."""

    manifest: str
    into: str
    placed: int = 0
    already: int = 0  #: in place since an earlier call
    left: int = 0  #: stay where they are, as the route says
    waiting: int = 0  #: stay where they are, as they have no outcome under the manifest's current rules
    left_why: dict[str, int] = field(default_factory=dict)  #: outcome, or ``review`` -> how many of ``left``
    undone: int = 0
    not_placed: dict[str, str] = field(default_factory=dict)  #: the first documents that could not be placed -> why
    troubles: int = 0  #: how many those are
    folders: dict[str, int] = field(default_factory=dict)  #: folder below ``into`` -> documents placed in it
    lists: dict[str, int] = field(default_factory=dict)  #: list of file IDs -> how many
    planned: list[dict[str, str]] = field(default_factory=list)  #: with ``--dry-run``: the first of them
    extents: dict[str, Extent] = field(default_factory=dict)  #: how long ``not_placed`` and ``planned`` are

    def measured(self) -> Routed:
        """Itself, with the length of its lists."""
        self.extents["not_placed"] = Extent.of(self.not_placed, self.troubles)
        self.extents["planned"] = Extent.of(self.planned, self.placed if self.planned else 0)
        return self

    def trouble(self, document: str, why: str) -> None:
        self.troubles += 1
        if len(self.not_placed) < MOST_NAMED:
            self.not_placed[safe(document)] = why
        log.warning("document.not_placed", document=safe(document, 300), why=why)


def route(
    manifest: Manifest,
    path: ledger.Location,
    chosen: Route,
    *,
    clock: Clock,
    rehearsal: bool = False,
    dry_run: bool = False,
    undo: bool = False,
) -> Routed:
    """Carry out *chosen* for every document with an outcome. Raises InputError, LedgerError, LockHeld."""
    check(chosen)
    ledger.require(path)
    if dry_run:
        with closing(ledger.open(path, read_only=True)) as opened:
            return preview(manifest, opened, chosen, clock, rehearsal=rehearsal)
    holder = {"command": "orchestrator route", "since": clock.now().isoformat("T", "seconds")}
    with (
        ledger.lease(path, lock_name(manifest.name, rehearsal=rehearsal), holder) as lease,
        closing(ledger.open(path, lease=lease)) as opened,
    ):
        return carry_out(manifest, opened, chosen, clock, rehearsal=rehearsal, undo=undo)


def carry_out(
    manifest: Manifest, opened: Ledger, chosen: Route, clock: Clock, *, rehearsal: bool = False, undo: bool = False
) -> Routed:
    """The same under a lock that is held already."""
    routing = _Routing(manifest, opened, chosen, clock, rehearsal=rehearsal)
    return routing.undo() if undo else routing.run()


def preview(manifest: Manifest, opened: Ledger, chosen: Route, clock: Clock, *, rehearsal: bool = False) -> Routed:
    """The result that ``carry_out`` would have. Touches nothing."""
    return _Routing(manifest, opened, chosen, clock, rehearsal=rehearsal).preview()


def check(chosen: Route) -> None:
    """Raises InputError for a route that can't be followed."""
    if field_ := unknown_field(chosen.template):
        raise InputError(f"template {safe(chosen.template)}: no field {{{safe(field_)}}}; write {{type}}/{{name}}")
    if not chosen.template.strip("/"):
        raise InputError("the template is empty; write {type}/{name}")


class _Routing:
    def __init__(self, manifest: Manifest, opened: Ledger, chosen: Route, clock: Clock, *, rehearsal: bool) -> None:
        self._ledger, self._route, self._clock = opened, chosen, clock
        self._routed = Routed(manifest.name, chosen.into)
        self._root = chosen.into if chosen.into.startswith(BUCKETS) else os.path.realpath(chosen.into)
        with opened.transaction() as connection:
            rows = reading.manifests(connection, manifest.name, rehearsal=rehearsal)
        if not rows:
            raise InputError(f"nothing is recorded for manifest {manifest.name!r} yet; run it first")
        self._manifest_id = rows[0].id

    def preview(self) -> Routed:
        with self._ledger.transaction() as connection:
            begun = [entry for entry in routes.journal(connection, self._manifest_id) if entry.status == PLANNED]
            moves: list[Entry | Move] = [*begun, *self._missing(connection, None)]
        self._routed.planned = [
            {"document": safe(native(each.document)), "target": safe(native(each.target)), "how": each.how}
            for each in moves[:MOST_NAMED]
        ]
        self._routed.placed = len(moves)
        self._count_folders([each.target for each in moves])
        return self._routed

    def run(self) -> Routed:
        with closing(self._shelf()) as shelf:
            with self._ledger.transaction() as connection:
                unfinished = [
                    entry for entry in routes.journal(connection, self._manifest_id) if entry.status == PLANNED
                ]
            self._place(shelf, unfinished)
            with self._ledger.transaction() as connection:
                moves = self._missing(connection, shelf)
                planned = routes.plan(connection, self._manifest_id, moves, at=self._at()) if moves else []
            self._place(shelf, planned)
            self._write_lists(shelf)
        log.info("documents.routed", placed=self._routed.placed, already=self._routed.already, left=self._routed.left)
        return self._routed

    def _shelf(self) -> Shelf | BucketShelf:
        into = self._route.into
        return BucketShelf(into) if into.startswith(BUCKETS) else Shelf(into)

    def _below(self, entry: Entry) -> tuple[str, ...] | None:
        """The names from the folder that is sorted into to the entry's target; None when it lies elsewhere."""
        target = native(entry.target)
        inside = target.startswith(self._root.rstrip("/") + "/")
        return tuple(os.path.relpath(target, self._root).split("/")) if inside else None

    def undo(self) -> Routed:
        with self._ledger.transaction() as connection:
            entries = routes.last_batch(connection, self._manifest_id)
            # Where each of them is will be known only when it is recorded: a killed call leaves them to the next one.
            doubtful = {entry.id for entry in entries if entry.status == DONE and self._below(entry) is not None}
            routes.mark(connection, sorted(doubtful), PLANNED, at=self._at())
        done: list[Entry] = []
        recorded = time.monotonic()
        with closing(self._shelf()) as shelf:
            for entry in entries:
                try:
                    self._take_back(shelf, entry)
                except NotPlaced as error:
                    self._routed.trouble(native(entry.document), str(error))
                else:
                    done.append(entry)
                if time.monotonic() - recorded > RECORD_EVERY_S:
                    self._record_undone(done)
                    self._routed.undone += len(done)
                    doubtful -= {entry.id for entry in done}
                    done, recorded = [], time.monotonic()
        self._record_undone(done, still=doubtful - {entry.id for entry in done})
        self._routed.undone += len(done)
        return self._routed

    def _take_back(self, shelf: Shelf | BucketShelf, entry: Entry) -> None:
        """Raises NotPlaced."""
        path = self._below(entry)
        if path is None:
            raise NotPlaced("it was sorted into another folder: name that with --into")
        if entry.status == DONE or shelf.there(path):
            shelf.take_back(path, native(entry.source), entry.content, entry.how)

    def _record_undone(self, done: list[Entry], still: Collection[int] = ()) -> None:
        """Record that *done* are back, and that the entries *still* are in place."""
        with self._ledger.transaction() as connection:
            routes.mark(connection, [entry.id for entry in done], UNDONE, at=self._at())
            routes.mark(connection, sorted(still), DONE, at=self._at())

    def _missing(self, connection: Transaction, shelf: Shelf | BucketShelf | None) -> list[Move]:
        """The moves to be made; the other documents are counted."""
        found = Finder(self._route, self._root, shelf, self._clock.now().date()).missing(connection, self._manifest_id)
        self._routed.already, self._routed.waiting = found.already, found.waiting
        self._routed.left, self._routed.left_why = found.left.total(), dict(found.left)
        return found.moves

    def _place(self, shelf: Shelf | BucketShelf, entries: list[Entry]) -> None:
        done: list[int] = []
        given_up: list[int] = []
        targets: list[str] = []
        recorded = time.monotonic()
        for entry in entries:
            path = self._below(entry)
            if path is None:  # planned for another folder than now
                (done if there(native(entry.target)) else given_up).append(entry.id)
                continue
            try:
                shelf.place(native(entry.source), path, entry.content, entry.how)
            except Taken:
                given_up.append(entry.id)  # the next call finds another name
                self._routed.trouble(native(entry.document), "something took its new name meanwhile; route again")
            except NotPlaced as error:
                given_up.append(entry.id)
                self._routed.trouble(native(entry.document), str(error))
            else:
                done.append(entry.id)
                targets.append(entry.target)
            if time.monotonic() - recorded > RECORD_EVERY_S:
                self._record(shelf, done, given_up)
                done, given_up, recorded = [], [], time.monotonic()
        self._record(shelf, done, given_up)
        self._routed.placed += len(targets)
        self._count_folders(targets)

    def _record(self, shelf: Shelf | BucketShelf, done: list[int], given_up: list[int]) -> None:
        shelf.sync()
        with self._ledger.transaction() as connection:
            routes.mark(connection, done, DONE, at=self._at())
            routes.mark(connection, given_up, UNDONE, at=self._at())

    def _count_folders(self, targets: list[str]) -> None:
        folders = Counter(os.path.relpath(native(target).rpartition("/")[0], self._root) for target in targets)
        for name, number in folders.most_common():
            self._routed.folders[safe(name)] = self._routed.folders.get(safe(name), 0) + number

    def _write_lists(self, shelf: Shelf | BucketShelf) -> None:
        """Files that are no documents can't be moved: their IDs are listed by type."""
        lists: dict[str, list[str]] = {}
        with self._ledger.transaction() as connection:
            for file_id, outcome, label, confidence, review in routes.listed(connection, self._manifest_id):
                where = belongs(
                    self._list_route, Sorted("x", outcome, label, confidence, review), self._clock.now().date()
                )
                if where is not None:
                    lists.setdefault("-".join(where[:-1]), []).append(file_id)
        for name, file_ids in lists.items():
            title, lines = component(f"{name}.txt"), "".join(f"{file_id}\n" for file_id in file_ids)
            if isinstance(shelf, BucketShelf):
                shelf.write(title, lines)
            else:
                with replacing(Path(self._root) / title) as temporary:
                    temporary.write_text(lines, encoding="utf-8")
            self._routed.lists[safe(title)] = len(file_ids)

    @property
    def _list_route(self) -> Route:
        """As the route, but by type alone, so that there is one list a type."""
        chosen = self._route
        return Route(
            chosen.into, "{type}/{name}", "copy", chosen.min_confidence, chosen.review, chosen.unmatched, chosen.failed
        )

    def _at(self) -> str:
        return timestamp(self._clock.now())
