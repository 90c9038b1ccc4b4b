"""The command line as cron and people use it: a process, its exit code, its two streams, and what the API was sent."""

from __future__ import annotations

import json
import os
import pty
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

import forked
import pytest
import typer
from aiohttp import web
from conftest import CANARY, Answer, Server
from forked import Done
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.models import Json

Serve = Callable[[Answer], Server]

MANIFEST = """\
version: 1
name: letters
rules:
  - type: invoice
    description: contains line items and a total
  - type: receipt
    description: proof of a payment that was made
chunk_size: {size}
file_ids:
{ids}
"""

#: What a terminal obeys, hides, or turns around.
HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\n\x9b31m\u202egnp.exe\u2066\u200b\u2028\x00\ud800END"
HARMFUL = {chr(code) for code in (*range(0x20), *range(0x7F, 0xA0), 0x202E, 0x2066, 0x200B, 0x2028)} - {"\n"}


class Classify:
    """A v1 API whose jobs end at once, with every file an invoice; results come in pages."""

    def __init__(self, page_size: int = 1000) -> None:
        self.jobs: dict[str, list[str]] = {}
        self.page_size = page_size
        self.status = "SUCCESS"
        self.error: str | None = None
        self.result: Json = {"type": "invoice", "confidence": 0.9, "reasoning": "has a total"}
        self.refuse_after: int | None = None  #: answer 402 to every create after so many

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        parts = request.path.removeprefix("/api/v1/classifier/jobs").strip("/").split("/")
        if request.method == "POST":
            if self.refuse_after is not None and len(self.jobs) >= self.refuse_after:
                return web.json_response({"detail": "No quota left to create a job"}, status=402)
            job_id = f"job-{len(self.jobs)}"
            self.jobs[job_id] = (await request.json())["file_ids"]
            return web.json_response(self._job(job_id))
        if parts == [""]:
            return web.json_response({"items": [self._job(job_id) for job_id in self.jobs]})
        if parts[1:] == ["results"]:
            start = int(request.query.get("page_token", "0"))
            end = start + self.page_size
            file_ids = self.jobs[parts[0]]
            items = [{"id": "i", "file_id": file_id, "result": self.result} for file_id in file_ids[start:end]]
            return web.json_response({"items": items, "next_page_token": str(end) if end < len(file_ids) else None})
        return web.json_response(self._job(parts[0]))

    def _job(self, job_id: str) -> dict[str, Json]:
        return {
            "id": job_id,
            "status": self.status,
            "error_message": self.error,
            "rules": [],
            "user_id": "u",
            "project_id": "p",
            "created_at": "2026-11-25T02:00:00Z",
        }


def refusing(status: int, detail: str = "no", headers: dict[str, str] | None = None) -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response({"detail": detail}, status=status, headers=headers)

    return answer


class Cli:
    """Runs the program in a folder of its own, as cron would: no terminal, few variables."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {
            "PATH": os.environ["PATH"],
            "LLAMA_CLOUD_API_KEY": CANARY,
            "ORCHESTRATOR_SETTLE_S": "0.1",
            "ORCHESTRATOR_RETRY_BUDGET_S": "0.5",
            "ORCHESTRATOR_CREATES_PER_S": "1000",
            "ORCHESTRATOR_READS_PER_S": "1000",
            "ORCHESTRATOR_LISTS_PER_S": "1000",
        }

    def __call__(self, *arguments: str, **environ: str) -> Done:
        """The result; that the key is in no output and in no file is checked every time."""
        done = forked.run(*arguments, folder=self.folder, environ={**self.environ, **environ})
        assert CANARY not in done.stdout + done.stderr
        for path in self.folder.rglob("*"):
            if path.is_file():
                assert CANARY.encode() not in path.read_bytes(), path
        return done

    def process(
        self,
        *arguments: str,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
        environ: Mapping[str, str] = MappingProxyType({}),
    ) -> subprocess.CompletedProcess[bytes]:
        """The same as a process that starts anew, with streams of one's own."""
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "orchestrator", *arguments],
            cwd=self.folder,
            env={**self.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            check=False,
        )

    def manifest(self, *file_ids: str, size: int = 100) -> None:
        ids = "\n".join(f"  - {file_id}" for file_id in file_ids)
        (self.folder / "m.yaml").write_text(MANIFEST.format(size=size, ids=ids))

    def use(self, server: Server) -> None:
        self.environ["LLAMA_CLOUD_BASE_URL"] = server.url

    def state(self) -> dict[str, Json]:
        """What ``status`` says of the one manifest."""
        (state,) = json.loads(self("status", "--json").stdout)["manifests"]
        return dict(state)

    def exported(self) -> list[dict[str, Json]]:
        return [json.loads(line) for line in self("export").stdout.splitlines()]


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    cli = Cli(tmp_path)
    cli.manifest("a", "b", "c")
    yield cli
    for path in tmp_path.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 or path.name == "m.yaml", path


def creates(server: Server) -> int:
    return sum(seen.method == "POST" for seen in server.seen)


def commands() -> list[str]:
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    return sorted(group.commands)


@pytest.mark.parametrize("command", commands())
def test_every_command_explains_itself(command: str) -> None:
    """What it does, and every option it takes."""
    shown = CliRunner().invoke(app, [command, "--help"])
    assert shown.exit_code == 0
    about = shown.output.split("\n\n")[1].strip()
    assert about
    assert not about.startswith("Options")


def test_without_a_command_it_says_what_there_is(cli: Cli) -> None:
    """Every command is listed."""
    shown = cli("--help")
    assert shown.returncode == 0
    for command in commands():
        assert f"\n  {command} " in shown.stdout


@pytest.mark.parametrize(
    "call",
    [
        ["fly"],
        ["run"],
        ["run", "nowhere.yaml"],
        ["run", "m.yaml", "--fast"],
        ["run", "m.yaml", "--api", "v3"],
        ["run", "m.yaml", "--chunk-size", "501"],
        ["run", "m.yaml", "--chunk-size", "0"],
        ["run", "m.yaml", "--deadline", "soon"],
        ["run", "m.yaml", "--fault", "x=1"],
        ["run", "m.yaml", "--base-url", "http://api.example"],
        ["run", "m.yaml", "--base-url", "https://["],
        ["run", "m.yaml", "--ledger", "postgresql://host/db"],
        ["export", "--format", "xml"],
        ["validate", "."],
    ],
    ids=" ".join,
)
def test_a_wrong_call_exits_2_and_does_nothing(cli: Cli, call: list[str]) -> None:
    """With one line or a usage text on stderr, nothing on stdout, no ledger, no traceback."""
    done = cli(*call)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.strip()
    assert "Traceback" not in done.stderr
    assert {path.name for path in cli.folder.iterdir()} <= {"m.yaml", "ledger.db.letters.lock"}


def test_a_wrong_call_says_so_in_json_too(cli: Cli) -> None:
    """A script reads one object however the run ended."""
    done = cli("run", "nowhere.yaml", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["exit_code"], told["files"]) == (2, 2, 0)
    assert "nowhere.yaml" in told["reason"]


def test_a_key_file_that_others_can_read_is_refused(cli: Cli, serve: Serve) -> None:
    """Nothing is sent with a key that is none any more."""
    server = serve(Classify())
    cli.use(server)
    (cli.folder / "m.env").write_text("LLAMA_CLOUD_API_KEY=another-key-altogether\n")
    (cli.folder / "m.env").chmod(0o644)
    done = cli("run", "m.yaml", LLAMA_CLOUD_API_KEY="", ORCHESTRATOR_ENV_FILE="m.env")
    (cli.folder / "m.env").unlink()
    assert (done.returncode, server.seen) == (2, [])
    assert "chmod 600" in done.stderr


def test_another_api_needs_another_ledger(cli: Cli, serve: Serve) -> None:
    """Jobs of one would be looked for at the other; nothing is sent to either."""
    server = serve(Classify())
    cli.use(server)
    cli("run", "m.yaml")
    before = len(server.seen)
    done = cli("run", "m.yaml", "--base-url", "https://api.example")
    assert (done.returncode, len(server.seen)) == (2, before)
    assert "loopback" in done.stderr
    assert "api.example" in done.stderr


def test_a_run_without_a_key_exits_2(cli: Cli) -> None:
    """And says what to set."""
    done = cli("run", "m.yaml", LLAMA_CLOUD_API_KEY="")
    assert done.returncode == 2
    assert "LLAMA_CLOUD_API_KEY" in done.stderr


def test_a_run_ends_with_one_outcome_for_each_file(cli: Cli, serve: Serve) -> None:
    """Exit 0; and a second run sends not one request."""
    server = serve(Classify())
    cli.use(server)
    assert cli("run", "m.yaml").returncode == 0
    assert [(row["file_id"], row["outcome"], row["type"]) for row in cli.exported()] == [
        (file_id, "classified", "invoice") for file_id in "abc"
    ]
    before = len(server.seen)
    again = cli("run", "m.yaml", "--json")
    assert again.returncode == 0
    assert len(server.seen) == before
    assert json.loads(again.stdout)["skipped"] == 3


def test_a_grown_manifest_sends_only_what_is_new(cli: Cli, serve: Serve) -> None:
    """Wherever the new file stands."""
    api = Classify()
    cli.use(serve(api))
    cli("run", "m.yaml")
    cli.manifest("new", "a", "b", "a", "c")
    assert cli("run", "m.yaml").returncode == 0
    assert list(api.jobs.values()) == [["a", "b", "c"], ["new"]]


def test_json_stands_alone_on_stdout(cli: Cli, serve: Serve) -> None:
    """Logs go to stderr, each line of it JSON too."""
    cli.use(serve(Classify()))
    done = cli("run", "m.yaml", "--json", ORCHESTRATOR_LOG_LEVEL="DEBUG")
    summary = json.loads(done.stdout)
    assert (summary["files"], summary["classified"], summary["exit_code"]) == (3, 3, 0)
    for line in done.stderr.splitlines():
        json.loads(line)


def test_quiet_is_quiet(cli: Cli, serve: Serve) -> None:
    """A good night's mail is empty."""
    cli.use(serve(Classify()))
    done = cli("run", "m.yaml", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_no_file_is_lost_at_the_edge_of_a_page(cli: Cli, serve: Serve) -> None:
    """1,000 files in jobs of 500, their results 40 a page."""
    file_ids = [f"file-{n}" for n in range(1000)]
    cli.manifest(*file_ids, size=500)
    server = serve(Classify(page_size=40))
    cli.use(server)
    summary = json.loads(cli("run", "m.yaml", "--json").stdout)
    assert (summary["classified"], summary["missing"], creates(server)) == (1000, 0, 2)
    assert [row["file_id"] for row in cli.exported()] == file_ids


@pytest.mark.parametrize(("status", "code"), [(401, 5), (403, 5), (402, 6)])
def test_a_refused_key_or_an_empty_account_stops_and_marks_nothing_failed(
    cli: Cli, serve: Serve, status: int, code: int
) -> None:
    """One create call is enough to know; once the trouble is over, the next run goes on."""
    cli.manifest("a", "b", "c", size=1)
    server = serve(refusing(status, f"refused {CANARY}"))
    cli.use(server)
    done = cli("run", "m.yaml", "--json", ORCHESTRATOR_LOG_LEVEL="DEBUG")
    summary = json.loads(done.stdout)
    assert (done.returncode, summary["exit_code"]) == (code, code)
    assert (summary["failed"], summary["unfinished"], summary["jobs_created"]) == (0, 3, 0)
    assert str(status) in summary["reason"]
    state = cli.state()
    assert (state["failed"], state["unfinished"]) == (0, 3)
    cli.use(serve(Classify()))
    assert cli("run", "m.yaml").returncode == 0


def test_when_credits_run_out_half_way_what_was_bought_is_collected(cli: Cli, serve: Serve) -> None:
    """Exit 6, the first file has its outcome, the others wait."""
    cli.manifest("a", "b", "c", size=1)
    api = Classify()
    api.refuse_after = 1
    cli.use(serve(api))
    done = cli("run", "m.yaml", "--json")
    summary = json.loads(done.stdout)
    assert (done.returncode, summary["classified"], summary["failed"]) == (6, 1, 0)
    api.refuse_after = None
    assert cli("run", "m.yaml").returncode == 0
    assert sorted(api.jobs.values()) == [["a"], ["b"], ["c"]]


def test_an_api_that_is_not_there_exits_7(cli: Cli, unused_port: int) -> None:
    """After the retry budget; nothing is marked failed."""
    cli.environ["LLAMA_CLOUD_BASE_URL"] = f"http://127.0.0.1:{unused_port}"
    done = cli("run", "m.yaml", "--json")
    summary = json.loads(done.stdout)
    assert (done.returncode, summary["failed"], summary["unfinished"]) == (7, 0, 3)
    assert cli.state()["failed"] == 0


def test_a_withdrawn_v1_exits_7_and_names_v2(cli: Cli, serve: Serve) -> None:
    """The routes are unpublished; one night they will be gone."""
    cli.use(serve(refusing(404, "Not Found")))
    done = cli("run", "m.yaml")
    assert done.returncode == 7
    assert "api: v2" in done.stdout + done.stderr
    assert cli.state()["failed"] == 0


def test_a_redirect_exits_9(cli: Cli, serve: Serve) -> None:
    """The key goes nowhere else."""
    other = serve(Classify())
    cli.use(serve(refusing(307, headers={"Location": other.url})))
    assert cli("run", "m.yaml").returncode == 9
    assert other.seen == []


def test_a_refused_chunk_fails_with_the_apis_words(cli: Cli, serve: Serve) -> None:
    """Exit 1; each file carries why."""
    cli.manifest("a")
    cli.use(serve(refusing(400, "File ID a is not in Project ID p")))
    assert cli("run", "m.yaml").returncode == 1
    (row,) = cli.exported()
    assert (row["outcome"], row["error"]) == ("failed", "400 File ID a is not in Project ID p")


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR"])
def test_the_key_is_in_no_output_at_any_log_level(cli: Cli, serve: Serve, level: str) -> None:
    """Even when the API repeats it in its own words, in every field it has."""
    api = Classify()
    api.status, api.error = "PARTIAL_SUCCESS", f"key {CANARY} did this"
    api.result = {"type": "invoice", "confidence": 2, "reasoning": "has a total"}
    cli.use(serve(api))
    assert cli("run", "m.yaml", ORCHESTRATOR_LOG_LEVEL=level).returncode == 0
    assert cli("status", "m.yaml").returncode == 0


def test_hostile_text_from_the_api_is_harmless_on_a_terminal(cli: Cli, serve: Serve) -> None:
    """In types, reasons and errors, on both streams of every command that shows them."""
    api = Classify()
    api.result = {"type": HOSTILE, "confidence": 0.5, "reasoning": HOSTILE}
    api.error = HOSTILE
    cli.use(serve(api))
    shown = [cli("run", "m.yaml"), cli("status"), cli("export")]
    assert [done.returncode for done in shown] == [0, 0, 0]
    api.status, api.result = "ERROR", None
    cli.manifest("d")
    shown += [cli("run", "m.yaml"), cli("status"), cli("status", "--json"), cli("export")]
    cli.use(serve(refusing(401, HOSTILE)))
    cli.manifest("e")
    shown += [cli("run", "m.yaml"), cli("run", "m.yaml", "--json"), cli("status")]
    for done in shown:
        assert not set(done.stdout + done.stderr) & HARMFUL, done.arguments
        assert "Traceback" not in done.stderr
    assert any("END" in done.stdout for done in shown)


def test_a_csv_on_a_terminal_is_harmless_too(cli: Cli, serve: Serve) -> None:
    """In a file or a pipe it is data, and untouched."""
    api = Classify()
    api.result = {"type": "invoice", "confidence": 0.5, "reasoning": HOSTILE}
    cli.use(serve(api))
    cli("run", "m.yaml")
    assert "\x1b" in cli("export", "--format", "csv").stdout
    ours, theirs = pty.openpty()
    assert cli.process("export", "--format", "csv", stdout=theirs).returncode == 0
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert "END" in shown
    assert not set(shown) & (HARMFUL - {"\r"})


def test_hostile_text_is_exported_as_it_came(cli: Cli, serve: Serve) -> None:
    """JSONL loses nothing but half characters, which it spells out."""
    api = Classify()
    api.result = {"type": "invoice", "confidence": 0.5, "reasoning": HOSTILE}
    cli.use(serve(api))
    cli("run", "m.yaml")
    assert {row["reasoning"] for row in cli.exported()} == {HOSTILE.replace("\ud800", "\\ud800")}


def test_a_reader_that_leaves_early_is_no_bug(cli: Cli, serve: Serve) -> None:
    """``export | head -1`` ends quietly, and a full disk is exit 8."""
    cli.manifest(*(f"file-{n}" for n in range(2000)), size=500)
    cli.use(serve(Classify()))
    cli("run", "m.yaml")
    reading, writing = os.pipe()
    os.close(reading)
    left = cli.process("export", stdout=writing)
    os.close(writing)
    full = os.open("/dev/full", os.O_WRONLY)
    filled = [cli.process("export", stdout=full), cli.process("status", "--json", stdout=full)]
    os.close(full)
    for done in (left, *filled):
        assert b"Traceback" not in done.stderr
        assert b"Exception ignored" not in done.stderr
        assert done.returncode == 8


def test_a_log_that_cannot_be_written_stops_nothing(cli: Cli, serve: Serve) -> None:
    """The disk of cron's log file is full: the files are classified all the same, and the exit code says so."""
    cli.use(serve(Classify()))
    full = os.open("/dev/full", os.O_WRONLY)
    assert cli.process("run", "m.yaml", stderr=full).returncode == 0
    assert cli.process("run", "nowhere.yaml", stderr=full).returncode == 2
    os.close(full)
    assert cli.state()["classified"] == 3


def test_closed_streams_stop_nothing(cli: Cli, serve: Serve) -> None:
    """``<&- >&- 2>&-``: no file of ours gets a stream's number, and the exit code says how it went."""
    cli.use(serve(Classify()))
    close = [sys.executable, "-m", "orchestrator", "run", "m.yaml"]
    shell = ["/bin/sh", "-c", '"$0" "$@" <&- >&- 2>&-', *close]
    assert subprocess.run(shell, cwd=cli.folder, env=cli.environ, check=False).returncode == 0
    assert cli.state()["classified"] == 3


@pytest.mark.parametrize("columns", ["abc", "0", "-1", "", "20"])
def test_no_width_breaks_the_screens(cli: Cli, columns: str) -> None:
    """COLUMNS is anybody's."""
    assert cli("plan", "m.yaml", COLUMNS=columns).returncode == 0


def test_the_key_travels_in_no_url(cli: Cli, serve: Serve) -> None:
    """URLs are what proxies and servers log."""
    server = serve(Classify())
    cli.use(server)
    cli("run", "m.yaml")
    assert server.seen
    for seen in server.seen:
        assert CANARY not in seen.path
        assert not urlsplit(seen.path).netloc
        assert seen.headers["Authorization"] == f"Bearer {CANARY}"


def test_a_second_run_beside_the_first_exits_4(cli: Cli, serve: Serve) -> None:
    """It asks the API nothing, and says who holds the manifest."""
    from orchestrator.ledger import database

    server = serve(Classify())
    cli.use(server)
    with database.run_lock(cli.folder / "ledger.db", "letters", {"command": "orchestrator run", "since": "02:00"}):
        done = cli("run", "m.yaml")
    assert done.returncode == 4
    assert str(os.getpid()) in done.stderr
    assert server.seen == []


def test_a_ledger_that_is_none_exits_8_and_sends_nothing(cli: Cli, serve: Serve) -> None:
    """Whatever stands in its place is left as it is."""
    server = serve(Classify())
    cli.use(server)
    (cli.folder / "ledger.db").write_bytes(b"x" * 5000)
    assert cli("run", "m.yaml").returncode == 8
    assert server.seen == []
    assert (cli.folder / "ledger.db").read_bytes() == b"x" * 5000


@pytest.mark.parametrize("environ", [{"LC_ALL": "POSIX"}, {"PYTHONIOENCODING": "latin-1"}], ids=str)
def test_no_locale_breaks_the_screens(cli: Cli, serve: Serve, environ: dict[str, str]) -> None:
    """cron sets none; a real process, as Python reads its locale only when it starts."""
    api = Classify()
    api.result = {"type": "Übersicht – 漢字", "confidence": 0.5, "reasoning": "漢字 🙂"}
    cli.use(serve(api))
    cli("run", "m.yaml")
    for command in (["status"], ["export", "--format", "csv"]):
        done = cli.process(*command, environ=environ)
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"bersicht" in done.stdout


def test_a_rehearsal_needs_no_key_and_is_kept_apart(cli: Cli) -> None:
    """What the sandbox says is never mistaken for the API's word."""
    done = cli("run", "m.yaml", "--sandbox", "--json", LLAMA_CLOUD_API_KEY="")
    summary = json.loads(done.stdout)
    assert summary["rehearsal"] is True
    assert done.returncode in (0, 1)
    plan = json.loads(cli("plan", "m.yaml", "--json").stdout)
    assert (plan["new"], plan["done"]) == (3, 0)
