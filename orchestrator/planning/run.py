"""What a run sets out to do: planned into the ledger in one transaction, before anything is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import structlog

from orchestrator.clock import timestamp
from orchestrator.errors import OutOfCredits
from orchestrator.ledger import Transaction, parses, retry, runs
from orchestrator.ledger import plan as planning
from orchestrator.ledger import scope as ledger_scope
from orchestrator.ledger.queue import Shard, release_held
from orchestrator.manifest.loading import Manifest
from orchestrator.models import Config
from orchestrator.plaintext import safe
from orchestrator.planning.limits import files_per_chunk, over_limits, parses_since
from orchestrator.planning.options import Options

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Plan:
    """What this run set out to do."""

    scope: ledger_scope.Scope
    counts: planning.Counts
    chunks: int
    files_to_send: int
    credits_ceiling: int | None  #: None: not known
    changes: retry.Changes


def plan(
    connection: Transaction, manifest: Manifest, options: Options, *, run_id: str, origin: str, now: datetime
) -> Plan:
    """Leave in the ledger the run and its pending chunks.

    Raises ManifestError for a list that can't be read, InputError for a selection that makes no sense or a ledger of
    another API, and OutOfCredits when the manifest's limits would be passed; the caller's transaction then undoes all.
    """
    at = timestamp(now)
    listed = planning.stage(connection, manifest.file_ids())
    scope = ledger_scope.register(
        connection,
        manifest.name,
        rehearsal=options.sandbox,
        origin=origin,
        project_id=manifest.project_id,
        config=manifest.config,
        review=manifest.review,
        max_generations=manifest.limits.max_generations,
        path=safe(Path(manifest.path).absolute()),  # a path need not be text
        sha256=manifest.sha256,
    )
    if options.sandbox:
        runs.forget_open(connection, scope.manifest_id)
    planning.forget_unsent(connection, scope, api=manifest.api)
    counts = planning.count(connection, scope, listed)
    runs.begin(connection, run_id, scope.manifest_id, command=options.command, api=manifest.api, at=at)
    if options.held:
        released = release_held(connection, Shard(scope.manifest_id, manifest.api), at=at)
        log.warning("chunks.released", chunks=released)
    chunks = files = saved = 0
    ceiling: int | None = 0
    changes = retry.Changes()
    for config, select in _selections(manifest, options, counts.new):
        chosen = select(connection, scope)
        files += chosen
        if select is not planning.select_new:
            changes = retry.changes(connection, scope, manifest.config)
        made = planning.cut(
            connection,
            scope,
            chunk_size=files_per_chunk(manifest),
            job_config_id=ledger_scope.config_row(connection, config),
            api=manifest.api,
            run_id=run_id,
            at=at,
        )
        free = 0
        if manifest.api == "v2" and chosen:
            after = planning.last_chunk(connection) - made
            free = parses.use_parse_jobs(connection, scope, config, after=after, since=parses_since(now))
        chunks += made
        cost = config.credits_ceiling(chosen)
        ceiling = None if cost is None or ceiling is None else ceiling + cost
        saved += config.credits_ceiling(free) or 0
    if why := over_limits(manifest, files, ceiling):
        raise OutOfCredits(f"{why}; nothing was sent")
    if changes.files:
        log.warning("manifest.changed", files=changes.files, fields=changes.fields)
    return Plan(scope, counts, chunks, files, None if ceiling is None else ceiling - saved, changes)


def _selections(
    manifest: Manifest, options: Options, new: int
) -> Iterator[tuple[Config, Callable[[Transaction, ledger_scope.Scope], int]]]:
    """What to send: with which config, and how its files are chosen."""
    if options.new and new:
        yield manifest.config, planning.select_new
    if (selection := options.again) is not None:
        again = replace(selection, max_generations=manifest.limits.max_generations)

        def select_again(connection: Transaction, scope: ledger_scope.Scope) -> int:
            retry.check(connection, scope, again, manifest.config)
            return retry.select_again(connection, scope, again)

        yield options.config or manifest.config, select_again
