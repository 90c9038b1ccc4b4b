"""The lists that ``file_ids_from`` names: text, CSV, JSON Lines or standard input, streamed in bounded memory."""

from __future__ import annotations

import codecs
import csv
import json
import math
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from orchestrator.errors import Problem
from orchestrator.manifest.nodes import MAX_PROBLEMS, Scalar, open_regular, shown
from orchestrator.models import Json
from orchestrator.plaintext import safe

STANDARD_INPUT = "-"

#: White space, control characters, half characters, and marks that are invisible or turn the direction of writing.
_NOT_IN_IDS = r"\s\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff"

#: A file ID. Opaque: bare UUIDs and ``dfl-<uuid>`` are both seen, so nothing more is asked of it.
FILE_ID = rf"[^{_NOT_IN_IDS}]{{1,200}}"
FILE_ID_SAYS = "a file ID is 1 to 200 characters without white space, control or invisible characters"

_BLOCK = 1 << 17
#: No list has a longer line; without a limit, a file without line ends would fill the memory.
_MAX_LINE = 1 << 20

_is_file_id = re.compile(FILE_ID).fullmatch
#: A line that is an ID for certain; every other line is looked at more closely.
_is_plain_row = re.compile(rf"(?!#|(?i:file_?ids?)$)[^{_NOT_IN_IDS}\"',;/\\.]{{1,200}}").fullmatch
_is_header = re.compile(r"(?i:file[_ -]?ids?)").fullmatch
_is_document = re.compile(r".*[/\\].*|.*\.[A-Za-z][A-Za-z0-9]{1,4}").fullmatch
_is_separator = re.compile(r'"?sep=([,;|\t])"?[,;|\t ]*').fullmatch
_strange = re.compile(rf"[{_NOT_IN_IDS}]").search
_not_text = re.compile("[\x00\ud800-\udfff]")  # what a database does not take

#: Called with a file ID, the name that a list gives it, and the list's further columns.
Note = Callable[[str, str | None, Mapping[str, Json]], None]


@dataclass(slots=True)
class FileList:
    """One entry of ``file_ids_from``: *entry* is where and how the *manifest* names it."""

    manifest: str
    entry: Scalar
    doubt: str | None = None  #: why the list may not be whole, though no line of it is wrong, once it was read
    _consumed: bool = False

    @property
    def name(self) -> str:
        """The path as problems show it: relative names are relative to the manifest's folder."""
        return self.entry.text if self._is_stdin else str(Path(self.manifest).parent / self.entry.text)

    @property
    def _is_stdin(self) -> bool:
        return self.entry.text == STANDARD_INPUT

    def missing(self) -> Problem | None:
        """Why the list can't be opened, as the manifest's own mistake."""
        if self._is_stdin:
            return None
        try:
            return None if stat.S_ISREG(Path(self.name).stat().st_mode) else self._unopened("not a regular file")
        except OSError as error:
            return self._unopened(error.strerror)

    def file_ids(self, problems: list[Problem], note: Note | None = None) -> Iterator[str]:
        """Every ID in order, duplicates included; each bad line is added to *problems* and left out.

        *note* is called with what the list says of a file beside its ID. Stops at MAX_PROBLEMS problems.
        """
        try:
            with self._open() as handle:
                before = _version(handle)
                reader = _Reader(self.name, _lines(handle), problems, note)
                try:
                    yield from _FORMATS[self.entry.text.lower().rpartition(".")[2]](reader)
                except _BadList as error:
                    problems.append(Problem(self.name, error.line, 1, error.message))
                if _version(handle) != before:
                    message = "the list changed while it was read; write it under another name, then rename it"
                    problems.append(Problem(self.name, 1, 1, message))
                elif before is not None and _is_cut_short(handle):
                    self.doubt = (
                        f"{safe(self.name)}: the last line is shorter than all others and has no line end; "
                        "is the list cut short?"
                    )
        except OSError as error:
            problems.append(self._unopened(error.strerror))

    def _open(self) -> AbstractContextManager[BinaryIO]:
        if not self._is_stdin:
            return open_regular(self.name)
        if self._consumed or sys.stdin is None:
            raise OSError(0, "standard input was already read" if self._consumed else "standard input is closed")
        self._consumed = True
        return nullcontext(sys.stdin.buffer)

    def _unopened(self, why: str | None) -> Problem:
        message = (
            f"file_ids_from: '{safe(self.name)}' can't be read ({why}); paths are relative to the manifest's folder"
        )
        return Problem(self.manifest, self.entry.line, self.entry.column, message)


class _BadList(Exception):
    """A mistake after which the rest of the list can't be understood."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line, self.message = line, message


@dataclass(slots=True)
class _Reader:
    """One pass over one list: *blocks* are the number of their first line, and lines without their ends."""

    name: str
    blocks: Iterator[tuple[int, list[str]]]
    problems: list[Problem]
    note: Note | None = None

    def wrong(self, line: int, column: int, message: str) -> None:
        self.problems.append(Problem(self.name, line, column, message))
        if len(self.problems) >= MAX_PROBLEMS:
            raise _BadList(line, "more problems follow; fix the ones above first")

    def checked(self, text: str, line: int, column: int = 1) -> Iterator[str]:
        """*text* if it is a file ID; else nothing, and a problem."""
        if _is_file_id(text):
            yield text
            return
        strange = _strange(text)
        at = column + (strange.start() if strange else 0)
        what = f"{shown(text)} is not a file ID" if text else "no file ID here"
        self.wrong(line, at, f"{what}; {FILE_ID_SAYS}")


def _read_text(reader: _Reader) -> Iterator[str]:
    """One ID a line; blank lines and lines that start with ``#`` are skipped."""
    for number, lines in reader.blocks:
        if all(map(_is_plain_row, lines)):  # a million plain lines go this way, at the speed of C
            yield from lines
            continue
        for line, text in enumerate(lines, number):
            file_id = text.strip(" \t")
            if not file_id or file_id.startswith("#"):
                continue
            column = text.index(file_id) + 1
            if advice := _not_an_id(file_id):
                reader.wrong(line, column, f"{shown(file_id)} is not a file ID; {advice}")
            else:
                yield from reader.checked(file_id, line, column)


def _not_an_id(text: str) -> str | None:
    """Advice about a line that belongs in another kind of list; None when it may be an ID."""
    if _is_header(text):
        return "a .txt list has no header: remove this line, or save the list as .csv"
    if any(mark in text for mark in "\"',;"):
        return "write one ID a line, without quotes or commas, or save the list as .csv"
    if _is_document(text):
        return "this names a document: upload it, and list the ID that the API gives it"
    return None


def _read_csv(reader: _Reader) -> Iterator[str]:
    """The column ``file_id``, in upper or lower case, of the rows under a header; empty rows are skipped.

    Commas separate the columns, unless the first line that is not blank names another separator, as in ``sep=;``: some
    spreadsheets write such a line.
    """
    lines = (text for _, block in reader.blocks for text in block)
    first, before = "", 0
    for first in lines:
        if first.strip():
            break
        before += 1
    separator = _is_separator(first.strip(" "))
    before += bool(separator)
    texts = lines if separator else chain([first], lines)
    rows = csv.reader((f"{text}\n" for text in texts), delimiter=separator[1] if separator else ",", strict=True)
    column: int | None = None
    more: list[tuple[int, str]] = []  # the other columns
    try:
        for row in rows:
            if not any(map(str.strip, row)):
                continue
            if column is None:
                column = _id_column(row, before + rows.line_num)
                more = _other_columns(row, column) if reader.note is not None else []
                continue
            for file_id in reader.checked(row[column].strip() if column < len(row) else "", before + rows.line_num):
                if more and reader.note is not None:
                    values: dict[str, Json] = {
                        title: row[at].strip() or None if at < len(row) else None for at, title in more
                    }
                    reader.note(file_id, *_named(values))
                yield file_id
    except csv.Error as error:
        advice = "look for a quote that is not closed"
        raise _BadList(before + rows.line_num, f"not valid CSV: {error}; {advice}") from None
    if column is None:
        raise _BadList(1, "the header must have one column `file_id`; the list is empty")


def _id_column(header: list[str], line: int) -> int:
    names = [name.strip().lower() for name in header]
    if names.count("file_id") == 1:
        return names.index("file_id")
    hint = "rename the others" if "file_id" in names else "name the column with the IDs so"
    if any(";" in name or "\t" in name for name in names):
        hint = "separate columns with commas"
    raise _BadList(line, f"the header must have one column `file_id`; {hint}")


def _other_columns(header: list[str], of_ids: int) -> list[tuple[int, str]]:
    """Where the columns beside the IDs are, and their titles: one without is left out, a second one is numbered."""
    found: dict[str, int] = {}
    for at, title in enumerate(map(str.strip, header)):
        if at != of_ids and title:
            title = "name" if title.lower() == "name" else title
            alike = 1
            while (key := title if alike == 1 else f"{title}_{alike}") in found:
                alike += 1
            found[key] = at
    return [(at, title) for title, at in found.items()]


def _named(values: dict[str, Json]) -> tuple[str | None, dict[str, Json]]:
    """The name among *values*, and the others, as a database takes them."""
    name = _kept(values.pop("name", None))
    return None if name in (None, "") else str(name), {
        str(_kept(title)): _kept(value) for title, value in values.items()
    }


def _kept(value: Json) -> Json:
    """*value* if it is a plain one; lists and objects as JSON text."""
    if isinstance(value, (dict, list)):
        try:
            value = json.dumps(value, ensure_ascii=False)
        except RecursionError:
            return None
    elif isinstance(value, float) and not math.isfinite(value):
        value = str(value)
    return _not_text.sub("\N{REPLACEMENT CHARACTER}", value) if isinstance(value, str) else value


def _read_jsonl(reader: _Reader) -> Iterator[str]:
    """One JSON value a line: an object with ``file_id``, or a string."""
    for number, lines in reader.blocks:
        for line, text in enumerate(lines, number):
            if not text.strip():
                continue
            try:
                value = json.loads(text)
            except (ValueError, RecursionError):
                reader.wrong(line, 1, 'not valid JSON; each line must be {"file_id": "..."} or "..."')
                continue
            more = value if isinstance(value, dict) else {}
            file_id = more.pop("file_id", None) if isinstance(value, dict) else value
            if isinstance(file_id, str):
                for good in reader.checked(file_id, line):
                    if more and reader.note is not None:
                        reader.note(good, *_named(more))
                    yield good
            else:
                reader.wrong(line, 1, 'no text `file_id` here; each line must be {"file_id": "..."} or "..."')


#: How a list is read, by what its name ends in.
_FORMATS: dict[str, Callable[[_Reader], Iterator[str]]] = {
    STANDARD_INPUT: _read_text,
    "txt": _read_text,
    "csv": _read_csv,
    "jsonl": _read_jsonl,
}

#: A name in ``file_ids_from``, and the same in words.
LIST_NAME = r"-|[^\x00-\x1f\x7f\ud800-\udfff]*\.([tT][xX][tT]|[cC][sS][vV]|[jJ][sS][oO][nN][lL])"
LIST_NAME_SAYS = "a list's name ends in .txt (one ID a line), .csv (column file_id) or .jsonl; - is standard input"


def _lines(handle: BinaryIO) -> Iterator[tuple[int, list[str]]]:
    """Blocks of whole lines, decoded, without their ends (LF or CRLF), with the number of each block's first line."""
    number, tail, block = 1, b"", handle.read(_BLOCK)
    if block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise _BadList(1, "the list is UTF-16; save it as UTF-8")
    block = block.removeprefix(codecs.BOM_UTF8)
    while block:
        whole, end, tail = (tail + block).rpartition(b"\n")
        if end:
            lines = _decode(whole, number).split("\n")
            yield number, lines
            number += len(lines)
        if len(tail) > _MAX_LINE:
            raise _BadList(number, "a line is longer than 1 MB; write one ID a line")
        block = handle.read(_BLOCK)
    if tail:
        yield number, [_decode(tail, number)]


def _decode(block: bytes, number: int) -> str:
    try:
        return f"{block.decode()}\n".replace("\r\n", "\n").removesuffix("\n")
    except UnicodeDecodeError as error:
        line = number + block.count(b"\n", 0, error.start)
        raise _BadList(line, "this is not UTF-8 text; save the list as UTF-8") from None


def _is_cut_short(handle: BinaryIO) -> bool:
    """Whether a list seems to end in the middle of a line: without a line end, in less than any line before."""
    handle.seek(max(0, os.fstat(handle.fileno()).st_size - _BLOCK))
    *others, last = handle.read().split(b"\n")
    lengths = [len(line.rstrip()) for line in others[1:] if line.strip() and not line.startswith(b"#")]  # [0]: a header
    return 0 < len(last.rstrip()) < min(lengths, default=0)


def _version(handle: BinaryIO) -> tuple[int, int] | None:
    """Modification time and size, which change when a regular file is written; None for a pipe."""
    try:
        status = os.fstat(handle.fileno())
    except OSError:  # an in-memory standard input has no descriptor
        return None
    return (status.st_mtime_ns, status.st_size) if stat.S_ISREG(status.st_mode) else None
