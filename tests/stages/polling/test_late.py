"""Results that come late, and parts of the API that are down alone: nothing waits for them, and nothing is lost."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from support import one_by_one
from support.commands import Classify, Cli, Serve, command_line

from orchestrator.ledger import Ledger, jobs
from orchestrator.models import FileResult, Json, Outcome
from orchestrator.stages.polling.late import LATE


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    with command_line(tmp_path) as program:
        yield program


class Late(Classify):
    """Its jobs' results have the rows that *rows* says, given how often they were asked for before."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: dict[str, int] = {}
        self.rows: Callable[[str, int, list[Json]], list[Json] | int] = lambda _, __, rows: rows

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        answer = await super().__call__(request)
        if not request.path.endswith("/results"):
            return answer
        job_id = request.path.split("/")[-2]
        before = self.asked[job_id] = self.asked.get(job_id, -1) + 1
        assert isinstance(answer, web.Response)
        rows = self.rows(job_id, before, json.loads(answer.text or "")["items"])
        if isinstance(rows, int):
            return web.json_response({"detail": "oops"}, status=rows)
        return web.json_response({"items": rows, "next_page_token": None})


@pytest.mark.long
def test_rows_that_come_late_are_taken_in(cli: Cli, serve: Serve) -> None:
    """A job that succeeded and has no rows yet is asked again; rows that were read once count, even if they go."""
    api = Late()
    api.rows = lambda _, before, rows: [[], rows[:1], rows[1:]][min(before, 2)]
    cli.use(serve(api))
    cli.manifest("f1", "f2")
    done = cli("run", "m.yaml", ORCHESTRATOR_LATE_RESULTS_S="60")
    assert done.returncode == 0, done.stderr
    assert [row["type"] for row in cli.exported()] == ["invoice", "invoice"]


def test_a_later_run_takes_late_rows_in(cli: Cli, serve: Serve) -> None:
    """A run that ends before the rows have come leaves the job open, and says so."""
    api = Late()
    api.rows = lambda _, __, ___: []
    cli.use(serve(api))
    cli.manifest("f1")
    done = cli("run", "m.yaml", "--deadline", "1s", "--json", ORCHESTRATOR_LATE_RESULTS_S="60")
    assert (done.returncode, json.loads(done.stdout)["missing"]) == (3, 0)
    api.rows = lambda _, __, rows: rows
    assert cli("run", "m.yaml").returncode == 0
    assert len(api.jobs) == 1


@pytest.mark.parametrize(("hours", "outcome"), [(3, "classified"), (25, "missing")])
def test_a_clock_that_was_put_right_between_two_runs_ends_no_wait(
    cli: Cli, serve: Serve, hours: int, outcome: str
) -> None:
    """By the clock a later run had waited for three hours: it gave up after seconds. After a day it is believed."""
    api = Late()
    api.rows = lambda _, __, ___: []
    cli.use(serve(api))
    cli.manifest("f1")
    assert cli("run", "m.yaml", "--deadline", "1s", ORCHESTRATOR_LATE_RESULTS_S="60").returncode == 3
    with closing(sqlite3.connect(cli.folder / "ledger.db")) as ledger, ledger:
        then = datetime.now(UTC) - timedelta(hours=hours)
        ledger.execute("UPDATE events SET at = ? WHERE event = ?", (then.isoformat(), LATE))
    began = time.monotonic()
    api.rows = lambda _, __, rows: rows if hours < 24 and time.monotonic() - began > 6 else []
    cli("run", "m.yaml", ORCHESTRATOR_LATE_RESULTS_S="60")
    assert [row["outcome"] for row in cli.exported()] == [outcome]


def test_rows_that_an_earlier_run_saw_count(cli: Cli, serve: Serve) -> None:
    """The API shows them for a while only: a run that ends before the others have come hands on what it has seen."""
    api = Late()
    api.rows = lambda _, __, rows: rows[1:]
    cli.use(serve(api))
    cli.manifest("f1", "f2")
    assert cli("run", "m.yaml", "--no-wait").returncode == 3
    with Ledger(cli.folder / "ledger.db") as ledger, ledger.transaction() as connection:
        seen = FileResult("f1", Outcome.CLASSIFIED, "receipt", 0.5)
        jobs.keep_seen(connection, 1, [seen], at="2026-11-25T02:00:00+00:00")
    assert cli("run", "m.yaml", ORCHESTRATOR_LATE_RESULTS_S="60").returncode == 0
    assert {row["file_id"]: row["type"] for row in cli.exported()} == {"f1": "receipt", "f2": "invoice"}


def test_rows_that_never_come_are_missing_in_the_end(cli: Cli, serve: Serve) -> None:
    """They are waited for as long as the setting says, over all runs."""
    api = Late()
    api.rows = lambda _, __, rows: rows[:1]
    cli.use(serve(api))
    cli.manifest("f1", "f2")
    began = time.monotonic()
    done = cli("run", "m.yaml", "--json", ORCHESTRATOR_LATE_RESULTS_S="1.5")
    assert time.monotonic() - began >= 1.5
    assert (done.returncode, json.loads(done.stdout)["missing"]) == (1, 1)


@pytest.mark.parametrize("first", [410, []])
def test_rows_that_come_after_all_are_taken_in_by_the_next_run(cli: Cli, serve: Serve, first: list[Json] | int) -> None:
    """They were given up as missing; nothing is bought, and every count is of what is there now."""
    api = Late()
    api.rows = lambda _, __, ___: first
    cli.use(serve(api))
    cli.manifest("f1", "f2")
    done = cli("run", "m.yaml", "--json", ORCHESTRATOR_STALE_S="0.1")
    assert (done.returncode, json.loads(done.stdout)["missing"]) == (1, 2)
    api.rows = lambda _, __, rows: rows[:1]
    done = cli("run", "m.yaml", "--json")
    assert [json.loads(done.stdout)[name] for name in ("classified", "missing", "jobs_created")] == [1, 1, 0]
    api.rows = lambda _, __, rows: [rows[0], {**rows[1], "result": None}]
    assert [json.loads(cli("run", "m.yaml", "--json").stdout)[name] for name in ("missing", "failed")] == [0, 1]
    api.rows = lambda _, __, rows: rows
    assert cli("run", "m.yaml").returncode == 0
    assert cli.state()["classified"] == 2
    assert len(api.jobs) == 1


def test_a_row_without_a_result_may_get_one(cli: Cli, serve: Serve) -> None:
    """SUCCESS with nulls that are filled in later: failed at first, and taken in by the next run."""
    api = Late()
    api.rows = lambda _, __, rows: [{**row, "result": None} for row in rows]
    cli.use(serve(api))
    cli.manifest("f1")
    assert cli("run", "m.yaml").returncode == 1
    api.rows = lambda _, __, rows: rows
    assert cli("run", "m.yaml").returncode == 0


@pytest.mark.parametrize("command", [("retry",), ("run", "--retry-failed"), ("retry", "--file", "f1", "--file", "f2")])
def test_rows_that_are_there_now_are_not_bought_again(cli: Cli, serve: Serve, command: tuple[str, ...]) -> None:
    """What would send files again asks once about their jobs before: only what is still without a row is sent."""
    api = Late()
    api.rows = lambda _, __, ___: []
    cli.use(serve(api))
    cli.manifest("f1", "f2", "f3")
    assert cli("run", "m.yaml").returncode == 1
    api.rows = lambda job_id, _, rows: rows[1:] if job_id == "job-0" else rows
    done = cli(command[0], "m.yaml", *command[1:], "--json")
    assert (done.returncode, json.loads(done.stdout)["jobs_created"]) == (0, 1), done
    assert list(api.jobs.values()) == [["f1", "f2", "f3"], ["f1"]]
    assert cli.state()["classified"] == 3
    with closing(sqlite3.connect(cli.folder / "ledger.db")) as ledger:
        counted = "SELECT files FROM run_tallies WHERE run_id = (SELECT max(id) FROM runs) AND outcome = 'classified'"
        assert ledger.execute(counted).fetchall() == [(3,)]
    assert cli(command[0], "m.yaml", *command[1:]).returncode == 0
    assert len(api.jobs) == (3 if "--file" in command else 2)


def test_a_retry_of_rows_that_are_all_there_sends_nothing(cli: Cli, serve: Serve) -> None:
    """Nor does it with other settings, which nobody needs any more."""
    api = Late()
    api.rows = lambda _, __, ___: []
    cli.use(serve(api))
    cli.manifest("f1", "f2", size=1)
    assert cli("run", "m.yaml").returncode == 1
    api.rows = lambda _, __, rows: rows
    done = cli("retry", "m.yaml", "--mode", "MULTIMODAL", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["classified"], told["jobs_created"]) == (0, 2, 0), done
    assert len(api.jobs) == 2


def test_a_retry_asks_in_vain_where_the_rows_are_still_lacking(cli: Cli, serve: Serve) -> None:
    """Or where they can't be read: a person has asked for the files to be sent."""
    api = Late()
    api.rows = lambda _, __, ___: []
    cli.use(serve(api))
    cli.manifest("f1", size=1)
    assert cli("run", "m.yaml").returncode == 1
    api.rows = lambda job_id, _, rows: 500 if job_id == "job-0" else rows
    assert cli("retry", "m.yaml", ORCHESTRATOR_RETRY_BUDGET_S="1").returncode == 0
    assert list(api.jobs.values()) == [["f1"], ["f1"]]


def test_late_rows_give_way_to_a_person(cli: Cli, serve: Serve) -> None:
    """A file that somebody has decided about is not asked for again."""
    api = Late()
    api.rows = lambda _, __, ___: []
    server = serve(api)
    cli.use(server)
    cli.manifest("f1")
    assert cli("run", "m.yaml").returncode == 1
    assert cli("accept", "m.yaml", "--file", "f1", "--type", "receipt").returncode == 0
    api.rows = lambda _, __, rows: rows
    asked = len(server.seen)
    assert cli("run", "m.yaml").returncode == 0
    assert len(server.seen) == asked
    assert [row["type"] for row in cli.exported()] == ["receipt"]


def test_a_run_with_nothing_else_to_do_does_not_fail_by_an_api_that_is_away(cli: Cli, serve: Serve) -> None:
    """The late rows are asked for once, and left to a later run."""
    api = Partly()
    api.result = None
    server = serve(api)
    cli.use(server)
    cli.manifest("f1", size=1)
    assert cli("run", "m.yaml").returncode == 1
    statuses = [401, 503]
    api.down = lambda _: statuses[0]
    while statuses:
        asked = len(server.seen)
        done = cli("run", "m.yaml", "--json")
        assert (done.returncode, len(server.seen) - asked) == (1, 1), done.stderr
        statuses.pop(0)


def test_a_clock_that_was_put_right_between_two_runs_does_not_end_the_wait(cli: Cli, serve: Serve) -> None:
    """Rows that are late by the clock alone are asked for again before they count as missing."""
    api = Late()
    cli.use(serve(api))
    cli.manifest("f1")
    assert cli("run", "m.yaml", "--no-wait").returncode == 3
    with Ledger(cli.folder / "ledger.db") as ledger, ledger.transaction() as connection:
        jobs.note(connection, 1, LATE, "no rows", at="2026-01-01T00:00:00+00:00")
    api.rows = lambda _, before, rows: rows if before else []
    assert cli("run", "m.yaml", ORCHESTRATOR_LATE_RESULTS_S="600").returncode == 0
    assert [row["outcome"] for row in cli.exported()] == ["classified"]


@pytest.mark.parametrize(("status", "without"), [("ERROR", "failed"), ("CANCELLED", "cancelled")])
def test_rows_of_a_job_that_ended_badly_may_be_refused_at_first(
    cli: Cli, serve: Serve, status: str, without: str
) -> None:
    """Such a job may have rows; at the first 404 its files counted as failed or cancelled for ever."""
    api = Late()
    api.status = status
    api.rows = lambda _, before, rows: 404 if before < 2 else rows[:1]
    cli.use(serve(api))
    cli.manifest("f1", "f2")
    cli("run", "m.yaml", ORCHESTRATOR_LATE_RESULTS_S="60")
    assert {row["file_id"]: row["outcome"] for row in cli.exported()}["f1"] == "classified"


@pytest.mark.long
def test_results_that_always_fail_keep_no_other_job_waiting(cli: Cli, serve: Serve) -> None:
    """More such jobs than there are readers: all others are collected, and the run's end says which are left."""
    api = Late()
    api.rows = lambda job_id, _, rows: 500 if int(job_id[4:]) < 40 else rows
    cli.use(serve(api))
    cli.manifest(*(f"f{number}" for number in range(43)), size=1)
    done = cli("run", "m.yaml", "--json", ORCHESTRATOR_RETRY_BUDGET_S="16")
    summary = json.loads(done.stdout)
    assert (done.returncode, summary["classified"], summary["unfinished"]) == (3, 3, 40)
    assert "job-" in summary["reason"] and "500" in summary["reason"]


def test_a_result_of_v2_that_is_not_there_yet_is_waited_for(cli: Cli, serve: Serve) -> None:
    """COMPLETED with ``result: null`` is a result to come; it was taken for a failure at the first look."""
    looks: list[str] = []

    class NotYet(one_by_one.OneByOne):
        def _told(self, job_id: str) -> dict[str, Json]:
            looks.append(job_id)
            return {**super()._told(job_id), **({"result": None} if len(looks) < 4 else {})}

    api = NotYet()
    cli.use(serve(api))
    one_by_one.manifest(cli, "f1")
    done = cli("run", "m.yaml", ORCHESTRATOR_LATE_RESULTS_S="60")
    assert done.returncode == 0, done.stderr


def test_a_result_of_v2_that_never_comes_is_missing(cli: Cli, serve: Serve) -> None:
    """The job has not failed: nothing says so."""

    class Never(one_by_one.OneByOne):
        def _told(self, job_id: str) -> dict[str, Json]:
            return {**super()._told(job_id), "result": None}

    cli.use(serve(Never()))
    one_by_one.manifest(cli, "f1")
    assert cli("run", "m.yaml").returncode == 1
    assert [row["outcome"] for row in cli.exported()] == ["missing"]


@pytest.mark.parametrize("listed", [False, True])
def test_a_result_of_v2_is_not_missing_while_the_job_is_denied(cli: Cli, serve: Serve, listed: bool) -> None:
    """No look since the first was answered: that the wait was long says nothing. The list may have it meanwhile."""

    class Denies(one_by_one.OneByOne):
        denies, looks = True, 0

        async def __call__(self, request: web.Request) -> web.StreamResponse:
            self.looks += request.method == "GET" and bool(self.jobs)
            by_name = not request.path.endswith("/classify") or not listed
            if self.denies and self.looks > 1 and request.method == "GET" and by_name:
                return web.json_response({"detail": "no such job"}, status=404)
            return await super().__call__(request)

        def _told(self, job_id: str) -> dict[str, Json]:
            job = super()._told(job_id)
            return {**job, "result": None} if self.denies and not (listed and self.looks > 2) else job

    api = Denies()
    cli.use(serve(api))
    one_by_one.manifest(cli, "f1")
    done = cli("run", "m.yaml", "--json")
    assert (done.returncode, json.loads(done.stdout)["missing"]) == (0 if listed else 3, 0), done.stderr
    api.denies = False
    assert cli("run", "m.yaml").returncode == 0
    assert len(api.jobs) == 1


class Partly(Classify):
    """A part of it is down: *down* says with which status a request is refused; rows of the list can be odd.

    *gone*: jobs that it no longer has.
    """

    def __init__(self) -> None:
        super().__init__()
        self.down: Callable[[web.Request], int | None] = lambda _: None
        self.gone: set[str] = set()
        self.first_row: Json = None

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if (status := self.down(request)) is not None:
            return web.json_response({"detail": "not today"}, status=status)
        if self.gone & set(request.path.split("/")):
            return web.json_response({"detail": "no such job"}, status=404)
        answer = await super().__call__(request)
        if is_list(request):
            assert isinstance(answer, web.Response)
            items = [item for item in json.loads(answer.text or "")["items"] if item["id"] not in self.gone]
            odd = [] if self.first_row is None else [{**self._job("job-0"), "id": self.first_row}]
            return web.json_response({"items": [*odd, *items]})
        return answer


def is_list(request: web.Request) -> bool:
    return request.method == "GET" and request.path.endswith("/jobs")


@pytest.mark.parametrize("status", [404, 405, 422, 500])
def test_jobs_are_collected_while_only_their_list_is_down(cli: Cli, serve: Serve, status: int) -> None:
    """One create call goes unanswered: it alone is left to a later run, exit 3."""
    api = Partly()
    lost: list[bool] = []

    def down(request: web.Request) -> int | None:
        if request.method == "POST" and len(api.jobs) == 2 and not lost:
            lost.append(True)
            return 500
        return status if is_list(request) and lost else None

    api.down = down
    cli.use(serve(api))
    cli.manifest(*(f"f{number}" for number in range(50)), size=1)
    done = cli("run", "m.yaml", "--json", ORCHESTRATOR_RETRY_BUDGET_S="3", ORCHESTRATOR_STALE_S="600")
    summary = json.loads(done.stdout)
    assert (done.returncode, summary["classified"], summary["unfinished"]) == (3, 49, 1), done.stderr
    assert "list of jobs is refused" in summary["reason"]


def test_a_row_of_the_list_with_an_odd_id_costs_no_other_its_news(cli: Cli, serve: Serve) -> None:
    """It may be any job, so an unanswered create call is held, and not sent again."""
    api = Partly()
    api.first_row = 12345
    lost: list[bool] = []

    def down(request: web.Request) -> int | None:
        if request.method == "POST" and len(api.jobs) == 1 and not lost:
            lost.append(True)
            return 500
        return None

    api.down = down
    cli.use(serve(api))
    cli.manifest("a", "b", "c", size=1)
    done = cli("run", "m.yaml", "--json")
    summary = json.loads(done.stdout)
    assert (done.returncode, summary["classified"], summary["unfinished"]) == (3, 2, 1), done.stderr
    assert "needs a person" in summary["reason"]


def test_a_job_that_the_api_has_no_longer_is_missing(cli: Cli, serve: Serve) -> None:
    """Once it was denied on two runs, far enough apart, while the API answers for another: ``retry`` sends it."""
    api = Partly()
    api.status = "PENDING"
    cli.use(serve(api))
    cli.manifest("a", "b", size=1)
    assert cli("run", "m.yaml", "--no-wait").returncode == 3
    api.status = "SUCCESS"
    api.gone = {"job-1"}
    gone = {"ORCHESTRATOR_GONE_S": "0.5"}
    assert cli("run", "m.yaml", **gone).returncode == 3
    time.sleep(0.6)
    done = cli("run", "m.yaml", "--json", **gone)
    summary = json.loads(done.stdout)
    assert (done.returncode, summary["missing"]) == (1, 1), done.stderr
    assert summary["failed_files"][0]["error"] == "the API no longer has job job-1"
    assert cli("retry", "m.yaml").returncode == 0


@pytest.mark.parametrize("late", [False, True])
def test_a_job_that_is_denied_by_name_is_read_where_the_list_shows_it(cli: Cli, serve: Serve, late: bool) -> None:
    """Its results are there for the asking, and a moment later where they are late; each night left it to the next."""
    api, asked = Partly(), 0

    def down(request: web.Request) -> int | None:
        nonlocal asked
        asked += request.path.endswith("/results")
        by_name = request.method == "GET" and not is_list(request) and not request.path.endswith("/results")
        return 404 if by_name or (late and asked == 1) else None

    api.down = down
    cli.use(serve(api))
    cli.manifest("a", "b")
    done = cli("run", "m.yaml", ORCHESTRATOR_LATE_RESULTS_S="30")
    assert done.returncode == 0, done.stderr
    assert set(api.jobs) == {"job-0"}


def test_a_job_that_nothing_shows_to_be_of_this_project_stays_open(cli: Cli, serve: Serve) -> None:
    """The key may be another project's: then no job is gone."""
    api = Partly()
    api.status = "PENDING"
    cli.use(serve(api))
    cli.manifest("a")
    assert cli("run", "m.yaml", "--no-wait").returncode == 3
    api.gone = {"job-0"}
    for _ in range(2):
        done = cli("run", "m.yaml", "--json", ORCHESTRATOR_GONE_S="0")
        assert done.returncode == 3
    assert "nothing shows that the key is of the same project" in json.loads(done.stdout)["reason"]


def test_a_row_that_names_another_job_is_not_taken(cli: Cli, serve: Serve) -> None:
    """Not even where our own row has no result: it was taken for a contradiction, or for the answer."""
    api = Late()
    other = {"type": "receipt", "confidence": 0.8, "reasoning": ""}
    api.rows = lambda _, __, rows: [*rows, {"id": "x", "classify_job_id": "another", "file_id": "f1", "result": other}]
    cli.use(serve(api))
    cli.manifest("f1")
    assert cli("run", "m.yaml").returncode == 0
    assert [row["type"] for row in cli.exported()] == ["invoice"]
