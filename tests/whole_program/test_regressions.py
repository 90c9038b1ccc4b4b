"""Faults of the past at the command line, each as the user met it."""

from __future__ import annotations

import os

import pytest
from aiohttp import web
from support.commands import Classify, Cli, Serve, creates, refusing
from support.server import CANARY

from orchestrator.models import Json


@pytest.mark.parametrize("target", ["ledger.db", "./ledger.db-wal", "m.yaml", "link"])
def test_an_export_never_replaces_what_it_is_made_from(cli: Cli, serve: Serve, target: str) -> None:
    """Not the ledger, by whatever name, nor the manifest: the results are in there, and paid for."""
    cli.use(serve(Classify()))
    assert cli("run", "m.yaml").returncode == 0
    (cli.folder / "ledger.db-wal").touch(0o600)
    (cli.folder / "link").symlink_to("ledger.db")
    done = cli("export", "m.yaml", "-o", target)
    assert done.returncode == 2
    assert "give another name" in done.stderr
    assert len(cli.exported()) == 3


@pytest.mark.parametrize("folder", [".", "..", "/"])
def test_a_folder_given_for_the_ledger_is_a_mistake_and_no_bug(cli: Cli, folder: str) -> None:
    """It once ended in a traceback."""
    done = cli("run", "m.yaml", "--ledger", folder)
    assert done.returncode == 2
    assert "is a folder" in done.stderr


def test_a_folder_given_for_an_export_is_a_mistake_and_no_bug(cli: Cli, serve: Serve) -> None:
    """It once ended in a traceback."""
    cli.use(serve(Classify()))
    cli("run", "m.yaml")
    done = cli("export", "m.yaml", "-o", ".")
    assert done.returncode == 8
    assert "Is a directory" in done.stderr


def test_an_unanswered_call_does_not_keep_a_run_waiting_that_may_send_nothing_more(cli: Cli, serve: Serve) -> None:
    """Its chunk is proved absent, but the credits are used up: it waits for the next run, and this one ends."""
    api = Classify()
    calls: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        calls.append(request.method)
        if calls.count("POST") == 1 and request.method == "POST":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return await api(request)

    api.refuse_after = 0
    cli.use(serve(answer))
    cli.manifest("a", "b", size=1)
    done = cli("run", "m.yaml", "--deadline", "600s")
    assert done.returncode == 6
    api.refuse_after = None
    # The other file's job shows that the list is whole: it is to be made before the settle time is over.
    assert cli("run", "m.yaml", ORCHESTRATOR_SETTLE_S="5").returncode == 0
    assert sorted(file_id for file_ids in api.jobs.values() for file_id in file_ids) == ["a", "b"]


def test_a_refusal_that_repeats_a_secret_of_the_manifest_does_not_carry_it_into_the_ledger(
    cli: Cli, serve: Serve
) -> None:
    """A webhook's header, spelled out in the words of a 422: in no file, and on no stream."""
    secret = "hook-canary-4b1d"
    cli.use(serve(refusing(422, f"webhook_headers: {secret} is no good")))
    manifest = cli.folder / "m.yaml"
    hook = "  - {webhook_url: 'https://example.com/', webhook_headers: {authorization: '${HOOK}'}}\n"
    manifest.write_text(manifest.read_text() + "webhook_configurations:\n" + hook)
    shown = [cli("run", "m.yaml", HOOK=secret), cli("status"), cli("export")]
    assert [done.returncode for done in shown] == [1, 0, 0]
    assert "[hidden] is no good" in shown[2].stdout
    assert not [done for done in shown if secret in done.stdout + done.stderr]
    assert not [path for path in cli.folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


@pytest.mark.parametrize("command", ["status", "export", "plan"])
def test_a_pipe_in_the_place_of_the_ledger_does_not_hang_a_look_at_it(cli: Cli, command: str) -> None:
    """Opening one waits for its other end, and heeds no signal meanwhile."""
    os.mkfifo(cli.folder / "ledger.db", 0o600)
    done = cli(command, "m.yaml")
    assert done.returncode == 8
    assert "not a plain file" in done.stderr


class TwoProjects(Classify):
    """One key sees what it made in project p; any other key's project is q."""

    def __init__(self, others: list[Json]) -> None:
        super().__init__()
        self.others = others
        self.lose = False

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        mine = request.headers["Authorization"].endswith(CANARY)
        if request.method == "GET" and not mine:
            listing = request.path.endswith("/jobs")
            return web.json_response({"items": self.others} if listing else {}, status=200 if listing else 404)
        answer = await super().__call__(request)
        if request.method == "POST" and self.lose and request.transport is not None:
            request.transport.abort()
        return answer

    def _job(self, job_id: str) -> dict[str, Json]:
        return {**super()._job(job_id), "project_id": self.project}

    project = "p"


@pytest.mark.parametrize("others", [[], [{"id": "x", "status": "SUCCESS", "project_id": "q"}]], ids=["none", "others"])
def test_the_key_of_another_project_proves_no_absence(cli: Cli, serve: Serve, others: list[Json]) -> None:
    """It does not list the job of an unanswered call, which was once sent again and paid for twice."""
    api = TwoProjects(others)
    server = serve(api)
    cli.use(server)
    cli.manifest("a")
    assert cli("run", "m.yaml").returncode == 0
    cli.manifest("a", "b")
    api.lose = True
    assert cli("run", "m.yaml", "--no-wait").returncode == 3
    api.lose = False
    done = cli("run", "m.yaml", LLAMA_CLOUD_API_KEY="another-key-altogether")
    assert (done.returncode, creates(server)) == (3, 2)
    assert "another key?" in cli("status", "m.yaml").stdout.replace("\n", " ")


def test_the_key_of_another_project_stops_the_run(cli: Cli, serve: Serve) -> None:
    """Exit 5 with both projects' names; what was made meanwhile is recorded, and no more is sent."""
    api = TwoProjects([])
    server = serve(api)
    cli.use(server)
    cli.manifest("a")
    assert cli("run", "m.yaml").returncode == 0
    api.project = "q"
    cli.manifest("a", "b", "c", "d", size=1)
    done = cli("run", "m.yaml", ORCHESTRATOR_CREATES_PER_S="0.1")
    assert (done.returncode, creates(server)) == (5, 2)
    assert "the key is of project q, and the jobs of this manifest are in p" in done.stdout.replace("\n", " ")
    assert cli.state()["classified"] == 2


def test_what_was_refused_in_an_outage_is_not_sent_under_rules_that_have_changed_since(cli: Cli, serve: Serve) -> None:
    """It once was: the files were paid for under the old rules and under the new ones."""
    api = Classify()
    api.refuse_after = 0
    cli.use(serve(api))
    assert cli("run", "m.yaml").returncode == 6
    manifest = cli.folder / "m.yaml"
    manifest.write_text(manifest.read_text().replace("line items", "what was sold"))
    api.refuse_after = None
    # The other file's job shows that the list is whole: it is to be made before the settle time is over.
    assert cli("run", "m.yaml", ORCHESTRATOR_SETTLE_S="5").returncode == 0
    assert sorted(file_id for file_ids in api.jobs.values() for file_id in file_ids) == ["a", "b", "c"]


def test_the_words_of_the_api_are_not_broken_in_a_mail_or_a_file(cli: Cli, serve: Serve) -> None:
    """They once were, at 100 columns: no search found them."""
    words = "a file is protected by a password " * 4 + "and can't be read"
    api = Classify()

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response({"detail": words}, status=422) if request.method == "POST" else await api(request)

    cli.use(serve(answer))
    assert f"failed: 422 {words}" in cli("run", "m.yaml").stdout
