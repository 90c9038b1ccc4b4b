"""The plan of a run: written into the ledger in one transaction, before anything is sent."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial

import structlog

from orchestrator.clock import timestamp
from orchestrator.errors import OutOfCredits
from orchestrator.ledger import Transaction, jobs, runs, spellings
from orchestrator.ledger import scope as ledger_scope
from orchestrator.ledger.chunks import cutting, parses, retry
from orchestrator.ledger.chunks import plan as planning
from orchestrator.ledger.documents import names, uploads
from orchestrator.ledger.queue import Shard, release_held
from orchestrator.manifest.loading import Manifest, refuse_empty
from orchestrator.models import Json
from orchestrator.planning import naming
from orchestrator.planning.limits import files_per_chunk, parses_since, refuse_incomplete
from orchestrator.planning.options import Options
from orchestrator.planning.plan import Batch, Outlook, Sample, work_out

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of this run."""

    scope: ledger_scope.Scope
    staged: ledger_scope.Staged  #: the manifest's files, for the summary of the run's end
    counts: planning.Counts
    chunks: int
    files_to_send: int
    credits_ceiling: int | None  #: None: not known
    changes: retry.Changes
    reclassified: retry.Changes
    renamed_from: str | None  #: the name under which the ledger knows this file, if the present one is new
    sample: Sample | None = None  #: with ``--sample``


def register(connection: Transaction, manifest: Manifest, *, rehearsal: bool, origin: str) -> ledger_scope.Scope:
    """The ledger's scope of *manifest* as it is now. Raises InputError for a ledger of another API or project."""
    naming.refuse_second(connection, manifest, rehearsal=rehearsal)
    scope = ledger_scope.register(
        connection,
        manifest.name,
        rehearsal=rehearsal,
        origin=origin,
        project_id=manifest.project_id,
        config=manifest.config,
        review=manifest.review,
        max_generations=manifest.limits.max_generations,
        path=naming.full_path(manifest),
        sha256=manifest.sha256,
    )
    spellings.remember(connection, scope.manifest_id)
    ledger_scope.keep_settings(connection, scope.manifest_id, _settings(manifest))
    return scope


def _settings(manifest: Manifest) -> dict[str, Json]:
    """Return what a page shows of the manifest beside its rules. Nothing secret: no webhooks."""
    return {
        "chunk_size": manifest.chunk_size,
        "limits": asdict(manifest.limits),
        "escalate": asdict(manifest.escalate) if manifest.escalate else None,
        "drift": None if manifest.drift_alert is None else {"alert": manifest.drift_alert},
        "report": manifest.report,
    }


def plan(
    connection: Transaction, manifest: Manifest, options: Options, *, run_id: str, origin: str, now: datetime
) -> Plan:
    """Leave in the ledger the run and its pending chunks.

    Raises LedgerError for a ledger that took a lost one's place, ManifestError for a list that can't be read,
    InputError for a selection that makes no sense or a ledger of another API, and OutOfCredits when the manifest's
    limits would be passed; the caller's transaction then undoes all.
    """
    refuse_incomplete(connection, manifest, rehearsal=options.sandbox)
    at = timestamp(now)
    listed_names = names.Names(connection)
    staged = planning.stage(connection, manifest.file_ids(listed_names))
    for doubt in manifest.doubts():
        log.warning("list.doubtful", note=doubt)
    if options.new:
        refuse_empty(manifest, staged.listed)
    renamed_from = naming.renamed_from(connection, manifest, rehearsal=options.sandbox)
    scope = register(connection, manifest, rehearsal=options.sandbox, origin=origin)
    listed_names.keep(manifest.name)
    if options.sandbox:
        runs.forget_open(connection, scope.manifest_id)
    planning.forget_unsent(connection, scope, api=manifest.api)
    runs.begin(connection, run_id, scope.manifest_id, command=options.command, api=manifest.api, at=at)
    if options.held:
        released = release_held(connection, Shard(scope.manifest_id, manifest.api), at=at)
        log.warning("chunks.released", chunks=released)
    take = partial(_cut, connection, scope, manifest, run_id=run_id, now=now)
    found = work_out(connection, scope, manifest, options, staged=staged, now=now, take=take)
    uploads.doubt(connection, scope.manifest_id)
    if found.over_limits:
        raise OutOfCredits(f"{found.over_limits}; nothing was sent")
    return _announced(_plan_of(scope, staged, found, renamed_from))


def _cut(
    connection: Transaction, scope: ledger_scope.Scope, manifest: Manifest, batch: Batch, *, run_id: str, now: datetime
) -> None:
    """Cut the chosen files of *batch* into chunks, made on the parses that are still there."""
    made = cutting.cut(
        connection,
        scope,
        chunk_size=files_per_chunk(manifest),
        job_config_id=ledger_scope.config_row(connection, batch.config),
        api=manifest.api,
        run_id=run_id,
        at=timestamp(now),
    )
    if batch.free:
        after = cutting.last_chunk(connection) - made
        parses.use_parse_jobs(connection, scope, batch.config, after=after, since=parses_since(now))


def _plan_of(scope: ledger_scope.Scope, staged: ledger_scope.Staged, found: Outlook, renamed_from: str | None) -> Plan:
    return Plan(
        scope,
        staged,
        found.counts,
        found.chunks,
        found.files,
        found.credits_ceiling,
        found.changes,
        found.reclassified,
        renamed_from,
        found.sample,
    )


def doubt_pending(connection: Transaction, plan: Plan, *, at: str) -> None:
    """Have the API's list searched for each pending chunk before it is sent: its intent may have been lost.

    Only for v1: v2 answers a call that is made twice with the job of the first.
    """
    why = "the ledger's server was replaced by another; the call's intent may have been lost with it"
    chunks = jobs.doubt_pending(connection, plan.scope.manifest_id, "v1", why, at=at)
    log.warning("ledger.replaced", chunks=chunks)


def _announced(plan: Plan) -> Plan:
    """Log what a person may not expect of the *plan*; return it."""
    if plan.changes.files:
        log.warning("manifest.changed", files=plan.changes.files, fields=plan.changes.fields)
    if plan.reclassified.files:
        log.warning("files.reclassified", files=plan.reclassified.files, fields=plan.reclassified.fields)
    if plan.sample is not None:
        log.info("files.sampled", files=plan.sample.files, of=plan.sample.of, seed=plan.sample.seed)
    if plan.renamed_from is not None:
        log.warning("manifest.renamed", was=plan.renamed_from, new_files=plan.counts.new)
    return plan
