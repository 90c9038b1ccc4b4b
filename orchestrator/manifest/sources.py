"""Where a manifest's documents come from and where they go: ``documents_from``, ``documents`` and ``route``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator import settings
from orchestrator.errors import Problem
from orchestrator.manifest.fields import Choice, Field, Flag, ListOf, Record, Share, Text, Whole
from orchestrator.manifest.nodes import Entries, Items, Scalar
from orchestrator.models import Json
from orchestrator.plaintext import safe

#: The vendor's own limit on one upload.
MAX_DOCUMENT_BYTES = 512 * 1024 * 1024

#: What a path or a pattern may hold: anything but control characters and half characters.
_PATH = r"[^\x00-\x1f\x7f\ud800-\udfff]+"

#: What the URL of a bucket begins with.
BUCKETS = ("s3://", "gs://", "az://")

#: A path, or the URL of a bucket and a folder in it; no other URL.
_PLACE = rf"(?:(?:s3|gs|az)://[A-Za-z0-9][A-Za-z0-9._-]{{0,254}}(?:/{_PATH})?/?|(?![A-Za-z][A-Za-z0-9+.-]*://){_PATH})"

_MAGIC = re.compile(r"[*?\[]")

#: The word of a route that leaves documents of a kind where they are.
LEAVE = "leave"

PLACES = ListOf(
    Text(
        _PLACE,
        "write a folder, a pattern such as scans/**/*.pdf, or a bucket such as s3://name/folder (also gs, az)",
        max_length=4000,
    )
)

_PATTERNS = ListOf(Text(_PATH, "a pattern is a name with *, ? or [...], such as *.pdf or drafts/*", max_length=1000))

DOCUMENTS = Record(
    {
        "include": Field(_PATTERNS, "only documents whose name or path matches one of these, whatever their type"),
        "exclude": Field(_PATTERNS, "no documents whose name or path matches one of these"),
        "settle": Field(
            Text(r"[0-9]+(\.[0-9]+)?\s*(ms|s|m|h|d)?", "write a time such as 60s or 5m", max_length=20, verbatim=True),
            "a document that changed more recently is left for the next run: it may be half written",
            default="60s",
        ),
        "follow_links": Field(Flag(), "symbolic links inside the folders are followed", default=False),
        "max_bytes": Field(
            Whole(1, MAX_DOCUMENT_BYTES),
            "larger documents are skipped; the API takes 512 MB",
            default=MAX_DOCUMENT_BYTES,
        ),
    }
)

_FOLDER = Text(_PATH, f"write a folder, or {LEAVE} to leave them where they are", max_length=500)

ROUTE = Record(
    {
        "into": Field(
            Text(_PLACE, "write a folder, or a bucket such as s3://name/folder (also gs, az)", max_length=4000),
            "the folder or bucket that holds the sorted documents",
            required=True,
        ),
        "template": Field(
            Text(
                r"(?:[^{}\x00-\x1f\x7f\ud800-\udfff]|\{(?:type|name|stem|suffix|outcome|date)\})+",
                "write a path such as {type}/{name}; fields are type, name, stem, suffix, outcome and date",
                max_length=1000,
            ),
            "where a classified document goes: {type}, {name}, {stem}, {suffix}, {outcome}, {date} are filled in",
            default="{type}/{name}",
        ),
        "how": Field(Choice(("copy", "move", "link", "symlink")), "how a document gets there", default="copy"),
        "min_confidence": Field(Share(), "results with less confidence go to the folder `review`"),
        "review": Field(_FOLDER, "where documents go that a person should look at", default="review"),
        "unmatched": Field(_FOLDER, "where documents go that no rule matched", default="unmatched"),
        "failed": Field(_FOLDER, "where documents go that have no result", default="failed"),
    }
)


@dataclass(frozen=True, slots=True)
class Place:
    """One entry of ``documents_from``: a folder or a pattern, and where the manifest names it."""

    manifest: str
    text: str
    line: int
    column: int
    literal: bool = False  #: no pattern, whatever is in its name

    @property
    def is_pattern(self) -> bool:
        return not self.literal and not self.is_bucket and _MAGIC.search(self.text) is not None

    @property
    def is_bucket(self) -> bool:
        return self.text.startswith(BUCKETS)

    @property
    def path(self) -> str:
        """The folder, pattern or URL; a relative one is relative to the manifest's folder."""
        return resolved(self.manifest, self.text)

    def problem(self, message: str) -> Problem:
        """*message* at the place in the manifest."""
        return Problem(self.manifest, self.line, self.column, message)

    def missing(self) -> Problem | None:
        """Why a folder can't be read; None for patterns and buckets: a run looks at them."""
        if self.is_pattern or self.is_bucket:
            return None
        try:
            with os.scandir(self.path):
                return None
        except NotADirectoryError:
            return None  # a single document
        except OSError as error:
            where = "paths are relative to the manifest's folder"
            return self.problem(f"documents_from: '{safe(self.path)}' can't be read ({error.strerror}); {where}")


@dataclass(frozen=True, slots=True)
class Sources:
    """The documents that a manifest is about."""

    places: tuple[Place, ...]
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    settle_s: float = 60.0
    follow_links: bool = False
    max_bytes: int = MAX_DOCUMENT_BYTES
    allow_empty: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """Where documents go once they have an outcome. ``review``, ``unmatched``, ``failed``: a folder, or ``leave``."""

    into: str
    template: str = "{type}/{name}"
    how: str = "copy"
    min_confidence: float | None = None
    review: str = "review"
    unmatched: str = "unmatched"
    failed: str = "failed"


def resolved(manifest: str, path: str) -> str:
    """*path* as an absolute one: ``~`` is the home folder, a relative path starts at the folder of *manifest*.

    The URL of a bucket only loses a slash at its end.
    """
    if path.startswith(BUCKETS):
        return path.rstrip("/")
    return os.path.normpath(Path(manifest).absolute().parent / Path(path).expanduser())


def read_sources(path: str, root: Entries, values: Mapping[str, Json]) -> Sources | None:
    """The documents that the manifest at *path* names; None when it names none."""
    node = root.values.get("documents_from")
    if not isinstance(node, Items):
        return None
    options = values["documents"] or {name: field.default for name, field in DOCUMENTS.fields.items()}
    return Sources(
        places=tuple(Place(path, item.text, item.line, item.column) for item in node.items if isinstance(item, Scalar)),
        include=tuple(options["include"] or ()),
        exclude=tuple(options["exclude"] or ()),
        settle_s=settings.seconds(options["settle"], "documents.settle"),
        follow_links=options["follow_links"],
        max_bytes=options["max_bytes"],
        allow_empty=values["allow_empty"],
    )


def read_route(path: str, values: Mapping[str, Json]) -> Route | None:
    """The manifest's ``route``, its folder made absolute; None when it has none."""
    given = values["route"]
    if not given:
        return None
    return Route(**{**given, "into": resolved(path, given["into"])})
