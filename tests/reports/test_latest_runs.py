"""A run's figures are those of its results, and what changed is reported against the run before."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import text
from support.nights import Nights, sums, thirty

from orchestrator.ledger import Ledger, Transaction
from orchestrator.ledger.sqlite import schema
from orchestrator.ledger.views import export as ledger_export
from orchestrator.models import Json
from orchestrator.reports import latest_runs


@pytest.fixture
def connection() -> Iterator[Transaction]:
    with Ledger.in_memory() as ledger, ledger.transaction() as connection:
        yield connection


def exported(connection: Transaction, made: Nights) -> list[dict[str, Json]]:
    rows = ledger_export.export_rows(connection, [made.scope.manifest_id], history=True)
    return [dict(zip(ledger_export.COLUMNS, row, strict=True)) for row in rows]


def test_each_nights_figures_are_those_of_its_rows_in_an_export(connection: Transaction) -> None:
    """Counted by hand: the rows whose job ended while the run went on."""
    made = thirty(connection, files=40)
    rows = exported(connection, made)
    found = latest_runs.nights(connection, made.scope.manifest_id)
    assert len(found) == 30
    assert [night.run_id for night in found] == sorted((night.run_id for night in found), reverse=True)
    for night in found:
        assert night.finished_at is not None
        its = [row for row in rows if night.started_at <= row["finished_at"] <= night.finished_at]
        assert night.outcomes == sums(its, "outcome")
        assert night.types == sums(its, "type")
        assert night.files == len(its) in (1, 40)


def test_what_changed_is_the_difference_to_the_run_before(connection: Transaction) -> None:
    """Of all files of the manifest: how many more there are, classified and failed."""
    made = Nights(connection)
    before = made.night(100, failed=0.0)
    made.night(50, failed=1.0)
    last = latest_runs.last_night(connection, made.scope.manifest_id)
    assert last is not None and last.since is not None
    assert last.since.run_id == before
    assert last.since.standing == {"files": 50, "failed": 50}
    assert last.night.outcomes == {"failed": 50}


def test_a_run_that_was_killed_keeps_its_results_and_has_no_end(connection: Transaction) -> None:
    """Its figures are counted as they were recorded; only what the end of a run tells is unknown."""
    made = Nights(connection)
    made.night(30)
    made.night(20, ended=False)
    last = latest_runs.last_night(connection, made.scope.manifest_id)
    assert last is not None
    assert (last.night.files, last.night.exit_code, last.night.standing, last.since) == (20, None, None, None)
    made.night(10)
    again = latest_runs.last_night(connection, made.scope.manifest_id)
    assert again is not None and again.since is not None
    assert again.since.standing["files"] == 30  # against the last run that left a record


def test_a_ledger_without_runs_has_no_last_night(connection: Transaction) -> None:
    """And nothing is made up."""
    made = Nights(connection)
    assert latest_runs.last_night(connection, made.scope.manifest_id) is None


def test_an_older_ledger_counts_its_runs_when_it_is_brought_up_to_date(connection: Transaction) -> None:
    """The same figures as if they had been counted one by one."""
    made = thirty(connection, files=20, quiet=4)
    counted = latest_runs.nights(connection, made.scope.manifest_id)
    connection.execute(text("DROP TABLE run_tallies"))
    connection.execute(text("DROP INDEX jobs_finished"))
    schema._run_tallies(connection)
    assert latest_runs.nights(connection, made.scope.manifest_id) == counted
