"""`scripts/soak simulation`: many episodes, and a line that says what they came to; exit code 1 when any went wrong."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import fields
from functools import partial
from itertools import count, islice

from support.postgres import MISSING, programs, running

from orchestrator.cli.app import collect_as_usual
from simulation.bugs import BUGS
from simulation.episode import Episode, play

#: Episodes that one process is handed at a time.
BATCH = 20


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/soak simulation", description=__doc__)
    parser.add_argument("--episodes", type=int, default=1000, metavar="N", help="how many, of each API (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="the first one's seed (default: 0)")
    parser.add_argument("--api", choices=("v1", "v2"), action="append", help="only this one (default: both)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), metavar="N", help="processes (default: one a core)")
    parser.add_argument("--events", action="store_true", help="tell all that happened in an episode that went wrong")
    parser.add_argument("--postgres", action="store_true", help="the ledger on a real server; takeovers, lost commits")
    parser.add_argument("--bugs", action="store_true", help="tell the first seed that shows each planted bug, instead")
    options = parser.parse_args()
    failed = 0
    if options.bugs:
        with ProcessPoolExecutor(options.jobs, initializer=collect_as_usual) as pool:
            first = partial(_first_to_show, seeds=range(options.seed, options.seed + options.episodes))
            for bug, seed in zip(BUGS, pool.map(first, range(len(BUGS))), strict=True):
                print(f"{bug.api} {bug.name}: {seed} (written down: {bug.seed})", flush=True)
                failed += seed is None
        return min(failed, 1)
    where = programs() if options.postgres else None
    if options.postgres and where is None:
        print(MISSING)
        return 2
    server = nullcontext() if where is None else running(where)
    with server as postgres, ProcessPoolExecutor(options.jobs, initializer=collect_as_usual) as pool:
        for api in options.api or ("v1", "v2"):
            seeds = islice(count(options.seed), options.episodes)
            episodes = pool.map(partial(play, api=api, postgres=postgres), seeds, chunksize=1 if postgres else BATCH)
            failed += _report(api, options.seed, episodes, options.events)
    return min(failed, 1)


def _first_to_show(place: int, seeds: range) -> int | None:
    """The seed by which the bug at *place* shows: its own if that still does, else the first of *seeds*."""
    bug = BUGS[place]
    with bug.plant():
        return next((seed for seed in (bug.seed, *seeds) if play(seed, bug.api).violations), None)


def _report(api: str, first: int, episodes: Iterator[Episode], events: bool) -> int:
    """Print each episode that went wrong, as it comes, and the sums at the end; how many went wrong."""
    sums = dict.fromkeys((field.name for field in fields(Episode) if field.type == "int"), 0)
    played = failed = paid_twice = 0
    virtual_s = 0.0
    for episode in episodes:
        played += 1
        virtual_s += episode.virtual_s
        for name in sums:
            sums[name] += getattr(episode, name)
        if episode.violations:
            failed += 1
            paid_twice += any(violation.startswith("paid twice") for violation in episode.violations)
            print(f"seed {episode.seed}: {'; '.join(episode.violations[:5])}")
            print(f"  replay it: scripts/soak simulation --api {api} --episodes 1 --seed {episode.seed} --events")
            if events:
                print("\n".join(episode.events))
            sys.stdout.flush()
    print(
        f"{api}: {played} episodes, {sums['runs']} runs, {sums['crashes']} crashes, {sums['changed_rules']} changes of "
        f"rules, {sums['created']} jobs: {sums['retries']} by retry, {sums['halves']} halves, "
        f"{sums['second_opinions']} second opinions; {sums['adopted']} adopted, {sums['sent_again']} sent again, "
        f"{sums['taken_over']} taken over, {sums['cuts']} cut off, {sums['asked_a_person']} left to a person; "
        f"{virtual_s / 86400:.0f} virtual days: "
        f"{failed - paid_twice} lost or wrong, {paid_twice} paid twice, {sums['held']} held at the end, "
        f"seeds {first}-{first + played - 1}"
    )
    return failed


if __name__ == "__main__":
    sys.exit(main())
