"""A folder of a bucket that documents are sorted into: ``Shelf``'s promises, kept by conditional writes."""

from __future__ import annotations

import os
from collections.abc import Sequence

from orchestrator.documents import buckets
from orchestrator.documents.hashing import digest
from orchestrator.documents.shelf import NotPlaced, Shelf, Taken, content_at, open_source, remove, there, was_taken_back
from orchestrator.errors import LedgerError
from orchestrator.manifest.sources import BUCKETS


class BucketShelf:
    """The folder *root*, a URL. Paths below it are sequences of names."""

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")

    def close(self) -> None:
        """Nothing is open."""

    def sync(self) -> None:
        """Nothing to do: a bucket keeps what it has accepted."""

    def content(self, path: Sequence[str]) -> str | None:
        """Return the content at *path*; None when nothing is there. Raises LedgerError."""
        try:
            descriptor = buckets.open_object(self._url(path))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LedgerError(f"{self._url(path)}: {error.strerror}") from error
        try:
            return digest(descriptor)
        finally:
            os.close(descriptor)

    def there(self, path: Sequence[str]) -> bool:
        """Whether an object has that name. Raises LedgerError."""
        try:
            return buckets.exists(self._url(path))
        except OSError as error:
            raise LedgerError(f"{self._url(path)}: {error.strerror}") from error

    def place(self, source: str, path: Sequence[str], content: str, how: str) -> None:
        """Copy or move the document at *source*. Raises NotPlaced, LedgerError."""
        if how not in ("copy", "move"):
            raise NotPlaced("a bucket has no links; use --how copy or move")
        try:
            found = self.content(path)
            if found is None:
                found = self._bring(source, path, content)
            if found != content:
                raise Taken("something else has that name")
            if how == "move":
                remove(source, content)
        except OSError as error:
            raise NotPlaced(error.strerror or str(error)) from error

    def take_back(self, path: Sequence[str], source: str, content: str, how: str) -> None:
        """Undo ``place``. Raises NotPlaced when what is there is not what was placed, LedgerError."""
        try:
            if was_taken_back(self.content(path), source, content, how):
                return
            if how == "move":
                self._bring_back(path, source, content)
            buckets.delete(self._url(path))
        except OSError as error:
            raise NotPlaced(error.strerror or str(error)) from error

    def write(self, name: str, text: str) -> None:
        """Replace the list *name*. Raises LedgerError."""
        try:
            buckets.put(self._url([name]), text.encode(), replace=True)
        except OSError as error:
            raise LedgerError(f"{self._url([name])}: {error.strerror}") from error

    def _bring(self, source: str, path: Sequence[str], content: str) -> str | None:
        """Return what is at *path* in the end."""
        descriptor = open_source(source)
        with os.fdopen(descriptor, "rb") as file:
            if digest(descriptor) != content:
                raise NotPlaced("the document has changed; run again")
            file.seek(0)
            try:
                buckets.put(self._url(path), file)
            except FileExistsError:
                return self.content(path)
        return content

    def _bring_back(self, path: Sequence[str], source: str, content: str) -> None:
        if there(source):
            if content_at(source) != content:
                raise NotPlaced("another document is in its old place")
        elif source.startswith(BUCKETS):
            with os.fdopen(buckets.open_object(self._url(path)), "rb") as file:
                buckets.put(source, file)
        else:
            back = Shelf(os.path.dirname(source))
            try:
                back.place(self._url(path), (os.path.basename(source),), content, "copy")
            finally:
                back.close()

    def _url(self, path: Sequence[str]) -> str:
        return "/".join((self.root, *path))
