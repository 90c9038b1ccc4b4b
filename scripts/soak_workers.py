"""Workers on two hosts on a quiet day: the cost of an idle one, and each tick of a schedule once whatever fails.

Measures a worker that has nothing to do, then keeps a schedule of a tick a minute: at the first tick a host is killed,
over the second the database is away, and after the third there has to have been one request for each.

Usage: scripts/soak workers [--idle 60] [--away 22]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from time import sleep, time

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.postgres import MISSING, Postgres, programs, running
from support.procs import ApiServer, environment, wait_until, write_manifest

PROGRAM = (sys.executable, "-m", "orchestrator")

#: Most of a core that a worker with nothing to do may use, in percent.
MOST_IDLE = 0.6

MINUTE_S = 60.0


def cpu_s(pid: int) -> float:
    """Processor time of the process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def on_the_roll(postgres: Postgres, database: str) -> int:
    """How many workers have entered themselves."""
    try:
        return int(postgres.sql("SELECT count(*) FROM workers", database=database))
    except subprocess.CalledProcessError:  # the first worker makes the table
        return 0


def until_tick(before_s: float = 0.0) -> None:
    """Sleep until *before_s* before the next full minute that is further off."""
    left = MINUTE_S - time() % MINUTE_S - before_s
    sleep(left if left > 0 else left + MINUTE_S)


def ticks(postgres: Postgres, database: str, hosts: list[subprocess.Popen[bytes]], away_s: float) -> dict[str, int]:
    """Three ticks: a host dies at the first, the database is away over the second, nothing happens at the third."""

    def count() -> tuple[int, int]:
        asked, done = postgres.sql("SELECT asked, done FROM tasks", database=database).split("|")
        return int(asked), int(done)

    def all_done() -> bool:
        asked, done = count()
        return asked == done > 0

    first = datetime.fromisoformat(postgres.sql("SELECT next_at FROM schedules", database=database))
    until_tick()
    hosts[0].kill()
    until_tick(before_s=away_s / 2)
    postgres.stop("immediate")
    sleep(away_s)
    postgres.start()
    until_tick()
    sleep(10)
    wait_until(all_done, what="the runs")
    last = datetime.fromisoformat(postgres.sql("SELECT last_at FROM schedules", database=database))
    due = round((last - first).total_seconds() / MINUTE_S) + 1
    runs = int(postgres.sql("SELECT count(*) FROM runs WHERE command = 'run'", database=database))
    asked, done = count()
    return {"due": due, "asked_for": asked, "carried_out": done, "runs": runs}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--idle", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--away", type=float, default=22.0, metavar="SECONDS")
    given = parser.parse_args()
    where = programs()
    if where is None:
        print(MISSING)
        return 2
    with tempfile.TemporaryDirectory() as name, running(where) as postgres, ApiServer() as api:
        folder, url = Path(name), postgres.new_database()
        env = environment(api.url, ORCHESTRATOR_LEDGER=url, ORCHESTRATOR_LOG_DIR=str(folder / "logs"))
        with (folder / "log").open("wb") as log:
            hosts = [subprocess.Popen([*PROGRAM, "work"], env=env, stderr=log) for _ in range(2)]
        try:
            database = url.rpartition("/")[2]
            wait_until(lambda: on_the_roll(postgres, database) == len(hosts), what="the workers")
            sleep(10)  # until all is loaded
            began = cpu_s(hosts[1].pid)
            sleep(given.idle)
            idle = 100 * (cpu_s(hosts[1].pid) - began) / given.idle
            manifest = write_manifest(folder, ["f1"], name="ticks")
            manifest.write_text(manifest.read_text() + 'schedule: {cron: "* * * * *", timezone: UTC}\n')
            subprocess.run([*PROGRAM, "submit", str(manifest)], env=env, check=True, stdout=subprocess.DEVNULL)
            found = ticks(postgres, database, hosts, given.away)
            twice = api.stats().twice
        finally:
            for host in hosts:
                host.kill()
    wrong = [
        *([f"an idle worker uses {idle:.2f} % of a core"] if idle > MOST_IDLE else []),
        *([f"not each tick once: {found}"] if not found["due"] == found["asked_for"] == found["carried_out"] else []),
        *(["bought twice"] if twice else []),
    ]
    print(json.dumps({"idle_percent_of_a_core": round(idle, 2), "ticks": found, "wrong": wrong}, indent=2))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
