"""v2: bodies as the contract has them, and an idempotency key that carries everything that changes the answer."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.api.dialect import Call, Target
from orchestrator.api.v2 import STATUSES, V2, pages_of, pages_text, transaction_id
from orchestrator.errors import Ambiguous
from orchestrator.models import (
    TERMINAL,
    Chunk,
    Config,
    FileResult,
    JobResults,
    JobStatus,
    Json,
    Mode,
    Outcome,
    ParsingConfiguration,
    Rule,
    Webhook,
)

API = V2(Target())
ID = "clj-3f2504e0-4f89-41d3-9a0c-0305e82c3301"


@pytest.fixture
def one(chunk: Chunk) -> Chunk:
    """A v2 chunk: a single file."""
    return replace(chunk, file_ids=("dfl-a",))


def job(**changes: Json) -> dict[str, Json]:
    """A job as the API tells it."""
    return {
        "id": ID,
        "project_id": "p",
        "user_id": "u",
        "status": "PENDING",
        "file_input": "dfl-a",
        "document_input_type": "file_id",
        "configuration": {
            "rules": [
                {"type": "invoice", "description": "contains line items and a total"},
                {"type": "receipt", "description": "proof of a payment that was made"},
            ],
            "mode": "FAST",
            "parsing_configuration": {"lang": "en", "max_pages": 5, "target_pages": None},
        },
        "created_at": "2026-11-25T02:00:00Z",
        "updated_at": "2026-11-25T02:01:00Z",
        **changes,
    }


def test_the_create_body_is_the_contracts(one: Chunk) -> None:
    """One file, the key, and a configuration whose page limit is always spelled out: left out it means all pages."""
    assert API.create(one) == Call(
        "POST",
        "/api/v2/classify",
        (),
        {
            "file_input": "dfl-a",
            "transaction_id": transaction_id(None, one),
            "configuration": {
                "rules": [
                    {"type": "invoice", "description": "contains line items and a total"},
                    {"type": "receipt", "description": "proof of a payment that was made"},
                ],
                "mode": "FAST",
                "parsing_configuration": {"lang": "en", "max_pages": 5},
            },
        },
    )


def test_target_pages_are_sent_as_text_from_1(one: Chunk) -> None:
    """v2 counts pages as people do, v1 and the ledger from 0."""
    parsing = ParsingConfiguration("en", None, (0, 1, 2, 6))
    body = API.create(replace(one, config=replace(one.config, parsing_configuration=parsing))).body
    assert body["configuration"]["parsing_configuration"] == {"lang": "en", "target_pages": "1-3,7"}


def test_a_saved_configuration_is_sent_alone(one: Chunk) -> None:
    """``configuration_id`` and ``configuration`` exclude each other."""
    body = API.create(replace(one, config=Config((), configuration_id="cfg-1"))).body
    assert body["configuration_id"] == "cfg-1"
    assert "configuration" not in body


def test_webhooks_are_sent_both_ways(one: Chunk) -> None:
    """Inline, and by the id of a saved one."""
    body = (
        V2(Target(webhooks=(Webhook("https://example.com/a"),), webhook_configuration_ids=("wh-1",))).create(one).body
    )
    assert body["webhook_configurations"] == [{"webhook_url": "https://example.com/a"}]
    assert body["webhook_configuration_ids"] == ["wh-1"]


def test_a_job_has_one_file(chunk: Chunk) -> None:
    """A chunk of two files can't be sent."""
    with pytest.raises(ValueError, match="too many values"):
        API.create(chunk)


def test_the_other_calls_are_the_contracts() -> None:
    """Many jobs are asked about in one call, by repeating ``job_ids``."""
    api = V2(Target("p-1"))
    project = ("project_id", "p-1")
    assert api.get(ID) == Call("GET", f"/api/v2/classify/{ID}", (project, ("expand", "usage")))
    assert api.cancel(ID) == Call("POST", f"/api/v2/classify/{ID}/cancel", (project,))
    assert api.list("t", 500) == Call("GET", "/api/v2/classify", (project, ("page_size", "100"), ("page_token", "t")))
    asked = api.ask(["a", "b"])
    assert (asked.method, asked.path, asked.body) == ("GET", "/api/v2/classify", None)
    assert asked.query[:3] == (project, ("job_ids", "a"), ("job_ids", "b"))
    assert ("page_size", "100") in asked.query


@pytest.mark.parametrize("job_id", ["https://evil.example", "../x", "a/b", "a?b", "a#b", "a b", "a\n", "", "１", "%2e"])
def test_a_hostile_id_never_becomes_part_of_a_call(job_id: str) -> None:
    """Nor is it read from an answer."""
    for build in (API.get, API.cancel, lambda found: API.ask([found]), lambda found: API.results(found, None)):
        with pytest.raises(Ambiguous):
            build(job_id)
    with pytest.raises(Ambiguous) as caught:
        API.read_job(job(id=job_id))
    assert caught.value.created


def test_the_status_words_are_the_contracts() -> None:
    """CANCELLED is terminal, although the vendor's own poller does not know it."""
    assert set(STATUSES) == {"PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED"}
    assert {word for word, status in STATUSES.items() if status in TERMINAL} == {"COMPLETED", "FAILED", "CANCELLED"}
    assert API.read_job(job(status="ARCHIVED")).status is None


def test_an_ended_job_brings_its_result(config: Config) -> None:
    """One answer has all: status, result, bill, and the echo of what was asked."""
    read = API.read_job(
        job(
            status="COMPLETED",
            result={"type": "invoice", "confidence": 0.9, "reasoning": "has a total"},
            usage={"credits": 3, "parse_credits": 0},
            transaction_id="orc-1",
            parse_job_id="pjb-1",
        )
    )
    assert (read.status, read.echo, read.file_id) == (JobStatus.SUCCEEDED, config.echo, "dfl-a")
    assert (read.transaction_id, read.parse_job_id, read.credits) == ("orc-1", "pjb-1", 3.0)
    assert read.results == JobResults((FileResult("dfl-a", Outcome.CLASSIFIED, "invoice", 0.9, "has a total"),))


def test_no_matching_rule_is_an_answer() -> None:
    """A null type is a paid result, not a failure."""
    read = API.read_job(job(status="COMPLETED", result={"type": None, "confidence": 0.2, "reasoning": "nothing fits"}))
    assert read.results == JobResults((FileResult("dfl-a", Outcome.UNMATCHED, None, 0.2, "nothing fits"),))


def test_a_completed_job_without_a_result_has_failed() -> None:
    """The API's words are kept."""
    read = API.read_job(job(status="COMPLETED", result=None, error_message="PDF_IS_BROKEN"))
    assert read.results == JobResults((FileResult("dfl-a", Outcome.FAILED, error="PDF_IS_BROKEN"),))


@pytest.mark.parametrize("status", ["FAILED", "CANCELLED"])
def test_a_job_that_ended_badly_has_no_row(status: str) -> None:
    """What becomes of its file is the collector's to say."""
    assert API.read_job(job(status=status, error_message="x")).results == JobResults(())


@pytest.mark.parametrize("status", ["PENDING", "RUNNING", "ARCHIVED"])
def test_a_job_that_has_not_ended_has_no_results(status: str) -> None:
    """Even when the API shows some early."""
    result = {"type": "invoice", "confidence": 0.9, "reasoning": ""}
    assert API.read_job(job(status=status, result=result)).results is None


@pytest.mark.parametrize("credits_", [None, "3", True, -1, float("nan"), float("inf"), 10**400, {}])
def test_a_bill_that_is_no_amount_is_none(credits_: Json) -> None:
    """A number too large for any machine does not bring the run down."""
    assert API.read_job(job(status="COMPLETED", usage={"credits": credits_})).credits is None
    assert API.read_job(job(status="COMPLETED", usage=credits_)).credits is None


def test_the_key_is_the_same_for_the_same_question(one: Chunk) -> None:
    """It is made of content alone, not of the ledger's row numbers, so that a lost ledger buys nothing twice."""
    assert transaction_id("p", one) == transaction_id("p", replace(one, id=99))


def test_the_key_does_not_depend_on_the_spelling(one: Chunk) -> None:
    """The user's spelling is what is sent; a call that went out before spellings were one keeps its key."""
    spelt = replace(one, spellings=(f"dfl-{one.file_ids[0]}",))
    assert transaction_id("p", spelt) == transaction_id("p", one)
    assert (API.create(spelt).body or {})["file_input"] == f"dfl-{one.file_ids[0]}"
    assert transaction_id("p", replace(one, keyed_as="dfl-x")) == transaction_id("p", replace(one, file_ids=("dfl-x",)))


def test_the_key_depends_on_everything_that_changes_the_answer(one: Chunk) -> None:
    """The API ignores the body of a call whose key it knows."""
    config = one.config
    rules, parsing = config.rules, config.parsing_configuration
    configs = [
        config,
        replace(config, rules=rules[::-1]),
        replace(config, rules=rules[:1]),
        replace(config, rules=(Rule("Invoice", rules[0].description), rules[1])),
        replace(config, rules=(Rule("invoice", rules[0].description + "."), rules[1])),
        replace(config, mode=Mode.MULTIMODAL),
        replace(config, parsing_configuration=replace(parsing, lang="de")),
        replace(config, parsing_configuration=replace(parsing, max_pages=6)),
        replace(config, parsing_configuration=replace(parsing, max_pages=None, target_pages=(0,))),
        replace(config, parsing_configuration=replace(parsing, max_pages=None, target_pages=(0, 1))),
        Config((), configuration_id="cfg-1"),
        Config((), configuration_id="cfg-2"),
    ]
    chunks = [replace(one, config=other) for other in configs]
    chunks += [replace(one, file_ids=("dfl-b",)), replace(one, generation=1), replace(one, generation=2)]
    chunks += [replace(one, generation=1, counts_for=config.fingerprint) for config in configs[:2]]
    keys = [transaction_id("p", other) for other in chunks]
    keys += [transaction_id(project, one) for project in (None, "q")]
    assert len(set(keys)) == len(keys)


def test_the_key_is_short_and_plain(one: Chunk) -> None:
    """Its greatest length is not published."""
    key = transaction_id("p", one)
    assert key.removeprefix("orc-").isalnum()
    assert len(key) <= 64


def test_an_answer_to_another_call_is_recognised(one: Chunk) -> None:
    """A key that was used before brings back its first job: the file, the key and the rules must all be ours."""
    mine = {"transaction_id": transaction_id(None, one)}
    other_rules = {"rules": [{"type": "x", "description": "something else altogether"}]}
    assert API.echoes(one, API.read_job(job(**mine)))
    assert API.echoes(one, API.read_job({"id": ID, "status": "PENDING"}))
    assert not API.echoes(one, API.read_job(job(**mine, file_input="dfl-b")))
    assert not API.echoes(one, API.read_job(job(transaction_id="orc-other")))
    assert not API.echoes(one, API.read_job(job(**mine, configuration=other_rules)))


def test_the_echo_of_what_is_sent_is_the_config(one: Chunk) -> None:
    """For both ways to name pages."""
    for parsing in (ParsingConfiguration("de", 3), ParsingConfiguration("de", None, (0, 4))):
        asked = replace(one, config=replace(one.config, parsing_configuration=parsing))
        assert API.read_job({**API.create(asked).body, "id": ID, "status": "PENDING"}).echo == asked.config.echo


@given(st.sets(st.integers(0, 5000), min_size=1, max_size=60))
def test_page_text_round_trips(pages: set[int]) -> None:
    """0-based numbers to 1-based text and back, none lost, none added."""
    assert pages_of(pages_text(sorted(pages))) == tuple(sorted(pages))


@pytest.mark.parametrize(
    ("pages", "text"),
    [
        ((0,), "1"),
        ((0, 1), "1-2"),
        ((0, 2), "1,3"),
        ((2, 0, 1), "1-3"),
        ((5, 5), "6"),
        ((0, 1, 2, 6, 8, 9), "1-3,7,9-10"),
    ],
)
def test_pages_as_text(pages: tuple[int, ...], text: str) -> None:
    """Runs are joined, repeats dropped."""
    assert pages_text(pages) == text


@pytest.mark.parametrize(
    "text", ["", "a", "1-", "-1", "1--2", "1,,2", "1;2", "１", "1-999999999", "1.5", "0x1", "0", "0-3", "5-3"]
)
def test_what_is_no_page_text_is_refused(text: str) -> None:
    """Nothing is guessed, and no range eats the memory."""
    with pytest.raises(ValueError, match="pages"):
        pages_of(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = [*job(), "result", "usage", "error_message", "transaction_id", "parse_job_id"]


@given(st.sampled_from(["PENDING", "COMPLETED", "FAILED"]), st.dictionaries(st.sampled_from(FIELDS), json_values))
def test_no_job_is_too_odd(status: str, changes: dict[str, Json]) -> None:
    """Any JSON in any field gives a job, or the one error for answers that can't be read."""
    try:
        read = API.read_job(job(**{"status": status, **changes}))
    except Ambiguous as error:
        assert error.created
        return
    assert (read.results is None) == (read.status not in TERMINAL)


@given(st.dictionaries(st.sampled_from(["lang", "max_pages", "target_pages"]), json_values), json_values, json_values)
def test_no_echo_is_too_odd(parsing: dict[str, Json], rules: Json, mode: Json) -> None:
    """Page numbers as a list, where v2 has them as text, ended every run in 70: what can't be read says nothing."""
    for pages in (parsing, {**parsing, "target_pages": [0, 2]}):
        configuration = {"rules": rules, "mode": mode, "parsing_configuration": pages}
        assert API.read_job(job(configuration=configuration)).id
    assert API.read_job(job(configuration={"parsing_configuration": {"target_pages": [0, 2]}})).echo.pages is None
