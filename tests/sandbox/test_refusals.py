"""The sandbox refuses what the API refuses, so that a rehearsal fails where the night would."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.commands import command_line
from support.talking import FILES, V1, V2, Talk, converse, uid

from orchestrator.models import Json
from orchestrator.sandbox.options import FaultError, parse_switches

OTHER = "11111111-1111-4111-8111-111111111111"
HOOK = {"webhook_url": "https://a.example"}


@pytest.mark.parametrize(
    ("version", "extra", "status"),
    [
        ("v2", {"webhook_events": ["classify.done"]}, 422),
        ("v2", {"webhook_events": ["classify.success"]}, 200),
        ("v1", {"webhook_events": ["anything"]}, 200),
        ("v1", {"webhook_events": []}, 422),
        ("v2", {"webhook_headers": {"X-A": 1}}, 422),
        ("v2", {"webhook_headers": {"X-A": "1"}}, 200),
        ("v1", {"webhook_headers": {"X-A": 1}}, 200),
        ("v1", {"webhook_output_format": "xml"}, 422),
        ("v1", {"webhook_output_format": "string"}, 200),
    ],
)
def test_a_webhook_is_checked_as_each_version_checks_it(version: str, extra: dict[str, Json], status: int) -> None:
    """v2 knows its events and wants headers of text; v1 knows its output formats."""

    async def story(talk: Talk) -> None:
        create = talk.create if version == "v1" else talk.classify
        assert (await create(uid(1), webhook_configurations=[{**HOOK, **extra}])).status_code == status

    converse(story)


def test_a_file_of_another_project_is_refused() -> None:
    """Whole, on both versions, in the API's words."""

    async def story(talk: Talk) -> None:
        there = await talk.client.post(
            FILES, params={"project_id": OTHER}, data={"purpose": "classify"}, files={"file": ("a.txt", b"words")}
        )
        for answer in (await talk.create(uid(1), there.json()["id"]), await talk.classify(there.json()["id"])):
            assert answer.status_code == 400
            assert answer.json()["detail"].startswith(f"File ID {there.json()['id']} is not in Project ID")

    converse(story)


def test_an_id_that_looks_uploaded_and_was_not_is_refused() -> None:
    """A bare UUID may be anybody's; the switch can take or refuse both."""

    async def story(talk: Talk) -> None:
        assert (await talk.create(f"dfl-{uid(1)}")).status_code == 400
        assert (await talk.create(uid(1))).status_code == 200

    async def any_file(talk: Talk) -> None:
        assert (await talk.create(f"dfl-{uid(1)}")).status_code == 200

    converse(story)
    converse(any_file, unknown_files="accept")


def test_a_file_is_found_by_its_bare_id() -> None:
    """In `GET files`, by itself and in the list, and in a create."""

    async def story(talk: Talk) -> None:
        file_id = (await talk.upload()).json()["id"]
        bare = file_id.removeprefix("dfl-")
        assert (await talk.json(f"{FILES}/{bare}"))["id"] == file_id
        assert [item["id"] for item in (await talk.json(FILES, file_ids=[bare]))["items"]] == [file_id]
        assert (await talk.create(bare)).status_code == 200

    converse(story, unknown_files="refuse")


def test_files_come_in_the_order_asked_for() -> None:
    """Name, ID and time only."""

    async def story(talk: Talk) -> None:
        for name in ("b.txt", "a.txt", "c.txt"):
            await talk.upload(name=name)
        names = [[item["name"][0] for item in (await talk.json(FILES, order_by=order))["items"]]
                 for order in ("name", "name desc", "created_at", "created_at desc")]  # fmt: skip
        assert names == [["a", "b", "c"], ["c", "b", "a"], ["b", "a", "c"], ["c", "a", "b"]]
        assert (await talk.client.get(FILES, params={"order_by": "size"})).status_code == 400

    converse(story)


def test_a_known_path_with_another_method_is_405() -> None:
    """As FastAPI answers; an unknown path is 404."""

    async def story(talk: Talk) -> None:
        for method, path in (("DELETE", V1), ("PUT", f"{V2}/clj-1"), ("GET", f"{V2}/clj-1/cancel")):
            answer = await talk.client.request(method, path)
            assert (answer.status_code, answer.json()) == (405, {"detail": "Method Not Allowed"})
        assert (await talk.client.get("/api/v3/classify")).status_code == 404

    converse(story)


def test_every_switch_has_a_name_on_the_command_line() -> None:
    """Numbers, words, yes or no, and ranges, each checked."""
    items = [
        "job_seconds=0.5,2",
        "window=fixed",
        "retry-after=true",
        "page_size=7",
        "max_page_size=3",
        "creates_per_s=1.5",
    ]
    assert parse_switches(items) == {
        "job_seconds": (0.5, 2.0),
        "window": "fixed",
        "retry_after": True,
        "page_size": 7,
        "max_page_size": 3,
        "creates_per_s": 1.5,
    }


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("?", "one of these names: creates_per_s, gets_per_s"),
        ("seed=1", "must be NAME=VALUE"),
        ("window=round", "must be sliding or fixed or bucket"),
        ("retry_after=1", "must be true or false"),
        ("page_size=1.5", "must be a whole number"),
        ("page_size=-1", "must be a whole number"),
        ("null_share=nan", "must be a number, 0 or more"),
        ("job_seconds=1", "must be two numbers of seconds"),
    ],
)
def test_a_wrong_switch_says_what_would_do(item: str, words: str) -> None:
    """On one line."""
    with pytest.raises(FaultError) as caught:
        parse_switches([item])
    assert words in str(caught.value)


def test_the_command_takes_switches(tmp_path: Path) -> None:
    """A wrong one ends it with 2 and the list of names."""
    with command_line(tmp_path) as cli:
        done = cli("sandbox", "--set", "?")
        assert (done.returncode, "unknown_files" in done.stderr) == (2, True)
