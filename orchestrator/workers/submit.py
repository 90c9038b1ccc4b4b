"""``orchestrator submit``: have manifests carried out by whichever worker has a free slot, once or on a schedule."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from orchestrator import ledger
from orchestrator import settings as settings_
from orchestrator.errors import ManifestError, Problem
from orchestrator.ledger.workers import schedules, schema, tasks
from orchestrator.manifest.loading import Manifest
from orchestrator.workers import cron
from orchestrator.workers.copies import copies


@dataclass(frozen=True, slots=True)
class Submitted:
    """The result of submitting one manifest."""

    manifest: str
    path: str
    asked: bool  #: a worker carries it out now
    next_at: datetime | None  #: by its schedule
    zone: str | None


@dataclass(frozen=True, slots=True)
class Submission:
    """The manifests that were submitted together."""

    ledger: str
    submitted: list[Submitted]


def submit(
    server: ledger.Server, manifests: list[Manifest], *, now: bool, lists: bool, deadline: str | None
) -> list[Submitted]:
    """Submit each of *manifests*, all or none. One with a schedule is carried out at its times, with *now* at once too.

    With *lists* the lists must be on the worker as they are here. Raises InputError and LedgerError.
    """
    if deadline is not None:
        settings_.seconds(deadline, "--deadline")
    found = [(manifest, copies(manifest, lists=lists)) for manifest in manifests]
    for manifest in manifests:
        if manifest.schedule is not None and (why := cron.wrong(manifest.schedule.cron)):
            raise ManifestError([Problem(manifest.path, manifest.schedule.line, 1, f"schedule.cron: {why}")])
    done = []
    with ledger.session(server, "orchestrator submit") as session, session.transaction() as connection:
        schema.prepare(connection)
        at = schedules.now(connection)
        for manifest, wanted in found:
            name, path, schedule = manifest.name, str(Path(manifest.path).absolute()), manifest.schedule
            tasks.submit(connection, name, path, wanted, deadline)
            next_at = None
            if schedule is None:
                schedules.drop(connection, name)
            else:
                next_at = cron.following(schedule.cron, schedule.zone, at)
                schedules.keep(connection, name, schedule.cron, schedule.zone, next_at)
            asked = now or schedule is None
            if asked:
                tasks.ask(connection, name)
            done.append(Submitted(name, path, asked, next_at, schedule.zone if schedule else None))
    return done


def local(at: datetime, zone: str) -> str:
    """*at* as the clocks of *zone* show it."""
    return f"{at.astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M} {zone}"
