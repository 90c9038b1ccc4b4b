"""Several hosts in trouble: workers and runs are killed, stopped and told to end, the database fails, calls get lost.

Starts a PostgreSQL, an API server and workers on this machine, has manifests carried out while all of this happens, and
then counts: nothing lost, nothing bought twice, no bug, every worker gone within 10 s of SIGTERM, each tick of a
schedule once.

Usage: scripts/soak chaos [--seconds 120] [--hosts 4] [--seeds 1 2 3]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from time import monotonic, sleep

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.postgres import MISSING, Postgres, programs, running
from support.procs import ApiServer, environment, write_manifest

PROGRAM = (sys.executable, "-m", "orchestrator")
MANIFESTS, FILES, CHUNK = 4, 300, 5

#: What happens, and how often in proportion.
TROUBLES = {
    "host killed": 3,
    "worker killed": 2,
    "run killed": 3,
    "host stopped": 2,
    "run stopped": 2,
    "SIGTERM": 3,
    "database crashed": 1,
    "database away": 1,
}

#: How long everything may take to be carried out once the trouble is over.
PATIENCE_S = 300.0


@dataclass
class Host:
    """One worker, started again whenever it has ended, as a service is."""

    number: int
    env: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    stopped_until: float = 0.0

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*PROGRAM, "work", "--slots", "2"], env=self.env, stderr=log)

    @property
    def up(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def runs(self) -> list[int]:
        """Its child processes."""
        assert self.process is not None
        try:
            found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        except OSError:
            return []
        return [int(pid) for pid in found.split()]

    def wake(self) -> None:
        self.stopped_until = 0.0
        for pid in (None, *self.runs):
            self.signal(signal.SIGCONT, pid)

    def signal(self, number: int, pid: int | None = None) -> None:
        if self.process is None:
            return
        try:
            os.kill(pid or self.process.pid, number)
        except ProcessLookupError:
            return


@dataclass
class Soak:
    """One chaos of one seed."""

    rng: random.Random
    postgres: Postgres
    api: ApiServer
    folder: Path
    url: str
    hosts: list[Host]
    done: dict[str, int] = field(default_factory=dict)
    ends_s: list[float] = field(default_factory=list)  #: from SIGTERM to the worker's end

    def call(self, *arguments: str) -> str:
        return subprocess.run(
            [*PROGRAM, *arguments], env=self.hosts[0].env, check=True, stdout=subprocess.PIPE, text=True
        ).stdout

    def carry_on(self) -> None:
        """Start what has ended, wake what has stood still long enough."""
        for host in self.hosts:
            if host.stopped_until and monotonic() >= host.stopped_until:
                host.wake()
            if not host.up:
                host.start()

    def trouble(self) -> None:
        """One of the things that go wrong."""
        awake = [host for host in self.hosts if not host.stopped_until and host.up]
        if not awake:
            return
        host = self.rng.choice(awake)
        kind = self.rng.choices(list(TROUBLES), list(TROUBLES.values()))[0]
        runs = host.runs
        if kind in ("run killed", "run stopped") and not runs:
            return
        self.done[kind] = self.done.get(kind, 0) + 1
        match kind:
            case "host killed":
                for pid in (*runs, None):
                    host.signal(signal.SIGKILL, pid)
            case "worker killed":
                host.signal(signal.SIGKILL)
            case "run killed":
                host.signal(signal.SIGKILL, self.rng.choice(runs))
            case "host stopped" | "run stopped":
                for pid in (*runs, None) if kind == "host stopped" else runs:
                    host.signal(signal.SIGSTOP, pid)
                host.stopped_until = monotonic() + self.rng.uniform(5, 35)
            case "SIGTERM":
                self.end(host)
            case "database crashed":
                self.postgres.crash()
                self.postgres.wait()
            case "database away":
                self.postgres.stop("immediate")
                sleep(self.rng.uniform(0, 8))
                self.postgres.start()

    def end(self, host: Host) -> None:
        if host.stopped_until or host.process is None:
            return
        began = monotonic()
        host.signal(signal.SIGTERM)
        try:
            host.process.wait(30)
        except subprocess.TimeoutExpired:
            host.signal(signal.SIGKILL)
        self.ends_s.append(monotonic() - began)

    def sql(self, statement: str) -> str:
        return self.postgres.sql(statement, database=self.url.rpartition("/")[2])


def soak(seed: int, seconds: float, crew: list[Host], postgres: Postgres, api: ApiServer, folder: Path) -> list[str]:
    """What went wrong in one chaos; prints what was done."""
    rng, url = random.Random(seed), postgres.new_database()
    env = environment(
        api.url, ORCHESTRATOR_LEDGER=url, ORCHESTRATOR_LOG_DIR=str(folder / "logs"), ORCHESTRATOR_SETTLE_S="16"
    )
    for host in crew:
        host.env = env
    it = Soak(rng, postgres, api, folder, url, crew)
    api.set(job_s=(0.5, 3.0), create_s=(0.0, 0.4), answer_s=(0.0, 0.4), lose_call=0.02, lose_answer=0.02)
    names = [f"m{seed}-{number}" for number in range(MANIFESTS)]
    paths = [
        write_manifest(folder, [f"{name}-{n}" for n in range(FILES)], name=name, chunk_size=CHUNK) for name in names
    ]
    ticking = write_manifest(folder, [f"t{seed}"], name=f"ticks{seed}")
    ticking.write_text(ticking.read_text() + 'schedule: {cron: "* * * * *", timezone: UTC}\n')
    it.call("submit", *map(str, paths), str(ticking))
    began, first_tick = monotonic(), it.sql("SELECT next_at FROM schedules")
    while monotonic() - began < seconds:
        sleep(rng.uniform(1.0, 6.0))
        it.trouble()
        sleep(rng.uniform(0.2, 1.5))
        it.carry_on()
    api.set(lose_call=0.0, lose_answer=0.0)
    until = monotonic() + PATIENCE_S
    left = "?"
    while monotonic() < until and left != "0":
        it.carry_on()
        sleep(1.0)
        try:
            left = it.sql("SELECT count(*) FROM tasks WHERE asked > done OR worker_id IS NOT NULL")
        except subprocess.CalledProcessError:
            continue
    took = monotonic() - began
    asked, last_tick = it.sql("SELECT t.asked, s.last_at FROM tasks t JOIN schedules s ON s.name = t.name").split("|")
    for host in crew:
        host.wake()
        it.end(host)
    wanted = {f"{name}-{n}" for name in names for n in range(FILES)} | {f"t{seed}"}
    stats = api.stats()
    twice = [file_id for file_id in stats.twice if file_id in wanted]
    states = json.loads(it.call("status", "--json"))["manifests"]
    outcomes = sum(state["classified"] + state["unmatched"] for state in states)
    past = datetime.fromisoformat(last_tick) - datetime.fromisoformat(first_tick)
    ticks = round(past.total_seconds() / 60) + 1
    logs = [host.log.read_text() for host in crew]
    bugs = sum(log.count('"exit_code": 70') + log.count("Traceback") for log in logs)
    slowest = max(it.ends_s)
    checks = {
        f"{left} tasks were not carried out": left == "0",
        f"{len(wanted)} outcomes were wanted": outcomes == len(wanted),
        f"bought twice: {', '.join(twice)}": not twice,
        f"{bugs} signs of a bug (exit 70 or a traceback)": not bugs,
        "a worker ended too slowly": slowest <= 10,
        "a tick was carried on twice, or none": 1 <= int(asked) <= ticks,
    }
    wrong = [words for words, good in checks.items() if not good]
    print(
        f"seed {seed}: {took:.0f} s; {', '.join(f'{kind} {n}' for kind, n in sorted(it.done.items()))}; {outcomes} "
        f"outcomes, {len(twice)} bought twice; {asked} requests for {ticks} ticks; slowest end {slowest:.1f} s; "
        f"{'WRONG: ' + '; '.join(wrong) if wrong else 'GOOD'}",
        flush=True,
    )
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--hosts", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    given = parser.parse_args()
    where = programs()
    if where is None:
        print(MISSING)
        return 2
    wrong = []
    with running(where) as postgres, ApiServer() as api:
        for seed in given.seeds:
            folder = Path(tempfile.mkdtemp(prefix=f"soak-workers-{seed}-"))
            crew = [Host(number, {}, folder / f"host-{number}.log") for number in range(given.hosts)]
            try:
                wrong += soak(seed, given.seconds, crew, postgres, api, folder)
            finally:
                for host in crew:
                    host.signal(signal.SIGKILL)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
