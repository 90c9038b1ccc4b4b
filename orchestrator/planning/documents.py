"""A manifest's documents taken in: found, read where they are new or have changed, and listed by their content."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from operator import eq, itemgetter
from pathlib import Path
from typing import cast

import structlog

from orchestrator import ledger
from orchestrator.documents import hashing
from orchestrator.documents.finding import Found, Skip, in_words, survey
from orchestrator.documents.names import stored
from orchestrator.errors import InputError
from orchestrator.ledger import Ledger
from orchestrator.ledger.documents import known as ledger_documents
from orchestrator.ledger.documents import names
from orchestrator.ledger.documents.known import Kept, Read, Seen
from orchestrator.ledger.views import reading
from orchestrator.manifest.loading import Manifest
from orchestrator.plaintext import counted, safe

log = structlog.get_logger()

#: What has been read is recorded at least this often, so that a killed run need not read it again.
RECORD_EVERY_S = 2.0
RECORD_EVERY = 5_000


@dataclass(frozen=True, slots=True)
class Taken:
    """How many documents a manifest's folders hold now."""

    documents: int
    contents: int  #: different ones
    read: int  #: new, or changed since they were last looked at
    skipped: dict[str, int]  #: why something in a folder was passed over -> how often

    @property
    def words(self) -> str:
        """One line for a person."""
        alike = self.documents - self.contents
        same = f", {alike:,} of the same content as another" if alike else ""
        passed = f"; passed over: {in_words(self.skipped)}" if self.skipped else ""
        return f"{counted(self.documents, 'document')}{same}{passed}"


def take(manifest: Manifest, opened: Ledger, *, write: bool) -> tuple[Manifest, Taken | None]:
    """The manifest with its documents' contents among its file IDs; None: it names no documents.

    With *write* what is learnt of them is recorded for the next time. Raises ManifestError for a place that can't be
    read or is empty, LedgerError.
    """
    sources = manifest.sources
    if sources is None:
        return manifest, None
    apart = [manifest.route.into] if manifest.route is not None else []
    found = survey(sources, now_ns=time.time_ns(), apart=apart)
    with opened.transaction() as connection:
        known = ledger_documents.remembered(connection, manifest.name)
    contents, unread, back, gone = _compared(found.found, known)
    documents = len(found.found) - len(unread)
    del known
    read = 0
    for batch in _batches(hashing.contents(unread)):
        good = [(item, content) for item, content in batch if not isinstance(content, Skip)]
        found.skipped.update(content for _, content in batch if isinstance(content, Skip))
        read += len(good)
        contents.update((content, None) for _, content in good)
        if write:
            _remember(opened, manifest.name, good)
    if write:
        _note_gone(opened, gone, back)
    skipped = {str(reason): number for reason, number in found.skipped.most_common()}
    taken = Taken(documents + read, len(contents), read, skipped)
    if write:
        log.info("documents.found", documents=taken.documents, contents=taken.contents, read=read, **skipped)
    return replace(manifest, ids=(*manifest.ids, *contents), allow_empty=True), taken


def _compared(found: list[Found], known: dict[str, Kept]) -> tuple[dict[str, None], list[Found], list[int], list[int]]:
    """Compare the documents with what is *known* of them.

    Return the contents of the unchanged ones, in order and each once; the documents that are new or have changed; the
    ids of those that are there again, and of those that have gone.
    """
    rows = list(map(known.get, map(itemgetter(0), found)))
    unread: list[Found] = []
    # A hundred thousand unchanged ones go this way: what is done for all of them at once takes a third of the time.
    if None in rows or not all(map(eq, map(itemgetter(slice(4)), cast("list[Kept]", rows)), found)):
        # Some are new or changed, or have a name or an inode that no database takes as it is.
        rows = [_row(item, known) for item in found]
        unread = [item for item, row in zip(found, rows, strict=True) if row is None]
    same = [row for row in rows if row is not None]
    contents = dict.fromkeys(map(itemgetter(4), same))
    back = [row[6] for row in same if row[5]]
    gone: list[int] = []
    if len(same) - len(back) < len(known) - sum(map(itemgetter(5), known.values())):
        paths = {stored(item.path) for item in found}
        gone = [row[6] for path, row in known.items() if not row[5] and path not in paths]
    return contents, unread, back, gone


def _row(item: Found, known: dict[str, Kept]) -> Kept | None:
    """What is *known* of *item*; None where that is of other content."""
    seen = _seen(item)
    row = known.get(seen[0])
    return None if row is None or row[:4] != seen else row


def _seen(item: Found) -> Seen:
    """*item* as the ledger keeps it."""
    return stored(item.path), item.size, item.mtime_ns, ledger_documents.inode(item.inode)


def _remember(opened: Ledger, manifest: str, good: list[tuple[Found, str]]) -> None:
    """Record what was read."""
    if good:
        with opened.transaction() as connection:
            ledger_documents.remember(connection, manifest, [_read(item, content) for item, content in good])


def _note_gone(opened: Ledger, gone: list[int], back: list[int]) -> None:
    """Record which documents have disappeared and which are there again."""
    if gone or back:
        with opened.transaction() as connection:
            ledger_documents.mark_gone(connection, gone, gone=True)
            ledger_documents.mark_gone(connection, back, gone=False)


def _read(item: Found, content: str) -> Read:
    return Read(*_seen(item), content)


def _batches(read: Iterator[tuple[Found, str | Skip]]) -> Iterator[list[tuple[Found, str | Skip]]]:
    batch: list[tuple[Found, str | Skip]] = []
    until = time.monotonic() + RECORD_EVERY_S
    for each in read:
        batch.append(each)
        if len(batch) >= RECORD_EVERY or time.monotonic() >= until:
            yield batch
            batch, until = [], time.monotonic() + RECORD_EVERY_S
    if batch:
        yield batch


def called(manifest: Manifest, location: ledger.Location, given: Iterable[str], *, rehearsal: bool) -> list[str]:
    """The names *given* as the ledger has them: a document's path or name, or the ID of its file, becomes its content;
    the name that a list gives to a file becomes its ID.

    Any other name stays. Raises InputError for a name that several files have, LedgerError.
    """
    if not ledger.exists(location):
        return list(given)
    found: list[str] = []
    with closing(ledger.open(location, read_only=True)) as opened, opened.transaction() as connection:
        rows = reading.manifests(connection, manifest.name, rehearsal=rehearsal)
        for name in given:
            path = Path(name).absolute()
            real = os.path.join(os.path.realpath(path.parent), path.name)  # noqa: PTH118 - as folders are listed
            ways = list(dict.fromkeys(map(stored, (name, str(path), real))))
            which = names.called(connection, manifest.name, rows[0].id if rows else 0, ways)
            files = dict.fromkeys(each.file_id for each in which)
            if len(files) > 1:
                documents = sum(file_id.startswith(hashing.PREFIX) for file_id in files)
                if documents == len(files):
                    kind, advice = "documents", "give the path"
                else:
                    kind, advice = "files", "give a document's path, or the ID" if documents else "give the ID"
                listed = ", ".join(map(_in_words, which))
                raise InputError(f"--file {safe(name)}: {len(files)} {kind} have this name: {listed}; {advice}")
            found.append(next(iter(files), name))
    return found


def _in_words(file: names.Called) -> str:
    """A document's path, or what a list calls a file behind its ID."""
    name = safe(file.name, 200)
    return name if file.file_id.startswith(hashing.PREFIX) else f"{safe(file.file_id)} ({name})"
