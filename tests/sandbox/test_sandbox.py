"""The embedded API as a client sees it: both versions, files, refusals, paging and rate limits, over real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from llama_cloud import AsyncLlamaCloud
from support.talking import FILES, INVOICE, LATER_S, RULES, V1, V2, Talk, converse, talking, uid

from orchestrator.errors import InputError
from orchestrator.models import Json
from orchestrator.sandbox import Sandbox, SandboxOptions, serve

ROOT = Path(__file__).parents[2]


def test_a_v1_job_goes_from_pending_to_success() -> None:
    """Results are refused until the job has ended; then every file has its row."""

    async def story(talk: Talk) -> None:
        created = await talk.create(uid(1), uid(2))
        job = created.json()
        assert (created.status_code, job["status"]) == (200, "PENDING")
        assert (await talk.client.get(f"{V1}/{job['id']}/results")).status_code == 404
        talk.clock.seconds += LATER_S
        assert (await talk.json(f"{V1}/{job['id']}"))["status"] == "SUCCESS"
        assert {uid(1), uid(2)} == {row["file_id"] for row in await talk.rows(job["id"])}

    converse(story)


def test_a_v1_job_does_not_tell_its_files() -> None:
    """Neither a create's answer nor a read echoes file_ids: only the results do."""

    async def story(talk: Talk) -> None:
        assert "file_ids" not in (await talk.create()).json()

    converse(story)


def test_a_v2_job_is_pending_then_running_then_completed() -> None:
    """The result stands within the job, and credits once it has ended."""

    async def story(talk: Talk) -> None:
        job = (await talk.classify()).json()
        path = f"{V2}/{job['id']}"
        talk.clock.seconds += 0.9
        running = await talk.json(path)
        talk.clock.seconds += LATER_S
        ended = await talk.json(path, expand="usage")
        assert [told["status"] for told in (job, running, ended)] == ["PENDING", "RUNNING", "COMPLETED"]
        assert None is running["result"]
        assert {"type", "confidence", "reasoning"} == ended["result"].keys()
        assert ended["usage"]["credits"] >= 1
        assert ended["parse_job_id"].startswith("pjb-")

    converse(story, job_seconds=(1.5, 2.5))


def test_a_parse_job_of_ones_own_costs_nothing() -> None:
    """A v2 job on a parse job says so, and is not billed."""

    async def story(talk: Talk) -> None:
        job = (await talk.classify("pjb-1")).json()
        talk.clock.seconds += LATER_S
        told = await talk.json(f"{V2}/{job['id']}", expand="usage")
        assert (told["document_input_type"], told["usage"]["credits"]) == ("parse_job_id", 0)

    converse(story)


def test_a_transaction_id_that_is_used_again_returns_the_original_job() -> None:
    """Whatever the new body says, and nothing new is journalled."""

    async def story(talk: Talk) -> None:
        first = (await talk.classify(uid(1), transaction_id="once")).json()
        again = await talk.classify(uid(2), transaction_id="once", configuration={"rules": []})
        assert (200, first["id"], uid(1)) == (again.status_code, again.json()["id"], again.json()["file_input"])
        assert len(talk.sandbox.state.journal) == 1

    converse(story)


def test_v2_cancels_only_what_runs_and_deletes_only_what_ended() -> None:
    """The refusal's code is a switch."""

    async def story(talk: Talk) -> None:
        path = f"{V2}/{(await talk.classify()).json()['id']}"
        assert (await talk.client.delete(path)).status_code == 400
        assert (await talk.client.post(f"{path}/cancel")).json()["status"] == "CANCELLED"
        assert (await talk.client.post(f"{path}/cancel")).status_code == 400
        assert {"id", "project_id"} == (await talk.client.delete(path)).json().keys()
        assert (await talk.client.get(path)).status_code == 404

    converse(story, refusal=400)


def test_an_uploaded_text_is_classified_by_its_words() -> None:
    """The reasoning names the words that the text shares with the rule."""

    async def story(talk: Talk) -> None:
        uploaded = await talk.upload()
        job = await talk.ended(uploaded.json()["id"])
        (row,) = await talk.rows(job["id"])
        assert (uploaded.status_code, row["result"]["type"]) == (201, "invoice")
        assert "amount" in row["result"]["reasoning"]

    converse(story)


def test_a_text_that_shares_no_words_with_a_rule_has_no_type() -> None:
    """No match is a result whose type is null, not a missing result."""

    async def story(talk: Talk) -> None:
        uploaded = await talk.upload(b"Chop onions and carrots, simmer gently, season with pepper.")
        job = await talk.ended(uploaded.json()["id"])
        assert [row["result"]["type"] for row in await talk.rows(job["id"])] == [None]

    converse(story)


def test_files_are_listed_by_external_id_and_gone_once_deleted() -> None:
    """The files API: list, get, delete."""

    async def story(talk: Talk) -> None:
        file_id = (await talk.upload(external_file_id="ext-1")).json()["id"]
        await talk.upload(external_file_id="ext-2")
        listed = await talk.json(FILES, external_file_id="ext-1")
        assert [file_id] == [file["id"] for file in listed["items"]]
        assert (await talk.client.delete(f"{FILES}/{file_id}")).status_code == 204
        assert (await talk.client.get(f"{FILES}/{file_id}")).status_code == 404

    converse(story)


def test_an_answer_depends_on_seed_file_and_rules_only() -> None:
    """Another order and other neighbours change nothing; another seed does."""

    async def answers(seed: int, *file_ids: str) -> dict[str, Json]:
        async with talking(seed=seed) as talk:
            job = await talk.ended(*file_ids)
            return {row["file_id"]: row["result"] for row in await talk.rows(job["id"])}

    async def main() -> None:
        ids = [uid(number) for number in range(40)]
        first = await answers(1, *ids)
        assert first == {**await answers(1, *ids[20:]), **await answers(1, *reversed(ids[:20]))}
        assert first != await answers(2, *ids)
        assert {"invoice", "contract"} <= {result["type"] for result in first.values()}

    asyncio.run(main())


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"file_ids": []}, "too_short"),
        ({"file_ids": [uid(n) for n in range(501)]}, "too_long"),
        ({"file_ids": ["not-a-uuid"]}, "uuid_parsing"),
        ({"rules": [{"type": "invoice", "description": "short"}]}, "string_too_short"),
        ({"rules": [{"type": "i" * 51, "description": "long enough"}]}, "string_too_long"),
        ({"rules": [{"type": "a/b", "description": "long enough"}]}, "value_error"),
        ({"rules": [RULES[0], RULES[0]]}, "value_error"),
        ({"rules": [{"type": "invoice"}]}, "missing"),
        ({"mode": "BEST"}, "enum"),
        ({"parsing_configuration": {"lang": "zh"}}, "enum"),
        ({"parsing_configuration": {"target_pages": "1-3"}}, "list_type"),
        ({"parsing_configuration": {"max_pages": 3, "target_pages": [0]}}, "value_error"),
        ({"webhook_configurations": [{"webhook_ulr": "https://a.example"}]}, "extra_forbidden"),
        ({"webhook_configurations": [{"webhook_url": "ftp://a.example"}]}, "string_pattern_mismatch"),
    ],
)
def test_a_v1_create_that_breaks_the_contract_is_refused(change: dict[str, Json], kind: str) -> None:
    """422 with one error of the kind that pydantic names, and nothing is journalled."""

    async def story(talk: Talk) -> None:
        refused = await talk.client.post(V1, json={"file_ids": [uid(1)], "rules": RULES, **change})
        assert refused.status_code == 422
        assert [kind] == [error["type"] for error in refused.json()["detail"]]
        assert talk.sandbox.state.journal == []

    converse(story, both_page_fields="refuse")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"file_input": "a"}',
        b'{"configuration": {"rules": []}, "file_input": "a"}',
        b'{"configuration": {"rules": [{"type": "t", "description": "ten letters"}], "mode": "MULTIMODAL"}}',
    ],
)
def test_a_v2_create_that_breaks_the_contract_is_refused(body: bytes) -> None:
    """Whatever is wrong with it: 422 with a list of errors, never a crash."""

    async def story(talk: Talk) -> None:
        refused = await talk.client.post(V2, content=body, headers={"Content-Type": "application/json"})
        assert (422, list) == (refused.status_code, type(refused.json()["detail"]))

    converse(story)


def test_a_call_needs_a_key() -> None:
    """Any that is not empty, unless one is set; then that one."""

    async def statuses(key: str | None) -> list[int]:
        async with talking(key=key) as talk:
            given = ({"Authorization": text} for text in ("", "Basic right", "Bearer other", "Bearer right"))
            return [(await talk.client.get(V1, headers=headers)).status_code for headers in given]

    assert asyncio.run(statuses(None)) == [401, 401, 200, 200]
    assert asyncio.run(statuses("right")) == [401, 401, 401, 200]


@pytest.mark.parametrize("token", ["no-such", "é", "OTk5OTk5", "LTU="])
def test_a_page_token_of_the_callers_own_is_no_crash(token: str) -> None:
    """It is refused, or leads to jobs that are there."""

    async def story(talk: Talk) -> None:
        await talk.create()
        assert (await talk.client.get(V1, params={"page_token": token})).status_code in {200, 400}

    converse(story)


@pytest.mark.parametrize("version", [V1, V2])
def test_lists_are_newest_first_and_paged(version: str) -> None:
    """Following next_page_token meets every job once, also while new ones are made."""

    async def story(talk: Talk) -> None:
        make = talk.create if version == V1 else talk.classify
        made = [(await make()).json()["id"] for _ in range(5)]
        page = await talk.json(version, page_size="2")
        seen = [job["id"] for job in page["items"]]
        await make()
        while token := page["next_page_token"]:
            page = await talk.json(version, page_size="2", page_token=token)
            seen += [job["id"] for job in page["items"]]
        assert made[::-1] == seen

    converse(story)


def test_v2_lists_only_what_is_asked_for() -> None:
    """By job_ids, by status, and by when jobs were created."""

    async def story(talk: Talk) -> None:
        first = (await talk.classify()).json()
        talk.clock.seconds += LATER_S
        second = (await talk.classify()).json()

        async def found(**query: str | list[str]) -> list[str]:
            return [job["id"] for job in (await talk.json(V2, **query))["items"]]

        assert [first["id"]] == await found(job_ids=[first["id"], "clj-none"])
        assert [second["id"]] == await found(status="PENDING")
        assert [second["id"]] == await found(created_at_on_or_after=second["created_at"])
        assert [first["id"]] == await found(created_at_on_or_before=first["created_at"])
        assert (await talk.client.get(V2, params={"page_size": 101})).status_code == 422

    converse(story)


@pytest.mark.parametrize("window", ["sliding", "fixed", "bucket"])
def test_creates_above_the_rate_are_refused_until_a_second_has_passed(window: str) -> None:
    """The refused call has no effect, and says nothing of when to come back."""

    async def story(talk: Talk) -> None:
        answers = [await talk.create() for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert "Retry-After" not in answers[-1].headers
        talk.clock.seconds += 1.0
        assert (await talk.create()).status_code == 200
        assert (len(talk.sandbox.state.journal), talk.sandbox.state.throttled) == (4, {"create": 1})

    converse(story, creates_per_s=3, window=window)


def test_the_free_tier_counts_every_kind_of_call_over_a_minute() -> None:
    """And, with the switch for it, says how long to wait."""

    async def story(talk: Talk) -> None:
        answers = [await talk.create(), await talk.client.get(V1), await talk.client.get(V2)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[-1].headers["Retry-After"] == "60"

    converse(story, calls_per_minute=2, retry_after=True)


def test_the_journal_is_open_to_other_processes() -> None:
    """Outside the API, without a key: what took effect and how much was asked."""

    async def story(talk: Talk) -> None:
        job_id = (await talk.create(uid(7))).json()["id"]
        told = (await talk.client.get("/_sandbox/journal", headers={"Authorization": ""})).json()
        (entry,) = told["creates"]
        assert ("v1", job_id, [uid(7)]) == (entry["version"], entry["job_id"], entry["file_ids"])
        assert told["requests"] == {"create": 1}

    converse(story)


def test_a_client_that_is_killed_while_it_sends_is_no_crash(caplog: pytest.LogCaptureFixture) -> None:
    """Half of a create call, and the connection is gone: nothing took effect, and no traceback stands on the screen."""

    async def story(talk: Talk) -> None:
        url = talk.client.base_url
        _, writer = await asyncio.open_connection(url.host, url.port)
        head = f"POST {V1} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\nContent-Length: 100\r\n\r\n"
        writer.write(head.encode() + b"{")
        await writer.drain()
        while not talk.sandbox.state.requests["create"]:  # noqa: ASYNC110 - a plain count, with no event to wait for
            await asyncio.sleep(0)
        writer.close()
        assert (await talk.client.get(V1)).status_code == 200
        assert talk.sandbox.state.journal == []

    converse(story)
    assert caplog.records == []


def test_it_listens_on_loopback_only() -> None:
    """An address that others can reach is refused."""
    with pytest.raises(ValueError, match="loopback"):
        asyncio.run(Sandbox().start("0.0.0.0"))  # noqa: S104 - it is refused


def test_it_serves_as_a_process_until_it_is_told_to_stop(tmp_path: Path) -> None:
    """The URL is printed and stands in the ready file once it listens; SIGTERM ends it in good order."""
    ready_file = tmp_path / "url"
    command = [sys.executable, "-m", "orchestrator", "sandbox", "--port", "0", "--ready-file", str(ready_file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            base_url = process.stdout.readline().strip()
            assert ready_file.read_text().strip() == base_url
            assert httpx.get(f"{base_url}/_sandbox/journal", trust_env=False, timeout=60).json()["creates"] == []
        finally:
            process.terminate()
    assert process.returncode == 0


def test_a_port_that_is_taken_is_the_callers_mistake() -> None:
    """Named in one line, and no bug."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"--port {port}: .*in use"):
            serve(port=port, faults=[], seed=0, key=None, ready_file=None, announce=pytest.fail)


def test_the_official_sdk_speaks_v1_with_it() -> None:
    """Upload, create, wait, list and read results through a client that nobody here wrote."""

    async def main() -> None:
        sandbox = Sandbox(SandboxOptions(job_seconds=(0.0, 0.0)))
        client = AsyncLlamaCloud(api_key="llx-any", base_url=await sandbox.start(), max_retries=0)
        async with client:
            file = await client.files.create(file=("a.txt", INVOICE), purpose="classify")
            with pytest.warns(DeprecationWarning):
                job = await client.classifier.jobs.create(file_ids=[file.id], rules=RULES)  # type: ignore[arg-type]  # its TypedDict
                job = await client.classifier.jobs.get(job.id)
                results = await client.classifier.jobs.get_results(job.id)
                listed = [listed.id async for listed in client.classifier.jobs.list()]
            assert results.items[0].result is not None
            assert ("SUCCESS", "invoice", [job.id]) == (job.status, results.items[0].result.type, listed)
        await sandbox.stop()

    asyncio.run(main())


def test_todays_official_sdk_speaks_v2_with_it() -> None:
    """Every call it has, its models checking every answer; the last one that speaks v1 is older."""

    async def main() -> dict[str, Json]:
        sandbox = Sandbox(SandboxOptions(job_seconds=(0.1, 0.1), strict_ids=False))
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", ROOT / "tests" / "support" / "sdk_client.py", await sandbox.start()),
            env={"PYTHONPATH": str(ROOT / ".venv" / "sdk")},
            stdout=subprocess.PIPE,
        )
        out, _ = await child.communicate()
        await sandbox.stop()
        return dict(json.loads(out))

    found = asyncio.run(main())
    job, on_parse = found["job"], found["on_parse"]
    assert found["version"] in (ROOT / "scripts" / "sdk.lock").read_text()
    assert found["again"] == job, "a key that is used again brings back its first job"
    assert found["status"] == ["PENDING", "COMPLETED", "CANCELLED"]
    assert (found["type"], found["credits"]) == ("invoice", 1)
    assert found["input_types"] == ["file_id", "parse_job_id"]
    assert found["saved"] == "cfg-1"
    assert found["by_id"] == [job, on_parse]
    assert {job, on_parse} <= set(found["completed"])
    assert (found["refused"], found["deleted"], found["gone"]) == ("ConflictError", job, "NotFoundError")
    assert found["bad"] == "UnprocessableEntityError"
