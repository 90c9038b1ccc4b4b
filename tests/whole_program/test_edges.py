"""At the edges: whose key it is, what a refusal is about, and whose name; `doctor` says what `run` would say."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from aiohttp import web
from support.commands import Classify, Cli, Serve, creates

V1 = "/api/v1/classifier/jobs"


class Refusing(Classify):
    """Answers create calls with *answer*; everything else as ever, or with it too."""

    def __init__(self, answer: Callable[[], web.Response], *, reads_too: bool = False) -> None:
        super().__init__()
        self.answer = answer
        self.reads_too = reads_too

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if self.reads_too or request.method == "POST":
            return self.answer()
        return await super().__call__(request)


def page() -> web.Response:
    return web.Response(status=403, text="<html>blocked by policy</html>", content_type="text/html")


def one_file() -> web.Response:
    return web.json_response({"detail": "No permission for file a"}, status=403)


def the_key() -> web.Response:
    return web.json_response({"detail": "This key may not create jobs"}, status=403)


def used_up() -> web.Response:
    return web.json_response({"detail": "You've exceeded the maximum number of credits for your plan."}, status=429)


@pytest.mark.parametrize(
    ("answer", "reads_too", "code", "failed"),
    [
        (page, False, 1, 3),
        (one_file, False, 1, 3),
        (page, True, 5, 0),
        (the_key, False, 5, 0),
        (used_up, False, 6, 0),
    ],
)
def test_what_a_refusal_is_about(
    cli: Cli, serve: Serve, answer: Callable[[], web.Response], reads_too: bool, code: int, failed: int
) -> None:
    """A 403 is the key's when the API says so in JSON, or for a read as well; a 429 may be about credits."""
    cli.use(serve(Refusing(answer, reads_too=reads_too)))
    done = cli("run", "m.yaml", "--json")
    assert (done.returncode, json.loads(done.stdout)["failed"]) == (code, failed)


class Project(Classify):
    """An API whose key is of *project*, and that has never heard of other projects' jobs."""

    def __init__(self, project: str, *, others: bool = True) -> None:
        super().__init__()
        self.project = project
        self.jobs["job-of-it"] = ["x"] if others else []
        if not others:
            del self.jobs["job-of-it"]

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        name = request.path.removeprefix(V1).strip("/").split("/")[0]
        if name and name not in self.jobs:
            return web.json_response({"detail": "Classify job not found"}, status=404)
        return await super().__call__(request)

    def _job(self, job_id: str) -> dict[str, object]:
        return {**super()._job(job_id), "project_id": self.project}


def test_the_key_of_another_project_buys_nothing(cli: Cli, serve: Serve) -> None:
    """It does not see the ledger's job and sees another project's: exit 5, before a create call leaves."""
    cli.use(serve(Project("p", others=False)))
    assert cli("run", "m.yaml").returncode == 0
    other = serve(Project("q"))
    cli.use(other)
    cli.manifest("a", "b", "c", "d")
    done = cli("run", "m.yaml")
    assert (done.returncode, "the key is of project q" in done.stdout) == (5, True)
    assert creates(other) == 0


def test_an_api_that_has_forgotten_its_jobs_is_no_other_project(cli: Cli, serve: Serve) -> None:
    """Jobs past their retention prove nothing of the key."""
    cli.use(serve(Project("p", others=False)))
    assert cli("run", "m.yaml").returncode == 0
    same = serve(Project("p"))
    cli.use(same)
    cli.manifest("a", "b", "c", "d")
    assert cli("run", "m.yaml").returncode == 0
    assert creates(same) == 1


def test_a_second_manifest_of_a_name_is_refused(cli: Cli, serve: Serve) -> None:
    """Their results would be mixed; a manifest that was moved goes on, and so does a true copy."""
    server = serve(Classify())
    cli.use(server)
    assert cli("run", "m.yaml").returncode == 0
    first, copy = cli.folder / "m.yaml", cli.folder / "copy" / "m.yaml"
    copy.parent.mkdir(mode=0o700)
    ledger = ("--ledger", "ledger.db")
    copy.write_text(first.read_text().replace("  - c", "  - d"))
    for command in ("run", "plan"):
        done = cli(command, "copy/m.yaml", *ledger)
        assert (done.returncode, f"from {first}, which is still there" in done.stderr) == (2, True), done
    assert creates(server) == 1
    first.unlink()
    assert cli("run", "copy/m.yaml", *ledger).returncode == 0
    assert creates(server) == 2


def test_a_copy_with_other_lists_is_a_second_manifest(cli: Cli, serve: Serve) -> None:
    """The same text names other files in another folder; with the same lists it is a true copy."""
    server = serve(Classify())
    cli.use(server)
    copy = cli.folder / "copy"
    copy.mkdir(mode=0o700)
    manifest = (cli.folder / "m.yaml").read_text()
    text = manifest[: manifest.index("file_ids:")] + "file_ids_from: [list.txt]\n"
    for folder, listed in ((cli.folder, "a\nb\n"), (copy, "a\nc\n")):
        (folder / "m.yaml").write_text(text)
        (folder / "list.txt").write_text(listed)
        (folder / "list.txt").chmod(0o600)
    assert cli("run", "m.yaml").returncode == 0
    for command in ("run", "plan"):
        done = cli(command, "copy/m.yaml", "--ledger", "ledger.db")
        words = f"from {cli.folder}/m.yaml, which is still there and names another list.txt than copy/m.yaml does"
        assert (done.returncode, words in done.stderr) == (2, True), done
    (copy / "list.txt").write_text("a\nb\n")
    assert cli("run", "copy/m.yaml", "--ledger", "ledger.db").returncode == 0
    assert creates(server) == 1


def test_a_copy_with_other_documents_is_a_second_manifest(cli: Cli, serve: Serve) -> None:
    """A relative folder is another one beside the copy."""
    cli.use(serve(Classify()))
    manifest = (cli.folder / "m.yaml").read_text()
    text = manifest[: manifest.index("file_ids:")] + "documents_from: [inbox]\nallow_empty: true\n"
    for folder in (cli.folder, cli.folder / "copy"):
        (folder / "inbox").mkdir(mode=0o700, parents=True)
        (folder / "m.yaml").write_text(text)
    (cli.folder / "copy").chmod(0o700)
    assert cli("run", "m.yaml").returncode == 0
    done = cli("run", "copy/m.yaml", "--ledger", "ledger.db")
    assert (done.returncode, "names another inbox than" in done.stderr) == (2, True), done


def test_a_new_name_for_a_known_manifest_is_reported(cli: Cli, serve: Serve) -> None:
    """Before it is bought again, and by the run that does."""
    cli.use(serve(Classify()))
    assert cli("run", "m.yaml").returncode == 0
    manifest = cli.folder / "m.yaml"
    manifest.write_text(manifest.read_text().replace("name: letters", "name: mail"))
    assert "this path was known as letters: 3 files would be new" in cli("plan", "m.yaml").stdout
    assert json.loads(cli("run", "m.yaml", "--json").stdout)["renamed_from"] == "letters"
    assert "known as" not in cli("plan", "m.yaml").stdout


def finding(cli: Cli, what: str, code: int, **environ: str) -> str:
    """The words of the bad line about *what*."""
    done = cli("doctor", "m.yaml", "--json", **environ)
    assert done.returncode == code, done.stdout
    found = json.loads(done.stdout)["findings"]
    return next(str(line["words"]) for line in found if line["what"] == what and not line["good"])


def test_doctor_says_what_run_would_say(cli: Cli, serve: Serve) -> None:
    """The form of the deadline, the example key, lists, limits, a removed ledger; with run's exit codes."""
    cli.use(serve(Classify()))
    words = "ORCHESTRATOR_DEADLINE 'soon' is not a duration"
    assert words in finding(cli, "settings", 2, ORCHESTRATOR_DEADLINE="soon")
    assert words in cli("run", "m.yaml", ORCHESTRATOR_DEADLINE="soon").stderr
    assert "still the example" in finding(cli, "key", 2, LLAMA_CLOUD_API_KEY="llx-your-key-here")
    assert "has the path /api/v1" in finding(cli, "key", 2, LLAMA_CLOUD_BASE_URL="https://api.example/api/v1")
    assert "August 2026" in cli("doctor", "m.yaml").stdout
    manifest = cli.folder / "m.yaml"
    text = manifest.read_text()
    manifest.write_text(text + "limits: {max_files: 2}\n")
    assert "limits.max_files" in finding(cli, "manifest", 6)
    manifest.write_text(text + "file_ids_from: [gone.txt]\n")
    assert "gone.txt" in finding(cli, "manifest", 2)
    manifest.write_text(text)
    assert cli("run", "m.yaml").returncode == 0
    for path in cli.folder.glob("ledger.db*"):
        if path.suffix != ".lock" and not path.name.endswith("write-lock"):
            path.unlink()
    assert "orchestrator adopt" in finding(cli, "ledger", 8)
