"""YAML in, a valid Manifest out, or every mistake with its line and column."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from orchestrator.errors import ManifestError, Problem
from orchestrator.manifest.fields import ROOT, Reading
from orchestrator.manifest.format import MANIFEST, check_together
from orchestrator.manifest.lists import FileList, Note
from orchestrator.manifest.nodes import (
    MAX_BYTES,
    MAX_PROBLEMS,
    Entries,
    Items,
    Node,
    Scalar,
    open_regular,
    parse,
    shown,
)
from orchestrator.manifest.schedule import Schedule, read_schedule
from orchestrator.manifest.sources import Route, Sources, read_route, read_sources
from orchestrator.models import (
    Config,
    Escalate,
    Json,
    Limits,
    Mode,
    ParsingConfiguration,
    Review,
    Rule,
    Webhook,
)


@dataclass(frozen=True)
class Manifest:
    """The files to classify, and how. ``path`` is as the user gave it; ``sha256`` is of the YAML file's bytes."""

    path: str
    name: str
    api: str  #: "v1" or "v2"
    config: Config
    project_id: str | None
    organization_id: str | None
    webhook_configurations: tuple[Webhook, ...]
    webhook_configuration_ids: tuple[str, ...]  #: v2 only
    chunk_size: int
    review: Review
    limits: Limits
    sha256: str
    escalate: Escalate | None = None
    drift_alert: float | None = None  #: the distance from which a run's answers have drifted; None: none is said
    report: str | None = None  #: the page that a run's end writes; relative to the manifest's folder
    notify: tuple[str, ...] = field(default=(), repr=False)  #: the services to notify of a change, each a secret
    limit_lines: Mapping[str, int] = field(
        default_factory=dict, compare=False
    )  #: each limit -> its line in the YAML file
    ids: tuple[str, ...] = field(default=(), repr=False)  #: those in the manifest itself
    lists: tuple[FileList, ...] = ()
    allow_empty: bool = False  #: whether a run of no files at all is right
    secrets: tuple[str, ...] = field(default=(), repr=False)  #: never to be shown: see Redactor
    sources: Sources | None = None  #: where its documents are; None: it names files only
    route: Route | None = None  #: where its documents go at the end of a run
    schedule: Schedule | None = None  #: when workers carry it out

    @property
    def stronger_config(self) -> Config | None:
        """The config of second opinions; None without ``escalate``."""
        return None if self.escalate is None else replace(self.config, mode=self.escalate.mode)

    def file_ids(self, note: Note | None = None) -> Iterator[str]:
        """Every file ID, first those in the manifest, then each list's, duplicates included.

        *note* is called with the names and further columns that lists give to files.

        Raises ManifestError at the end if a list could not be read or has bad lines: act on the IDs only after the
        iterator is exhausted. Standard input can be read only once.
        """
        problems: list[Problem] = []
        yield from self.ids
        for file_list in self.lists:
            yield from file_list.file_ids(problems, note)
        if problems:
            raise ManifestError(_first(problems))

    def doubts(self) -> list[str]:
        """Why lists that have been read may not be whole, for a person."""
        return [file_list.doubt for file_list in self.lists if file_list.doubt]


def refuse_empty(manifest: Manifest, listed: int) -> None:
    """Raise ManifestError when not one file was *listed* and the manifest does not allow that: most likely whatever
    writes the list has failed, and a night without work would look like a good one.
    """
    if listed or manifest.allow_empty:
        return
    where = manifest.lists[0].name if manifest.lists else manifest.path
    words = "no file IDs are listed; if that can be right, write `allow_empty: true` in the manifest"
    raise ManifestError([Problem(where, 1, 1, words)])


def load(path: str, *, environ: Mapping[str, str], api: str | None = None, resolve_secrets: bool = True) -> Manifest:
    """The manifest at *path*; *api* wins over its own. Raises ManifestError with every problem, in file order.

    The lists it names must be there and are read later, by ``file_ids``. Without *resolve_secrets* every ``${NAME}``
    stays as written, so that a plan can be made where the secrets are not.
    """
    manifest, _, problems = _read(path, environ if resolve_secrets else None, api)
    if manifest is None:
        raise ManifestError(_first(problems))
    return manifest


def check(path: str, *, environ: Mapping[str, str], api: str | None = None) -> tuple[Manifest | None, list[Problem]]:
    """Everything that is wrong with the manifest and its lists, which are read to their ends.

    An unset ``${NAME}`` is a problem here: better now than at night.
    """
    manifest, lists, problems = _read(path, environ, api)
    for file_list in lists:
        deque(file_list.file_ids(problems), maxlen=0)
    if manifest is not None and manifest.sources is not None and not manifest.sources.allow_empty:
        problems += [problem for place in manifest.sources.places if (problem := place.missing())]
    return (None if problems else manifest), _first(problems)


def json_schema() -> dict[str, Json]:
    """The manifest as JSON Schema (draft 2020-12), for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "orchestrator manifest",
        "description": "What to classify, and how. YAML; in webhook_configurations and notify ${NAME} is a variable "
        "of the environment.",
        **MANIFEST.schema(),
    }


def _first(problems: list[Problem]) -> list[Problem]:
    """At most MAX_PROBLEMS, and then a line that says so."""
    if len(problems) <= MAX_PROBLEMS:
        return problems
    following = problems[MAX_PROBLEMS]
    more = Problem(following.file, following.line, following.column, "more problems follow; fix the ones above first")
    return [*problems[:MAX_PROBLEMS], more]


def _read(
    path: str, environ: Mapping[str, str] | None, api: str | None
) -> tuple[Manifest | None, list[FileList], list[Problem]]:
    """The manifest if it is good; the lists that it names, as far as they are there; the problems in file order."""
    try:
        with open_regular(path) as handle:
            data = handle.read(MAX_BYTES + 1)
    except OSError as error:
        return None, [], [Problem(path, 1, 1, f"can't be read: {error.strerror}")]
    root, problems = parse(data, path)
    if root is None:
        return None, [], problems
    if later := _later_version(root):
        return None, [], [Problem(path, later.line, later.column, f"version {shown(later.text)} is unknown; write 1")]
    reading = Reading(path, environ, problems)
    values = MANIFEST.read(root, ROOT, reading)
    if values is None or not isinstance(root, Entries):
        return None, [], problems
    api = api or values["api"] or "v1"
    check_together(root, values, api, reading)
    lists = _lists(root, reading)
    problems.sort()
    if problems:
        return None, lists, problems
    return _build(path, hashlib.sha256(data).hexdigest(), api, root, values, lists, reading.filled_in), lists, problems


def _later_version(root: Node) -> Scalar | None:
    """The value of ``version`` when it names another format, about which nothing more can be said."""
    version = root.values.get("version") if isinstance(root, Entries) else None
    return version if isinstance(version, Scalar) and not version.is_null and version.text != "1" else None


def _lists(root: Entries, reading: Reading) -> list[FileList]:
    """The lists named in ``file_ids_from`` that are there; the others are noted."""
    node = root.values.get("file_ids_from")
    entries = [item for item in node.items if isinstance(item, Scalar)] if isinstance(node, Items) else []
    wrong = {(problem.line, problem.column) for problem in reading.problems}
    lists = [FileList(reading.file, entry) for entry in entries if (entry.line, entry.column) not in wrong]
    missing = [file_list.missing() for file_list in lists]
    reading.problems.extend(problem for problem in missing if problem is not None)
    return [file_list for file_list, problem in zip(lists, missing, strict=True) if problem is None]


def _build(
    path: str, sha256: str, api: str, root: Entries, values: dict[str, Json], lists: list[FileList], filled_in: set[str]
) -> Manifest:
    """The manifest of *values*, read of *root*, that have no problem."""
    limits = root.values.get("limits")
    webhooks = [_webhook(value) for value in values["webhook_configurations"]]
    written = [secret for webhook in webhooks for secret in _secrets(webhook)]
    return Manifest(
        path=path,
        name=values["name"],
        api=api,
        config=_config(values),
        project_id=values["project_id"],
        organization_id=values["organization_id"],
        webhook_configurations=tuple(webhooks),
        webhook_configuration_ids=tuple(values["webhook_configuration_ids"]),
        chunk_size=values["chunk_size"],
        review=Review(**values["review"]) if values["review"] else Review(),
        limits=Limits(**values["limits"]) if values["limits"] else Limits(),
        limit_lines={name: node.line for name, node in limits.values.items()} if isinstance(limits, Entries) else {},
        sha256=sha256,
        escalate=Escalate(values["escalate"]["below_confidence"]) if values["escalate"] else None,
        drift_alert=values["drift"]["alert"] if values["drift"] else None,
        report=values["report"],
        notify=tuple(values["notify"]),
        ids=tuple(values["file_ids"]),
        lists=tuple(lists),
        allow_empty=bool(values["allow_empty"]),
        secrets=tuple(dict.fromkeys([*sorted(filled_in), *written, *values["notify"]])),
        sources=read_sources(path, root, values),
        route=read_route(path, values),
        schedule=read_schedule(root, values),
    )


def _config(values: dict[str, Json]) -> Config:
    pages = values["parsing_configuration"]
    parsing = ParsingConfiguration()
    if pages and pages["target_pages"]:
        parsing = ParsingConfiguration(pages["lang"], None, tuple(pages["target_pages"]))
    elif pages:
        parsing = ParsingConfiguration(pages["lang"], pages["max_pages"])
    rules = tuple(Rule(rule["type"], rule["description"]) for rule in values["rules"])
    return Config(rules, Mode(values["mode"]), parsing, values["configuration_id"])


def _webhook(value: dict[str, Json]) -> Webhook:
    events = value["webhook_events"]
    return Webhook(**{**value, "webhook_events": tuple(events) if events is not None else None})


def _secrets(webhook: Webhook) -> Iterator[str]:
    """The parts of a webhook that are secret even when the manifest itself holds them."""
    if webhook.webhook_signing_secret is not None:
        yield webhook.webhook_signing_secret
    yield from (webhook.webhook_headers or {}).values()
