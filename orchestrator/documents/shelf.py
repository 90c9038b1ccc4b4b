"""A folder that documents are sorted into. Nothing that is placed overwrites anything, nor leads out of the folder.

Every step is taken from an open folder and never through a link, so no name and no link that somebody has put there
takes a document elsewhere. Each way of placing can be killed at any point and done again: it then finds what is there.
"""

from __future__ import annotations

import os
import stat
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from orchestrator.documents import buckets
from orchestrator.documents.hashing import digest, open_document
from orchestrator.errors import LedgerError
from orchestrator.manifest.sources import BUCKETS
from orchestrator.plaintext import safe

#: Folders kept open at once.
_MOST_OPEN = 64

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK = 1 << 20


class NotPlaced(Exception):
    """Why a document stays where it is."""


class Taken(NotPlaced):
    """Something of other content has the name."""


class Shelf:
    """The folder *root*, made if need be. Paths below it are sequences of names. Close it after use.

    Raises LedgerError.
    """

    def __init__(self, root: str) -> None:
        try:
            Path(root).mkdir(parents=True, exist_ok=True)
            self.root = os.path.realpath(root)
            self._root = os.open(self.root, _FOLDER)
        except OSError as error:
            raise LedgerError(f"{safe(root)}: {error.strerror}") from error
        self._open: OrderedDict[tuple[str, ...], int] = OrderedDict()

    def close(self) -> None:
        self._forget(0)
        os.close(self._root)

    def content(self, path: Sequence[str]) -> str | None:
        """Return what is at *path*: its content, "" for what is no regular file, None when nothing is there."""
        try:
            folder = self._folder(path[:-1], make=False)
            descriptor = os.open(path[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except FileNotFoundError:
            return None
        except OSError:
            return ""
        try:
            return digest(descriptor) if stat.S_ISREG(os.fstat(descriptor).st_mode) else ""
        finally:
            os.close(descriptor)

    def there(self, path: Sequence[str]) -> bool:
        """Whether anything has that name, a link included."""
        try:
            os.stat(path[-1], dir_fd=self._folder(path[:-1], make=False), follow_symlinks=False)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return True

    def place(self, source: str, path: Sequence[str], content: str, how: str) -> None:
        """Copy, move, link or symlink the document at *source*. Raises NotPlaced."""
        try:
            if how in ("link", "symlink") and source.startswith(BUCKETS):
                raise NotPlaced("there are no links to objects in a bucket; use --how copy")
            folder = self._folder(path[:-1], make=True)
            if how == "symlink":
                self._symlink(source, path, folder)
                return
            found = self.content(path)
            if found is not None and found != content:
                raise Taken("something else has that name")
            if found is None:
                self._bring(source, path, folder, content, how)
            if how == "move":
                remove(source, content)
        except OSError as error:
            raise NotPlaced(error.strerror or str(error)) from error

    def take_back(self, path: Sequence[str], source: str, content: str, how: str) -> None:
        """Undo ``place``. Raises NotPlaced when what is there is not what was placed."""
        try:
            folder = self._folder(path[:-1], make=False)
            if how == "symlink":
                if os.readlink(path[-1], dir_fd=folder) != source:
                    raise NotPlaced("it is a different link now")
            else:
                if was_taken_back(self.content(path), source, content, how):
                    return
            if how == "move":
                self._bring_back(path, folder, source, content)
            os.unlink(path[-1], dir_fd=folder)
        except OSError as error:
            raise NotPlaced(error.strerror or str(error)) from error

    def sync(self) -> None:
        """Return when everything placed is on disk."""
        for folder in [self._root, *self._open.values()]:
            os.fsync(folder)

    def _bring(self, source: str, path: Sequence[str], folder: int, content: str, how: str) -> None:
        if how in ("link", "move"):
            if content_at(source) != content:
                raise NotPlaced("the document is gone or has changed; run again")
            try:
                os.link(source, path[-1], dst_dir_fd=folder, follow_symlinks=False)
                return
            except OSError as error:
                if how == "link":
                    raise NotPlaced(f"no hard link can be made there ({error.strerror}); use --how copy") from error
        self._copy(source, path, folder, content)

    def _copy(self, source: str, path: Sequence[str], folder: int, content: str) -> None:
        """Under another name first: what has the right name is always whole."""
        temporary = f".orchestrator-{content[-16:]}.part"
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)  # of a run that was killed
        reading = open_source(source)
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            status = os.fstat(reading)
            writing = os.open(temporary, flags, stat.S_IMODE(status.st_mode) & 0o777, dir_fd=folder)
            try:
                _pour(reading, writing)
                os.lseek(writing, 0, os.SEEK_SET)
                if digest(writing) != content:
                    raise NotPlaced("the document has changed; run again")
                os.utime(writing, ns=(status.st_atime_ns, status.st_mtime_ns))
                os.fsync(writing)
                os.link(temporary, path[-1], src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
            finally:
                os.close(writing)
                os.unlink(temporary, dir_fd=folder)
        finally:
            os.close(reading)

    def _symlink(self, source: str, path: Sequence[str], folder: int) -> None:
        try:
            os.symlink(source, path[-1], dir_fd=folder)
        except FileExistsError:
            try:
                if os.readlink(path[-1], dir_fd=folder) == source:
                    return
            except OSError:
                pass
            raise Taken("something else has that name") from None

    def _bring_back(self, path: Sequence[str], folder: int, source: str, content: str) -> None:
        if there(source):
            if content_at(source) != content:
                raise NotPlaced("another document is in its old place")
            return
        if source.startswith(BUCKETS):
            descriptor = os.open(path[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            with open(descriptor, "rb") as file:
                buckets.put(source, file)
            return
        Path(source).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path[-1], source, src_dir_fd=folder, follow_symlinks=False)
        except OSError:  # another file system
            back = Shelf(os.path.dirname(source))
            try:
                back._copy(os.path.join(self.root, *path), (os.path.basename(source),), back._root, content)
            finally:
                back.close()

    def _folder(self, names: Sequence[str], *, make: bool) -> int:
        """The open folder *names* below the root, each entered without following a link."""
        key = tuple(names)
        if not key:
            return self._root
        if key in self._open:
            self._open.move_to_end(key)
            return self._open[key]
        parent = self._folder(key[:-1], make=make)
        if make:
            with suppress(FileExistsError):
                os.mkdir(key[-1], dir_fd=parent)
        self._open[key] = os.open(key[-1], _FOLDER, dir_fd=parent)
        found = self._open[key]
        self._forget(_MOST_OPEN)
        return found

    def _forget(self, most: int) -> None:
        while len(self._open) > most:
            _, folder = self._open.popitem(last=False)
            os.fsync(folder)
            os.close(folder)


def content_at(path: str) -> str | None:
    """The content of the document at *path*, which may be a URL; None when it can't be read."""
    try:
        descriptor = open_document(path)
    except OSError:
        return None
    try:
        return digest(descriptor)
    finally:
        os.close(descriptor)


def was_taken_back(found: str | None, source: str, content: str, how: str) -> bool:
    """Whether a move is undone already, where the shelf now has *found*. Raises NotPlaced for what was not placed."""
    if found is None and how == "move" and content_at(source) == content:
        return True
    if found != content:
        raise NotPlaced("it is gone" if found is None else "it has been changed")
    return False


def open_source(source: str) -> int:
    """A descriptor of the document that is to be placed. Raises NotPlaced."""
    try:
        return open_document(source)
    except OSError as error:
        raise NotPlaced(f"the document can't be read ({error.strerror})") from error


def remove(source: str, content: str) -> None:
    """The document is in its new place; what is still in the old one goes, if it is the same."""
    if content_at(source) == content:
        if source.startswith(BUCKETS):
            buckets.delete(source)
        else:
            os.unlink(source)


def there(path: str) -> bool:
    """Whether anything is at *path*, a link or an object in a bucket included. Raises LedgerError for a bucket."""
    if not path.startswith(BUCKETS):
        return os.path.lexists(path)
    try:
        return buckets.exists(path)
    except OSError as error:
        raise LedgerError(f"{safe(path)}: {error.strerror}") from error


def _pour(reading: int, writing: int) -> None:
    while block := os.read(reading, _BLOCK):
        view = memoryview(block)
        while view:
            view = view[os.write(writing, view) :]
