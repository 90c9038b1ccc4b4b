"""The forecast of a run: what an earlier one left, what is quarantined, and the very most that may come of it all."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import Connection, text
from support.ledgers import AT, answer, bring, classify, plan
from support.planning import BETTER, NOW

from orchestrator.clock import timestamp
from orchestrator.ledger import scope as ledger_scope
from orchestrator.ledger.chunks import cutting, retry
from orchestrator.ledger.chunks import plan as planning
from orchestrator.ledger.chunks.plan import Counts, OpenChunks
from orchestrator.ledger.chunks.retry import Quarantine, QuarantinedFile, Selection
from orchestrator.ledger.scope import Scope
from orchestrator.manifest.loading import Manifest
from orchestrator.models import (
    Escalate,
    FileResult,
    JobStatus,
    Limits,
    Outcome,
)
from orchestrator.planning.ceiling import Ceiling, Line
from orchestrator.planning.options import Options
from orchestrator.planning.plan import Batch, Forecast, forecast

RUN = Options()  #: an ordinary run
NONE = Line()


def listing(manifest: Manifest, *file_ids: str, **limits: int) -> Manifest:
    return replace(manifest, ids=file_ids, limits=Limits(**limits))


def foresee(
    connection: Connection,
    manifest: Manifest,
    options: Options = RUN,
    *,
    freed: int = 0,
    most_quarantined: int = 9,
) -> Forecast:
    staged = planning.stage(connection, manifest.file_ids())
    return forecast(
        connection, manifest, options, staged=staged, now=NOW, most_quarantined=most_quarantined, freed=freed
    )


def statuses(connection: Connection) -> list[str]:
    """Of the chunks, as they are in the ledger and not as a forecast sees them."""
    return list(connection.execute(text("SELECT status FROM main.jobs ORDER BY id")).scalars())


def test_what_a_run_would_plan_again_counts_as_new(manifest: Manifest, connection: Connection) -> None:
    """A plan that an outage cut off is passed over, a call without an answer is not; nothing is written."""
    scope = plan(connection, manifest.config, ["a", "b", "c"])
    bring(connection, 2, JobStatus.SUBMITTING)
    found = foresee(connection, manifest)
    assert (found.scope, found.outlook.counts) == (scope, Counts(3, 3, 0, 0, 1, 2, 0))
    assert found.outlook.batches == [Batch(manifest.config, 2, 0)]
    assert found.left == [OpenChunks(JobStatus.SUBMITTING, manifest.config, 1, 1)]
    assert found.ceiling == Ceiling(Line(2, 2), NONE, Line(1, 1), Line(2, 2), NONE, Line(5, 5))
    assert found.quarantined == Quarantine(0, [])
    assert statuses(connection) == ["pending", "submitting"]


def test_a_call_of_another_api_is_planned_again_unless_it_was_sent(manifest: Manifest, connection: Connection) -> None:
    """A retry's chunks stay as long as they can be sent as they are."""
    classify(connection, manifest.config, ["a"], Outcome.FAILED)
    planning.stage(connection, ["a"])
    scope = ledger_scope.find_scope(connection, "m", rehearsal=False, config=manifest.config)
    retry.select_again(connection, scope, Selection())
    cutting.cut(connection, scope, chunk_size=1, job_config_id=scope.config_id, api="v1", run_id="r", at=AT)
    listed = listing(manifest, "a")
    assert foresee(connection, listed).ceiling.planned == Line(1, 1)
    assert foresee(connection, replace(listed, api="v2")).ceiling.planned == NONE


@pytest.mark.parametrize("status", [JobStatus.PENDING, JobStatus.SUBMITTING, JobStatus.SUBMITTED])
def test_of_a_rehearsal_nothing_is_left(manifest: Manifest, connection: Connection, status: JobStatus) -> None:
    """The sandbox that had its jobs is gone."""
    scope = plan(connection, manifest.config, ["a", "b"])
    connection.execute(text("UPDATE manifests SET rehearsal = 1"))
    bring(connection, 1, status)
    found = foresee(connection, manifest, Options(sandbox=True))
    assert (found.scope, found.left, found.outlook.counts) == (scope, [], Counts(3, 3, 0, 0, 0, 3, 0))
    assert statuses(connection) == [status]


def test_a_rehearsal_and_the_real_manifest_do_not_know_each_other(manifest: Manifest, connection: Connection) -> None:
    """All is new to a first rehearsal."""
    classify(connection, manifest.config, ["a"])
    found = foresee(connection, listing(manifest, "a"), Options(sandbox=True))
    assert (found.scope.manifest_id, found.outlook.counts) == (0, Counts(1, 1, 0, 0, 0, 1, 0))


def test_the_files_of_each_batch_can_be_asked_for(manifest: Manifest, connection: Connection) -> None:
    """While they are the chosen ones; nothing more is asked for than the caller wants."""
    seen: list[tuple[Batch, list[str]]] = []

    def take(batch: Batch) -> None:
        seen.append((batch, cutting.chosen(connection, 2)))

    staged = planning.stage(connection, manifest.file_ids())
    found = forecast(connection, manifest, Options(), staged=staged, now=NOW, most_quarantined=9, take=take)
    assert seen == [(Batch(manifest.config, 3, 0), ["a", "b"])]
    assert found == foresee(connection, manifest)


def test_quarantined_files_are_named_up_to_a_number(manifest: Manifest, connection: Connection) -> None:
    """Those of the list that were submitted as often as the manifest allows, and ended badly."""
    classify(connection, manifest.config, ["a", "b", "unlisted"], Outcome.FAILED)
    classify(connection, manifest.config, ["c"])
    found = foresee(connection, listing(manifest, "a", "b", "c", max_generations=1), most_quarantined=1)
    assert found.quarantined == Quarantine(2, [QuarantinedFile("a", "failed", "", "submitted 1 time in vain")])
    assert foresee(connection, listing(manifest, "a", "b", max_generations=2)).quarantined == Quarantine(0, [])


@pytest.mark.parametrize(
    ("freed", "chosen", "halves"),
    [(0, Line(2, 3), NONE), (1, Line(3, 5), Line(2, 4)), (3, Line(5, 9), Line(4, 8))],
)
def test_files_of_cancelled_jobs_are_sent_with_a_retry(
    manifest: Manifest, connection: Connection, freed: int, chosen: Line, halves: Line
) -> None:
    """At its price, which is not that of the new file beside them, and in chunks with its own."""
    classify(connection, manifest.config, ["a"], Outcome.FAILED)
    options = Options(again=Selection(), config=BETTER)
    found = foresee(connection, listing(manifest, "a", "b"), options, freed=freed)
    assert (found.ceiling.chosen, found.ceiling.halves) == (chosen, halves)
    assert found.outlook.batches == [Batch(manifest.config, 1, 0), Batch(BETTER, 1, 0)]


def test_files_of_cancelled_jobs_may_be_all_of_a_retry(manifest: Manifest, connection: Connection) -> None:
    """Nothing else failed."""
    options = Options(new=False, again=Selection())
    found = foresee(connection, listing(manifest, "a", "b"), options, freed=2)
    assert (found.outlook.files, found.ceiling.chosen, found.ceiling.halves) == (0, Line(2, 2), Line(2, 2))


def test_files_of_cancelled_jobs_are_no_part_of_other_batches(manifest: Manifest, connection: Connection) -> None:
    """New files, those of v1 jobs that do not end, and the retry's own are halved each for themselves."""
    plan(connection, manifest.config, ["s1", "s2", "s3"], size=3)
    bring(connection, 1, JobStatus.SUBMITTED)
    classify(connection, manifest.config, ["f"], Outcome.FAILED)
    eight = replace(listing(manifest, "s1", "s2", "s3", "f", "n1", "n2"), chunk_size=8)
    found = foresee(connection, eight, Options(again=Selection(), stale_since=timestamp(NOW)), freed=4)
    assert found.ceiling.chosen == Line(2 + 3 + (1 + 4), 10)
    # The three are halved where they are, and once more where they are sent to.
    assert found.ceiling.halves == Line(2 * 1 + 3 * 2 + 3 * 2 + 5 * 3, 29)


def test_second_opinions_are_foreseen_for_unsure_results(manifest: Manifest, connection: Connection) -> None:
    """Not for one that has had its second opinion, nor for what was submitted as often as the manifest allows."""
    scope = plan(connection, manifest.config, ["unsure", "asked", "sure", "bad"], size=1)
    for chunk_id, (file_id, confidence) in enumerate([("unsure", 0.49), ("asked", 0.3), ("sure", 0.5)], start=1):
        answer(connection, chunk_id, FileResult(file_id, Outcome.CLASSIFIED, "invoice", confidence))
    answer(connection, 4, FileResult("bad", Outcome.FAILED))
    second_opinion(connection, scope, "asked")
    listed = replace(listing(manifest, "unsure", "asked", "sure", "bad"), chunk_size=1)
    escalating = replace(listed, escalate=Escalate(0.5))
    assert foresee(connection, escalating).ceiling.second_opinions == Line(1, 2)
    limited = replace(escalating, limits=Limits(max_generations=1))
    assert foresee(connection, limited).ceiling.second_opinions == NONE
    assert foresee(connection, listed).ceiling.sum == NONE


def second_opinion(connection: Connection, scope: Scope, file_id: str) -> None:
    """Ask once more for *file_id*, as ``escalate`` does, and get an answer that is less sure."""
    planning.stage(connection, [file_id])
    retry.select_again(connection, scope, Selection(tuple(Outcome)))
    cutting.cut(
        connection,
        scope,
        chunk_size=1,
        job_config_id=ledger_scope.config_row(connection, BETTER),
        api="v1",
        run_id="r",
        at=AT,
        escalation=True,
    )
    answer(connection, cutting.last_chunk(connection), FileResult(file_id, Outcome.CLASSIFIED, "invoice", 0.1))
