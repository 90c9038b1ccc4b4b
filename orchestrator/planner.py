"""What a run of a manifest would do and cost, from the ledger alone: no network, no key, nothing written."""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from orchestrator.ledger import Ledger, planning, reuse
from orchestrator.manifest import Manifest
from orchestrator.models import Json


@dataclass(frozen=True, slots=True)
class Preview:
    """``orchestrator plan``: files as they stand, and what the next run would send."""

    manifest: str
    rehearsal: bool
    api: str
    listed: int
    files: int
    duplicates: int
    done: int
    failed: int
    in_flight: int
    new: int
    changed: int
    chunk_size: int
    chunks: int
    create_calls: int
    free: int  #: of ``new``: classified on a parse that is there already, which bills nothing
    credits_ceiling: int
    over_limits: str | None

    def as_json(self) -> dict[str, Json]:
        return asdict(self)


def preview(manifest: Manifest, path: Path, *, rehearsal: bool) -> Preview:
    """Raises ManifestError for a list that can't be read, LedgerError for a ledger that can't."""
    ledger = Ledger(path, read_only=True) if path.exists() else Ledger.in_memory()
    with closing(ledger), ledger.transaction() as connection:
        listed = planning.stage(connection, manifest.file_ids())
        scope = planning.find_scope(connection, manifest.name, rehearsal=rehearsal, config=manifest.config)
        counts = planning.count(connection, scope, listed)
        free = 0
        if manifest.api == "v2" and counts.changed:
            free = reuse.count_reusable(connection, scope, manifest.config, since=parses_since(datetime.now(UTC)))
    size = files_per_chunk(manifest)
    chunks = math.ceil(counts.new / size)
    ceiling = (counts.new - free) * manifest.config.credits_per_file
    return Preview(
        manifest=manifest.name,
        rehearsal=rehearsal,
        api=manifest.api,
        listed=counts.listed,
        files=counts.files,
        duplicates=counts.duplicates,
        done=counts.done,
        failed=counts.failed,
        in_flight=counts.in_flight,
        new=counts.new,
        changed=counts.changed,
        chunk_size=size,
        chunks=chunks,
        create_calls=chunks,
        free=free,
        credits_ceiling=ceiling,
        over_limits=over_limits(manifest, counts.new, ceiling),
    )


def parses_since(now: datetime) -> str:
    """How far back a parse may lie to be there still: the vendor keeps them for 48 hours."""
    return (now - timedelta(hours=47)).isoformat(timespec="milliseconds")


def files_per_chunk(manifest: Manifest) -> int:
    """How many files one create call of this manifest takes: v2 jobs have one each."""
    return 1 if manifest.api == "v2" else manifest.chunk_size


def over_limits(manifest: Manifest, files: int, ceiling: int) -> str | None:
    """Why sending *files* would pass the manifest's own guard; None when it would not."""
    limits, more = manifest.limits, f"raise it in {manifest.path} to go on"
    if limits.max_files is not None and files > limits.max_files:
        return f"{files} files to send, over limits.max_files: {limits.max_files}; {more}"
    if limits.max_credits is not None and ceiling > limits.max_credits:
        return f"up to {ceiling} credits, over limits.max_credits: {limits.max_credits}; {more}"
    return None
