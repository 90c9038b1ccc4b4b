"""The page: every figure is an export's, nothing from outside can act in it, and it loads nothing."""

from __future__ import annotations

import json
import math
import re
import shlex
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, fields, is_dataclass, replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from support.nights import Nights, sums, thirty

from orchestrator.ledger import Description, Ledger, Transaction
from orchestrator.ledger.chunks.retry import Quarantine
from orchestrator.ledger.views import export as ledger_export
from orchestrator.ledger.views import reading
from orchestrator.models import Json, Rule
from orchestrator.plaintext import cause
from orchestrator.reports import last_run
from orchestrator.reports.latest_runs import STANDING, LastNight
from orchestrator.reports.page import charts, html, tags, timeline
from orchestrator.reports.page import content as pages
from orchestrator.reports.page.content import Page, Section

ABOUT = Description("ledger.db", "SQLite 3", 6, 0, ())
NOW = datetime(2026, 12, 2, 7, 0, tzinfo=UTC)

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
    """Collects the page's tags with their attributes, its text, and its tables by name."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.sums: dict[str, str] = {}
        self.titles: list[str] = []
        self.feed(page)

    _table = ""
    _inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        self._inside = tag
        if dict(attrs).get("class") == "wide":
            self._table = dict(attrs)["aria-label"] or ""
            self.tables[self._table] = []
        elif tag == "tr":
            self.tables[self._table].append([])
        elif tag == "td":
            self.tables[self._table][-1].append("")

    def handle_data(self, data: str) -> None:
        if self._inside == "td":
            self.tables[self._table][-1][-1] += data
        elif self._inside == "dt":
            self.sums[data] = ""
        elif self._inside == "dd":
            self.sums[list(self.sums)[-1]] = data
        elif self._inside == "title":
            self.titles.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def rows(self, name: str) -> list[list[str]]:
        """The rows of the table called *name*, without its head."""
        return [row for row in self.tables[name] if row]


@pytest.fixture
def connection() -> Iterator[Transaction]:
    with Ledger.in_memory() as ledger, ledger.transaction() as connection:
        yield connection


#: The ledger beside the manifest.
OWN = Path("/srv/classify/ledger.db")


def page_of(connection: Transaction, ledger: Path = OWN) -> Page:
    return pages.page(connection, reading.manifests(connection), ABOUT, ledger=ledger, now=NOW)


def exported(connection: Transaction, *, history: bool = False) -> list[dict[str, Json]]:
    """The rows of an export of every manifest."""
    ids = [row.id for row in reading.manifests(connection)]
    rows = ledger_export.export_rows(connection, ids, history=history)
    return [dict(zip(ledger_export.COLUMNS, row, strict=True)) for row in rows]


def seconds(row: dict[str, Json]) -> float:
    """From the job's id to the file's result."""
    begun, ended = (datetime.fromisoformat(row[name]) for name in ("submitted_at", "finished_at"))
    return (ended - begun).total_seconds()


@pytest.fixture(scope="module")
def month() -> Iterator[tuple[Section, list[dict[str, Json]], list[dict[str, Json]], Reader]]:
    """Thirty nights: what the page holds, an export's rows without and with history, and the page itself."""
    with Ledger.in_memory() as ledger, ledger.transaction() as connection:
        thirty(connection)
        found = page_of(connection)
        yield (
            found.manifests[0],
            exported(connection),
            exported(connection, history=True),
            Reader(html.html(found)),
        )


Month = tuple[Section, list[dict[str, Json]], list[dict[str, Json]], Reader]


def test_the_totals_are_those_of_an_export(month: Month) -> None:
    """Files by outcome and by type, and how many are to be reviewed."""
    section, rows, _, reader = month
    outcomes = sums(rows, "outcome")
    assert {name: files for name, files in section.outcomes.items() if files} == outcomes
    assert section.types == sums(rows, "type")
    assert section.unfinished == 5  # in the chunk that is held
    assert section.files == len(rows) + 5
    assert section.to_review == sum(row["review"] is not None for row in rows)
    shown = {name: f"{files:,}" for name, files in outcomes.items()}
    assert reader.sums == {
        "files": f"{len(rows) + 5:,}",
        **shown,
        "unfinished": "5",
        "to review": str(section.to_review),
        "credits": f"{section.credits:,.0f}",
    }


def test_the_first_screen_and_the_list_of_runs_are_counted_from_an_export(month: Month) -> None:
    """What the last run recorded, what is different since, what there is to do, how each run ended and what it cost."""
    section, rows, history, reader = month
    last = section.nights[0]
    its = [row for row in history if row["finished_at"] >= last.started_at]
    outcomes, types = sums(its, "outcome"), sums(its, "type")
    first = re.sub("<[^>]+>", "\n", html.html(Page("l", "2026-12-02T07:00:00+00:00", {}, (section,))))
    recorded = ", ".join(f"{outcomes[name]} {name}" for name in ("classified", "unmatched", "failed"))
    ordered = sorted(types.items(), key=lambda item: -item[1])
    assert f"This run recorded {recorded}. Types: {', '.join(f'{name} {n}' for name, n in ordered)}." in first
    before = [row for row in rows if row["finished_at"] < last.started_at]
    review = sum(row["review"] is not None for row in rows) - sum(row["review"] is not None for row in before)
    changed = {"files": len(its) + 5, **outcomes, "unfinished": 5, "to review": review}  # 5: in the chunk that is held
    assert [line for line in first.splitlines() if re.fullmatch(r"[+-][\d,]+ [a-z ]+", line)] == [
        f"+{number} {name}" for name, number in changed.items()
    ]
    assert "\n1 chunk held: " in first
    assert f"\n{sums(rows, 'outcome')['failed'] - 1} files failed: send them again." in first  # and one in quarantine
    assert "\n1 file in quarantine: " in first
    assert f"\n{sum(row['review'] is not None for row in rows)} results to look at." in first
    runs, bills = [], [{row["job_id"]: row["credits"] for row in history}]
    for night in section.nights:
        jobs = [row for row in history if night.started_at <= row["finished_at"] <= str(night.finished_at)]
        bills.append({row["job_id"]: row["credits"] for row in jobs})
        bad = sum(row["outcome"] == "failed" for row in history if row["finished_at"] <= str(night.finished_at))
        reason = f"{bad} files failed" if bad else "every file has an outcome"
        runs.append([tags.moment(night.started_at), "run", str(int(bad > 0)), reason, night.run_id])
    assert reader.rows("The latest 30 runs") == runs
    in_all, *by_run = [tags.number(sum(bill.values())) for bill in bills]
    assert reader.sums["credits"] == in_all
    assert [row[1] for row in reversed(reader.rows("Credits"))] == by_run


def test_each_run_of_the_plots_is_its_rows_of_an_export(month: Month) -> None:
    """Outcomes and types, in the tree and in the tables under the plots."""
    section, _, history, reader = month
    assert len(section.nights) == 30
    for night, outcomes, types in zip(
        reversed(section.nights),
        reader.rows("Outcomes that each run recorded"),
        reader.rows("Types that each run recorded"),
        strict=True,
    ):
        its = [row for row in history if night.started_at <= row["finished_at"] <= str(night.finished_at)]
        assert night.outcomes == sums(its, "outcome")
        assert night.types == sums(its, "type")
        counted = [sums(its, "outcome").get(name, 0) for name in ("classified", "unmatched", "failed")]
        assert outcomes == [tags.moment(night.started_at), *map(str, counted)]
        named = [sums(its, "type").get(name, 0) for name in ("invoice", "receipt", "delivery note")]
        assert types == [tags.moment(night.started_at), *map(str, named)]
    costs = [reader.rows(name) for name in ("Duration", "Requests", "Credits")]
    for night, *cells in zip(reversed(section.nights), *costs, strict=True):
        numbers = [tags.duration(night.seconds), tags.number(night.requests or 0), tags.number(night.credits or 0)]
        assert [cell[1] for cell in cells] == numbers


def test_the_histograms_are_an_exports_confidences(month: Month) -> None:
    """In twenty bins for each type; below the threshold are as many as an export's review column says."""
    section, rows, _, reader = month
    assert [found.type for found in section.histograms] == ["invoice", "receipt", "delivery note"]
    for found in section.histograms:
        its = [row for row in rows if row["type"] == found.type]
        bins = Counter(min(math.floor(row["confidence"] * 100 + 1e-7) // 5, 19) for row in its)
        assert found.bins == tuple(bins[n] for n in range(20))
        assert found.unsure == sum(row["review"] == "low_confidence" for row in its)
        assert sum(int(row[1].replace(",", "")) for row in reader.rows(found.type)) == len(its)


def test_the_course_of_the_last_run_is_that_of_its_rows(month: Month) -> None:
    """Half of the files, and nineteen of twenty, within the times told; most jobs at once counted at each beginning."""
    section, _, history, _ = month
    last, course = section.nights[0], section.timeline
    assert course is not None
    its = [row for row in history if row["finished_at"] >= last.started_at]
    waits = sorted(map(seconds, its))
    assert course.jobs == len({row["job_id"] for row in its})
    assert course.p50_s == pytest.approx(waits[math.ceil(len(waits) * 0.5) - 1])
    assert course.p95_s == pytest.approx(waits[math.ceil(len(waits) * 0.95) - 1])
    jobs = {(row["submitted_at"], row["finished_at"]) for row in its}
    assert course.most_in_flight == max(sum(a <= begun < b for a, b in jobs) for begun, _ in jobs)
    assert max(course.in_flight) == course.most_in_flight


def test_failures_are_counted_by_cause(month: Month) -> None:
    """Words that differ only in a number are one cause; each example did end so."""
    section, rows, _, reader = month
    failed = [row for row in rows if row["outcome"] == "failed"]
    by_hand = Counter(cause(row["error"]) for row in failed)
    assert len(by_hand) == 3
    assert {cause(found.words): found.files for found in section.causes} == by_hand
    errors = {row["file_id"]: row["error"] for row in failed}
    for found in section.causes:
        assert {cause(errors[example]) for example in found.examples} == {cause(found.words)}
    table = reader.rows(f"{len(failed)} files failed, by cause")
    assert [int(row[0]) for row in table] == sorted(by_hand.values(), reverse=True)


def test_the_review_list_has_the_least_sure_results(month: Month) -> None:
    """In their order, with type, confidence and reasoning."""
    section, rows, _, reader = month
    least = sorted((row for row in rows if row["review"]), key=lambda row: row["confidence"])
    shown = [(found.confidence, found.type, found.reasoning) for found in section.review]
    assert [each[0] for each in shown] == [row["confidence"] for row in least[: pages.MOST_REVIEW]]
    by_id = {row["file_id"]: row for row in least}
    for found in section.review:
        row = by_id[found.file_id]
        assert (found.confidence, found.type, found.reasoning) == (row["confidence"], row["type"], row["reasoning"])
    (name,) = (name for name in reader.tables if "to look at" in name)
    assert name == f"{len(least)} results to look at, the {pages.MOST_REVIEW} least sure"
    assert [row[0] for row in reader.rows(name)] == [found.file_id for found in section.review]


@pytest.mark.parametrize("below", [0.3, 0.85, 0.9, 0.95, 1.0])
def test_the_review_list_is_right_at_every_threshold(connection: Transaction, below: float) -> None:
    """Below the part of the results that has an index of its own, across its end, and above it."""
    made = Nights(connection, below_confidence=below)
    made.night(60, sureness=0.93)
    rows = sorted(
        (row["confidence"], row["file_id"]) for row in exported(connection) if (row["confidence"] or 1) < below
    )
    section = page_of(connection).manifests[0]
    assert [found.confidence for found in section.review] == [confidence for confidence, _ in rows][:25]


def test_the_first_screen_says_what_changed_and_what_to_do(connection: Transaction) -> None:
    """How it went, what is different, and the commands, with the ledger where one was named."""
    thirty(connection)
    page = page_of(connection, Path("/srv/a ledger.db"))
    section = page.manifests[0]
    assert html.headline(section) == ("warn", "It finished, and some files failed.")
    assert section.since is not None and section.since.standing["files"] == 205
    assert section.drift is not None and section.drift.alarm
    program, manifest = shlex.join(last_run.program()), "/srv/classify/nightly-invoices.yaml"
    assert Path(last_run.program()[0]).is_absolute()
    commands = [todo.command for todo in section.todos]
    assert commands == [
        f"{program} {words} --ledger '/srv/a ledger.db'"
        for words in (
            f"retry {manifest} --held",
            f"retry {manifest}",
            f"retry {manifest} --file night-30-0",
            f"diff {manifest}",
            f"export {manifest} --review --format csv -o review.csv",
        )
    ]
    own = page_of(connection).manifests[0].todos[0].command
    assert own == f"{program} retry {manifest} --held"
    text = re.sub("<[^>]+>", "", html.html(page))
    for command in commands:
        assert tags.text(command) in text
    assert "+205 files" in text and "Drift 0." in text
    night = section.nights[0]
    status = last_run.in_lines("m", LastNight(night, section.since), None, last_run.Address(Path("m.yaml")))
    assert last_run.by_types(night.types) in status[1] and f"Types: {last_run.by_types(night.types)}." in text
    assert last_run.bill(night) in status and f"{last_run.bill(night).capitalize()}." in text


def test_every_command_that_a_page_names_is_one_of_the_programs(connection: Transaction) -> None:
    """With arguments that it takes: a person copies it as it stands."""
    thirty(connection)
    section = page_of(connection).manifests[0]
    stopped = replace(section.nights[0], exit_code=7)
    commands = [todo.command for todo in section.todos]
    commands += [
        todo.command
        for code in (5, 6, 7)
        for todo in pages.todos(
            last_run.Address(Path("m.yaml"), rehearsal=code == 5),
            last=replace(stopped, exit_code=code),
            bad=0,
            unfinished=1,
            other_rules=1,
            review=0,
            held=0,
            quarantined=Quarantine(0, []),
            drift=None,
        )
    ]
    for command in sorted({command for command in commands if command}):
        words = shlex.split(command)
        assert words[: len(last_run.program())] == last_run.program()
        done = subprocess.run([*words, "--help"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, (command, done.stderr)


def test_a_quiet_night_needs_nothing(connection: Transaction) -> None:
    """It worked, and there is nothing to do."""
    made = Nights(connection, below_confidence=0.0)
    for _ in range(3):
        made.night(30, failed=0.0)
    page = page_of(connection)
    assert html.headline(page.manifests[0]) == ("good", "It worked.")
    assert page.manifests[0].todos == ()
    assert "<p>Nothing.</p>" in html.html(page)


@pytest.mark.parametrize(
    ("code", "kind", "sentence"),
    [
        (None, "warn", "The last run: ended without a record: killed."),
        (0, "good", "It worked."),
        (3, "warn", "It is not finished."),
        (5, "bad", "It stopped."),
        (70, "bad", "It stopped."),
    ],
)
def test_a_run_that_did_not_end_well_is_not_called_good(
    connection: Transaction, code: int | None, kind: str, sentence: str
) -> None:
    """The first words are the exit code's."""
    Nights(connection).night(5, failed=0.0)
    section = page_of(connection).manifests[0]
    ended = replace(section, nights=(replace(section.nights[0], exit_code=code),))
    assert html.headline(ended) == (kind, sentence)


def test_the_page_tells_a_run_that_goes_on_by_its_lock(connection: Transaction) -> None:
    """An older run without a record has surely ended, whoever holds the lock now."""
    made = Nights(connection)
    made.night(5, ended=False)
    made.night(5, ended=False)
    rows = reading.manifests(connection)
    page = pages.page(connection, rows, ABOUT, ledger=OWN, now=NOW, running={rows[0].id: "pid 7 on here"})
    assert html.headline(page.manifests[0]) == ("warn", "The last run: running (pid 7 on here).")
    told = html.html(page)
    assert told.count("<td>running (pid 7 on here)<") == 1
    assert told.count("<td>ended without a record: killed<") == 1


def test_the_json_has_the_same_figures(month: Month) -> None:
    """It is the tree itself, and JSON can carry it."""
    section = month[0]
    told = json.loads(json.dumps(asdict(Page("l", "2026-12-02T07:00:00+00:00", {}, (section,))), allow_nan=False))
    (manifest,) = told["manifests"]
    assert manifest["outcomes"] == section.outcomes
    assert [night["types"] for night in manifest["nights"]] == [night.types for night in section.nights]
    assert manifest["drift"]["alarm"] is True
    assert manifest["timeline"]["p95_s"] == section.timeline.p95_s if section.timeline else False
    assert manifest["config"]["rules"][0]["type"] == "invoice"


#: Texts that are times or words of our own, which a page understands.
OURS = {"started_at", "finished_at", "began", "ended", "at", "measure"}


def hostile(value: Any, payload: str) -> Any:
    """*value*, a tree of dataclasses, with *payload* for every text that may come from outside."""
    if type(value) is str:
        return payload
    if is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in fields(value) if field.init]
        return replace(value, **{name: hostile(getattr(value, name), payload) for name in names if name not in OURS})
    if isinstance(value, dict):
        return {key if key in STANDING else f"{key}{payload}": (hostile(each, payload)) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(hostile(each, payload) for each in value)
    return value


@pytest.fixture(scope="module")
def small() -> Iterator[Page]:
    """A page with every part, of few nights."""
    with Ledger.in_memory() as ledger, ledger.transaction() as connection:
        thirty(connection, files=40, quiet=4)
        page = page_of(connection)
    (section,) = page.manifests
    assert section.since is not None
    section = replace(section, rehearsal=True, since=replace(section.since, standing={"files": 1}))
    yield replace(page, manifests=(section, section))


@pytest.mark.parametrize("payload", PAYLOADS, ids=ascii)
def test_text_from_outside_is_only_text(small: Page, payload: str) -> None:
    """Whatever it holds, the page has the same tags and attributes, in the same order, as with plain words."""
    plain = Reader(html.html(hostile(small, re.sub("[^ ]", "w", payload))))
    evil = Reader(html.html(hostile(small, payload)))
    assert (plain.tags, plain.attributes) == (evil.tags, evil.attributes)
    assert not {"script", "iframe", "img", "a", "link"} & set(evil.tags)
    assert not {"src", "href", "style", "onerror", "onload"} & set(evil.attributes)


def test_the_page_forbids_everything_but_its_own_style(connection: Transaction) -> None:
    """By a policy that names the style by its digest, and no page is without it."""
    page = html.html(page_of(connection))
    assert "default-src 'none'; style-src 'sha256-" in page
    assert "Nothing is recorded yet" in page


class Marks(HTMLParser):
    """Collects the marks of a page's plots, each with the attributes that it has of its own or of what it stands in."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self._open: list[dict[str, str | None]] = []
        self.found: list[dict[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("svg", "g", "path", "rect"):
            self._open.append((self._open[-1] if self._open else {}) | dict(attrs))
            if tag in ("path", "rect"):
                self.found.append(self._open[-1])

    def handle_endtag(self, tag: str) -> None:
        if tag in ("svg", "g", "path", "rect"):
            self._open.pop()


def test_colours_stand_in_attributes(small: Page) -> None:
    """A policy that takes the style away leaves the plots as they are: each mark brings its colour."""
    page = html.html(small)
    marks = Marks(page).found
    assert len(marks) > 100
    for mark in marks:
        assert re.fullmatch("#[0-9a-f]{6}|currentColor", mark.get("stroke") or mark.get("fill") or ""), mark
        assert "class" not in mark
    assert len({mark.get("stroke") for mark in marks}) > 7
    assert 'role="img" aria-label="' in page


def test_a_list_that_was_cut_says_so(month: Month) -> None:
    """Nobody takes the first ones for all."""
    section = month[0]
    page = Page("l", "2026-12-02T07:00:00+00:00", {}, (section,))
    assert f"the {pages.MOST_REVIEW} least sure" in html.html(page)
    whole = replace(section, review=section.review[:3], to_review=3)
    assert "least sure" not in html.html(replace(page, manifests=(whole,)))


def test_a_rehearsal_is_marked(small: Page) -> None:
    """Nobody takes it for real results."""
    assert "A rehearsal" in html.html(small)
    real = replace(small.manifests[0], rehearsal=False)
    assert "A rehearsal" not in html.html(replace(small, manifests=(real,)))


def crowded(section: Section) -> Section:
    """*section* with a million files of twelve types, the longest names and rules, and every list at its longest."""
    names = [f"{n:02} is a type whose name is as long as they get" for n in range(12)]
    types = {name: 100_000 - 1_000 * n for n, name in enumerate(names)}
    config = replace(section.config, rules=tuple(Rule(name, "it says so, " * 41) for name in names))
    cause, words = section.causes[0], "because " * 500
    bins = tuple(10_000 + n for n in range(pages.BINS))
    return replace(
        section,
        nights=tuple(replace(night, types=types) for night in section.nights),
        histograms=tuple(pages.Histogram(name, files, bins, 1234) for name, files in types.items()),
        review=tuple(replace(found, type=names[0], reasoning=words) for found in section.review),
        causes=tuple(replace(cause, words=words) for _ in range(pages.MOST_CAUSES)),
        quarantined=Quarantine(900, [replace(section.quarantined.first[0], error=words)] * pages.MOST_QUARANTINED),
        config=config,
    )


def test_a_month_is_at_most_100_kb(month: Month) -> None:
    """With a million files, many types, and long words too: what is long is cut, and says so."""
    page = Page("ledger.db", "2026-12-02T07:00:00+00:00", {}, (month[0],))
    assert len(html.html(page).encode()) < 65_000
    wordy = html.html(replace(page, manifests=(crowded(month[0]),)))
    assert len(wordy.encode()) < 100_000
    assert "because b…" in wordy or "because…" in wordy


def test_reading_nights_costs_the_same_for_many_more_files() -> None:
    """Counted in steps of the database's machine: five times the good results are not twice the work."""
    steps = {}
    for files in (200, 1000):
        with Ledger.in_memory() as ledger, ledger.transaction() as connection:
            made = Nights(connection, below_confidence=0.0)
            for _ in range(5):
                made.night(files, failed=0.0, size=files // 10)
            count = [0]

            def tick(count: list[int] = count) -> int:
                count[0] += 1
                return 0

            raw = connection.connection.driver_connection
            assert raw is not None
            raw.set_progress_handler(tick, 100)
            page_of(connection)
            raw.set_progress_handler(None, 0)
            steps[files] = count[0]
    assert steps[1000] < 2 * steps[200], steps


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, ""),
        (0.85, "850 ms"),
        (4.25, "4.2 s"),
        (42, "42 s"),
        (59.7, "1 min 0 s"),
        (250, "4 min 10 s"),
        (25500, "7 h 5 min"),
    ],
)
def test_durations_are_read_at_a_glance(seconds: float | None, words: str) -> None:
    """In the unit that fits, never more than two of them."""
    assert tags.duration(seconds) == words


@pytest.mark.parametrize(("highest", "top"), [(0, 1), (0.3, 1), (1, 1), (3, 4), (10, 10), (41, 50), (1001, 2000)])
def test_an_axis_ends_at_a_round_number(highest: float, top: float) -> None:
    """Not below the highest value."""
    assert charts.nice_top(highest) == top


def test_a_percentile_counts_files_not_jobs() -> None:
    """One slow job of many files moves it, as each of its files waited."""
    assert timeline.percentile([(1.0, 1), (9.0, 99)], 0.5) == 9.0
    assert timeline.percentile([(1.0, 99), (9.0, 1)], 0.95) == 1.0
    assert timeline.percentile([], 0.5) is None


def test_of_very_many_jobs_a_part_is_read_and_said_so(connection: Transaction) -> None:
    """The page is as quick, and tells that its course is of every so many jobs."""
    made = Nights(connection)
    made.night(200, size=1)
    row = reading.manifests(connection)[0]
    night = page_of(connection).manifests[0].nights[0]
    course = timeline.timeline(connection, row.id, night.run_id, night.started_at, str(night.finished_at), most_jobs=50)
    assert (course.jobs, course.step) == (200, 4)
    assert course.most_in_flight % 4 == 0
    section = replace(page_of(connection).manifests[0], timeline=course)
    assert "of every 4th job" in html.html(Page("l", "2026-12-02T07:00:00+00:00", {}, (section,)))
