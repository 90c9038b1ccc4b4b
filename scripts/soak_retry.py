"""The cost of sending files again, counted by an API server that is no part of the program.

Three nights on API v1: some of 1,000 files fail and are retried when the cause is gone; one file at fault among 600
sinks its job; every job fails. Prints one JSON object a night; exit 0 when each was what was promised.
"""

from __future__ import annotations

import json
import math
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.procs import ApiServer, environment, read_ledger, run, write_manifest

Night = dict[str, object]


def failing(folder: Path, server: ApiServer) -> Night:
    """Some of 1,000 files fail by a pattern; once it no longer applies, a retry sends just those."""
    file_ids, pattern = [f"file-{n:04}" for n in range(1000)], "[37]1$"
    manifest, env = write_manifest(folder, file_ids, chunk_size=100), environment(server.url)
    server.set(fails=pattern)
    first = run(manifest, env)
    outcomes = read_ledger(folder / "ledger.db").outcomes
    server.set(fails="")
    retry = run(manifest, env, command="retry")
    again = run(manifest, env, command="retry")
    expected = {file_id for file_id in file_ids if re.search(pattern, file_id)}
    created = Counter(server.stats().created)
    twice = {file_id for file_id, times in created.items() if times == 2}
    return {
        "files": len(outcomes),
        "failed": first.summary["failed"],
        "exit_codes": [first.code, retry.code, again.code],
        "created_twice": len(twice),
        "good": [first.code, retry.code, again.code] == [1, 0, 0]
        and first.summary["failed"] == len(expected)
        and twice == expected
        and set(created) == set(file_ids)
        and max(created.values()) == 2
        and again.summary["jobs_created"] == 0,
    }


def at_fault(folder: Path, server: ApiServer) -> Night:
    """One file among 600, in chunks of 100, ends its job in error."""
    file_ids = [f"file-{n:04}" for n in range(600)]
    manifest, env = write_manifest(folder, file_ids, chunk_size=100), environment(server.url)
    server.set(at_fault="file-0357")
    first = run(manifest, env)
    creates = server.stats().posts
    later = [run(manifest, env), run(manifest, env, "--retry-failed"), run(manifest, env, command="retry")]
    named = [file["file_id"] for file in first.summary["quarantined"]["first"]]
    return {
        "files": len(file_ids),
        "creates": creates,
        "extra_creates": creates - 6,
        "quarantined": named,
        "exit_codes": [ended.code for ended in (first, *later)],
        "creates_later": server.stats().posts - creates,
        "good": creates - 6 <= 2 * math.ceil(math.log2(100)) + 1
        and named == ["file-0357"]
        and (first.summary["classified"] + first.summary["unmatched"], first.summary["failed"]) == (599, 1)
        and {ended.code for ended in (first, *later)} == {1}
        and server.stats().posts == creates,
    }


def outage(folder: Path, server: ApiServer) -> Night:
    """Every job ends in error: nothing is halved, and a retry brings it all in when that is over."""
    file_ids = [f"file-{n:04}" for n in range(3000)]
    manifest, env = write_manifest(folder, file_ids, chunk_size=100), environment(server.url)
    server.set(at_fault=".")
    first = run(manifest, env)
    creates = server.stats().posts
    server.set(at_fault="")
    retry = run(manifest, env, command="retry")
    return {
        "files": len(file_ids),
        "creates": creates,
        "times_planned": round(creates / 30, 2),
        "exit_codes": [first.code, retry.code],
        "good": creates <= 1.2 * 30 and [first.code, retry.code] == [1, 0] and first.summary["failed"] == 3000,
    }


def nights() -> Iterator[Night]:
    each: tuple[Callable[[Path, ApiServer], Night], ...] = (failing, at_fault, outage)
    for night in each:
        with tempfile.TemporaryDirectory() as folder, ApiServer() as server:
            yield {"night": night.__name__, **night(Path(folder), server)}


def main() -> int:
    good = True
    for night in nights():
        print(json.dumps(night), flush=True)
        good = good and bool(night["good"])
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
