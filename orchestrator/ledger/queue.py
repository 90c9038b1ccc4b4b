"""The ledger as a queue: what each stage asks for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Row, bindparam

from orchestrator.ledger.documents import uploads
from orchestrator.ledger.jobs import move, note
from orchestrator.ledger.spellings import otherwise
from orchestrator.ledger.sql import IN_FLIGHT_SQL, OPEN_SQL, batches, later, text
from orchestrator.models import Chunk, Config, JobStatus

#: What ``jobs.api_status`` says of a job that the API has no longer.
GONE = "GONE"

#: What ``Parked`` says of a call.
_CALL = "id, config_id, sent_at, mark, resends, accepted, error, held"


@dataclass(frozen=True, slots=True)
class Shard:
    """The chunks that one pipeline carries: those of one manifest through one API version."""

    manifest_id: int
    api: str


@dataclass(frozen=True, slots=True)
class OpenJob:
    """A job that the API has and that had not ended when it was last asked about."""

    chunk_id: int
    job_id: str
    size: int
    submitted_at: str


@dataclass(frozen=True, slots=True)
class Parked:
    """A chunk whose create call has no recorded answer."""

    chunk_id: int
    config_id: int
    sent_at: str
    mark: str | None  #: newest ``created_at`` that the API had listed before the call
    resends: int
    accepted: bool  #: the API said yes, in words that could not be read
    cut_off: bool  #: this program was killed before it could record how the call failed
    held: bool
    words: str | None = None  #: how the call failed, or what was answered instead


def release_held(connection: Connection, shard: Shard, *, at: str) -> int:
    """A person has decided that the held chunks are to be sent again; how many there were."""
    held = [parked.chunk_id for parked in unanswered(connection, shard) if parked.held]
    for chunk_id in held:
        move(connection, [chunk_id], JobStatus.PENDING, at=at, held=0, accepted=0, error=None)
        note(connection, chunk_id, "released", "to be sent again, as a person decided", at=at)
        _renew_key(connection, chunk_id)
    return len(held)


def _renew_key(connection: Connection, chunk_id: int) -> None:
    """With the key of before, an API that has keys would give the answer of before."""
    times = text("SELECT count(*) FROM events WHERE chunk_id = :id AND event = 'released'")
    time = connection.execute(times, {"id": chunk_id}).scalar_one()
    connection.execute(
        text(
            "UPDATE jobs SET keyed_as = (SELECT f.file_id FROM files f WHERE f.chunk_id = jobs.id) || :suffix "
            "WHERE id = :id AND api = 'v2'"
        ),
        {"id": chunk_id, "suffix": f" {time + 1}"},
    )


def released(connection: Connection, shard: Shard) -> set[int]:
    """The chunks that a person once had sent again, unsettled."""
    rows = connection.execute(
        text(
            "SELECT j.id FROM events e JOIN jobs j ON j.id = e.chunk_id "
            "WHERE e.event = 'released' AND j.manifest_id = :manifest_id AND j.api = :api"
        ),
        {"manifest_id": shard.manifest_id, "api": shard.api},
    )
    return set(rows.scalars())


def pending(connection: Connection, shard: Shard, *, after: int, most: int) -> list[Chunk]:
    """The next chunks to send, by id: those whose documents are all at the API."""
    rows = connection.execute(
        text(
            "SELECT id, config_id, parse_from, keyed_as FROM jobs "
            "WHERE manifest_id = :manifest_id AND api = :api AND status = 'pending' AND id > :after "
            f"AND NOT {uploads.WAITS} "
            "ORDER BY id LIMIT :most"
        ),
        {"manifest_id": shard.manifest_id, "api": shard.api, "after": after, "most": most},
    ).all()
    return chunks(connection, rows)


def unanswered(connection: Connection, shard: Shard) -> list[Parked]:
    """The chunks in ``submitting``."""
    rows = connection.execute(
        text(
            f"SELECT {_CALL} FROM jobs "
            "WHERE manifest_id = :manifest_id AND api = :api AND status = 'submitting' ORDER BY id"
        ),
        {"manifest_id": shard.manifest_id, "api": shard.api},
    )
    return [_parked(row) for row in rows]


def call_of(connection: Connection, chunk_id: int) -> Parked:
    """The latest create call of a chunk, as if it had no recorded answer."""
    return _parked(connection.execute(text(f"SELECT {_CALL} FROM jobs WHERE id = :id"), {"id": chunk_id}).one())


def _parked(row: Row[int, int, str, str | None, int, int, str | None, int]) -> Parked:
    chunk_id, config_id, sent_at, mark, resends, accepted, error, held = row
    return Parked(chunk_id, config_id, sent_at, mark, resends, bool(accepted), error is None, bool(held), error)


def chunk(connection: Connection, chunk_id: int) -> Chunk:
    statement = text("SELECT id, config_id, parse_from, keyed_as FROM jobs WHERE id = :id")
    return chunks(connection, connection.execute(statement, {"id": chunk_id}).all())[0]


def chunks(connection: Connection, rows: Sequence[Row[int, int, str | None, str | None]]) -> list[Chunk]:
    """The chunks of ``(id, config_id, parse_from, keyed_as)`` *rows*, with their files in order."""
    if not rows:
        return []
    by_id = configs(connection, {row[1] for row in rows})
    files: dict[int, list[Row[int, str, int, int, str | None]]] = {row[0]: [] for row in rows}
    found = connection.execute(
        text(
            f"SELECT f.chunk_id, f.file_id, f.generation, f.config_id, {otherwise('f')} AS spelling FROM files f "
            "WHERE f.chunk_id IN :ids ORDER BY f.chunk_id, f.id"
        ).bindparams(bindparam("ids", expanding=True)),
        {"ids": list(files)},
    )
    for file in found.all():
        files[file[0]].append(file)
    fingerprint = text("SELECT fingerprint FROM configs WHERE id = :id")
    counts_for = {
        chunk_id: connection.execute(fingerprint, {"id": files[chunk_id][-1].config_id}).scalar_one()
        for chunk_id, config_id, *_ in rows
        if files[chunk_id][-1].config_id != config_id
    }
    return [_chunk(row, files[row.id], by_id[row.config_id], counts_for.get(row.id)) for row in rows]


def _chunk(
    row: Row[int, int, str | None, str | None],
    files: Sequence[Row[int, str, int, int, str | None]],
    config: Config,
    counts_for: str | None,
) -> Chunk:
    """The chunk in *row* of its *files*, as ``chunks`` reads them."""
    file_ids = [file[1] if file[4] is None else uploads.in_chunk(file[1], file[4]) for file in files]
    spellings = [file[4] or file[1] for file in files]
    return Chunk(
        row.id,
        config,
        tuple(file_ids),
        files[-1].generation,
        row.parse_from,
        counts_for,
        () if spellings == file_ids else tuple(spellings),
        row.keyed_as,
    )


def first_noted(connection: Connection, chunk_id: int, event: str) -> str | None:
    """When *event* was first noted of a chunk; None if never."""
    found = text("SELECT min(at) FROM events WHERE chunk_id = :chunk_id AND event = :event")
    at = connection.execute(found, {"chunk_id": chunk_id, "event": event}).scalar_one()
    return None if at is None else str(at)


def jobs_beside(connection: Connection, chunk_id: int, *, most: int) -> list[str]:
    """The latest jobs of a chunk's manifest and API version that have ended and that the API knew then."""
    rows = connection.execute(
        text(
            "SELECT j.job_id FROM jobs j JOIN jobs c ON c.manifest_id = j.manifest_id AND c.api = j.api "
            "WHERE c.id = :chunk_id AND j.id <> c.id AND j.finished_at IS NOT NULL AND j.job_id IS NOT NULL "
            "AND j.api_status <> :gone ORDER BY j.id DESC LIMIT :most"
        ),
        {"chunk_id": chunk_id, "gone": GONE, "most": most},
    )
    return list(rows.scalars())


def in_flight(connection: Connection, shard: Shard) -> list[OpenJob]:
    """The jobs that the API has and that have not ended."""
    rows = connection.execute(
        text(
            "SELECT id, job_id, size, submitted_at FROM jobs "
            f"WHERE manifest_id = :manifest_id AND api = :api AND status IN {IN_FLIGHT_SQL} ORDER BY id"
        ),
        {"manifest_id": shard.manifest_id, "api": shard.api},
    )
    return [OpenJob(row.id, row.job_id, row.size, row.submitted_at) for row in rows]


def tally(connection: Connection, manifest_id: int) -> dict[JobStatus, tuple[int, int]]:
    """Status -> (jobs, files), for the jobs that have not ended and the files that still need them.

    A person may have sent a file once more, or have given a verdict on it: it needs its earlier job no more.
    """
    rows = connection.execute(
        text(
            "SELECT j.status, count(DISTINCT j.id), count(*) FROM jobs j JOIN files f ON f.chunk_id = j.id "
            f"WHERE j.manifest_id = :manifest_id AND j.status IN {OPEN_SQL} AND NOT {later('f')} GROUP BY j.status"
        ),
        {"manifest_id": manifest_id},
    )
    return {JobStatus(status): (jobs, files) for status, jobs, files in rows}


def open_apis(connection: Connection, manifest_id: int) -> list[str]:
    """The API versions with jobs of this manifest that have not ended, or have failed and are yet to be halved."""
    rows = connection.execute(
        text(
            f"SELECT api FROM jobs WHERE manifest_id = :manifest_id AND status IN {OPEN_SQL} "
            "UNION SELECT j.api FROM jobs j JOIN manifests m ON m.id = j.manifest_id WHERE m.id = :manifest_id "
            "AND j.isolate = 1 AND EXISTS (SELECT 1 FROM files f WHERE f.chunk_id = j.id AND f.config_id = m.config_id)"
        ),
        {"manifest_id": manifest_id},
    )
    return sorted(rows.scalars())


def known_job_ids(connection: Connection, job_ids: Collection[str]) -> set[str]:
    """Return those of *job_ids* that some manifest of this ledger has."""
    statement = text("SELECT job_id FROM jobs WHERE job_id IN :ids").bindparams(bindparam("ids", expanding=True))
    found: set[str] = set()
    for batch in batches(job_ids):
        found.update(connection.execute(statement, {"ids": batch}).scalars())
    return found


def config_ids_of(connection: Connection, job_ids: Collection[str]) -> dict[str, int]:
    """Return the configs of those of *job_ids* that some manifest of this ledger has."""
    statement = text("SELECT job_id, config_id FROM jobs WHERE job_id IN :ids").bindparams(
        bindparam("ids", expanding=True)
    )
    found: dict[str, int] = {}
    for batch in batches(job_ids):
        found.update((row.job_id, row.config_id) for row in connection.execute(statement, {"ids": batch}))
    return found


def configs(connection: Connection, config_ids: Collection[int]) -> dict[int, Config]:
    statement = text("SELECT id, canonical FROM configs WHERE id IN :ids").bindparams(bindparam("ids", expanding=True))
    return {
        row.id: Config.from_canonical(row.canonical) for row in connection.execute(statement, {"ids": list(config_ids)})
    }


def knows_a_job(connection: Connection, shard: Shard) -> bool:
    """Whether the API has ever reported a job of the shard."""
    found = connection.execute(
        text("SELECT 1 FROM jobs WHERE manifest_id = :manifest_id AND api = :api AND job_id IS NOT NULL LIMIT 1"),
        {"manifest_id": shard.manifest_id, "api": shard.api},
    )
    return found.first() is not None
