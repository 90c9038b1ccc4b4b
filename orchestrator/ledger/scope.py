"""A manifest and its config as the ledger knows them: the scope of most questions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from orchestrator.errors import InputError
from orchestrator.ledger.sql import scalar_int, text
from orchestrator.models import Config, Json, Review


@dataclass(frozen=True, slots=True)
class Scope:
    """One manifest under one config: what most questions to the ledger are about."""

    manifest_id: int
    config_id: int


@dataclass(frozen=True, slots=True)
class Staged:
    """The files of a list, as they stand in the table ``wanted`` of the ledger's connection: see ``chunks.plan.stage``.

    Whatever reads that table takes this value, so that nothing can ask for files that were not staged before.
    """

    listed: int  #: how often files were listed, each time counted


def find_scope(connection: Connection, name: str, *, rehearsal: bool, config: Config) -> Scope:
    """The manifest's and the config's rows; ids of 0 where the ledger has none yet."""
    return Scope(manifest_id(connection, name, rehearsal=rehearsal), _known_config(connection, config))


def manifest_id(connection: Connection, name: str, *, rehearsal: bool) -> int:
    """The manifest's row; 0 where the ledger has none yet."""
    return scalar_int(
        connection,
        "SELECT max(id) FROM manifests WHERE name = :name AND rehearsal = :rehearsal",
        name=name,
        rehearsal=int(rehearsal),
    )


def _known_config(connection: Connection, config: Config) -> int:
    """The id of *config*'s row, or else of the newest row that means the same; 0 without any."""
    rows = connection.execute(text("SELECT id, fingerprint, canonical FROM configs ORDER BY id DESC")).all()
    exact = (row.id for row in rows if row.fingerprint == config.fingerprint)
    alike = (row.id for row in rows if Config.from_canonical(row.canonical).meaning == config.meaning)
    return int(next(exact, 0) or next(alike, 0))


def config_row(connection: Connection, config: Config) -> int:
    """The id of the row of *config*, or of one that means the same; made if need be."""
    if known := _known_config(connection, config):
        return known
    connection.execute(
        text(
            "INSERT INTO configs (fingerprint, canonical) VALUES (:fingerprint, :canonical) "
            "ON CONFLICT (fingerprint) DO NOTHING"
        ),
        {"fingerprint": config.fingerprint, "canonical": config.canonical},
    )
    return _known_config(connection, config)


def known_path(connection: Connection, name: str, *, rehearsal: bool) -> str | None:
    """Where the manifest of that name was when it last ran; None when the ledger does not know the name."""
    found = connection.execute(
        text("SELECT path FROM manifests WHERE name = :name AND rehearsal = :rehearsal"),
        {"name": name, "rehearsal": int(rehearsal)},
    )
    return found.scalar()


def name_at(connection: Connection, path: str, *, rehearsal: bool) -> str | None:
    """The name that the manifest at *path* last ran under."""
    found = connection.execute(
        text("SELECT name FROM manifests WHERE path = :path AND rehearsal = :rehearsal ORDER BY id DESC LIMIT 1"),
        {"path": path, "rehearsal": int(rehearsal)},
    )
    return found.scalar()


def lacks_jobs(connection: Connection, manifest_id: int) -> bool:
    """Whether this ledger took the place of a lost one, and the manifest's jobs have not been adopted since."""
    lost = scalar_int(connection, "SELECT sum(last) FROM sequences WHERE name = 'lost'")
    found = "SELECT sum(last) FROM sequences WHERE name = :name"
    return lost > scalar_int(connection, found, name=f"found:{manifest_id}")


def has_its_jobs(connection: Connection, manifest_id: int) -> None:
    """Note that the ledger has (again) all that the API has of the manifest."""
    connection.execute(
        text(
            "INSERT INTO sequences (name, last) SELECT :name, s.last FROM sequences s WHERE s.name = 'lost' "
            "ON CONFLICT (name) DO UPDATE SET last = excluded.last"
        ),
        {"name": f"found:{manifest_id}"},
    )


def _refuse_other_place(
    name: str, known_origin: str, known_project: str | None, origin: str, project_id: str | None
) -> None:
    """Raise InputError where the ledger has results of the manifest from another API or project."""
    if known_origin != origin:
        raise InputError(
            f"this ledger holds results of manifest {name!r} from {known_origin}, this run would go to {origin}; "
            "use another --ledger or another name"
        )
    if known_project and project_id and known_project != project_id:
        raise InputError(
            f"this ledger holds results of manifest {name!r} from project {known_project}, "
            f"this run is for {project_id}; use another --ledger or another name"
        )


_KNOWN = text("SELECT origin, project_id FROM manifests WHERE name = :name AND rehearsal = :rehearsal")


def register(
    connection: Connection,
    name: str,
    *,
    rehearsal: bool,
    origin: str,
    project_id: str | None,
    config: Config,
    review: Review,
    max_generations: int | None,
    path: str,
    sha256: str,
) -> Scope:
    """The scope of this manifest as it is now. Raises InputError when the ledger knows it at another API or project."""
    row = {
        "name": name,
        "rehearsal": int(rehearsal),
        "origin": origin,
        "project_id": project_id,
        "config_id": config_row(connection, config),
        "review": json.dumps({"below_confidence": review.below_confidence, "unmatched": review.unmatched}),
        "max_generations": max_generations,
        "path": path,
        "sha256": sha256,
    }
    known = connection.execute(_KNOWN, row).first()
    if known is None:
        columns, values = ", ".join(row), ", ".join(f":{column}" for column in row)
        connection.execute(text(f"INSERT INTO manifests ({columns}) VALUES ({values})"), row)
    else:
        _refuse_other_place(name, known.origin, known.project_id, origin, project_id)
        connection.execute(
            text(
                "UPDATE manifests SET config_id = :config_id, review = :review, path = :path, sha256 = :sha256, "
                "max_generations = :max_generations, project_id = coalesce(:project_id, project_id) "
                "WHERE name = :name AND rehearsal = :rehearsal"
            ),
            row,
        )
    return find_scope(connection, name, rehearsal=rehearsal, config=config)


def keep_settings(connection: Connection, manifest_id: int, settings: Mapping[str, Json]) -> None:
    """Keep what the manifest says beside its rules, for whoever reads the ledger without it."""
    connection.execute(
        text("UPDATE manifests SET settings = :settings WHERE id = :id"),
        {"id": manifest_id, "settings": json.dumps(settings)},
    )
