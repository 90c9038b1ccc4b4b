"""The same file is the same file however its ID is spelt; what is sent and what is shown is what the user wrote."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from aiohttp import web
from support.commands import Classify, Cli, Serve, creates

from orchestrator.models import Json

A, B, C = (f"182bd5e5-6e1a-4fe4-a799-aa6d9a6ab26{end}" for end in "abc")


class Spelling(Classify):
    """A v1 API that answers with *spell* of the canonical form of what it was sent."""

    def __init__(self, spell: Callable[[str], str]) -> None:
        super().__init__()
        self.spell = spell
        self.sent: list[list[str]] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            answer = await super().__call__(request)
            (job_id,) = list(self.jobs)[-1:]
            self.sent.append(self.jobs[job_id])
            self.jobs[job_id] = [self.spell(file_id.lower().removeprefix("dfl-")) for file_id in self.jobs[job_id]]
            return answer
        return await super().__call__(request)


SPELLINGS: dict[str, Callable[[str], str]] = {
    "bare": str,
    "upper": str.upper,
    "dfl": lambda file_id: f"dfl-{file_id}",
}


@pytest.mark.parametrize("answered", SPELLINGS)
@pytest.mark.parametrize("listed", SPELLINGS)
def test_an_answer_in_another_spelling_is_the_files(cli: Cli, serve: Serve, listed: str, answered: str) -> None:
    """What was sent and what is exported is what the list says, and no spelling of it is new to a later run."""
    api = Spelling(SPELLINGS[answered])
    server = serve(api)
    cli.use(server)
    written = [SPELLINGS[listed](file_id) for file_id in (A, B, C)]
    cli.manifest(*written)
    assert cli("run", "m.yaml").returncode == 0
    assert api.sent == [written]
    assert [row["file_id"] for row in cli.exported()] == written
    for spell in SPELLINGS.values():
        cli.manifest(*(spell(file_id) for file_id in (A, B, C)))
        plan = json.loads(cli("plan", "m.yaml", "--json").stdout)
        assert (plan["new"], plan["done"]) == (0, 3)
        assert cli("run", "m.yaml").returncode == 0
        assert [row["file_id"] for row in cli.exported()] == [spell(file_id) for file_id in (A, B, C)]
    assert creates(server) == 1


def test_three_spellings_in_a_list_are_one_file(cli: Cli, serve: Serve) -> None:
    """Counted as duplicates, and sent once as the list has it first."""
    api = Spelling(str)
    cli.use(serve(api))
    cli.manifest(A.upper(), A, f"dfl-{A}", "File-A", "file-a")
    summary = json.loads(cli("run", "m.yaml", "--json").stdout)
    assert (summary["files"], summary["duplicates"]) == (3, 2)
    assert api.sent == [[A.upper(), "File-A", "file-a"]]


def test_a_person_may_spell_a_file_otherwise(cli: Cli, serve: Serve) -> None:
    """``retry --file`` and ``accept --file`` find it; what failed and is quarantined is shown as it was written."""
    api = Spelling(str)
    api.result = None
    server = serve(api)
    cli.use(server)
    cli.manifest(A.upper(), B)
    assert cli("run", "m.yaml").returncode == 1
    assert {failed["file_id"] for failed in cli.state()["failed_files"]} == {A.upper(), B}
    dry = json.loads(cli("retry", "m.yaml", "--file", f"dfl-{A}", "--dry-run", "--json").stdout)
    assert (dry["files"], dry["file_ids"]) == (1, [A.upper()])
    api.result = {"type": "invoice", "confidence": 0.9, "reasoning": "has a total"}
    assert cli("retry", "m.yaml", "--file", f"dfl-{A}").returncode == 1
    assert api.sent[-1] == [A.upper()]
    accepted = cli("accept", "m.yaml", "--file", B.upper(), "--type", "receipt")
    assert (accepted.returncode, accepted.stdout) == (0, f"{B}: receipt\n")
    assert {row["file_id"]: row["type"] for row in cli.exported()} == {A.upper(): "invoice", B: "receipt"}
    done = cli("retry", "m.yaml", "--file", C.upper())
    assert (done.returncode, C.upper() in done.stderr) == (2, True)


def test_adopt_knows_the_files_of_a_lost_ledger_in_any_spelling(cli: Cli, serve: Serve) -> None:
    """Nothing is bought again by the run after it."""
    api = Adoptable(str)
    server = serve(api)
    cli.use(server)
    cli.manifest(A.upper(), f"dfl-{B}")
    assert cli("run", "m.yaml").returncode == 0
    for path in cli.folder.glob("ledger.db*"):
        path.unlink()
    assert cli("adopt", "m.yaml").returncode == 0
    assert [row["file_id"] for row in cli.exported()] == [A.upper(), f"dfl-{B}"]
    assert cli("run", "m.yaml").returncode == 0
    assert creates(server) == 1


class Adoptable(Spelling):
    """Echoes what its jobs were created with."""

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            self.config = {name: value for name, value in (await request.json()).items() if name not in ("file_ids",)}
        return await super().__call__(request)

    def _job(self, job_id: str) -> dict[str, Json]:
        return {**super()._job(job_id), **self.config}

    config: dict[str, Json] = {}  # noqa: RUF012 - replaced, never changed
