"""The price told is the price paid: no run sends or bills more than the plan before it said."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.commands import OUTAGE, Cli, Serve, command_line, refusing
from support.moody import Moody
from support.sandboxes import sandbox

from orchestrator.ledger.chunks.plan import OpenChunks
from orchestrator.manifest.loading import Manifest, load
from orchestrator.models import Config, Escalate, JobStatus, Json, Mode, ParsingConfiguration, Rule
from orchestrator.planning.ceiling import Ceiling, Line, ceiling, halvings
from orchestrator.sandbox import Sandbox
from orchestrator.stages.halving import halve

PRICE = {"FAST": 5, "MULTIMODAL": 10}  #: of a file with as many pages as are read


@given(st.integers(1, 500))
def test_a_chunk_is_halved_no_more_often_than_is_counted(size: int) -> None:
    """Down to the one file at fault, each time sending every file once more."""
    parts, levels = [[str(n) for n in range(size)]], 0
    while parts := [half for part in parts for half in halve(part, len(part))]:
        levels += 1
    assert levels <= halvings(size)


ONE_PAGE = Config((Rule("invoice", "contains line items"),), parsing_configuration=ParsingConfiguration("en", 1))
KEPT = Config((), configuration_id="cfg")
NONE = Line()


class TestLines:
    """Each line of the ceiling on its own: one page of a file costs 1 credit, and 2 in the better mode."""

    @pytest.fixture
    def manifest(self, tmp_path: Path) -> Manifest:
        path = tmp_path / "m.yaml"
        path.write_text(
            "version: 1\nname: m\nchunk_size: 3\nfile_ids: [a]\nparsing_configuration: {max_pages: 1}\n"
            "rules: [{type: invoice, description: contains line items}]\n"
        )
        return load(str(path), environ={})

    @pytest.mark.parametrize(("size", "times"), [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (8, 3), (9, 4)])
    def test_how_often_a_chunk_is_halved(self, size: int, times: int) -> None:
        """Until one file is left; a chunk of one, or of none, never is."""
        assert halvings(size) == times

    def test_lines_add_up_and_what_is_not_known_stays_so(self) -> None:
        """On either side."""
        known, unknown = Line(2, 3), Line(1, None)
        assert known + Line(4, 5) == Line(6, 8)
        assert known + unknown == unknown + known == Line(3, None)
        assert Line.of(ONE_PAGE, 4) == Line(4, 4)
        assert Line.of(KEPT, 4) == Line(4, None)
        assert Line() == Line(0, 0)

    def test_a_run_may_send_its_own_and_each_file_once_more_per_halving(self, manifest: Manifest) -> None:
        """Seven files in chunks of three are halved twice at most."""
        own, halves = Line(7, 7), Line(14, 14)
        assert ceiling(manifest, [(ONE_PAGE, 7)], [], 0, 3) == Ceiling(own, NONE, NONE, halves, NONE, Line(21, 21))

    def test_a_chunk_is_no_larger_than_what_is_sent(self, manifest: Manifest) -> None:
        """Two files in chunks of eight are halved once."""
        assert ceiling(manifest, [(ONE_PAGE, 2)], [], 0, 8).halves == Line(2, 2)

    def test_each_config_is_counted_by_itself(self, manifest: Manifest) -> None:
        """Chunks hold files of one config."""
        found = ceiling(manifest, [(ONE_PAGE, 2), (replace(ONE_PAGE, mode=Mode.MULTIMODAL), 3)], [], 0, 1)
        assert (found.chosen, found.halves, found.sum) == (Line(5, 8), NONE, Line(5, 8))

    @pytest.mark.parametrize(
        ("status", "planned", "unanswered"),
        [
            (JobStatus.PENDING, Line(6, 6), NONE),
            (JobStatus.SUBMITTING, NONE, Line(6, 6)),
            (JobStatus.SUBMITTED, NONE, NONE),
        ],
    )
    def test_what_earlier_runs_left_is_sent_unless_the_api_has_it(
        self, manifest: Manifest, status: JobStatus, planned: Line, unanswered: Line
    ) -> None:
        """Its halves may come in any case: three chunks of two files, once."""
        left = [OpenChunks(status, ONE_PAGE, size=2, chunks=3)]
        sent = planned + unanswered + Line(6, 6)
        assert ceiling(manifest, [], left, 0, 1) == Ceiling(NONE, planned, unanswered, Line(6, 6), NONE, sent)

    def test_second_opinions_are_of_all_that_may_be_unsure(self, manifest: Manifest) -> None:
        """One from before, two new ones and two of earlier runs: five, in chunks of three, halved twice."""
        escalating = replace(manifest, escalate=Escalate(0.5))
        left = [OpenChunks(JobStatus.SUBMITTED, ONE_PAGE, size=1, chunks=2)]
        found = ceiling(escalating, [(ONE_PAGE, 2)], left, 1, 1)
        assert (found.second_opinions, found.halves, found.sum) == (Line(5, 10), Line(10, 20), Line(17, 32))

    def test_second_opinions_on_few_files_are_halved_less(self, manifest: Manifest) -> None:
        """No chunk is larger than what there is; without any there is none."""
        escalating = replace(manifest, escalate=Escalate(0.5))
        assert ceiling(escalating, [], [], 2, 1).halves == Line(2, 4)
        assert ceiling(escalating, [], [], 0, 1).sum == NONE
        assert ceiling(manifest, [], [], 2, 1).sum == NONE


def billed(api: Moody) -> tuple[int, int]:
    """Files sent and credits billed at most, so far."""
    jobs = api.jobs.values()
    return sum(len(job["file_ids"]) for job in jobs), sum(len(job["file_ids"]) * PRICE[job["mode"]] for job in jobs)


patterns = st.sampled_from(["^$", "^f1$", "[02468]$", "^f[0-3]$", "."])
steps = st.fixed_dictionaries(
    {
        "bad": patterns,
        "at_fault": patterns,
        "unsure": patterns,
        "lost": patterns,
        "down": st.booleans(),
        "call": st.sampled_from([["run"], ["run", "--no-wait"], ["run", "--retry-failed"], ["retry"]]),
        "files": st.integers(1, 9),
        "escalate": st.booleans(),
    }
)
#: One file sinks its job, and nothing else costs anything: the halves alone fill the ceiling.
AT_FAULT = {
    "bad": "^$",
    "at_fault": "^f1$",
    "unsure": "^$",
    "lost": "^$",
    "down": False,
    "call": ["run"],
    "files": 4,
    "escalate": False,
}
#: No answer is sure: the second opinions alone do.
UNSURE = {**AT_FAULT, "at_fault": "^$", "unsure": ".", "files": 1, "escalate": True}
#: What an earlier run left in halves is bought by the next.
LEFT = {**AT_FAULT, "call": ["run", "--no-wait"]}
#: A call that took effect, and one that did not, both without an answer.
LOST = {**LEFT, "at_fault": "^$", "lost": "."}
DOWN = {**LOST, "down": True}


@pytest.mark.long
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@example(history=[AT_FAULT])
@example(history=[UNSURE])
@example(history=[LEFT, AT_FAULT])
@example(history=[LOST, DOWN, UNSURE])
@given(history=st.lists(steps, min_size=2, max_size=4))
def test_no_run_sends_or_bills_more_than_the_plan_before_it_said(serve: Serve, history: list[dict[str, Json]]) -> None:
    """Over histories of outages, lost answers, failures, files at fault, unsure answers and growing lists."""
    api = Moody()
    up, down = serve(api), serve(refusing(503))
    with tempfile.TemporaryDirectory() as folder, command_line(Path(folder)) as cli:
        cli.environ |= OUTAGE
        for step in history:
            one_step(cli, api, step)
            cli.use(down if step["down"] else up)
            judge(cli, step["call"], lambda: billed(api))


def one_step(cli: Cli, api: Moody, step: dict[str, Json]) -> None:
    api.bad, api.at_fault, api.unsure = step["bad"], step["at_fault"], step["unsure"]
    api.lost = step["lost"]
    cli.manifest(*(f"f{n}" for n in range(step["files"])), size=4)
    if step["escalate"]:
        with (cli.folder / "m.yaml").open("a") as manifest:
            manifest.write("escalate: {below_confidence: 0.5}\n")


def judge(cli: Cli, call: list[str], billed: Callable[[], tuple[int, int]]) -> list[dict[str, Json]]:
    """*call* keeps to what ``plan`` and, of a retry, its dry run said before, which is returned."""
    told = [cli("plan", "m.yaml", "--json")] if call[0] == "run" else []
    if call in (["retry"], ["run", "--retry-failed"]):
        told.append(cli("retry", "m.yaml", "--dry-run", "--json"))
    plans = [json.loads(done.stdout) for done in told if done.returncode == 0]
    sums = [plan["ceiling"]["sum"] for plan in plans]
    before = billed()
    cli(call[0], "m.yaml", *call[1:])
    files, price = (after - was for after, was in zip(billed(), before, strict=True))
    assert files <= sum(most["files"] for most in sums), (call, sums)
    assert price <= sum(most["credits"] for most in sums), (call, sums)
    return plans


v2_steps = st.fixed_dictionaries(
    {
        "bad": patterns,
        "gone": st.booleans(),  #: parses that can be used once more are there no longer
        "lost": st.booleans(),  #: create calls take effect and are never answered
        "down": st.booleans(),
        "call": st.sampled_from([["run"], ["run", "--no-wait"], ["run", "--retry-failed"], ["retry"]]),
        "files": st.integers(1, 6),
        "rules": st.sampled_from(["a total", "a total amount"]),
    }
)
BOUGHT = {"bad": "^$", "gone": False, "lost": False, "down": False, "call": ["run"], "files": 3, "rules": "a total"}
#: New rules on the same parses: free while they are there.
FREE = {**BOUGHT, "rules": "a total amount"}
#: Calls that made their jobs, and that the next run repeats under their keys.
UNANSWERED = {**BOUGHT, "lost": True}


@pytest.mark.long
@settings(max_examples=2, deadline=None, derandomize=True)
@example(history=[BOUGHT, FREE])
@example(history=[BOUGHT, {**FREE, "gone": True}])
@example(history=[UNANSWERED, {**BOUGHT, "files": 4}])
@given(history=st.lists(v2_steps, min_size=2, max_size=4))
def test_no_v2_run_sends_or_bills_more_than_was_said(history: list[dict[str, Json]]) -> None:
    """Over histories of changed rules on parses that are there or gone, lost answers, outages and failures."""
    faults: dict[str, float | str] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        command_line(Path(folder)) as cli,
        sandbox(faults=faults) as (url, api),
    ):
        cli.environ |= {"LLAMA_CLOUD_BASE_URL": url, **OUTAGE}
        for step in history:
            write_v2(cli, step)
            faults |= {
                "fail-matching": step["bad"],
                "parse-gone": float(step["gone"]),
                "create.drop-after": float(step["lost"]),
                "create.http-5xx": float(step["down"]),
            }
            before = billed_v2(api)[1]
            told = judge(cli, step["call"], lambda: billed_v2(api))
            most = sum(plan["credits_ceiling"] for plan in told)  # nothing for what reuses a parse
            left = [plan["ceiling"][line]["credits"] for plan in told for line in ("planned", "unanswered")]
            assert step["gone"] or billed_v2(api)[1] - before <= most + sum(left), (step, told)


def write_v2(cli: Cli, step: dict[str, Json]) -> None:
    cli.manifest(*(f"f{n}" for n in range(step["files"])))
    text = (cli.folder / "m.yaml").read_text().replace("chunk_size: 100\n", "api: v2\n")
    (cli.folder / "m.yaml").write_text(text.replace("a total", step["rules"]))


def billed_v2(api: Sandbox) -> tuple[int, int]:
    """Jobs made, and credits billed at most, so far: a job on an earlier parse is free."""
    made = [job.file_ids[0] for job in api.state.journal]
    return len(made), PRICE["FAST"] * sum(not document.startswith("pjb-") for document in made)
