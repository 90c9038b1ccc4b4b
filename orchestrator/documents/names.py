"""Paths and names from outside: kept as text that a database takes, and made into names that stay where they belong."""

from __future__ import annotations

import hashlib
import os
import re

#: Most bytes of one name on the usual file systems.
MAX_NAME_BYTES = 255

_HALF = re.compile("[\ud800-\udfff]")
_ESCAPE = re.compile(r"\\(\\|x[0-9a-f]{2})")
_NOT_IN_NAMES = re.compile("[\x00-\x1f\x7f/]")


def stored(path: str) -> str:
    r"""*path* as text for the ledger: a byte that is not UTF-8 becomes ``\xff``, a backslash is doubled."""
    if path.isascii() and "\\" not in path:
        return path
    text = path.replace("\\", "\\\\")
    return _HALF.sub(lambda half: f"\\x{ord(half[0]) & 0xFF:02x}", text)


def native(text: str) -> str:
    """Return the path whose ``stored`` form is *text*."""
    if "\\" not in text:
        return text
    return _ESCAPE.sub(lambda escape: "\\" if escape[1] == "\\" else chr(0xDC00 + int(escape[1][1:], 16)), text)


def component(text: str) -> str:
    """*text* as one name in a folder: never empty, ``.`` or ``..``, no separator, at most 255 bytes, end kept."""
    name = _NOT_IN_NAMES.sub("_", text)
    if name.strip() in ("", ".", ".."):
        name = "_" + name.strip().replace(".", "_")
    return shortened(name)


def shortened(name: str, extra: str = "") -> str:
    """*name* with *extra* before its suffix, cut to 255 bytes; a cut name carries a digest, so two stay two."""
    stem, dot, suffix = name.rpartition(".")
    if not stem or len(os.fsencode(suffix)) > 20:
        stem, dot, suffix = name, "", ""
    whole = f"{stem}{extra}{dot}{suffix}"
    if len(os.fsencode(whole)) <= MAX_NAME_BYTES:
        return whole
    tail = f"~{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}{extra}{dot}{suffix}"
    room = MAX_NAME_BYTES - len(os.fsencode(tail))
    # Cut between characters: half of one would not be UTF-8 any more.
    kept = (
        os.fsencode(stem)[:room].decode("utf-8", "ignore")
        if stem.isprintable()
        else os.fsdecode(os.fsencode(stem)[:room])
    )
    return f"{kept}{tail}"


def for_upload(name: str) -> str:
    """Return *name* as the API gets it: one line of text, not too long."""
    text = _NOT_IN_NAMES.sub("_", _HALF.sub("_", name)) or "_"
    return text if len(text) <= 200 else f"{text[:150]}~{text[-40:]}"
