"""Objects in buckets (``s3://``, ``gs://``, ``az://``) as documents. Needs the extra ``cloud``, loaded when it is used.

Credentials and endpoints are those of the environment, as the vendors' own tools read them.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import IO, TYPE_CHECKING, NamedTuple

from orchestrator.errors import InputError
from orchestrator.plaintext import safe

if TYPE_CHECKING:
    from obstore.store import ObjectStore


class Object(NamedTuple):
    """An object as its bucket lists it. ``tag`` changes with its content; times in nanoseconds."""

    url: str
    size: int
    mtime_ns: int
    tag: int


def split(url: str) -> tuple[str, str]:
    """The bucket's URL and the key in it."""
    scheme, _, rest = url.partition("://")
    bucket, _, key = rest.partition("/")
    return f"{scheme}://{bucket}", key.strip("/")


def listing(url: str) -> Iterator[Object]:
    """Yield the objects below *url*, or the one object that it names. Raises OSError, InputError."""
    obstore = _obstore()
    bucket, prefix = split(url)
    found = False
    with _translated():
        for batch in obstore.list(_store(bucket), prefix=prefix or None):
            for each in batch:
                found = True
                yield _object(bucket, each["path"], each["size"], each["last_modified"].timestamp(), each["e_tag"])
        if not found and prefix:
            each = obstore.head(_store(bucket), prefix)
            yield _object(bucket, each["path"], each["size"], each["last_modified"].timestamp(), each["e_tag"])


def _object(bucket: str, key: str, size: int, modified_s: float, e_tag: str | None) -> Object:
    tag = int.from_bytes(hashlib.sha256((e_tag or "").encode()).digest()[:8], "big")
    return Object(f"{bucket}/{key}", size, int(modified_s * 1000) * 1_000_000, tag)


def open_object(url: str) -> int:
    """A descriptor of a nameless copy of the object on this machine's disk, for reading. Raises OSError, InputError."""
    bucket, key = split(url)
    with tempfile.TemporaryFile() as copy:
        with _translated():
            for piece in _obstore().get(_store(bucket), key).stream():
                copy.write(piece)
        copy.seek(0)
        return os.dup(copy.fileno())


def exists(url: str) -> bool:
    """Raises OSError, InputError."""
    bucket, key = split(url)
    try:
        with _translated():
            _obstore().head(_store(bucket), key)
    except FileNotFoundError:
        return False
    return True


def put(url: str, content: IO[bytes] | bytes, *, replace: bool = False) -> None:
    """Raises FileExistsError where an object is there, unless *replace*; another OSError; InputError."""
    bucket, key = split(url)
    with _translated():
        _obstore().put(_store(bucket), key, content, mode="overwrite" if replace else "create")


def delete(url: str) -> None:
    """Raises OSError, InputError."""
    bucket, key = split(url)
    with _translated():
        _obstore().delete(_store(bucket), key)


def _obstore() -> ModuleType:
    """Raises InputError where it is not installed."""
    try:
        import obstore.exceptions
        import obstore.store
    except ImportError:
        raise InputError("buckets need obstore: pip install 'orchestrator[cloud]'") from None
    return obstore


@cache
def _store(bucket: str) -> ObjectStore:
    store: ObjectStore = _obstore().store.from_url(bucket)
    return store


@contextmanager
def _translated() -> Iterator[None]:
    """The errors of obstore as those of files."""
    errors = _obstore().exceptions
    try:
        yield
    except errors.AlreadyExistsError as error:
        raise FileExistsError(0, "something has that name") from error
    except errors.BaseError as error:
        raise OSError(0, safe(str(error).partition("\n")[0], 300)) from error
