"""The lists of file_ids_from: each format, each mistake, and no list too long."""

from __future__ import annotations

import codecs
import io
import json
import os
import sys
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.errors import ManifestError, Problem
from orchestrator.manifest import loading
from orchestrator.manifest.loading import Manifest

HEAD = "version: 1\nname: n\nrules: [{type: a, description: long enough it is}]\n"


def load(folder: Path, *lists: str, ids: str = "[]") -> Manifest:
    path = folder / "m.yaml"
    path.write_text(HEAD + f"file_ids: {ids}\nfile_ids_from: {json.dumps(lists)}\n")
    return loading.load(str(path), environ={})


def read(folder: Path, name: str, data: bytes) -> list[str]:
    (folder / name).write_bytes(data)
    return list(load(folder, name).file_ids())


def problems_in(folder: Path, name: str, data: bytes) -> tuple[Problem, ...]:
    with pytest.raises(ManifestError) as caught:
        read(folder, name, data)
    assert {problem.file for problem in caught.value.problems} == {str(folder / name)}
    return caught.value.problems


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("l.txt", b"a\nb\nc\n"),
        ("l.txt", b"a\nb\nc"),
        ("l.TXT", b"\n# first\n  a \n\n\tb\t\n   # last\nc\n\n"),
        ("l.txt", b"a\r\nb\r\nc\r\n"),
        ("l.txt", codecs.BOM_UTF8 + b"a\r\nb\r\nc"),
        ("l.csv", b"file_id\na\nb\nc\n"),
        ("l.csv", codecs.BOM_UTF8 + b'"file_id",x\r\na,1\r\n"b","2, ""3"""\r\n\r\n c ,4\r\n'),
        ("l.csv", b'x,file_id\n"two\nlines",a\n,b\n,c\n'),
        ("l.csv", b"\r\n \r\nFile_ID,x\r\na,1\r\n,\r\nb,2\r\n , \r\nc,3\r\n,\r\n"),
        ("l.csv", b"sep=,\nx,FILE_ID\n1,a\n2,b\n3,c\n"),
        ("l.csv", codecs.BOM_UTF8 + b'"sep=;"\r\nfile_id;x\r\na;"1;2"\r\nb;\r\nc;3\r\n'),
        ("l.csv", b"\n \nsep=;\n\nx;file_id\n1;a\n;;\n2;b\n3;c\n"),
        ("l.csv", b"sep=\t\nx\tfile_id\n1,2\ta\n\tb\n\tc\n"),
        ("l.jsonl", b'{"file_id": "a", "x": [1]}\n"b"\n\n {"file_id": "\\u0063"} \n'),
        ("l.jsonl", codecs.BOM_UTF8 + b'"a"\r\n"b"\r\n"c"\r\n'),
    ],
)
def test_every_format_gives_its_ids(tmp_path: Path, name: str, data: bytes) -> None:
    """Text, CSV and JSON Lines, with either line end and with or without a byte order mark."""
    assert read(tmp_path, name, data) == ["a", "b", "c"]


@pytest.mark.parametrize("name", ["l.txt", "l.jsonl"])
def test_an_empty_list_has_no_ids(tmp_path: Path, name: str) -> None:
    """A night without new files is no mistake."""
    assert read(tmp_path, name, b"") == []


def test_ids_come_in_order_with_duplicates(tmp_path: Path) -> None:
    """First the manifest's own IDs, then each list's as they are named."""
    (tmp_path / "z.txt").write_text("c\na\n")
    (tmp_path / "a.jsonl").write_text('"b"\n"b"\n')
    loaded = load(tmp_path, "z.txt", "a.jsonl", ids="[a, x]")
    assert list(loaded.file_ids()) == ["a", "x", "c", "a", "b", "b"]
    assert list(loaded.file_ids()) == ["a", "x", "c", "a", "b", "b"]


def test_names_are_relative_to_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder that cron starts in does not matter."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "l.txt").write_text("a\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert list(load(tmp_path, "in/l.txt", str(tmp_path / "in" / "l.txt")).file_ids()) == ["a", "a"]


@pytest.mark.parametrize(
    ("name", "data", "place", "words"),
    [
        ("l.txt", b"a\nb c\n", (2, 2), "'b c' is not a file ID; a file ID is 1 to 200 characters"),
        ("l.txt", b"a\n  b\tc\n", (2, 4), "is not a file ID"),
        ("l.txt", b"a\nb # last\n", (2, 2), "is not a file ID"),
        ("l.txt", b"a\rb\n", (1, 2), "'a\\rb' is not a file ID"),
        ("l.txt", b"# \xff\n", (1, 1), "this is not UTF-8 text"),
        ("l.txt", b"a\nb\n\xff\n", (3, 1), "this is not UTF-8 text; save the list as UTF-8"),
        ("l.txt", "a\nb\u202e\n".encode(), (2, 2), "'b\\u202e' is not a file ID"),
        ("l.txt", "a\nb\n\u200bc\n".encode(), (3, 1), "'\\u200bc' is not a file ID"),
        ("l.txt", "a\u00a0\n".encode(), (1, 2), "is not a file ID"),
        ("l.txt", b"a\0\n", (1, 2), "is not a file ID"),
        ("l.txt", b"x" * 201, (1, 1), "is not a file ID"),
        ("l.txt", "a\n".encode("utf-16"), (1, 1), "the list is UTF-16; save it as UTF-8"),
        ("l.txt", b"a\n" + b"x" * 3_000_000, (2, 1), "a line is longer than 1 MB"),
        ("l.csv", b"", (1, 1), "the header must have one column `file_id`; the list is empty"),
        ("l.txt", b"file_id\na\n", (1, 1), "a .txt list has no header: remove this line, or save the list as .csv"),
        ("l.txt", b"a\n File_IDs\n", (2, 2), "'File_IDs' is not a file ID; a .txt list has no header"),
        ("l.txt", b'a\n"b"\n', (2, 1), "without quotes or commas, or save the list as .csv"),
        ("l.txt", b"a,1\nb\n", (1, 1), "'a,1' is not a file ID; write one ID a line, without quotes or commas"),
        ("l.txt", b"a\n- 'b',\n", (2, 1), "write one ID a line"),
        ("l.txt", b"a\ninvoice-1.pdf\n", (2, 1), "'invoice-1.pdf' is not a file ID; this names a document: upload it"),
        ("l.txt", b"a\nin/b\n", (2, 1), "upload it, and list the ID that the API gives it"),
        ("l.txt", b"a\nC:\\in\\b\n", (2, 1), "this names a document"),
        ("l.csv", b"\n\nid,x\na,1\n", (3, 1), "name the column with the IDs so"),
        ("l.csv", b"\nsep=,\nx,file_id\n1,a\n2,b c\n", (5, 2), "'b c' is not a file ID"),
        ("l.csv", b"sep=,\nx,file_id\n1,a\n2,b c\n", (4, 2), "'b c' is not a file ID"),
        ("l.csv", b"file_id,FILE_ID\na,1\n", (1, 1), "rename the others"),
        ("l.csv", b"id,x\na,1\n", (1, 1), "the header must have one column `file_id`"),
        ("l.csv", b"file_id,file_id\na,1\n", (1, 1), "the header must have one column `file_id`; rename the others"),
        ("l.csv", b"file_id;x\na;1\n", (1, 1), "separate columns with commas"),
        ("l.csv", b"x,file_id\n1,a\n2\n", (3, 1), "no file ID here"),
        ("l.csv", b"x,file_id\n1,a\n2,\n", (3, 1), "no file ID here"),
        ("l.csv", b"x,file_id\n1,a\n2,b c\n", (3, 2), "'b c' is not a file ID"),
        ("l.csv", b'file_id\na\n"b\nc\n', (4, 1), "not valid CSV"),
        ("l.csv", b'file_id\n"a"b\n', (2, 1), "not valid CSV"),
        ("l.jsonl", b'"a"\nb\n', (2, 1), "not valid JSON; each line must be"),
        ("l.jsonl", b"[" * 100_000 + b"\n", (1, 1), "not valid JSON"),
        ("l.jsonl", b"9" * 100_000 + b"\n", (1, 1), "not valid JSON"),
        ("l.jsonl", b'{"id": "a"}\n', (1, 1), "no text `file_id` here"),
        ("l.jsonl", b'{"file_id": 12}\n', (1, 1), "no text `file_id` here"),
        ("l.jsonl", b"12\n", (1, 1), "no text `file_id` here"),
        ("l.jsonl", b'"\\ud800"\n', (1, 1), "'\\ud800' is not a file ID"),
        ("l.jsonl", b'""\n', (1, 1), "no file ID here"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, name: str, data: bytes, place: tuple[int, int], words: str) -> None:
    """One problem, in the list's own file and line."""
    (problem,) = problems_in(tmp_path, name, data)
    assert (problem.line, problem.column) == place
    assert words in problem.message


def test_all_bad_lines_are_reported_up_to_a_hundred(tmp_path: Path) -> None:
    """A user fixes several mistakes in one round; a wrong file does not flood the screen."""
    assert [problem.line for problem in problems_in(tmp_path, "l.txt", b"a a\nb\nc c\n")] == [1, 3]
    problems = problems_in(tmp_path, "l.txt", b"a a\n" * 5000)
    assert len(problems) == 101
    assert problems[-1].message == "more problems follow; fix the ones above first"


def test_check_reads_the_lists_even_of_a_bad_manifest(tmp_path: Path) -> None:
    """`validate` shows the manifest's mistakes and then the lists', all at once."""
    (tmp_path / "l.txt").write_text("a\nb b\n")
    path = tmp_path / "m.yaml"
    path.write_text(HEAD + "chunk_size: 0\nfile_ids_from: [gone.txt, l.txt]\n")
    found, problems = loading.check(str(path), environ={})
    assert found is None
    assert [(Path(problem.file).name, problem.line) for problem in problems] == [
        ("m.yaml", 4),
        ("m.yaml", 5),
        ("l.txt", 2),
    ]


def test_a_list_that_is_gone_by_then_is_the_manifests_problem(tmp_path: Path) -> None:
    """Between load and reading a list may vanish; the manifest's line is named."""
    (tmp_path / "l.txt").write_text("a\n")
    loaded = load(tmp_path, "l.txt")
    (tmp_path / "l.txt").unlink()
    with pytest.raises(ManifestError, match=r"m\.yaml:5:17: file_ids_from: .* can't be read"):
        list(loaded.file_ids())


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_a_list_that_is_no_file_is_refused_without_waiting(tmp_path: Path, kind: str) -> None:
    """Opening a pipe that nobody writes to would hang the night."""
    if kind == "folder":
        (tmp_path / "l.txt").mkdir()
    else:
        os.mkfifo(tmp_path / "l.txt")
    with pytest.raises(ManifestError, match=r"m\.yaml:5:17: .*not a regular file"):
        load(tmp_path, "l.txt")


def test_a_manifest_that_is_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    """So would the manifest itself."""
    os.mkfifo(tmp_path / "m.yaml")
    with pytest.raises(ManifestError, match="not a regular file"):
        loading.load(str(tmp_path / "m.yaml"), environ={})


def test_a_list_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    """Half of the old list and half of the new are nobody's list."""
    path = tmp_path / "l.txt"
    path.write_text("a\nb\n")
    ids = load(tmp_path, "l.txt").file_ids()
    assert next(ids) == "a"
    with path.open("a") as handle:
        handle.write("c\n")
    with pytest.raises(ManifestError, match=r"l\.txt:1:1: the list changed while it was read"):
        list(ids)


def test_standard_input_is_a_text_list_and_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` is standard input; asking for it a second time is reported, not answered with nothing."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"# ids\na\r\nb\n")))
    loaded = load(tmp_path, "-")
    assert list(loaded.file_ids()) == ["a", "b"]
    with pytest.raises(ManifestError, match=r"m\.yaml:5:17: .*standard input was already read"):
        list(loaded.file_ids())


def test_standard_input_may_be_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some schedulers start a process without one."""
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ManifestError, match="standard input is closed"):
        list(load(tmp_path, "-").file_ids())


def test_a_bad_line_of_standard_input_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name in problems is the one in the manifest."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\nb b\n")))
    with pytest.raises(ManifestError, match=r"^-:2:2: 'b b' is not a file ID"):
        list(load(tmp_path, "-").file_ids())


@pytest.mark.parametrize(("name", "row"), [("l.txt", "{}\n"), ("l.csv", "{},x\n"), ("l.jsonl", '"{}"\n')])
def test_a_long_list_takes_little_memory(tmp_path: Path, name: str, row: str) -> None:
    """A list is streamed: its length costs no memory."""
    ids = (f"182bd5e5-6e1a-4fe4-a799-{number:012x}" for number in range(100_000))
    (tmp_path / name).write_text(("file_id,x\n" if name == "l.csv" else "") + "".join(map(row.format, ids)))
    loaded = load(tmp_path, name)
    tracemalloc.start()
    try:
        assert sum(1 for _ in loaded.file_ids()) == 100_000
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()


def test_a_million_ids_are_read_in_a_second_or_so(tmp_path: Path) -> None:
    """A million lines of text are no reason to wait (about 0.4 s of work when this was written)."""
    (tmp_path / "l.txt").write_text("".join(f"182bd5e5-6e1a-4fe4-a799-{n:012x}\n" for n in range(1_000_000)))
    loaded = load(tmp_path, "l.txt")
    started = time.process_time()
    assert sum(1 for _ in loaded.file_ids()) == 1_000_000
    assert time.process_time() - started < 3


#: Quotes, commas, slashes and dots are in no ID.
_visible = st.characters(exclude_categories=["C", "Z"], exclude_characters="\"',;/\\.")
_ids = st.lists(st.text(_visible, min_size=1, max_size=200), max_size=60)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=_ids, times=st.integers(1, 60), end=st.sampled_from(["\n", "\r\n"]), last=st.booleans())
def test_every_line_comes_back_wherever_blocks_are_cut(
    tmp_path: Path, ids: list[str], times: int, end: str, last: bool
) -> None:
    """Any text that may be an ID, in lists longer than one block, comes back exactly, in order."""
    headers = ("file_id", "file_ids", "fileid", "fileids", "file-id", "file-ids")
    ids = [file_id for file_id in ids if not file_id.startswith("#") and file_id.lower() not in headers] * times
    text = end.join(ids) + (end if last else "")
    assert read(tmp_path, "l.txt", text.encode()) == ids


def told(folder: Path, name: str, data: bytes) -> list[tuple[str, str | None, dict[str, object]]]:
    """What a list says of files beside their IDs."""
    (folder / name).write_bytes(data)
    noted: list[tuple[str, str | None, dict[str, object]]] = []
    list(load(folder, name).file_ids(lambda *note: noted.append((note[0], note[1], dict(note[2])))))
    return noted


def test_a_csv_may_name_its_files_and_have_further_columns(tmp_path: Path) -> None:
    """A column without a title says nothing; of two with one title the second is numbered; short rows lack values."""
    data = b"Customer,file_id,Name,,Customer\nacme,a,a.pdf,x,1\n,b\n"
    assert told(tmp_path, "l.csv", data) == [
        ("a", "a.pdf", {"Customer": "acme", "Customer_2": "1"}),
        ("b", None, {"Customer": None, "Customer_2": None}),
    ]


def test_a_json_line_may_say_more_of_its_file(tmp_path: Path) -> None:
    """Plain values stay what they are, others become text; what no database takes is replaced."""
    data = rb'{"file_id": "a", "name": "\ud800\u0000x", "pages": 3, "tags": ["b"], "odd": NaN}' + b'\n"b"\n'
    assert told(tmp_path, "l.jsonl", data) == [("a", "\ufffd\ufffdx", {"pages": 3, "tags": '["b"]', "odd": "nan"})]


@pytest.mark.parametrize(
    ("data", "doubtful"),
    [
        (b"one-id\ntwo-id\nthr", True),
        (b"file_id\none-id-1\ntwo-id-2\nthree-i", True),
        (b"one-id\ntwo-id\nthr\n", False),
        (b"one-id\ntwo-id\nsix-id", False),
        (b"one-id\nid\ntwo-id\nthr", False),
        (b"one-id", False),
        (b"", False),
    ],
)
def test_a_list_that_ends_within_a_line_is_doubtful(tmp_path: Path, data: bytes, doubtful: bool) -> None:
    """A copy that was cut short loses files in silence: its last ID is a good one too, and somebody else's or none."""
    name = "l.csv" if data.startswith(b"file_id") else "l.txt"
    (tmp_path / name).write_bytes(data)
    manifest = load(tmp_path, name)
    list(manifest.file_ids())
    assert [("cut short" in doubt) for doubt in manifest.doubts()] == [True] * doubtful
