"""Interim manifest loader."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from orchestrator.errors import ManifestError, Problem
from orchestrator.models import Config, Json, Limits, Mode, ParsingConfiguration, Review, Rule, Webhook


@dataclass(frozen=True)
class Manifest:
    path: str
    name: str
    api: str
    config: Config
    project_id: str | None
    organization_id: str | None
    webhook_configurations: tuple[Webhook, ...]
    webhook_configuration_ids: tuple[str, ...]
    chunk_size: int
    review: Review
    limits: Limits
    sha256: str
    ids: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()

    def file_ids(self) -> Iterator[str]:
        yield from self.ids


def load(path: str, *, environ: Mapping[str, str], api: str | None = None, resolve_secrets: bool = True) -> Manifest:
    try:
        data = Path(path).read_bytes()
    except OSError as e:
        raise ManifestError([Problem(path, 1, 1, str(e.strerror))]) from e
    d = yaml.load(data, Loader=yaml.BaseLoader)
    rules = tuple(Rule(r["type"], r["description"]) for r in d["rules"])
    p = d.get("parsing_configuration", {})
    ids = list(d.get("file_ids", ()))
    for n in d.get("file_ids_from", ()):
        ids += (Path(path).parent / n).read_text().split()
    return Manifest(
        path,
        d["name"],
        api or d.get("api", "v1"),
        Config(
            rules, Mode(d.get("mode", "FAST")), ParsingConfiguration(p.get("lang", "en"), int(p.get("max_pages", 5)))
        ),
        None,
        None,
        (),
        (),
        int(d.get("chunk_size", 100)),
        Review(),
        Limits(),
        hashlib.sha256(data).hexdigest(),
        tuple(ids),
    )


def check(path: str, *, environ: Mapping[str, str], api: str | None = None) -> tuple[Manifest | None, list[Problem]]:
    return load(path, environ=environ), []


def json_schema() -> dict[str, Json]:
    return {}
