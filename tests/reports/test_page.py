"""The page: nothing from outside can act in it, and it loads nothing."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from orchestrator.models import Json, Outcome
from orchestrator.reports import page as report

PAYLOADS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)",
    "</td></table><iframe src=//evil>",
    "javascript:alert(1)",
    "&lt;script&gt;",
    "]]><!--",
    "\u202egnp.exe\x1b[2J\x00",
]


class Reader(HTMLParser):
    """Collects the page's tags with their attributes, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def state(text: str) -> dict[str, Json]:
    return {
        "manifest": text,
        "rehearsal": True,
        "api": text,
        "files": 3,
        **{outcome.value: 0 for outcome in Outcome},
        "failed": 3,
        "unfinished": 0,
        "types": {text: 3},
        "quarantined": {"files": 1, "first": [{"file_id": text, "outcome": "failed", "error": text, "why": text}]},
        "needs_decision": [{"chunk_id": 1, "event": "held", "note": text}],
        "failed_files": [{"file_id": text, "outcome": "failed", "error": text}],
        "runs": [
            {"id": text, "command": "run", "started_at": text, "exit_code": 1, "summary": {"reason": text}},
            {"id": "r", "command": "run", "started_at": "2026", "exit_code": None, "summary": None},
        ],
    }


@pytest.mark.parametrize("payload", PAYLOADS, ids=ascii)
def test_text_from_outside_is_only_text(payload: str) -> None:
    """Whatever it holds, the page has the same tags and attributes as with a plain word."""
    plain, hostile = Reader(), Reader()
    plain.feed(report.page([state("word")], [("word", "word", 0.5, "word")], ledger="word", at="word"))
    hostile.feed(report.page([state(payload)], [(payload, payload, 0.5, payload)], ledger=payload, at=payload))
    assert (plain.tags, plain.attributes) == (hostile.tags, hostile.attributes)
    assert not {"script", "iframe", "img", "svg", "a", "link"} & hostile.tags
    assert not {"src", "href", "style", "onerror"} & hostile.attributes


def test_the_page_forbids_everything_but_its_own_style() -> None:
    """By a policy that names the style by its digest, and no page is without it."""
    page = report.page([], [], ledger="ledger.db", at="now")
    assert "default-src 'none'; style-src 'sha256-" in page
    assert "Nothing is recorded yet" in page


def test_a_list_that_was_cut_says_so() -> None:
    """Nobody takes the first 200 for all."""
    row = ("file", "invoice", 0.5, "low_confidence")
    assert "the first 200: all are in an export" in report.page([], [row] * 200, ledger="l", at="t")
    assert "the first" not in report.page([], [row] * 199, ledger="l", at="t")


def test_a_rehearsal_is_marked() -> None:
    """Nobody takes it for real results."""
    assert "A rehearsal" in report.page([state("x")], [], ledger="l", at="t")
    assert "A rehearsal" not in report.page([{**state("x"), "rehearsal": False}], [], ledger="l", at="t")
