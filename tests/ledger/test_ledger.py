"""The ledger as a file: durable, private, of one version, one writer and one run at a time."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection
from support.ledgers import AT, plan, register
from support.server import FakeClock

from orchestrator import ledger as ledger_room
from orchestrator.errors import InputError, LedgerError, LockHeld, SettingsError
from orchestrator.ledger import Ledger, jobs, lease, locate, sql
from orchestrator.ledger.jobs import ForbiddenMove
from orchestrator.ledger.sqlite import damage, schema
from orchestrator.ledger.views import reading
from orchestrator.ledger.writer import Writer
from orchestrator.models import Config, JobStatus


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger(path) as opened:
        yield opened


def test_another_api_or_project_is_refused(ledger: Ledger, config: Config) -> None:
    """Results of two places under one name would be mixed up, and jobs of one looked for at the other."""
    with ledger.transaction() as connection:
        register(connection, config, origin="api.one", project="p")
    with pytest.raises(InputError, match=r"api\.one"), ledger.transaction() as connection:
        register(connection, config, origin="api.two", project="p")
    with pytest.raises(InputError, match="project p"), ledger.transaction() as connection:
        register(connection, config, origin="api.one", project="q")


def test_a_transaction_that_fails_leaves_nothing(ledger: Ledger, config: Config) -> None:
    """All of it or none."""
    with pytest.raises(RuntimeError, match="half way"), ledger.transaction() as connection:
        plan(connection, config, ["a"])
        raise RuntimeError("half way")
    with ledger.transaction() as connection:
        assert sql.scalar_int(connection, "SELECT count(*) FROM jobs") == 0


def modes(folder: Path) -> dict[str, int]:
    return {found.name: stat.S_IMODE(found.stat().st_mode) for found in folder.iterdir()}


def test_nobody_else_can_read_it(path: Path, config: Config) -> None:
    """The ledger, what SQLite puts beside it, and the locks, whatever the umask."""
    before = os.umask(0)
    try:
        with Ledger(path) as ledger, lease(path, "m", {}):
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


def test_an_older_ledger_is_brought_up_to_date_by_whoever_may_write(
    path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step by step, keeping what it holds; a mere look says what to do."""
    with monkeypatch.context() as older:
        older.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:1])
        Ledger(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute("INSERT INTO configs VALUES (1, 'f', 'c')")
        raw.execute("INSERT INTO manifests VALUES (1, 'm', 0, 'api', NULL, 1, '{}', 'm.yaml', '0')")
    raw.close()
    with pytest.raises(LedgerError, match="older version"):
        Ledger(path, read_only=True)
    Ledger(path).close()
    with Ledger(path, read_only=True) as ledger, ledger.transaction() as connection:
        assert [(row.name, row.max_generations) for row in reading.manifests(connection)] == [("m", None)]


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


@pytest.fixture
def damaged(path: Path, config: Config) -> Path:
    """A ledger with some pages of its tables missing."""
    with Ledger(path) as ledger, ledger.transaction() as connection:
        plan(connection, config, [f"f{n}" for n in range(2000)], size=10)
    with sqlite3.connect(path) as raw:
        (last,) = raw.execute("PRAGMA page_count").fetchone()
    raw.close()
    whole, from_, to = path.read_bytes(), 4096 * (last - 10), 4096 * (last - 2)
    path.write_bytes(whole[:from_] + b"\x00" * (to - from_) + whole[to:])
    return path


def test_a_damaged_ledger_is_refused(damaged: Path) -> None:
    """Nothing is sent on the word of a ledger with a page missing."""
    with pytest.raises(LedgerError, match="damaged"):
        Ledger(damaged)


def test_a_large_ledger_is_looked_through_while_other_work_goes_on(
    damaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It opens at once; no transaction begins before all of it was seen, and none at all where there is damage."""
    monkeypatch.setattr(damage, "LARGE", 1)
    began, goes_on = threading.Event(), threading.Event()
    look = damage.Check._look

    def slowly(check: damage.Check) -> None:
        began.set()
        assert goes_on.wait(60)
        look(check)

    monkeypatch.setattr(damage.Check, "_look", slowly)
    ledger = Ledger(damaged)
    try:
        assert began.wait(60)
        threading.Timer(0.1, goes_on.set).start()
        for _ in range(2):
            with pytest.raises(LedgerError, match="the ledger is damaged"), ledger.transaction():
                raise AssertionError("a transaction has begun")
    finally:
        goes_on.set()
        ledger.close()


def test_a_sound_large_ledger_is_used_once_it_was_looked_through(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it is closed before anything was asked of it."""
    Ledger(path).close()
    monkeypatch.setattr(damage, "LARGE", 1)
    Ledger(path).close()
    with Ledger(path) as ledger, ledger.transaction() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM jobs").scalar_one() == 0
    with Ledger(path) as ledger:
        assert ledger.check() is None


def test_a_ledger_says_which_one_it_is(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In full, whatever the working folder, also inside a transaction; its size counts what SQLite keeps beside it."""
    monkeypatch.chdir(path.parent)
    with ledger_room.open(Path(path.name)) as opened, opened.transaction():
        found = opened.describe()
        on_disk = sum(file.stat().st_size for file in path.parent.glob("ledger.db*"))
    assert (found.location, found.version) == (str(path), len(schema.MIGRATIONS))
    assert found.bytes == on_disk


def test_a_check_names_the_first_thing_to_put_right(path: Path) -> None:
    """Nothing for a sound ledger; then what to type."""
    ledger_room.open(path).close()
    with ledger_room.open(path, read_only=True) as opened:
        assert opened.check() is None
        path.chmod(0o644)
        assert opened.check() == f"others can read {path}; run: chmod 600 {path}"


def test_reading_never_creates(path: Path) -> None:
    """``status`` of a mistyped path says so."""
    with pytest.raises(LedgerError, match="no ledger at"):
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
    with pytest.raises(LedgerError), Ledger(ledger), lease(ledger, "m", {}):
        pass
    assert victim.read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


def hold(path: Path, held: object, release: object) -> None:
    """In another process: take the lock, say so, and keep it until told."""
    with lease(path, "m", {"command": "orchestrator run (run 1)", "since": "02:00"}):
        held.set()  # type: ignore[attr-defined]  # multiprocessing's events have no public class
        release.wait(30)  # type: ignore[attr-defined]  # as above


def test_a_second_run_is_kept_out_until_the_first_ends(path: Path) -> None:
    """It says who holds the manifest; other manifests are free; a killed holder holds nothing."""
    spawn = multiprocessing.get_context("spawn")
    held, release = spawn.Event(), spawn.Event()
    holder = spawn.Process(target=hold, args=(path, held, release))
    holder.start()
    assert held.wait(30)
    who = rf"pid {holder.pid} .*orchestrator run \(run 1\) since 02:00"
    with pytest.raises(LockHeld, match=who), lease(path, "m", {}):
        pass
    with lease(path, "other", {}):
        pass
    holder.kill()
    holder.join()
    with lease(path, "m", {}):
        pass
    assert path.with_name("ledger.db.m.lock").exists()


def test_a_folder_that_cannot_be_made_is_a_ledger_error(tmp_path: Path) -> None:
    """A file stands where the folder should be."""
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError):
        Ledger(tmp_path / "file" / "ledger.db")
    with pytest.raises(LedgerError), lease(tmp_path / "file" / "ledger.db", "m", {}):
        pass


@pytest.mark.parametrize(
    ("location", "path"),
    [("a.db", "a.db"), ("sqlite:///a.db", "a.db"), ("sqlite:////tmp/a.db", "/tmp/a.db")],  # noqa: S108 - a name only
)
def test_a_ledger_is_named_by_a_path_or_a_sqlite_url(location: str, path: str) -> None:
    """Both spellings name the same file."""
    assert locate(location) == Path(path)


@pytest.mark.parametrize("location", ["", "sqlite:///", "postgresql://user:secret@host/db", "sqlite://a.db"])
def test_other_locations_are_refused_without_their_password(location: str) -> None:
    """The message names the kind of database only."""
    with pytest.raises(SettingsError) as caught:
        locate(location)
    assert "secret" not in str(caught.value)


def test_writes_that_wait_together_are_one_commit(ledger: Ledger, config: Config) -> None:
    """Each caller gets its own answer, once it is on disk."""
    transactions = 0

    def count(connection: Connection) -> int:
        return sql.scalar_int(connection, "SELECT count(*) FROM events")

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


def test_a_slow_disk_does_not_hold_up_the_event_loop(ledger: Ledger, config: Config) -> None:
    """Once commits take long, the loop goes on during the next; what comes meanwhile goes with the one after."""

    async def go() -> list[object]:
        clock = FakeClock()
        writer = Writer(ledger, clock)
        loop_goes_on = threading.Event()

        def slow(connection: Connection) -> None:
            clock.seconds += 1

        await writer.write(slow)
        during = asyncio.create_task(writer.write(lambda connection: loop_goes_on.wait(20)))
        await asyncio.sleep(0)
        after = asyncio.create_task(writer.write(lambda connection: loop_goes_on.is_set()))
        await asyncio.sleep(0.01)
        seen: list[object] = [during.done(), after.done()]
        loop_goes_on.set()
        return [*seen, await during, await after]

    assert asyncio.run(go()) == [False, False, True, True]


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
