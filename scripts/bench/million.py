"""The cost of ten and a hundred times more files: plan, run, run once more, status.

Against a fast server: 400 creates/s, v1 jobs of 500 files.
Usage: .venv/bin/python scripts/bench/million.py [--files 1000000] [--ledger postgresql://USER@HOST/DATABASE]

With --ledger, an empty database, the same with the ledger there, and how much more each step takes than in a file; the
word "debian" starts a PostgreSQL for it.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

from program import Measured, folder, heading, line, manifest, orchestrator
from server import Server

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from support.postgres import MISSING, programs, running

CHUNK_SIZE = 500
FAST = {"ORCHESTRATOR_CREATES_PER_S": "400", "ORCHESTRATOR_READS_PER_S": "1000", "ORCHESTRATOR_LISTS_PER_S": "100"}

#: Peak memory that no step may go above, and seconds that looking may take, however many files.
MOST_MB = 250
SOON_S = 2.0

#: How many times as long as with a ledger in a file each step may take.
MOST_ON_A_SERVER = {"plan": 1.25, "run": 1.25, "run again": 1.2, "status": 1.2}


def steps(files: int, ledger: str | None = None) -> dict[str, Measured]:
    """Each step's cost for *files* files, with the ledger in a file or at *ledger*."""
    fast = {"creates_per_s": 400, "gets_per_s": 0, "lists_per_s": 0, "job_seconds": (0.1, 0.3)}
    there = {} if ledger is None else {"ORCHESTRATOR_LEDGER": ledger}
    with folder() as where, Server(**fast) as server:
        path = manifest(where, files, api="v1", chunk_size=CHUNK_SIZE)
        measured = {"plan": orchestrator("plan", path, "--json", **there)}
        measured["run"] = orchestrator("run", path, "--json", url=server.url, **FAST, **there)
        assert measured["run"].summary["unfinished"] == 0
        measured["run again"] = orchestrator("run", path, "--json", url=server.url, **FAST, **there)
        assert measured["run again"].summary["jobs_created"] == 0
        measured["status"] = orchestrator("status", path, "--json", **there)
        if ledger is not None:
            return measured
        megabytes = sum(part.stat().st_size for part in where.glob("ledger.db*")) / 2**20
        line(f"{files:,} files: ledger", f"{megabytes * 1024 / files:.2f} KB/file", "<= 1 KB/file")
    return measured


def report(files: int, measured: dict[str, Measured]) -> None:
    for step, cost in measured.items():
        line(f"{files:,} files: {step}", f"{cost.seconds:.2f} s", f"<= {SOON_S:g} s" if step == "status" else "")
        line("  CPU per file", f"{cost.cpu_s / files * 1e6:.1f} us")
        line("  peak memory", f"{cost.peak_mb:.0f} MB", f"<= {MOST_MB} MB")


def compare(files: int, option: str) -> None:
    """The same *files* with the ledger in a file and in the database that *option* names."""
    with ExitStack() as stack:
        ledger = option
        if option == "debian":
            where = programs()
            if where is None:
                raise SystemExit(MISSING)
            ledger = stack.enter_context(running(where)).new_database()
        heading(f"{files:,} files in a file and in PostgreSQL")
        here, there = steps(files), steps(files, ledger)
    report(files, there)
    for step, most in MOST_ON_A_SERVER.items():
        line(f"PostgreSQL / SQLite: {step}", f"{there[step].seconds / here[step].seconds:.2f} x", f"<= {most:g} x")
        line("  CPU of the program", f"{there[step].cpu_s / here[step].cpu_s:.2f} x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--ledger", metavar="URL", help='an empty database, or "debian"')
    options = parser.parse_args()
    most: int = options.files
    if options.ledger is not None:
        compare(most, options.ledger)
        return
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
