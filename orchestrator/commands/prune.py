"""Deleting kept files at the API: those that this ledger uploaded, whose content has a good outcome."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta

import structlog

from orchestrator import ledger
from orchestrator import settings as settings_
from orchestrator.api import loop
from orchestrator.api.dialect import Target
from orchestrator.api.files import Files
from orchestrator.clock import Clock, timestamp
from orchestrator.commands.access import access, connect, hide_secrets, lock_name
from orchestrator.errors import InputError
from orchestrator.ledger import Ledger
from orchestrator.ledger.documents import uploads
from orchestrator.ledger.documents.uploads import Kept
from orchestrator.ledger.views import reading
from orchestrator.manifest.loading import Manifest
from orchestrator.settings import Settings

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Pruned:
    """The files that ``prune`` has deleted, or with ``--dry-run`` would delete."""

    manifest: str
    host: str  #: the API's, as the ledger names it
    found: int
    deleted: int
    gone_before: int  #: the API had them no more


def prune(
    manifest: Manifest,
    settings: Settings,
    path: ledger.Location,
    *,
    older_than: str,
    dry_run: bool,
    base_url: str | None,
    clock: Clock,
) -> Pruned:
    """Delete what was uploaded longer ago than *older_than*. Raises OrchestratorError."""
    age_s = settings_.seconds(older_than, "--older-than")
    before = timestamp(clock.now() - timedelta(seconds=age_s))
    ledger.require(path)
    if dry_run:
        with closing(ledger.open(path, read_only=True)) as opened:
            _, host, kept = _kept(manifest, opened, before)
            return Pruned(manifest.name, host, len(kept), 0, 0)
    base, key = access(manifest, settings, base_url)
    hide_secrets(manifest, settings, key)
    holder = {"command": "orchestrator prune", "since": clock.now().isoformat("T", "seconds")}
    with (
        ledger.lease(path, lock_name(manifest.name, rehearsal=False), holder) as lease,
        closing(ledger.open(path, lease=lease)) as opened,
    ):
        manifest_id, host, kept = _kept(manifest, opened, before, origin=settings_.origin(base))

        async def go() -> Pruned:
            rng = random.Random()
            api = connect(manifest, manifest.api, settings, base_url=base, key=key, clock=clock, rng=rng)
            files = Files(api, Target(manifest.project_id, manifest.organization_id))
            try:
                deleted = await _delete(files, opened, manifest_id, kept)
            finally:
                await api.close()
            return Pruned(manifest.name, host, len(kept), deleted, len(kept) - deleted)

        return loop.run(go())


async def _delete(files: Files, opened: Ledger, manifest_id: int, kept: Sequence[Kept]) -> int:
    """Delete *kept* at the API and record each at once; how many the API still had."""
    deleted = 0
    for each in kept:
        deleted += await files.delete(each.file_id)
        with opened.transaction() as connection:
            uploads.lost(connection, manifest_id, each.content)
        log.info("file.deleted", file_id=each.file_id)
    return deleted


def _kept(manifest: Manifest, opened: Ledger, before: str, origin: str | None = None) -> tuple[int, str, list[Kept]]:
    with opened.transaction() as connection:
        rows = reading.manifests(connection, manifest.name, rehearsal=False)
        if not rows:
            raise InputError(f"nothing is recorded for manifest {manifest.name!r} yet; run it first")
        if origin is not None and rows[0].origin != origin:
            raise InputError(f"the files of this ledger are at {rows[0].origin}, and this call would go to {origin}")
        return rows[0].id, rows[0].origin, uploads.to_prune(connection, rows[0].id, before=before)
