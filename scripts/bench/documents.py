"""The cost of a night with nothing new: `run` on a folder of documents that are all classified, and its plan; and the
part of the API's limit on uploads that an upload of many documents uses.

Beside the night the least that it can do: to list the folders and ask for each document's size and time.
Usage: .venv/bin/python scripts/bench/documents.py [--documents 100000]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from program import folder, heading, line, measure, orchestrator
from server import Server

from orchestrator import ledger, logs
from orchestrator.clock import timestamp
from orchestrator.ledger import jobs, runs
from orchestrator.ledger.documents import uploads
from orchestrator.manifest import loading
from orchestrator.models import FileResult, JobStatus, Outcome
from orchestrator.planning import documents, run
from orchestrator.planning.options import Options

MANIFEST = """\
version: 1
name: bench
chunk_size: 500
rules:
  - {type: invoice, description: contains an invoice number and a total}
  - {type: receipt, description: proof of a payment with a merchant and a total}
documents_from: [inbox]
"""

PER_FOLDER = 1_000

#: Long ago, to a folder that is looked at now.
SETTLED_NS = 1_700_000_000_000_000_000

MOST_S = 3.0
MOST_MB = 250

#: Documents that are uploaded, and how many a second the API takes: 50 in 5 s.
UPLOADS = 300
UPLOADS_PER_S = 10.0

WALK = """
import os, sys
waiting = [sys.argv[1]]
while waiting:
    with os.scandir(waiting.pop()) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
            else:
                entry.stat(follow_symlinks=False)
"""


def write(where: Path, number: int) -> Path:
    """A manifest in *where* and *number* documents, each of another content."""
    for document in range(number):
        within = where / "inbox" / f"{document // PER_FOLDER:04}"
        if document % PER_FOLDER == 0:
            within.mkdir(parents=True)
        path = within / f"scan-{document:07}.pdf"
        path.write_text(f"document {document}")
        os.utime(path, ns=(SETTLED_NS, SETTLED_NS))
    (where / "bench.yaml").write_text(MANIFEST)
    return where / "bench.yaml"


def classify(path: Path) -> None:
    """Leave the ledger as a run does that has uploaded and classified every document."""
    manifest, now = loading.load(str(path), environ={}), datetime.now(UTC)
    at, run_id = timestamp(now), runs.new_id(now)
    logs.configure("ERROR")
    with ledger.open(path.with_name("ledger.db")) as opened:
        manifest, _ = documents.take(manifest, opened, write=True)
        with opened.transaction() as connection:
            plan = run.plan(connection, manifest, Options(), run_id=run_id, origin="loopback", now=now)
        with opened.transaction() as connection:
            for chunk_id in range(1, plan.chunks + 1):
                rows = jobs.file_rows(connection, chunk_id)
                for content, row in rows.items():
                    uploads.there(connection, plan.scope.manifest_id, content, f"file-{row}", ours=True, at=at)
                jobs.intend(connection, [chunk_id], mark=None, at=at)
                jobs.submitted(connection, chunk_id, f"job-{chunk_id}", at=at)
                results = [
                    (row, FileResult(content, Outcome.CLASSIFIED, "invoice", 0.9)) for content, row in rows.items()
                ]
                jobs.end(connection, chunk_id, JobStatus.SUCCEEDED, results, at=at)
            runs.finish(connection, run_id, exit_code=0, summary={}, at=at)


def uploads_per_s() -> float:
    """The pace of an upload of UPLOADS documents, from the first to the last of them."""
    with folder() as where, Server(uploads_per_s=0) as server:
        path = write(where, UPLOADS)
        done = orchestrator("upload", path, "--json", "--quiet", url=server.url, ORCHESTRATOR_LOG_LEVEL="INFO")
        assert done.summary["uploaded"] == UPLOADS
        lines = [json.loads(text) for log in where.glob("logs/bench/*.jsonl") for text in log.read_text().splitlines()]
    ends = sorted(datetime.fromisoformat(each["timestamp"]) for each in lines if each["event"] == "file.uploaded")
    return (UPLOADS - 1) / (ends[-1] - ends[0]).total_seconds()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=100_000)
    number: int = parser.parse_args().documents
    heading(f"{number:,} unchanged documents")
    with folder() as where:
        path = write(where, number)
        classify(path)
        walk = measure([sys.executable, "-c", WALK, str(where / "inbox")], "")
        line("the folders listed, each document's size asked", f"{walk.seconds:.2f} s")
        again = orchestrator("run", path, "--json", url="http://127.0.0.1:9")
        assert again.summary["jobs_created"] == again.summary["requests"] == 0
        assert again.summary["classified"] == number
        line("run", f"{again.seconds:.2f} s", f"<= {MOST_S:g} s")
        line("  beside that listing", f"{again.seconds / walk.seconds:.1f} x")
        line("  CPU", f"{again.cpu_s:.2f} s")
        line("  peak memory", f"{again.peak_mb:.0f} MB", f"<= {MOST_MB} MB")
        plan = orchestrator("plan", path, "--json")
        line("plan", f"{plan.seconds:.2f} s", f"<= {MOST_S:g} s")
    per_s = uploads_per_s()
    line(f"{UPLOADS} uploads", f"{per_s:.2f} a second")
    line("  of the API's limit", f"{per_s / UPLOADS_PER_S:.1%}", ">= 95 %")


if __name__ == "__main__":
    main()
