"""Three runs on one API project at once, their ledger in one PostgreSQL: the pace that they keep together.

At the documented 40 creates a second, the most in any second; at 20 a second, which nobody told them, the part of it
that is used and the part of the creates that is refused. Needs PostgreSQL's programs.
Usage: .venv/bin/python scripts/bench/shared_pace.py [--jobs 1400] [--runs 3]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from bisect import bisect_left
from pathlib import Path

from program import RULES, heading, line
from server import Seen, Server

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from support.postgres import MISSING, Postgres, programs, running

MOST_IN_A_SECOND = 48


def run_together(folder: Path, ledger: str, url: str, jobs: int, runs: int) -> None:
    """As many *runs* at once, each of its own manifest. Raises SystemExit when one does not end well."""
    environment = {
        "PATH": os.environ["PATH"],
        "LLAMA_CLOUD_API_KEY": "bench",
        "LLAMA_CLOUD_BASE_URL": url,
        "ORCHESTRATOR_ENV_FILE": "none",
        "ORCHESTRATOR_LEDGER": ledger,
    }
    started = []
    for number in range(runs):
        path = folder / f"run{number}.yaml"
        file_ids = [f"run{number}-file{index}" for index in range(jobs // runs)]
        path.write_text(
            f"version: 1\nname: run{number}\napi: v2\nrules: {json.dumps(RULES)}\nfile_ids: {json.dumps(file_ids)}\n"
        )
        command = [sys.executable, "-m", "orchestrator", "run", str(path), "--json"]
        with (folder / f"run{number}.err").open("wb") as err:
            started.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=err))
    for number, process in enumerate(started):
        if process.wait():
            raise SystemExit((folder / f"run{number}.err").read_text()[-2000:])


def most_in_a_second(seen: Seen) -> int:
    times = sorted(at.timestamp() for at in seen.created.values())
    return max(bisect_left(times, at + 1.0) - place for place, at in enumerate(times))


def measure(postgres: Postgres, per_s: float, jobs: int, runs: int, *, faults: bool) -> Seen:
    """What an API with a limit of *per_s* sees; without *faults* it has none of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        Server(creates_per_s=per_s, **({} if faults else {"faults": {}})) as server,
    ):
        run_together(Path(folder), postgres.new_database(), server.url, jobs, runs)
        return server.seen()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1400)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    where = programs()
    if where is None:
        print(MISSING)
        return 2
    heading(f"{options.runs} runs at once, {options.jobs} v2 jobs")
    with running(where) as postgres:
        known = measure(postgres, 0, options.jobs, options.runs, faults=False)
        unknown = measure(postgres, 20, options.jobs, options.runs, faults=False)
    most = most_in_a_second(known)
    line("40/s, no limit at the API: most creates in a second", f"{most}", f"<= {MOST_IN_A_SECOND}")
    line("  creates a second", f"{len(known.created) / known.span_s:.1f}")
    used = len(unknown.created) / (20 * unknown.span_s)
    line("20/s, unknown: used", f"{used:.1%}", ">= 95 %")
    line("20/s, unknown: creates refused", f"{unknown.refused:.2%}", "<= 2 %")
    return not (most <= MOST_IN_A_SECOND and used >= 0.95 and unknown.refused <= 0.02)


if __name__ == "__main__":
    sys.exit(main())
