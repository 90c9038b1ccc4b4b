"""The price told before a run, against what the API was then made to do: files sent, and the most that they cost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from orchestrator.errors import InputError
from orchestrator.ledger import Location
from orchestrator.manifest.loading import Manifest
from orchestrator.planning import preview, retry
from orchestrator.planning.ceiling import Line
from orchestrator.planning.options import Options
from simulation.world import World

#: Credits for a file with as many pages as are read.
PRICES = {"FAST": 5, "MULTIMODAL": 10}


def told(manifest: Manifest, path: Location, options: Options, *, now: datetime, stale_since: str = "") -> Line:
    """The sum that ``plan``, or ``retry --dry-run``, tells of a run with *options*; nothing where it is refused.

    *stale_since*: jobs in flight since before then never end; empty: no job counts as such.
    """
    try:
        if options.again is None:
            return preview.preview(manifest, path, rehearsal=False, now=now).ceiling.sum
        return retry.preview(manifest, path, options, now=now, stale_since=stale_since).ceiling.sum
    except InputError:
        return Line()


@contextmanager
def kept(world: World, most: Line) -> Iterator[None]:
    """What is bought while the block runs is no more, and no dearer, than *most*."""
    known = len(world.jobs)
    yield
    bought = [job for job in world.jobs[known:] if job.chunk_id is not None]
    files, price = sum(len(job.files) for job in bought), sum(PRICES[job.mode] * len(job.files) for job in bought)
    if files > most.files or price > (most.credits or 0):
        world.violated(f"told too little: {files} files for {price} credits were bought, and {most} were told")
