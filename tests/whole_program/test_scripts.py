"""The scripts as cron, systemd, CI and a newcomer run them: real processes, from elsewhere, in bare environments."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from aiohttp import web
from support import documented
from support.server import CANARY, Answer, Server

from orchestrator import __version__, logs
from orchestrator.errors import ExitCode
from orchestrator.manifest import loading

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
SHELL_SCRIPTS = [
    *(ROOT / "scripts" / name for name in ("setup", "demo", "test", "check", "nightly", "upload")),
    ROOT / ".ci/run",
]
DOCUMENTS = sorted((CONFIGS / "documents").iterdir())

#: What is installed, in the order that its digest is made of.
LOCKED = ("scripts/requirements.lock", "scripts/sdk.lock", "pyproject.toml")

#: With ``false`` for a Python, setup fails as soon as it tries to install.
TRY_TO_INSTALL = {"PATH": os.environ["PATH"], "PYTHON": "false"}

Serve = Callable[[Answer], Server]


def call(*command: str | Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run *command* as cron would: from the root folder, without a terminal, and with nothing in the environment."""
    return subprocess.run(
        [*map(str, command)], cwd="/", env=dict(env or {}), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip


@pytest.fixture
def night(tmp_path: Path) -> Path:
    """A manifest with one file in a folder with a space in its name."""
    folder = tmp_path / "my night"
    folder.mkdir()
    path = folder / "nightly.yaml"
    path.write_text(
        "version: 1\nname: night\nfile_ids: [182bd5e5-6e1a-4fe4-a799-aa6d9a6ab26e]\n"
        "rules: [{type: invoice, description: has an invoice number}]\n"
    )  # fmt: skip
    return path


def write_env(night: Path, *lines: str, mode: int = 0o600) -> Path:
    path = night.parent / ".env"
    path.write_text("".join(f"{line}\n" for line in lines))
    path.chmod(mode)
    return path


def nightly(night: Path, *options: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return call(ROOT / "scripts/nightly", night, *options, env=env)


def log_of(night: Path) -> str:
    """Of all runs of the night."""
    return "".join(path.read_text() for path in sorted((night.parent / "logs").rglob("*.jsonl")))


async def refuse_key(request: web.Request) -> web.StreamResponse:
    return web.json_response({"detail": "Invalid API key"}, status=401)


async def accept_anything(request: web.Request) -> web.StreamResponse:
    return web.Response()


def project_without_venv(folder: Path) -> Path:
    """A copy of what scripts/setup and scripts/nightly look at, with a space in its path."""
    root = folder / "a project"
    for part in ("scripts/setup", "scripts/nightly", *LOCKED,
                 "orchestrator/errors.py"):  # fmt: skip
        (root / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / part, root / part)
    return root


@pytest.mark.parametrize("script", SHELL_SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_bash_that_parses_and_may_be_executed(script: Path) -> None:
    """A stranger can run each right after cloning."""
    assert script.read_text().startswith("#!/usr/bin/env bash\n# ")
    assert os.access(script, os.X_OK)
    assert call("/bin/bash", "-n", script).stderr == ""


class TestSetup:
    @staticmethod
    def installed(root: Path) -> None:
        """Leave behind what an earlier setup of *root* would, without the packages."""
        (root / ".venv/bin").mkdir(parents=True)
        (root / ".venv/bin/pip").write_text(f"#!{root}/.venv/bin/python\n")
        (root / ".venv/bin/python").symlink_to(sys.executable)
        inputs = b"".join((root / part).read_bytes() for part in LOCKED)
        digest = subprocess.run(["sha256sum"], input=inputs, capture_output=True, check=True).stdout
        (root / ".venv/setup.sha256").write_bytes(digest)

    def test_an_old_python_is_named_with_what_to_do(self, tmp_path: Path) -> None:
        """No traceback of pip, but one line."""
        done = call(project_without_venv(tmp_path) / "scripts/setup", env=TRY_TO_INSTALL)
        assert done.returncode == 2
        assert done.stderr == (
            "setup: needs Python 3.11 or newer, and false is not; try: PYTHON=/path/to/python3.12 scripts/setup\n"
        )

    def test_a_failed_installation_shows_what_the_installer_said(self, tmp_path: Path) -> None:
        """And is tried again by the next call."""
        root = project_without_venv(tmp_path)
        python = tmp_path / "python"
        python.write_text('#!/bin/sh\n[ "$1" = -c ] || { echo "ensurepip is not available"; exit 1; }\n')
        python.chmod(0o755)
        for _ in range(2):
            done = call(root / "scripts/setup", env={"PYTHON": str(python)})
            assert done.returncode == 1
            assert done.stderr.splitlines()[1:] == ["ensurepip is not available", "setup: failed, see above"]

    def test_a_second_call_does_nothing(self, tmp_path: Path) -> None:
        """It is quiet, and asks nothing of Python's installer."""
        root = project_without_venv(tmp_path)
        self.installed(root)
        done = call(root / "scripts/setup", env=TRY_TO_INSTALL)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    @pytest.mark.parametrize("changed", LOCKED)
    def test_a_changed_dependency_is_installed(self, tmp_path: Path, changed: str) -> None:
        """One byte more in what is to be installed, and the stamp no longer holds."""
        root = project_without_venv(tmp_path)
        self.installed(root)
        with (root / changed).open("a") as file:
            file.write("\n")
        assert call(root / "scripts/setup", env=TRY_TO_INSTALL).returncode == 2

    def test_a_copied_project_is_installed_again(self, tmp_path: Path) -> None:
        """The copy's .venv would run the code of the folder it came from."""
        root = project_without_venv(tmp_path)
        self.installed(root)
        copy = shutil.copytree(root, tmp_path / "copy", symlinks=True)
        assert call(copy / "scripts/setup", env=TRY_TO_INSTALL).returncode == 2


class TestNightly:
    def test_a_good_night_prints_nothing(self, night: Path) -> None:
        """Without a home, a locale, a terminal or a PATH; the summary is in the log, the ledger beside the manifest."""
        done = nightly(night, "--sandbox")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert "every file has an outcome" in log_of(night)
        assert (night.parent / "ledger.db").is_file()

    def test_the_key_comes_from_the_env_file_and_goes_to_the_api_only(self, night: Path, serve: Serve) -> None:
        """Neither the mail nor the log shows it."""
        server = serve(refuse_key)
        write_env(night, f"LLAMA_CLOUD_API_KEY='{CANARY}'", f"LLAMA_CLOUD_BASE_URL={server.url}")
        done = nightly(night)
        assert done.returncode == ExitCode.UNAUTHORIZED
        assert server.seen[0].headers["Authorization"] == f"Bearer {CANARY}"
        assert CANARY not in done.stdout + done.stderr + log_of(night)

    def test_a_linked_manifest_has_its_ledger_beside_the_real_file(self, night: Path, tmp_path: Path) -> None:
        """As in a run by hand: two ledgers for one manifest would pay twice."""
        link = tmp_path / "linked.yaml"
        link.symlink_to(night)
        assert nightly(link, "--sandbox").returncode == 0
        assert (night.parent / "ledger.db").is_file()
        assert not (tmp_path / "ledger.db").exists()

    def test_a_failed_night_says_why(self, night: Path, serve: Serve) -> None:
        """The mail has the exit code's meaning and the end of the log, with the API's words."""
        server = serve(refuse_key)
        write_env(night, f"LLAMA_CLOUD_API_KEY={CANARY}", f"LLAMA_CLOUD_BASE_URL={server.url}")
        first, *rest = nightly(night).stdout.splitlines()
        assert first.startswith("night: exit 5: ")
        end = rest.index("")
        assert any(line.startswith("now: ") and " doctor " in line for line in rest[:end])
        assert rest[end + 1].startswith(f"the last lines of {night.parent}/logs/night/")
        log = rest[end + 2 :]
        assert any("Invalid API key" in line for line in log)

    def test_an_env_file_that_others_can_read_is_refused(self, night: Path, serve: Serve) -> None:
        """Nothing is sent with a key that is no secret."""
        server = serve(refuse_key)
        path = write_env(night, f"LLAMA_CLOUD_API_KEY={CANARY}", f"LLAMA_CLOUD_BASE_URL={server.url}", mode=0o640)
        done = nightly(night)
        assert done.returncode == ExitCode.USAGE
        assert f"{path} " in done.stderr and f"chmod 600 {path}" in done.stderr
        assert server.seen == []

    def test_the_env_file_is_not_run_as_shell(self, night: Path) -> None:
        """A key with a dollar sign, or a line pasted by mistake, does nothing."""
        write_env(night, "LLAMA_CLOUD_API_KEY=$(touch pwned)", "touch pwned")
        nightly(night, "--base-url", "http://127.0.0.1:9", env={"ORCHESTRATOR_RETRY_BUDGET_S": "0"})
        assert not list(night.parent.rglob("pwned"))

    def test_the_environment_wins_over_the_env_file(self, night: Path, serve: Serve) -> None:
        """As it does without the script."""
        server = serve(refuse_key)
        write_env(night, f"LLAMA_CLOUD_API_KEY={CANARY}", "LLAMA_CLOUD_BASE_URL=http://127.0.0.1:9")
        assert nightly(night, env={"LLAMA_CLOUD_BASE_URL": server.url}).returncode == ExitCode.UNAUTHORIZED

    def test_each_run_has_a_private_log_of_its_own(self, night: Path) -> None:
        """Named by the run, in a folder of the manifest that only its owner enters."""
        nightly(night, "--sandbox")
        nightly(night, "--sandbox")
        first, second = (night.parent / "logs/night").iterdir()
        for log in (first, second):
            began = json.loads(log.read_text().splitlines()[0])
            assert (began["event"], began["run_id"]) == ("run.started", log.stem)
            assert stat.S_IMODE(log.stat().st_mode) == 0o600
        assert stat.S_IMODE(first.parent.stat().st_mode) == stat.S_IMODE(first.parent.parent.stat().st_mode) == 0o700

    def test_logs_older_than_thirty_days_are_removed(self, night: Path) -> None:
        """Only this manifest's logs; nothing else that happens to be there."""
        logs = night.parent / "elsewhere"
        for name in ("night/2020-a.jsonl", "night/2020-b.jsonl", "other/2020-a.jsonl", "night/2020.txt"):
            (logs / name).parent.mkdir(parents=True, exist_ok=True)
            (logs / name).touch()
            os.utime(logs / name, (0, 0))
        os.utime(logs / "night/2020-b.jsonl")
        nightly(night, "--sandbox", env={"ORCHESTRATOR_LOG_DIR": str(logs)})
        kept = {str(path.relative_to(logs)) for path in logs.rglob("*2020*")}
        assert kept == {"night/2020-b.jsonl", "other/2020-a.jsonl", "night/2020.txt"}

    def test_a_monitor_is_told_of_start_and_exit_code(self, night: Path, serve: Serve) -> None:
        """In the way that healthchecks.io and its kin understand."""
        monitor = serve(accept_anything)
        done = nightly(night, "--sandbox", env={"ORCHESTRATOR_PING_URL": f"{monitor.url}/check/"})
        told = [seen.path.partition("?")[0] for seen in monitor.seen]
        assert told == ["/check/start", f"/check/{done.returncode}"]

    def test_a_monitor_that_fails_changes_nothing_but_the_log(self, night: Path, serve: Serve) -> None:
        """The exit code is the run's; the mail does not speak of the monitor."""
        monitor = serve(refuse_key)
        done = nightly(night, "--sandbox", env={"ORCHESTRATOR_PING_URL": monitor.url})
        assert (done.returncode, done.stdout) == (ExitCode.OK, "")
        assert log_of(night).count("ping.failed") == 2

    def test_sigterm_is_passed_on_and_the_run_ends_in_order(self, night: Path, serve: Serve) -> None:
        """systemd stops it on shutdown: exit code 3, and the report still comes."""
        created = threading.Event()

        async def never_done(request: web.Request) -> web.StreamResponse:
            job = {"id": "3f2504e0-4f89-41d3-9a0c-0305e82c3301", "project_id": "p", "user_id": "u", "rules": [],
                   "status": "PENDING"}  # fmt: skip
            if request.method == "GET":
                created.set()
                if request.path.endswith("/jobs"):
                    return web.json_response({"items": [], "next_page_token": None})
            return web.json_response(job)

        server = serve(never_done)
        write_env(night, f"LLAMA_CLOUD_API_KEY={CANARY}", f"LLAMA_CLOUD_BASE_URL={server.url}")
        process = subprocess.Popen(
            [ROOT / "scripts/nightly", night],
            cwd="/",
            env={},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            assert created.wait(30)
            process.send_signal(signal.SIGTERM)
            said, _ = process.communicate(timeout=300)
        finally:
            with suppress(ProcessLookupError):  # the usual case: all of it has ended
                os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == ExitCode.UNFINISHED
        assert said.startswith("night: exit 3: stopped by SIGTERM")

    def test_a_missing_manifest_is_named(self, tmp_path: Path) -> None:
        """Nothing else happens."""
        done = nightly(tmp_path / "absent.yaml")
        assert done.returncode == 2
        assert done.stdout.startswith(f"absent: exit 2: {tmp_path}/absent.yaml:1:1: can't be read")

    def test_without_setup_it_says_so_and_installs_nothing(self, tmp_path: Path, night: Path) -> None:
        """A night is no time to change software."""
        root = project_without_venv(tmp_path)
        done = call(root / "scripts/nightly", night)
        assert (done.returncode, done.stderr) == (
            2,
            f"nightly: {root}/.venv is missing; run {root}/scripts/setup once\n",
        )
        assert not (root / ".venv").exists()

    @pytest.mark.parametrize("code", [0, 3, 99])
    def test_each_exit_code_is_passed_on(self, tmp_path: Path, night: Path, code: int) -> None:
        """The script only finds the program: the arguments are handed on as they are."""
        root = project_without_venv(tmp_path)
        program = root / ".venv/bin/orchestrator"
        program.parent.mkdir(parents=True)
        program.write_text(f'#!/bin/sh\necho "$@"\nexit {code}\n')
        program.chmod(0o755)
        done = call(root / "scripts/nightly", night, "--deadline", "6h")
        assert (done.returncode, done.stdout) == (code, f"nightly {night} --deadline 6h\n")


class TestUpload:
    @pytest.mark.parametrize(
        ("given", "handed_on"), [(["a", "b"], "upload --ids a b"), (["--csv", "a", "b"], "upload a b")]
    )
    def test_it_only_calls_the_program(self, tmp_path: Path, given: list[str], handed_on: str) -> None:
        """IDs alone, or with ``--csv`` a list with names; the exit code is the program's."""
        root = project_without_venv(tmp_path)
        shutil.copy(ROOT / "scripts/upload", root / "scripts/upload")
        setup, program = root / "scripts/setup", root / ".venv/bin/orchestrator"
        setup.write_text("#!/bin/sh\n")
        program.parent.mkdir(parents=True)
        program.write_text('#!/bin/sh\necho "$@"\nexit 3\n')
        program.chmod(0o755)
        done = call(root / "scripts/upload", *given)
        assert (done.returncode, done.stdout) == (3, f"{handed_on}\n")


class TestDemo:
    def test_it_sorts_the_documents_sends_nothing_twice_and_leaves_nothing(self, tmp_path: Path) -> None:
        """As README shows: each text gets the type that its name begins with, the soup none."""
        done = call(ROOT / "scripts/demo", env={"TMPDIR": str(tmp_path), "LLAMA_CLOUD_API_KEY": CANARY})
        assert (done.returncode, list(tmp_path.iterdir())) == (0, [])
        rows = re.findall(r"^(\S+)\.txt +(classified|unmatched) +(\S*?) +[\d.]+$", done.stdout, re.MULTILINE)
        assert len(rows) == len(DOCUMENTS) + 1, "the duplicate has a row of its own"
        assert re.search(r"^locked\.pdf +failed", done.stdout, re.MULTILINE)
        placed = set(re.findall(r"^sorted/(\w+)/(\S+)$", done.stdout, re.MULTILINE))
        assert {(kind, f"{name}.txt") for name, _, kind in rows if kind} | {
            ("unmatched", "soup.txt"),
            ("failed", "locked.pdf"),
        } == placed
        assert {(name, kind) for name, _, kind in rows if kind != name.partition("-")[0]} == {("soup", "")}
        assert re.findall(r"(\d+) jobs created, (\d+) files had", done.stdout) == [("3", "0"), ("0", "15")]


class TestExamples:
    def test_the_documents_of_the_demo_are_texts(self) -> None:
        """Fourteen, none of them empty."""
        assert len(DOCUMENTS) == 14
        assert all(len(path.read_text()) > 200 for path in DOCUMENTS)

    def test_each_type_of_the_demo_has_documents_and_one_document_has_no_type(self) -> None:
        """A file's name begins with the type that a reader would give it."""
        rules = loading.load(str(CONFIGS / "demo.yaml"), environ={}).config.rules
        kinds = [path.name.partition("-")[0] for path in DOCUMENTS]
        assert {rule.type for rule in rules} == set(kinds) - {"soup.txt"}

    @pytest.mark.parametrize("name", ["crontab.example", "orchestrator-nightly.service"])
    def test_the_schedules_call_what_is_there(self, name: str) -> None:
        """The script, an example manifest, and options that the command line has."""
        line = re.search(r"/opt/orchestrator/(\S+) /srv/classify/(\S+) (.*)", (CONFIGS / name).read_text())
        assert line is not None
        script, example, options = line.groups()
        assert os.access(ROOT / script, os.X_OK)
        assert (CONFIGS / example).is_file()
        help_text = call(sys.executable, "-m", "orchestrator", "run", "--help").stdout
        assert all(option in help_text for option in re.findall(r"--\S+", options))

    def test_the_crontab_calls_nothing_but_the_script(self) -> None:
        """Cron's mail has the whole entry as its subject."""
        entry = (CONFIGS / "crontab.example").read_text().splitlines()[-1]
        assert entry == "20 4 * * *  /opt/orchestrator/scripts/nightly /srv/classify/nightly.yaml --deadline 6h"

    def test_the_timer_starts_the_service_of_its_name(self) -> None:
        """And is enabled with the machine's other timers."""
        timer = CONFIGS / "orchestrator-nightly.timer"
        assert timer.with_suffix(".service").is_file()
        assert "WantedBy=timers.target" in timer.read_text()

    def test_the_workers_service_starts_a_worker_and_gives_it_time_to_end(self) -> None:
        """With options that the command has; systemd waits longer than a worker takes, and starts it again."""
        service = (CONFIGS / "orchestrator-worker.service").read_text()
        found = re.search(r"ExecStart=/opt/orchestrator/.venv/bin/orchestrator work (.*)", service)
        assert found is not None
        help_text = call(sys.executable, "-m", "orchestrator", "work", "--help").stdout
        assert all(option in help_text for option in re.findall(r"--\S+", found[1]))
        assert {"Restart=always", "KillMode=mixed", "TimeoutStopSec=15"} <= set(service.splitlines())

    def test_the_env_example_has_every_setting_with_its_default(self) -> None:
        """And none that nobody reads."""
        text = (CONFIGS / ".env.example").read_text()
        found = {match[1]: match[2] for match in re.finditer(r"^(?:# )?([A-Z_]+)=(.*)$", text, re.MULTILINE)}
        assert found.pop("LLAMA_CLOUD_API_KEY").startswith("llx-")
        expected = documented.defaults()
        del expected["LLAMA_CLOUD_API_KEY"]
        assert found == expected

    def test_the_readme_has_every_setting_and_every_exit_code(self) -> None:
        """With the default that the program has, and the meaning that it gives."""
        text = (ROOT / "README.md").read_text()
        defaults = dict(re.findall(r"^\| `([A-Z_]+)` \| `?([^ `|]*)`? ?\|", text, re.MULTILINE))
        assert defaults == documented.defaults()
        assert [int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)] == list(ExitCode)

    def test_the_readme_has_every_event_of_the_log(self) -> None:
        """In the words that `orchestrator logs` shows."""
        text = (ROOT / "README.md").read_text()
        section = text[text.index("## Events of the log") :]
        assert dict(re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \| (.*) \|$", section, re.MULTILINE)) == logs.EVENTS

    def test_the_changelog_begins_with_the_programs_version(self) -> None:
        """Which stands in one place, the package itself."""
        heading = re.search(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
        assert heading is not None
        assert re.fullmatch(rf"{re.escape(__version__)} - 20\d\d-\d\d-\d\d", heading[1])
        assert not re.search(r"^version\s*=", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
