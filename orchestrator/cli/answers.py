"""The JSON of ``--json``: one object per command, all in the same frame; and its JSON Schema, from the same classes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from orchestrator.cli.app import began_at, now, print_json
from orchestrator.errors import ExitCode, InputError, Problem
from orchestrator.models import Json
from orchestrator.plaintext import safe

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

#: Of the interface: a field that changes its name or its meaning, or goes, makes it one more; a new field does not.
VERSION = 1


@dataclass(frozen=True, slots=True)
class Frame:
    """The fields that every object has."""

    version: int  #: of this interface
    exit_code: int
    started_at: str  #: when the command (of a run: the run) began; ISO 8601, UTC
    finished_at: str


@dataclass(frozen=True, slots=True)
class Failure:
    """The object of a command that had no other to print: the call was wrong, or an error ended it early."""

    error: str
    reason: str  #: the same words, under the name that a run's summary has for them
    problems: list[Problem] | None = None  #: of the manifest, one by one


@dataclass(frozen=True, slots=True)
class NoRun:
    """The object of `run`, `retry` or `upload` where no run came about: its counts are all 0."""

    error: str
    reason: str  #: the same words, under the name that a run's summary has for them
    problems: list[Problem] | None = None  #: of the manifest, one by one
    manifest: None = None
    run_id: None = None
    files: int = 0
    classified: int = 0
    unmatched: int = 0
    failed: int = 0
    missing: int = 0
    cancelled: int = 0
    unfinished: int = 0
    skipped: int = 0
    jobs_created: int = 0
    requests: int = 0
    seconds: int = 0


@dataclass(frozen=True, slots=True)
class Validated:
    """A manifest in which `validate` found no mistake."""

    manifest: str
    path: str
    api: str
    mode: str
    rules: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that `doctor` looked at."""

    what: str
    good: bool
    words: str


@dataclass(frozen=True, slots=True)
class Examined:
    """The findings of `doctor`. ``exit_code``: what a run would end with because of the first that is not good."""

    good: bool
    findings: list[Line]


@dataclass(frozen=True, slots=True)
class BackedUp:
    """A copy of a ledger."""

    ledger: str
    file: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """The type that a person gave a file, or ``unmatched``, or ``dismissed``."""

    file_id: str
    verdict: str
    name: str | None = None  #: as a list of the manifest or a document gives it


@dataclass(frozen=True, slots=True)
class Accepted:
    """The verdicts that `accept` recorded."""

    manifest: str
    rehearsal: bool
    by: str
    note: str
    files: list[Verdict]


#: Command -> where the dataclasses of the objects lie that it prints when all goes well.
ANSWERS: Mapping[str, tuple[str, ...]] = {
    "accept": ("orchestrator.cli.answers:Accepted",),
    "adopt": ("orchestrator.commands.adopt:Adopted",),
    "backup": ("orchestrator.cli.answers:BackedUp",),
    "cancel": ("orchestrator.commands.cancel:Cancelled",),
    "diff": ("orchestrator.reports.diff:Diff",),
    "doctor": ("orchestrator.cli.answers:Examined",),
    "move-ledger": ("orchestrator.commands.move_ledger:Moved",),
    "plan": ("orchestrator.planning.preview:Preview",),
    "prune": ("orchestrator.commands.prune:Pruned",),
    "report": ("orchestrator.reports.page.content:Page",),
    "retry": ("orchestrator.commands.summary:Summary", "orchestrator.planning.retry:RetryPreview"),
    "route": ("orchestrator.commands.route:Routed",),
    "run": ("orchestrator.commands.summary:Summary",),
    "status": ("orchestrator.reports.status:Standing",),
    "submit": ("orchestrator.workers.submit:Submission",),
    "upload": ("orchestrator.commands.summary:Summary", "orchestrator.commands.upload:Uploaded"),
    "validate": ("orchestrator.cli.answers:Validated",),
    "workers": ("orchestrator.workers.view:Found",),
}

#: Commands whose object says how a run went, also where there was none.
RUNS = ("run", "retry", "upload")


def answer(body: DataclassInstance, exit_code: int = ExitCode.OK) -> None:
    """Print *body*, one of ``ANSWERS``, in its frame."""
    frame = Frame(VERSION, int(exit_code), began_at(), now())
    print_json({**asdict(frame), **asdict(body)})


def answer_failure(command: str, exit_code: int, words: str, problems: list[Problem] | None = None) -> None:
    """Print the object of a *command* that ended on an error."""
    answer((NoRun if command in RUNS else Failure)(words, words, problems), exit_code)


def schema(command: str) -> dict[str, Json]:
    """Return the JSON Schema (draft 2020-12) of what *command* prints with ``--json``. Raises InputError."""
    from pydantic import TypeAdapter
    from pydantic.json_schema import GenerateJsonSchema

    if command not in ANSWERS:
        raise InputError(f"no schema of {safe(command)}; there are: {', '.join(ANSWERS)}")

    class Described(GenerateJsonSchema):
        """With the comment behind each field, and no field that is not named."""

        def dataclass_schema(self, schema: Any) -> dict[str, Json]:
            said = _comments(schema["cls"])
            made = super().dataclass_schema(schema)
            for name, field in made["properties"].items():
                field.pop("title", None)
                if name in said:
                    field["description"] = said[name]
            return {**made, "additionalProperties": False, "required": list(made["properties"])}

    places = (*ANSWERS[command], f"orchestrator.cli.answers:{'NoRun' if command in RUNS else 'Failure'}")
    kinds = [_load(place) for place in (*places, "orchestrator.cli.answers:Frame")]
    adapters = [(kind, "serialization", TypeAdapter(kind)) for kind in kinds]
    refs, shared = TypeAdapter.json_schemas(
        cast("Any", adapters), schema_generator=Described, ref_template="#/$defs/{model}"
    )
    definitions: dict[str, Json] = shared["$defs"]
    *bodies, frame = (definitions[refs[kind, "serialization"]["$ref"].rpartition("/")[2]] for kind in kinds)
    for body in bodies:
        body["properties"] = {**frame["properties"], **body["properties"]}
        body["required"] = list(body["properties"])
    del definitions["Frame"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"orchestrator {command} --json",
        "anyOf": [refs[kind, "serialization"] for kind in kinds[:-1]],
        "$defs": definitions,
    }


def _load(place: str) -> type[DataclassInstance]:
    module, _, name = place.partition(":")
    return cast("type[DataclassInstance]", getattr(import_module(module), name))


def _comments(kind: type[DataclassInstance]) -> dict[str, str]:
    """Field -> the ``#:`` comment behind it."""
    found = re.findall(r"^ {4}(\w+): [^#\n]*#: (.+)$", inspect.getsource(kind), re.MULTILINE)
    names = {field.name for field in fields(kind)}
    return {name: words.replace("``", "`") for name, words in found if name in names}
