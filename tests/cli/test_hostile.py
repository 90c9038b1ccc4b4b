"""The command line among hostile servers, full disks, closed streams and odd environments."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from support.commands import HARMFUL, HOSTILE, Classify, Cli, Serve, creates, refusing
from support.server import CANARY


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


@pytest.mark.parametrize("level", ["DEBUG", "ERROR"])
def test_the_key_is_in_no_output_at_any_log_level(cli: Cli, serve: Serve, level: str) -> None:
    """Even when the API repeats it in its own words, in every field it has."""
    api = Classify()
    api.status, api.error = "PARTIAL_SUCCESS", f"key {CANARY} did this"
    api.result = {"type": "invoice", "confidence": 2, "reasoning": "has a total"}
    cli.use(serve(api))
    assert cli("run", "m.yaml", ORCHESTRATOR_LOG_LEVEL=level).returncode == 0
    assert cli("status", "m.yaml").returncode == 0


def test_no_text_from_the_api_is_long_wherever_it_is_shown(cli: Cli, serve: Serve) -> None:
    """A label of a megabyte, a reasoning and an error of as much: in no log line, no summary and no export."""
    api = Classify()
    api.result = {"type": "x" * 1_000_000, "confidence": 0.5, "reasoning": "y" * 1_000_000}
    api.error = "z" * 1_000_000
    cli.use(serve(api))
    shown = [cli("run", "m.yaml", "--json"), cli("status", "--json"), cli("export"), cli("report")]
    assert [done.returncode for done in shown] == [0, 0, 0, 0]
    assert max(len(done.stdout + done.stderr) for done in shown) < 200_000


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
    """And in a file or a pipe: somebody will show it on one. JSONL is the format that loses nothing."""
    api = Classify()
    api.result = {"type": "invoice", "confidence": 0.5, "reasoning": HOSTILE}
    cli.use(serve(api))
    cli("run", "m.yaml")
    piped = cli("export", "--format", "csv").stdout
    assert "\x1b" not in piped
    assert "\\x1b" in piped
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


@pytest.mark.parametrize("files", [3, 1000], ids="{} files".format)
def test_a_reader_that_leaves_early_is_no_bug(cli: Cli, serve: Serve, files: int) -> None:
    """``export | head -1`` ends quietly, as ``cat`` would, whatever the buffers hold; a full disk is exit 8."""
    cli.manifest(*(f"file-{n}" for n in range(files)), size=500)
    cli.use(serve(Classify()))
    cli("run", "m.yaml")
    reading, writing = os.pipe()
    os.close(reading)
    for command in (["export"], ["export", "--format", "csv"], ["status"], ["status", "--json"], ["report"]):
        left = cli.process(*command, stdout=writing)
        assert (left.returncode, left.stderr) == (141, b"")
    os.close(writing)
    for command in (["export"], ["status", "--json"]):
        filled = cli(*command, stdout="/dev/full")
        assert (filled.returncode, filled.stderr.count("\n")) == (8, 1)


def test_a_log_that_cannot_be_written_stops_nothing(cli: Cli, serve: Serve) -> None:
    """The disk of cron's log file is full: the files are classified all the same, and the exit code says so."""
    cli.use(serve(Classify()))
    assert cli("run", "m.yaml", stderr="/dev/full").returncode == 0
    assert cli("run", "nowhere.yaml", stderr="/dev/full").returncode == 2
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


def test_one_job_for_two_calls_is_the_first_ones(cli: Cli, serve: Serve) -> None:
    """Exit 3 and no traceback: the first chunk has the job, the second is held, and nothing is sent again."""

    class Forgetful(Classify):
        async def __call__(self, request: web.Request) -> web.StreamResponse:
            if request.method == "POST":
                self.jobs.clear()
            return await super().__call__(request)

    server = serve(Forgetful())
    cli.use(server)
    cli.manifest("a", "b", size=1)
    done = cli("run", "m.yaml")
    assert (done.returncode, "Traceback" in done.stderr) == (3, False)
    assert "another chunk" in " ".join(cli("status").stdout.split())
    cli("run", "m.yaml")
    assert creates(server) == 2


def test_an_endless_complaint_is_cut(cli: Cli, serve: Serve) -> None:
    """What the API says of a job is kept for each of its files: five megabytes of it would be gigabytes."""
    api = Classify()
    api.status, api.error, api.result = "CANCELLED", "x" * 5_000_000, None
    cli.use(serve(api))
    cli("run", "m.yaml")
    assert (cli.folder / "ledger.db").stat().st_size < 1_000_000
    assert {len(row["error"]) for row in cli.exported()} <= {len("the API gave no result for this file"), 2000}


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


def test_a_ledger_that_is_none_exits_8_and_sends_nothing(cli: Cli, serve: Serve) -> None:
    """Whatever stands in its place is left as it is."""
    server = serve(Classify())
    cli.use(server)
    (cli.folder / "ledger.db").write_bytes(b"x" * 5000)
    assert cli("run", "m.yaml").returncode == 8
    assert server.seen == []
    assert (cli.folder / "ledger.db").read_bytes() == b"x" * 5000


@pytest.mark.parametrize(
    ("command", "environ"),
    [(["status"], {"LC_ALL": "POSIX"}), (["export", "--format", "csv"], {"PYTHONIOENCODING": "latin-1"})],
    ids=str,
)
def test_no_locale_breaks_the_screens(cli: Cli, serve: Serve, command: list[str], environ: dict[str, str]) -> None:
    """cron sets none; a real process, as Python reads its locale only when it starts."""
    api = Classify()
    api.result = {"type": "Übersicht – 漢字", "confidence": 0.5, "reasoning": "漢字 🙂"}
    cli.use(serve(api))
    cli("run", "m.yaml")
    done = cli.process(*command, environ=environ)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"bersicht" in done.stdout
