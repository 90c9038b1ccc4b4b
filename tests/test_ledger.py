"""The ledger: every move guarded and remembered, every file in one chunk, one run at a time, nobody else's eyes."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from conftest import FakeClock
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from orchestrator.errors import InputError, LedgerError, LockHeld, SettingsError
from orchestrator.ledger import Ledger, database, halves, jobs, planning, reading, runs, schema
from orchestrator.ledger.jobs import ForbiddenMove, Shard
from orchestrator.ledger.planning import Scope
from orchestrator.ledger.writer import Writer
from orchestrator.models import MOVES, TERMINAL, Config, FileResult, JobStatus, Outcome, Review, Rule

AT = "2026-11-25T02:00:00.000+00:00"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger(path) as opened:
        yield opened


def register(
    connection: Connection, config: Config, *, name: str = "m", origin: str = "api", project: str | None = None
) -> Scope:
    return planning.register(
        connection,
        name,
        rehearsal=False,
        origin=origin,
        project_id=project,
        config=config,
        review=Review(),
        path="m.yaml",
        sha256="0",
    )


def plan(connection: Connection, config: Config, file_ids: Sequence[str], *, size: int = 2, run_id: str = "r") -> Scope:
    """Register, stage, and cut what is new."""
    planning.stage(connection, file_ids)
    scope = register(connection, config)
    planning.select_new(connection, scope)
    cut(connection, scope, size=size, run_id=run_id)
    return scope


def cut(connection: Connection, scope: Scope, *, size: int = 2, run_id: str = "r") -> int:
    connection.execute(
        text(
            "INSERT INTO runs (id, manifest_id, command, api, started_at) VALUES (:id, :m, 'run', 'v1', :at) "
            "ON CONFLICT DO NOTHING"
        ),
        {"id": run_id, "m": scope.manifest_id, "at": AT},
    )
    return planning.cut(
        connection, scope, chunk_size=size, job_config_id=scope.config_id, api="v1", run_id=run_id, at=AT
    )


def bring(connection: Connection, chunk_id: int, to: JobStatus) -> None:
    """Take a pending chunk to *to* by the shortest way that the stages use."""
    if to is JobStatus.PENDING:
        return
    jobs.intend(connection, [chunk_id], mark=None, at=AT)
    if to is JobStatus.SUBMITTING:
        return
    jobs.submitted(connection, chunk_id, f"job-{chunk_id}", at=AT)
    if to is not JobStatus.SUBMITTED:
        jobs.move(connection, [chunk_id], to, at=AT)


def events(connection: Connection, chunk_id: int) -> list[str]:
    rows = connection.execute(text("SELECT event FROM events WHERE chunk_id = :id ORDER BY id"), {"id": chunk_id})
    return list(rows.scalars())


@pytest.mark.parametrize("source", JobStatus)
@pytest.mark.parametrize("to", JobStatus)
def test_only_the_allowed_moves_are_made(ledger: Ledger, config: Config, source: JobStatus, to: JobStatus) -> None:
    """Every pair of statuses; a move that is not allowed is a bug, and changes nothing."""
    with ledger.transaction() as connection:
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
        assert [chunk.id for chunk in jobs.pending(connection, Shard(1, "v1"), after=0, most=9)] == [1, 3]


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
        "INSERT INTO files SELECT 9, 2, manifest_id, config_id, file_id, generation, standing FROM files WHERE id = 1",
        "INSERT INTO files SELECT 9, 9, manifest_id, config_id, 'z', generation, standing FROM files WHERE id = 1",
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
        assert planning.stage(connection, file_ids) == len(file_ids)
        scope = register(connection, SMALL)
        assert planning.select_new(connection, scope) == len(wanted)
        made = cut(connection, scope, size=size)
        chunks = jobs.pending(connection, Shard(scope.manifest_id, "v1"), after=0, most=1000)
    ledger.close()
    assert [file_id for chunk in chunks for file_id in chunk.file_ids] == wanted
    assert len(chunks) == made == -(-len(wanted) // size)
    assert all(1 <= len(chunk.file_ids) <= size for chunk in chunks)
    assert {chunk.config for chunk in chunks} <= {SMALL}


SMALL = Config((Rule("invoice", "contains line items and a total"),))


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
            chunks = jobs.pending(connection, Shard(1, "v1"), after=0, most=1000)
            found = [(file_id, chunk.id) for chunk in chunks for file_id in chunk.file_ids]
            assert len(found) == len(dict(found))
            assert chunk_of.items() <= dict(found).items()
            chunk_of = dict(found)
    ledger.close()
    assert set(chunk_of) == {file_id for file_ids in nights for file_id in file_ids}


def end(connection: Connection, chunk_id: int, **outcomes: Outcome) -> None:
    """End a chunk with one outcome for each of its files."""
    bring(connection, chunk_id, JobStatus.SUBMITTED)
    rows = jobs.file_rows(connection, chunk_id)
    results = [
        (rows[file_id], FileResult(file_id, outcome, "invoice" if outcome is Outcome.CLASSIFIED else None))
        for file_id, outcome in outcomes.items()
    ]
    jobs.end(connection, chunk_id, JobStatus.SUCCEEDED, results, at=AT)


def test_the_plan_counts_each_file_once(ledger: Ledger, config: Config) -> None:
    """Done, failed, in flight and new are disjoint; a repeat is a duplicate."""
    with ledger.transaction() as connection:
        plan(connection, config, ["a", "b", "c", "d"])
        end(connection, 1, a=Outcome.CLASSIFIED, b=Outcome.MISSING)
        listed = planning.stage(connection, ["a", "b", "c", "d", "e", "a", "e"])
        counts = planning.count(connection, register(connection, config), listed)
    assert counts == planning.Counts(listed=7, files=5, done=1, failed=1, in_flight=2, new=1, changed=0)
    assert counts.duplicates == 2


def test_other_rules_make_every_file_new_and_count_it_as_changed(ledger: Ledger, config: Config) -> None:
    """Its earlier outcome stays in the ledger, under the earlier rules."""
    with ledger.transaction() as connection:
        plan(connection, config, ["a", "b"])
        end(connection, 1, a=Outcome.CLASSIFIED, b=Outcome.UNMATCHED)
        listed = planning.stage(connection, ["a", "b", "c"])
        counts = planning.count(connection, register(connection, SMALL), listed)
        back = planning.count(connection, register(connection, config), listed)
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
        assert planning.chosen(connection, 9) == ["d", "a"]


def again(connection: Connection, scope: Scope, *file_ids: str, **selection: object) -> list[str]:
    """The files that a retry would choose."""
    planning.stage(connection, file_ids)
    planning.select_again(connection, scope, planning.Selection(**selection))  # type: ignore[arg-type]  # by name
    return planning.chosen(connection, 99)


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
        assert jobs.chunk(connection, 2).generation == 1
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
        rows = [row[2] for row in reading.export_rows(connection, [scope.manifest_id])]
        history = [row[2] for row in reading.export_rows(connection, [scope.manifest_id], history=True)]
    assert rows == [first.value if first in good and second not in good else second.value]
    assert history == [first.value, second.value]


def test_a_file_being_retried_is_unfinished(ledger: Ledger, config: Config) -> None:
    """Its old outcome is not counted, and no file is counted twice."""
    with ledger.transaction() as connection:
        scope = plan(connection, config, ["a", "b"])
        end(connection, 1, a=Outcome.FAILED, b=Outcome.CLASSIFIED)
        again(connection, scope, "a", "b")
        cut(connection, scope)
        totals = reading.totals(connection, scope, wanted=True, review={})
    assert totals.unfinished == 1
    assert {outcome: n for outcome, n in totals.outcomes.items() if n} == {Outcome.CLASSIFIED: 1}


def test_halves_of_a_failed_chunk_hold_its_files_once(ledger: Ledger, config: Config) -> None:
    """One generation on, in new pending chunks that remember where they come from."""
    with ledger.transaction() as connection:
        plan(connection, config, ["a", "b", "c"], size=3)
        end(connection, 1, a=Outcome.FAILED, b=Outcome.FAILED, c=Outcome.FAILED)
        made = halves.split(connection, 1, [["a", "b"], ["c"]], run_id="r", at=AT)
        chunks = [jobs.chunk(connection, chunk_id) for chunk_id in made]
    assert [(chunk.file_ids, chunk.generation) for chunk in chunks] == [(("a", "b"), 1), (("c",), 1)]


def test_another_api_or_project_is_refused(ledger: Ledger, config: Config) -> None:
    """Results of two places under one name would be mixed up, and jobs of one looked for at the other."""
    with ledger.transaction() as connection:
        register(connection, config, origin="api.one", project="p")
    with pytest.raises(InputError, match=r"api\.one"), ledger.transaction() as connection:
        register(connection, config, origin="api.two", project="p")
    with pytest.raises(InputError, match="project p"), ledger.transaction() as connection:
        register(connection, config, origin="api.one", project="q")


def test_only_a_rehearsals_work_is_forgotten(ledger: Ledger, config: Config) -> None:
    """Real jobs were paid for."""
    with ledger.transaction() as connection:
        scope = register(connection, config)
        with pytest.raises(ValueError, match="rehearsal"):
            runs.forget_open(connection, scope.manifest_id)


def test_a_transaction_that_fails_leaves_nothing(ledger: Ledger, config: Config) -> None:
    """All of it or none."""
    with pytest.raises(RuntimeError, match="half way"), ledger.transaction() as connection:
        plan(connection, config, ["a"])
        raise RuntimeError("half way")
    with ledger.transaction() as connection:
        assert database.scalar_int(connection, "SELECT count(*) FROM jobs") == 0


def modes(folder: Path) -> dict[str, int]:
    return {found.name: stat.S_IMODE(found.stat().st_mode) for found in folder.iterdir()}


def test_nobody_else_can_read_it(path: Path, config: Config) -> None:
    """The ledger, what SQLite puts beside it, and the locks, whatever the umask."""
    before = os.umask(0)
    try:
        with Ledger(path) as ledger, database.run_lock(path, "m", {}):
            with ledger.transaction() as connection:
                plan(connection, config, ["a"])
            found = modes(path.parent)
    finally:
        os.umask(before)
    assert set(found) == {"ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db.write-lock", "ledger.db.m.lock"}
    assert set(found.values()) == {0o600}


def test_a_ledger_that_others_can_read_is_closed_to_them(path: Path) -> None:
    """Left open by a copy or by an older tool."""
    Ledger(path).close()
    path.chmod(0o666)
    Ledger(path).close()
    assert modes(path.parent)["ledger.db"] == 0o600


def test_a_commit_survives_power_loss(ledger: Ledger) -> None:
    """WAL with FULL: NORMAL may lose an intent whose create call has left."""
    with ledger.transaction() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar_one() == 1


def test_a_newer_ledger_is_refused_untouched(path: Path) -> None:
    """An older program must not write what it does not understand."""
    Ledger(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS) + 1}")
    raw.close()
    before = path.read_bytes()
    for read_only in (False, True):
        with pytest.raises(LedgerError, match="upgrade"):
            Ledger(path, read_only=read_only)
    assert path.read_bytes() == before


def test_another_programs_database_is_refused_untouched(path: Path) -> None:
    """It has tables and is not ours."""
    with sqlite3.connect(path) as raw:
        raw.execute("CREATE TABLE theirs (x)")
        raw.execute("PRAGMA user_version = 1")
    raw.close()
    for read_only in (False, True):
        with pytest.raises(LedgerError, match="not a ledger"):
            Ledger(path, read_only=read_only)
    with sqlite3.connect(path) as raw:
        assert raw.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]
    raw.close()


@pytest.mark.parametrize("content", [b"x" * 5000, b"SQLite format 3\x00" + b"\xff" * 5000], ids=["text", "torn"])
def test_what_is_no_database_is_refused_untouched(path: Path, content: bytes) -> None:
    """Whatever stands there, it is not overwritten."""
    path.write_bytes(content)
    for read_only in (False, True):
        with pytest.raises(LedgerError):
            Ledger(path, read_only=read_only)
    assert path.read_bytes() == content


def test_a_damaged_ledger_is_refused(path: Path, config: Config) -> None:
    """Nothing is sent on the word of a ledger with a page missing."""
    with Ledger(path) as ledger, ledger.transaction() as connection:
        plan(connection, config, [f"f{n}" for n in range(2000)], size=10)
    whole = path.read_bytes()
    path.write_bytes(whole[: 4096 * 3] + b"\x00" * 4096 * 8 + whole[4096 * 11 :])
    with pytest.raises(LedgerError):
        Ledger(path)


def test_reading_never_creates(path: Path) -> None:
    """``status`` of a mistyped path says so."""
    with pytest.raises(LedgerError, match="no ledger here"):
        Ledger(path, read_only=True)
    assert not path.exists()


def test_a_reader_cannot_write(path: Path) -> None:
    """Not even by mistake."""
    Ledger(path).close()
    with (
        Ledger(path, read_only=True) as ledger,
        pytest.raises(LedgerError, match="readonly"),
        ledger.transaction() as connection,
    ):
        connection.exec_driver_sql("DELETE FROM jobs")


def test_a_reader_sees_what_is_committed_and_does_not_wait(path: Path, config: Config) -> None:
    """While a run holds a transaction open."""
    with Ledger(path) as ledger:
        with ledger.transaction() as connection:
            plan(connection, config, ["a"])
        with ledger.transaction() as connection, Ledger(path, read_only=True) as reader:
            connection.exec_driver_sql("UPDATE jobs SET error = 'x'")
            with reader.transaction() as reading_:
                assert reading_.exec_driver_sql("SELECT error FROM jobs").scalars().all() == [None]


def test_names_that_mean_something_in_a_url_are_plain_names(tmp_path: Path) -> None:
    """A ``?mode=memory`` in a folder's name must not lose the ledger."""
    path = tmp_path / "a?mode=memory#b%20c" / "ledger.db"
    Ledger(path).close()
    assert path.stat().st_size > 0


@pytest.mark.parametrize("name", ["ledger.db", "ledger.db.write-lock", "ledger.db.m.lock"])
@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link", "folder", "pipe"])
def test_nothing_is_opened_through_a_planted_name(tmp_path: Path, name: str, kind: str) -> None:
    """A link, a pipe or a folder in the ledger's place or a lock's: the victim is not touched."""
    victim, path = tmp_path / "victim", tmp_path / "in" / name
    path.parent.mkdir()
    victim.write_text("precious")
    match kind:
        case "link":
            path.symlink_to(victim)
        case "dangling link":
            path.symlink_to(tmp_path / "nowhere")
        case "hard link":
            path.hardlink_to(victim)
        case "folder":
            path.mkdir()
        case _:
            os.mkfifo(path)
    ledger = tmp_path / "in" / "ledger.db"
    with pytest.raises(LedgerError), Ledger(ledger), database.run_lock(ledger, "m", {}):
        pass
    assert victim.read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


def hold(path: Path, held: object, release: object) -> None:
    """In another process: take the lock, say so, and keep it until told."""
    with database.run_lock(path, "m", {"command": "orchestrator run (run 1)", "since": "02:00"}):
        held.set()  # type: ignore[attr-defined]  # multiprocessing's events have no public class
        release.wait(30)  # type: ignore[attr-defined]  # as above


def test_a_second_run_is_kept_out_until_the_first_ends(path: Path) -> None:
    """It is told who holds the manifest; other manifests are free; a killed holder holds nothing."""
    spawn = multiprocessing.get_context("spawn")
    held, release = spawn.Event(), spawn.Event()
    holder = spawn.Process(target=hold, args=(path, held, release))
    holder.start()
    assert held.wait(30)
    who = rf"pid {holder.pid} .*orchestrator run \(run 1\) since 02:00"
    with pytest.raises(LockHeld, match=who), database.run_lock(path, "m", {}):
        pass
    with database.run_lock(path, "other", {}):
        pass
    holder.kill()
    holder.join()
    with database.run_lock(path, "m", {}):
        pass
    assert path.with_name("ledger.db.m.lock").exists()


def test_a_folder_that_cannot_be_made_is_a_ledger_error(tmp_path: Path) -> None:
    """A file stands where the folder should be."""
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError):
        Ledger(tmp_path / "file" / "ledger.db")
    with pytest.raises(LedgerError), database.run_lock(tmp_path / "file" / "ledger.db", "m", {}):
        pass


@pytest.mark.parametrize(
    ("location", "path"),
    [("a.db", "a.db"), ("sqlite:///a.db", "a.db"), ("sqlite:////tmp/a.db", "/tmp/a.db")],  # noqa: S108 - a name only
)
def test_a_ledger_is_named_by_a_path_or_a_sqlite_url(location: str, path: str) -> None:
    """Both spellings name the same file."""
    assert database.resolve(location) == Path(path)


@pytest.mark.parametrize("location", ["", "sqlite:///", "postgresql://user:secret@host/db", "sqlite://a.db"])
def test_other_locations_are_refused_without_their_password(location: str) -> None:
    """The message names the kind of database only."""
    with pytest.raises(SettingsError) as caught:
        database.resolve(location)
    assert "secret" not in str(caught.value)


def test_writes_that_wait_together_are_one_commit(ledger: Ledger, config: Config) -> None:
    """Each caller gets its own answer, once it is on disk."""
    transactions = 0

    def count(connection: Connection) -> int:
        return database.scalar_int(connection, "SELECT count(*) FROM events")

    def note(connection: Connection) -> int:
        nonlocal transactions
        jobs.note(connection, None, "noted", "", at=AT)
        transactions += count(connection) == 1
        return count(connection)

    async def go() -> list[int]:
        writer = Writer(ledger, FakeClock())
        return await asyncio.gather(*(writer.write(note) for _ in range(5)))

    assert asyncio.run(go()) == [1, 2, 3, 4, 5]
    assert transactions == 1
    with ledger.transaction() as connection:
        assert count(connection) == 5


def test_a_write_that_fails_is_heard_by_all_who_waited_with_it(ledger: Ledger, config: Config) -> None:
    """The transaction is gone, so none of them may go on as if it were on disk; the next one is a new one."""

    async def go() -> list[object]:
        writer = Writer(ledger, FakeClock())
        bad = writer.write(lambda connection: jobs.move(connection, [9], JobStatus.SUBMITTING, at=AT))
        good = writer.write(lambda connection: jobs.note(connection, None, "noted", "", at=AT))
        found = await asyncio.gather(good, bad, return_exceptions=True)
        await writer.write(lambda connection: jobs.note(connection, None, "later", "", at=AT))
        return list(found)

    assert [type(found) for found in asyncio.run(go())] == [ForbiddenMove, ForbiddenMove]
    with ledger.transaction() as connection:
        assert connection.exec_driver_sql("SELECT event FROM events").scalars().all() == ["later"]


def test_a_write_whose_caller_has_gone_is_made_all_the_same(ledger: Ledger, config: Config) -> None:
    """An answer that the API gave is not lost because somebody stopped waiting for it."""

    async def go() -> None:
        writer = Writer(ledger, FakeClock())
        waiting = asyncio.create_task(writer.write(lambda connection: jobs.note(connection, None, "noted", "", at=AT)))
        await asyncio.sleep(0)
        waiting.cancel()
        await writer.write(lambda connection: None)

    asyncio.run(go())
    with ledger.transaction() as connection:
        assert connection.exec_driver_sql("SELECT event FROM events").scalars().all() == ["noted"]
