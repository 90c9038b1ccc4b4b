"""The price told is the price paid: no run sends or bills more than the plan before it said."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.commands import Cli, Serve, command_line, refusing
from support.moody import Moody

from orchestrator.models import Json
from orchestrator.planning.ceiling import halvings
from orchestrator.stages.halving import halve

PRICE = {"FAST": 5, "MULTIMODAL": 10}  #: of a file with as many pages as are read


@given(st.integers(1, 500))
def test_a_chunk_is_halved_no_more_often_than_is_counted(size: int) -> None:
    """Down to the one file at fault, each time sending every file once more."""
    parts, levels = [[str(n) for n in range(size)]], 0
    while parts := [half for part in parts for half in halve(part)]:
        levels += 1
    assert levels <= halvings(size)


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
    "down": False,
    "call": ["run"],
    "files": 4,
    "escalate": False,
}
#: No answer is sure: the second opinions alone do.
UNSURE = {**AT_FAULT, "at_fault": "^$", "unsure": ".", "files": 1, "escalate": True}
#: What an earlier run left in halves is bought by the next.
LEFT = {**AT_FAULT, "call": ["run", "--no-wait"]}


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@example(history=[AT_FAULT])
@example(history=[UNSURE])
@example(history=[LEFT, AT_FAULT])
@given(history=st.lists(steps, min_size=2, max_size=4))
def test_no_run_sends_or_bills_more_than_the_plan_before_it_said(serve: Serve, history: list[dict[str, Json]]) -> None:
    """Over histories of outages, failures, files at fault, unsure answers and growing lists."""
    api = Moody()
    up, down = serve(api), serve(refusing(503))
    with tempfile.TemporaryDirectory() as folder, command_line(Path(folder)) as cli:
        for step in history:
            one_step(cli, api, step)
            cli.use(down if step["down"] else up)
            judge(cli, api, step["call"])


def one_step(cli: Cli, api: Moody, step: dict[str, Json]) -> None:
    api.bad, api.at_fault, api.unsure = step["bad"], step["at_fault"], step["unsure"]
    cli.manifest(*(f"f{n}" for n in range(step["files"])), size=4)
    if step["escalate"]:
        with (cli.folder / "m.yaml").open("a") as manifest:
            manifest.write("escalate: {below_confidence: 0.5}\n")


def judge(cli: Cli, api: Moody, call: list[str]) -> None:
    """*call* keeps to what ``plan`` and, of a retry, its dry run said before."""
    told = [cli("plan", "m.yaml", "--json")] if call[0] == "run" else []
    if call in (["retry"], ["run", "--retry-failed"]):
        told.append(cli("retry", "m.yaml", "--dry-run", "--json"))
    sums = [json.loads(done.stdout)["ceiling"]["sum"] for done in told if done.returncode == 0]
    before = billed(api)
    cli(call[0], "m.yaml", *call[1:])
    files, price = (after - was for after, was in zip(billed(api), before, strict=True))
    assert files <= sum(most["files"] for most in sums), (call, sums)
    assert price <= sum(most["credits"] for most in sums), (call, sums)
