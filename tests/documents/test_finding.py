"""Which documents a folder holds, and what is passed over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.sandboxes import SETTLED_NS, put

from orchestrator.documents.finding import Skip, survey
from orchestrator.documents.hashing import contents
from orchestrator.errors import ManifestError
from orchestrator.manifest.sources import Place, Sources

NOW = SETTLED_NS + 3600 * 10**9


def sources(folder: Path, *places: str, **options: object) -> Sources:
    named = tuple(Place(str(folder / "m.yaml"), place, 5, 3) for place in places or ("in",))
    return Sources(named, **options)  # type: ignore[arg-type]


def found(given: Sources, **options: object) -> list[str]:
    return [item.name for item in survey(given, now_ns=NOW, **options).found]  # type: ignore[arg-type]


def test_a_folder_is_walked_to_its_last_corner_in_the_order_of_paths(tmp_path: Path) -> None:
    """Nested documents are found, each once, even where two places overlap."""
    put(tmp_path / "in", {"b.pdf": "x", "deep/er/a.pdf": "x", "c.docx": "x"})
    assert found(sources(tmp_path, "in", "in/deep", "in/*.pdf")) == ["b.pdf", "c.docx", "a.pdf"]


def test_what_is_passed_over_is_counted_by_its_reason(tmp_path: Path) -> None:
    """Nothing vanishes silently: each thing in the folder is a document or has a reason."""
    put(
        tmp_path / "in",
        {
            "good.pdf": "x",
            ".hidden.pdf": "x",
            "~$open.docx": "x",
            "coming.pdf.part": "x",
            "empty.pdf": "",
            "movie.xyz": "x",
            "big.pdf": "x" * 50,
            "drafts/no.pdf": "x",
            ".git/config.txt": "x",
        },
    )
    put(tmp_path / "in", {"young.pdf": "x"})
    os.utime(tmp_path / "in/young.pdf", ns=(NOW - 10**9, NOW - 10**9))
    (tmp_path / "in/link.pdf").symlink_to("good.pdf")
    os.mkfifo(tmp_path / "in/pipe.pdf")
    seen = survey(sources(tmp_path, max_bytes=20, exclude=("drafts/*",)), now_ns=NOW)
    assert [item.name for item in seen.found] == ["good.pdf"]
    assert seen.skipped == {
        Skip.HIDDEN: 2,
        Skip.TEMPORARY: 2,
        Skip.EMPTY: 1,
        Skip.TYPE: 1,
        Skip.TOO_LARGE: 1,
        Skip.EXCLUDED: 1,
        Skip.CHANGING: 1,
        Skip.LINK: 1,
        Skip.SPECIAL: 1,
    }


def test_include_takes_a_document_whatever_its_type_and_case(tmp_path: Path) -> None:
    """Who names a pattern knows better than a list of suffixes."""
    put(tmp_path / "in", {"a.SCAN": "x", "b.pdf": "x"})
    assert found(sources(tmp_path, include=("*.scan",))) == ["a.SCAN"]


def test_followed_links_that_lead_in_circles_end(tmp_path: Path) -> None:
    """A link to its own folder is entered once."""
    put(tmp_path / "in", {"a.pdf": "x"})
    put(tmp_path / "else", {"b.pdf": "x"})
    (tmp_path / "in/round").symlink_to(tmp_path / "in")
    (tmp_path / "in/away").symlink_to(tmp_path / "else")
    assert found(sources(tmp_path, follow_links=True)) == ["a.pdf", "b.pdf"]


def test_a_folder_apart_is_not_entered(tmp_path: Path) -> None:
    """Sorted documents that lie inside the folder are not taken in again."""
    put(tmp_path / "in", {"a.pdf": "x", "sorted/invoice/a.pdf": "x"})
    assert found(sources(tmp_path), apart=[str(tmp_path / "in/sorted")]) == ["a.pdf"]
    assert found(sources(tmp_path, "in/**/*.pdf"), apart=[str(tmp_path / "in/sorted")]) == ["a.pdf"]


@pytest.mark.parametrize("place", ["gone", "in", "none/*.pdf"])
def test_a_place_that_is_missing_or_empty_is_a_mistake_with_its_line(tmp_path: Path, place: str) -> None:
    """A folder that was not mounted must not look like a night without work; ``allow_empty`` says that it may."""
    (tmp_path / "in").mkdir()
    with pytest.raises(ManifestError, match=r"m\.yaml:5:3: documents_from: .*" + place.partition("*")[0]):
        survey(sources(tmp_path, place), now_ns=NOW)
    assert survey(sources(tmp_path, place, allow_empty=True), now_ns=NOW).found == []


def test_a_document_that_changes_while_it_is_read_has_no_content(tmp_path: Path) -> None:
    """Its size and time are compared once more after the last byte."""
    put(tmp_path / "in", {"a.pdf": "x", "b.pdf": "y"})
    (a, b) = survey(sources(tmp_path), now_ns=NOW).found
    (tmp_path / "in/a.pdf").write_text("longer")
    assert [content for _, content in contents([a, b])] == [
        Skip.CHANGING,
        "sha256:a1fce4363854ff888cff4b8e7875d600c2682390412a8cf79b37d0b11148b0fa",
    ]
