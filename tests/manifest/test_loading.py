"""A good manifest means what it says."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.errors import ManifestError
from orchestrator.manifest import loading
from orchestrator.models import Config, Escalate, Limits, Mode, ParsingConfiguration, Review, Rule, Webhook

HEAD = """\
version: 1
name: letters
rules:
  - type: invoice
    description: contains line items and a total
"""


@pytest.fixture
def write(tmp_path: Path) -> Path:
    return tmp_path / "m.yaml"


def load(path: Path, text: str, **environ: str) -> loading.Manifest:
    path.write_text(text, "utf-8")
    return loading.load(str(path), environ=environ)


def test_the_least_manifest_has_the_defaults(write: Path) -> None:
    """The defaults are v1, FAST, English, five pages, a hundred files a chunk, and no limits."""
    loaded = load(write, HEAD + "file_ids: [a]\n")
    rules = (Rule("invoice", "contains line items and a total"),)
    assert loaded == loading.Manifest(
        path=str(write),
        name="letters",
        api="v1",
        config=Config(rules, Mode.FAST, ParsingConfiguration("en", 5, None)),
        project_id=None,
        organization_id=None,
        webhook_configurations=(),
        webhook_configuration_ids=(),
        chunk_size=100,
        review=Review(None, False),
        limits=Limits(None, None, None),
        sha256=hashlib.sha256(write.read_bytes()).hexdigest(),
        ids=("a",),
    )


def test_every_field_is_read(write: Path) -> None:
    """Each field of the format arrives where it belongs."""
    loaded = load(
        write,
        HEAD
        + """\
project_id: 3f2504e0-4f89-41d3-9a0c-0305e82c3301
organization_id: 9B2E1A7C-6C1D-4C58-8A43-0F6B7F2D1E55
parsing_configuration: {lang: ch_sim, target_pages: [3, 0]}
file_ids: [b, a, b]
webhook_configurations:
  - webhook_url: https://example.com/hook
    webhook_events: [classify.success]
    webhook_headers: {X-Team: papers}
    webhook_output_format: string
    webhook_signing_secret: abc
chunk_size: 500
review: {below_confidence: .5, unmatched: true}
escalate: {below_confidence: 1e-1}
limits: {max_files: 1, max_credits: 20, max_generations: 3}
""",
    )
    assert loaded.project_id == "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
    assert loaded.organization_id == "9B2E1A7C-6C1D-4C58-8A43-0F6B7F2D1E55"
    assert loaded.config.parsing_configuration == ParsingConfiguration("ch_sim", None, (3, 0))
    assert list(loaded.file_ids()) == ["b", "a", "b"]
    assert loaded.webhook_configurations == (
        Webhook("https://example.com/hook", ("classify.success",), {"X-Team": "papers"}, "string", "abc"),
    )
    assert loaded.chunk_size == 500
    assert loaded.review == Review(0.5, True)
    assert loaded.escalate == Escalate(0.1, Mode.MULTIMODAL)
    assert loaded.limits == Limits(1, 20, 3)


def test_ids_stay_as_written(write: Path) -> None:
    """Nothing in file_ids becomes a number, a date, a truth or nothing, with or without quotes."""
    ids = ["0123", "1e5", "2026-11-23", "null", "~", "no", "true", "0x1F", "1_000", ".5", "12:30:45", "NaN", "="]
    plain = load(write, HEAD + "file_ids:\n" + "".join(f"  - {file_id}\n" for file_id in ids))
    quoted = load(write, HEAD + f"file_ids: {json.dumps(ids)}\n")
    assert list(plain.file_ids()) == list(quoted.file_ids()) == ids


@pytest.mark.parametrize("lang", ["no", "is", "he-IL", "zh"])
def test_lang_is_text(write: Path, lang: str) -> None:
    """`lang: no` is Norwegian."""
    text = HEAD + f"api: v2\nparsing_configuration: {{lang: {lang}}}\nfile_ids: [a]\n"
    assert load(write, text).config.parsing_configuration.lang == lang


def test_a_rule_may_be_called_null_or_no(write: Path) -> None:
    """Only optional fields know null; a required text is text."""
    rule = (
        "  - {type: null, description: nothing can be read on it}\n  - {type: no, description: written in Norwegian}\n"
    )
    assert [rule.type for rule in load(write, HEAD + rule + "file_ids: [a]\n").config.rules] == [
        "invoice",
        "null",
        "no",
    ]


@pytest.mark.parametrize("null", ["", "~", "null", "Null", "NULL"])
def test_null_is_the_same_as_leaving_out(write: Path, null: str) -> None:
    """An optional field without a value has its default."""
    names = ["api", "mode", "project_id", "parsing_configuration", "webhook_configurations", "chunk_size", "review"]
    text = HEAD + "".join(f"{name}: {null}\n" for name in [*names, "limits", "escalate", "file_ids_from"])
    assert load(write, text + "file_ids: [a]\n").config == load(write, HEAD + "file_ids: [a]\n").config


def test_the_options_api_wins(write: Path) -> None:
    """The version given in the call wins over the manifest's, also in what it allows."""
    write.write_text(HEAD + "api: v1\nparsing_configuration: {lang: zh}\nfile_ids: [a]\n")
    assert loading.load(str(write), environ={}, api="v2").api == "v2"
    with pytest.raises(ManifestError, match="lang 'zh' is not among the 86 codes of v1"):
        loading.load(str(write), environ={})


def test_a_saved_configuration_stands_for_the_rules(write: Path) -> None:
    """On v2 a configuration_id is its own config, with its own fingerprint, and survives the ledger."""
    text = (
        "version: 1\nname: n\napi: v2\nconfiguration_id: cfg-1\nwebhook_configuration_ids: [w-1, w-2]\nfile_ids: [a]\n"
    )
    loaded = load(write, text)
    assert loaded.config == Config((), configuration_id="cfg-1")
    assert loaded.webhook_configuration_ids == ("w-1", "w-2")
    assert Config.from_canonical(loaded.config.canonical) == loaded.config


def test_a_config_of_rules_keeps_its_fingerprint() -> None:
    """Outcomes of ledgers that know no configuration_id stay found: the canonical text of rules is fixed."""
    expected = '{"lang":"en","max_pages":5,"mode":"FAST","rules":[["a","b"]],"target_pages":null}'
    assert Config((Rule("a", "b"),)).canonical == expected


def test_variables_are_filled_in(write: Path) -> None:
    """${NAME} is the environment variable's value, anywhere in a webhook, and is not expanded again."""
    hook = (
        "webhook_configurations:\n  - webhook_url: ${URL}/x\n    webhook_headers: {Authorization: 'Bearer ${A}-${B}'}\n"
    )
    loaded = load(write, HEAD + hook + "file_ids: [a]\n", URL="https://h.example", A="${B}", B="$$")
    assert loaded.webhook_configurations == (Webhook("https://h.example/x", None, {"Authorization": "Bearer ${B}-$$"}),)


def test_secrets_are_named_for_the_redactor_and_hidden_in_repr(write: Path) -> None:
    """Whatever was filled in, every header and the signing secret are secrets, and no repr shows one."""
    hook = """\
webhook_configurations:
  - webhook_url: https://h.example/${PATH_SECRET}
    webhook_headers: {X-Key: header-secret}
    webhook_signing_secret: signing-secret
"""
    loaded = load(write, HEAD + hook + "file_ids: [a]\n", PATH_SECRET="path-secret")
    assert set(loaded.secrets) == {"path-secret", "header-secret", "signing-secret"}
    assert "-secret" not in repr(loaded)


def test_a_plan_needs_no_secrets(write: Path) -> None:
    """Without resolve_secrets an unset variable is no problem and stays as written."""
    write.write_text(HEAD + "webhook_configurations: [{webhook_url: '${URL}'}]\nfile_ids: [a]\n")
    loaded = loading.load(str(write), environ={}, resolve_secrets=False)
    assert loaded.webhook_configurations == (Webhook("${URL}"),)


def test_check_gives_the_manifest_and_no_problems(write: Path) -> None:
    """A good manifest is checked without complaint."""
    write.write_text(HEAD + "file_ids: [a]\n")
    found, problems = loading.check(str(write), environ={})
    assert problems == []
    assert found == loading.load(str(write), environ={})


def test_a_5_mb_manifest_loads_fast(write: Path) -> None:
    """130,000 IDs in the manifest itself take seconds at most."""
    ids = [f"182bd5e5-6e1a-4fe4-a799-{number:012x}" for number in range(130_000)]
    started = time.process_time()
    loaded = load(write, HEAD + "file_ids:\n" + "".join(f"- {file_id}\n" for file_id in ids))
    assert list(loaded.file_ids()) == ids
    assert time.process_time() - started < 10


#: What YAML can hold as it is: no controls, no halves, and no marks that some call line ends.
_readable = st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\u2028\u2029\ufffe\uffff")
_visible = st.characters(
    codec="utf-8", exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp", "Zs"], exclude_characters="\ufffe\uffff"
)
_rule = st.tuples(
    st.from_regex(r"[A-Za-z0-9_-]([A-Za-z0-9 _-]{0,48}[A-Za-z0-9_-])?", fullmatch=True),
    st.text(_readable | st.sampled_from("\n\t"), min_size=10, max_size=500).filter(str.strip),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ids=st.lists(st.text(_visible, min_size=1, max_size=200), min_size=1),
    rules=st.lists(_rule, min_size=1, max_size=8, unique_by=lambda rule: rule[0]),
)
def test_what_is_quoted_comes_back(write: Path, ids: list[str], rules: list[tuple[str, str]]) -> None:
    """Any valid IDs and rules, quoted as JSON, come back exactly."""
    value = {
        "version": 1,
        "name": "n",
        "rules": [{"type": kind, "description": description} for kind, description in rules],
        "file_ids": ids,
    }
    loaded = load(write, json.dumps(value, ensure_ascii=False, indent=1))
    assert list(loaded.file_ids()) == ids
    assert [(rule.type, rule.description) for rule in loaded.config.rules] == rules
