"""Before files are sent again: their jobs that never end are cancelled, and results that have come since taken in."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from orchestrator import settings as settings_
from orchestrator.api import loop
from orchestrator.api.counting import Calls
from orchestrator.commands.access import connect
from orchestrator.commands.cancel import Canceller, free_stuck
from orchestrator.commands.stopping import deadline, signals
from orchestrator.ledger import Transaction
from orchestrator.ledger import scope as ledger_scope
from orchestrator.ledger.chunks import cutting, plan, retry
from orchestrator.ledger.chunks.overdue import Overdue, of_chosen
from orchestrator.ledger.queue import Shard
from orchestrator.ledger.views import reading
from orchestrator.ledger.writer import Writer
from orchestrator.models import BAD, canonical_id
from orchestrator.planning.options import Options
from orchestrator.stages.polling import overdue
from orchestrator.stages.work import Progress, Work


@dataclass(slots=True)
class BeforeRetry:
    """What a run does first that sends files again."""

    canceller: Canceller
    run_id: str
    progress: Progress
    requests: Calls
    deadline_s: float | None
    ends_at: float | None  #: monotonic
    late: overdue.Late = field(default_factory=dict)  #: taken in; the run is yet to count them

    def prepare(self, options: Options, again: retry.Selection) -> tuple[Options, dict[int, str]]:
        """The *options* without what need not be sent; and, chunk id -> why not, the jobs that could not be cancelled.

        Raises ApiError, and then nothing may be sent; Interrupted.
        """
        good_before, not_freed = free_stuck(self.canceller, again, held=options.held, deadline_s=self.deadline_s)
        return replace(options, good_before=good_before, again=self._without_late(again)), not_freed

    def _without_late(self, again: retry.Selection) -> retry.Selection:
        """Ask once about the jobs whose files would be sent; *again* without those whose results are there now."""
        canceller = self.canceller
        with canceller.ledger.transaction() as connection:
            known = reading.manifests(connection, canceller.manifest.name, rehearsal=False)
            if not known or known[0].origin != settings_.origin(canceller.base_url):
                return again  # nothing was sent, or elsewhere: planning refuses that
            jobs = overdue.due(connection, known[0].id, began=canceller.clock.now())
            before = self._bad(connection, again) if jobs else set()
            jobs = of_chosen(connection, jobs) if before else []
        for api in sorted({job.api for job in jobs}):
            loop.run(self._ask(Shard(known[0].id, api), [job for job in jobs if job.api == api]))
        if not jobs or again.file_ids is None:
            return again
        with canceller.ledger.transaction() as connection:
            late = before - self._bad(connection, again)
        return replace(again, file_ids=tuple(each for each in again.file_ids if canonical_id(each) not in late))

    def _bad(self, connection: Transaction, again: retry.Selection) -> set[str]:
        """Choose the files without a good result that *again* would send; their IDs."""
        manifest = self.canceller.manifest
        scope = ledger_scope.find_scope(connection, manifest.name, rehearsal=False, config=manifest.config)
        plan.stage(connection, manifest.file_ids())
        bad = tuple(outcome for outcome in again.outcomes if outcome in BAD)
        allowed = retry.Allowed(manifest.limits.max_generations)
        retry.select_again(connection, scope, replace(again, outcomes=bad), allowed)
        return cutting.chosen_ids(connection)

    async def _ask(self, shard: Shard, jobs: Sequence[Overdue]) -> None:
        """Take in what the API has now of *jobs*. Raises Interrupted."""
        of, settings, clock = self.canceller, self.canceller.settings, self.canceller.clock
        api = connect(
            of.manifest, shard.api, settings, base_url=of.base_url, key=of.key, clock=clock, rng=random.Random()
        )
        writer = Writer(of.ledger, clock)
        work = Work(shard, self.run_id, api, writer, clock, settings.settle_s, settings.stale_s, self.progress)
        try:
            with signals(work), deadline(work, None if self.ends_at is None else self.ends_at - clock.monotonic()):
                self.late |= await overdue.ask(work, jobs, counted=False)
        finally:
            self.requests.update(api.wire.requests)
            await api.close()
        if work.stop.everything is not None:
            raise work.stop.everything
