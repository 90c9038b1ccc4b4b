"""The options of ``retry`` as values: which files they select, and with which config those are sent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import InputError, ManifestError
from orchestrator.ledger.chunks.retry import Selection
from orchestrator.manifest.loading import Manifest, load
from orchestrator.models import BAD, Config, Mode, Outcome, ParsingConfiguration
from orchestrator.planning.retry import listed, overridden, selection

MANIFEST = """\
version: 1
name: m
file_ids: [a]
rules: [{type: invoice, description: contains line items}]
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Of v1, in the cheap mode, in English, five pages."""
    path = tmp_path / "m.yaml"
    path.write_text(MANIFEST)
    return load(str(path), environ={}, api="v1")


def select(**options: object) -> Selection:
    names = ("outcomes", "types", "below_confidence", "file_ids", "run_id", "error")
    return selection(**{name: options.get(name) for name in names})  # type: ignore[arg-type]  # by name


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, Selection(BAD)),
        ({"outcomes": []}, Selection(BAD)),
        ({"run_id": "r", "error": "e"}, Selection(BAD, run_id="r", error="e")),
        ({"outcomes": ["missing"]}, Selection((Outcome.MISSING,))),
        ({"types": ["invoice"]}, Selection(tuple(Outcome), ("invoice",))),
        ({"types": []}, Selection(BAD)),
        ({"below_confidence": 0.0}, Selection(tuple(Outcome), below_confidence=0.0)),
        ({"file_ids": ["a"]}, Selection(tuple(Outcome), file_ids=("a",))),
        ({"file_ids": []}, Selection(tuple(Outcome), file_ids=())),
        ({"file_ids": ["a"], "outcomes": ["failed"]}, Selection((Outcome.FAILED,), file_ids=("a",))),
    ],
)
def test_a_condition_that_good_results_can_meet_is_for_all_outcomes(
    options: dict[str, object], expected: Selection
) -> None:
    """Unless some are named; a list of no files selects none. All are selected whatever rules they ended under."""
    assert select(**options) == replace(expected, other_rules=True)


def test_an_unknown_outcome_is_named() -> None:
    """The first of them, with those there are."""
    with pytest.raises(InputError, match=r"--outcome 'odd': must be one of classified, unmatched, failed"):
        select(outcomes=["failed", "odd", "odder"])


def test_a_list_of_files_is_read_or_its_mistakes_are_placed(tmp_path: Path) -> None:
    """One that is not there has no line but the first."""
    path = tmp_path / "list.txt"
    path.write_text("a\nb\n")
    assert listed(str(path)) == ["a", "b"]
    with pytest.raises(ManifestError) as caught:
        listed(str(tmp_path / "absent.txt"))
    (problem,) = caught.value.problems
    assert (problem.file, problem.line, problem.column) == (str(tmp_path / "absent.txt"), 1, 1)
    path.write_text("a\n" + "b" * 10_000 + "\n")
    with pytest.raises(ManifestError):
        listed(str(path))


def change(manifest: Manifest, **options: object) -> Config | None:
    return overridden(manifest, **{name: options.get(name) for name in ("mode", "lang", "max_pages")})  # type: ignore[arg-type]  # by name


@pytest.mark.parametrize(
    ("options", "mode", "parsing"),
    [
        ({"mode": "MULTIMODAL"}, Mode.MULTIMODAL, ParsingConfiguration()),
        ({"lang": "de"}, Mode.FAST, ParsingConfiguration("de")),
        ({"max_pages": 9}, Mode.FAST, ParsingConfiguration(max_pages=9)),
        (
            {"mode": "MULTIMODAL", "lang": "de", "max_pages": 9},
            Mode.MULTIMODAL,
            ParsingConfiguration("de", 9),
        ),
    ],
)
def test_options_change_what_they_name_and_nothing_else(
    manifest: Manifest, options: dict[str, object], mode: Mode, parsing: ParsingConfiguration
) -> None:
    """The rest is the manifest's."""
    assert change(manifest, **options) == replace(manifest.config, mode=mode, parsing_configuration=parsing)


def test_a_number_of_pages_takes_the_place_of_chosen_pages(manifest: Manifest) -> None:
    """Exactly one of the two is set."""
    pages = ParsingConfiguration(max_pages=None, target_pages=(0, 2))
    chosen = replace(manifest, config=replace(manifest.config, parsing_configuration=pages))
    found = change(chosen, max_pages=3)
    assert found is not None
    assert found.parsing_configuration == ParsingConfiguration(max_pages=3)


@pytest.mark.parametrize("options", [{}, {"mode": "FAST"}, {"lang": "en"}, {"max_pages": 5}])
def test_options_that_change_nothing_are_none(manifest: Manifest, options: dict[str, object]) -> None:
    """Then the manifest's own config is used, and its parses."""
    assert change(manifest, **options) is None


@pytest.mark.parametrize(
    ("api", "options", "words"),
    [
        ("v1", {"mode": "SLOW"}, r"^--mode 'SLOW': must be FAST or MULTIMODAL$"),
        ("v2", {"mode": "MULTIMODAL"}, r"^--mode MULTIMODAL: only v1 has it; add --api v1$"),
        ("v1", {"lang": "!"}, r"^--lang '!': write a language code such as en, de or ch_sim$"),
        ("v1", {"lang": "zh"}, r"^--lang 'zh' is not among the 86 codes of v1; did you mean ch_sim or ch_tra\?$"),
    ],
)
def test_a_wrong_option_is_told_in_one_line(
    manifest: Manifest, api: str, options: dict[str, object], words: str
) -> None:
    """With what would be right."""
    with pytest.raises(InputError, match=words):
        change(replace(manifest, api=api), **options)


def test_v2_takes_any_language_and_its_own_mode(manifest: Manifest) -> None:
    """Only v1 has a list of codes."""
    v2 = replace(manifest, api="v2")
    assert change(v2, mode="FAST") is None
    found = change(v2, lang="zh")
    assert found is not None
    assert found.parsing_configuration.lang == "zh"


@pytest.mark.parametrize("options", [{"mode": "FAST"}, {"lang": "de"}, {"max_pages": 1}])
def test_a_config_on_the_server_cannot_be_changed_here(manifest: Manifest, options: dict[str, object]) -> None:
    """It brings its own; without an option it is used as it is."""
    kept = replace(manifest, config=Config((), configuration_id="cfg"))
    assert change(kept) is None
    with pytest.raises(InputError, match="configuration_id brings its own mode, language and pages; leave them out"):
        change(kept, **options)
