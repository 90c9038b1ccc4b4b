"""A folder of documents at the command line, night after night, against the embedded API."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from support.sandboxes import INVOICE, RECEIPT, SETTLED_NS, creates, desk, uploads


def test_three_nights_of_one_folder(tmp_path: Path) -> None:
    """Added, renamed, duplicated and touched documents: each content is uploaded and created once."""
    with desk(tmp_path) as at:
        at.put(a=INVOICE, b=RECEIPT, twin=INVOICE)
        first = json.loads(at.cli("run", "m.yaml", "--json").stdout)
        assert (first["exit_code"], first["files"], first["classified"], first["uploaded"]) == (0, 2, 2, 2)
        assert first["documents"] == {"documents": 3, "contents": 2, "read": 3, "skipped": {}}

        (at.inbox / "b.txt").rename(at.inbox / "renamed.txt")
        os.utime(at.inbox / "a.txt", ns=(SETTLED_NS, SETTLED_NS + 10**9))
        at.put(new=INVOICE + " and more", another_twin=RECEIPT)
        second = json.loads(at.cli("run", "m.yaml", "--json").stdout)
        assert (second["exit_code"], second["files"], second["jobs_created"], second["uploaded"]) == (0, 3, 1, 1)

        third = json.loads(at.cli("run", "m.yaml", "--json").stdout)
        assert (third["exit_code"], third["jobs_created"], third["requests"], third["uploaded"]) == (0, 0, 0, 0)
        assert third["documents"]["read"] == 0
        assert set(uploads(at.embedded).values()) == set(creates(at.embedded).values()) == {1}
        assert len(uploads(at.embedded)) == 3


def test_a_renamed_document_has_its_new_name_everywhere(tmp_path: Path) -> None:
    """In the list of failures and in what a retry would send. And a run whose only document is refused ends."""
    with desk(tmp_path, max_upload_bytes=60) as at:
        at.put(old=INVOICE)
        assert at.cli("run", "m.yaml", "--quiet").returncode == 1
        (at.inbox / "old.txt").rename(at.inbox / "new.txt")
        at.put(another=RECEIPT)
        failed = json.loads(at.cli("run", "m.yaml", "--json").stdout)["failed_files"]
        retried = at.cli("retry", "m.yaml", "--file", "new.txt", "--dry-run").stdout
        assert ([each["name"] for each in failed], "new.txt" in retried, "old.txt" in retried) == (
            ["new.txt"],
            True,
            False,
        )


def test_plan_knows_what_the_documents_will_cost_before_anything_is_uploaded(tmp_path: Path) -> None:
    """No network: contents count as files."""
    with desk(tmp_path) as at:
        at.put(a=INVOICE, b=RECEIPT, twin=INVOICE)
        planned = json.loads(at.cli("plan", "m.yaml", "--json").stdout)
        assert (planned["new"], planned["credits_ceiling"], planned["documents"]["contents"]) == (2, 10, 2)
        assert not at.embedded.state.requests


def test_limits_hold_before_anything_is_uploaded(tmp_path: Path) -> None:
    """``max_files`` counts contents; beyond it nothing leaves the machine."""
    with desk(tmp_path) as at:
        at.manifest("limits: {max_files: 1}")
        at.put(a=INVOICE, b=RECEIPT)
        assert at.cli("run", "m.yaml").returncode == 6
        assert not at.embedded.state.requests


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_upload_bytes": 60}, "413"),
        ({"faults": {"unsupported-matching": "invoice"}}, "Unsupported file type"),
        ({"max_files": 1}, "total number of files"),
    ],
)
def test_a_document_that_the_api_does_not_take_fails_alone_with_its_words(
    tmp_path: Path, options: dict[str, object], words: str
) -> None:
    """The rest of its chunk is classified; retry may try again."""
    with desk(tmp_path, **options) as at:
        at.put(areceipt=RECEIPT, invoice=INVOICE)
        done = json.loads(at.cli("run", "m.yaml", "--json").stdout)
        assert (done["exit_code"], done["classified"], done["failed"]) == (1, 1, 1)
        assert words in done["failed_files"][0]["error"]


def test_what_another_machine_has_uploaded_is_found_and_not_uploaded_again(tmp_path: Path) -> None:
    """Without its ledger the program finds every content by its ``external_file_id``."""
    with desk(tmp_path) as at:
        at.put(a=INVOICE, b=RECEIPT)
        at.cli("run", "m.yaml")
        for path in tmp_path.glob("ledger.db*"):
            path.unlink()
        done = json.loads(at.cli("run", "m.yaml", "--json").stdout)
        assert (done["classified"], done["uploaded"]) == (2, 0)
        assert set(uploads(at.embedded).values()) == {1}


@pytest.mark.parametrize("fault", ["upload.drop-after", "upload.garbage", "upload.http-5xx", "upload.drop-before"])
def test_an_upload_without_a_readable_answer_is_looked_for_before_it_is_sent_again(tmp_path: Path, fault: str) -> None:
    """Lost before or after its effect: no content has two files."""
    with desk(tmp_path, faults={fault: 0.4}, seed=3) as at:
        at.put(**{f"d{number}": f"{INVOICE} {number}" for number in range(12)})
        done = json.loads(at.cli("run", "m.yaml", "--json", ORCHESTRATOR_RETRY_BUDGET_S="20").stdout)
        assert (done["exit_code"], done["classified"]) == (0, 12)
        assert set(uploads(at.embedded).values()) == {1}


def test_a_file_that_is_gone_at_the_api_is_uploaded_again_when_it_is_needed(tmp_path: Path) -> None:
    """Under new rules the content gets a new file, and its outcome stays with the content."""
    with desk(tmp_path, unknown_files="refuse") as at:
        at.put(a=INVOICE, b=RECEIPT)
        at.cli("run", "m.yaml")
        at.embedded.state.files.popitem()
        at.manifest("parsing_configuration: {max_pages: 3}")
        done = json.loads(at.cli("run", "m.yaml", "--json").stdout)
        assert (done["exit_code"], done["classified"], done["uploaded"]) == (0, 2, 1)


def test_a_document_that_is_half_written_waits_for_the_next_run(tmp_path: Path) -> None:
    """It changed within ``settle``."""
    with desk(tmp_path) as at:
        at.put(a=INVOICE)
        (at.inbox / "young.txt").write_text(RECEIPT)
        (at.inbox / "young.txt").chmod(0o600)
        done = json.loads(at.cli("run", "m.yaml", "--json").stdout)
        assert (done["exit_code"], done["files"], done["documents"]["skipped"]) == (0, 1, {"changed recently": 1})


def test_v2_classifies_documents_one_a_job(tmp_path: Path) -> None:
    """The same folder, the other API."""
    with desk(tmp_path) as at:
        at.manifest("api: v2")
        at.put(a=INVOICE, b=RECEIPT)
        done = json.loads(at.cli("run", "m.yaml", "--json").stdout)
        assert (done["exit_code"], done["classified"], done["jobs_created"]) == (0, 2, 2)


def test_a_rehearsal_takes_the_documents_too(tmp_path: Path) -> None:
    """And uploads them again to the sandbox of the next rehearsal, which has none of them."""
    with desk(tmp_path) as at:
        at.put(a=INVOICE)
        assert at.cli("run", "m.yaml", "--sandbox").returncode == 0
        at.manifest("parsing_configuration: {max_pages: 3}")
        assert at.cli("run", "m.yaml", "--sandbox").returncode == 0
        assert not at.embedded.state.requests


def test_the_page_names_the_documents_to_review(tmp_path: Path) -> None:
    """A person opens a document, not an ID."""
    with desk(tmp_path) as at:
        at.put(a=INVOICE, b=RECEIPT)
        at.manifest("review: {below_confidence: 1.0, unmatched: true}")
        assert at.cli("run", "m.yaml").returncode == 0
        (section,) = json.loads(at.cli("report", "m.yaml", "--json").stdout)["manifests"]
        assert {each["name"] for each in section["review"]} == {"a.txt", "b.txt"}
        assert "a.txt" in at.cli("report", "m.yaml").stdout


@pytest.mark.parametrize("api", ["v1", "v2"])
def test_adopt_knows_the_documents_of_a_lost_ledger(tmp_path: Path, api: str) -> None:
    """By the content in ``external_file_id``: nothing is uploaded or bought again, and both twins have the outcome."""
    with desk(tmp_path) as at:
        at.manifest(f"api: {api}")
        at.put(a=INVOICE, twin=INVOICE, b=RECEIPT)
        at.cli("run", "m.yaml")
        for path in tmp_path.glob("ledger.db*"):
            path.unlink()
        adopted = json.loads(at.cli("adopt", "m.yaml", "--json").stdout)
        assert adopted["files_adopted"] == 2
        done = json.loads(at.cli("run", "m.yaml", "--json").stdout)
        assert (done["exit_code"], done["classified"], done["jobs_created"], done["uploaded"]) == (0, 2, 0, 0)
        assert set(uploads(at.embedded).values()) == set(creates(at.embedded).values()) == {1}
        rows = [json.loads(line) for line in at.cli("export", "m.yaml").stdout.splitlines()]
        assert {row["name"]: row["type"] for row in rows} == {
            "a.txt": "invoice",
            "twin.txt": "invoice",
            "b.txt": "receipt",
        }
        assert {row["file_id"][:4] for row in rows} == {"dfl-"}
