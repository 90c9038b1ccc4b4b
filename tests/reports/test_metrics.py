"""The figures for Prometheus: what they say, that they come from the ledger, and that promtool takes them."""

from __future__ import annotations

import shutil
import stat
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.commands import OUTAGE, Classify, Cli, Serve, command_line, refusing
from support.nights import FIRST, Nights

from orchestrator import ledger
from orchestrator.ledger import Transaction
from orchestrator.reports.metrics import Failure, Latest, latest, metrics

RULES = Path(__file__).parents[2] / "configs/prometheus-alerts.yml"
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is missing; apt-get install prometheus has it"
)


def figures(text: str) -> dict[str, float]:
    """Name, with the outcome after a slash -> value. That no other label is there is checked."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            assert sample.labels.pop("manifest")
            outcome = sample.labels.pop("outcome", None)
            assert not sample.labels
            found[sample.name.removeprefix("orchestrator_") + (f"/{outcome}" if outcome else "")] = sample.value
    return found


@pytest.fixture
def connection() -> Iterator[Transaction]:
    with ledger.in_memory() as opened, opened.transaction() as connection:
        yield connection


def test_the_figures_are_those_of_the_ledger(connection: Transaction) -> None:
    """A failed night is the last run; the one before it stays the last success."""
    made = Nights(connection)
    made.night(20, failed=0.0)
    made.night(10, failed=1.0)
    made.hold(5)
    found = figures(metrics(made.name, latest(connection, made.scope.manifest_id)))
    assert found["last_run_exit_code"] == 1
    assert found["last_run_start_time_seconds"] - FIRST.timestamp() == 86400
    assert 0 < found["last_success_time_seconds"] - FIRST.timestamp() < 3600
    assert found["last_run_end_time_seconds"] > found["last_run_start_time_seconds"]
    assert (found["files/failed"], found["files/missing"]) == (10, 0)
    assert found["files/classified"] + found["files/unmatched"] == 20


def test_a_run_without_a_record_keeps_what_was_recorded_before(connection: Transaction) -> None:
    """Only its end and its exit code are known."""
    made = Nights(connection)
    made.night(20, failed=0.0)
    before = latest(connection, made.scope.manifest_id)
    killed = Failure(137, datetime(2026, 11, 28, tzinfo=UTC))
    good, bad = figures(metrics(made.name, before)), figures(metrics(made.name, before, killed))
    changed = {name for name in good if good[name] != bad[name]}
    assert changed == {"last_run_end_time_seconds", "last_run_exit_code"}
    assert bad["last_run_exit_code"] == 137


def test_before_the_first_success_its_time_is_zero() -> None:
    """So that an alert on its age comes; nothing else is known."""
    assert figures(metrics("m", Latest())) == {"last_success_time_seconds": 0}


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    with command_line(tmp_path) as cli:
        yield cli
        for path in tmp_path.rglob("*.prom"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o644
            path.unlink()  # the one file that others may read


def read(cli: Cli, name: str = "x.prom") -> dict[str, float]:
    return figures((cli.folder / name).read_text())


@needs_promtool
def test_a_run_writes_a_file_that_promtool_takes(cli: Cli, serve: Serve) -> None:
    """Whole and alone: node_exporter never sees half of one."""
    cli.use(serve(Classify()))
    assert cli("run", "m.yaml", "--metrics-file", "x.prom").returncode == 0
    assert [path.name for path in cli.folder.iterdir() if "prom" in path.name] == ["x.prom"]
    checked = subprocess.run(
        ["promtool", "check", "metrics"],
        input=(cli.folder / "x.prom").read_bytes(),
        capture_output=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
    found = read(cli)
    assert (found["last_run_exit_code"], found["files/classified"], found["last_run_jobs_created"]) == (0, 3, 1)
    assert (found["last_run_create_requests/answered"], found["last_run_create_requests/throttled"]) == (1, 0)
    assert found["last_success_time_seconds"] == found["last_run_end_time_seconds"]


def test_a_night_that_fails_cannot_erase_the_last_success(cli: Cli, serve: Serve) -> None:
    """Whether the API is down or the run does not even begin."""
    cli.use(serve(Classify()))
    where = {"ORCHESTRATOR_METRICS_FILE": str(cli.folder)}
    assert cli("run", "m.yaml", **where).returncode == 0
    success = read(cli, "orchestrator-letters.prom")["last_success_time_seconds"]
    cli.manifest("a", "b", "c", "d")
    cli.use(serve(refusing(503)))
    assert cli("run", "m.yaml", **where, **OUTAGE).returncode == 7
    down = read(cli, "orchestrator-letters.prom")
    assert (down["last_run_exit_code"], down["last_success_time_seconds"]) == (7, success)
    assert sum(value for name, value in down.items() if name.endswith("_requests/unanswered")) > 0
    assert cli("run", "m.yaml", LLAMA_CLOUD_API_KEY="", **where).returncode == 2
    keyless = read(cli, "orchestrator-letters.prom")
    assert (keyless["last_run_exit_code"], keyless["last_success_time_seconds"]) == (2, success)
    assert keyless["files/classified"] == 3


@pytest.mark.parametrize("options", [["--metrics-file", "x.txt"], ["--metrics-file", "x.prom", "--sandbox"]])
def test_a_file_that_nobody_would_read_is_refused(cli: Cli, options: list[str]) -> None:
    """Before anything is sent. A rehearsal's figures are none."""
    done = cli("run", "m.yaml", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--metrics-file" in done.stderr


def test_a_file_that_cannot_be_written_fails_no_run(cli: Cli, serve: Serve) -> None:
    """The log says so."""
    cli.use(serve(Classify()))
    done = cli("run", "m.yaml", "--metrics-file", "no/such/folder/x.prom")
    assert (done.returncode, "metrics.not_written" in done.stderr) == (0, True)


@needs_promtool
def test_the_alert_rules_are_good_and_fire_when_they_should(tmp_path: Path) -> None:
    """As promtool sees it."""
    cases = (Path(__file__).parents[1] / "support/alerts.yml").read_text().replace("RULES", str(RULES))
    (tmp_path / "cases.yml").write_text(cases)
    for command in (["check", "rules", str(RULES)], ["test", "rules", "cases.yml"]):
        done = subprocess.run(["promtool", *command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_about_a_figure_that_there_is(connection: Transaction) -> None:
    """With a drift, which the first nights do not have."""
    made = Nights(connection)
    made.night(5)
    runs = latest(connection, made.scope.manifest_id)
    assert runs.ended is not None and runs.ended.summary is not None
    runs.ended.summary.update(held=0, drift={"types_distance": 0.2, "confidence_distance": 0.1, "alarm": True})
    found = figures(metrics(made.name, runs))
    assert (found["drift_types_ratio"], found["drift_alarm"]) == (0.2, 1)
    named = {word for line in RULES.read_text().splitlines() if "expr:" in line for word in line.split()}
    used = {word.partition("(")[2].rstrip(")") or word for word in named if "orchestrator_" in word}
    assert used and {name.removeprefix("orchestrator_") for name in used} <= found.keys()
