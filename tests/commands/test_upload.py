"""`upload` without a manifest: documents named one by one, each content once, and a list of their file IDs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from support.sandboxes import INVOICE, RECEIPT, creates, desk, put, uploads


def test_files_and_folders_become_a_list_that_a_manifest_takes(tmp_path: Path) -> None:
    """A content has one file however many documents have it, a name is no pattern, and nothing goes up twice."""
    with desk(tmp_path) as at:
        named = {"a.txt": INVOICE, "twin.txt": INVOICE, "scan[1].odd": RECEIPT, "deep/c.txt": RECEIPT + " again"}
        put(tmp_path, {**named, "deep/.hidden": "x"})
        call = ("upload", "a.txt", "twin.txt", "scan[1].odd", "deep")
        done = at.cli(*call, "-o", "ids.csv")
        assert done.returncode == 0, done.stderr
        assert "4 documents, 1 of the same content as another; passed over: 1 hidden; 3 uploaded" in done.stderr
        rows = list(csv.DictReader((tmp_path / "ids.csv").read_text().splitlines()))
        assert [row["name"] for row in rows] == ["a.txt", "c.txt", "scan[1].odd", "twin.txt"]
        assert rows[0]["file_id"] == rows[3]["file_id"]
        assert at.cli(*call, "--ids").stdout.split() == [row["file_id"] for row in rows[:3]]

        manifest = (tmp_path / "m.yaml").read_text().replace("documents_from: [inbox]", "file_ids_from: [ids.csv]")
        (tmp_path / "m.yaml").write_text(manifest)
        done = at.cli("run", "m.yaml", "--json")
        assert json.loads(done.stdout)["classified"] == 3, done.stderr
    assert list(uploads(at.embedded).values()) == [1, 1, 1]
    assert list(creates(at.embedded).values()) == [1, 1, 1]


def test_a_document_that_the_api_refuses_fails_alone_and_is_tried_again(tmp_path: Path) -> None:
    """Exit 1 with the API's words; the others have their IDs."""
    with desk(tmp_path, max_upload_bytes=60) as at:
        put(tmp_path, {"good.txt": RECEIPT, "large.txt": INVOICE})
        for _ in range(2):
            done = at.cli("upload", "good.txt", "large.txt", "--json")
            answer = json.loads(done.stdout)
            assert (done.returncode, answer["exit_code"], answer["failed"]) == (1, 1, 1), done.stderr
            assert [file["name"] for file in answer["files"]] == ["good.txt"]
            assert "413" in answer["failed_files"][0]["error"]
            assert "large.txt: not uploaded" in done.stderr
    assert list(uploads(at.embedded).values()) == [1]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (["a.txt", "absent.pdf"], "absent.pdf: No such file or directory"),
        (["a.txt", "empty.pdf"], "empty.pdf: the file is empty; nothing was uploaded"),
        (["a.txt", "a\0.pdf"], "no such name"),
        (["a.txt", "-o", "a.txt"], "this would replace a.txt"),
        (["deep", "-o", "deep/er/ids.csv"], "the next call would upload this list; write it elsewhere"),
        (["a.txt", "--api", "v1"], "--api is for a manifest"),
        (["m.yaml", "--ids"], "-o and --ids are for documents named here"),
        ([], "Missing argument"),
    ],
)
def test_a_wrong_call_uploads_nothing(tmp_path: Path, call: list[str], words: str) -> None:
    """One clear line, exit 2, and the documents are as they were."""
    with desk(tmp_path) as at:
        put(tmp_path, {"a.txt": INVOICE, "empty.pdf": "", "deep/c.txt": RECEIPT})
        done = at.cli("upload", *call)
        assert (done.returncode, done.stdout) == (2, "")
        assert words in done.stderr
        assert (tmp_path / "a.txt").read_text() == INVOICE
    assert not uploads(at.embedded)
