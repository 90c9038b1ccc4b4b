"""v1: bodies as the vendor's OpenAPI has them, and answers read without guessing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.api.dialect import Call, Target
from orchestrator.api.v1 import STATUSES, V1
from orchestrator.errors import Ambiguous
from orchestrator.models import (
    TERMINAL,
    Chunk,
    Config,
    FileResult,
    JobStatus,
    Json,
    Mode,
    Outcome,
    ParsingConfiguration,
    Webhook,
)

API = V1(Target())
ID = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"

#: Ids that lead to another host, another route, or another line of the request.
HOSTILE_IDS: list[Json] = [
    "https://evil.example/x",
    "//evil.example/x",
    "../../../v1/files",
    "..",
    ".",
    "x?y",
    "x#f",
    "x/y",
    "x\\y",
    "%2e%2e",
    "x y",
    "x\r\nX-Evil: 1",
    "x\n",
    "x@evil.example",
    "x:y",
    "é",
    "１２",
    "x\x00",
    "",
    "a" * 129,
    None,
    7,
    True,
    ["x"],
    {"id": "x"},
]


def job(**changes: Json) -> dict[str, Json]:
    """A job as the API tells it."""
    return {
        "id": ID,
        "project_id": "p",
        "user_id": "u",
        "status": "PENDING",
        "rules": [
            {"type": "invoice", "description": "contains line items and a total"},
            {"type": "receipt", "description": "proof of a payment that was made"},
        ],
        "mode": "FAST",
        "parsing_configuration": {"lang": "en", "max_pages": 5, "target_pages": None},
        "created_at": "2026-11-25T02:00:00Z",
        "updated_at": "2026-11-25T02:01:00Z",
        **changes,
    }


def test_the_create_body_is_the_contracts(chunk: Chunk) -> None:
    """Plural names, rules in order, the mode and the page limit always spelled out, nothing else."""
    assert API.create(chunk) == Call(
        "POST",
        "/api/v1/classifier/jobs",
        (),
        {
            "file_ids": ["file-a", "file-b"],
            "rules": [
                {"type": "invoice", "description": "contains line items and a total"},
                {"type": "receipt", "description": "proof of a payment that was made"},
            ],
            "mode": "FAST",
            "parsing_configuration": {"lang": "en", "max_pages": 5},
        },
    )


def test_target_pages_are_sent_from_0_and_without_max_pages(chunk: Chunk) -> None:
    """The vendor's guide says that the two exclude each other."""
    parsing = ParsingConfiguration("ch_sim", None, (0, 3))
    body = API.create(replace(chunk, config=replace(chunk.config, parsing_configuration=parsing))).body
    assert body["parsing_configuration"] == {"lang": "ch_sim", "target_pages": [0, 3]}


def test_multimodal_is_asked_for_by_its_name(chunk: Chunk) -> None:
    """The mode reaches the body."""
    assert API.create(replace(chunk, config=replace(chunk.config, mode=Mode.MULTIMODAL))).body["mode"] == "MULTIMODAL"


def test_webhooks_are_sent_with_only_what_was_given(chunk: Chunk) -> None:
    """The API's webhook object takes no unknown keys, so none is sent for nothing."""
    least = Webhook("https://example.com/a")
    most = Webhook("https://example.com/b", ("classify.success",), {"X-A": "1"}, "string", "secret")
    assert V1(Target(webhooks=(least, most))).create(chunk).body["webhook_configurations"] == [
        {"webhook_url": "https://example.com/a"},
        {
            "webhook_url": "https://example.com/b",
            "webhook_events": ["classify.success"],
            "webhook_headers": {"X-A": "1"},
            "webhook_output_format": "string",
            "webhook_signing_secret": "secret",
        },
    ]


def test_the_project_goes_with_every_call(chunk: Chunk) -> None:
    """Project and organization are query parameters of all four routes."""
    api = V1(Target("p-1", "o-1"))
    both = (("project_id", "p-1"), ("organization_id", "o-1"))
    assert api.create(chunk).query == both
    assert api.get(ID) == Call("GET", f"/api/v1/classifier/jobs/{ID}", both)
    assert api.ask([ID]) == api.get(ID)
    assert api.results(ID, None) == Call("GET", f"/api/v1/classifier/jobs/{ID}/results", both)
    assert api.results(ID, "t").query == (*both, ("page_token", "t"))
    assert api.list(None, 50) == Call("GET", "/api/v1/classifier/jobs", (*both, ("page_size", "50")))
    assert api.list("t", 50).query == (*both, ("page_size", "50"), ("page_token", "t"))


def test_a_job_is_read(config: Config) -> None:
    """Status, times and the echo of the config."""
    read = API.read_job(job(status="SUCCESS", error_message="one file failed"))
    assert (read.id, read.status, read.api_status) == (ID, JobStatus.SUCCEEDED, "SUCCESS")
    assert (read.echo, read.error, read.project_id) == (config.echo, "one file failed", "p")
    assert read.created_at == datetime(2026, 11, 25, 2, 0, tzinfo=UTC)
    assert read.ended_at == datetime(2026, 11, 25, 2, 1, tzinfo=UTC)


def test_a_jobs_id_has_one_spelling() -> None:
    """A job whose id came in capitals was asked about in vain ever after, and its files could be bought again."""
    job_id = "3F2504E0-4F89-41D3-9A0C-0305E82C3301"
    assert V1(Target()).read_job({"id": job_id, "status": "PENDING"}).id == job_id.lower()
    assert V1(Target()).read_job({"id": "Job-1", "status": "PENDING"}).id == "Job-1"


def test_only_an_ended_job_has_an_end() -> None:
    """``updated_at`` of a job under way is not its end."""
    assert API.read_job(job()).ended_at is None


def test_the_status_words_are_the_contracts() -> None:
    """Four of the five are terminal; partial success is a success with failed files in it."""
    assert set(STATUSES) == {"PENDING", "SUCCESS", "ERROR", "PARTIAL_SUCCESS", "CANCELLED"}
    assert {word for word, status in STATUSES.items() if status in TERMINAL} == set(STATUSES) - {"PENDING"}
    assert STATUSES["PARTIAL_SUCCESS"] is JobStatus.SUCCEEDED


@pytest.mark.parametrize("word", ["success", "DONE", "", None, 7, ["SUCCESS"], "SUCCESS "])
def test_a_word_that_is_not_in_the_contract_is_no_status(word: Json) -> None:
    """Unknown is neither ended nor successful; the word is kept."""
    read = API.read_job(job(status=word))
    assert read.status is None
    assert read.api_status == ("" if word is None else str(word))


@pytest.mark.parametrize("job_id", HOSTILE_IDS, ids=ascii)
def test_a_hostile_id_is_never_read(job_id: Json) -> None:
    """It is an answer that says yes and names no job: the create may have had its effect."""
    with pytest.raises(Ambiguous) as caught:
        API.read_job(job(id=job_id))
    assert caught.value.created


@pytest.mark.parametrize("job_id", HOSTILE_IDS, ids=ascii)
def test_a_hostile_id_never_becomes_part_of_a_path(job_id: Json) -> None:
    """Not even one that came by another way, such as an old ledger."""
    for build in (API.get, lambda found: API.ask([found]), lambda found: API.results(found, None)):
        with pytest.raises(Ambiguous):
            build(job_id)


@pytest.mark.parametrize("answer", [None, [], "x", 7, {}, {"id": None}])
def test_an_answer_that_is_no_job_is_ambiguous(answer: Json) -> None:
    """A 2xx of any other shape says that something was created, and not what."""
    with pytest.raises(Ambiguous) as caught:
        API.read_job(answer)
    assert caught.value.created


@pytest.mark.parametrize(
    ("changes", "untold"),
    [
        ({"rules": None}, "rules"),
        ({"rules": []}, "rules"),
        ({"rules": "x"}, "rules"),
        ({"rules": [{"type": "a"}]}, "rules"),
        ({"mode": None}, "mode"),
        ({"mode": 7}, "mode"),
        ({"parsing_configuration": {"max_pages": 5}}, "lang"),
        ({"parsing_configuration": {"max_pages": 5, "lang": [7]}}, "lang"),
        ({"parsing_configuration": {"lang": "en", "max_pages": None}}, "pages"),
        ({"parsing_configuration": {"lang": "en", "target_pages": ["x"]}}, "pages"),
    ],
)
def test_what_an_echo_does_not_tell_readably_is_none(config: Config, changes: dict[str, Json], untold: str) -> None:
    """The job still counts, and so does the rest of its echo: nothing is taken for a default that was not said."""
    read = API.read_job(job(**changes))
    assert (read.id, read.echo) == (ID, replace(config.echo, **{untold: None}))


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": "fast"},
        {"parsing_configuration": {"lang": ["EN"], "max_pages": 5, "target_pages": []}},
        {
            "rules": [
                {"type": rule["type"], "description": f" {rule['description']}\n"} for rule in job()["rules"][::-1]
            ]
        },
    ],
    ids=["mode", "lang", "rules"],
)
def test_the_same_in_other_words_is_the_same(config: Config, changes: dict[str, Json]) -> None:
    """The order of rules, white space, the case of the mode, and one language in a list make no other config."""
    assert API.read_job(job(**changes)).echo == config.echo


def test_the_echo_of_what_is_sent_is_the_config(chunk: Chunk) -> None:
    """Reconciliation compares the two, so they must agree for every config."""
    for parsing in (ParsingConfiguration("de", 3), ParsingConfiguration("de", None, (4, 0))):
        asked = replace(chunk, config=replace(chunk.config, mode=Mode.MULTIMODAL, parsing_configuration=parsing))
        echo = API.create(asked).body
        assert API.read_job({**echo, "id": ID, "status": "PENDING"}).echo == asked.config.echo


def item(file_id: Json, result: Json) -> dict[str, Json]:
    return {"id": "i", "classify_job_id": ID, "file_id": file_id, "result": result}


def test_results_are_read_row_by_row() -> None:
    """A type, no matching rule, and no result at all are three different outcomes."""
    answer = {
        "items": [
            item("a", {"type": "invoice", "confidence": 0.93, "reasoning": "has a total"}),
            item("b", {"type": None, "confidence": 0.1, "reasoning": "nothing fits"}),
            item("c", None),
        ],
        "next_page_token": None,
    }
    results, token = API.read_results(answer)
    assert token is None
    assert results.oddities == ()
    assert results.rows == (
        FileResult("a", Outcome.CLASSIFIED, "invoice", 0.93, "has a total"),
        FileResult("b", Outcome.UNMATCHED, None, 0.1, "nothing fits"),
        FileResult("c", Outcome.FAILED, error="the API gave no result for this file"),
    )


@pytest.mark.parametrize("confidence", [None, "0.9", True, -0.1, 1.1, float("nan"), float("inf"), 10**400, [], {}])
def test_a_confidence_that_is_none_is_noted_and_not_stored(confidence: Json) -> None:
    """The type stands; what can't be a confidence is not made into one."""
    results, _ = API.read_results({"items": [item("a", {"type": "x", "confidence": confidence, "reasoning": ""})]})
    assert (results.rows[0].type, results.rows[0].confidence) == ("x", None)
    assert results.oddities == ("the confidence of a is not a number from 0 to 1",)


@pytest.mark.parametrize("result", ["x", 7, [], {"type": 7}, {"type": ["invoice"]}, True])
def test_a_result_that_cannot_be_read_is_noted(result: Json) -> None:
    """No row is made up from it."""
    results, _ = API.read_results({"items": [item("a", result)]})
    assert results.rows == ()
    assert results.oddities == ("the result row of a can't be read",)


@pytest.mark.parametrize("file_id", [None, 7, ["a"], {}])
def test_a_row_without_a_file_is_noted(file_id: Json) -> None:
    """It is attributed to nobody here; one whose file is null, as the contract allows, is kept aside."""
    results, _ = API.read_results({"items": [item(file_id, {"type": "x", "confidence": 1, "reasoning": ""})]})
    assert (results.rows, results.oddities) == ((), ("a result row names no file",))
    assert [row.type for row in results.nameless] == ([] if file_id is not None else ["x"])


@pytest.mark.parametrize("odd", [None, 7, "x", [], True])
def test_a_row_that_is_no_object_costs_no_other_its_result(odd: Json) -> None:
    """It is noted; the files around it have theirs."""
    good = [item(file_id, {"type": "x", "confidence": 1, "reasoning": ""}) for file_id in "ab"]
    results, _ = API.read_results({"items": [good[0], odd, good[1]]})
    assert [row.file_id for row in results.rows] == ["a", "b"]
    assert results.oddities == ("a result row names no file",)


def test_half_a_character_can_be_stored() -> None:
    """JSON can spell a lone surrogate, which no database takes."""
    answer = {"items": [item("a", {"type": "x\ud800", "confidence": 1, "reasoning": "\udfff"})]}
    row = API.read_results(answer)[0].rows[0]
    assert (row.type, row.reasoning) == ("x\\ud800", "\\udfff")


@pytest.mark.parametrize(
    "answer", [None, "x", 7, {}, {"items": None}, {"items": {}}, {"items": [], "next_page_token": 7}]
)
def test_what_is_no_page_is_ambiguous(answer: Json) -> None:
    """A page that can't be read is never the last one."""
    for read in (API.read_page, API.read_results):
        with pytest.raises(Ambiguous):
            read(answer)


def test_a_bare_array_is_a_whole_listing() -> None:
    """Older self-hosted servers answer so."""
    page = API.read_page([job()])
    assert ([found.id for found in page.jobs], page.next_token) == ([ID], None)


def test_an_empty_token_ends_the_listing() -> None:
    """Null, absent and empty all mean the last page."""
    for token in ({}, {"next_page_token": None}, {"next_page_token": ""}):
        assert API.read_page({"items": [], **token}).next_token is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(
    st.fixed_dictionaries(
        {
            "file_id": json_values,
            "result": json_values
            | st.fixed_dictionaries({"type": json_values, "confidence": json_values, "reasoning": json_values}),
        }
    )
)
def test_no_row_is_too_odd(row: dict[str, Json]) -> None:
    """Any JSON gives one row or one remark (two where it also names no file), and text that can be stored."""
    results, _ = API.read_results({"items": [row]})
    remarks = sum("confidence" not in odd for odd in results.oddities)
    assert len(results.rows) + remarks == (1 if row["file_id"] is not None or results.nameless else 2)
    for read in (*results.rows, *results.nameless):
        for text in (read.type, read.reasoning, read.error):
            assert text is None or text.encode().decode() == text


@given(st.dictionaries(st.sampled_from(sorted(job())), json_values))
def test_no_job_is_too_odd(changes: dict[str, Json]) -> None:
    """Any JSON in any field gives a job, or the one error for answers that can't be read."""
    try:
        read = API.read_job(job(**changes))
    except Ambiguous as error:
        assert error.created
        return
    assert read.id


@given(st.dictionaries(st.sampled_from(["lang", "max_pages", "target_pages"]), json_values), json_values, json_values)
def test_no_echo_is_too_odd(parsing: dict[str, Json], rules: Json, mode: Json) -> None:
    """What can't be read of a job's config says nothing, and costs no job its news."""
    assert API.read_job(job(parsing_configuration=parsing, rules=rules, mode=mode)).id


def test_words_nested_too_deeply_are_no_answer() -> None:
    """Nothing can write them down."""
    deep: list[Json] = []
    for _ in range(100_000):
        deep = [deep]
    job = {"id": "job-1", "status": "PENDING", "rules": [{"type": deep, "description": ""}]}
    assert V1(Target()).read_job(job).echo.rules is None
    with pytest.raises(Ambiguous):
        V1(Target()).read_job({**job, "error_message": deep})
