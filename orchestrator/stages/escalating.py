"""A second opinion on results that are not sure: once more, in the stronger mode, and the surer answer counts."""

from __future__ import annotations

import structlog

from orchestrator.ledger import Transaction
from orchestrator.ledger import scope as ledger_scope
from orchestrator.ledger.chunks import cutting, retry
from orchestrator.manifest.loading import Manifest
from orchestrator.models import GOOD
from orchestrator.planning.limits import credits_left
from orchestrator.stages.work import Work

log = structlog.get_logger()


def plan_escalation(connection: Transaction, work: Work, manifest: Manifest) -> int:
    """Pending chunks for the wanted files that are less sure than ``escalate`` asks; how many. Each file once."""
    escalate, config = manifest.escalate, manifest.stronger_config
    if escalate is None or config is None or work.shard.api != manifest.api:
        return 0
    scope = ledger_scope.Scope(work.shard.manifest_id, ledger_scope.config_row(connection, manifest.config))
    selection = retry.Selection(
        outcomes=tuple(GOOD),
        below_confidence=escalate.below_confidence,
    )
    allowed = retry.Allowed(manifest.limits.max_generations, never_escalated=True)
    files = retry.select_again(connection, scope, selection, allowed)
    ceiling, left = config.credits_ceiling(files), credits_left(connection, manifest, work.run_id)
    if left is not None and ceiling is not None and ceiling > left:
        most = manifest.limits.max_credits
        work.warn("escalation.over_budget", files=files, ceiling=ceiling, left=left, max_credits=most)
        work.progress.held_back.second_opinions = files
        return 0
    if files:
        log.info("files.escalated", files=files, mode=escalate.mode.value)
    return cutting.cut(
        connection,
        scope,
        chunk_size=manifest.chunk_size,
        job_config_id=ledger_scope.config_row(connection, config),
        api=manifest.api,
        run_id=work.run_id,
        at=work.at(),
        escalation=True,
    )
