"""A second opinion on results that are not sure: once more, in the stronger mode, and the surer answer counts."""

from __future__ import annotations

import structlog
from sqlalchemy import Connection

from orchestrator.budget import credits_left
from orchestrator.engine import Work
from orchestrator.ledger import planning, resubmit
from orchestrator.manifest import Manifest
from orchestrator.models import GOOD

log = structlog.get_logger()


def plan_escalation(connection: Connection, work: Work, manifest: Manifest) -> int:
    """Pending chunks for the wanted files that are less sure than ``escalate`` asks; how many. Each file once."""
    escalate, config = manifest.escalate, manifest.stronger_config
    if escalate is None or config is None or work.shard.api != manifest.api:
        return 0
    scope = planning.Scope(work.shard.manifest_id, planning.config_row(connection, manifest.config))
    selection = resubmit.Selection(
        outcomes=tuple(GOOD),
        below_confidence=escalate.below_confidence,
        max_generations=manifest.limits.max_generations,
        never_escalated=True,
    )
    files = resubmit.select_again(connection, scope, selection)
    ceiling, left = config.credits_ceiling(files), credits_left(connection, manifest, work.run_id)
    if left is not None and ceiling is not None and ceiling > left:
        most = manifest.limits.max_credits
        work.warn("escalation.over_budget", files=files, ceiling=ceiling, left=left, max_credits=most)
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
