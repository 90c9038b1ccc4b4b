"""A ledger that another process is in the middle of writing to: nobody waits for it longer than they may."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest
from aiohttp import web
from support.commands import Classify, Cli, Serve, command_line, creates

from orchestrator.clock import SystemClock
from orchestrator.errors import LedgerBusy
from orchestrator.ledger import Ledger, jobs
from orchestrator.ledger.writer import Writer

Hold = Callable[[Path], AbstractContextManager[None]]


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    with command_line(tmp_path) as program:
        yield program


@contextmanager
def as_another_run(path: Path) -> Iterator[None]:
    """As a run that was stopped (SIGSTOP) inside its transaction."""
    descriptor = os.open(f"{path}.write-lock", os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def as_a_shell(path: Path) -> Iterator[None]:
    """As somebody's sqlite3 shell, which knows nothing of our lock."""
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


holders = pytest.mark.parametrize("hold", [as_another_run, as_a_shell])


@holders
def test_a_transaction_waits_only_for_as_long_as_it_may(tmp_path: Path, hold: Hold) -> None:
    """It waited without end for the one, and for a minute for the other."""
    with Ledger(tmp_path / "ledger.db") as ledger:
        with (
            hold(tmp_path / "ledger.db"),
            pytest.raises(LedgerBusy, match="another process"),
            ledger.transaction(patience_s=0.01),
        ):
            raise AssertionError("began all the same")
        with ledger.transaction(patience_s=0.0) as connection:
            jobs.note(connection, None, "noted", "", at="now")


@holders
def test_the_event_loop_goes_on_while_another_process_writes(tmp_path: Path, hold: Hold) -> None:
    """A deadline and a signal are heard meanwhile; and what waits is written as soon as it can be."""

    async def go(ledger: Ledger) -> bool:
        writer = Writer(ledger, SystemClock())
        with hold(tmp_path / "ledger.db"):
            waiting = asyncio.create_task(
                writer.write(lambda connection: connection.exec_driver_sql("SELECT 1").scalar_one())
            )
            await asyncio.sleep(0.02)
            waited = not waiting.done()
        return waited and await waiting == 1

    with Ledger(tmp_path / "ledger.db") as ledger:
        assert asyncio.run(go(ledger))


@holders
def test_what_was_committed_can_be_read_meanwhile(tmp_path: Path, hold: Hold) -> None:
    """A run that has to end tells how far it got."""
    with Ledger(tmp_path / "ledger.db") as ledger:
        with ledger.transaction() as connection:
            jobs.note(connection, None, "noted", "", at="now")
        with hold(tmp_path / "ledger.db"), ledger.glance() as connection:
            assert connection.exec_driver_sql("SELECT event FROM events").scalars().all() == ["noted"]


def test_the_deadline_is_kept_while_another_process_writes(cli: Cli, serve: Serve) -> None:
    """Another run is stopped inside its transaction: this one ends with 3, says why, and the next goes on."""

    class Stopping(Classify):
        holding: AbstractContextManager[None] | None = None

        async def __call__(self, request: web.Request) -> web.StreamResponse:
            if request.path.endswith("/job-0") and self.holding is None:
                self.holding = as_another_run(cli.folder / "ledger.db")
                self.holding.__enter__()
            return await super().__call__(request)

    server = serve(api := Stopping())
    cli.use(server)
    done = cli("run", "m.yaml", "--deadline", "4s", "--json")
    summary = json.loads(done.stdout)
    assert (done.returncode, summary["exit_code"], summary["unfinished"]) == (3, 3, 3), done.stderr
    assert "deadline" in summary["reason"] and "another process" in summary["reason"]
    assert 4 <= summary["seconds"] < 30
    assert api.holding is not None
    api.holding.__exit__(None, None, None)
    assert cli("run", "m.yaml").returncode == 0
    assert creates(server) == 1


def test_a_ledger_that_can_not_be_opened_in_time_is_reported(cli: Cli, serve: Serve) -> None:
    """The deadline counts before the run has begun, too."""
    cli.use(serve(Classify()))
    assert cli("run", "m.yaml").returncode == 0
    with as_another_run(cli.folder / "ledger.db"):
        done = cli("run", "m.yaml", "--deadline", "1s", "--json")
    assert (done.returncode, "another process" in json.loads(done.stdout)["reason"]) == (8, True)
