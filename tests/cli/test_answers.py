"""``--json`` is an interface: every command's object is as its schema says, whether all went well or not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from support.sandboxes import INVOICE, RECEIPT, Desk, desk
from support.schemas import faults

from orchestrator.cli import app
from orchestrator.cli.answers import ANSWERS, schema
from orchestrator.models import Json

#: A log is many objects.
WITHOUT = {"logs"}

FRAME = {"version", "exit_code", "started_at", "finished_at"}


def told(at: Desk, *call: str) -> dict[str, Json]:
    """The object of the *call*, found to be as ``orchestrator schema`` says and to fit its exit code."""
    done = at.cli(*call, "--json")
    value, says = json.loads(done.stdout), schema(call[0])
    assert list(faults(value, says, says)) == [], done.stderr
    assert value.keys() >= FRAME
    assert (value["version"], value["exit_code"]) == (1, done.returncode)
    assert value["started_at"] <= value["finished_at"]
    return dict(value)


def test_every_command_with_json_has_a_schema() -> None:
    """A new command finds its place in the list, or says why not."""
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    with_json = {
        name for name, command in group.commands.items() if any("--json" in option.opts for option in command.params)
    }
    assert with_json - WITHOUT == set(ANSWERS)


@pytest.mark.long
def test_what_commands_print_is_as_their_schemas_say(tmp_path: Path) -> None:
    """A night with documents, its retry, a look at it, a verdict, a copy, sorting, and cleaning up."""
    with desk(tmp_path) as at:
        at.manifest("review: {below_confidence: 0.99}\ndrift: {alert: 0.1}")
        at.put(a=INVOICE, b=RECEIPT, c="nothing that a rule knows")
        assert told(at, "validate", "m.yaml")["api"] == "v1"
        assert told(at, "plan", "m.yaml")["new"] == 3
        assert told(at, "upload", "m.yaml")["uploaded"] == 3
        assert told(at, "upload", "inbox/a.txt")["files"][0]["name"] == "a.txt"
        first = told(at, "run", "m.yaml")
        at.put(d=INVOICE + " and more")
        second = told(at, "run", "m.yaml")
        (state,) = told(at, "status")["manifests"]
        assert (first["api"], first["host"], state["api"], state["host"]) == ("v1", "loopback") * 2
        assert [run["run_id"] for run in state["runs"]][:2] == [second["run_id"], first["run_id"]]
        assert state["runs"][0]["started_at"] == second["started_at"]
        assert state["runs"][0]["finished_at"] == second["finished_at"]
        assert told(at, "diff", "m.yaml")["new_files"] == 1
        assert told(at, "retry", "m.yaml", "--below-confidence", "1", "--dry-run")["files"] > 0
        assert told(at, "retry", "m.yaml", "--outcome", "unmatched")["exit_code"] == 0
        assert told(at, "report")["manifests"][0]["host"] == "loopback"
        assert told(at, "accept", "m.yaml", "--file", "c.txt", "--type", "receipt")["files"][0]["verdict"] == "receipt"
        assert told(at, "backup", str(tmp_path / "copy.db"))["bytes"] > 0
        assert told(at, "route", "m.yaml", "--into", "sorted", "--dry-run")["placed"] == 4
        assert told(at, "route", "m.yaml", "--into", "sorted")["placed"] == 4
        assert told(at, "cancel", "m.yaml")["in_flight"] == 0
        assert told(at, "adopt", "m.yaml")["run_id"] > second["run_id"]
        assert told(at, "prune", "m.yaml", "--older-than", "1s", "--dry-run")["host"] == "loopback"
        assert told(at, "doctor", "m.yaml")["findings"]
        assert told(at, "move-ledger", "ledger.db", "moved.db")["rows"] > 0


def test_what_workers_are_asked_is_as_the_schemas_say(tmp_path: Path, database: str) -> None:
    """Times are text with a zone, as everywhere."""
    with desk(tmp_path) as at:
        at.manifest('schedule: {cron: "0 2 * * *", timezone: Europe/Berlin}')
        at.cli.environ["ORCHESTRATOR_LEDGER"] = database
        (one,) = told(at, "submit", "m.yaml", "--now")["submitted"]
        assert one["asked"] and one["next_at"].endswith("+00:00")
        found = told(at, "workers")
        assert (found["ledger"], found["workers"]) == (database, [])
        assert [task["state"] for task in found["tasks"]] == ["waiting"]
        assert [schedule["zone"] for schedule in found["schedules"]] == ["Europe/Berlin"]


def test_a_list_that_is_cut_says_how_long_it_is(tmp_path: Path) -> None:
    """A script must not take the first five failures for all."""
    with desk(tmp_path, unknown_files="fail") as at:
        ids = "\n".join(f"  - f{number}" for number in range(7))
        (tmp_path / "m.yaml").write_text(
            (tmp_path / "m.yaml").read_text().replace("documents_from: [inbox]", f"file_ids:\n{ids}\nchunk_size: 1")
        )
        summary = told(at, "run", "m.yaml")
        assert (len(summary["failed_files"]), summary["failed"]) == (5, 7), summary["reason"]
        assert summary["extents"]["failed_files"] == {"total": 7, "truncated": True}
        (state,) = told(at, "status", "--runs", "0")["manifests"]
        assert state["extents"]["failed_files"] == {"total": 7, "truncated": True}
        assert state["extents"]["runs"] == {"total": 1, "truncated": True}
        (section,) = told(at, "report")["manifests"]
        assert section["extents"]["nights"] == {"total": 1, "truncated": False}


def test_errors_are_as_the_schemas_say(tmp_path: Path) -> None:
    """A mistake in the manifest, no ledger, a wrong call; of commands that run and of those that do not."""
    with desk(tmp_path) as at:
        assert "no ledger" in told(at, "status")["error"]
        assert told(at, "run", "m.yaml", "--chunk-size", "0")["files"] == 0
        at.manifest("speed: 3")
        for command in ("validate", "plan", "run"):
            failure = told(at, command, "m.yaml")
            assert (failure["exit_code"], failure["problems"][0]["line"]) == (2, 9), command
            assert failure["error"] == failure["reason"]


def test_a_schema_is_asked_for_by_a_command_that_has_one(tmp_path: Path) -> None:
    """Without a command it is the manifest's."""
    with desk(tmp_path) as at:
        assert json.loads(at.cli("schema", "status").stdout)["title"] == "orchestrator status --json"
        assert json.loads(at.cli("schema").stdout)["title"] == "orchestrator manifest"
        wrong = at.cli("schema", "fly")
        assert (wrong.returncode, "no schema of fly" in wrong.stderr) == (2, True)


def test_a_field_is_explained_in_the_schema() -> None:
    """By the comment that stands behind it in the code."""
    summary = schema("run")["$defs"]["Summary"]
    assert "billed to this run's jobs" in summary["properties"]["credits"]["description"]
    assert summary["additionalProperties"] is False
