"""The options that a run was started with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.ledger.chunks import retry
from orchestrator.models import Config


@dataclass(frozen=True, slots=True)
class Options:
    """How this run differs from what manifest and settings say."""

    ledger: str | None = None
    base_url: str | None = None
    chunk_size: int | None = None
    deadline: str | None = None
    wait: bool = True
    sandbox: bool = False
    faults: Mapping[str, float | str] = field(default_factory=dict)
    command: str = "run"
    new: bool = True  #: send the files that were never submitted
    sample: int | None = None  #: of the new files only so many, chosen at random; the others stay new
    seed: int = 0  #: the same seed chooses the same sample of the same files
    again: retry.Selection | None = None  #: send these files once more
    good_before: str | None = None  #: of *again*, not what has a good result of this time or later
    reclassify: bool = False  #: this once, whatever ``limits.max_reclassify`` says
    held: bool = False  #: send also the chunks that are held for a person
    stale_since: str | None = None  #: send also the files of v1 jobs that have been in flight since before then
    known_ok: bool = False  #: failures that an earlier run has reported are no failure of this one
    create: bool = True  #: False: documents are uploaded, and no job is made
    metrics_file: str | None = None  #: the file for node_exporter
    config: Config | None = None  #: create the jobs of *again* with this instead of the manifest's own
