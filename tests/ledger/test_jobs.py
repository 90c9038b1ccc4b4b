"""The life of a chunk and its files: each move guarded and remembered, each file in one chunk, the best result kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError
from support.ledgers import AT, SMALL, again, bring, cut, end, events, plan, register

from orchestrator.ledger import Ledger, jobs, locate, queue, runs
from orchestrator.ledger import scope as ledger_scope
from orchestrator.ledger.chunks import accept, cutting, halving
from orchestrator.ledger.chunks import plan as planning
from orchestrator.ledger.jobs import ForbiddenMove
from orchestrator.ledger.queue import Shard
from orchestrator.ledger.views import export, reading
from orchestrator.models import MOVES, TERMINAL, Config, FileResult, JobStatus, Outcome


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.db") as opened:
        yield opened


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    """The same in both databases."""
    server = request.param == "PostgreSQL"
    with Ledger(locate(request.getfixturevalue("database")) if server else tmp_path / "ledger.db") as opened:
        yield opened


@pytest.mark.parametrize("source", JobStatus)
@pytest.mark.parametrize("to", JobStatus)
def test_only_the_allowed_moves_are_made(sqlite: Ledger, config: Config, source: JobStatus, to: JobStatus) -> None:
    """Every pair of statuses; a move that is not allowed is a bug, and changes nothing."""
    with sqlite.transaction() as connection:
        plan(connection, config, ["a"])
        bring(connection, 1, source)
        before = events(connection, 1)
        if to in MOVES[source]:
            jobs.move(connection, [1], to, at=AT, job_id="job-1", sent_at=AT)
            assert events(connection, 1) == [*before, to.value]
        else:
            with pytest.raises(ForbiddenMove):
                jobs.move(connection, [1], to, at=AT)
            assert events(connection, 1) == before


def test_no_terminal_status_is_ever_left() -> None:
    """What has ended stays ended."""
    assert {status for status in JobStatus if not MOVES[status]} == TERMINAL


def test_a_move_of_many_is_all_or_nothing(ledger: Ledger, config: Config) -> None:
    """One chunk that may not move keeps the others where they are."""
    with ledger.transaction() as connection:
        plan(connection, config, ["a", "b", "c"], size=1)
        bring(connection, 2, JobStatus.SUBMITTED)
    with pytest.raises(ForbiddenMove), ledger.transaction() as connection:
        jobs.intend(connection, [1, 2, 3], mark=None, at=AT)
    with ledger.transaction() as connection:
        assert [chunk.id for chunk in queue.pending(connection, Shard(1, "v1"), after=0, most=9)] == [1, 3]


def test_every_change_leaves_an_event_with_its_words(ledger: Ledger, config: Config) -> None:
    """The trigger writes it, so no caller can forget; the note is the error, or else the job's id."""
    with ledger.transaction() as connection:
        plan(connection, config, ["a"])
        jobs.intend(connection, [1], mark=None, at=AT)
        jobs.unanswered_call(connection, 1, "no answer", accepted=False, at=AT)
        jobs.send_again(connection, 1, at=AT)
        jobs.intend(connection, [1], mark=None, at=AT)
        jobs.submitted(connection, 1, "job-1", at=AT)
        jobs.running(connection, 1, at=AT)
        jobs.running(connection, 1, at=AT)
        jobs.end(connection, 1, JobStatus.FAILED, [(1, FileResult("a", Outcome.FAILED))], at=AT, error="broken")
        found = connection.execute(text("SELECT event, note FROM events ORDER BY id")).all()
    assert [tuple(row) for row in found] == [
        ("submitting", None),
        ("unanswered", "no answer"),
        ("pending", None),
        ("submitting", None),
        ("submitted", "job-1"),
        ("running", "job-1"),
        ("failed", "broken"),
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE jobs SET status = 'done'",
        "UPDATE jobs SET status = 'submitted', job_id = NULL",
        "UPDATE jobs SET status = 'submitting', sent_at = NULL",
        "UPDATE jobs SET size = 0",
        "UPDATE jobs SET job_id = 'job-1'",
        "UPDATE jobs SET resends = 4",
        "INSERT INTO files (id, chunk_id, manifest_id, config_id, file_id, generation, standing) "
        "SELECT 9, 2, manifest_id, config_id, file_id, generation, standing FROM files WHERE id = 1",
        "INSERT INTO files (id, chunk_id, manifest_id, config_id, file_id, generation, standing) "
        "SELECT 9, 9, manifest_id, config_id, 'z', generation, standing FROM files WHERE id = 1",
        "INSERT INTO results (file_row, outcome) VALUES (1, 'fine')",
        "INSERT INTO results (file_row, outcome) VALUES (1, 'classified')",
        "INSERT INTO results (file_row, outcome, type) VALUES (1, 'failed', 'invoice')",
        "INSERT INTO results (file_row, outcome) VALUES (99, 'failed')",
    ],
)
def test_impossible_rows_are_refused(ledger: Ledger, config: Config, statement: str) -> None:
    """By the database itself; two chunks can't have one job, nor one file two places."""
    with ledger.transaction() as connection:
        plan(connection, config, ["a", "b"], size=1)
    with pytest.raises(IntegrityError), ledger.transaction() as connection:
        connection.exec_driver_sql(statement)


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6), max_size=60), st.integers(1, 9)
)
@settings(max_examples=60)
def test_every_file_lands_in_exactly_one_chunk(file_ids: list[str], size: int) -> None:
    """In the order listed, repeats once, no chunk empty or too large, and as few of them as can be."""
    wanted = list(dict.fromkeys(file_ids))
    ledger = Ledger.in_memory()
    with ledger.transaction() as connection:
        assert planning.stage(connection, file_ids).listed == len(file_ids)
        scope = register(connection, SMALL)
        assert planning.select_new(connection, scope) == len(wanted)
        made = cut(connection, scope, size=size)
        chunks = queue.pending(connection, Shard(scope.manifest_id, "v1"), after=0, most=1000)
    ledger.close()
    assert [file_id for chunk in chunks for file_id in chunk.file_ids] == wanted
    assert len(chunks) == made == -(-len(wanted) // size)
    assert all(1 <= len(chunk.file_ids) <= size for chunk in chunks)
    assert {chunk.config for chunk in chunks} <= {SMALL}


@given(
    st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=8), min_size=1, max_size=5),
    st.integers(1, 4),
)
@settings(max_examples=60)
def test_later_plans_never_touch_earlier_chunks(nights: list[list[str]], size: int) -> None:
    """However the manifest grows and shrinks between runs, each file is in one chunk and stays in it."""
    ledger = Ledger.in_memory()
    chunk_of: dict[str, int] = {}
    with ledger.transaction() as connection:
        for file_ids in nights:
            plan(connection, SMALL, file_ids, size=size)
            chunks = queue.pending(connection, Shard(1, "v1"), after=0, most=1000)
            found = [(file_id, chunk.id) for chunk in chunks for file_id in chunk.file_ids]
            assert len(found) == len(dict(found))
            assert chunk_of.items() <= dict(found).items()
            chunk_of = dict(found)
    ledger.close()
    assert set(chunk_of) == {file_id for file_ids in nights for file_id in file_ids}


def test_the_plan_counts_each_file_once(ledger: Ledger, config: Config) -> None:
    """Done, failed, in flight and new are disjoint; a repeat is a duplicate."""
    with ledger.transaction() as connection:
        plan(connection, config, ["a", "b", "c", "d"])
        end(connection, 1, a=Outcome.CLASSIFIED, b=Outcome.MISSING)
        staged = planning.stage(connection, ["a", "b", "c", "d", "e", "a", "e"])
        counts = planning.count(connection, register(connection, config), staged)
    assert counts == planning.Counts(listed=7, files=5, done=1, failed=1, in_flight=2, new=1, changed=0)
    assert counts.duplicates == 2


def test_other_rules_make_every_file_new_and_count_it_as_changed(ledger: Ledger, config: Config) -> None:
    """Its earlier outcome stays in the ledger, under the earlier rules."""
    with ledger.transaction() as connection:
        plan(connection, config, ["a", "b"])
        end(connection, 1, a=Outcome.CLASSIFIED, b=Outcome.UNMATCHED)
        staged = planning.stage(connection, ["a", "b", "c"])
        counts = planning.count(connection, register(connection, SMALL), staged)
        back = planning.count(connection, register(connection, config), staged)
    assert (counts.new, counts.changed, counts.done) == (3, 2, 0)
    assert (back.new, back.changed, back.done) == (1, 0, 2)


def test_what_was_planned_and_never_sent_is_forgotten(ledger: Ledger, config: Config) -> None:
    """What was sent, answered or not, stays."""
    with ledger.transaction() as connection:
        scope = plan(connection, config, ["a", "b", "c", "d"], size=1)
        bring(connection, 2, JobStatus.SUBMITTING)
        bring(connection, 3, JobStatus.SUBMITTED)
        planning.forget_unsent(connection, scope, api="v1")
        planning.stage(connection, ["d", "c", "b", "a"])
        assert planning.select_new(connection, scope) == 2
        assert cutting.chosen(connection, 9) == ["d", "a"]


def test_a_chunk_id_is_never_given_out_twice(ledger: Ledger, config: Config) -> None:
    """Events and logs that name a forgotten chunk must not seem to be about a later one."""
    with ledger.transaction() as connection:
        scope = plan(connection, config, ["a", "b"], size=1)
        planning.forget_unsent(connection, scope, api="v1")
        plan(connection, config, ["a", "b"], size=1)
        assert [chunk.id for chunk in queue.pending(connection, Shard(1, "v1"), after=0, most=9)] == [3, 4]


def test_a_released_chunk_begins_without_its_old_reason(ledger: Ledger, config: Config) -> None:
    """Later events do not repeat why it was held, and a kill after the release still reads as cut off."""
    with ledger.transaction() as connection:
        scope = plan(connection, config, ["a"])
        shard = Shard(scope.manifest_id, "v1")
        bring(connection, 1, JobStatus.SUBMITTING)
        jobs.hold(connection, 1, "two jobs could be its own", at=AT)
        assert queue.release_held(connection, shard, at=AT) == 1
        jobs.intend(connection, [1], mark=None, at=AT)
        notes = connection.execute(text("SELECT event, note FROM events ORDER BY id")).all()[-2:]
        assert [parked.cut_off for parked in queue.unanswered(connection, shard)] == [True]
    assert ("submitting", None) in [tuple(row) for row in notes]


def test_a_listing_of_any_length_is_looked_up(sqlite: Ledger, config: Config) -> None:
    """A project may hold more jobs than one statement takes values."""
    with sqlite.transaction() as connection:
        plan(connection, config, ["a"])
        bring(connection, 1, JobStatus.SUBMITTED)
        listed = [f"job-{number}" for number in range(300_000)]
        assert queue.known_job_ids(connection, listed) == {"job-1"}


def test_a_retry_chooses_what_ended_badly(ledger: Ledger, config: Config) -> None:
    """Failed, missing and cancelled files; not what is good, new, or under way."""
    with ledger.transaction() as connection:
        scope = plan(connection, config, ["a", "b", "c", "d", "e", "f"], size=5)
        end(
            connection,
            1,
            a=Outcome.CLASSIFIED,
            b=Outcome.UNMATCHED,
            c=Outcome.FAILED,
            d=Outcome.MISSING,
            e=Outcome.CANCELLED,
        )
        everything = "abcdefg"
        assert again(connection, scope, *everything) == ["c", "d", "e"]
        assert again(connection, scope, *everything, outcomes=(Outcome.MISSING,)) == ["d"]
        assert again(connection, scope, *everything, file_ids=("e", "a")) == ["e"]
        assert again(connection, scope, *everything, outcomes=tuple(Outcome), types=("invoice",)) == ["a"]


def test_a_file_under_way_again_is_not_chosen_twice(ledger: Ledger, config: Config) -> None:
    """Two retries in a row send one create call."""
    with ledger.transaction() as connection:
        scope = plan(connection, config, ["a"])
        end(connection, 1, a=Outcome.FAILED)
        assert again(connection, scope, "a") == ["a"]
        cut(connection, scope)
        assert again(connection, scope, "a") == []


def test_generations_count_up_to_the_limit(ledger: Ledger, config: Config) -> None:
    """A file submitted as often as the manifest allows is left alone."""
    with ledger.transaction() as connection:
        scope = plan(connection, config, ["a"])
        end(connection, 1, a=Outcome.FAILED)
        again(connection, scope, "a")
        cut(connection, scope)
        end(connection, 2, a=Outcome.FAILED)
        assert queue.chunk(connection, 2).generation == 1
        assert again(connection, scope, "a", max_generations=2) == []
        assert again(connection, scope, "a", max_generations=3) == ["a"]


@pytest.mark.parametrize("first", Outcome)
@pytest.mark.parametrize("second", Outcome)
def test_a_later_result_stands_unless_it_is_worse(
    ledger: Ledger, config: Config, first: Outcome, second: Outcome
) -> None:
    """A good outcome is never replaced by a bad one; exactly one stands, and both are kept."""
    good = (Outcome.CLASSIFIED, Outcome.UNMATCHED)
    with ledger.transaction() as connection:
        scope = plan(connection, config, ["a"])
        end(connection, 1, a=first)
        again(connection, scope, "a", outcomes=tuple(Outcome))
        cut(connection, scope)
        end(connection, 2, a=second)
        rows = [row[2] for row in export.export_rows(connection, [scope.manifest_id])]
        history = [row[2] for row in export.export_rows(connection, [scope.manifest_id], history=True)]
    assert rows == [first.value if first in good and second not in good else second.value]
    assert history == [first.value, second.value]


def test_a_verdict_outlives_what_was_in_flight(ledger: Ledger, config: Config) -> None:
    """A person has decided while a retry was under way: its answer goes into the history only."""
    with ledger.transaction() as connection:
        scope = plan(connection, config, ["a"])
        end(connection, 1, a=Outcome.UNMATCHED)
        again(connection, scope, "a", outcomes=tuple(Outcome))
        cut(connection, scope)
        bring(connection, 2, JobStatus.SUBMITTED)
        accept.accept(connection, scope, "a", "receipt", run_id="r", at=AT)
        late = FileResult("a", Outcome.CLASSIFIED, "invoice")
        jobs.end(connection, 2, JobStatus.SUCCEEDED, [(jobs.file_rows(connection, 2)["a"], late)], at=AT)
        assert [row[3] for row in export.export_rows(connection, [scope.manifest_id])] == ["receipt"]
        assert again(connection, scope, "a", outcomes=tuple(Outcome)) == []
        assert again(connection, scope, "a", outcomes=tuple(Outcome), file_ids=("a",)) == ["a"]


def test_a_file_being_retried_is_unfinished(ledger: Ledger, config: Config) -> None:
    """Its old outcome is not counted, and no file is counted twice."""
    with ledger.transaction() as connection:
        scope = plan(connection, config, ["a", "b"])
        end(connection, 1, a=Outcome.FAILED, b=Outcome.CLASSIFIED)
        again(connection, scope, "a", "b")
        cut(connection, scope)
        staged = planning.stage(connection, ["a", "b"])
        totals = reading.totals(connection, scope, staged=staged, review={})
    assert totals.unfinished == 1
    assert {outcome: n for outcome, n in totals.outcomes.items() if n} == {Outcome.CLASSIFIED: 1}


def test_halves_of_a_failed_chunk_hold_its_files_once(ledger: Ledger, config: Config) -> None:
    """One generation on, in new pending chunks that remember where they come from."""
    with ledger.transaction() as connection:
        plan(connection, config, ["a", "b", "c"], size=3)
        end(connection, 1, a=Outcome.FAILED, b=Outcome.FAILED, c=Outcome.FAILED)
        made = halving.split(connection, 1, [["a", "b"], ["c"]], run_id="r", at=AT)
        chunks = [queue.chunk(connection, chunk_id) for chunk_id in made]
    assert [(chunk.file_ids, chunk.generation) for chunk in chunks] == [(("a", "b"), 1), (("c",), 1)]


def failed_whole(connection: Connection, config: Config, *, escalation: bool = False) -> ledger_scope.Scope:
    """A chunk of two files that both failed, and that is yet to be halved."""
    scope = plan(connection, config, ["a", "b"])
    end(connection, 1, a=Outcome.FAILED, b=Outcome.FAILED)
    connection.execute(text("UPDATE jobs SET isolate = 1, escalation = :escalation"), {"escalation": int(escalation)})
    return scope


def test_halving_that_was_cut_off_is_work_for_the_next_run(ledger: Ledger, config: Config) -> None:
    """Although no job is open; under other rules there is nothing to be halved for."""
    with ledger.transaction() as connection:
        scope = failed_whole(connection, config)
        shard = Shard(scope.manifest_id, "v1")
        assert queue.open_apis(connection, scope.manifest_id) == ["v1"]
        assert [failed.file_ids for failed in halving.to_halve(connection, shard)] == [["a", "b"]]
        register(connection, SMALL)
        assert queue.open_apis(connection, scope.manifest_id) == []
        assert halving.to_halve(connection, shard) == []


def test_halves_of_a_second_opinion_are_second_opinions(ledger: Ledger, config: Config) -> None:
    """They too must be surer than what stands."""
    with ledger.transaction() as connection:
        failed_whole(connection, config, escalation=True)
        halving.split(connection, 1, [["a"], ["b"]], run_id="r", at=AT)
        assert connection.execute(text("SELECT escalation FROM jobs")).scalars().all() == [1, 1, 1]


def test_only_a_rehearsals_work_is_forgotten(ledger: Ledger, config: Config) -> None:
    """Real jobs were paid for."""
    with ledger.transaction() as connection:
        scope = register(connection, config)
        with pytest.raises(ValueError, match="rehearsal"):
            runs.forget_open(connection, scope.manifest_id)
