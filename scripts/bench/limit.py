"""How much of a create limit that nobody told it about a run uses, end to end: 700 jobs through v2.

Usage: .venv/bin/python scripts/bench/limit.py
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from program import folder, heading, line, manifest, orchestrator
from sdk_script import sdk
from server import Seen, Server

JOBS = 700
AT_ONCE = 100

#: Every time SQLite waits for the disk it waits 10 ms more.
SLOW_DISK = (
    *("strace", "--follow-forks", "--seccomp-bpf", "--quiet=all", "--output=/dev/null"),
    *("--trace=fsync,fdatasync", "--inject=fsync,fdatasync:delay_enter=10000"),
)


def report(what: str, per_s: float, seen: Seen, by_sdk: Seen | None, lost: int) -> None:
    """Two rows: the part of the limit used between the first and the last create, and the part refused."""

    def used(seen: Seen) -> str:
        return f"{len(seen.created) / (per_s * seen.span_s):.1%}"

    line(f"{what}: used", used(seen), ">= 95 %", used(by_sdk) if by_sdk else "")
    told = f"{by_sdk.refused:.1%}, {lost} lost" if by_sdk else ""
    line(f"{what}: creates refused", f"{seen.refused:.2%}", "< 1 %", told)


def measure(what: str, per_s: float, *, faults: dict[str, float], before: Sequence[str] = ()) -> None:
    with folder() as where, Server(creates_per_s=per_s, faults=faults) as server:
        orchestrator("run", manifest(where, JOBS, api="v2"), "--json", url=server.url, before=before)
        seen = server.seen()
    assert len(seen.created) == JOBS
    if before:  # the SDK's script writes nothing to disk
        report(what, per_s, seen, None, 0)
        return
    with Server(creates_per_s=per_s, faults=faults) as server:
        lost = sdk(server.url, "v2", JOBS, f"--at-once={AT_ONCE}").summary["lost"]
        report(what, per_s, seen, server.seen(), lost)


def main() -> None:
    heading(f"Create limit, {JOBS} v2 jobs; SDK: {AT_ONCE} at once")
    measure("20/s, no Retry-After", 20, faults={})
    measure("40/s, answers 1 s late", 40, faults={"slow": 1.0})
    if shutil.which("strace"):
        measure("40/s, every fsync 10 ms late", 40, faults={}, before=SLOW_DISK)
    else:
        line("40/s, every fsync 10 ms late", "skipped: no strace")


if __name__ == "__main__":
    main()
