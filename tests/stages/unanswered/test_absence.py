"""Unanswered v1 create calls against APIs that list, echo and date jobs in ways that nobody promised: nothing is bought
twice, and what can't be known is held for a person."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from support import one_by_one
from support.commands import Cli, Serve, command_line
from support.one_by_one import Fate, OneByOne

from orchestrator.models import Json

START = datetime(2026, 11, 25, 2, tzinfo=UTC)
RESULT = {"type": "invoice", "confidence": 0.9, "reasoning": "has a total"}

Told = dict[str, Json]


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    with command_line(tmp_path) as cli:
        # On a loaded machine the other calls, by whose jobs a listing is checked, take longer than a tenth of a second.
        cli.environ["ORCHESTRATOR_SETTLE_S"] = "1"
        cli.manifest("a", "b", "c", size=1)
        yield cli


async def _at_once(_: object) -> None:
    pass


class Project:
    """A v1 API and all that it holds. Jobs end at once, those of others too, unless their status says otherwise."""

    def __init__(self) -> None:
        self.jobs: list[Told] = []
        self.files: dict[str, list[str]] = {}
        self.asked: dict[str, list[str]] = {}  #: our jobs -> the files that they were asked for
        self.bought: Counter[str] = Counter()
        self.lost: set[int] = set()  #: create calls, by number, whose answer is lost
        self.unmade: set[int] = set()  #: those that fail and make nothing
        self.instead: dict[int, str] = {}  #: those that are answered with another job
        self.failed: set[str] = set()  #: jobs without a result for any file
        self.null: set[tuple[str, str]] = set()  #: (job, file) without a result
        self.hidden: set[tuple[str, str]] = set()  #: (job, file) without a row in the results
        self.nameless = False  #: no row names its file
        self.by_name = True  #: False: the call for one job says 404, whichever it is
        self.echo: Callable[[Told], Told] = lambda job: job
        self.shown: Callable[[list[Told]], list[Told]] = lambda jobs: jobs
        self.page_size = 1000
        self.list_takes_s = 0.0
        self.creates = 0
        self.most_at_once = 0
        self.results_read: list[str] = []
        self.before_results: Callable[[str], Awaitable[None]] = _at_once
        self.before_answer: Callable[[int], Awaitable[None]] = _at_once
        self._out = 0

    def add(self, name: str, files: list[str], *, hours: float = 0.0, status: str = "SUCCESS", **body: Json) -> None:
        """A job of *files* that is dated *hours* from now."""
        at = (START + timedelta(hours=hours, milliseconds=len(self.jobs))).isoformat()
        self.files[name] = files
        self.jobs.append({"id": name, "status": status, "project_id": "p", "user_id": "u", "created_at": at, **body})

    def others(self, count: int, *, hours: float = -2.0, status: str = "SUCCESS") -> None:
        """Jobs of a colleague with the manifest's very rules."""
        for n in range(count):
            self.add(f"theirs-{n}", [f"their-file-{n}"], hours=hours, status=status, **ASKED)

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        parts = request.path.removeprefix("/api/v1/classifier/jobs").strip("/").split("/")
        if request.method == "POST":
            return await self._create(request)
        if parts == [""]:
            await asyncio.sleep(self.list_takes_s)
            start, size = int(request.query.get("page_token", "0")), self.page_size
            jobs = self.shown([self.echo(dict(job)) for job in self.jobs])
            token = str(start + size) if start + size < len(jobs) else None
            return web.json_response({"items": jobs[start : start + size], "next_page_token": token})
        if parts[1:] == ["results"]:
            self.results_read.append(parts[0])
            await self.before_results(parts[0])
            null = self.null | {(parts[0], file_id) for file_id in self.files[parts[0]] if parts[0] in self.failed}
            rows = [
                {
                    "file_id": None if self.nameless else file_id,
                    "result": None if (parts[0], file_id) in null else RESULT,
                }
                for file_id in self.files[parts[0]]
                if (parts[0], file_id) not in self.hidden
            ]
            return web.json_response({"items": rows})
        told = self._told(parts[0]) if self.by_name else None
        return told or web.json_response({"detail": "Classify job not found"}, status=404)

    async def _create(self, request: web.Request) -> web.StreamResponse:
        number, body = self.creates, await request.json()
        self.creates += 1
        self._out += 1
        self.most_at_once = max(self.most_at_once, self._out)
        await asyncio.sleep(0.05)
        self._out -= 1
        if number in self.unmade:
            return web.json_response({"detail": "no"}, status=500)
        self.bought.update(body["file_ids"])
        self.asked[f"job-{number}"] = body["file_ids"]
        self.add(f"job-{number}", body.pop("file_ids"), **body)
        if number in self.lost:
            return web.json_response({"detail": "lost"}, status=502)
        await self.before_answer(number)
        return self._told(self.instead.get(number, f"job-{number}")) or web.json_response({"id": self.instead[number]})

    def _told(self, name: str) -> web.Response | None:
        job = next((self.echo(dict(job)) for job in self.jobs if job["id"] == name), None)
        return None if job is None else web.json_response(job)


#: What the manifest of these tests asks.
ASKED: Told = {
    "rules": [
        {"type": "invoice", "description": "contains line items and a total"},
        {"type": "receipt", "description": "proof of a payment that was made"},
    ],
    "mode": "FAST",
    "parsing_configuration": {"lang": "en", "max_pages": 5},
}
OTHERS_RULES: Told = {**ASKED, "rules": [{"type": "other", "description": "what somebody else asks"}]}


@pytest.fixture
def api(cli: Cli, serve: Serve) -> Project:
    project = Project()
    cli.use(serve(project))
    return project


def files_of_jobs(cli: Cli, api: Project) -> dict[str, list[str]]:
    """File -> all that was asked of the job its outcome is from. Which call comes first is not up to the program."""
    return {str(row["file_id"]): api.asked[str(row["job_id"])] for row in cli.exported()}


def without(*names: str) -> Callable[[Told], Told]:
    return lambda job: {name: value for name, value in job.items() if name not in names}


def parsing(**changes: Json) -> Callable[[Told], Told]:
    return lambda job: {**job, "parsing_configuration": {**(job.get("parsing_configuration") or {}), **changes}}


def descriptions(change: Callable[[str], str]) -> Callable[[Told], Told]:
    return lambda job: {
        **job,
        "rules": [{**rule, "description": change(rule["description"])} for rule in job.get("rules") or []],
    }


ECHOES: dict[str, Callable[[Told], Told]] = {
    "without rules": without("rules"),
    "no rules at all": lambda job: {**job, "rules": []},
    "without mode": without("mode"),
    "without parsing_configuration": without("parsing_configuration"),
    "mode in small letters": lambda job: {**job, "mode": str(job.get("mode")).lower()},
    "a mode of its own": lambda job: {**job, "mode": "STANDARD"},
    "max_pages null": parsing(max_pages=None),
    "lang as a list": parsing(lang=["en"]),
    "other white space": descriptions(lambda text: f" {text.replace(' ', '  ')}\n"),
    "descriptions cut short": descriptions(lambda text: text[:9]),
    "rules in another order": lambda job: {**job, "rules": (job.get("rules") or [])[::-1]},
}


@pytest.mark.parametrize("name", ECHOES)
def test_an_echo_in_other_words_makes_no_job_absent(cli: Cli, api: Project, name: str) -> None:
    """The job of a lost answer was once taken for another's, and its file bought again."""
    api.echo = ECHOES[name]
    api.lost = {1}
    done = cli("run", "m.yaml")
    assert api.bought == {"a": 1, "b": 1, "c": 1}
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("page_size", [1, 2])
def test_a_listing_is_read_to_its_end_whatever_its_order(cli: Cli, api: Project, page_size: int) -> None:
    """Others' jobs first, from new to old: reading once ended there, and the rest was taken for absent."""
    api.others(3)
    api.page_size = page_size
    api.lost = {1}
    assert cli("run", "m.yaml").returncode == 0
    assert api.bought == {"a": 1, "b": 1, "c": 1}


@pytest.mark.parametrize("hours", [0.4, 24])
def test_a_job_of_others_that_is_dated_ahead_hides_no_job(cli: Cli, api: Project, hours: float) -> None:
    """Everything made since seems to be older than the newest job of before."""
    api.others(1, hours=hours)
    api.lost = {0, 2}
    assert cli("run", "m.yaml").returncode == 0
    assert api.bought == {"a": 1, "b": 1, "c": 1}


def test_a_clock_that_is_put_right_between_two_runs_hides_no_job(cli: Cli, api: Project) -> None:
    """The first run's jobs are dated an hour ahead of the second's."""
    cli.manifest("a", size=1)
    assert cli("run", "m.yaml").returncode == 0
    api.jobs[0]["created_at"] = (START + timedelta(hours=1)).isoformat()
    cli.manifest("a", "b", "c", size=1)
    api.lost = {1}
    assert cli("run", "m.yaml").returncode == 0
    assert api.bought == {"a": 1, "b": 1, "c": 1}


def test_a_listing_without_the_jobs_that_are_known_proves_nothing(cli: Cli, api: Project) -> None:
    """The call is held, with words; a later listing that is whole settles it, and nothing was bought twice."""
    api.lost = {1}
    api.shown = lambda jobs: [job for job in jobs if str(job["id"]).startswith("theirs")]
    api.others(1)
    done = cli("run", "m.yaml")
    assert (done.returncode, api.bought) == (3, {"a": 1, "b": 1, "c": 1})
    assert "that proves nothing" in " ".join(cli("status", "m.yaml").stdout.split())
    api.shown = lambda jobs: jobs
    assert cli("run", "m.yaml").returncode == 0
    assert api.bought == {"a": 1, "b": 1, "c": 1}


def test_a_listing_that_is_cut_short_proves_nothing(cli: Cli, api: Project) -> None:
    """It shows the first jobs of the project, and no later one."""
    api.others(5)
    api.lost = {1}
    api.shown = lambda jobs: jobs[:6]
    assert cli("run", "m.yaml").returncode == 3
    assert api.bought == {"a": 1, "b": 1, "c": 1}


def test_what_really_is_absent_is_sent_again(cli: Cli, api: Project) -> None:
    """The listing shows the jobs made just before and after the call, and none of its own."""
    api.others(2)
    api.unmade = {1}
    assert cli("run", "m.yaml").returncode == 0
    assert (api.creates, api.bought) == (4, {"a": 1, "b": 1, "c": 1})


def test_the_calls_of_a_new_ledger_go_one_by_one_until_one_is_answered(cli: Cli, api: Project) -> None:
    """There is nothing yet to check a listing by; from then on they go side by side."""
    cli.manifest(*"abcdefgh", size=1)
    api.unmade = {0, 1}
    at_once: list[int] = []
    create = api._create

    async def counting(request: web.Request) -> web.StreamResponse:
        answer = await create(request)
        at_once.append(api.most_at_once)
        return answer

    api._create = counting  # type: ignore[method-assign]  # the server's own count of calls that are out
    assert cli("run", "m.yaml").returncode == 0
    assert at_once[:3] == [1, 1, 1]
    assert api.most_at_once > 1
    assert set(api.bought.values()) == {1}


@pytest.mark.parametrize("made", [True, False])
def test_a_first_call_without_an_answer_is_never_sent_again_by_itself(cli: Cli, api: Project, made: bool) -> None:
    """Where nothing known is listed, nothing follows from the listing; a person decides."""
    cli.manifest("a")
    api.lost, api.unmade = ({0}, set()) if made else (set(), {0})
    api.shown = lambda jobs: []
    assert cli("run", "m.yaml").returncode == 3
    assert cli("run", "m.yaml").returncode == 3
    assert api.creates == 1
    api.shown = lambda jobs: jobs
    assert cli("run", "m.yaml").returncode == (0 if made else 3)
    if not made:
        assert cli("retry", "m.yaml", "--held").returncode == 0
    assert api.bought == {"a": 1}


def test_the_exact_set_of_files_wins(cli: Cli, api: Project) -> None:
    """A colleague's older job of some of the files was once adopted; our own was passed over, and paid for in vain."""
    cli.manifest("x", "a", "b", "c", size=1)
    assert cli("run", "m.yaml", "--no-wait").returncode == 3
    cli.manifest("x", "a", "b", "c", "d", "e", "f", size=3)
    api.add("theirs", ["d"], **ASKED)
    api.lost = {4}
    assert cli("run", "m.yaml").returncode == 0
    assert {name: api.bought[name] for name in "def"} == {"d": 1, "e": 1, "f": 1}
    assert {row["job_id"] for row in cli.exported() if row["file_id"] in "def"} == {"job-4"}


def test_a_job_of_some_of_the_files_is_taken_only_when_no_other_comes_and_never_in_silence(
    cli: Cli, api: Project
) -> None:
    """The API left rows out: it is our own job all the same."""
    cli.manifest("x", size=1)
    assert cli("run", "m.yaml").returncode == 0
    cli.manifest("x", "a", "b", size=2)
    api.lost = {1}
    started = api.add

    def add(name: str, files: list[str], **body: Json) -> None:
        started(name, files[:1], **body)

    api.add = add  # type: ignore[method-assign]  # results with one row only
    done = cli("run", "m.yaml", ORCHESTRATOR_LATE_RESULTS_S="1")
    assert done.returncode in (1, 3)
    assert "adopted_in_part" in done.stderr + done.stdout
    assert api.bought == {"x": 1, "a": 1, "b": 1}


def test_a_call_that_is_answered_with_anothers_job_is_settled_by_its_files(cli: Cli, api: Project) -> None:
    """Every run once ended with exit 9, and the files never had an outcome."""
    api.others(1, hours=0)
    api.instead = {1: "theirs-0"}
    assert cli("run", "m.yaml").returncode == 0
    assert api.bought == {"a": 1, "b": 1, "c": 1}
    assert files_of_jobs(cli, api) == {name: [name] for name in "abc"}


def test_a_call_that_is_answered_with_the_job_of_one_without_an_answer_proves_no_absence(
    cli: Cli, api: Project
) -> None:
    """The ledger took that job for known, found none of the other's in the list, and paid for its files again."""
    api.lost, api.instead = {0}, {1: "job-0"}
    reads = 0

    def pending_at_first(job: Told) -> Told:
        nonlocal reads
        reads += job["id"] == "job-0"
        return {**job, "status": "PENDING"} if job["id"] == "job-0" and reads < 15 else job

    api.echo = pending_at_first
    cli.manifest("w", "a", "b", "c", size=1)
    assert cli("run", "m.yaml").returncode == 0
    assert api.bought == {"w": 1, "a": 1, "b": 1, "c": 1}
    assert files_of_jobs(cli, api) == {name: [name] for name in "wabc"}


def test_of_two_jobs_of_some_of_its_files_the_one_with_more_good_answers_counts(cli: Cli, api: Project) -> None:
    """The older one was taken though it had failed, and what the other had answered was paid for again."""
    cli.manifest("x", size=1)
    assert cli("run", "m.yaml").returncode == 0
    api.unmade, api.failed = {1}, {"older"}
    for name in ("older", "newer"):
        api.add(name, ["a"], **ASKED)
    cli.manifest("x", "a", "b", size=2)
    assert cli("run", "m.yaml").returncode == 1
    assert {row["file_id"]: row["job_id"] for row in cli.exported()} == {"x": "job-0", "a": "newer", "b": "newer"}


def test_a_failed_job_goes_to_no_call_while_another_was_answered_with_what_may_be_its_own(
    cli: Cli, api: Project
) -> None:
    """There were as many failed jobs as unanswered calls, of which the one was named to a later call: w had a's failed
    job, and its own results were nobody's."""
    api.lost, api.instead = {0}, {1: "job-0"}
    reads = 0

    def told(job: Told) -> Told:
        nonlocal reads
        reads += job["id"] == "job-0"
        waits = job["id"] == "job-0" and reads < 25
        return {**job, "status": "PENDING" if waits else "ERROR" if job["id"] == "job-1" else job["status"]}

    async def without_rows(name: str) -> None:
        if name == "job-1":
            api.files[name] = []

    api.echo, api.before_results = told, without_rows
    cli.manifest("w", "a", "b", "c", size=1)
    assert cli("run", "m.yaml").returncode == 1
    assert api.bought == {"w": 1, "a": 1, "b": 1, "c": 1}
    assert files_of_jobs(cli, api) == {name: [name] for name in "wabc"}


def test_a_failed_job_goes_to_no_call_while_it_may_be_of_one_in_another_mode(cli: Cli, api: Project) -> None:
    """Echoes name no mode: a, asked in one mode, had the failed job of b, asked in another, and b was bought again."""

    def told(job: Told) -> Told:
        return {**without("mode")(job), "status": "ERROR" if job["id"] == "job-2" else job["status"]}

    async def without_rows(name: str) -> None:
        if name == "job-2":
            api.files[name] = []

    api.echo, api.before_results = told, without_rows
    api.unmade, api.lost = {1}, {2}
    cli.manifest("w", "a", size=1)
    api.shown = lambda _: []
    assert cli("run", "m.yaml").returncode == 3
    cli.manifest("b", size=1)
    manifest = cli.folder / "m.yaml"
    manifest.write_text(manifest.read_text() + "mode: MULTIMODAL\n")
    assert cli("run", "m.yaml").returncode == 3
    api.shown = lambda jobs: jobs
    assert cli("run", "m.yaml").returncode == 3
    assert api.bought == {"w": 1, "b": 1}
    assert cli("retry", "m.yaml", "--held").returncode == 0
    assert api.bought == {"w": 1, "a": 1, "b": 2}


def test_a_job_that_a_call_is_answered_with_while_its_results_are_read_is_not_adopted(cli: Cli, api: Project) -> None:
    """It would be two chunks' job: what it is shows when its results are read for the one that it was named to."""
    cli.manifest("x", size=1)
    assert cli("run", "m.yaml").returncode == 0
    api.lost, api.instead = {1}, {2: "job-1"}
    read, answered = asyncio.Event(), asyncio.Event()

    async def read_late(name: str) -> None:
        if name == "job-1":
            read.set()
            async with asyncio.timeout(60):
                await answered.wait()

    async def answered_first(number: int) -> None:
        if number == 2:
            await read.wait()
            asyncio.get_running_loop().call_later(0.5, answered.set)

    api.before_results, api.before_answer = read_late, answered_first
    cli.manifest("x", "w", "a", "b", size=1)
    assert cli("run", "m.yaml").returncode == 0
    assert api.bought == {"x": 1, "w": 1, "a": 1, "b": 1}
    assert files_of_jobs(cli, api) == {name: [name] for name in "xwab"}


def test_a_call_that_is_answered_with_a_job_that_the_api_denies_is_settled_by_its_files(cli: Cli, api: Project) -> None:
    """Its files once ended as missing while their own job was in the list, and a person's ``retry`` paid again."""
    api.instead = {1: "nobodys"}
    assert cli("run", "m.yaml").returncode == 3
    assert cli("run", "m.yaml", ORCHESTRATOR_GONE_S="0").returncode == 0
    assert api.bought == {"a": 1, "b": 1, "c": 1}
    assert files_of_jobs(cli, api) == {name: [name] for name in "abc"}


@pytest.mark.parametrize("by_name", [True, False])
def test_a_call_that_is_answered_with_a_job_that_never_ends_is_settled_by_its_files(
    cli: Cli, api: Project, by_name: bool
) -> None:
    """Night after night it was left to the next, and a person's ``retry`` bought what its own job had long had."""
    api.add("endless", ["their-file"], hours=-1, status="PENDING", **ASKED)
    api.instead, api.by_name = {1: "endless"}, by_name
    assert cli("run", "m.yaml", ORCHESTRATOR_STALE_S="2").returncode == 0
    assert api.bought == {"a": 1, "b": 1, "c": 1}
    assert files_of_jobs(cli, api) == {name: [name] for name in "abc"}


def test_a_job_that_was_there_before_the_call_is_not_its_own_though_no_row_names_a_file(cli: Cli, api: Project) -> None:
    """The one row of a colleague's job was taken for that of the one file, and the file had a wrong type for ever."""
    api.add("theirs", ["their-file"], hours=-1, **ASKED)
    api.instead, api.nameless = {1: "theirs"}, True
    assert cli("run", "m.yaml").returncode == 3
    (left,) = api.asked["job-1"]
    assert files_of_jobs(cli, api) == {name: [name] for name in {*"abc"} - {left}}
    api.nameless = False
    assert cli("run", "m.yaml").returncode == 0
    assert files_of_jobs(cli, api) == {name: [name] for name in "abc"}
    assert api.bought == {"a": 1, "b": 1, "c": 1}


def test_a_row_that_names_no_file_is_taken_where_the_job_is_from_after_the_call(cli: Cli, api: Project) -> None:
    """Each job has one file."""
    api.add("theirs", ["their-file"], hours=-1, **ASKED)
    api.nameless = True
    assert cli("run", "m.yaml").returncode == 0
    assert files_of_jobs(cli, api) == {name: [name] for name in "abc"}


@pytest.mark.parametrize("theirs", [["b", "d"], ["d"]])
def test_a_job_that_never_ends_keeps_its_chunk_while_no_other_has_just_its_results(
    cli: Cli, api: Project, theirs: list[str]
) -> None:
    """It may end yet: what it was asked for is not given up for a job of other files, or of more."""
    api.add("theirs", theirs, hours=1, **ASKED)
    api.echo = lambda job: {**job, "status": "PENDING"} if job["id"] == "job-1" else job
    done = cli("run", "m.yaml", "--json", ORCHESTRATOR_STALE_S="2")
    assert (done.returncode, json.loads(done.stdout)["reason"]) == (3, "stale: PENDING for over 2 s"), done.stderr
    api.echo = lambda job: job
    assert cli("run", "m.yaml").returncode == 0
    assert api.bought == {"a": 1, "b": 1, "c": 1}


def test_a_failed_job_goes_to_no_call_while_another_was_answered_with_a_job_that_the_api_denies(
    cli: Cli, api: Project
) -> None:
    """It is the other's: w had it, and its files were bought as halves of a job that was never made."""
    cli.manifest("x", size=1)
    assert cli("run", "m.yaml").returncode == 0
    api.unmade, api.instead = {1}, {2: "nobodys"}
    api.echo = lambda job: {**job, "status": "ERROR"} if job["id"] == "job-2" else job

    async def without_rows(name: str) -> None:
        if name == "job-2":
            api.files[name] = []

    api.before_results = without_rows
    cli.manifest("x", "w", "v", "a", "b", size=2)
    for gone_s in ("1000", "0"):
        assert cli("run", "m.yaml", ORCHESTRATOR_STALE_S="4", ORCHESTRATOR_GONE_S=gone_s).returncode == 3
    assert max(api.bought.values()) == 1
    assert not {"w", "v"} & {row["file_id"] for row in cli.exported()}


def test_a_denied_jobs_own_one_may_be_in_flight_as_anothers_answer(cli: Cli, api: Project) -> None:
    """Its file became missing, and a person's ``retry`` would have paid again, while that job was still running."""
    api.instead = {1: "nobodys", 2: "job-1"}
    left = 1000

    def pending(job: Told) -> Told:
        nonlocal left
        left -= job["id"] == "job-1"
        return {**job, "status": "PENDING"} if job["id"] == "job-1" and left > 0 else job

    api.echo = pending
    assert cli("run", "m.yaml", ORCHESTRATOR_STALE_S="1").returncode == 3
    left = 4
    for _ in range(2):
        done = cli("run", "m.yaml", ORCHESTRATOR_GONE_S="0")
    assert done.returncode == 0, done.stderr
    own = {file_id: name for name, files in api.files.items() for file_id in files}
    assert {row["file_id"]: row["job_id"] for row in cli.exported()} == own
    assert api.bought == {"a": 1, "b": 1, "c": 1}


def test_a_job_of_earlier_rules_whose_chunk_is_in_flight_is_not_adopted(cli: Cli, api: Project) -> None:
    """The API tells no rules, and had answered the earlier call with a job that it denies having."""
    cli.manifest("x", size=1)
    assert cli("run", "m.yaml").returncode == 0
    cli.manifest("x", "b", size=1)
    api.echo, api.instead, api.unmade = without("rules"), {1: "nobodys"}, {3}
    assert cli("run", "m.yaml").returncode == 3
    manifest = cli.folder / "m.yaml"
    manifest.write_text(manifest.read_text().replace("contains line items", "lists items"))
    assert cli("run", "m.yaml", "--reclassify", ORCHESTRATOR_CREATES_PER_S="4").returncode == 3
    assert api.bought == {"x": 2, "b": 1}
    assert {row["file_id"]: row["job_id"] for row in cli.exported()} == {"x": "job-2"}


def test_denied_jobs_do_not_wait_for_each_other(cli: Cli, api: Project) -> None:
    """Each was in flight for the other, and a run had no end."""
    assert cli("run", "m.yaml", "--no-wait").returncode == 3
    api.jobs = [job for job in api.jobs if job["id"] == "job-0"]
    assert cli("run", "m.yaml").returncode == 3
    assert cli("run", "m.yaml", ORCHESTRATOR_GONE_S="0").returncode == 1
    assert {row["file_id"]: row["outcome"] for row in cli.exported() if row["file_id"] != "a"} == dict.fromkeys(
        "bc", "missing"
    )


@pytest.mark.parametrize("own", [True, False], ids=["the other has its own", "the other has none"])
def test_a_job_that_was_anothers_answer_and_is_deleted_leaves_a_decision(cli: Cli, api: Project, own: bool) -> None:
    """It was the call's own: no list shows it any more, and the file was bought again."""
    cli.manifest("x", size=1)
    assert cli("run", "m.yaml").returncode == 0
    cli.manifest("x", "a", "b", "c", size=1)
    api.lost, api.instead = {1}, {2: "job-1"}
    api.echo = lambda job: {**job, "status": "PENDING"} if job["id"] == "job-1" else job
    assert cli("run", "m.yaml", ORCHESTRATOR_STALE_S="2").returncode == 3
    api.jobs = [job for job in api.jobs if job["id"] != "job-1" and (own or job["id"] != "job-2")]
    for _ in range(4):
        done = cli("run", "m.yaml", ORCHESTRATOR_STALE_S="2", ORCHESTRATOR_GONE_S="0")
    assert done.returncode == 3
    assert api.bought == {"x": 1, "a": 1, "b": 1, "c": 1}
    assert "may be this chunk's: job-1" in " ".join(cli("status", "m.yaml").stdout.split())


def test_absence_is_proved_while_jobs_are_in_flight_without_end(cli: Cli, api: Project) -> None:
    """Each look had others that later calls were answered with, and after the stale time a person had to decide."""
    cli.manifest("x", size=1)
    assert cli("run", "m.yaml").returncode == 0
    api.unmade = {1}
    made: dict[Json, float] = {}

    def pending_at_first(job: Told) -> Told:
        now = time.monotonic()
        return {**job, "status": "PENDING"} if now - made.setdefault(job["id"], now) < 1.5 else job

    api.echo = pending_at_first
    names = [f"f{n:02d}" for n in range(19)]
    cli.manifest("x", *names, size=1)
    done = cli("run", "m.yaml", ORCHESTRATOR_CREATES_PER_S="1", ORCHESTRATOR_STALE_S="14")
    assert done.returncode == 0, done.stderr
    assert api.bought == {"x": 1, **dict.fromkeys(names, 1)}


@pytest.mark.parametrize("command", ["run", "adopt"])
def test_it_is_held_while_its_own_job_is_not_listed(cli: Cli, api: Project, command: str) -> None:
    """With words that say what was answered; the rest of the run goes on."""
    api.others(1, hours=0)
    api.instead = {1: "theirs-0"}
    api.shown = lambda jobs: [job for job in jobs if job["id"] != "job-1"]
    assert cli("run", "m.yaml").returncode == 3
    assert sum(row["outcome"] == "classified" for row in cli.exported()) == 2
    words = cli("status", "m.yaml").stdout.replace("\n", " ")
    assert "the API answered with job theirs-0, which is not of these files" in " ".join(words.split())
    api.shown = lambda jobs: jobs
    assert cli(command, "m.yaml").returncode == 0
    assert cli("run", "m.yaml").returncode == 0
    assert api.bought == {"a": 1, "b": 1, "c": 1}


def test_a_job_of_others_that_never_ends_leaves_a_decision_and_not_an_endless_wait(cli: Cli, api: Project) -> None:
    """It may be the call's own: after the stale time a person decides, and ``retry --held`` settles it."""
    api.others(1, hours=0, status="PENDING")
    api.unmade = {1}
    assert cli("run", "m.yaml", ORCHESTRATOR_STALE_S="1").returncode == 3
    assert "may be this chunk's: theirs-0" in " ".join(cli("status", "m.yaml").stdout.split())
    assert cli("retry", "m.yaml", "--held").returncode == 0
    assert api.bought == {"a": 1, "b": 1, "c": 1}


@pytest.mark.parametrize("reads", [0, 8])
def test_of_two_jobs_of_a_chunk_that_a_person_had_sent_again_the_better_one_counts(
    cli: Cli, api: Project, reads: int
) -> None:
    """The older one did, with its failure; a ``retry`` then paid a third time for what the other had answered.

    The other may end later: it is waited for.
    """
    cli.manifest("a", "b", size=1)
    api.lost, api.failed = {1, 2}, {"job-1"}
    api.shown = lambda jobs: []
    assert cli("run", "m.yaml").returncode == 3
    api.shown = lambda jobs: jobs
    left = reads

    def pending_at_first(job: Told) -> Told:
        nonlocal left
        left -= job["id"] == "job-2"
        return {**job, "status": "PENDING"} if job["id"] == "job-2" and left >= 0 else job

    api.echo = pending_at_first
    assert cli("retry", "m.yaml", "--held").returncode == 0
    assert api.bought == {"a": 1, "b": 2}
    assert {row["file_id"]: row["job_id"] for row in cli.exported()} == {"a": "job-0", "b": "job-2"}


@pytest.mark.parametrize("late", ["runs", "has no results"])
def test_a_chunk_that_a_person_had_sent_again_is_held_while_a_better_job_may_come(
    cli: Cli, api: Project, late: str
) -> None:
    """After the stale time the failed one counted, and a ``retry`` paid a third time though the other ended well."""
    cli.manifest("a", "b", size=1)
    api.lost, api.failed = {1, 2}, {"job-1"}
    api.shown = lambda jobs: []
    assert cli("run", "m.yaml").returncode == 3
    api.shown = lambda jobs: jobs
    if late == "runs":
        api.echo = lambda job: {**job, "status": "PENDING"} if job["id"] == "job-2" else job
    else:
        api.hidden = {("job-2", "b")}
    assert cli("retry", "m.yaml", "--held", ORCHESTRATOR_STALE_S="3").returncode == 3
    assert "for over 3 s, and may be this chunk's: job-2" in " ".join(cli("status", "m.yaml").stdout.split())
    assert cli("retry", "m.yaml", ORCHESTRATOR_STALE_S="3").returncode == 3
    api.echo, api.hidden = lambda job: job, set()
    assert cli("run", "m.yaml").returncode == 0
    assert {row["file_id"]: row["job_id"] for row in cli.exported()} == {"a": "job-0", "b": "job-2"}
    assert api.bought == {"a": 1, "b": 2}


@pytest.mark.parametrize("rows", ["one of each", "one of each is bad"])
def test_two_jobs_of_a_chunk_that_a_person_had_sent_again_may_share_its_good_answers(
    cli: Cli, api: Project, rows: str
) -> None:
    """One was taken, the other's answer was bought a third time by a ``retry``: ``adopt`` takes both."""
    cli.manifest("x", size=1)
    assert cli("run", "m.yaml").returncode == 0
    cli.manifest("x", "a", "b", size=2)
    api.lost, api.shown = {1, 2}, lambda jobs: []
    api.hidden = {("job-1", "a"), ("job-2", "b")} if rows == "one of each" else set()
    api.null = {("job-1", "a"), ("job-2", "b")} - api.hidden
    assert cli("run", "m.yaml").returncode == 3
    assert cli("retry", "m.yaml", "--held").returncode == 3
    api.shown = lambda jobs: jobs
    for command in ("run", "retry"):
        assert cli(command, "m.yaml", ORCHESTRATOR_STALE_S="3").returncode == 3
    assert "none of these jobs of this chunk has all the good results" in " ".join(
        cli("status", "m.yaml").stdout.split()
    )
    assert api.bought == {"x": 1, "a": 2, "b": 2}
    assert json.loads(cli("adopt", "m.yaml", "--json").stdout)["jobs_adopted"] == 2
    assert cli("run", "m.yaml").returncode == 0
    assert {row["file_id"]: row["job_id"] for row in cli.exported()} == {"x": "job-0", "a": "job-2", "b": "job-1"}
    assert api.bought == {"x": 1, "a": 2, "b": 2}


def test_adopt_takes_the_job_of_a_held_call(cli: Cli, api: Project) -> None:
    """Its results are of just the chunk's files."""
    api.lost = {1}
    api.shown = lambda jobs: []
    assert cli("run", "m.yaml").returncode == 3
    api.shown = lambda jobs: jobs
    adopted = json.loads(cli("adopt", "m.yaml", "--json").stdout)
    assert (adopted["jobs_adopted"], adopted["files_adopted"]) == (1, 1)
    assert cli("run", "m.yaml").returncode == 0
    assert api.bought == {"a": 1, "b": 1, "c": 1}


def test_jobs_of_others_are_told_apart_without_reading_each_ones_results(cli: Cli, api: Project) -> None:
    """Two thousand of the same rules: the newest are read first, and those from before the call never."""
    api.others(2000)
    api.lost = {1}
    assert cli("run", "m.yaml").returncode == 0
    assert api.bought == {"a": 1, "b": 1, "c": 1}
    assert len(api.results_read) < 120


def test_a_candidate_whose_results_always_fail_keeps_no_other_call_waiting(cli: Cli, api: Project) -> None:
    """Its own call is held, with the reason; the run went on for ever where the last try ended before the budget."""
    cli.manifest(*"abcd", size=1)
    api.lost = {1, 2}

    async def break_down(name: str) -> None:
        if name == "job-2":
            raise web.HTTPInternalServerError

    api.before_results = break_down
    done = cli("run", "m.yaml", "--json", ORCHESTRATOR_RETRY_BUDGET_S="2")
    assert (done.returncode, json.loads(done.stdout)["unfinished"]) == (3, 1), done.stderr
    assert "job job-2 may be this chunk's, and its results can't be read" in cli("status", "m.yaml").stdout
    api.before_results = _at_once
    assert cli("run", "m.yaml").returncode == 0
    assert api.bought == dict.fromkeys("abcd", 1)


def test_the_last_look_for_late_jobs_does_not_outlast_the_deadline(cli: Cli, api: Project) -> None:
    """All was done, and a list of many slow pages kept the run for as long as it took to read."""
    api.others(300)
    api.unmade = {1}
    pages = 0

    async def many_slow_pages_from_now_on(name: str) -> None:
        if name == "job-3":
            api.page_size, api.list_takes_s = 1, 0.1

    def counted(jobs: list[Told]) -> list[Told]:
        nonlocal pages
        pages += 1
        return jobs

    api.before_results, api.shown = many_slow_pages_from_now_on, counted
    assert cli("run", "m.yaml", "--deadline", "15s", ORCHESTRATOR_SETTLE_S="0.4").returncode in (0, 3)
    assert pages < 300
    assert api.bought == {"a": 1, "b": 1, "c": 1}


def test_a_job_of_other_rules_is_nobodys(cli: Cli, api: Project) -> None:
    """Where the API echoes rules truly, one that is made just then by others is passed over."""
    api.others(1)
    api.lost = {1}
    cli.manifest("a", "b", size=1)
    assert cli("run", "m.yaml").returncode == 0
    api.add("strict", ["c"], hours=0.1, **OTHERS_RULES)
    cli.manifest("a", "b", "c", size=1)
    api.unmade = {2}
    assert cli("run", "m.yaml").returncode == 0
    assert {row["file_id"]: row["job_id"] for row in cli.exported()}["c"] == "job-3"


class Mistaken(OneByOne):
    """A v2 API whose first answer to a create call of b is the job of somebody else, of which it tells no more."""

    mistakes = 1

    def _create(self, request: web.Request, body: dict[str, Json]) -> web.StreamResponse:
        answer = super()._create(request, body)
        if body["file_input"] == "b" and self.mistakes:
            self.mistakes -= 1
            self.jobs["theirs"] = {**body, "file_input": "their-file", "transaction_id": None}
            return web.json_response({"id": "theirs", "status": "PENDING", "project_id": "p"})
        return answer


def test_with_keys_a_call_that_is_answered_with_anothers_job_is_asked_for_by_its_key(cli: Cli, serve: Serve) -> None:
    """Every run once ended with results only for files that were never sent."""
    api = Mistaken()
    cli.use(serve(api))
    one_by_one.manifest(cli, "a", "b", "c")
    done = cli("run", "m.yaml")
    assert done.returncode == 3
    assert "the API answered with job theirs, which is not of these files" in " ".join(done.stdout.split())
    assert cli("run", "m.yaml").returncode == 0
    assert {name: api.bought[name] for name in "abc"} == {"a": 1, "b": 1, "c": 1}


def test_with_keys_the_job_of_others_that_never_ends_is_not_waited_for(cli: Cli, serve: Serve) -> None:
    """It was taken for the call's own for ever, and no command settled that: it tells another file from the start."""
    api = Mistaken()
    api.stuck.add("their-file")
    api.on_cancel = lambda job: 409
    cli.use(serve(api))
    one_by_one.manifest(cli, "a", "b", "c")
    assert cli("run", "m.yaml").returncode == 3
    assert cli("run", "m.yaml").returncode == 0
    assert {name: api.bought[name] for name in "abc"} == {"a": 1, "b": 1, "c": 1}


def test_with_keys_an_answer_that_is_always_anothers_is_left_to_a_person(cli: Cli, serve: Serve) -> None:
    """Night after night it was asked for under the same key; `retry --held` sends it under a new one."""
    api = Mistaken()
    api.mistakes = 2
    cli.use(serve(api))
    one_by_one.manifest(cli, "a", "b", "c")
    assert cli("run", "m.yaml").returncode == 3
    done = cli("run", "m.yaml", "--json")
    assert (done.returncode, "needs a person" in json.loads(done.stdout)["reason"]) == (3, True)
    assert cli("retry", "m.yaml", "--held").returncode == 0
    assert {row["file_id"]: row["outcome"] for row in cli.exported()} == dict.fromkeys("abc", "classified")


class Denying(OneByOne):
    """A v2 API whose answers to create calls of b name a job that it denies having."""

    denials = 1

    def _create(self, request: web.Request, body: dict[str, Json]) -> web.StreamResponse:
        if body["file_input"] == "b" and self.denials:
            self.denials -= 1
            return web.json_response({"id": "nobodys", "status": "PENDING", "project_id": "p"})
        return super()._create(request, body)

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        name = request.path.removesuffix("/cancel").rpartition("/")[2]
        if name not in (*self.jobs, "classify", ""):
            return web.json_response({"detail": "Classify job not found"}, status=404)
        if "nobodys" in (asked := request.query.getall("job_ids", [])):
            return web.json_response({"items": [self._told(job_id) for job_id in asked if job_id in self.jobs]})
        return await super().__call__(request)


def test_with_keys_a_call_that_is_answered_with_no_job_is_asked_for_by_its_key(cli: Cli, serve: Serve) -> None:
    """Every run once ended with exit 3, and no command settled it."""
    api = Denying()
    cli.use(serve(api))
    one_by_one.manifest(cli, "a", "b", "c")
    done = cli("run", "m.yaml", ORCHESTRATOR_SETTLE_S="0.2")
    assert done.returncode == 3
    assert "the API answered with job nobodys, which it denies having" in " ".join(done.stdout.split())
    assert cli("run", "m.yaml").returncode == 0
    assert api.bought == {"a": 1, "b": 1, "c": 1}


def test_with_keys_an_answer_that_is_always_no_job_is_left_to_a_person(cli: Cli, serve: Serve) -> None:
    """``retry --held`` sends it under a new key."""
    api = Denying()
    api.denials = 2
    cli.use(serve(api))
    one_by_one.manifest(cli, "a", "b", "c")
    for _ in range(2):
        done = cli("run", "m.yaml", "--json", ORCHESTRATOR_SETTLE_S="0.2")
        assert done.returncode == 3
    assert "needs a person" in json.loads(done.stdout)["reason"]
    assert cli("retry", "m.yaml", "--held").returncode == 0
    assert api.bought == {"a": 1, "b": 1, "c": 1}


@pytest.mark.parametrize("files", ["b", "abc"])
def test_a_person_may_give_up_a_job_that_the_api_denies(cli: Cli, serve: Serve, files: str) -> None:
    """The run that submitted it did not stay to ask, and nothing else shows that the key is of the same project."""
    api = Denying()
    cli.use(serve(api))
    one_by_one.manifest(cli, *files)
    assert cli("run", "m.yaml", "--no-wait").returncode == 3
    assert cli("run", "m.yaml").returncode == 3
    stale = {"ORCHESTRATOR_STALE_S": "0"}
    assert cli("retry", "m.yaml", **stale).returncode == 3
    assert cli("retry", "m.yaml", "--held", **stale).returncode == 0
    assert api.bought == Counter(files)


def test_a_job_that_another_projects_key_denies_is_not_given_up(cli: Cli, serve: Serve) -> None:
    """The ledger knows other jobs, and the API has none of them."""
    api = Denying()
    cli.use(serve(api))
    one_by_one.manifest(cli, "a", "b")
    assert cli("run", "m.yaml", "--no-wait").returncode == 3
    assert cli("run", "m.yaml").returncode == 3
    api.jobs.clear()
    assert cli("retry", "m.yaml", "--held", ORCHESTRATOR_STALE_S="0").returncode == 3
    assert api.bought == {}


def test_with_keys_a_call_that_is_never_answered_is_found_in_the_list(cli: Cli, serve: Serve) -> None:
    """A lost answer, and 409 for every other send of the key: each night once ended with exit 7."""
    api = OneByOne()
    sent: Counter[str] = Counter()

    def fate(body: dict[str, Json]) -> Fate:
        sent[body["file_input"]] += 1
        return None if body["file_input"] != "b" else "lose answer" if sent["b"] == 1 else 409

    api.fate = fate
    cli.use(serve(api))
    one_by_one.manifest(cli, "a", "b", "c")
    assert cli("run", "m.yaml", ORCHESTRATOR_RETRY_BUDGET_S="0.5").returncode == 0
    assert api.bought == {"a": 1, "b": 1, "c": 1}
