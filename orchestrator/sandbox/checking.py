"""Calls as the handlers see them, and the refusals of what is asked wrongly, worded as pydantic v2 words them."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from orchestrator.models import MAX_CHUNK_SIZE, Json, Rule

UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
DEFAULT_PROJECT = "00000000-0000-4000-8000-00000000face"
USER_ID = "sandbox-user"

_RULE_TYPE = re.compile(r"[A-Za-z0-9 _-]+", re.ASCII)
_WEBHOOK_KEYS = frozenset(
    {"webhook_url", "webhook_events", "webhook_headers", "webhook_output_format", "webhook_signing_secret"}
)

#: The events that v2 knows (OpenAPI ``WebhookConfiguration``); v1 takes any text.
_V2_EVENT = re.compile(
    r"(classify|parse|extract|sheets|batch|split|verify)\.(pending|running|success|partial_success|error|cancelled)"
)

Loc = tuple[str | int, ...]


class Refused(Exception):
    """The call is answered with *status* and ``{"detail": detail}``; *wait_s* is for a 429's ``Retry-After``."""

    def __init__(self, status: int, detail: Json, *, wait_s: float = 1.0) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
        self.wait_s = wait_s


@dataclass(frozen=True, slots=True)
class Upload:
    """The fields of an upload's form."""

    purpose: str | None = None
    filename: str | None = None
    content: bytes | None = None
    external_file_id: str | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One call, its body read whole. ``late_s``: for a create, how much later it takes effect."""

    query: Mapping[str, list[str]]
    id: str = ""
    body: bytes = b""
    upload: Upload = Upload()
    late_s: float = 0.0

    @property
    def project_id(self) -> str:
        given = self.one("project_id")
        if given is not None and not UUID.fullmatch(given):
            raise Refused(422, [_error(("query", "project_id"), "uuid_parsing", "Input should be a valid UUID", given)])
        return given or DEFAULT_PROJECT

    def one(self, name: str) -> str | None:
        values = self.query.get(name)
        return values[-1] if values else None

    def whole_number(self, name: str, default: int, low: int, high: int | None) -> int:
        """A query parameter from *low* to *high*."""
        given = self.one(name)
        if not given:
            return default
        checks = Checks(("query",))
        if not re.fullmatch(r"-?\d{1,9}", given, re.ASCII):
            message = "Input should be a valid integer, unable to parse string as an integer"
            checks.add((name,), "int_parsing", message, given)
        elif int(given) < low:
            message = f"Input should be greater than or equal to {low}"
            checks.add((name,), "greater_than_equal", message, given, ge=low)
        elif high is not None and int(given) > high:
            checks.add((name,), "less_than_equal", f"Input should be less than or equal to {high}", given, le=high)
        checks.done()
        return int(given)

    def json_object(self) -> dict[str, Json]:
        try:
            value = json.loads(self.body) if self.body else None
        except ValueError as error:
            raise Refused(422, [_error(("body",), "json_invalid", f"JSON decode error: {error}", {})]) from error
        if value is None:
            raise Refused(422, [_error(("body",), "missing", "Field required", None)])
        if not isinstance(value, dict):
            message = "Input should be a valid dictionary or object to extract fields from"
            raise Refused(422, [_error(("body",), "model_attributes_type", message, value)])
        return value


@dataclass(slots=True)
class Checks:
    """Collects what is wrong with a body; ``done`` refuses it all at once."""

    root: Loc = ("body",)
    errors: list[Json] = field(default_factory=list)

    def add(self, loc: Loc, kind: str, message: str, value: Json, **context: Json) -> None:
        self.errors.append(_error((*self.root, *loc), kind, message, value, **context))

    def done(self) -> None:
        if self.errors:
            raise Refused(422, self.errors)

    def list(self, owner: Mapping[str, Json], loc: Loc, *, most: int | None = None) -> list[Json]:
        """The required list at *loc*, from 1 to *most* long; empty when it is not one."""
        value = owner.get(str(loc[-1]))
        if str(loc[-1]) not in owner:
            self.add(loc, "missing", "Field required", dict(owner))
        elif not isinstance(value, list):
            self.add(loc, "list_type", "Input should be a valid list", value)
        elif not value:
            message = "List should have at least 1 item after validation, not 0"
            self.add(loc, "too_short", message, value, field_type="List", min_length=1, actual_length=0)
        elif most is not None and len(value) > most:
            message = f"List should have at most {most} items after validation, not {len(value)}"
            self.add(loc, "too_long", message, value, field_type="List", max_length=most, actual_length=len(value))
        else:
            return value
        return []

    def object(self, owner: Mapping[str, Json], loc: Loc) -> dict[str, Json]:
        """The optional object at *loc*; empty when it is left out or not one."""
        value = owner.get(str(loc[-1]))
        if isinstance(value, dict):
            return value
        if value is not None:
            self.add(loc, "model_type", "Input should be a valid dictionary or object", value)
        return {}

    def text(self, value: Json, loc: Loc, low: int, high: int) -> str:
        if not isinstance(value, str):
            self.add(loc, "string_type", "Input should be a valid string", value)
            return ""
        if len(value) < low:
            message = f"String should have at least {low} character{'s' * (low > 1)}"
            self.add(loc, "string_too_short", message, value, min_length=low)
        elif len(value) > high:
            message = f"String should have at most {high} characters"
            self.add(loc, "string_too_long", message, value, max_length=high)
        return value

    def one_of(self, value: Json, loc: Loc, allowed: Collection[str]) -> str:
        if not isinstance(value, str) or value not in allowed:
            expected = " or ".join(f"'{word}'" for word in allowed)
            self.add(loc, "enum", f"Input should be {expected}", value, expected=expected)
        return str(value)

    def pages(self, value: Json, loc: Loc, least: int | None) -> int | None:
        """``max_pages``: a whole number, of *least* or more, or null."""
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool):
            self.add(loc, "int_type", "Input should be a valid integer", value)
            return None
        if least is not None and value < least:
            message = f"Input should be greater than or equal to {least}"
            self.add(loc, "greater_than_equal", message, value, ge=least)
        return value

    def file_ids(self, body: Mapping[str, Json], *, strict: bool) -> tuple[str, ...]:
        """v1's ``file_ids``: 1 to 500 UUIDs, bare or after ``dfl-``."""
        values = self.list(body, ("file_ids",), most=MAX_CHUNK_SIZE)
        for index, value in enumerate(values):
            if not isinstance(value, str) or (strict and not UUID.fullmatch(value.removeprefix("dfl-"))):
                message = "Input should be a valid UUID"
                self.add(("file_ids", index), "uuid_parsing", message, value, error="not a UUID")
        return tuple(map(str, values))

    def rules(self, owner: Mapping[str, Json], *above: str) -> tuple[Rule, ...]:
        """At least one rule; types unique, letters, digits, spaces, hyphens and underscores only."""
        rules: list[Rule] = []
        for index, value in enumerate(self.list(owner, (*above, "rules"))):
            loc: Loc = (*above, "rules", index)
            if not isinstance(value, dict):
                self.add(loc, "model_type", "Input should be a valid dictionary or object", value)
                continue
            for name in {"type", "description"} - value.keys():
                self.add((*loc, name), "missing", "Field required", value)
            label = self.text(value.get("type", "-"), (*loc, "type"), 1, 50)
            if label and not _RULE_TYPE.fullmatch(label):
                message = "Value error, type may only contain alphanumerics, spaces, hyphens and underscores"
                self.add((*loc, "type"), "value_error", message, label, error={})
            rules.append(Rule(label, self.text(value.get("description", "-" * 10), (*loc, "description"), 10, 500)))
        if len({rule.type for rule in rules}) < len(rules):
            self.add((*above, "rules"), "value_error", "Value error, rule types must be unique", None, error={})
        return tuple(rules)

    def webhooks(self, body: Mapping[str, Json], version: str) -> tuple[dict[str, Json], ...]:
        """The webhooks of a create: the one object of the API that takes no unknown key."""
        if not body.get("webhook_configurations"):
            return ()
        hooks: list[dict[str, Json]] = []
        for index, hook in enumerate(self.list(body, ("webhook_configurations",))):
            loc: Loc = ("webhook_configurations", index)
            if not isinstance(hook, dict):
                self.add(loc, "model_type", "Input should be a valid dictionary or object", hook)
                continue
            for name in sorted(hook.keys() - _WEBHOOK_KEYS):
                self.add((*loc, name), "extra_forbidden", "Extra inputs are not permitted", hook[name])
            if not re.match("https?:", str(hook.get("webhook_url") or "https:")):
                message = "String should match pattern '^https?:'"
                self.add((*loc, "webhook_url"), "string_pattern_mismatch", message, hook["webhook_url"])
            self._events(hook, loc, version)
            for name, value in self.object(hook, (*loc, "webhook_headers")).items():
                if version == "v2":  # v1 takes any value
                    self.text(value, (*loc, "webhook_headers", name), 0, 10_000)
            if version == "v1" and hook.get("webhook_output_format") is not None:
                self.one_of(hook["webhook_output_format"], (*loc, "webhook_output_format"), ("string", "json"))
            hooks.append(hook)
        return tuple(hooks)

    def _events(self, hook: Mapping[str, Json], loc: Loc, version: str) -> None:
        at = (*loc, "webhook_events")
        for index, event in enumerate(self.list(hook, at) if hook.get("webhook_events") is not None else ()):
            text = self.text(event, (*at, index), 1, 200)
            if text and version == "v2" and not _V2_EVENT.fullmatch(text):
                self.add((*at, index), "enum", "Input should be an event such as 'classify.success'", text)


def spelt(file_id: str | None, form: str) -> str | None:
    """A file's UUID as answers spell it: ``canonical`` is bare and in lower case; any other ID stays as it is."""
    uuid = (file_id or "").lower().removeprefix("dfl-")
    if file_id is None or form == "as-sent" or not UUID.fullmatch(uuid):
        return file_id
    return {"canonical": uuid, "upper": uuid.upper(), "dfl": f"dfl-{uuid}"}[form]


def _error(loc: Loc, kind: str, message: str, value: Json, **context: Json) -> dict[str, Json]:
    error: dict[str, Json] = {"type": kind, "loc": list(loc), "msg": message, "input": value}
    return error | ({"ctx": context} if context else {})
