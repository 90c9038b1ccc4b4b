"""The page in a real Chromium: nothing asked for, no policy broken, nothing that a screen reader stumbles over."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.browser import Browser, axe, browser
from support.nights import thirty

from orchestrator.ledger import Description, Ledger
from orchestrator.ledger.views import reading
from orchestrator.reports.page.content import page
from orchestrator.reports.page.html import html

ABOUT = Description("ledger.db", "SQLite 3", 6, 0, ())

#: Width, dark, and medium of each look that the page has to stand.
LOOKS = {
    "1200": (1200, False, "screen"),
    "400": (400, False, "screen"),
    "dark": (1200, True, "screen"),
    "print": (800, False, "print"),
}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of thirty nights."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    with Ledger.in_memory() as ledger, ledger.transaction() as connection:
        thirty(connection)
        now = datetime(2026, 12, 2, 7, 0, tzinfo=UTC)
        found = page(connection, reading.manifests(connection), ABOUT, ledger=Path("/srv/classify/ledger.db"), now=now)
    path.write_text(html(found), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.mark.parametrize("look", LOOKS)
def test_the_page_asks_for_nothing_and_breaks_no_policy(chromium: Browser, report: Path, look: str) -> None:
    """At every width and in the dark it fits its window, and the browser has nothing to say against it."""
    width, dark, medium = LOOKS[look]
    chromium.look(width, dark=dark, medium=medium)
    chromium.open(report)
    assert chromium.evaluate("document.documentElement.scrollWidth") <= width
    assert chromium.requests == [report.absolute().as_uri()]
    assert chromium.complaints == []


@pytest.mark.parametrize("look", LOOKS)
def test_a_screen_reader_stumbles_over_nothing(chromium: Browser, report: Path, look: str) -> None:
    """axe-core finds nothing serious, also with every table of figures open."""
    source = axe()
    width, dark, medium = LOOKS[look]
    chromium.look(width, dark=dark, medium=medium)
    chromium.open(report)
    chromium.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    chromium.evaluate(source)
    found = chromium.evaluate(
        "axe.run().then(told => [told.passes.length, told.violations.map(each => "
        "[each.impact, each.id, each.nodes[0].html.slice(0, 200)])])"
    )
    passes, violations = found
    assert passes > 10
    assert [each for each in violations if each[0] in ("serious", "critical")] == []


def test_a_page_that_breaks_the_policy_is_found_out(chromium: Browser, report: Path, tmp_path: Path) -> None:
    """The test above is no idle one: a script, a foreign picture and a style attribute are each complained of."""
    spoilt = tmp_path / "spoilt.html"
    added = "<script>1</script><img src='https://example.invalid/x.png' alt=''><p style='color:red'>x</p>"
    spoilt.write_text(report.read_text(encoding="utf-8").replace("<main>", f"<main>{added}"), encoding="utf-8")
    chromium.open(spoilt)
    chromium.evaluate("1")
    assert len(chromium.complaints) >= 3


def test_without_its_style_the_plots_keep_their_colours(chromium: Browser, report: Path, tmp_path: Path) -> None:
    """As under the policy that a build server sends along: no bar turns black."""
    plain = tmp_path / "plain.html"
    page = report.read_text(encoding="utf-8")
    plain.write_text(page[: page.index("<style>")] + page[page.index("</style>") :], encoding="utf-8")
    chromium.open(plain)
    for tag, what in (("rect", "fill"), ("g > path[stroke]", "stroke")):
        colours = chromium.evaluate(
            f"[...new Set([...document.querySelectorAll('{tag}')].map(each => getComputedStyle(each).{what}))]"
        )
        assert len(colours) >= 5
        assert "rgb(0, 0, 0)" not in colours
