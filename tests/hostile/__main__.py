"""`scripts/soak hostile`: many cases, each that went wrong with the seed that replays it; exit 1 when any did."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from hostile.case import Told, judged
from hostile.server import Loop


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/soak hostile", description=__doc__)
    parser.add_argument("--cases", type=int, default=200, metavar="N", help="how many (default: 200)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="the first one's seed (default: 0)")
    parser.add_argument("--jobs", type=int, default=4, metavar="N", help="cases at once; they mostly wait (default: 4)")
    parser.add_argument("--verbose", action="store_true", help="also tell the cases that went well")
    options = parser.parse_args()
    with Loop() as loop, ThreadPoolExecutor(options.jobs) as pool:
        seeds = range(options.seed, options.seed + options.cases)
        failed = _report(pool.map(partial(judged, loop=loop), seeds), options.verbose)
    return min(failed, 1)


def _report(cases: Iterator[Told], verbose: bool) -> int:
    """Print the cases that went wrong, as they come, and the sums; how many went wrong."""
    played = failed = jobs = runs = retried = 0
    for told in cases:
        played, jobs, retried = played + 1, jobs + told.jobs, retried + told.retried
        runs += len(told.runs)
        if told.wrong:
            failed += 1
            print(f"{told}\n  replay it: scripts/soak hostile --cases 1 --seed {told.seed}", flush=True)
        elif verbose:
            print(told, flush=True)
    print(
        f"{played} cases, {runs} runs, {jobs} jobs, {retried} in which a person had to say what to send again: "
        f"{failed} failed"
    )
    return failed


if __name__ == "__main__":
    sys.exit(main())
