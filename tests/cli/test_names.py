"""What a list calls its files is in every output, and names files on the command line."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import Cli, command_line
from support.moody import Moody

LIST = "file_id,name,customer,type\na,in/alpha.pdf,acme,x\nb,beta.pdf,=1+1,\nc,in/gamma.pdf,,\nd,out/gamma.pdf,,\n"


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    with command_line(tmp_path) as cli:
        text = (tmp_path / "m.yaml").read_text()
        (tmp_path / "m.yaml").write_text(text[: text.index("file_ids:")] + "file_ids_from: [l.csv]\n")
        (tmp_path / "l.csv").write_text(LIST)
        (tmp_path / "l.csv").chmod(0o600)
        yield cli


def test_an_export_has_the_names_and_the_columns_of_the_list(cli: Cli, api: Moody, tmp_path: Path) -> None:
    """In every format; a column that an export has itself is told apart, and no cell is a formula."""
    assert cli("run", "m.yaml").returncode == 0
    rows = [json.loads(line) for line in cli("export", "m.yaml").stdout.splitlines()]
    assert [(row["file_id"], row["name"], row["customer"], row["list_type"]) for row in rows] == [
        ("a", "in/alpha.pdf", "acme", "x"),
        ("b", "beta.pdf", "=1+1", None),
        ("c", "in/gamma.pdf", None, None),
        ("d", "out/gamma.pdf", None, None),
    ]
    written = list(csv.DictReader(cli("export", "m.yaml", "--format", "csv").stdout.splitlines()))
    assert [row["customer"] for row in written] == ["acme", "'=1+1", "", ""]
    for suffix in ("parquet", "xlsx"):
        assert cli("export", "m.yaml", "-o", f"out.{suffix}").returncode == 0
        (tmp_path / f"out.{suffix}").unlink()


def test_every_list_of_failed_files_says_what_they_are_called(cli: Cli, api: Moody) -> None:
    """Summary, status, plan, report and a preview of a retry."""
    api.bad = "^b$"
    failed = cli("run", "m.yaml")
    assert "b  beta.pdf" in failed.stdout
    assert "b  beta.pdf" in cli("status", "m.yaml").stdout
    assert "b  beta.pdf" in cli("retry", "m.yaml", "--dry-run").stdout
    (section,) = json.loads(cli("report", "m.yaml", "--json").stdout)["manifests"]
    assert (section["causes"][0]["examples"], section["causes"][0]["called"]) == (["b"], ["beta.pdf"])
    (cli.folder / "m.yaml").write_text((cli.folder / "m.yaml").read_text() + "limits: {max_generations: 1}\n")
    assert json.loads(cli("plan", "m.yaml", "--json").stdout)["quarantined"]["first"][0]["name"] == "beta.pdf"


def test_a_renamed_file_has_its_new_name_and_no_new_job(cli: Cli, api: Moody) -> None:
    """The latest list counts."""
    cli("run", "m.yaml")
    (cli.folder / "l.csv").write_text("file_id,name\na,new.pdf\n")
    assert json.loads(cli("run", "m.yaml", "--json").stdout)["jobs_created"] == 0
    rows = [json.loads(line) for line in cli("export", "m.yaml").stdout.splitlines()]
    assert [row["name"] for row in rows] == ["new.pdf", "beta.pdf", "in/gamma.pdf", "out/gamma.pdf"]


def test_a_file_is_named_on_the_command_line_as_its_list_calls_it(cli: Cli, api: Moody) -> None:
    """By the whole name or its end; a name of two files is refused with both IDs; an ID comes before a name."""
    cli("run", "m.yaml")
    assert json.loads(cli("retry", "m.yaml", "--file", "alpha.pdf", "--dry-run", "--json").stdout)["file_ids"] == ["a"]
    refused = cli("accept", "m.yaml", "--file", "gamma.pdf", "--type", "receipt")
    assert refused.returncode == 2
    assert "c (in/gamma.pdf), d (out/gamma.pdf); give the ID" in refused.stderr
    assert cli("accept", "m.yaml", "--file", "in/gamma.pdf", "--type", "receipt").stdout == "c  in/gamma.pdf: receipt\n"
    moved = json.loads(cli("accept", "m.yaml", "--file", "d", "--type", "receipt", "--json").stdout)
    assert moved["files"] == [{"file_id": "d", "verdict": "receipt", "name": None}]


def test_diff_names_its_examples(cli: Cli, api: Moody) -> None:
    """Which file flipped is said by name, too."""
    api.bad = "^b$"
    cli("run", "m.yaml")
    api.bad = "^$"
    cli("retry", "m.yaml")
    assert "such as b  beta.pdf" in cli("diff", "m.yaml").stdout
