"""The cost of ten and a hundred times more files: plan, run, run once more, status.

Against a fast server: 400 creates/s, v1 jobs of 500 files.
Usage: .venv/bin/python scripts/bench/million.py [--files 1000000]
"""

from __future__ import annotations

import argparse
from itertools import pairwise

from program import Measured, folder, heading, line, manifest, orchestrator
from server import Server

CHUNK_SIZE = 500
FAST = {"ORCHESTRATOR_CREATES_PER_S": "400", "ORCHESTRATOR_READS_PER_S": "1000", "ORCHESTRATOR_LISTS_PER_S": "100"}

#: Peak memory that no step may go above, and seconds that looking may take, however many files.
MOST_MB = 250
SOON_S = 2.0


def steps(files: int) -> dict[str, Measured]:
    """Each step's cost for *files* files."""
    fast = {"creates_per_s": 400, "gets_per_s": 0, "lists_per_s": 0, "job_seconds": (0.1, 0.3)}
    with folder() as where, Server(**fast) as server:
        path = manifest(where, files, api="v1", chunk_size=CHUNK_SIZE)
        measured = {"plan": orchestrator("plan", path, "--json")}
        measured["run"] = orchestrator("run", path, "--json", url=server.url, **FAST)
        assert measured["run"].summary["unfinished"] == 0
        measured["run again"] = orchestrator("run", path, "--json", url=server.url, **FAST)
        assert measured["run again"].summary["jobs_created"] == 0
        measured["status"] = orchestrator("status", path, "--json")
        megabytes = sum(part.stat().st_size for part in where.glob("ledger.db*")) / 2**20
        line(f"{files:,} files: ledger", f"{megabytes * 1024 / files:.2f} KB/file", "<= 1 KB/file")
    return measured


def report(files: int, measured: dict[str, Measured]) -> None:
    for step, cost in measured.items():
        line(f"{files:,} files: {step}", f"{cost.seconds:.2f} s", f"<= {SOON_S:g} s" if step == "status" else "")
        line("  CPU per file", f"{cost.cpu_s / files * 1e6:.1f} us")
        line("  peak memory", f"{cost.peak_mb:.0f} MB", f"<= {MOST_MB} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1_000_000)
    most: int = parser.parse_args().files
    heading(f"Growth to {most:,} files")
    sizes = [size for size in (most // 100, most // 10, most) if size >= CHUNK_SIZE]
    found = {}
    for size in sizes:
        found[size] = steps(size)
        report(size, found[size])
    for less, more in pairwise(sizes):
        for step in ("plan", "run", "run again"):
            grown = found[more][step].cpu_s / found[less][step].cpu_s
            line(f"{less:,} -> {more:,} files: CPU of {step}", f"x {grown:.1f}", "<= x 11")


if __name__ == "__main__":
    main()
