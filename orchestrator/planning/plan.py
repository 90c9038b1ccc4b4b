"""The files that would be sent and their cost, worked out once: by ``plan``, ``retry --dry-run`` and ``run`` alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from orchestrator.ledger import Transaction
from orchestrator.ledger.chunks import cancel, parses, retry
from orchestrator.ledger.chunks import plan as ledger_plan
from orchestrator.ledger.chunks import sample as drawing
from orchestrator.ledger.scope import Scope
from orchestrator.manifest.loading import Manifest
from orchestrator.models import GOOD, Config, JobStatus
from orchestrator.plaintext import counted
from orchestrator.planning.ceiling import Ceiling, ceiling
from orchestrator.planning.limits import files_per_chunk, over_limits, over_reclassify, parses_since
from orchestrator.planning.options import Options


@dataclass(frozen=True, slots=True)
class Batch:
    """Files that are sent with one config; the ledger has just chosen them for the next cut."""

    config: Config
    files: int
    free: int  #: of ``files``: on a parse that is still there, which bills nothing


@dataclass(frozen=True, slots=True)
class Sample:
    """The part of the new files that ``run --sample`` sends; the others stay new."""

    files: int
    of: int
    seed: int
    whole_credits_ceiling: int | None  #: what all of them would cost at most; None: not known

    @property
    def words(self) -> str:
        """One line for a person."""
        cost = self.whole_credits_ceiling
        most = "unknown" if cost is None else f"up to {cost:,}"
        return f"a sample of {self.files:,} of {counted(self.of, 'new file')}; credits for all of them: {most}"


@dataclass(frozen=True, slots=True)
class Outlook:
    """The files that a run would find and send, and its highest cost."""

    counts: ledger_plan.Counts
    files: int  #: to be sent
    chunks: int
    free: int
    credits_ceiling: int | None  #: None: not known, because the configuration is kept on the server
    earlier: int | None  #: credits for what earlier runs left to be sent, or sent without an answer, where limited
    changes: retry.Changes  #: of the manifest, since the files of a retry were last sent
    reclassified: retry.Changes  #: of the manifest, since files that a run sends as new were last classified
    batches: list[Batch]
    over_limits: str | None  #: why the manifest's limits forbid it
    sample: Sample | None  #: with ``--sample``


def work_out(
    connection: Transaction,
    scope: Scope,
    manifest: Manifest,
    options: Options,
    *,
    listed: int,
    now: datetime,
    take: Callable[[Batch], None],
) -> Outlook:
    """Decide what a run with *options* sends, from the staged files and a ledger without what is no longer wanted.

    *listed*: how many files were staged. *take* gets each batch while its files are the chosen ones. Reads only.
    Raises InputError for a selection that makes no sense.
    """
    counts = ledger_plan.count(connection, scope, listed)
    earlier = _left_by_earlier_runs(connection, scope, manifest)  # asked before *take* plans more
    files = chunks = free = 0
    batches: list[Batch] = []
    cost: int | None = 0
    dearest: int | None = 0  # if no parse is there any more: that one is free is known only once it was used
    changes = reclassified = retry.Changes()
    sample: Sample | None = None
    for config, choose in _selections(manifest, options, counts.new):
        chosen = choose(connection, scope)
        if choose is not ledger_plan.select_new:  # a retry's own selection comes last
            changes = retry.changes(connection, scope, manifest.config)
        else:
            changed = counts.changed
            if options.sample is not None:
                drawing.draw(connection, scope, options.sample, options.seed)
                sample = Sample(min(options.sample, chosen), chosen, options.seed, config.credits_ceiling(chosen))
                chosen, changed = sample.files, drawing.chosen_before(connection, scope)
            reclassified = retry.changed_since(connection, scope, manifest.config, changed)
        on_parses = manifest.api == "v2" and chosen
        saved = parses.count_reusable(connection, scope, config, since=parses_since(now)) if on_parses else 0
        batches.append(Batch(config, chosen, saved))
        take(batches[-1])
        files, free = files + chosen, free + saved
        chunks += math.ceil(chosen / files_per_chunk(manifest))
        cost = _plus(cost, config.credits_ceiling(chosen - saved))
        dearest = _plus(dearest, config.credits_ceiling(chosen))
    over = over_limits(manifest, files, dearest, earlier)
    if over is None and not options.reclassify and not options.sandbox:
        over = over_reclassify(manifest, reclassified, counts.done + counts.failed + counts.changed)
    return Outlook(counts, files, chunks, free, cost, earlier, changes, reclassified, batches, over, sample)


def _left_by_earlier_runs(connection: Transaction, scope: Scope, manifest: Manifest) -> int | None:
    """Return the most credits of what earlier runs have left to this one, where the manifest limits them.

    A call without an answer may have had no effect, and is then sent once more.
    """
    total: int | None = 0
    if manifest.limits.max_credits is not None:
        for left in ledger_plan.open_chunks(connection, scope.manifest_id):
            if left.status in (JobStatus.PENDING, JobStatus.SUBMITTING):
                total = _plus(total, left.config.credits_ceiling(left.files))
    return total


def most(
    connection: Transaction, scope: Scope, manifest: Manifest, found: Outlook
) -> tuple[Ceiling, list[ledger_plan.OpenChunks]]:
    """The most that can come of *found*, and what earlier runs have left. Before anything of it is cut; reads only."""
    left = ledger_plan.open_chunks(connection, scope.manifest_id)
    unsure = 0  # results that ``escalate`` asks for again
    if manifest.escalate is not None:
        selection = retry.Selection(outcomes=tuple(GOOD), below_confidence=manifest.escalate.below_confidence)
        allowed = retry.Allowed(manifest.limits.max_generations, never_escalated=True)
        unsure = retry.select_again(connection, scope, selection, allowed)
    chosen = [(batch.config, batch.files) for batch in found.batches]
    return ceiling(manifest, chosen, left, unsure, files_per_chunk(manifest)), left


def _selections(
    manifest: Manifest, options: Options, new: int
) -> Iterator[tuple[Config, Callable[[Transaction, Scope], int]]]:
    """Yield what to send: with which config, and how its files are chosen."""
    if options.new and new:
        yield manifest.config, ledger_plan.select_new
    if (since := options.stale_since) is not None:
        named = options.again.file_ids if options.again else None

        def choose_stale(connection: Transaction, scope: Scope) -> int:
            return cancel.choose_stale(connection, scope, named, since=since)

        yield options.config or manifest.config, choose_stale
    if (again := options.again) is not None:
        allowed = retry.Allowed(manifest.limits.max_generations, good_before=options.good_before)

        def select_again(connection: Transaction, scope: Scope) -> int:
            retry.check(connection, scope, again, manifest.config)
            return retry.select_again(connection, scope, again, allowed)

        yield options.config or manifest.config, select_again


def _plus(one: int | None, other: int | None) -> int | None:
    """The sum; None when either is not known."""
    return None if one is None or other is None else one + other
