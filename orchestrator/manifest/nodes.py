"""YAML in, nodes with their places out: the hardened layer under the manifest.

Every scalar stays the text that was written; what it means is for the field that reads it. Nothing here expands or
builds anything, so a hostile file costs no more than its own length: anchors, aliases, merge keys, tags, a second
document, deep nesting and sheer size are refused.
"""

from __future__ import annotations

import codecs
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import yaml

from orchestrator.errors import Problem
from orchestrator.plaintext import safe

MAX_BYTES = 5 * 1024 * 1024
MAX_DEPTH = 20
MAX_NODES = 200_000

#: Most problems shown of one manifest and its lists; a user with more fixes these first.
MAX_PROBLEMS = 100

Loader = type[yaml.BaseLoader] | type[yaml.CBaseLoader]

#: libyaml's parser where PyYAML was built with it. Only events are asked of it: its *composer* is recursive and
#: crashes the process on deep nesting.
LOADER: Loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)

#: Outside YAML's character set, or a line break to YAML 1.1 and not to an editor, so that lines would be misnumbered.
_FOREIGN = re.compile("[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

#: Both parsers compare each tag handle with every other one: a file full of them would take minutes.
_TAG_DIRECTIVE = re.compile("^%TAG", re.MULTILINE)

#: What to do about the parser's complaints; the first that its words contain.
_ADVICE = {
    "mapping values are not allowed": "put quotes around a text that contains `: `, or fix the indentation",
    "cannot start any token": "put quotes around a text that starts with a special character",
    "escape": "in double quotes a backslash is written \\\\; single quotes need no escapes",
    "unexpected end of stream": "a quote or bracket that is opened must be closed",
    "nesting depth": f"at most {MAX_DEPTH} levels are allowed",
    "expected ',' or": "a bracket that is opened must be closed, with commas between its items",
    "quoted scalar": "a quote that is opened must be closed",
}
#: Complaints about something never closed: where it was opened is the place to look at, not the end of the file.
_UNCLOSED = ("end of stream", "expected ',' or")
_GENERAL_ADVICE = "each line must be `key: value` or `- item`, indented with spaces like its neighbours"


@dataclass(slots=True)
class Scalar:
    """Text as written; ``plain`` when it stands without quotes."""

    line: int
    column: int
    text: str
    plain: bool

    @property
    def is_null(self) -> bool:
        return self.plain and self.text in ("", "~", "null", "Null", "NULL")


@dataclass(slots=True)
class Items:
    """A sequence."""

    line: int
    column: int
    items: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class Entries:
    """A mapping: each key once, in file order."""

    line: int
    column: int
    keys: dict[str, Scalar] = field(default_factory=dict)
    values: dict[str, Node] = field(default_factory=dict)


Node = Scalar | Items | Entries


class Unreadable(Exception):
    """A mistake that makes the rest of the file unreadable."""

    def __init__(self, line: int, column: int, message: str) -> None:
        super().__init__(message)
        self.line, self.column, self.message = line, column, message


def open_regular(path: str) -> BinaryIO:
    """*path* opened for reading. Raises OSError, also for a folder or a pipe: opening one could wait for ever."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise OSError(0, "not a regular file; save it in one")


def parse(data: bytes, file: str, loader: Loader = LOADER) -> tuple[Node | None, list[Problem]]:
    """The root of the one document in *data*, and what is wrong with it; None when it can't be understood.

    *file* is the name that problems carry. Problems are in file order and at most MAX_PROBLEMS.
    """
    problems: list[Problem] = []
    try:
        root = _Builder(_events(_decode(data), loader), file, problems).document()
    except Unreadable as error:
        problems.append(Problem(file, error.line, error.column, error.message))
        root = None
    return root, sorted(problems)


def shown(text: str) -> str:
    """*text* quoted for a message: one line, harmless, not too long."""
    return f"'{safe(text, 60)}'"


def _decode(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise Unreadable(
            1, 1, "the manifest is larger than 5 MB; put the file IDs in a list and name it in file_ids_from"
        )
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise Unreadable(1, 1, "the file is UTF-16; save it as UTF-8")
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line, column = _place(data[: error.start].decode())
        raise Unreadable(line, column, "this is not UTF-8 text; save the file as UTF-8") from None
    if foreign := _FOREIGN.search(text):
        line, column = _place(text[: foreign.start()])
        what = "is binary or UTF-16" if foreign[0] == "\0" else f"holds the character U+{ord(foreign[0]):04X}"
        raise Unreadable(line, column, f"the file {what}; a manifest is UTF-8 text without control characters")
    if directive := _TAG_DIRECTIVE.search(text):
        line, column = _place(text[: directive.start()])
        raise Unreadable(line, column, "a %TAG directive is not supported; write the manifest without tags")
    return text


def _place(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def _events(text: str, loader: Loader) -> Iterator[yaml.Event]:
    """The parser's events; its errors become Unreadable with advice."""
    try:
        yield from yaml.parse(text, Loader=loader)
    except yaml.MarkedYAMLError as error:
        complaint = error.problem or "not YAML"
        mark = error.problem_mark or error.context_mark
        if any(words in complaint for words in _UNCLOSED):
            mark = error.context_mark or mark
        line, column = (mark.line, mark.column) if mark else (0, 0)
        raise Unreadable(line + 1, column + 1, _explain(complaint, text, line)) from None
    except (yaml.YAMLError, ValueError, OverflowError):
        # The pure parser makes characters of escapes such as "\UFFFFFFFF" without looking.
        raise Unreadable(1, 1, "the file is not YAML; look for escapes in double quotes") from None


def _explain(complaint: str, text: str, line: int) -> str:
    lines = text.split("\n")
    here = lines[line] if line < len(lines) else ""
    if "\t" in here[: len(here) - len(here.lstrip())]:
        return "a tab indents this line; indent with spaces"
    advice = next((advice for words, advice in _ADVICE.items() if words in complaint), _GENERAL_ADVICE)
    return f"not valid YAML: {safe(complaint, 80)}; {advice}"


class _Builder:
    """Nodes from events. Recursive, which the depth limit makes harmless."""

    def __init__(self, events: Iterator[yaml.Event], file: str, problems: list[Problem]) -> None:
        self._events = events
        self._file = file
        self._problems = problems
        self._count = 0
        self._understood = True

    def document(self) -> Node | None:
        """The root of the only document; None when something refused leaves its meaning open."""
        root: Node | None = None
        for event in self._events:
            if isinstance(event, yaml.NodeEvent):
                root = self._node(event, 1)
            elif isinstance(event, yaml.DocumentStartEvent) and root is not None:
                raise _unreadable(event, "a second document starts here; a manifest is one document")
        if root is None or (isinstance(root, Scalar) and root.is_null):
            raise Unreadable(1, 1, "the file is empty; a manifest starts with `version: 1`")
        return root if self._understood else None

    def _node(self, event: yaml.Event, depth: int) -> Node:
        self._count += 1
        if self._count > MAX_NODES:
            raise _unreadable(event, f"more than {MAX_NODES:,} values; put the file IDs in a list for file_ids_from")
        if depth > MAX_DEPTH:
            raise _unreadable(event, f"nested more than {MAX_DEPTH} levels deep; a manifest needs no more than 5")
        line, column = _start(event)
        if isinstance(event, yaml.AliasEvent):
            self._refuse(line, column, "an alias (*) is not supported; write the value out")
            return Scalar(line, column, "", plain=True)
        if not isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            raise TypeError(f"the parser gave {event!r} where a value starts")
        if event.anchor is not None:
            self._refuse(line, column, "an anchor (&) is not supported; write the value out where it is needed")
        if event.tag is not None:
            self._refuse(line, column, "a tag (!) is not supported; write the value without it")
        if isinstance(event, yaml.ScalarEvent):
            # libyaml's events say "" and the pure parser's None for a plain scalar.
            return Scalar(line, column, event.value, plain=event.style in (None, ""))
        if isinstance(event, yaml.SequenceStartEvent):
            items = Items(line, column)
            while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
                items.items.append(self._node(event, depth + 1))
            return items
        entries = Entries(line, column)
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            self._add(entries, key, self._node(next(self._events), depth + 1))
        return entries

    def _add(self, entries: Entries, key: Node, value: Node) -> None:
        if not isinstance(key, Scalar):
            self._refuse(key.line, key.column, "a key must be text")
        elif key.plain and key.text == "<<":
            self._refuse(key.line, key.column, "a merge key (<<) is not supported; write the entries out")
        elif first := entries.keys.get(key.text):
            self._note(key.line, key.column, f"this key is already given in line {first.line}; keep one of them")
        else:
            entries.keys[key.text] = key
            entries.values[key.text] = value

    def _refuse(self, line: int, column: int, message: str) -> None:
        self._understood = False
        self._note(line, column, message)

    def _note(self, line: int, column: int, message: str) -> None:
        if len(self._problems) == MAX_PROBLEMS:
            raise Unreadable(line, column, "more problems follow; fix the ones above first")
        self._problems.append(Problem(self._file, line, column, message))


def _unreadable(event: yaml.Event, message: str) -> Unreadable:
    return Unreadable(*_start(event), message)


def _start(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)
