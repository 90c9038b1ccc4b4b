"""The files that ``retry`` sends, with which changes to the manifest's config, at which ceiling."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime

from orchestrator import ledger
from orchestrator.errors import InputError, ManifestError, Problem
from orchestrator.ledger import Transaction
from orchestrator.ledger import scope as ledger_scope
from orchestrator.ledger.chunks import cutting, plan, retry
from orchestrator.ledger.chunks.cancel import select_stuck
from orchestrator.ledger.chunks.retry import Selection
from orchestrator.ledger.documents import names
from orchestrator.manifest.format import LANGUAGE, LANGUAGE_SAYS, wrong_language
from orchestrator.manifest.lists import FileList
from orchestrator.manifest.loading import Manifest
from orchestrator.manifest.nodes import Scalar, shown
from orchestrator.models import BAD, Config, Extent, Mode, Outcome, canonical_id
from orchestrator.planning import documents
from orchestrator.planning.ceiling import Ceiling
from orchestrator.planning.limits import files_per_chunk, over_limits
from orchestrator.planning.options import Options
from orchestrator.planning.plan import forecast

#: How many file IDs ``--dry-run`` shows.
MOST_SHOWN = 20


def selection(
    *,
    outcomes: Sequence[str] | None,
    types: Sequence[str] | None,
    below_confidence: float | None,
    file_ids: Collection[str] | None,
    run_id: str | None,
    error: str | None,
) -> Selection:
    """The files that the options name. Without any of them: what failed, is missing or was cancelled.

    A condition that good results can meet (type, confidence, file) is for all outcomes, unless some are named.
    Raises InputError.
    """
    if strange := [outcome for outcome in outcomes or () if outcome not in tuple(Outcome)]:
        raise InputError(f"--outcome {shown(strange[0])}: must be one of {', '.join(Outcome)}")
    named = tuple(Outcome(outcome) for outcome in outcomes or ())
    everything = bool(types or file_ids is not None or below_confidence is not None)
    return Selection(
        outcomes=named or (tuple(Outcome) if everything else BAD),
        types=tuple(types or ()),
        below_confidence=below_confidence,
        file_ids=None if file_ids is None else tuple(file_ids),
        run_id=run_id,
        error=error,
        other_rules=True,
    )


def listed(path: str) -> list[str]:
    """The file IDs in the list at *path*, in the formats of ``file_ids_from``. Raises ManifestError."""
    found = FileList("--file-from", Scalar(1, 1, path, plain=False))
    if problem := found.missing():
        raise ManifestError([Problem(path, 1, 1, problem.message)])
    problems: list[Problem] = []
    file_ids = list(found.file_ids(problems))
    if problems:
        raise ManifestError(problems)
    return file_ids


def overridden(manifest: Manifest, *, mode: str | None, lang: str | None, max_pages: int | None) -> Config | None:
    """The manifest's config with the options' changes; None without any. Raises InputError."""
    config = manifest.config
    if config.configuration_id is not None and (mode, lang, max_pages) != (None, None, None):
        raise InputError(f"{manifest.path}: configuration_id brings its own mode, language and pages; leave them out")
    if mode is not None:
        if mode not in tuple(Mode):
            raise InputError(f"--mode {shown(mode)}: must be {' or '.join(Mode)}")
        if mode == Mode.MULTIMODAL and manifest.api == "v2":
            raise InputError("--mode MULTIMODAL: only v1 has it; add --api v1")
        config = replace(config, mode=Mode(mode))
    if lang is not None:
        if not re.fullmatch(LANGUAGE, lang):
            raise InputError(f"--lang {shown(lang)}: {LANGUAGE_SAYS}")
        if problem := wrong_language(lang, manifest.api):
            raise InputError(f"--lang {problem}")
        config = replace(config, parsing_configuration=replace(config.parsing_configuration, lang=lang))
    if max_pages is not None:
        parsing = replace(config.parsing_configuration, max_pages=max_pages, target_pages=None)
        config = replace(config, parsing_configuration=parsing)
    return None if config == manifest.config else config


@dataclass(frozen=True, slots=True)
class RetryPreview:
    """``retry --dry-run``: what would be sent."""

    manifest: str
    rehearsal: bool
    files: int
    chunks: int
    free: int  #: of ``files``: reuses an existing parse
    credits_ceiling: int | None  #: None: not known, because the configuration is kept on the server
    over_limits: str | None
    file_ids: list[str]  #: the first of them
    names: dict[str, str]  #: what those of them are called that have a name
    changes: retry.Changes
    quarantined: retry.Quarantine
    cancelled_first: int  #: of ``files``: in jobs that never end, which are cancelled before
    ceiling: Ceiling  #: with what is cancelled first
    cannot_cancel: int  #: besides: files in such jobs of v1, which has no call to cancel: ``--held`` sends them
    extents: dict[str, Extent]  #: how long ``file_ids`` and ``quarantined`` are


def preview(
    manifest: Manifest, path: ledger.Location, options: Options, *, now: datetime, stale_since: str
) -> RetryPreview:
    """Work out what a retry with *options* would send; write nothing. Raises LedgerError, ManifestError, InputError."""
    if options.held:
        options = replace(options, stale_since=stale_since)
    with closing(ledger.open(path, read_only=True)) as opened:
        manifest, _ = documents.take(manifest, opened, write=False)
        return _preview(manifest, opened, options, now=now, stale_since=stale_since)


def _preview(
    manifest: Manifest, opened: ledger.Ledger, options: Options, *, now: datetime, stale_since: str
) -> RetryPreview:
    config = options.config or manifest.config
    chosen: list[str] = []
    with opened.transaction() as connection:
        ledger.refuse_moved(connection, opened.location)
        scope = ledger_scope.find_scope(connection, manifest.name, rehearsal=options.sandbox, config=manifest.config)
        cancelled, cannot_cancel = _stuck(connection, scope, manifest, options, since=stale_since)
        coming = forecast(
            connection,
            manifest,
            options,
            staged=plan.stage(connection, manifest.file_ids()),
            now=now,
            most_quarantined=MOST_SHOWN,
            freed=len(cancelled),
            take=lambda _: chosen.extend(cutting.chosen(connection, MOST_SHOWN)),
        )
        first = [*chosen, *cancelled][:MOST_SHOWN]
        named = _named(connection, coming.scope, first)
    found = coming.outlook
    files = found.files + len(cancelled)
    return RetryPreview(
        manifest=manifest.name,
        rehearsal=options.sandbox,
        files=files,
        chunks=math.ceil(files / files_per_chunk(manifest)),
        free=found.free,
        credits_ceiling=config.credits_ceiling(files - found.free),
        over_limits=over_limits(manifest, files, config.credits_ceiling(files), found.earlier),
        file_ids=first,
        names=named,
        changes=found.changes,
        quarantined=coming.quarantined,
        ceiling=coming.ceiling,
        cancelled_first=len(cancelled),
        cannot_cancel=0 if options.held else cannot_cancel,
        extents={"file_ids": Extent.of(first, files), "quarantined": coming.quarantined.extent},
    )


def _stuck(
    connection: Transaction, scope: ledger_scope.Scope, manifest: Manifest, options: Options, *, since: str
) -> tuple[list[str], int]:
    """The files in jobs that never end: those whose jobs are cancelled first, and how many others there are (v1)."""
    again, allowed = options.again or Selection(), retry.Allowed(manifest.limits.max_generations)
    listing = () if options.sandbox else manifest.file_ids()
    stuck = select_stuck(connection, scope, again, allowed, listing, since=since)
    cancelled = [job.file_id for job in stuck if job.api == "v2"]
    return cancelled, sum(job.files for job in stuck) - len(cancelled)


def _named(connection: Transaction, scope: ledger_scope.Scope, file_ids: Sequence[str]) -> dict[str, str]:
    """File ID as it is written -> the name that a list or folder gives the file, of those *file_ids* that have one."""
    known = names.of_files(connection, scope.manifest_id, file_ids)
    return {file_id: known[key] for file_id in file_ids if (key := canonical_id(file_id)) in known}
