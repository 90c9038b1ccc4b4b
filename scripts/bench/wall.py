"""How long a run takes beside the least it could: 3,000 files in 30 v1 jobs of 1.5-2.5 s.

The least is the longest job and the creates at the limit. Usage: .venv/bin/python scripts/bench/wall.py
"""

from __future__ import annotations

from program import Measured, folder, heading, line, manifest, orchestrator
from sdk_script import sdk
from server import Server

FILES = 3000
CHUNK_SIZE = 100
CREATES_PER_S = 40.0
JOB_SECONDS = (1.5, 2.5)


def least_s(server: Server) -> float:
    """The time that the API alone takes: the longest of its jobs, and the creates at the limit."""
    created = server.seen().created
    ends = server.ends(list(created))
    return max((ends[job_id] - at).total_seconds() for job_id, at in created.items()) + len(created) / CREATES_PER_S


def main() -> None:
    jobs = FILES // CHUNK_SIZE
    heading(f"Wall time, {FILES:,} files, {jobs} v1 jobs; SDK: all at once")
    with folder() as where, Server(creates_per_s=CREATES_PER_S, job_seconds=JOB_SECONDS) as server:
        path = manifest(where, FILES, api="v1", chunk_size=CHUNK_SIZE)
        ours = orchestrator("run", path, "--json", url=server.url)
        least = least_s(server)
    with Server(creates_per_s=CREATES_PER_S, job_seconds=JOB_SECONDS) as server:
        theirs = sdk(server.url, "v1", FILES, f"--at-once={jobs}", f"--chunk-size={CHUNK_SIZE}")
        sdk_least = least_s(server)

    def share(measured: Measured, least: float) -> str:
        return f"{measured.seconds:.2f} s = {measured.seconds / least:.2f} x"

    line(f"whole process, least {least:.2f} s", share(ours, least), "<= 1.15 x", share(theirs, sdk_least))
    line("of which the run itself", f"{ours.summary['seconds'] / least:.2f} x")
    line("CPU", f"{ours.cpu_s:.2f} s", "", f"{theirs.cpu_s:.2f} s")


if __name__ == "__main__":
    main()
