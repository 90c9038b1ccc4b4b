"""HTTP/1.1 by hand, over asyncio's streams: one request read, one answer written, in an orderly way or not."""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import parse_qs, unquote, urlsplit

#: Seconds between two bytes of an answer that drips, and the most bytes that drip before the rest comes at once.
DRIP_S, DRIPS = 0.002, 60


class Manner(StrEnum):
    """How an answer is put on the wire."""

    PLAIN = "plain"  #: with its length, connection kept
    CHUNKED = "chunked"
    CLOSE = "close"  #: without its length: its end is the connection's
    DRIP = "drip"  #: byte by byte
    HTTP10 = "http10"
    HINTS = "hints"  #: after an answer 103 that says nothing
    GZIP = "gzip"
    BOM = "bom"  #: the text begins with a byte order mark
    TEXT = "text"  #: called text/plain
    NAMELESS = "nameless"  #: without a content type
    SHUT_AFTER = "shut after"  #: the connection is said to stay, and is closed
    SILENT = "silent"  #: closed without a word
    RESET = "reset"
    CUT = "cut"  #: closed in the middle
    HANG = "hang"  #: never


@dataclass(frozen=True)
class Request:
    """One request, as it was read; ``path`` without its query."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What is to be said, and how."""

    status: int
    body: bytes
    manner: Manner = Manner.PLAIN
    headers: Mapping[str, str] = field(default_factory=dict)


async def read(reader: asyncio.StreamReader) -> Request | None:
    """The next request of a connection; None when there is none any more."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(await reader.readline(), 16):
                body += await reader.readexactly(size)
                await reader.readline()
            await reader.readline()
        else:
            body = await reader.readexactly(int(headers.get("content-length", "0")))
    except (asyncio.IncompleteReadError, OSError, ValueError):
        return None
    parts = urlsplit(target)
    return Request(method, unquote(parts.path), parse_qs(parts.query, keep_blank_values=True), headers, body)


async def write(writer: asyncio.StreamWriter, answer: Answer) -> bool:
    """Say *answer*; whether the connection can be used again."""
    match answer.manner:
        case Manner.SILENT:
            return False
        case Manner.RESET:
            _reset(writer)
            return False
        case Manner.HANG:
            await asyncio.sleep(3600)
            return False
        case Manner.HINTS:
            writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")
        case _:
            pass
    head, body = _framed(answer)
    if answer.manner is Manner.CUT:
        writer.write(head + body[: len(body) // 2])
        await writer.drain()
        return False
    if answer.manner is Manner.DRIP:
        for place in range(min(DRIPS, len(body))):
            writer.write((head if place == 0 else b"") + body[place : place + 1])
            await writer.drain()
            await asyncio.sleep(DRIP_S)
        writer.write(body[DRIPS:] if body else head)
    else:
        writer.write(head + body)
    await writer.drain()
    return answer.manner not in (Manner.CLOSE, Manner.HTTP10, Manner.SHUT_AFTER)


def _framed(answer: Answer) -> tuple[bytes, bytes]:
    """Head and body of *answer* as bytes."""
    manner, body = answer.manner, answer.body
    headers = dict(answer.headers)
    if manner is not Manner.NAMELESS:
        headers.setdefault("Content-Type", "text/plain" if manner is Manner.TEXT else "application/json")
    if manner is Manner.BOM:
        body = b"\xef\xbb\xbf" + body
    if manner is Manner.GZIP:
        body = gzip.compress(body)
        headers["Content-Encoding"] = "gzip"
    if manner is Manner.CHUNKED:
        headers["Transfer-Encoding"] = "chunked"
        parts = [body[place : place + 50] for place in range(0, len(body), 50)]
        body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    elif manner not in (Manner.CLOSE, Manner.HTTP10):
        headers["Content-Length"] = str(len(body))
    version = "HTTP/1.0" if manner is Manner.HTTP10 else "HTTP/1.1"
    lines = [f"{version} {answer.status} Said", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"), body


def _reset(writer: asyncio.StreamWriter) -> None:
    """End the connection with a reset, as a dying machine or a firewall does."""
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
