"""Two hosts and one PostgreSQL: the run of one is stopped, killed or cut off, and the other takes over.

Each round plans new files, starts a run, stands it still (SIGSTOP), kills it or cuts its network to the database at a
moment drawn by lot, starts another run until one gets through, and wakes the first one up again. In an outage the
database is away, and the same run goes on. The API's own count tells whether anything was bought twice.

With --without-last-look the run sends without looking whether it still has the manifest: the check has to fail then.

Needs PostgreSQL's programs. Usage: scripts/soak hosts [--takeovers 20] [--kills 5] [--cuts 3] [--outages 4 12]
[--seed 1] [--without-last-look]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.cutting import Cutting
from support.postgres import MISSING, Postgres, programs, running
from support.procs import ApiServer, Ended, Run, environment, write_manifest

#: Longest that a takeover may last, from a stop and from a kill.
MOST_S = {"stop": 30.0, "kill": 5.0, "cut": 30.0}
#: Longest that an outage of the database may delay a run, beyond the outage itself.
OUTAGE_MORE_S = 5.0
#: Longest that the first run may go on after it wakes.
WAKING_S = 2.0
FILES = 60
#: Each run's connections are slow to be made: at any moment some calls stand between their intent and their first byte.
SLOW = """
import asyncio
from orchestrator.api.wire import Wire
send = Wire._send
async def slow(self, call, kind, *more):
    if kind == "create":
        await asyncio.sleep(0.3)
    return await send(self, call, kind, *more)
Wire._send = slow
"""
#: A run without its last look: nothing but the ledger's own fence is left.
BLIND = """
from orchestrator.ledger.opening import Ledger
Ledger.still_ours = property(lambda self: True)
"""


class Soak:
    """Rounds of one stop, kill, cut or outage each."""

    def __init__(self, folder: Path, postgres: Postgres, server: ApiServer, seed: int, *, blind: bool) -> None:
        self.folder = folder
        self.postgres = postgres
        self.server = server
        self.rng = random.Random(seed)
        self.url = postgres.new_database()
        self.env = environment(
            server.url, ORCHESTRATOR_LEDGER=self.url, ORCHESTRATOR_CREATES_PER_S="20", PYTHONPATH=str(Path.cwd())
        )
        (folder / "sitecustomize.py").write_text(SLOW + (BLIND if blind else ""))
        self.env["PYTHONPATH"] = f"{folder}{os.pathsep}{self.env['PYTHONPATH']}"
        self.took: dict[str, list[float]] = {"stop": [], "kill": [], "cut": []}
        self.waking: list[float] = []
        self.outages: dict[str, float] = {}  #: seconds away -> seconds that the run took longer, beyond them
        self.wrong: list[str] = []

    def round(self, number: int, how: str) -> None:
        """Take one run over from another. *how* it is hindered: stop, kill or cut."""
        file_ids, manifest = self._new(f"n{number}")
        before = self.server.stats().posts
        with Cutting(self.postgres.port) as network:
            url = self.url.replace(f":{self.postgres.port}/", f":{network.port}/")
            one = Run(manifest, {**self.env, **({"ORCHESTRATOR_LEDGER": url} if how == "cut" else {})})
            try:
                self._until_it_sends(one, before)
                time.sleep(self.rng.uniform(0.0, 1.5))
                if how == "cut":
                    network.flows.clear()
                else:
                    one.process.send_signal(signal.SIGSTOP if how == "stop" else signal.SIGKILL)
                took, other = self._take_over(manifest, time.monotonic(), how)
                self.took[how].append(took)
                if how != "kill":
                    network.flows.set()
                    self._wake(one, number)
                if other.code != 0:
                    self.wrong.append(
                        f"round {number} ({how}): the other run ended with {other.code}: {other.err[-300:]}"
                    )
            finally:
                one.kill()
        self._complete(f"round {number} ({how})", file_ids)

    def outage(self, away_s: float) -> None:
        """The database goes away while a run sends, and comes back: the same run ends well."""
        _, manifest = self._new(f"calm{away_s:g}")
        calm_s = Run(manifest, self.env).ended().seconds
        file_ids, manifest = self._new(f"away{away_s:g}")
        before = self.server.stats().posts
        one = Run(manifest, self.env)
        try:
            self._until_it_sends(one, before)
            down = time.monotonic()
            self.postgres.stop("immediate")
            time.sleep(away_s)
            self.postgres.start()
            down_s = time.monotonic() - down
            ended = one.ended()
        finally:
            one.kill()
        more_s = ended.seconds - calm_s - down_s
        self.outages[f"{away_s:g} s"] = round(more_s, 1)
        if ended.code != 0 or more_s > OUTAGE_MORE_S:
            self.wrong.append(
                f"outage of {away_s:g} s: exit {ended.code}, {more_s:.1f} s longer than that: {ended.err[-300:]}"
            )
        self._complete(f"outage of {away_s:g} s", file_ids)

    def _new(self, name: str) -> tuple[list[str], Path]:
        file_ids = [f"{name}-f{i}" for i in range(FILES)]
        return file_ids, write_manifest(self.folder, file_ids, chunk_size=1, name=name)

    def _complete(self, what: str, file_ids: list[str]) -> None:
        created = self.server.stats().created
        missing = [file_id for file_id in file_ids if file_id not in created]
        if missing:
            self.wrong.append(f"{what}: never bought: {missing[:3]}")

    def _until_it_sends(self, one: Run, before: int) -> None:
        until = time.monotonic() + 60
        while self.server.stats().posts < before + 3:  # the first call is made alone
            if one.process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"the run sends nothing: {one.log_so_far()[-500:]}")
            time.sleep(0.05)

    def _take_over(self, manifest: Path, began: float, how: str) -> tuple[float, Ended]:
        """Seconds until another run has the manifest, and how that run ended."""
        while True:
            other = Run(manifest, self.env)
            while "run.planned" not in other.log_so_far() and other.process.poll() is None:
                time.sleep(0.05)
            took = time.monotonic() - began
            ended = other.ended()
            if ended.code != 4:
                break
            if took > 60:
                raise AssertionError(f"nobody takes over: {ended.err[-300:]}")
        if took > MOST_S[how]:
            self.wrong.append(f"{how}: taken over after {took:.1f} s")
        return took, ended

    def _wake(self, one: Run, number: int) -> None:
        woken = time.monotonic()
        one.process.send_signal(signal.SIGCONT)
        ended = one.ended()
        self.waking.append(time.monotonic() - woken)
        if ended.code != 4 or self.waking[-1] > WAKING_S:
            self.wrong.append(
                f"round {number}: woken, the run ended with {ended.code} in {self.waking[-1]:.2f} s: {ended.err[-300:]}"
            )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--takeovers", type=int, default=20)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--cuts", type=int, default=3)
    parser.add_argument("--outages", type=float, nargs="*", default=[4.0, 12.0], metavar="SECONDS")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--without-last-look", action="store_true", help="the control: it has to fail")
    options = parser.parse_args()
    where = programs()
    if where is None:
        print(MISSING)
        return 2
    with tempfile.TemporaryDirectory() as folder, running(where) as postgres, ApiServer() as server:
        server.set(create_s=(0.0, 0.3), answer_s=(0.0, 0.3))
        soak = Soak(Path(folder), postgres, server, options.seed, blind=options.without_last_look)
        rounds = ["stop"] * options.takeovers + ["kill"] * options.kills + ["cut"] * options.cuts
        for number, how in enumerate(rounds):
            soak.round(number, how)
        for away_s in options.outages:
            soak.outage(away_s)
        twice = server.stats().twice
    figures = {
        "takeovers": {how: len(took) for how, took in soak.took.items()},
        "slowest_s": {how: round(max(took, default=0.0), 1) for how, took in soak.took.items()},
        "slowest_end_after_waking_s": round(max(soak.waking, default=0.0), 2),
        "longer_than_the_outage_s": soak.outages,
        "bought_twice": len(twice),
        "wrong": [*soak.wrong, *([f"bought twice: {twice[:5]}"] if twice else [])],
    }
    print(json.dumps(figures, indent=2))
    if options.without_last_look:
        proof = (
            f"the check FAILS, as it must: {len(twice)} files were bought twice"
            if twice
            else "nothing was bought twice, which proves nothing: take more --takeovers"
        )
        print(f"control, without the last look: {proof}")
    return bool(figures["wrong"])


if __name__ == "__main__":
    sys.exit(main())
