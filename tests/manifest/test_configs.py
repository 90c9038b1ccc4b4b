"""The example manifests work as they are, and the schema for editors agrees with them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from orchestrator.manifest import loading
from orchestrator.models import Json, Mode, ParsingConfiguration

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = sorted(path.name for path in CONFIGS.glob("*.yaml"))
ENVIRON = {"WEBHOOK_TOKEN": "token", "WEBHOOK_SECRET": "secret"}

KINDS: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}


def load(name: str) -> loading.Manifest:
    return loading.load(str(CONFIGS / name), environ=ENVIRON)


def fits(value: Json, schema: dict[str, Json]) -> bool:
    """Return whether *value* is valid under *schema*, which uses only the words of the manifest's schema."""
    kinds = schema.get("type", list(KINDS))
    if not any(is_a(value, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)):
        return False
    checks = [value in schema["enum"]] if "enum" in schema else []
    match value:
        case dict():
            known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
            checks += [name in value for name in schema.get("required", [])]
            checks += [fits(item, known[name]) for name, item in value.items() if name in known]
            strangers = {name: item for name, item in value.items() if name not in known}
            checks += [others is not False and (others is True or fits(item, others)) for item in strangers.values()]
            checks += [fits(name, schema.get("propertyNames", {})) for name in value]
        case list():
            checks += [fits(item, schema.get("items", {})) for item in value]
            checks.append(len(value) >= schema.get("minItems", 0))
            checks.append(not schema.get("uniqueItems") or len(set(value)) == len(value))
        case str():
            checks.append(schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)))
            checks.append(re.search(schema.get("pattern", ""), value) is not None)
        case bool() | None:
            pass
        case int() | float():
            checks.append(schema.get("minimum", value) <= value <= schema.get("maximum", value))
    checks += [any(fits(value, option) for option in schema["anyOf"])] if "anyOf" in schema else []
    checks += [sum(fits(value, option) for option in schema["oneOf"]) == 1] if "oneOf" in schema else []
    checks += [fits(value, option) for option in schema.get("allOf", [])]
    checks += [not fits(value, schema["not"])] if "not" in schema else []
    return all(checks)


def is_a(value: Json, kind: str) -> bool:
    return isinstance(value, KINDS[kind]) and (kind == "boolean" or not isinstance(value, bool))


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_have_no_problem(name: str) -> None:
    """Each example and its lists are valid, with at least one file or a folder of documents that is there."""
    found, problems = loading.check(str(CONFIGS / name), environ=ENVIRON)
    assert problems == []
    assert found is not None
    assert found.sources is not None or sum(1 for _ in found.file_ids()) >= 1


@pytest.mark.parametrize("name", NAMES)
def test_the_schema_accepts_the_examples(name: str) -> None:
    """An editor accepts everything that `run` accepts."""
    value = yaml.safe_load((CONFIGS / name).read_text())
    assert fits(value, loading.json_schema())


def test_the_examples_have_names_of_their_own() -> None:
    """Two examples run from one folder never share a ledger's entry."""
    assert len({load(name).name for name in NAMES}) == len(NAMES)


def test_the_nightly_example_is_guarded() -> None:
    """A manifest that runs unattended has limits, and marks what a person should see."""
    nightly = load("nightly.yaml")
    assert (nightly.limits.max_files, nightly.limits.max_credits, nightly.limits.max_generations) == (5000, 25000, 3)
    assert nightly.limits.max_credits == nightly.config.credits_ceiling(5000)
    assert nightly.review.unmatched


def test_the_one_off_example_reads_two_pages_in_multimodal_mode() -> None:
    """Its comments are true."""
    config = load("one-off.yaml").config
    assert (config.mode, config.parsing_configuration) == (Mode.MULTIMODAL, ParsingConfiguration("de", None, (0, 1)))


def test_the_big_list_example_reads_three_lists() -> None:
    """Thirty IDs of text, four of CSV, four of JSON Lines, none twice."""
    ids = list(load("big-list.yaml").file_ids())
    assert len(ids) == len(set(ids)) == 38
    assert ids[-1].startswith("dfl-")


def test_the_webhook_example_takes_its_secrets_from_the_environment() -> None:
    """The token and the signing secret are not in the file."""
    (webhook,) = load("webhooks.yaml").webhook_configurations
    assert webhook.webhook_headers == {"Authorization": "Bearer token"}
    assert webhook.webhook_signing_secret == "secret"


def test_the_v2_example_is_v2() -> None:
    """It uses what only v2 has: a free language code."""
    loaded = load("v2.yaml")
    assert (loaded.api, loaded.config.parsing_configuration.lang) == ("v2", "zh")


GOOD = {"version": 1, "name": "n", "rules": [{"type": "a", "description": "long enough"}], "file_ids": ["a"]}


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"name": "a/b"},
        {"nmae": "x"},
        {"rules": None, "configuration_id": None, "file_ids": "a"},
        {"rules": []},
        {"rules": [{"type": "a"}]},
        {"rules": [{"type": "a/b", "description": "long enough"}]},
        {"configuration_id": "cfg-1"},
        {"mode": "fast"},
        {"file_ids": ["a b"]},
        {"file_ids_from": ["a.xlsx"]},
        {"parsing_configuration": {"max_pages": 1, "target_pages": [1]}},
        {"parsing_configuration": {"target_pages": [1, 1]}},
        {"webhook_configurations": [{"webhook_url": "ftp://x"}]},
        {"webhook_configurations": [{"webhook_url": "https://x", "webhook_headers": {"a b": "c"}}]},
        {"chunk_size": 501},
        {"review": {"below_confidence": 2}},
        {"review": {"unmatched": "yes"}},
    ],
)
def test_the_schema_refuses_what_run_refuses(tmp_path: Path, change: dict[str, Json]) -> None:
    """The same mistake is one to an editor and to the program."""
    value = {**GOOD, **change}
    path = tmp_path / "m.yaml"
    path.write_text(json.dumps(value))
    assert loading.check(str(path), environ={})[1] != []
    assert not fits(value, loading.json_schema())


def test_the_schema_accepts_a_good_manifest_and_is_json() -> None:
    """The refusals above are the changes' own; and the schema can be written to a file."""
    assert fits(GOOD, loading.json_schema())
    assert json.loads(json.dumps(loading.json_schema()))["$schema"].endswith("2020-12/schema")


def test_every_field_of_the_schema_is_described() -> None:
    """An editor has a line to show for each key."""

    def undescribed(schema: dict[str, Json], path: str) -> list[str]:
        found = [f"{path}.{name}" for name, item in schema.get("properties", {}).items() if not item.get("description")]
        nested = [*schema.get("properties", {}).items(), *([("[]", schema["items"])] if "items" in schema else [])]
        return found + [miss for name, item in nested for miss in undescribed(item, f"{path}.{name}")]

    assert undescribed(loading.json_schema(), "") == []
