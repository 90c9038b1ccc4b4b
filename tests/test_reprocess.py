"""Sending files again, on purpose: retry, poison files, second opinions, verdicts, and what changed overnight."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from commands import Cli, Serve, command_line
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.isolate import halve, is_outage
from orchestrator.models import Json


class Moody:
    """A v1 API whose jobs end at once; ``bad`` files have no result, a ``poison`` file sinks its job."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Json]] = {}
        self.bad = "^$"
        self.left_out = "^$"
        self.poison = "^$"
        self.unsure = "^$"

    @property
    def bought(self) -> Counter[str]:
        """How often each file was sent."""
        return Counter(file_id for job in self.jobs.values() for file_id in job["file_ids"])

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        parts = request.path.removeprefix("/api/v1/classifier/jobs").strip("/").split("/")
        if request.method == "POST":
            job_id = f"job-{len(self.jobs)}"
            self.jobs[job_id] = await request.json()
            return web.json_response(self._job(job_id))
        if parts == [""]:
            return web.json_response({"items": [self._job(job_id) for job_id in self.jobs]})
        if parts[1:] == ["results"]:
            job = self.jobs[parts[0]]
            rows = [] if self._sunk(job) else [f for f in job["file_ids"] if not re.search(self.left_out, f)]
            return web.json_response({"items": [self._row(file_id, job["mode"]) for file_id in rows]})
        return web.json_response(self._job(parts[0]))

    def _sunk(self, job: dict[str, Json]) -> bool:
        return any(re.search(self.poison, file_id) for file_id in job["file_ids"])

    def _job(self, job_id: str) -> dict[str, Json]:
        job = self.jobs[job_id]
        status = "ERROR" if self._sunk(job) else "SUCCESS"
        return {"id": job_id, "status": status, "rules": job["rules"], "mode": job["mode"], "user_id": "u"}

    def _row(self, file_id: str, mode: str) -> dict[str, Json]:
        if re.search(self.bad, file_id):
            return {"id": "i", "file_id": file_id, "result": None}
        sure = 0.9 if mode == "MULTIMODAL" or not re.search(self.unsure, file_id) else 0.3
        label = "receipt" if mode == "MULTIMODAL" else "invoice"
        return {"id": "i", "file_id": file_id, "result": {"type": label, "confidence": sure, "reasoning": "r"}}


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    with command_line(tmp_path) as cli:
        yield cli


@pytest.fixture
def api(cli: Cli, serve: Serve) -> Moody:
    api = Moody()
    cli.use(serve(api))
    return api


def test_retry_sends_exactly_what_failed_once_more(cli: Cli, api: Moody) -> None:
    """And nothing when called again: what was good is bought once."""
    cli.manifest(*(f"file-{n}" for n in range(30)), size=10)
    api.bad = "-1"
    assert cli("run", "m.yaml").returncode == 1
    failed = {row["file_id"] for row in cli.exported() if row["outcome"] == "failed"}
    assert {f"file-{n}" for n in (1, *range(10, 20))} == failed
    api.bad = "^$"
    assert cli("run", "m.yaml").returncode == 1
    assert cli("retry", "m.yaml").returncode == 0
    assert cli("retry", "m.yaml").returncode == 0
    assert Counter(api.bought.values()) == {2: 11, 1: 19}
    assert failed == {file_id for file_id, times in api.bought.items() if times == 2}
    history = cli("export", "--history").stdout.splitlines()
    assert len(history) == 41
    assert {"classified"} == {row["outcome"] for row in cli.exported()}


def test_a_row_that_is_left_out_is_missing_and_retried(cli: Cli, api: Moody) -> None:
    """It never counts as done."""
    api.left_out = "^b$"
    assert cli("run", "m.yaml").returncode == 1
    assert {r["file_id"]: r["outcome"] for r in cli.exported()} == {
        "a": "classified",
        "b": "missing",
        "c": "classified",
    }
    api.left_out = "^$"
    assert cli("retry", "m.yaml", "--outcome", "missing").returncode == 0
    assert api.bought == {"a": 1, "b": 2, "c": 1}


SELECTORS: list[tuple[list[str], set[str]]] = [
    (["--file", "a"], {"a"}),
    (["--type", "invoice"], {"a", "b"}),
    (["--below-confidence", "0.5"], {"b"}),
    (["--outcome", "failed"], {"c"}),
    (["--error", "NO RESULT"], {"c"}),
    (["--error", "something else"], set()),
    (["--run", "nonesuch"], set()),
    (["--file-from", "list.txt"], {"b", "c"}),
    ([], {"c"}),
]


def test_each_selector_names_its_files(cli: Cli, api: Moody) -> None:
    """A dry run shows them and sends nothing; in earnest just these are sent."""
    (cli.folder / "list.txt").write_text("b\nc\n")
    (cli.folder / "list.txt").chmod(0o600)
    api.bad, api.unsure = "^c$", "^b$"
    cli("run", "m.yaml")
    before = api.bought
    for options, sent in SELECTORS:
        shown = json.loads(cli("retry", "m.yaml", *options, "--dry-run", "--json").stdout)
        assert sent == set(shown["file_ids"]), options
    assert before == api.bought
    cli("retry", "m.yaml", "--file-from", "list.txt")
    assert set(api.bought - before) == {"b", "c"}


def test_overrides_reach_the_create_call(cli: Cli, api: Moody) -> None:
    """And the files stay done for the manifest's own config."""
    cli("run", "m.yaml")
    call = ["retry", "m.yaml", "--file", "a", "--mode", "MULTIMODAL", "--lang", "de", "--max-pages", "2"]
    assert cli(*call).returncode == 0
    (sent,) = list(api.jobs.values())[1:]
    assert (sent["mode"], sent["parsing_configuration"]) == ("MULTIMODAL", {"lang": "de", "max_pages": 2})
    assert cli("run", "m.yaml").returncode == 0
    assert api.bought == {"a": 2, "b": 1, "c": 1}
    assert {row["file_id"]: row["mode"] for row in cli.exported()} == {"a": "MULTIMODAL", "b": "FAST", "c": "FAST"}


def test_a_file_that_failed_too_often_is_left_alone(cli: Cli, api: Moody) -> None:
    """limits.max_generations, over as many nights as one likes."""
    with (cli.folder / "m.yaml").open("a") as manifest:
        manifest.write("limits: {max_generations: 2}\n")
    api.bad = "^b$"
    for _ in range(4):
        assert cli("run", "m.yaml", "--retry-failed").returncode == 1
    assert api.bought == {"a": 1, "b": 2, "c": 1}


def test_one_poison_file_among_600_is_found(cli: Cli, api: Moody) -> None:
    """With at most 15 calls more; the others are right; the next run leaves it alone."""
    cli.manifest(*(f"file-{n}" for n in range(600)), size=100)
    api.poison = "^file-357$"
    assert cli("run", "m.yaml").returncode == 1
    assert len(api.jobs) <= 6 + 15
    assert {r["file_id"]: r["outcome"] for r in cli.exported() if r["outcome"] != "classified"} == {
        "file-357": "failed"
    }
    calls = len(api.jobs)
    assert cli("run", "m.yaml").returncode == 1
    assert calls == len(api.jobs)


def test_when_all_jobs_fail_nothing_is_halved(cli: Cli, api: Moody) -> None:
    """That is an outage which says ERROR, not one file's fault."""
    cli.manifest(*(f"file-{n}" for n in range(300)), size=10)
    api.poison = "."
    assert cli("run", "m.yaml").returncode == 1
    assert len(api.jobs) <= 1.2 * 30
    assert cli.state()["failed"] == 300


def test_an_unsure_answer_gets_a_second_opinion_once(cli: Cli, api: Moody) -> None:
    """The surer one counts; both are in the history; the next night does not ask a third time."""
    with (cli.folder / "m.yaml").open("a") as manifest:
        manifest.write("escalate: {below_confidence: 0.5, mode: MULTIMODAL}\n")
    api.unsure = "^b$"
    assert cli("run", "m.yaml").returncode == 0
    assert cli("run", "m.yaml").returncode == 0
    assert api.bought == {"a": 1, "b": 2, "c": 1}
    assert {row["file_id"]: row["type"] for row in cli.exported()} == {"a": "invoice", "b": "receipt", "c": "invoice"}
    assert len(cli("export", "--history").stdout.splitlines()) == 4


def test_a_persons_verdict_counts_and_stays(cli: Cli, api: Moody) -> None:
    """Later runs and retries of unsure results respect it."""
    api.unsure = "^b$"
    cli("run", "m.yaml")
    assert cli("accept", "m.yaml", "--file", "b", "--type", "receipt").returncode == 0
    assert cli("retry", "m.yaml", "--below-confidence", "0.5").returncode == 0
    assert api.bought == {"a": 1, "b": 1, "c": 1}
    assert next((r["type"], r["confidence"]) for r in cli.exported() if r["file_id"] == "b") == ("receipt", 1.0)
    state = cli.state()
    assert state["spent"]["jobs_billed"] == 0  # a verdict is no job of the API's
    assert "1 verdict" in [run["summary"]["reason"] for run in state["runs"]]


@pytest.mark.parametrize(
    "options",
    [["--file", "z"], ["--file", "a", "--type", "novel"], ["--file", "a", "--type", "invoice", "--unmatched"]],
)
def test_a_verdict_that_makes_no_sense_is_refused(cli: Cli, api: Moody, options: list[str]) -> None:
    """And nothing is recorded."""
    cli("run", "m.yaml")
    assert cli("accept", "m.yaml", *options).returncode == 2
    assert len(cli("export", "--history").stdout.splitlines()) == 3


def test_diff_tells_what_changed_between_two_runs(cli: Cli, api: Moody) -> None:
    """A file that failed and is an invoice now; a new file."""
    api.bad = "^b$"
    cli("run", "m.yaml")
    api.bad = "^$"
    cli.manifest("a", "b", "c", "d")
    cli("run", "m.yaml", "--retry-failed")
    found = json.loads(cli("diff", "m.yaml", "--json").stdout)
    assert (found["new_files"], found["new_failures"]) == (1, 0)
    assert [(f["before"], f["after"], f["example"]) for f in found["flipped"]] == [
        ("failed", "classified invoice", "b")
    ]
    assert cli("diff", "m.yaml").returncode == 0


def test_diff_needs_two_runs(cli: Cli, api: Moody) -> None:
    """And says so."""
    cli("run", "m.yaml")
    done = cli("diff", "m.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert "two runs" in done.stderr


def test_a_lost_ledger_is_rebuilt_from_the_api(cli: Cli, api: Moody) -> None:
    """adopt buys nothing, and the next run only what is missing."""
    cli.manifest("a", "b")
    cli("run", "m.yaml")
    for path in cli.folder.glob("ledger.db*"):
        path.unlink()
    cli.manifest("a", "b", "c")
    assert cli("adopt", "m.yaml").returncode == 0
    assert cli("run", "m.yaml").returncode == 0
    assert api.bought == {"a": 1, "b": 1, "c": 1}


@given(st.lists(st.integers().map(str), unique=True))
def test_halves_are_all_of_it(file_ids: list[str]) -> None:
    """Nothing is lost or doubled; a file alone is not cut; the halves are as even as can be."""
    parts = halve(file_ids)
    assert (file_ids if len(file_ids) > 1 else []) == [file_id for part in parts for file_id in part]
    assert all(abs(len(parts[0]) - len(part)) <= 1 for part in parts)


def test_an_outage_is_told_from_a_poison_file() -> None:
    """One poison file fails one job in many and every second half; an outage fails them all."""
    assert not is_outage((6, 1), (14, 7))
    assert not is_outage((1, 1), (0, 0))
    assert is_outage((30, 30), (0, 0))
    assert is_outage((4, 4), (8, 8))


def test_a_retry_does_not_call_files_done_that_were_never_sent(cli: Cli, serve: Serve) -> None:
    """It sends what ended badly; what is new is left to ``run``, and the exit code says that something is left."""
    api = Moody()
    cli.use(serve(api))
    cli("run", "m.yaml")
    cli.manifest("a", "b", "c", "new")
    done = cli("retry", "m.yaml", "--json")
    summary = json.loads(done.stdout)
    assert (done.returncode, summary["unfinished"], api.bought["new"]) == (3, 1, 0)
    assert "1 files were not sent" in summary["reason"]
    assert cli("run", "m.yaml").returncode == 0
