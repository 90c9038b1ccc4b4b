"""Two hosts and one PostgreSQL: the run of one is stopped or killed, the other takes over, and nothing is bought twice.

Each round plans new files, starts a run, stands it still (SIGSTOP) or kills it at a moment drawn by lot, starts another
run until one gets through, and wakes the first one up again. The API's own count is the judge.

Needs PostgreSQL's programs. Usage: scripts/soak hosts [--takeovers 20] [--kills 5] [--seed 1] [--without-last-look]
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

from support.postgres import MISSING, programs, running
from support.procs import ApiServer, Ended, Run, environment, write_manifest

#: Longest that a takeover may last, from a stop and from a kill.
MOST_S = {"stop": 30.0, "kill": 5.0}
#: Longest that the first run may go on after it wakes.
WAKING_S = 2.0
FILES = 60
#: What a run does without its last look: nothing but the ledger's own fence is left.
BLIND = "import orchestrator.ledger.opening as o; o.Ledger.still_ours = property(lambda self: True)"


class Soak:
    """Rounds of one stop or kill each."""

    def __init__(self, folder: Path, url: str, server: ApiServer, seed: int, *, blind: bool) -> None:
        self.folder = folder
        self.server = server
        self.rng = random.Random(seed)
        self.env = environment(
            server.url, ORCHESTRATOR_LEDGER=url, ORCHESTRATOR_CREATES_PER_S="20", PYTHONPATH=str(Path.cwd())
        )
        if blind:
            (folder / "sitecustomize.py").write_text(f"{BLIND}\n")
            self.env["PYTHONPATH"] = f"{folder}{os.pathsep}{self.env['PYTHONPATH']}"
        self.took: dict[str, list[float]] = {"stop": [], "kill": []}
        self.waking: list[float] = []
        self.wrong: list[str] = []

    def round(self, number: int, how: str) -> None:
        file_ids = [f"n{number}-f{i}" for i in range(FILES)]
        manifest = write_manifest(self.folder, file_ids, chunk_size=1, name=f"n{number}")
        before = self.server.stats().posts
        one = Run(manifest, self.env)
        try:
            self._until_it_sends(one, before)
            time.sleep(self.rng.uniform(0.0, 1.5))
            one.process.send_signal(signal.SIGSTOP if how == "stop" else signal.SIGKILL)
            began = time.monotonic()
            took, other = self._take_over(manifest, began, how)
            self.took[how].append(took)
            if how == "stop":
                self._wake(one, number)
            if other.code != 0:
                self.wrong.append(f"round {number} ({how}): the other run ended with {other.code}: {other.err[-300:]}")
        finally:
            one.kill()
        created = self.server.stats().created
        missing = [file_id for file_id in file_ids if file_id not in created]
        if missing:
            self.wrong.append(f"round {number} ({how}): never bought: {missing[:3]}")

    def _until_it_sends(self, one: Run, before: int) -> None:
        until = time.monotonic() + 60
        while self.server.stats().posts == before:
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
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--without-last-look", action="store_true", help="the control: files are bought twice")
    options = parser.parse_args()
    where = programs()
    if where is None:
        print(MISSING)
        return 2
    with tempfile.TemporaryDirectory() as folder, running(where) as postgres, ApiServer() as server:
        server.set(create_s=(0.0, 0.3), answer_s=(0.0, 0.3))
        soak = Soak(Path(folder), postgres.new_database(), server, options.seed, blind=options.without_last_look)
        for number in range(options.takeovers + options.kills):
            soak.round(number, "stop" if number < options.takeovers else "kill")
        twice = server.stats().twice
    figures = {
        "takeovers": {how: len(took) for how, took in soak.took.items()},
        "slowest_s": {how: round(max(took, default=0.0), 1) for how, took in soak.took.items()},
        "slowest_end_after_waking_s": round(max(soak.waking, default=0.0), 2),
        "bought_twice": len(twice),
        "wrong": [*soak.wrong, *([f"bought twice: {twice[:5]}"] if twice else [])],
    }
    print(json.dumps(figures, indent=2))
    return bool(figures["wrong"])


if __name__ == "__main__":
    sys.exit(main())
