"""What some APIs and people do besides: other spellings, jobs that are gone, limits."""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulation.home import Reader

#: Shorter than the program waits before it believes that a job is gone.
MOST_DENIED_S = 3000.0
#: A UUID in the form in which the API types it, but for the last digits.
UUID = "182bd5e5-6e1a-4fe4-a799-aa6d9a6ab2"


def plain(file_id: str) -> str:
    """The form in which the judge compares IDs: a UUID in lower case and alone; no other has capitals."""
    return file_id.lower().removeprefix("dfl-")


def spelt(file_id: str, how: str) -> str:
    """*file_id* in one of the spellings that are seen in the wild."""
    bare = plain(file_id)
    return {"bare": bare, "upper": bare.upper(), "dfl": f"dfl-{bare}", "dfl upper": f"dfl-{bare.upper()}"}[how]


SPELLINGS = ("bare", "upper", "dfl", "dfl upper")


@dataclass(frozen=True, slots=True)
class Custom:
    """Of one episode."""

    spelling: str = ""  #: how the API spells files, whichever way they were sent; empty: files are no UUIDs
    gone: float = 0.0  #: chance a night of a job in flight that the API has no longer from then on
    denied: float = 0.0  #: chance a night of a job in flight that the API denies for some time
    most_changed: int | None = None  #: ``limits.max_reclassify``

    @classmethod
    def draw(cls, api: str, seed: int) -> Custom:
        """Of some seeds; those of the others are the episodes that they were before there were customs."""
        if seed % 7 != 5 or seed % 5 == 0:
            return cls()
        rng = random.Random(f"custom {api} {seed}")
        return cls(
            spelling=rng.choice(("", *SPELLINGS)),
            gone=rng.choice((0.0, 0.5)),
            denied=rng.choice((0.0, 0.5)),
            most_changed=rng.choice((None, 0, 2)),
        )

    def listed(self, file_ids: list[str], rng: random.Random) -> tuple[str, ...]:
        """*file_ids* as a person lists them tonight: each in any spelling, and one of them twice."""
        if not self.spelling:
            return tuple(file_ids)
        twice = [*file_ids, rng.choice(file_ids)]
        return tuple(spelt(file_id, rng.choice(SPELLINGS)) for file_id in twice)

    def answered(self, file_id: str) -> str:
        """*file_id* as the API tells it."""
        return spelt(file_id, self.spelling) if file_id.startswith(UUID) else file_id


def in_flight(reader: Reader) -> tuple[list[str], list[str]]:
    """The jobs that the ledger knows: those in flight, and those that have ended."""
    rows = reader.execute("SELECT job_id, finished_at FROM jobs WHERE job_id IS NOT NULL ORDER BY id").fetchall()
    return [job for job, ended in rows if ended is None], [job for job, ended in rows if ended is not None]


def until(rng: random.Random, custom: Custom, now: float) -> float | None:
    """When the API has a job again that it has had until *now*; None: it still has."""
    if rng.random() < custom.gone:
        return math.inf
    return now + rng.uniform(0, MOST_DENIED_S) if rng.random() < custom.denied else None


def changed(reader: Reader, file_ids: list[str], rules: str) -> tuple[int, int]:
    """Of *file_ids*, those with an outcome under other rules only: that were never planned under these, and all."""
    wanted = [[rule["type"], rule["description"]] for rule in json.loads(rules)]
    there, planned, elsewhere = set[str](), set[str](), set[str]()
    for file_id, canonical, outcome in reader.execute(
        "SELECT f.file_id, c.canonical, r.outcome FROM files f JOIN jobs j ON j.id = f.chunk_id "
        "JOIN configs c ON c.id = f.config_id LEFT JOIN results r ON r.file_row = f.id"
    ):
        if json.loads(canonical)["rules"] != wanted:
            elsewhere |= {file_id} if outcome else set()
        else:
            planned.add(file_id)
            there |= {file_id} if outcome else set()
    all_ = (elsewhere & set(file_ids)) - there
    return len(all_ - planned), len(all_)
