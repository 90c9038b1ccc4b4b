"""Find the documents: folders walked, patterns matched, and everything that is passed over counted by reason."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from operator import itemgetter
from typing import NamedTuple

from orchestrator.documents import buckets
from orchestrator.documents.kinds import SUPPORTED, is_supported, is_temporary
from orchestrator.errors import ManifestError, Problem
from orchestrator.manifest.sources import Place, Sources
from orchestrator.plaintext import safe


class Skip(StrEnum):
    """Why something in a folder is not taken."""

    HIDDEN = "hidden"
    TEMPORARY = "temporary"
    EXCLUDED = "excluded"
    NOT_INCLUDED = "not included"
    TYPE = "unsupported type"
    EMPTY = "empty"
    TOO_LARGE = "too large"
    CHANGING = "changed recently"  #: left for the next run
    LINK = "link"
    SPECIAL = "not a regular file"
    UNREADABLE = "unreadable"


class Found(NamedTuple):
    """A document as its folder or bucket describes it; ``path`` is absolute, or a URL. Times in nanoseconds."""

    path: str
    size: int
    mtime_ns: int
    inode: int

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


@dataclass(slots=True)
class Survey:
    """Everything that the places hold: the documents, by path, and how many of what else."""

    found: list[Found] = field(default_factory=list)
    skipped: Counter[Skip] = field(default_factory=Counter)


def survey(sources: Sources, *, now_ns: int, apart: Sequence[str] = ()) -> Survey:
    """The documents of *sources*, each once, in the order of their paths. *apart*: folders that are never entered.

    Raises ManifestError, with its line, for a place that can't be read or holds no document at all.
    """
    picker = _Picker(sources, now_ns)
    found: list[Found] = []
    problems: list[Problem] = []
    for place in sources.places:
        before, passed = len(found), picker.skipped.total()
        try:
            found += _of_place(place, picker, frozenset(apart))
        except OSError as error:
            if not (sources.allow_empty and isinstance(error, FileNotFoundError)):
                where = "see README, Buckets" if place.is_bucket else "paths are relative to the manifest's folder"
                why = error.strerror or str(error)
                problems.append(place.problem(f"documents_from: '{safe(place.path)}' can't be read ({why}); {where}"))
            continue
        if len(found) == before and picker.skipped[Skip.CHANGING] == 0 and not sources.allow_empty:
            passed = picker.skipped.total() - passed
            but = f", only {passed:,} that are passed over ({in_words(picker.skipped)})" if passed else ""
            problems.append(
                place.problem(
                    f"documents_from: '{safe(place.path)}' holds no document{but}; "
                    "if that is as it should be, add `allow_empty: true`"
                )
            )
    if problems:
        raise ManifestError(problems)
    if len(sources.places) > 1:  # one may lie in another
        found = list({item.path: item for item in found}.values())
    found.sort(key=itemgetter(0))
    return Survey(found, picker.skipped)


def in_words(skipped: Mapping[Skip, int] | Mapping[str, int]) -> str:
    """``3 hidden, 1 empty``: the largest number first."""
    largest_first = sorted(skipped.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{number:,} {reason}" for reason, number in largest_first if number)


def _of_place(place: Place, picker: _Picker, apart: frozenset[str]) -> Iterator[Found]:
    if place.is_bucket:
        yield from _in_bucket(place.path, picker, apart)
    elif place.is_pattern:
        yield from _matching(place.path, picker, apart)
    else:
        # The folder itself may be a link: the manifest names it.
        root = os.path.realpath(place.path)
        if os.path.isdir(root):
            yield from _walk(root, root, picker, apart, {_identity(os.stat(root))})
        else:
            yield from _single(root, picker, os.stat(root))


def _in_bucket(url: str, picker: _Picker, apart: frozenset[str]) -> Iterator[Found]:
    """Yield the objects below *url*. They are never half written; an object's tag stands in the place of an inode."""
    start = len(url) + 1
    for each in buckets.listing(url):
        if any(each.url.startswith(f"{folder}/") for folder in apart):
            continue
        folders, _, name = each.url[start:].rpartition("/")
        if any(part.startswith(".") for part in folders.split("/")):
            picker.skipped[Skip.HIDDEN] += 1
        elif picker.takes_name(name or each.url.rpartition("/")[2], each.url[start:]):
            item = Found(each.url, each.size, each.mtime_ns, each.tag)
            if picker.takes(item, settled=True):
                yield item


def _matching(pattern: str, picker: _Picker, apart: frozenset[str]) -> Iterator[Found]:
    """Yield the files that match *pattern*; of a folder that does, everything in it."""
    base = os.path.dirname(re.split(r"[*?\[]", pattern, maxsplit=1)[0])
    os.stat(base)  # raises when there is nowhere to look
    for path in glob.iglob(pattern, recursive=True):
        try:
            status = os.stat(path) if picker.follow_links else os.lstat(path)
        except OSError:
            picker.skipped[Skip.UNREADABLE] += 1
            continue
        if any(path == folder or path.startswith(folder + "/") for folder in apart):
            continue
        if stat.S_ISLNK(status.st_mode):
            picker.skipped[Skip.LINK] += 1
        elif not stat.S_ISDIR(status.st_mode):
            if picker.takes_name(os.path.basename(path), os.path.relpath(path, base)):
                yield from _single(path, picker, status)
        elif not pattern.rstrip("/").endswith("**"):  # `**` itself finds what is in its folders
            yield from _walk(path, base, picker, apart, {_identity(status)})


def _single(path: str, picker: _Picker, status: os.stat_result) -> Iterator[Found]:
    if not stat.S_ISREG(status.st_mode):
        picker.skipped[Skip.SPECIAL] += 1
        return
    item = Found(path, status.st_size, status.st_mtime_ns, status.st_ino)
    if picker.takes(item):
        yield item


def _walk(
    folder: str, root: str, picker: _Picker, apart: frozenset[str], entered: set[tuple[int, int]]
) -> Iterator[Found]:
    """The documents below *folder*. Without recursion of calls: a folder may be nested deeper than a stack allows."""
    waiting = [folder]
    start = len(root.rstrip("/")) + 1
    most, settled = picker.max_bytes, picker.settled_before_ns
    while waiting:
        here = waiting.pop()
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    name = entry.name
                    if picker.takes_plainly(name) and entry.is_file(follow_symlinks=False):
                        # A hundred thousand documents go this way.
                        status = entry.stat(follow_symlinks=False)
                        item = Found(entry.path, status.st_size, status.st_mtime_ns, status.st_ino)
                        if (0 < item[1] <= most and item[2] < settled) or picker.takes(item):
                            yield item
                    elif not picker.follow_links and entry.is_symlink():
                        picker.skipped[Skip.LINK] += 1
                    elif entry.is_dir():
                        if name.startswith("."):
                            picker.skipped[Skip.HIDDEN] += 1
                        elif entry.path not in apart and _is_new(entry, picker, entered):
                            waiting.append(entry.path)
                    elif picker.takes_name(name, entry.path[start:]):
                        try:
                            yield from _single(entry.path, picker, entry.stat())
                        except OSError:
                            picker.skipped[Skip.UNREADABLE] += 1
        except OSError:
            if here == folder:
                raise
            picker.skipped[Skip.UNREADABLE] += 1


def _is_new(entry: os.DirEntry[str], picker: _Picker, entered: set[tuple[int, int]]) -> bool:
    """Whether a folder was not entered before: links can lead in circles."""
    if not picker.follow_links:
        return True
    identity = _identity(entry.stat())
    if identity in entered:
        return False
    entered.add(identity)
    return True


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


class _Picker:
    """Decides what is taken, and counts what is not."""

    def __init__(self, sources: Sources, now_ns: int) -> None:
        self.follow_links = sources.follow_links
        self.skipped: Counter[Skip] = Counter()
        self._include, self._exclude = _patterns(sources.include), _patterns(sources.exclude)
        self._plain = self._include is None and self._exclude is None
        self.max_bytes = sources.max_bytes
        self._now_ns, self._settle_ns = now_ns, int(sources.settle_s * 1e9)
        self.settled_before_ns = now_ns - self._settle_ns

    def takes_plainly(self, name: str) -> bool:
        """Whether ``takes_name`` surely takes *name*: the quick question, to which no is no answer."""
        return self._plain and name[0] not in ".~" and name.rpartition(".")[2].lower() in SUPPORTED

    def takes_name(self, name: str, path: str) -> bool:
        """*path* is from the place on. What a pattern includes by name is taken whatever its type."""
        if name.startswith("."):
            reason = Skip.HIDDEN
        elif is_temporary(name):
            reason = Skip.TEMPORARY
        elif self._exclude is not None and (self._exclude(name) or self._exclude(path)):
            reason = Skip.EXCLUDED
        elif self._include is not None:
            if self._include(name) or self._include(path):
                return True
            reason = Skip.NOT_INCLUDED
        elif not is_supported(name):
            reason = Skip.TYPE
        else:
            return True
        self.skipped[reason] += 1
        return False

    def takes(self, item: Found, *, settled: bool = False) -> bool:
        if not item.size:
            reason = Skip.EMPTY
        elif item.size > self.max_bytes:
            reason = Skip.TOO_LARGE
        elif not settled and abs(self._now_ns - item.mtime_ns) < self._settle_ns:
            reason = Skip.CHANGING
        else:
            return True
        self.skipped[reason] += 1
        return False


def _patterns(patterns: Sequence[str]) -> Callable[[str], object] | None:
    """Matches a name or a path, in upper or lower case, against any of *patterns*; None without any."""
    if not patterns:
        return None
    return re.compile("|".join(f"(?:{fnmatch.translate(pattern)})" for pattern in patterns), re.IGNORECASE).match
