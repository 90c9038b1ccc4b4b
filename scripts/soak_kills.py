"""kill -9 at random instants, over and over, against a real server, a real disk and real sockets.

A night's manifest is run until it is complete; each run is killed after a random time, those that recover from a kill
too. With --retry an undisturbed run comes first, in which half of the files fail, and the kills fall on retries. After
every kill the ledger must be sound and must know of every job that the server made; after every night each file must
have one outcome, the right one, and one job, or two where it had failed. Prints one JSON object; exit 0 when all of
that held. With --postgres the ledger is in a PostgreSQL that is started for it.

Children are forked from a parent that has already imported the program: a thousand kills then cost minutes, and they
fall on its work rather than on its imports.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.api_server import answer_to
from support.postgres import MISSING, programs, running
from support.procs import PATIENCE_S, ApiServer, LedgerState, Stats, environment, read_ledger, write_manifest

from orchestrator import cli
from orchestrator.cli.screens import summary  # noqa: F401 - for the children
from orchestrator.errors import ExitCode

#: A run recovers for two settle times before it sends a lost call again. Short, so that kills fall on all of its work.
HURRY = {
    "ORCHESTRATOR_SETTLE_S": "0.15",
    "ORCHESTRATOR_LATE_RESULTS_S": "5",
    "ORCHESTRATOR_CREATES_PER_S": "200",
    "ORCHESTRATOR_LISTS_PER_S": "50",
}

FILES_A_NIGHT = {"v1": 240, "v2": 60}

#: With --retry: the files that fail at first.
FAIL = "[02468]$"

#: Calls that the network loses besides. On v1 a call that is lost twice waits for a person: a kill is enough there.
LOSSES = {"v1": {"lose_answer": 0.01}, "v2": {"lose_answer": 0.02, "lose_call": 0.02}}


def child(command: str, manifest: Path, log: Path) -> int:
    """Start a run or a retry in a forked child; its process id."""
    pid = os.fork()
    if pid == 0:
        _become(command, manifest, log)
    return pid


def _become(command: str, manifest: Path, log: Path) -> NoReturn:
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        sys.argv = ["orchestrator", command, str(manifest), "--json"]
        cli.main()
    except SystemExit as end:
        os._exit(int(end.code or 0))
    finally:
        os._exit(99)


def code_of(pid: int, kill_after_s: float, under_way: Callable[[], bool] = lambda: True) -> int | None:
    """Wait for *pid*, killing it some time after it was *under_way*; its exit code, None when it was killed."""
    until: float | None = None
    while until is None or time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if until is None and under_way():
            until = time.monotonic() + kill_after_s
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def send_blindly(ledger: Path) -> None:
    """The control: what most programs do after a crash with calls that were never answered."""
    with closing(sqlite3.connect(ledger)) as connection, connection:
        connection.execute("UPDATE jobs SET status = 'pending' WHERE status = 'submitting'")


class Soak:
    """Nights of work, killed until enough kills were made."""

    def __init__(
        self, api: str, seed: int, folder: Path, server: ApiServer, ledger: str | Path, *, naive: bool, retry: bool
    ) -> None:
        self.api = api
        self.ledger = ledger
        self.command = "retry" if retry else "run"
        self.due: Counter[str] = Counter()  #: how often each file is to be bought
        self.naive = naive
        self.rng = random.Random(seed)
        self.folder = folder
        self.server = server
        self.tally: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.most_open = 0

    def run(self, kills: int) -> None:
        night = 0
        while self.tally["kills"] < kills and not self.wrong:
            night += 1
            self._night(night, kills)
        self.tally["nights"] = night

    def _night(self, number: int, kills: int) -> None:
        file_ids = [f"n{number}-f{i}" for i in range(FILES_A_NIGHT[self.api])]
        manifest = write_manifest(self.folder, file_ids, api=self.api, chunk_size=8, name=f"night{number}")
        log = self.folder / "log"
        self.due.update(file_ids)
        if self.command == "retry":
            self.due.update(self._fail_some(manifest, log))
        while self.tally["kills"] < kills and not self.wrong:
            code = self._killed_at_random(manifest, log)
            if code is None:
                self.tally["kills"] += 1
                state = read_ledger(self.ledger)
                self._check_after_a_kill(state)
                if self.naive and state.chunks:
                    send_blindly(self.folder / "ledger.db")
            elif code == 0 or read_ledger(self.ledger).held:
                break
            elif code == ExitCode.LOCKED and isinstance(self.ledger, str):
                self.tally["too_early"] += 1  # a server may take a moment to notice that the killed run has gone
            else:
                self._complain(f"a run that was not killed ended with {code}")
        if self.wrong:
            return
        code = code_of(child(self.command, manifest, log), PATIENCE_S)
        self._check_the_night(file_ids, read_ledger(self.ledger), code)

    def _fail_some(self, manifest: Path, log: Path) -> list[str]:
        """Carry out an undisturbed run in which many files fail, for a reason that is gone afterwards; those files."""
        self.server.set(fails=FAIL)
        code = code_of(child("run", manifest, log), PATIENCE_S)
        self.server.set(fails="")
        outcomes = read_ledger(self.ledger).outcomes
        failed = [f for f in outcomes if f.startswith(f"{manifest.stem.replace('night', 'n')}-") and re.search(FAIL, f)]
        if code != 1:
            self._complain(f"the run before the retries ended with {code}")
        self.tally["failed_files"] += len(failed)
        return failed

    def _killed_at_random(self, manifest: Path, log: Path) -> int | None:
        """A third of the kills falls on create calls, however slow the machine is; the others fall anywhere.

        Those of the control all do: it shows what it has to at the first calls that are sent again.
        """
        began = self.server.stats().posts
        pid = child(self.command, manifest, log)
        if self.naive or self.rng.random() < 1 / 3:
            return code_of(pid, self.rng.uniform(0.0, 0.3), lambda: self.server.stats().posts > began)
        return code_of(pid, self.rng.uniform(0.0, self.rng.choice((0.4, 1.6))))

    def _check_after_a_kill(self, state: LedgerState) -> None:
        if state.integrity != "ok":
            self._complain(f"integrity_check says {state.integrity}")
        stats = self.server.stats()
        self._check_the_bill(stats)
        if unknown := stats.created.keys() - state.intents:
            self._complain(f"the server made jobs that the ledger had no intent for: {sorted(unknown)[:5]}")
        unanswered = state.chunks.get("submitting", 0)
        self.most_open = max(self.most_open, unanswered)
        self.tally["kills_with_open_intents"] += unanswered > 0

    def _check_the_night(self, file_ids: list[str], state: LedgerState, code: int | None) -> None:
        """After an undisturbed run. What is held for a person was never bought, and such a run is unfinished."""
        stats, held = self.server.stats(), state.held.intersection(file_ids)
        self.tally["held_files"] += len(held)
        if code != (3 if held else 0):
            self._complain(f"the last, undisturbed run {'did not end' if code is None else f'ended with {code}'}")
        self._check_the_bill(stats)
        if bought := {f for f in held if stats.created.get(f, 0) == self.due[f]}:
            self._complain(f"held although their job exists: {sorted(bought)[:5]}")
        lost = [f for f in file_ids if f not in held and state.outcomes.get(f, "lost") != answer_to(f)["type"]]
        if lost:
            self._complain(f"{len(lost)} files without their outcome: {lost[:5]}")
        if state.open - state.held:
            self._complain(f"chunks left open: {dict(state.chunks)}")

    def _check_the_bill(self, stats: Stats) -> None:
        if too_often := self.too_often(stats):
            self._complain(f"created too often: {too_often[:5]}")

    def too_often(self, stats: Stats) -> list[str]:
        """The files that were bought more often than they were to be: once, or once more where they had failed."""
        return [file_id for file_id, times in stats.created.items() if times > self.due[file_id]]

    def _complain(self, what: str) -> None:
        self.wrong.append(f"after {self.tally['kills']} kills: {what}")


def count_events(log: Path) -> Counter[str]:
    """How often the runs logged each way of settling an unanswered call."""
    text = log.read_text(errors="replace") if log.exists() else ""
    return Counter({name: text.count(f'"{name}"') for name in ("job.adopted", "create.absent", "create.held")})


def soak(api: str, kills: int, seed: int, postgres: Path | None, *, naive: bool, retry: bool) -> dict[str, object]:
    began = time.monotonic()
    database = nullcontext() if postgres is None else running(postgres)
    with tempfile.TemporaryDirectory() as folder, ApiServer() as server, database as ledgers:
        ledger: str | Path = Path(folder) / "ledger.db" if ledgers is None else ledgers.new_database()
        os.environ.clear()
        os.environ.update(environment(server.url, **HURRY, ORCHESTRATOR_LEDGER=str(ledger)))
        slow = retry or naive  # so that most kills fall while calls are out
        server.set(job_s=[0.05, 0.2], answer_s=[0.0, 0.4 if slow else 0.05], **LOSSES[api])
        work = Soak(api, seed, Path(folder), server, ledger, naive=naive, retry=retry)
        work.run(kills)
        events = count_events(Path(folder) / "log")
        stats = server.stats()
        keep = Path(folder, "log").read_text(errors="replace").splitlines()[-40:] if work.wrong else []
    for line in keep:
        print(line[:600], file=sys.stderr)
    return {
        "api": api,
        "command": work.command,
        "ledger": "SQLite" if postgres is None else "PostgreSQL",
        "seed": seed,
        **work.tally,
        "most_open_intents": work.most_open,
        **dict(sorted(events.items())),
        "files": len(stats.created),
        "created_too_often": len(work.too_often(stats)),
        "wrong": work.wrong,
        "seconds": round(time.monotonic() - began, 1),
    }


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--kills", type=int, default=1000)
    options.add_argument("--api", choices=sorted(FILES_A_NIGHT), default="v1")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--naive", action="store_true", help="control: send lost calls again blindly; has to fail")
    options.add_argument("--retry", action="store_true", help="kill `retry` of files that failed, instead of `run`")
    options.add_argument("--postgres", action="store_true", help="the ledger on a real server")
    given = options.parse_args()
    where = programs() if given.postgres else None
    if given.postgres and (where is None or given.naive):
        options.error(MISSING if where is None else "--naive goes with a ledger in a file")
    found = soak(given.api, given.kills, given.seed, where, naive=given.naive, retry=given.retry)
    print(json.dumps(found))
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
