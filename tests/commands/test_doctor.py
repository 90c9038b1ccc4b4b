"""``doctor``: a line for each thing that a run needs, good or with what to do; it sends one call, changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from support.commands import Classify, Cli, Serve, command_line, refusing


@pytest.fixture
def cli(tmp_path: Path, serve: Serve) -> Iterator[Cli]:
    with command_line(tmp_path) as cli:
        cli.manifest("a")
        cli.use(serve(Classify()))
        yield cli


def findings(cli: Cli, *arguments: str, code: int, **environ: str) -> dict[str, tuple[bool, str]]:
    """What was looked at -> whether it is good, and the words; the exit code is the first bad one's."""
    done = cli("doctor", "m.yaml", *arguments, "--json", **environ)
    told = json.loads(done.stdout)
    assert (done.returncode, told["exit_code"], told["good"]) == (code, code, code == 0)
    return {finding["what"]: (finding["good"], finding["words"]) for finding in told["findings"]}


def test_all_is_well(cli: Cli) -> None:
    """Eight lines, one call to the API, and no ledger made by looking for one."""
    done = cli("doctor", "m.yaml")
    assert done.returncode == 0
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        ["good", what] for what in ("program", "settings", "manifest", "ledger", "key", "network", "api", "clock")
    ]
    assert not list(cli.folder.glob("ledger*"))


def test_the_ledger_that_is_there_is_looked_through(cli: Cli) -> None:
    """Its size and its manifests."""
    cli("run", "m.yaml")
    assert "sound" in findings(cli, code=0)["ledger"][1]
    assert "letters" in findings(cli, code=0)["ledger"][1]


def test_a_folder_that_a_run_makes_is_no_fault(cli: Cli) -> None:
    """As ``run --ledger new/folder/ledger.db`` would."""
    good, words = findings(cli, "--ledger", "new/folder/ledger.db", code=0)["ledger"]
    assert (good, "the first run creates it" in words) == (True, True)
    assert not (cli.folder / "new").exists()


def test_a_ledger_below_a_file_is_a_fault(cli: Cli) -> None:
    """No run could make that folder."""
    good, words = findings(cli, "--ledger", "m.yaml/ledger.db", code=8)["ledger"]
    assert (good, "m.yaml is not a folder" in words) == (False, True)


def test_a_ledger_that_others_can_read(cli: Cli) -> None:
    """The command that mends it is named."""
    cli("run", "m.yaml")
    (cli.folder / "ledger.db").chmod(0o644)
    assert "chmod 600" in findings(cli, code=8)["ledger"][1]
    for path in cli.folder.glob("ledger.db*"):
        path.chmod(0o600)


def test_a_damaged_ledger(cli: Cli) -> None:
    """What to do about it is named."""
    cli("run", "m.yaml")
    path = cli.folder / "ledger.db"
    for companion in cli.folder.glob("ledger.db-*"):
        companion.unlink()
    content = bytearray(path.read_bytes())
    content[4096:12288] = b"\xff" * 8192
    path.write_bytes(content)
    good, words = findings(cli, code=8)["ledger"]
    assert (good, "damaged" in words or "malformed" in words) == (False, True)


@pytest.mark.parametrize(
    ("environ", "what", "code", "words"),
    [
        ({"LLAMA_CLOUD_API_KEY": ""}, "key", 2, "LLAMA_CLOUD_API_KEY is not set"),
        ({"LLAMA_CLOUD_BASE_URL": "http://example.com"}, "key", 2, "https://"),
        ({"LLAMA_CLOUD_BASE_URL": "http://127.0.0.1:9"}, "api", 7, "no connection"),
        ({"ORCHESTRATOR_TIMEOUT_S": "soon"}, "settings", 2, "ORCHESTRATOR_TIMEOUT_S"),
        ({"ORCHESTRATOR_CRAETES_PER_S": "9"}, "settings", 2, "ORCHESTRATOR_CRAETES_PER_S"),
    ],
)
def test_settings_that_no_run_could_use(cli: Cli, environ: dict[str, str], what: str, code: int, words: str) -> None:
    """Each has its line, its exit code and its name."""
    good, told = findings(cli, code=code, **environ)[what]
    assert (good, words in told) == (False, True), told


def test_a_manifest_with_a_mistake(cli: Cli) -> None:
    """The first mistake is named with its place; the rest is looked at all the same."""
    manifest = cli.folder / "m.yaml"
    manifest.write_text(manifest.read_text().replace("chunk_size:", "chunksize:"))
    found = findings(cli, code=2)
    assert "m.yaml:8:1: " in found["manifest"][1]
    assert found["api"][0]


@pytest.mark.parametrize(("status", "code", "words"), [(401, 5, "401"), (404, 7, "is `api: v1` right?")])
def test_an_api_that_refuses(cli: Cli, serve: Serve, status: int, code: int, words: str) -> None:
    """A wrong key is told from a wrong address."""
    cli.use(serve(refusing(status)))
    good, told = findings(cli, code=code)["api"]
    assert (good, words in told) == (False, True), told


def test_a_clock_that_is_wrong(cli: Cli, serve: Serve) -> None:
    """Told, and no reason not to run: what waits goes by another clock."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response({"items": []}, headers={"Date": "Wed, 25 Nov 2020 02:00:00 GMT"})

    cli.use(serve(answer))
    good, words = findings(cli, code=0)["clock"]
    assert (good, "ahead of the API's; set this machine's" in words) == (True, True)
