"""The effect and the cost of a run of a manifest, from the ledger alone: no network, no key, nothing written."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from datetime import datetime

from orchestrator import ledger
from orchestrator.ledger.chunks import plan, retry
from orchestrator.manifest.loading import Manifest, refuse_empty
from orchestrator.models import IN_FLIGHT, Extent, JobStatus
from orchestrator.plaintext import counted
from orchestrator.planning import documents, naming
from orchestrator.planning.ceiling import Ceiling
from orchestrator.planning.documents import Taken
from orchestrator.planning.limits import files_per_chunk, may_begin_again, refuse_incomplete
from orchestrator.planning.options import Options
from orchestrator.planning.plan import forecast

#: How many quarantined files ``--json`` names.
MOST_QUARANTINED = 1000


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
    free: int  #: of ``new``: free: reuses an existing parse
    credits_ceiling: int | None  #: None: not known, because the configuration is kept on the server
    quarantined: retry.Quarantine
    over_limits: str | None
    planned_not_sent: int  #: files that an earlier run planned, and that the next one sends and pays for
    sent: int  #: files of jobs that the API has: they are paid for
    unanswered: int  #: files of create calls without an answer
    ceiling: Ceiling
    reclassified: retry.Changes  #: of the manifest, since the ``changed`` files were last classified
    documents: Taken | None  #: with ``documents_from``
    renamed_from: str | None  #: the name under which the ledger knows this file, if the present one is new
    extents: dict[str, Extent]  #: how long ``quarantined`` is

    @property
    def renamed_words(self) -> str | None:
        """Say that the manifest's files would be bought again under its new name."""
        if self.renamed_from is None:
            return None
        return f"this path was known as {self.renamed_from}: {counted(self.new, 'file')} would be new"


def preview(manifest: Manifest, path: ledger.Location, *, rehearsal: bool, now: datetime) -> Preview:
    """Raises ManifestError for a list that can't be read, LedgerError for a ledger that can't, InputError as `run`."""
    if not may_begin_again(manifest, rehearsal=rehearsal):
        ledger.refuse_gone(path)
    opened = ledger.open(path, read_only=True) if ledger.exists(path) else ledger.in_memory()
    with closing(opened):
        manifest, taken = documents.take(manifest, opened, write=False)
        return _preview(manifest, taken, opened, rehearsal=rehearsal, now=now)


def _preview(
    manifest: Manifest, taken: Taken | None, opened: ledger.Ledger, *, rehearsal: bool, now: datetime
) -> Preview:
    with opened.transaction() as connection:
        ledger.refuse_moved(connection, opened.location)
        staged = plan.stage(connection, manifest.file_ids())
        _refuse(connection, manifest, staged.listed, rehearsal=rehearsal)
        renamed_from = naming.renamed_from(connection, manifest, rehearsal=rehearsal)
        coming = forecast(
            connection, manifest, Options(sandbox=rehearsal), staged=staged, now=now, most_quarantined=MOST_QUARANTINED
        )
    found, left, counts = coming.outlook, coming.left, coming.outlook.counts
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
        chunk_size=files_per_chunk(manifest),
        chunks=found.chunks,
        create_calls=found.chunks,
        free=found.free,
        credits_ceiling=found.credits_ceiling,
        quarantined=coming.quarantined,
        over_limits=found.over_limits,
        planned_not_sent=sum(chunks.files for chunks in left if chunks.status is JobStatus.PENDING),
        sent=sum(chunks.files for chunks in left if chunks.status in IN_FLIGHT),
        unanswered=sum(chunks.files for chunks in left if chunks.status is JobStatus.SUBMITTING),
        ceiling=coming.ceiling,
        reclassified=found.reclassified,
        documents=taken,
        renamed_from=renamed_from,
        extents={"quarantined": coming.quarantined.extent},
    )


def _refuse(connection: ledger.Transaction, manifest: Manifest, listed: int, *, rehearsal: bool) -> None:
    """What a run refuses before it plans anything. Raises ManifestError, InputError and LedgerError."""
    refuse_empty(manifest, listed)
    naming.refuse_second(connection, manifest, rehearsal=rehearsal)
    refuse_incomplete(connection, manifest, rehearsal=rehearsal)
