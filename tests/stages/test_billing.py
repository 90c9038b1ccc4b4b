"""What was billed is read where the API tells it; until it has told all, the sum is a least. What it says is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.commands import Classify, Cli, Serve, command_line
from support.sandboxes import sandbox

FILES = [f"182bd5e5-6e1a-4fe4-a799-{number:012x}" for number in range(60)]
NEW, NEWER = (f"182bd5e5-6e1a-4fe4-a799-{number:012x}" for number in (60, 61))


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    with command_line(tmp_path) as cli:
        write(tmp_path, FILES)
        yield cli


def write(folder: Path, file_ids: list[str]) -> None:
    """A manifest for v2."""
    Cli(folder).manifest(*file_ids)
    text = (folder / "m.yaml").read_text().replace("name: letters", "name: letters\napi: v2")
    (folder / "m.yaml").write_text(text.replace("chunk_size: 100\n", ""))


def test_the_bill_is_reported_when_one_job_is_asked_for(cli: Cli) -> None:
    """Lists tell nothing of it, as by the vendor's SDK; the same run knows the sum all the same."""
    with sandbox(usage_on="get", usage_lag_s=0.0) as (url, _):
        summary = json.loads(cli("run", "m.yaml", "--json", LLAMA_CLOUD_BASE_URL=url).stdout)
        rows = cli.exported()
    assert summary["credits"] == sum(row["credits"] for row in rows) >= len(FILES)
    assert summary["jobs_untold"] == 0
    (state,) = json.loads(cli("status", "m.yaml", "--json").stdout)["manifests"]
    assert (state["spent"]["credits"], state["spent"]["jobs_untold"]) == (summary["credits"], 0)


def test_until_all_is_reported_it_is_a_least(cli: Cli) -> None:
    """In words and in JSON; a later run asks for the rest."""
    with sandbox(usage_on="both", usage_lag_s=600.0) as (url, embedded):
        cli.environ["LLAMA_CLOUD_BASE_URL"] = url
        summary = json.loads(cli("run", "m.yaml", "--json").stdout)
        assert (summary["jobs_untold"], summary["credits"]) == (len(FILES), None)
        embedded.state.options = replace(embedded.state.options, usage_lag_s=0.0)
        write(cli.folder, [*FILES, NEW])
        assert json.loads(cli("run", "m.yaml", "--json").stdout)["jobs_untold"] == 0
        embedded.state.options = replace(embedded.state.options, usage_lag_s=600.0)
        write(cli.folder, [*FILES, NEW, NEWER])
        summary = json.loads(cli("run", "m.yaml", "--json").stdout)
        assert summary["jobs_untold"] == 1
    told = cli("status", "m.yaml").stdout
    assert "at least; 1 job not yet reported" in told


def test_what_the_api_says_of_a_job_is_kept(tmp_path: Path, serve: Serve) -> None:
    """So that PARTIAL_SUCCESS is visible; a time that can't be read is none."""

    class Telling(Classify):
        def _job(self, job_id: str) -> dict[str, object]:
            more = {"updated_at": "soon", "effective_at": "2026-11-25T03:00:00+01:00", "job_record_id": "rec-1"}
            return {**super()._job(job_id), **more}

    api = Telling()
    api.status, api.error = "PARTIAL_SUCCESS", "one page could not be read"
    with command_line(tmp_path) as cli:
        cli.use(serve(api))
        assert cli("run", "m.yaml").returncode == 0
        row = cli.exported()[0]
    assert {name: row[name] for name in list(row)[20:]} == {
        "api_status": "PARTIAL_SUCCESS",
        "job_error": "one page could not be read",
        "credits": None,
        "parse_job_id": None,
        "job_record_id": "rec-1",
        "user_id": "u",
        "project_id": "p",
        "created_at": "2026-11-25T02:00:00.000+00:00",
        "updated_at": None,
        "effective_at": "2026-11-25T02:00:00.000+00:00",
    }
