"""The files API: upload a document, find what is there, delete it. Paced and retried like every other call."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from orchestrator.api.client import Api
from orchestrator.api.dialect import Call, Target, checked_dict, items_and_token, plain, read_time, refuse_circle
from orchestrator.errors import Ambiguous, ContractBroken, NotCreated, OutOfCredits, Rejected
from orchestrator.models import Json, RemoteFile

FILES = "/api/v1/beta/files"

#: How many IDs one call asks about: more would make a long URL.
IDS_PER_ASK = 100

#: Read and sent at once; a larger document is read in another thread.
_PIECE = 256 * 1024

#: The slowest line that an upload is waited for, in bytes a second.
_SLOWEST_LINE = 64 * 1024

_UUID = re.compile(r"(?:dfl-)?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})", re.IGNORECASE)
_FILE_ID = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)


class ContentChanged(NotCreated):
    """The document is not any more what it was when its content was read; nothing was uploaded."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A document about to be uploaded. ``check`` gets every piece and, with b"", the end: it raises ContentChanged
    when the pieces are not the content that was meant."""

    name: str  #: as the API gets it
    external_id: str
    size: int
    descriptor: int  #: open for reading
    check: Callable[[bytes], None]

    async def body(self, head: bytes, tail: bytes) -> AsyncIterator[bytes]:
        """The multipart body; it ends early, without its closing line, when the document is not what it was."""
        yield head
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        left = self.size
        while left:
            take = min(_PIECE, left)
            try:
                small = self.size <= _PIECE
                piece = os.read(self.descriptor, take) if small else await asyncio.to_thread(_read, self, take)
            except OSError as error:
                raise ContentChanged(f"{self.name} can't be read ({error.strerror})") from error
            if not piece:
                raise ContentChanged(f"{self.name} has become shorter")
            left -= len(piece)
            self.check(piece)
            if not left:
                self.check(b"")  # before the last piece leaves: an upload cut short makes no file
            yield piece
        yield tail


def _read(upload: Upload, size: int) -> bytes:
    return os.read(upload.descriptor, size)


class Files:
    """The files of one project."""

    def __init__(self, api: Api, target: Target) -> None:
        self._api = api
        self._target = target

    async def upload(self, upload: Upload, *, intend: Callable[[], Awaitable[None]]) -> RemoteFile:
        """One attempt. *intend* runs when a slot is free, before anything leaves.

        Raises Rejected when the API does not take this document, the account's limit of files included; another
        ApiError; ContentChanged; and what *intend* raises.
        """
        boundary = secrets.token_hex(16)
        head, tail = _around(upload, boundary)
        call = Call(
            "POST",
            FILES,
            self._target.query,
            stream=lambda: upload.body(head, tail),
            headers=(
                ("content-type", f"multipart/form-data; boundary={boundary}"),
                ("content-length", str(len(head) + upload.size + len(tail))),
            ),
            extra_s=upload.size / _SLOWEST_LINE,
        )
        try:
            file = await self._api._attempt(call, "upload", self._api.limiters.uploads, read_file, intend)
        except OutOfCredits as error:
            raise Rejected(str(error), 402) from error
        if file.external_id not in (None, upload.external_id):
            raise ContractBroken(f"the API answered an upload with file {file.id}, which is of another one")
        if file.size not in (None, upload.size):
            raise Ambiguous(f"the API has {file.size} bytes of {upload.size} of file {file.id}", created=True)
        return file

    async def of_external_id(self, external_id: str) -> list[RemoteFile]:
        """The files of that name of ours, as the API lists them. Raises ApiError."""
        found: list[RemoteFile] = []
        token: str | None = None
        seen: set[str] = set()
        while True:
            query = (("external_file_id", external_id), *((("page_token", token),) if token else ()))
            page, token = await self._list(query)
            found += [file for file in page if file.external_id == external_id]
            if token is None:
                return found
            refuse_circle(token, seen, "files")

    async def still_there(self, file_ids: Sequence[str]) -> set[str]:
        """Return those of *file_ids* (at most IDS_PER_ASK) that the API has. Raises ApiError."""
        plain_ids = {match[1].lower(): file_id for file_id in file_ids if (match := _UUID.fullmatch(file_id))}
        if len(plain_ids) != len(file_ids):
            return {file_id for file_id in file_ids if await self._get(file_id)}
        query = tuple(("file_ids", each) for each in plain_ids)
        page, _ = await self._list((*query, ("page_size", str(max(50, len(plain_ids))))))
        listed = {match[1].lower() for file in page if (match := _UUID.fullmatch(file.id))}
        return {file_id for each, file_id in plain_ids.items() if each in listed}

    async def delete(self, file_id: str) -> bool:
        """Delete a file; False when the API has none such. Raises ApiError."""
        call = Call("DELETE", _path(file_id), self._target.query, empty_answer=True)
        try:
            await self._api._persist(call, "files", self._api.limiters.reads, lambda answer: answer)
        except Rejected as error:
            if error.status == 404:
                return False
            raise
        return True

    async def _get(self, file_id: str) -> bool:
        try:
            await self._api._persist(
                Call("GET", _path(file_id), self._target.query), "files", self._api.limiters.reads, read_file
            )
        except Rejected as error:
            if error.status == 404:
                return False
            raise
        return True

    async def _list(self, query: tuple[tuple[str, str], ...]) -> tuple[list[RemoteFile], str | None]:
        call = Call("GET", FILES, (*self._target.query, *query))
        return await self._api._persist(call, "files", self._api.limiters.reads, _read_page)


def read_file(answer: Json) -> RemoteFile:
    """A ``FileV2``. Raises Ambiguous(created=True)."""
    file = checked_dict(answer)
    file_id, size = file.get("id"), file.get("size", file.get("file_size"))
    if not isinstance(file_id, str) or not _FILE_ID.fullmatch(file_id):
        raise Ambiguous("the API's answer has no usable file ID", created=True)
    return RemoteFile(
        id=file_id,
        name=plain(file.get("name")),
        external_id=plain(file.get("external_file_id")),
        size=size if isinstance(size, int) and not isinstance(size, bool) else None,
        project_id=plain(file.get("project_id")),
        expires_at=read_time(file.get("expires_at")),
    )


def _read_page(answer: Json) -> tuple[list[RemoteFile], str | None]:
    items, token = items_and_token(answer)
    return [read_file(item) for item in items], token


def _path(file_id: str) -> str:
    """Raises Rejected for an ID that could lead elsewhere."""
    if not _FILE_ID.fullmatch(file_id):
        raise Rejected(f"{file_id!a} is not the ID of an uploaded file", 404)
    return f"{FILES}/{file_id}"


def _around(upload: Upload, boundary: str) -> tuple[bytes, bytes]:
    """Return the parts of the body before and after the document, in the order of the vendor's SDK."""
    fields = (("purpose", "classify"), ("external_file_id", upload.external_id))
    head = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields
    )
    name = upload.name.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")
    head += (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return head.encode(), f"\r\n--{boundary}--\r\n".encode()
