"""The kinds of field in a manifest. Each reads a node and describes itself as JSON Schema (draft 2020-12), so an editor
and the program accept the same.

``read`` returns None for a wrong node, after it noted the reason in the Reading.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Protocol

from orchestrator.errors import Problem
from orchestrator.manifest.nodes import Entries, Items, Node, Scalar, shown
from orchestrator.models import Json

#: The largest whole number that every JSON reader keeps exact.
LARGEST = 2**53 - 1

#: Text that a JSON body and a terminal can carry: no control characters but tab and line ends, no half characters.
PROSE = r"[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]*"

_INTEGER = re.compile(r"[-+]?[0-9]{1,16}")
_NUMBER = re.compile(r"[-+]?(\.[0-9]{1,32}|[0-9]{1,32}(\.[0-9]{0,32})?)([eE][-+]?[0-9]{1,3})?")
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_VARIABLE = re.compile(r"\$\{([^}]*)\}?")
_VARIABLE_NAME = r"[A-Za-z_][A-Za-z0-9_]*"


@dataclass(slots=True)
class Reading:
    """One pass over one manifest: the problems found, and the variables that ``${NAME}`` may name.

    With *environ* None such names are checked for their form and left as written.
    """

    file: str
    environ: Mapping[str, str] | None
    problems: list[Problem] = field(default_factory=list)
    filled_in: set[str] = field(default_factory=set)  #: the values that took the place of a ``${NAME}``

    def wrong(self, node: Node, message: str) -> None:
        self.problems.append(Problem(self.file, node.line, node.column, message))


class Spec(Protocol):
    """The values that one field accepts."""

    def read(self, node: Node, label: str, reading: Reading) -> Json:
        """The value of *node*, which messages call *label*; None after noting what is wrong with it."""

    def schema(self) -> dict[str, Json]:
        """The accepted values as JSON Schema."""


@dataclass(frozen=True, slots=True)
class Text:
    """Any scalar, as written. ``says`` is the rule in words. A secret is never shown and may hold ``${NAME}``."""

    pattern: str
    says: str
    _: KW_ONLY
    min_length: int = 1
    max_length: int = 10_000
    secret: bool = False
    verbatim: bool = False  #: what YAML would call a number, a date or null is text here without quotes

    def read(self, node: Node, label: str, reading: Reading) -> str | None:
        if not isinstance(node, Scalar):
            reading.wrong(node, f"{label} must be text, not a {_kind(node)}; {self.says}")
            return None
        text = _fill(node, label, reading) if self.secret else node.text
        if text is None or (self.secret and reading.environ is None and "${" in text):
            return text
        if not text:
            reading.wrong(node, f"{label} is empty; {self.says}")
        elif not self.min_length <= len(text) <= self.max_length:
            allowed = f"{self.min_length} to {self.max_length} are allowed"
            reading.wrong(node, f"{label} has {len(text)} character{'s' * (len(text) > 1)}; {allowed}")
        elif not re.fullmatch(self.pattern, text):
            reading.wrong(node, f"{label} {'has a wrong form' if self.secret else f'is {shown(text)}'}; {self.says}")
        else:
            return text
        return None

    def schema(self) -> dict[str, Json]:
        pattern = rf"{self.pattern}|.*\$\{{{_VARIABLE_NAME}\}}.*" if self.secret else self.pattern
        lengths = {"minLength": self.min_length, "maxLength": self.max_length}
        kinds = ["string", "number", "boolean", "null"] if self.verbatim else "string"
        return {"type": kinds, "pattern": f"^(?:{pattern})$", **lengths}


def _fill(node: Scalar, label: str, reading: Reading) -> str | None:
    """The text with every ``${NAME}`` replaced by the variable's value. Messages name variables, never values."""
    good = True

    def value(match: re.Match[str]) -> str:
        nonlocal good
        name = match[1]
        if not re.fullmatch(_VARIABLE_NAME, name) or not match[0].endswith("}"):
            good = False
            reading.wrong(node, f"{label} has a ${{ without a variable's name; write ${{NAME}}")
        elif reading.environ is not None and not reading.environ.get(name):
            good = False
            state = "empty" if name in reading.environ else "not set"
            reading.wrong(node, f"{label} needs the environment variable {name}, which is {state}; set it")
        elif reading.environ is not None:
            reading.filled_in.add(reading.environ[name])
            return reading.environ[name]
        return match[0]

    text = _VARIABLE.sub(value, node.text)
    return text if good else None


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    def read(self, node: Node, label: str, reading: Reading) -> str | None:
        if isinstance(node, Scalar) and node.text in self.words:
            return node.text
        what = shown(node.text) if isinstance(node, Scalar) else f"a {_kind(node)}"
        reading.wrong(node, f"{label} is {what}; write {' or '.join(self.words)}")
        return None

    def schema(self) -> dict[str, Json]:
        return {"type": "string", "enum": list(self.words)}


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number."""

    least: int = 1
    most: int = LARGEST

    def read(self, node: Node, label: str, reading: Reading) -> int | None:
        if isinstance(node, Scalar) and node.plain and _INTEGER.fullmatch(node.text):
            number = int(node.text)
            if self.least <= number <= self.most:
                return number
        reading.wrong(node, f"{label} {_not_a(node, 'number')}; write {self._range()}")
        return None

    def _range(self) -> str:
        if self.least == self.most:
            return str(self.least)
        if self.most == LARGEST:
            return f"a whole number, {self.least} or more"
        return f"a whole number from {self.least} to {self.most}"

    def schema(self) -> dict[str, Json]:
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


@dataclass(frozen=True, slots=True)
class Share:
    """A number from 0 to 1."""

    def read(self, node: Node, label: str, reading: Reading) -> float | None:
        if isinstance(node, Scalar) and node.plain and _NUMBER.fullmatch(node.text):
            number = float(node.text)
            if 0 <= number <= 1:
                return number
        reading.wrong(node, f"{label} {_not_a(node, 'number')}; write a number from 0 to 1, such as 0.6")
        return None

    def schema(self) -> dict[str, Json]:
        return {"type": "number", "minimum": 0, "maximum": 1}


@dataclass(frozen=True, slots=True)
class Flag:
    """true or false."""

    def read(self, node: Node, label: str, reading: Reading) -> bool | None:
        if isinstance(node, Scalar) and node.plain and node.text in _BOOLEANS:
            return _BOOLEANS[node.text]
        reading.wrong(node, f"{label} {_not_a(node, 'true or false')}; write true or false")
        return None

    def schema(self) -> dict[str, Json]:
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of one kind; read as a list without the items that are wrong."""

    item: Spec
    min_items: int = 1
    unique: bool = False

    def read(self, node: Node, label: str, reading: Reading) -> list[Json] | None:
        if not isinstance(node, Items):
            reading.wrong(node, f"{label} must be a list, not {_article(node)}; write each item as `- item`")
            return None
        if len(node.items) < self.min_items:
            reading.wrong(node, f"{label} is an empty list; give at least {self.min_items}, or leave it out")
            return None
        values = [self.item.read(item, f"{label}[{index}]", reading) for index, item in enumerate(node.items)]
        if self.unique:
            seen: dict[Json, Node] = {}
            for item, value in zip(node.items, values, strict=True):
                if value is not None and (first := seen.setdefault(value, item)) is not item:
                    reading.wrong(item, f"{label} has this item already in line {first.line}; remove one of them")
        return [value for value in values if value is not None]

    def schema(self) -> dict[str, Json]:
        extra: dict[str, Json] = {"minItems": self.min_items} if self.min_items else {}
        return {"type": "array", "items": self.item.schema(), **extra, **({"uniqueItems": True} if self.unique else {})}


@dataclass(frozen=True, slots=True)
class MapOf:
    """A mapping whose keys are the user's own. Its values are secrets, so no message shows a key that is wrong."""

    key_pattern: str
    key_says: str
    value: Text

    def read(self, node: Node, label: str, reading: Reading) -> dict[str, str] | None:
        if not isinstance(node, Entries):
            reading.wrong(node, f"{label} must be a mapping of names to texts, not {_article(node)}")
            return None
        read: dict[str, str] = {}
        for name, value in node.values.items():
            if not re.fullmatch(self.key_pattern, name):
                reading.wrong(node.keys[name], f"{label} has a name of a wrong form; {self.key_says}")
            elif (text := self.value.read(value, f"{label}.{name}", reading)) is not None:
                read[name] = text
        return read

    def schema(self) -> dict[str, Json]:
        names = {"pattern": f"^(?:{self.key_pattern})$"}
        return {"type": "object", "propertyNames": names, "additionalProperties": self.value.schema()}


@dataclass(frozen=True, slots=True)
class Field:
    """One entry of a Record. If it is not required, null and a missing key mean the default."""

    spec: Spec
    description: str
    _: KW_ONLY
    required: bool = False
    default: Json = None

    def schema(self) -> dict[str, Json]:
        schema = {"description": self.description, **self.spec.schema()}
        if not self.required:
            kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
            schema["type"] = list(dict.fromkeys([*kinds, "null"]))
            if "enum" in schema:
                schema["enum"] = [*schema["enum"], None]
            if self.default not in (None, ()):
                schema["default"] = self.default
        return schema


@dataclass(frozen=True, slots=True)
class Record:
    """A mapping with known keys, read as a dict that has all of them."""

    fields: Mapping[str, Field]
    _: KW_ONLY
    secret: bool = False
    extra: Mapping[str, Json] = field(default_factory=dict)  #: more JSON Schema, for rules between fields

    def read(self, node: Node, label: str, reading: Reading) -> dict[str, Json] | None:
        if not isinstance(node, Entries):
            keys = ", ".join(self.fields)
            reading.wrong(node, f"{label} must be a mapping, not {_article(node)}; its keys are {keys}")
            return None
        self._refuse_strangers(node, label, reading)
        prefix = f"{label}." if label != ROOT else ""
        read: dict[str, Json] = {}
        for name, known in self.fields.items():
            value = node.values.get(name)
            if value is None and known.required:
                reading.wrong(node, f"{label} has no `{name}`; add it: {known.description}")
            if value is None or (not known.required and isinstance(value, Scalar) and value.is_null):
                read[name] = known.default
            else:
                read[name] = known.spec.read(value, prefix + name, reading)
        return read

    def _refuse_strangers(self, node: Entries, label: str, reading: Reading) -> None:
        strangers = [key for name, key in node.keys.items() if name not in self.fields]
        for key in strangers:
            # Comparing is slow, and a file with more than twenty unknown keys is not a manifest.
            close = difflib.get_close_matches(key.text[:64], self.fields, n=1) if len(strangers) <= 20 else []
            name = "" if self.secret else f" {shown(key.text)}"
            hint = f"did you mean `{close[0]}`?" if close else f"the keys of {label} are {', '.join(self.fields)}"
            reading.wrong(key, f"unknown key{name}; {hint}")

    def schema(self) -> dict[str, Json]:
        return {
            "type": "object",
            "properties": {name: known.schema() for name, known in self.fields.items()},
            "required": [name for name, known in self.fields.items() if known.required],
            "additionalProperties": False,
            **self.extra,
        }


#: What messages call the outermost mapping.
ROOT = "the manifest"


def _kind(node: Node) -> str:
    return {Scalar: "single value", Items: "list", Entries: "mapping"}[type(node)]


def _article(node: Node) -> str:
    return "empty" if isinstance(node, Scalar) and node.is_null else f"a {_kind(node)}"


def _not_a(node: Node, what: str) -> str:
    if not isinstance(node, Scalar):
        return f"is a {_kind(node)}"
    if not node.plain:
        return f"is text in quotes, not {'a number' if what == 'number' else what}"
    return f"is {shown(node.text)}"
