"""The manifest's format: every field, and the rules between fields. Limits are those of the API's create calls."""

from __future__ import annotations

import difflib
import re

from orchestrator.manifest.fields import PROSE, Choice, Field, Flag, ListOf, MapOf, Reading, Record, Share, Text, Whole
from orchestrator.manifest.lists import FILE_ID, FILE_ID_SAYS, LIST_NAME, LIST_NAME_SAYS, STANDARD_INPUT
from orchestrator.manifest.nodes import Entries, Items, Node, Scalar, shown
from orchestrator.manifest.schedule import SCHEDULE, check_schedule
from orchestrator.manifest.sources import DOCUMENTS, PLACES, ROUTE
from orchestrator.models import MAX_CHUNK_SIZE, Json, Mode

#: The languages of v1 (OpenAPI ``ParserLanguages``). v2 takes free text.
_V1_CODES = (
    "af az bs cs cy da de en es et fr ga hr hu id is it ku la lt lv mi ms mt nl no oc pi pl pt ro rs_latin sk sl sq sv "
    "sw tl tr uz vi ar fa ug ur bn as mni ru rs_cyrillic be bg uk mn abq ady kbd ava dar inh che lbe lez tab tjk hi mr "
    "ne bh mai ang bho mah sck new gom sa bgc th ch_sim ch_tra ja ko ta te kn"
)
V1_LANGUAGES = frozenset(_V1_CODES.split())


#: The events of each version. v2 refuses a call that names another; v1 takes any text and never sends the event.
_EVENTS = {
    "v1": re.compile(r"(classify|parse)\.(pending|running|success|partial_success|error|cancelled)"),
    "v2": re.compile(
        r"classify\.(pending|running|success|partial_success|error|cancelled)"
        r"|(batch|extract|parse|sheets|split|verify)\.[a-z_]+"
    ),
}

_HEADER_VALUE = r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]*"

_ID = Text(r"[A-Za-z0-9_-]+", "an ID is letters, digits, - and _", max_length=128)

_UUID = Text(
    r"[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}",
    "write the UUID, such as 3f2504e0-4f89-41d3-9a0c-0305e82c3301",
    max_length=128,
)

_RULE = Record(
    {
        "type": Field(
            Text(
                r"[A-Za-z0-9_-](?:[A-Za-z0-9 _-]*[A-Za-z0-9_-])?",
                "a type is 1 to 50 letters, digits, spaces, - and _, with no space at either end",
                max_length=50,
            ),
            "the label that a file gets; unique in the manifest",
            required=True,
        ),
        "description": Field(
            Text(rf"(?=[\s\S]*\S){PROSE}", "describe in words when the type applies", min_length=10, max_length=500),
            "when the type applies, in natural language, 10 to 500 characters",
            required=True,
        ),
    }
)

LANGUAGE = r"[A-Za-z]{2,}(?:[_-][A-Za-z0-9]+)*"
LANGUAGE_SAYS = "write a language code such as en, de or ch_sim"

_PARSING = Record(
    {
        "lang": Field(
            Text(LANGUAGE, LANGUAGE_SAYS, max_length=35),
            "language of the documents; v1 takes 86 codes, v2 any code",
            default="en",
        ),
        "max_pages": Field(
            Whole(1, 1_000_000), "how many pages of each file are read, and paid for; left out or null: 5", default=5
        ),
        "target_pages": Field(
            ListOf(Whole(0, 1_000_000), unique=True), "the pages to read, counted from 0; not with max_pages"
        ),
    },
    extra={
        "not": {
            "properties": {"max_pages": {"type": "integer"}, "target_pages": {"type": "array"}},
            "required": ["max_pages", "target_pages"],
        }
    },
)

_WEBHOOK = Record(
    {
        "webhook_url": Field(
            Text(
                r"https?://[^\s/?#@\\]+(?:[/?#][^\s\\]*)?",
                "write https://host/path, without user name, password or white space",
                max_length=2000,
                secret=True,
            ),
            "where the API sends its events: https, and reachable from the internet",
            required=True,
        ),
        "webhook_events": Field(
            ListOf(
                Text(r"[^\s\x00-\x1f\x7f]+", "an event is a word such as classify.success", max_length=100, secret=True)
            ),
            "which events are sent, such as classify.success; left out: all",
        ),
        "webhook_headers": Field(
            MapOf(
                r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}",
                "a header's name is letters, digits and -",
                Text(_HEADER_VALUE, "a header is one line of text", secret=True),
            ),
            "headers to send along",
        ),
        "webhook_output_format": Field(
            Choice(("json", "string")), "json: an object; string, the API's default: the same as a JSON-encoded string"
        ),
        "webhook_signing_secret": Field(
            Text(_HEADER_VALUE, "a secret is one line of text", secret=True),
            "signs each event (header LC-Signature); write ${NAME} to take it from the environment",
        ),
    },
    secret=True,
)

_REVIEW = Record(
    {
        "below_confidence": Field(Share(), "results with less confidence are to be reviewed"),
        "unmatched": Field(Flag(), "files that no rule matched are to be reviewed too", default=False),
    }
)

_ESCALATE = Record(
    {
        "below_confidence": Field(Share(), "results with less confidence are asked for again", required=True),
        "mode": Field(Choice((Mode.MULTIMODAL.value,)), "the mode of the second time", default=Mode.MULTIMODAL.value),
    }
)

_DRIFT = Record(
    {
        "alert": Field(
            Share(),
            "from which Jensen-Shannon distance to the mean of the 14 runs before, and by more than chance",
            default=0.1,
        ),
    }
)

_NOTIFY = ListOf(
    Text(
        r"[A-Za-z][A-Za-z0-9+.-]*://\S+",
        "write an address as Apprise does, such as mailto://... or slack://..., or ${NAME}",
        max_length=2000,
        secret=True,
    )
)

_LIMITS = Record(
    {
        "max_files": Field(Whole(), "most files that one run sends"),
        "max_credits": Field(Whole(), "most credits that one run can cost, if every file has all its pages read"),
        "max_generations": Field(Whole(), "most times that one file is deliberately submitted"),
        "max_reclassify": Field(
            Whole(),
            "most files with an outcome that one run classifies again because rules, mode or parsing changed; "
            "left out: 10 % of them, at least 100",
        ),
    }
)

MANIFEST = Record(
    {
        "version": Field(Whole(1, 1), "the manifest's format; write 1", required=True),
        "name": Field(
            Text(r"(?!\.+$)[A-Za-z0-9._-]+", "a name is letters, digits, -, _ and ., and not only dots", max_length=64),
            "the ledger's key for this work; keep it",
            required=True,
        ),
        "api": Field(Choice(("v1", "v2")), "the API's version", default="v1"),
        "project_id": Field(_UUID, "the project that the files are in; left out: the API key's own"),
        "organization_id": Field(_UUID, "the organization that the project is in"),
        "rules": Field(ListOf(_RULE), "the types; their order is kept", default=()),
        "configuration_id": Field(_ID, "a configuration saved on the server (cfg-...), instead of rules; v2 only"),
        "mode": Field(
            Choice(tuple(map(str, Mode))),
            "FAST: 1 credit a page; MULTIMODAL: 2 credits a page, v1 only",
            default=Mode.FAST.value,
        ),
        "parsing_configuration": Field(_PARSING, "which pages are read, and in what language"),
        "file_ids": Field(
            ListOf(Text(FILE_ID, FILE_ID_SAYS, max_length=200, verbatim=True), min_items=0),
            "the IDs of the uploaded files, as the API gave them",
            default=(),
        ),
        "file_ids_from": Field(
            ListOf(Text(LIST_NAME, LIST_NAME_SAYS, max_length=4000)),
            "lists of file IDs: .txt (one a line), .csv (column file_id), .jsonl, or - for standard input",
        ),
        "documents_from": Field(PLACES, "folders and patterns whose documents are uploaded and classified"),
        "documents": Field(DOCUMENTS, "which of the documents are taken"),
        "allow_empty": Field(
            Flag(), "true: lists and folders may hold nothing at all; false: such a run stops", default=False
        ),
        "route": Field(ROUTE, "where `run` puts the documents at its end; `orchestrator route` does so at any time"),
        "webhook_configurations": Field(ListOf(_WEBHOOK), "where the API reports events", default=()),
        "webhook_configuration_ids": Field(
            ListOf(_ID, unique=True), "webhooks saved on the server; v2 only", default=()
        ),
        "chunk_size": Field(
            Whole(1, MAX_CHUNK_SIZE), "how many files one create call sends; v2 always sends one", default=100
        ),
        "review": Field(_REVIEW, "which results a person should look at"),
        "drift": Field(_DRIFT, "when a run says that its answers differ from those of the runs before it"),
        "report": Field(
            Text(
                r"[^\x00-\x1f\x7f\ud800-\udfff]*\.[hH][tT][mM][lL]?",
                "a page's name ends in .html; it is relative to the manifest's folder",
                max_length=4000,
            ),
            "the page that the end of each run writes, such as report.html; not of a rehearsal",
        ),
        "notify": Field(
            _NOTIFY,
            "who is notified when the state of the work changes: Apprise URLs; ${NAME} takes one from the environment",
            default=(),
        ),
        "escalate": Field(_ESCALATE, "which results are asked for again in a better mode; v1 only"),
        "schedule": Field(SCHEDULE, "when workers carry it out; `orchestrator submit` makes it known to them"),
        "limits": Field(_LIMITS, "a guard: beyond it nothing is sent"),
    },
    extra={
        "allOf": [
            {"oneOf": [{"required": ["rules"]}, {"required": ["configuration_id"]}]},
            {"anyOf": [{"required": [name]} for name in ("file_ids", "file_ids_from", "documents_from")]},
        ]
    },
)


def wrong_language(lang: str, api: str) -> str | None:
    """The mistake in a language of the right form; None when there is none."""
    if api != "v1" or lang in V1_LANGUAGES:
        return None
    close = ["ch_sim", "ch_tra"] if lang.startswith("zh") else difflib.get_close_matches(lang, V1_LANGUAGES)
    hint = f"did you mean {' or '.join(close)}?" if close else "write one such as en, de, fr, ja, ch_sim"
    return f"{shown(lang)} is not among the 86 codes of v1; {hint}"


def check_together(root: Entries, values: dict[str, Json], api: str, reading: Reading) -> None:
    """Note what is wrong between fields that are right by themselves; *values* are what MANIFEST read of *root*."""
    if all(_given(root, name) is None for name in ("file_ids", "file_ids_from", "documents_from")):
        reading.wrong(root, "no files are named; give `documents_from`, `file_ids` or `file_ids_from`")
    if (node := _given(root, "documents")) is not None and _given(root, "documents_from") is None:
        reading.wrong(node, "documents says which documents are taken; name their folders in `documents_from`")
    _check_config(root, api, reading)
    _check_rules(root, reading)
    _check_parsing(root, values, api, reading)
    _check_events(root, api, reading)
    if api == "v2":
        _check_v2(root, values, reading)
    elif (node := _given(root, "webhook_configuration_ids")) is not None:
        reading.wrong(node, "webhook_configuration_ids is v2 only; use webhook_configurations, or api: v2")
    if (node := _given(root, "schedule")) is not None:
        check_schedule(node, reading)
    escalate = _given(root, "escalate")
    if escalate is not None and api == "v1" and values["mode"] == Mode.MULTIMODAL:
        reading.wrong(escalate, "escalate has nothing better than mode MULTIMODAL; use mode: FAST, or leave it out")
    names = root.values.get("file_ids_from")
    stdin = [item for item in _items(names) if isinstance(item, Scalar) and item.text == STANDARD_INPUT]
    for again in stdin[1:]:
        reading.wrong(again, f"standard input is already named in line {stdin[0].line}; it can be read only once")


def _check_config(root: Entries, api: str, reading: Reading) -> None:
    preset = _given(root, "configuration_id")
    if preset is None:
        if _given(root, "rules") is None:
            reading.wrong(root, "no rules are given; add `rules`, each with `type` and `description`")
        return
    if api == "v1":
        reading.wrong(preset, "configuration_id is v2 only; write the rules out, or use api: v2")
    for name in ("rules", "mode", "parsing_configuration"):
        if _given(root, name) is not None:
            reading.wrong(
                root.keys[name], f"{name} can't stand beside configuration_id, which brings its own; keep one"
            )
    limits = root.values.get("limits")
    if isinstance(limits, Entries) and (node := _given(limits, "max_credits")) is not None:
        why = "can't be kept with configuration_id, whose pages are known only to the server"
        reading.wrong(node, f"limits.max_credits {why}; use limits.max_files")


def _check_rules(root: Entries, reading: Reading) -> None:
    seen: dict[str, Scalar] = {}
    for rule in _items(root.values.get("rules")):
        kind = rule.values.get("type") if isinstance(rule, Entries) else None
        if isinstance(kind, Scalar) and (first := seen.setdefault(kind.text, kind)) is not kind:
            reading.wrong(kind, f"type {shown(kind.text)} is already used in line {first.line}; types must differ")


def _check_parsing(root: Entries, values: dict[str, Json], api: str, reading: Reading) -> None:
    parsing = root.values.get("parsing_configuration")
    if not isinstance(parsing, Entries):
        return
    if _given(parsing, "max_pages") is not None and (pages := _given(parsing, "target_pages")) is not None:
        reading.wrong(pages, "target_pages and max_pages exclude each other; keep one of them")
    lang = values["parsing_configuration"]["lang"]
    if lang is not None and (problem := wrong_language(lang, api)):
        reading.wrong(parsing.values["lang"], f"lang {problem}")


def _check_v2(root: Entries, values: dict[str, Json], reading: Reading) -> None:
    if values["mode"] == Mode.MULTIMODAL:
        reading.wrong(root.values["mode"], "mode MULTIMODAL is v1 only; use mode: FAST, or api: v1")
    if (node := _given(root, "escalate")) is not None:
        reading.wrong(node, "escalate asks for mode MULTIMODAL, which is v1 only; leave it out, or use api: v1")


def _check_events(root: Entries, api: str, reading: Reading) -> None:
    for webhook in _items(root.values.get("webhook_configurations")):
        for event in _items(webhook.values.get("webhook_events")) if isinstance(webhook, Entries) else ():
            if isinstance(event, Scalar) and "$" not in event.text and not _EVENTS[api].fullmatch(event.text):
                reading.wrong(event, f"{api} has no such event; write one such as classify.success or classify.error")


def _given(entries: Entries, name: str) -> Node | None:
    """The value of *name*, unless it is null, which is the same as leaving it out."""
    node = entries.values.get(name)
    return None if isinstance(node, Scalar) and node.is_null else node


def _items(node: Node | None) -> list[Node]:
    return node.items if isinstance(node, Items) else []
