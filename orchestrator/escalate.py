"""A second opinion on results that are not sure: once more, in the stronger mode, and the surer answer counts."""

from __future__ import annotations

from dataclasses import replace

import structlog
from sqlalchemy import Connection

from orchestrator.engine import Work
from orchestrator.ledger import planning
from orchestrator.manifest import Manifest
from orchestrator.models import GOOD

log = structlog.get_logger()


def plan_escalation(connection: Connection, work: Work, manifest: Manifest) -> int:
    """Pending chunks for the wanted files that are less sure than ``escalate`` asks; how many. Each file once."""
    escalate = manifest.escalate
    if escalate is None or work.shard.api != manifest.api:
        return 0
    config = replace(manifest.config, mode=escalate.mode)
    scope = planning.Scope(work.shard.manifest_id, planning.config_row(connection, manifest.config))
    selection = planning.Selection(
        outcomes=tuple(GOOD),
        below_confidence=escalate.below_confidence,
        max_generations=manifest.limits.max_generations,
        never_escalated=True,
    )
    files = planning.select_again(connection, scope, selection)
    most = manifest.limits.max_credits
    if most is not None and files * config.credits_per_file > most:
        work.warn("escalation.over_budget", files=files, ceiling=files * config.credits_per_file, max_credits=most)
        return 0
    if files:
        log.info("files.escalated", files=files, mode=escalate.mode.value)
    return planning.cut(
        connection,
        scope,
        chunk_size=manifest.chunk_size,
        job_config_id=planning.config_row(connection, config),
        api=manifest.api,
        run_id=work.run_id,
        at=work.at(),
        escalation=True,
    )
