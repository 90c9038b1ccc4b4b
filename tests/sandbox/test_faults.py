"""The sandbox misbehaves on demand: each fault, and each switch for what the contract leaves open."""

from __future__ import annotations

import asyncio
import gzip
import json

import httpx
import pytest
from support.talking import FILES, LATER_S, V1, V2, Talk, converse, talking, uid

from orchestrator.errors import InputError
from orchestrator.sandbox import parse_faults
from orchestrator.sandbox.options import CALL_FAULTS, JOB_FAULTS, ROW_FAULTS


def test_faults_are_read_from_the_command_line() -> None:
    """Numbers as numbers, regular expressions as they are, one kind of call if so asked."""
    items = ["drop-after=0.03", "create.http-5xx=1", "slow=2.5", "fail-matching=a=b"]
    expected = {"drop-after": 0.03, "create.http-5xx": 1.0, "slow": 2.5, "fail-matching": "a=b"}
    assert parse_faults(items) == expected


@pytest.mark.parametrize(
    ("item", "says"),
    [
        ("no-such=1", "drop-after"),
        ("drop-after", "NAME=VALUE"),
        ("drop-after=2", "probability"),
        ("drop-after=often", "probability"),
        ("drop-after=nan", "probability"),
        ("slow=-1", "seconds"),
        ("nothing.drop-after=1", "create"),
        ("create.job-error=1", "create"),
        ("fail-matching=(", "regular expression"),
    ],
)
def test_a_fault_that_cannot_be_used_is_explained(item: str, says: str) -> None:
    """The message names what was given, and what would do; to the command line it is a wrong call."""
    with pytest.raises(ValueError, match=says) as caught:
        parse_faults([item])
    assert repr(item) in str(caught.value)
    assert isinstance(caught.value, InputError)


@pytest.mark.parametrize(
    ("fault", "statuses"),
    [
        ("http-5xx", {500, 502, 503, 504}),
        ("http-429", {429}),
        ("status-401", {401}),
        ("status-402", {402}),
        ("status-403", {403}),
        ("status-404", {404}),
        ("status-410", {410}),
        ("redirect", {307}),
    ],
)
def test_a_refusing_fault_has_no_effect(fault: str, statuses: set[int]) -> None:
    """The status is the fault's, and nothing is journalled."""

    async def story(talk: Talk) -> None:
        assert (await talk.create()).status_code in statuses
        assert talk.sandbox.state.journal == []

    converse(story, faults={fault: 1.0})


def test_a_connection_dropped_before_has_no_effect() -> None:
    """The client can't tell it from the one below; the journal can."""

    async def story(talk: Talk) -> None:
        with pytest.raises(httpx.TransportError):
            await talk.create()
        assert talk.sandbox.state.journal == []

    converse(story, faults={"drop-before": 1.0})


def test_a_connection_dropped_after_has_had_its_effect() -> None:
    """Every job is there, whether half an answer was sent or none."""

    async def story(talk: Talk) -> None:
        cut_short = []
        for _ in range(8):
            with pytest.raises(httpx.RemoteProtocolError) as caught:
                await talk.create()
            cut_short.append("body" in str(caught.value))
        assert set(cut_short) == {True, False}
        assert len(talk.sandbox.state.journal) == 8

    converse(story, faults={"drop-after": 1.0})


def test_a_late_commit_appears_after_its_error() -> None:
    """503 now, the job some seconds later, in lists and in the journal."""

    async def story(talk: Talk) -> None:
        assert (await talk.create()).status_code == 503
        assert (await talk.json(V1))["items"] == []
        talk.clock.seconds += 5.0
        assert len((await talk.json(V1))["items"]) == len(talk.sandbox.state.journal) == 1

    converse(story, faults={"commit-late": 1.0, "commit-late-seconds": 5.0})


def test_garbage_is_a_200_that_is_not_json() -> None:
    """HTML or JSON cut short; the call took effect."""

    async def story(talk: Talk) -> None:
        answers = [await talk.create() for _ in range(8)]
        assert {answer.headers["content-type"] for answer in answers} == {"text/html", "application/json"}
        for answer in answers:
            assert answer.status_code == 200
            with pytest.raises(json.JSONDecodeError):
                answer.json()
        assert len(talk.sandbox.state.journal) == 8

    converse(story, faults={"garbage": 1.0})


def test_a_gzip_bomb_is_small_on_the_wire() -> None:
    """Less than a megabyte that says it is 64."""

    async def story(talk: Talk) -> None:
        async with talk.client.stream("GET", V1) as answer:
            packed = b"".join([piece async for piece in answer.aiter_raw()])
        assert len(packed) < 1_048_576
        assert len(gzip.decompress(packed)) == 64 * 1_048_576

    converse(story, faults={"gzip-bomb": 1.0})


def test_a_call_that_hangs_has_had_its_effect() -> None:
    """It is never answered, and does not keep the sandbox from stopping."""

    async def story(talk: Talk) -> None:
        call = asyncio.create_task(talk.create())
        while not talk.sandbox.state.journal:  # noqa: ASYNC110 - nothing tells when a job is journalled
            await asyncio.sleep(0)
        await talk.sandbox.stop()
        with pytest.raises(httpx.TransportError):
            await call

    converse(story, faults={"hang": 1.0})


def test_a_slow_answer_takes_its_time() -> None:
    """By the injected clock, so that nobody waits for it here."""

    async def story(talk: Talk) -> None:
        await talk.create()
        assert talk.clock.seconds == 7.0

    converse(story, faults={"slow": 7.0})


def test_a_fault_can_be_kept_to_one_kind_of_call() -> None:
    """Creates fail, reads do not."""

    async def story(talk: Talk) -> None:
        assert [(await talk.create()).status_code, (await talk.client.get(V1)).status_code] == [402, 200]

    converse(story, faults={"create.status-402": 1.0})


def test_the_same_seed_strikes_the_same_calls() -> None:
    """And another seed other ones."""

    async def statuses(seed: int) -> list[int]:
        async with talking(seed=seed, faults={"http-5xx": 0.5}) as talk:
            return [(await talk.create()).status_code for _ in range(20)]

    async def main() -> None:
        assert await statuses(1) == await statuses(1) != await statuses(2)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("fault", "status", "rows", "results"),
    [
        ("job-error", "ERROR", 0, 0),
        ("job-cancel", "CANCELLED", 0, 0),
        ("all-error", "ERROR", 20, 0),
        ("file-fails", "ERROR", 20, 0),
        ("error-with-rows", "ERROR", 20, 9),
        ("row-missing", "SUCCESS", 0, 0),
        ("row-repeat", "SUCCESS", 40, 40),
        ("row-conflict", "SUCCESS", 40, 40),
        ("row-extra", "SUCCESS", 21, 21),
    ],
)
def test_a_fault_of_a_job_shows_in_its_status_and_rows(fault: str, status: str, rows: int, results: int) -> None:
    """20 files: how the job ends, how many rows it has, and how many of them hold a result."""

    async def story(talk: Talk) -> None:
        job = await talk.ended(*map(uid, range(20)))
        told = await talk.rows(job["id"])
        assert job["status"] == status
        assert (len(told), sum(row["result"] is not None for row in told)) == (rows, results)

    converse(story, faults={fault: 1.0})


@pytest.mark.parametrize(("fault", "word"), [("job-stick", "PENDING"), ("job-unknown-status", "ANALYZING")])
def test_a_job_may_not_end_or_speak_in_unknown_words(fault: str, word: str) -> None:
    """A stuck job is pending for good; an unknown word lasts until the job ends."""

    async def story(talk: Talk) -> None:
        job = (await talk.create()).json()
        if fault == "job-stick":
            talk.clock.seconds += 86_400.0
        assert (await talk.json(f"{V1}/{job['id']}"))["status"] == word

    converse(story, faults={fault: 1.0})


def test_rows_that_disagree_are_for_the_same_file() -> None:
    """Two rows, one file, two types."""

    async def story(talk: Talk) -> None:
        first, second = await talk.rows((await talk.ended(uid(1)))["id"])
        assert first["file_id"] == second["file_id"]
        assert first["result"]["type"] != second["result"]["type"]

    converse(story, faults={"row-conflict": 1.0})


def test_a_row_may_lack_its_id_and_have_a_label_of_no_rule_and_hostile_text() -> None:
    """Three faults that leave the row in its place."""

    async def story(talk: Talk) -> None:
        (row,) = await talk.rows((await talk.ended(uid(1)))["id"])
        assert (row["file_id"], row["result"]["type"]) == (None, "no-such-rule")
        assert all(part in row["result"]["reasoning"] for part in ("\x1b", "=cmd", "<script>"))

    converse(story, faults={"row-null-id": 1.0, "label-unknown": 1.0, "hostile-text": 1.0})


def test_a_matching_file_fails_and_the_others_do_not() -> None:
    """The job is a partial success, and the file's row has a null result."""

    async def story(talk: Talk) -> None:
        job = await talk.ended(uid(1), uid(2))
        failed = [row["file_id"] for row in await talk.rows(job["id"]) if row["result"] is None]
        assert (job["status"], failed) == ("PARTIAL_SUCCESS", [uid(2)])

    converse(story, faults={"fail-matching": "2$"})


def test_a_file_at_fault_takes_its_whole_job_with_it() -> None:
    """On v1 its neighbours too; on v2 its own job only."""

    async def story(talk: Talk) -> None:
        job = await talk.ended(uid(1), uid(2))
        assert (job["status"], await talk.rows(job["id"])) == ("ERROR", [])
        alone = (await talk.classify(uid(2))).json()
        talk.clock.seconds += LATER_S
        assert (await talk.json(f"{V2}/{alone['id']}"))["status"] == "FAILED"

    converse(story, faults={"poison-matching": "2$"})


def test_results_may_lead_back_to_the_same_page() -> None:
    """The token that a page names brings that page again."""

    async def story(talk: Talk) -> None:
        path = f"{V1}/{(await talk.ended())['id']}/results"
        first = await talk.json(path)
        assert await talk.json(path, page_token=first["next_page_token"]) == first

    converse(story, faults={"page-loop": 1.0})


def test_results_come_in_pages_when_that_is_set() -> None:
    """Following the tokens meets every row once."""

    async def story(talk: Talk) -> None:
        path = f"{V1}/{(await talk.ended(*map(uid, range(5))))['id']}/results"
        page = await talk.json(path)
        seen = [row["file_id"] for row in page["items"]]
        while token := page["next_page_token"]:
            page = await talk.json(path, page_token=token)
            seen += [row["file_id"] for row in page["items"]]
        assert sorted(seen) == list(map(uid, range(5)))

    converse(story, results_page_size=2)


def test_a_failed_file_may_have_no_row() -> None:
    """The switch for what the contract leaves open."""

    async def story(talk: Talk) -> None:
        job = await talk.ended(uid(1), uid(2))
        assert [row["file_id"] for row in await talk.rows(job["id"])] == [uid(1)]

    converse(story, faults={"fail-matching": "2$"}, failed_file="missing")


def test_results_before_the_end_may_be_empty() -> None:
    """200 without items in place of 404."""

    async def story(talk: Talk) -> None:
        assert await talk.rows((await talk.create()).json()["id"]) == []

    converse(story, early_results="empty")


@pytest.mark.parametrize(("switch", "status"), [("rows", 200), ("empty", 200), ("404", 404)])
def test_results_of_a_failed_job_are_a_switch(switch: str, status: int) -> None:
    """All rows, none, or 404."""

    async def story(talk: Talk) -> None:
        answer = await talk.client.get(f"{V1}/{(await talk.ended())['id']}/results")
        assert answer.status_code == status
        assert bool(answer.json().get("items")) == (switch == "rows")

    converse(story, faults={"all-error": 1.0}, error_results=switch)


def test_files_that_were_never_uploaded_may_be_refused() -> None:
    """400 for the whole call, on both versions."""

    async def story(talk: Talk) -> None:
        known = (await talk.upload()).json()["id"]
        refused = [await talk.create(known, uid(1)), await talk.classify(uid(1))]
        assert [answer.status_code for answer in refused] == [400, 400]
        assert uid(1) in refused[0].json()["detail"]
        assert (await talk.create(known)).status_code == 200

    converse(story, unknown_files="refuse")


def test_a_job_may_be_readable_only_some_time_after_its_create() -> None:
    """The commit delay holds back reads and lists; the list lag lists only."""

    async def story(talk: Talk) -> None:
        path = f"{V1}/{(await talk.create()).json()['id']}"
        statuses = []
        for _ in range(3):
            listed = (await talk.json(V1))["items"]
            statuses.append(((await talk.client.get(path)).status_code, len(listed)))
            talk.clock.seconds += 2.0
        assert statuses == [(404, 0), (200, 0), (200, 1)]

    converse(story, commit_delay_s=2.0, list_lag_s=2.0)


@pytest.mark.parametrize("shuffled", [True, False])
def test_rows_may_keep_the_order_of_the_files(shuffled: bool) -> None:
    """By default they do not."""

    async def story(talk: Talk) -> None:
        sent = [uid(number) for number in range(10)]
        rows = await talk.rows((await talk.ended(*sent))["id"])
        assert ([row["file_id"] for row in rows] != sent) is shuffled

    converse(story, shuffled=shuffled)


def test_v1_pages_may_be_smaller_than_asked_for() -> None:
    """The client asks for ten and gets two at a time."""

    async def story(talk: Talk) -> None:
        for _ in range(3):
            await talk.create()
        page = await talk.json(V1, page_size="10")
        rest = await talk.json(V1, page_size="10", page_token=page["next_page_token"])
        assert [len(page["items"]), len(rest["items"])] == [2, 1]

    converse(story, max_page_size=2)


def test_credits_may_be_known_only_some_time_after_the_end() -> None:
    """Usage is null until then."""

    async def story(talk: Talk) -> None:
        path = f"{V2}/{(await talk.classify()).json()['id']}"
        talk.clock.seconds += LATER_S
        early = (await talk.json(path, expand="usage"))["usage"]
        talk.clock.seconds += 60.0
        assert (early, (await talk.json(path, expand="usage"))["usage"].keys()) == (None, {"credits", "parse_credits"})

    converse(story, usage_lag_s=60.0)


def test_file_ids_of_any_form_may_be_taken() -> None:
    """A switch for callers whose IDs are not UUIDs."""

    async def story(talk: Talk) -> None:
        assert (await talk.create("file-1")).status_code == 200

    converse(story, strict_ids=False)


def test_a_list_may_be_a_bare_array() -> None:
    """As an older server sends it."""

    async def story(talk: Talk) -> None:
        job_id = (await talk.create()).json()["id"]
        assert [job["id"] for job in await talk.json(V1)] == [job_id]

    converse(story, bare_list=True)


@pytest.mark.parametrize("path", [FILES, "/nowhere", f"{V1}/not-a-uuid", f"{V1}/{uid(404)}", f"{V2}/clj-none"])
def test_whatever_is_not_there_has_a_detail(path: str) -> None:
    """Errors are JSON with a detail, whoever speaks."""

    async def story(talk: Talk) -> None:
        answer = await talk.client.post(path) if path == FILES else await talk.client.get(path)
        assert answer.status_code in {400, 404, 422}
        assert answer.json()["detail"]

    converse(story)


def test_every_fault_says_what_it_does() -> None:
    """One line for each name that --fault takes."""
    described = {**CALL_FAULTS, **JOB_FAULTS, **ROW_FAULTS}
    assert [name for name, line in described.items() if len(line) < 10 or "\n" in line] == []
