"""As cron starts it: hardly any environment, no terminal, the root folder, somebody's umask, any locale."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.api_server import answer_to
from support.procs import KEY, ORCHESTRATOR, PATIENCE_S, ApiServer, write_manifest

from orchestrator.errors import ExitCode

FILES = [f"f{i}" for i in range(20)]

#: The second and third keep Python from helping itself to UTF-8.
LOCALES = {
    "unset": {},
    "C": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "latin-1": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "iso-8859-1"},
}


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    with ApiServer() as server:
        yield server


def cron(env: dict[str, str], *command: str, umask: int = 0) -> subprocess.CompletedProcess[bytes]:
    """Run *command* with *env* and nothing else, in a session of its own, in the root folder."""
    return subprocess.run(
        [*ORCHESTRATOR, *command],
        env=env,
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        umask=umask,
        start_new_session=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.mark.parametrize("locale", LOCALES)
def test_the_results_are_the_same_whatever_cron_says(server: ApiServer, tmp_path: Path, locale: str) -> None:
    """Run and export work in any locale, the exported text is exact, and only what -o names is as the umask says."""
    env = {"LLAMA_CLOUD_API_KEY": KEY, "LLAMA_CLOUD_BASE_URL": server.url, **LOCALES[locale]}
    folder = tmp_path / "Größe ✓"
    folder.mkdir()
    manifest = write_manifest(folder, FILES)
    given = set(folder.iterdir())
    done = cron(env, "run", str(manifest))
    exported = cron(env, "export", str(manifest), "-o", str(folder / "out.jsonl"))
    assert (done.returncode, exported.returncode) == (ExitCode.OK, ExitCode.OK), done.stderr + exported.stderr
    rows = [json.loads(line) for line in (folder / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    told = {row["file_id"]: (row["type"], row["confidence"], row["reasoning"]) for row in rows}
    assert told == {file_id: tuple(answer_to(file_id).values()) for file_id in FILES}
    written = set(folder.iterdir()) - given
    assert {path.name for path in written} >= {"ledger.db", "ledger.db.night.lock", "out.jsonl"}
    assert {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in written} == {
        path.name: oct(0o666 if path.name == "out.jsonl" else 0o700 if path.is_dir() else 0o600)
        for path in written  # the umask of this cron is 0
    }


def test_the_log_is_one_json_object_a_line_and_says_no_secret(server: ApiServer, tmp_path: Path) -> None:
    """Without a terminal standard error is for machines, and the key is in neither stream."""
    manifest = write_manifest(tmp_path, FILES)
    done = cron({"LLAMA_CLOUD_API_KEY": KEY, "LLAMA_CLOUD_BASE_URL": server.url}, "run", str(manifest), "--json")
    events = [json.loads(line)["event"] for line in done.stderr.splitlines()]
    assert events[:3] == ["run.started", "ledger.created", "run.planned"]
    assert events[-1] == "run.finished"
    assert json.loads(done.stdout)["classified"] == sum(answer_to(file_id)["type"] is not None for file_id in FILES)
    assert KEY.encode() not in done.stdout + done.stderr


def test_a_mistake_is_reported_in_any_locale(tmp_path: Path) -> None:
    """A manifest whose path and mistake can't be spelt in ASCII: exit 2 and one line, not a UnicodeEncodeError."""
    manifest = tmp_path / "Größe ✓.yaml"
    manifest.write_text("version: 1\nnäme: ✓\n", encoding="utf-8")
    told = cron({"LLAMA_CLOUD_API_KEY": KEY, **LOCALES["C"]}, "run", os.fspath(manifest))
    assert told.returncode == ExitCode.USAGE
    assert b"Error" not in told.stderr
    assert b".yaml:2:1: " in told.stderr


def test_without_a_key_the_run_says_which_variable_to_set(tmp_path: Path) -> None:
    """Cron does not read a login shell's profile: the most likely first mistake gets the clearest answer."""
    told = cron({}, "run", str(write_manifest(tmp_path, FILES)))
    assert told.returncode == ExitCode.USAGE
    assert b"LLAMA_CLOUD_API_KEY is not set" in told.stderr
