"""The logs of runs and the schedule, as commands: what they show, and what they refuse."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import Classify, Cli, Serve, command_line

from orchestrator import logs
from orchestrator.ledger.sqlite import lease

PACKAGE = Path(logs.__file__).parent


@pytest.fixture
def cli(tmp_path: Path, serve: Serve) -> Iterator[Cli]:
    with command_line(tmp_path) as cli:
        cli.use(serve(Classify()))
        yield cli


def test_a_log_is_shown_in_words(cli: Cli) -> None:
    """The latest run's by default; each line with its time, and none with the run's own ID."""
    cli("run", "m.yaml")
    (log,) = (cli.folder / "logs/letters").iterdir()
    shown = cli("logs", "m.yaml").stdout.splitlines()
    assert len(shown) == len(log.read_text().splitlines())
    assert shown[0][10:].startswith("the run began (command run, ")
    assert "the run ended (exit_code 0, reason every file has an outcome" in shown[-1]
    assert log.stem not in "".join(shown)
    assert cli("logs", "m.yaml", log.stem, "--follow").stdout.splitlines() == shown
    assert [json.loads(line)["event"] for line in cli("logs", "m.yaml", "--json").stdout.splitlines()][
        -1
    ] == "run.finished"


def test_only_lines_of_the_level_are_shown(cli: Cli) -> None:
    """A line that a kill cut short is one of its own."""
    cli("run", "m.yaml")
    (log,) = (cli.folder / "logs/letters").iterdir()
    with log.open("a") as more:
        more.write('{"timestamp": "2026-11-27T04:20:00Z", "level": "warning", "event": "creates.stopped"}\n{"timesta\n')
    assert cli("logs", "m.yaml", "--level", "warning").stdout == "04:20:00  WARNING: nothing more is sent\n"
    assert "a line that is not a log line" in cli("logs", "m.yaml").stdout


@pytest.mark.parametrize("call", [["logs", "m.yaml"], ["logs", "m.yaml", "../x"], ["logs", "m.yaml", "--level", "all"]])
def test_a_log_that_is_not_there_is_named(cli: Cli, call: list[str]) -> None:
    """In one line."""
    done = cli(*call)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_a_log_that_cannot_be_written_stops_no_run(cli: Cli) -> None:
    """What was paid for is recorded all the same."""
    (cli.folder / "logs").write_text("")
    (cli.folder / "logs").chmod(0o600)
    assert cli("run", "m.yaml").returncode == 0


def test_lines_are_text_when_asked_for(cli: Cli) -> None:
    """The run's log stays JSON."""
    done = cli("run", "m.yaml", "--log-format", "text")
    assert done.stderr.splitlines()[-1][10:].startswith("the run ended (")
    assert cli("run", "m.yaml", "--log-format", "xml").returncode == 2


def test_every_event_has_its_words() -> None:
    """In the table that `orchestrator logs` goes by."""
    named = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                named |= {
                    argument.value
                    for argument in node.args
                    if isinstance(argument, ast.Constant)
                    and isinstance(argument.value, str)
                    and node.func.attr in ("debug", "info", "warning", "error", "log", "warn", "append")
                    and argument.value.replace("_", "").replace(".", "").isalpha()
                    and argument.value.count(".") == 1
                }
    assert named <= set(logs.EVENTS), "write words for the new events in logs.EVENTS"


def test_status_tells_a_run_that_goes_on_by_its_lock(cli: Cli) -> None:
    """And lists as many runs as asked for, with their numbers."""
    cli("run", "m.yaml")
    cli("run", "m.yaml")
    assert "letters: exit 0: every file has an outcome\n" in cli("status", "m.yaml").stdout
    with lease.lease(cli.folder / "ledger.db", "letters", {"command": "a run", "since": "noon"}):
        assert str(cli.state()["running"]).startswith("pid ")
    assert cli.state()["running"] is None
    assert len(json.loads(cli("status", "--runs", "1", "--json").stdout)["manifests"][0]["runs"]) == 1


def test_the_rows_of_one_run_can_be_exported(cli: Cli) -> None:
    """By its ID, or the latest; an unknown one is refused."""
    cli("run", "m.yaml")
    first = cli.exported()
    cli.manifest("a", "b", "c", "d")
    cli("run", "m.yaml")
    latest = [json.loads(line)["file_id"] for line in cli("export", "--run", "latest").stdout.splitlines()]
    assert latest == ["d"]
    assert len(cli("export", "--run", first[0]["run_id"]).stdout.splitlines()) == 3
    assert cli("export", "--run", "never").returncode == 2


def test_a_schedule_is_printed_for_this_machine(cli: Cli) -> None:
    """With the manifest's whole path; a kind that is not known is refused."""
    assert f" nightly {cli.folder / 'm.yaml'} --deadline 6h\n" in cli("schedule", "cron", "m.yaml").stdout
    assert cli("schedule", "at", "m.yaml").returncode == 2
