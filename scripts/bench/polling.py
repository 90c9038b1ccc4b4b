"""How many status calls a run makes and how late it notices a job's end: 800 v2 jobs of 12-20 s, created at 40/s.

Usage: .venv/bin/python scripts/bench/polling.py
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from program import folder, heading, line, manifest, orchestrator
from sdk_script import sdk
from server import Server

JOBS = 800
JOB_SECONDS = (12.0, 20.0)


def recorded(ledger: Path) -> dict[str, datetime]:
    """Job ID -> when the ledger had it as ended."""
    with closing(sqlite3.connect(ledger)) as connection:
        rows = connection.execute("SELECT job_id, finished_at FROM jobs").fetchall()
    return {job_id: datetime.fromisoformat(finished_at) for job_id, finished_at in rows}


def delays(noticed: dict[str, datetime], ended: dict[str, datetime]) -> tuple[float, float]:
    """The mean delay and the one that 95 % stay below, in seconds."""
    sizes = sorted((at - ended[job_id]).total_seconds() for job_id, at in noticed.items())
    return sum(sizes) / len(sizes), sizes[int(0.95 * (len(sizes) - 1))]


def main() -> None:
    heading(f"Polling, {JOBS} v2 jobs of 12-20 s at 40/s; SDK: all at once")
    with folder() as where, Server(job_seconds=JOB_SECONDS) as server:
        path = manifest(where, JOBS, api="v2")
        orchestrator("run", path, "--json", url=server.url)
        seen = server.seen()
        noticed = recorded(where / "ledger.db")
        mean_s, most_s = delays(noticed, server.ends(list(noticed)))
    with Server(job_seconds=JOB_SECONDS) as server:
        told = sdk(server.url, "v2", JOBS, f"--at-once={JOBS}", "--per-s=40").summary
        sdk_seen = server.seen()
        sdk_noticed = {job_id: datetime.fromtimestamp(at, UTC) for job_id, at in told["noticed"].items()}
        sdk_mean_s, sdk_most_s = delays(sdk_noticed, server.ends(list(sdk_noticed)))
    line("status calls per job", f"{seen.status_calls / JOBS:.3f}", "<= 0.15", f"{sdk_seen.status_calls / JOBS:.2f}")
    line("job's end to its record: mean", f"{mean_s:.2f} s", "<= 2.5 s", f"{sdk_mean_s:.2f} s")
    line("job's end to its record: 95 %", f"{most_s:.2f} s", "", f"{sdk_most_s:.2f} s")
    line("jobs lost", f"{JOBS - len(noticed)}", "0", f"{told['lost']}")


if __name__ == "__main__":
    main()
