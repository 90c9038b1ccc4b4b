"""The files that would be sent and their cost, worked out once: by ``plan``, ``retry --dry-run`` and ``run`` alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from orchestrator.ledger import Transaction
from orchestrator.ledger.chunks import cancel, parses, retry
from orchestrator.ledger.chunks import plan as ledger_plan
from orchestrator.ledger.chunks import sample as drawing
from orchestrator.ledger.scope import Scope, Staged, find_scope
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
    batches: list[Batch]
    chunk_size: int
    earlier: int | None  #: credits for what earlier runs left to be sent, or sent without an answer, where limited
    changes: retry.Changes  #: of the manifest, since the files of a retry were last sent
    reclassified: retry.Changes  #: of the manifest, since files that a run sends as new were last classified
    over_limits: str | None  #: why the manifest's limits forbid it
    sample: Sample | None  #: with ``--sample``

    @property
    def files(self) -> int:
        """The files to be sent."""
        return sum(batch.files for batch in self.batches)

    @property
    def free(self) -> int:
        return sum(batch.free for batch in self.batches)

    @property
    def chunks(self) -> int:
        return sum(math.ceil(batch.files / self.chunk_size) for batch in self.batches)

    @property
    def credits_ceiling(self) -> int | None:
        """The most credits, if the parses are still there; None: not known, because the configuration is kept there."""
        return _credits((batch.config, batch.files - batch.free) for batch in self.batches)


@dataclass(frozen=True, slots=True)
class Forecast:
    """A run that is only imagined: the files that it would find and send, and the most that it could cost."""

    scope: Scope
    outlook: Outlook
    ceiling: Ceiling  #: the most that can come of it, of what is left, and of their halves and second opinions
    left: list[ledger_plan.OpenChunks]  #: by earlier runs
    quarantined: retry.Quarantine


def forecast(
    connection: Transaction,
    manifest: Manifest,
    options: Options,
    *,
    staged: Staged,
    now: datetime,
    most_quarantined: int,
    freed: int = 0,
    take: Callable[[Batch], None] = lambda _: None,
) -> Forecast:
    """Work out what a run of the *staged* files would do; reads only. As ``work_out`` otherwise.

    *most_quarantined*: how many files in quarantine are named. *freed*: files of jobs that are cancelled first, which
    a retry then sends with the others.
    """
    rehearsal = options.sandbox
    scope = find_scope(connection, manifest.name, rehearsal=rehearsal, config=manifest.config)
    ledger_plan.hide_unsent(connection, scope, api=manifest.api, rehearsal=rehearsal)
    outlook = work_out(connection, scope, manifest, options, staged=staged, now=now, take=take)
    left = ledger_plan.open_chunks(connection, scope)
    generations = manifest.limits.max_generations
    return Forecast(
        scope,
        outlook,
        _ceiling(connection, scope, manifest, outlook, left, freed),
        left,
        retry.quarantined(connection, scope, generations, staged=staged, most=most_quarantined),
    )


def _ceiling(
    connection: Transaction,
    scope: Scope,
    manifest: Manifest,
    found: Outlook,
    left: list[ledger_plan.OpenChunks],
    freed: int,
) -> Ceiling:
    unsure = 0  # results that ``escalate`` asks for again
    if manifest.escalate is not None:
        selection = retry.Selection(outcomes=tuple(GOOD), below_confidence=manifest.escalate.below_confidence)
        allowed = retry.Allowed(manifest.limits.max_generations, never_escalated=True)
        unsure = retry.select_again(connection, scope, selection, allowed)
    chosen = [(batch.config, batch.files) for batch in found.batches]
    if freed:  # a retry's own batch comes last
        chosen[-1] = (chosen[-1][0], chosen[-1][1] + freed)
    return ceiling(manifest, chosen, left, unsure, files_per_chunk(manifest))


def work_out(
    connection: Transaction,
    scope: Scope,
    manifest: Manifest,
    options: Options,
    *,
    staged: Staged,
    now: datetime,
    take: Callable[[Batch], None],
) -> Outlook:
    """Decide what a run with *options* sends, from the *staged* files and a ledger without what is no longer wanted.

    *take* gets each batch while its files are the chosen ones. Reads only.
    Raises InputError for a selection that makes no sense.
    """
    counts = ledger_plan.count(connection, scope, staged)
    earlier = _left_by_earlier_runs(connection, scope, manifest)  # asked before *take* plans more
    batches: list[Batch] = []
    changes = reclassified = retry.Changes()
    sample: Sample | None = None
    for config, choose in _selections(manifest, options, counts.new):
        chosen = choose(connection, scope)
        if choose is not ledger_plan.select_new:  # a retry's own selection comes last
            changes = retry.changes(connection, scope, manifest.config)
        else:
            sample, chosen, changed = _draw(connection, scope, options, config, chosen, counts.changed)
            reclassified = retry.changed_since(connection, scope, manifest.config, changed)
        batches.append(Batch(config, chosen, _free(connection, scope, manifest, config, chosen, now)))
        take(batches[-1])
    return Outlook(
        counts=counts,
        batches=batches,
        chunk_size=files_per_chunk(manifest),
        earlier=earlier,
        changes=changes,
        reclassified=reclassified,
        over_limits=_over_limits(manifest, options, counts, batches, earlier, reclassified),
        sample=sample,
    )


def _draw(
    connection: Transaction, scope: Scope, options: Options, config: Config, new: int, changed: int
) -> tuple[Sample | None, int, int]:
    """The sample of the *new* files, if any; how many are chosen then, and how many of these are *changed*."""
    if options.sample is None:
        return None, new, changed
    drawing.draw(connection, scope, options.sample, options.seed)
    sample = Sample(min(options.sample, new), new, options.seed, config.credits_ceiling(new))
    return sample, sample.files, drawing.chosen_before(connection, scope)


def _free(connection: Transaction, scope: Scope, manifest: Manifest, config: Config, chosen: int, now: datetime) -> int:
    """How many of the chosen files go on a parse that is still there."""
    if manifest.api != "v2" or not chosen:
        return 0
    return parses.count_reusable(connection, scope, config, since=parses_since(now))


def _over_limits(
    manifest: Manifest,
    options: Options,
    counts: ledger_plan.Counts,
    batches: list[Batch],
    earlier: int | None,
    reclassified: retry.Changes,
) -> str | None:
    """Why the manifest's limits forbid to send *batches*; None when they do not."""
    # That a parse is still there, and its file free, is known only once it was used.
    dearest = _credits((batch.config, batch.files) for batch in batches)
    over = over_limits(manifest, sum(batch.files for batch in batches), dearest, earlier)
    if over is None and not options.reclassify and not options.sandbox:
        over = over_reclassify(manifest, reclassified, counts.done + counts.failed + counts.changed)
    return over


def _left_by_earlier_runs(connection: Transaction, scope: Scope, manifest: Manifest) -> int | None:
    """Return the most credits of what earlier runs have left to this one, where the manifest limits them.

    A call without an answer may have had no effect, and is then sent once more.
    """
    if manifest.limits.max_credits is None:
        return 0
    left = ledger_plan.open_chunks(connection, scope)
    to_send = (JobStatus.PENDING, JobStatus.SUBMITTING)
    return _credits((chunks.config, chunks.files) for chunks in left if chunks.status in to_send)


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


def _credits(to_send: Iterable[tuple[Config, int]]) -> int | None:
    """The most credits for so many files with each config; None when one of them is not known."""
    total = 0
    for config, files in to_send:
        ceiling = config.credits_ceiling(files)
        if ceiling is None:
            return None
        total += ceiling
    return total
