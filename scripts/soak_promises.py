"""The promises of the README as figures: each is tried with real processes against the sandbox, and judged.

Prints a line for each, ``ok`` or ``FAILED``; exit 0 when all held. What is bought is counted by the server's journal
and never by the program; what is right is what a run without faults got from the same server.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic, sleep

import httpx

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.procs import ORCHESTRATOR, ApiServer, Run, environment, read_ledger, run, wait_until, write_manifest

#: On every call: 5 % answered 500 to 504, 4 % lost after they had their effect, 2 % before, 1 % answered with garbage.
TROUBLE = ("http-5xx=0.05", "drop-after=0.04", "drop-before=0.02", "garbage=0.01")

#: files, files a create call. v2 takes one, and 40 calls a second: a thousand of them take half a minute.
SIZES = {"v1": (4000, 40), "v2": (800, 1)}
#: The same for runs that are to be killed while they send: more calls than twenty runs get through.
SIZES_WHEN_KILLED = {"v1": (8000, 8), "v2": (1000, 1)}

SETTLE = {"ORCHESTRATOR_SETTLE_S": "1", "ORCHESTRATOR_LATE_RESULTS_S": "5"}


@dataclass(frozen=True)
class Told:
    """One promise, tried."""

    held: bool
    promise: str
    figures: str

    def __str__(self) -> str:
        return f"{'ok' if self.held else 'FAILED':<7} {self.promise}: {self.figures}"


@dataclass(frozen=True)
class Sandbox:
    """``orchestrator sandbox``, running."""

    url: str

    def bought(self) -> Counter[str]:
        """File ID -> create calls that took effect for it."""
        entries = httpx.get(f"{self.url}/_sandbox/journal", trust_env=False).raise_for_status().json()["creates"]
        return Counter(file_id for entry in entries for file_id in entry["file_ids"])

    def twice(self) -> int:
        return sum(times > 1 for times in self.bought().values())


@contextmanager
def sandbox(*faults: str) -> Iterator[Sandbox]:
    """The sandbox as a process of its own, for as long as the block runs."""
    options = [argument for fault in faults for argument in ("--fault", fault)]
    command = [*ORCHESTRATOR, "sandbox", "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Sandbox(process.stdout.readline().strip())
        finally:
            process.terminate()


def night(folder: Path, api: str, size: tuple[int, int], name: str) -> tuple[Path, list[str]]:
    """A manifest, and its file IDs: the same ones in every folder."""
    count, chunk_size = size
    file_ids = [str(uuid.uuid5(uuid.NAMESPACE_OID, f"{api}-{number}")) for number in range(count)]
    folder = folder / name
    folder.mkdir()
    return write_manifest(folder, file_ids, api=api, chunk_size=chunk_size, name=name), file_ids


def has_begun(started: Run) -> bool:
    """Return whether *started* has work in flight or has ended."""
    return "run.planned" in started.log_so_far() or started.process.poll() is not None


def not_right(manifest: Path, right: dict[str, str | None]) -> int:
    """Files that have no outcome, or another one than they should."""
    outcomes = read_ledger(manifest.with_name("ledger.db")).outcomes
    return sum(outcomes.get(file_id, "lost") != label for file_id, label in right.items())


def under_faults(folder: Path, api: str) -> Told:
    """A bad network costs time, and neither files nor money."""
    calm_manifest, file_ids = night(folder, api, SIZES[api], f"{api}-calm")
    with sandbox() as server:
        calm = run(calm_manifest, environment(server.url, **SETTLE))
    right = dict(read_ledger(calm_manifest.with_name("ledger.db")).outcomes)
    manifest, _ = night(folder, api, SIZES[api], f"{api}-trouble")
    with sandbox(*TROUBLE) as server:
        trouble = run(manifest, environment(server.url, **SETTLE))
        twice, jobs = server.twice(), server.bought().total() // SIZES[api][1]
    wrong, ratio = not_right(manifest, right), trouble.seconds / calm.seconds
    held = (calm.code, trouble.code, len(right), wrong, twice) == (0, 0, len(file_ids), 0, 0) and ratio < 3
    told = trouble.summary
    return Told(
        held,
        f"{api}, 12 % of all calls in trouble",
        f"exit {trouble.code}, {len(file_ids)} files in {jobs} jobs, {wrong} lost or wrong, {twice} paid twice, "
        f"{told['adopted']} found again, {told['sent_again']} sent again; "
        f"{trouble.seconds:.1f} s, {calm.seconds:.1f} s without faults: {ratio:.1f} x (< 3)",
    )


def under_kills(folder: Path, api: str, rng: random.Random) -> Told:
    """Twenty runs killed at any instant, then one left alone."""
    manifest, file_ids = night(folder, api, SIZES_WHEN_KILLED[api], f"{api}-kills")
    kills = 0
    with sandbox() as server:
        env = environment(server.url, **SETTLE)
        for _ in range(20):
            started = Run(manifest, env)
            wait_until(partial(has_begun, started), what="a run to begin")
            sleep(rng.uniform(0.5, 1.6))
            kills += started.process.poll() is None
            started.kill()
        before = len(server.bought())
        last = run(manifest, env)
        twice, bought = server.twice(), len(server.bought())
    lost = len(file_ids) - len(read_ledger(manifest.with_name("ledger.db")).outcomes)
    return Told(
        (last.code, lost, twice, bought) == (0, 0, 0, len(file_ids)) and kills == 20,
        f"{api}, {kills} runs killed 0.5 to 1.6 s after they began to work, one left alone",
        f"exit {last.code}, {len(file_ids)} files, {before} of them bought by the killed runs, {lost} lost, "
        f"{twice} paid twice, {last.summary['adopted']} jobs found again, {last.seconds:.1f} s",
    )


def side_by_side(folder: Path, api: str) -> Told:
    """One manifest, one run; and a dead run holds nobody up."""
    manifest, _ = night(folder, api, SIZES[api], f"{api}-two")
    with sandbox() as server:
        env = environment(server.url, **SETTLE)
        start_s = run(Path("/nowhere.yaml"), env, cwd=Path("/")).seconds
        first = Run(manifest, env)
        wait_until(lambda: "job.submitted" in first.log_so_far(), what="the first run to work")
        second = run(manifest, env)
        named = f"pid {first.process.pid} " in second.summary["reason"]
        first.kill()
        third = Run(manifest, env)
        wait_until(partial(has_begun, third), what="the next run to begin")
        took_over_s = monotonic() - third.began
        took_over = third.process.poll() is None
        third.process.send_signal(signal.SIGTERM)
        code = third.ended().code
        twice = server.twice()
    held = second.code == 4 and named and second.seconds - start_s < 1 and took_over and took_over_s - start_s < 1
    return Told(
        held and (code, twice) == (3, 0),
        f"{api}, two runs at once",
        f"the second exits {second.code} after {second.seconds:.2f} s{' and names the first' if named else ''}; "
        f"after kill -9 of the first the next works after {took_over_s:.2f} s "
        f"(each with a start of {start_s:.2f} s); {twice} paid twice",
    )


def at_sigterm(folder: Path, api: str) -> Told:
    """SIGTERM ends a run in order, and the next run completes it."""
    manifest, file_ids = night(folder, api, SIZES[api], f"{api}-term")
    with sandbox() as server:
        env = environment(server.url, **SETTLE)
        started = Run(manifest, env)
        wait_until(lambda: started.log_so_far().count("job.submitted") >= 20, what="twenty jobs")
        began = monotonic()
        started.process.send_signal(signal.SIGTERM)
        ended = started.ended()
        took_s, before = monotonic() - began, len(server.bought())
        last = run(manifest, env)
        twice = server.twice()
    lost = len(file_ids) - len(read_ledger(manifest.with_name("ledger.db")).outcomes)
    held = (ended.code, last.code, lost, twice) == (3, 0, 0, 0) and took_s < 5 and before < len(file_ids)
    return Told(
        held,
        f"{api}, SIGTERM with {before} of {len(file_ids)} files sent",
        f"exit {ended.code} after {took_s:.1f} s (< 5); the next run: "
        f"exit {last.code}, {lost} lost, {twice} paid twice",
    )


def at_the_deadline(folder: Path, api: str) -> Told:
    """A job that does not end holds up nothing for longer than allowed, and is not bought again."""
    name = f"{api}-stuck"
    folder.joinpath(name).mkdir()
    manifest = write_manifest(folder / name, [f"f{number}" for number in range(40)], api=api, chunk_size=2, name=name)
    with ApiServer() as server:  # its jobs stick until the test releases them
        server.set(stuck="f7")
        first = run(manifest, environment(server.url, **SETTLE), "--deadline", "8s")
        left, posts = first.summary["unfinished"], server.stats().posts
        server.set(stuck="")
        second = run(manifest, environment(server.url, **SETTLE))
        sent_again, twice = server.stats().posts - posts, len(server.stats().twice)
    ran_s = first.summary["seconds"]
    held = (first.code, second.code, sent_again, twice) == (3, 0, 0, 0) and left > 0 and 8 <= ran_s < 9
    return Told(
        held,
        f"{api}, --deadline 8s and a job that does not end",
        f"exit {first.code} at {ran_s:.1f} s with {left} files left; a later run: exit {second.code}, "
        f"{sent_again} calls sent again, {twice} paid twice",
    )


def tried(apis: list[str], seed: int) -> Iterator[Told]:
    with tempfile.TemporaryDirectory() as folder:
        for api in apis:
            place = Path(folder)
            yield under_faults(place, api)
            yield under_kills(place, api, random.Random(seed))
            yield side_by_side(place, api)
            yield at_sigterm(place, api)
            yield at_the_deadline(place, api)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--api", choices=sorted(SIZES), help="only this version")
    options.add_argument("--seed", type=int, default=0, help="when the kills fall")
    given = options.parse_args()
    held = True
    for told in tried([given.api] if given.api else sorted(SIZES), given.seed):
        print(told, flush=True)
        held &= told.held
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
