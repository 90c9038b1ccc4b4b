"""The identity of a document: the sha256 of its content. Read at the speed of the disk, several at once."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from orchestrator.documents import buckets
from orchestrator.documents.finding import Found, Skip
from orchestrator.manifest.sources import BUCKETS

#: What a content is called in the ledger, and at the API as its ``external_file_id``.
PREFIX = "sha256:"

_BLOCK = 1 << 20


def open_document(path: str) -> int:
    """A descriptor of the regular file at *path*, for reading. Raises OSError, also for a pipe or a folder.

    Of an object in a bucket: of a copy of it, which is gone when the descriptor is closed.
    """
    if path.startswith(BUCKETS):
        return buckets.open_object(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(0, "not a regular file")


def content_of(path: str) -> str:
    """``sha256:`` and 64 hex digits. Raises OSError."""
    descriptor = open_document(path)
    try:
        return digest(descriptor)
    finally:
        os.close(descriptor)


def digest(descriptor: int) -> str:
    """The content of an open file, from where it stands to its end. Raises OSError."""
    seen = hashlib.sha256()
    while block := os.read(descriptor, _BLOCK):
        seen.update(block)
    return PREFIX + seen.hexdigest()


def contents(found: Iterable[Found], *, threads: int | None = None) -> Iterator[tuple[Found, str | Skip]]:
    """Each document with its content, or why it has none now; in order, with few of them open at a time."""
    waiting = iter(found)
    workers = threads or min(8, 2 * (os.cpu_count() or 1))
    with ThreadPoolExecutor(workers, thread_name_prefix="hash") as pool:
        under_way: list[tuple[Found, Future[str | Skip]]] = []
        try:
            while True:
                under_way += [(item, pool.submit(_content, item)) for item in islice(waiting, 4 * workers)]
                if not under_way:
                    return
                for item, future in under_way:
                    yield item, future.result()
                under_way = []
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _content(item: Found) -> str | Skip:
    try:
        descriptor = open_document(item.path)
    except OSError:
        return Skip.UNREADABLE
    try:
        content = digest(descriptor)
        status = os.fstat(descriptor)
    except OSError:
        return Skip.UNREADABLE
    finally:
        os.close(descriptor)
    if item.path.startswith(BUCKETS):  # the copy's own times say nothing
        return content if status.st_size == item.size else Skip.CHANGING
    return content if (status.st_size, status.st_mtime_ns) == (item.size, item.mtime_ns) else Skip.CHANGING
