"""What `cancel` and `retry` ask the API to stop, and that nothing is sent again beside a job that goes on."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.commands import OUTAGE, Classify, Cli, Serve, command_line
from support.one_by_one import Fate, OneByOne, manifest

from orchestrator.models import Json


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    with command_line(tmp_path) as cli:
        manifest(cli, "a", "b", "c")
        yield cli


@pytest.fixture
def api(cli: Cli, serve: Serve) -> OneByOne:
    """Two jobs that ended, and one that does not, for too long already."""
    api = OneByOne()
    cli.use(serve(api))
    api.stuck = {"b"}
    assert cli("run", "m.yaml", ORCHESTRATOR_STALE_S="0.01").returncode == 3
    with closing(sqlite3.connect(cli.folder / "ledger.db")) as connection, connection:
        connection.execute("UPDATE jobs SET submitted_at = '2026-01-01T00:00:00.000+00:00' WHERE status = 'running'")
    return api


def shown(cli: Cli, *options: str) -> dict[str, Json]:
    return dict(json.loads(cli("retry", "m.yaml", *options, "--dry-run", "--json").stdout))


def history(cli: Cli) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in cli("export", "--history").stdout.splitlines()]
    return sorted((row["file_id"], row["outcome"]) for row in rows)


@pytest.mark.parametrize("options", [(), ("--file", "b"), ("--outcome", "cancelled")])
def test_a_stuck_job_is_cancelled_before_its_file_is_sent_again(
    cli: Cli, api: OneByOne, options: tuple[str, ...]
) -> None:
    """A dry run says so and does nothing; then the one job is cancelled, and only its file is sent."""
    found = shown(cli, *options)
    assert (found["files"], found["cancelled_first"], found["file_ids"]) == (1, 1, ["b"])
    assert found["ceiling"]["sum"] == found["ceiling"]["chosen"] == {"files": 1, "credits": 5}
    assert api.cancels == []
    api.on_cancel = api.stop_and_mend
    assert cli("retry", "m.yaml", *options).returncode == 0
    assert api.bought == Counter("abcb")
    assert history(cli) == [("a", "classified"), ("b", "cancelled"), ("b", "classified"), ("c", "classified")]


@pytest.mark.parametrize("options", [("--outcome", "failed"), ("--below-confidence", "0.5"), ("--file", "a")])
def test_a_stuck_job_that_the_retry_does_not_name_goes_on(cli: Cli, api: OneByOne, options: tuple[str, ...]) -> None:
    """What asks for a result of some kind does not mean a file that has none."""
    cli("retry", "m.yaml", *options)
    assert (api.cancels, api.bought["b"]) == ([], 1)


def test_a_job_that_is_young_is_not_cancelled(cli: Cli, api: OneByOne) -> None:
    """It may end at any moment."""
    assert shown(cli, "--file", "b")["cancelled_first"] == 1
    cli("retry", "m.yaml", "--file", "b", "--deadline", "1s", ORCHESTRATOR_STALE_S="100000000")
    assert (api.cancels, api.bought["b"]) == ([], 1)


def test_a_job_that_had_ended_meanwhile_is_not_paid_again(cli: Cli, api: OneByOne) -> None:
    """The API refuses to cancel it; its result is taken, although the file is named."""
    api.stuck.clear()
    api.on_cancel = lambda _job: 409
    assert cli("retry", "m.yaml", "--file", "b").returncode == 0
    assert (api.bought, history(cli)) == (Counter("abc"), [(file_id, "classified") for file_id in "abc"])


@pytest.mark.parametrize("fate", [404, 409])
def test_a_job_that_can_not_be_cancelled_is_left_and_its_file_not_sent(cli: Cli, api: OneByOne, fate: Fate) -> None:
    """And whoever asked is told so."""
    api.on_cancel = lambda _job: fate
    done = cli("retry", "m.yaml", "--file", "b", "--json", ORCHESTRATOR_STALE_S="1")
    assert done.returncode == 3
    assert "could not be cancelled, so its file was not sent again" in json.loads(done.stdout)["reason"]
    assert api.bought == Counter("abc")


def test_a_cancel_without_an_answer_sends_nothing(cli: Cli, api: OneByOne) -> None:
    """The API can't be reached: the retry has not begun."""
    api.on_cancel = lambda _job: 503
    assert cli("retry", "m.yaml", **OUTAGE).returncode == 7
    assert api.bought == Counter("abc")


def test_a_cancel_whose_answer_is_lost_is_found_out_about(cli: Cli, api: OneByOne) -> None:
    """It is asked again, refused, and looked at: it was cancelled."""

    def lose_first(job: dict[str, Json]) -> Fate:
        if job.get("cancelled"):
            return 409
        api.stop_and_mend(job)
        return "lose answer"

    api.on_cancel = lose_first
    assert cli("retry", "m.yaml").returncode == 0
    assert api.bought == Counter("abcb")


def test_a_cancel_that_takes_its_time_is_waited_for_no_longer_than_the_settle_time(cli: Cli, api: OneByOne) -> None:
    """The API says yes and goes on: the file waits for the job's end."""
    api.on_cancel = lambda _job: None
    assert cli("retry", "m.yaml", ORCHESTRATOR_STALE_S="1").returncode == 3
    assert (len(api.cancels), api.bought) == (1, Counter("abc"))


def test_a_v1_job_can_not_be_cancelled(cli: Cli, serve: Serve) -> None:
    """Both commands say so, and nothing is sent again."""
    api = Classify()
    api.status = "PENDING"
    cli.use(serve(api))
    cli.manifest("a", "b")
    assert cli("run", "m.yaml", "--no-wait").returncode == 3
    found = json.loads(cli("retry", "m.yaml", "--dry-run", "--json", ORCHESTRATOR_STALE_S="0.01").stdout)
    assert (found["files"], found["cannot_cancel"]) == (0, 2)
    assert "v1 has no call to cancel" in cli("retry", "m.yaml", "--dry-run", ORCHESTRATOR_STALE_S="0.01").stdout
    done = cli("retry", "m.yaml", "--json", ORCHESTRATOR_STALE_S="0.01")
    assert "v1 has no call to cancel" in json.loads(done.stdout)["reason"]
    assert "v1 jobs, which can't be cancelled" in cli("cancel", "m.yaml").stdout
    assert (done.returncode, len(api.jobs)) == (3, 1)


class Stuck(Classify):
    """Its first job stays pending until it ``ends``."""

    ends = False

    def _job(self, job_id: str) -> dict[str, Json]:
        return super()._job(job_id) | ({} if self.ends or job_id != "job-0" else {"status": "PENDING"})


@pytest.fixture
def stuck(cli: Cli, serve: Serve) -> Stuck:
    """A v1 API with a job of two files that has been pending for too long."""
    stuck = Stuck()
    cli.use(serve(stuck))
    cli.manifest("a", "b")
    assert cli("run", "m.yaml", "--no-wait").returncode == 3
    cli.environ["ORCHESTRATOR_STALE_S"] = "0.01"
    return stuck


def test_a_person_sends_the_files_of_a_stale_v1_job_once_more(cli: Cli, stuck: Stuck) -> None:
    """``retry --held`` says what it costs, sends them once, and is not 3 for ever for the job that never ends."""
    told = json.loads(cli("retry", "m.yaml", "--held", "--dry-run", "--json").stdout)
    assert (told["files"], told["credits_ceiling"], told["cannot_cancel"], told["file_ids"]) == (2, 10, 0, ["a", "b"])
    done = cli("retry", "m.yaml", "--held", "--json")
    assert (done.returncode, json.loads(done.stdout)["classified"]) == (0, 2), done
    assert list(stuck.jobs.values()) == [["a", "b"], ["a", "b"]]
    assert cli("retry", "m.yaml", "--held").returncode == 0
    assert cli("run", "m.yaml").returncode == 0
    assert len(stuck.jobs) == 2


@pytest.mark.parametrize("second", [None, {"type": None, "confidence": 0.5, "reasoning": "no rule"}])
def test_a_late_result_of_a_stale_job_is_still_taken_in(cli: Cli, stuck: Stuck, second: Json) -> None:
    """It counts where the second call came to nothing; beside a good result it is only recorded."""
    stuck.result = second
    assert cli("retry", "m.yaml", "--held").returncode == (1 if second is None else 0)
    stuck.ends = True
    assert cli("run", "m.yaml").returncode == 0
    assert {row["outcome"] for row in cli.exported()} == {"classified" if second is None else "unmatched"}
    assert cli.state()["classified"] == (2 if second is None else 0)
    history = [json.loads(line) for line in cli("export", "--history").stdout.splitlines()]
    assert [row["type"] for row in history if row["job_id"] == "job-0"] == ["invoice", "invoice"]
    assert len(stuck.jobs) == 2


def test_retry_held_of_one_file_sends_no_other_of_the_stale_job(cli: Cli, stuck: Stuck) -> None:
    """The other one stays with the job, and the run is unfinished."""
    done = cli("retry", "m.yaml", "--held", "--file", "b")
    assert (done.returncode, list(stuck.jobs.values())[1:]) == (3, [["b"]])
    assert cli("retry", "m.yaml", "--held").returncode == 0
    assert list(stuck.jobs.values())[2:] == [["a"]]


def test_the_price_of_a_stale_jobs_files_is_limited_too(cli: Cli, stuck: Stuck) -> None:
    """``retry --held`` over the limit sends nothing."""
    with (cli.folder / "m.yaml").open("a") as manifest:
        manifest.write("limits: {max_credits: 9}\n")
    assert cli("retry", "m.yaml", "--held").returncode == 6
    assert len(stuck.jobs) == 1


def test_a_verdict_ends_the_wait_for_a_job_that_never_ends(cli: Cli, stuck: Stuck) -> None:
    """The job is looked at by later runs all the same, and what it says then does not count."""
    done = cli("accept", "m.yaml", "--file", "a", "--file", "b")
    assert (done.returncode, "has no outcome yet: say --type or --unmatched" in done.stderr) == (2, True)
    assert cli("accept", "m.yaml", "--file", "a", "--file", "b", "--type", "receipt").returncode == 0
    assert cli("run", "m.yaml").returncode == 0
    stuck.ends = True
    assert cli("run", "m.yaml").returncode == 0
    assert {row["type"] for row in cli.exported()} == {"receipt"}
    assert len(stuck.jobs) == 1


def test_a_file_with_a_verdict_is_no_longer_unfinished_though_its_job_goes_on(cli: Cli, stuck: Stuck) -> None:
    """A run counts as ``status`` does: only the other file of the job."""
    assert cli("accept", "m.yaml", "--file", "a", "--type", "receipt").returncode == 0
    done = cli("run", "m.yaml", "--no-wait", "--json")
    assert (done.returncode, json.loads(done.stdout)["unfinished"], cli.state()["unfinished"]) == (3, 1, 1)


def test_cancel_stops_what_is_in_flight_and_a_retry_sends_it(cli: Cli, api: OneByOne) -> None:
    """Nothing is marked failed, and what had ended meanwhile keeps its result."""
    manifest(cli, "a", "b", "c", "d")
    api.stuck.add("d")
    cli("run", "m.yaml", "--no-wait")
    api.stuck.discard("d")
    api.on_cancel = lambda job: api.stop_and_mend(job) if job["file_input"] == "b" else 409
    found = json.loads(cli("cancel", "m.yaml", "--json").stdout)
    assert (found["in_flight"], found["cancelled"], found["ended_before"]) == (2, 1, 1)
    assert {row["file_id"]: row["outcome"] for row in cli.exported()}["b"] == "cancelled"
    assert cli("retry", "m.yaml").returncode == 0
    assert api.bought == {"a": 1, "b": 2, "c": 1, "d": 1}
