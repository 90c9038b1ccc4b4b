"""JSON checked against a JSON Schema, as far as the program's own schemas go; anything else in a schema is an error."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from orchestrator.models import Json

#: Words that say nothing of the value.
_SAYS_NOTHING = {"$defs", "$schema", "title", "description", "default"}

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "integer": int,
    "number": (int, float),
}


def faults(value: Json, schema: Json, root: Json, at: str = "$") -> Iterator[str]:
    """Every place where *value* is not as *schema* says. Raises ValueError for a word that is not known here."""
    for word, said in schema.items():
        match word:
            case "$ref":
                yield from faults(value, root["$defs"][said.removeprefix("#/$defs/")], root, at)
            case "anyOf":
                found = [list(faults(value, each, root, at)) for each in said]
                if all(found):
                    yield from min(found, key=len)
            case "type":
                is_bool = isinstance(value, bool) and said in ("integer", "number")
                if is_bool or not isinstance(value, _TYPES[said]):
                    yield f"{at}: {value!r} is no {said}"
            case "format":
                if said != "date-time":
                    raise ValueError(f"format {said} in a schema")
                if isinstance(value, str) and not _is_moment(value):
                    yield f"{at}: {value!r} is no moment with a zone"
            case "enum":
                if value not in said:
                    yield f"{at}: {value!r} is none of {said}"
            case "const":
                if value != said:
                    yield f"{at}: {value!r} is not {said!r}"
            case "required":
                yield from (f"{at}: no {name}" for name in said if isinstance(value, dict) and name not in value)
            case "properties":
                for name in said.keys() & (value if isinstance(value, dict) else {}):
                    yield from faults(value[name], said[name], root, f"{at}.{name}")
            case "additionalProperties":
                for name in (value if isinstance(value, dict) else {}).keys() - schema.get("properties", {}).keys():
                    if said is False:
                        yield f"{at}: unknown {name}"
                    elif said is not True:
                        yield from faults(value[name], said, root, f"{at}.{name}")
            case "items":
                for number, each in enumerate(value if isinstance(value, list) else []):
                    yield from faults(each, said, root, f"{at}[{number}]")
            case _ if word not in _SAYS_NOTHING:
                raise ValueError(f"{word} in a schema")


def _is_moment(value: str) -> bool:
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False
