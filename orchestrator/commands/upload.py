"""Documents named one by one, uploaded without a manifest: each content once, and the IDs of their files."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator import ledger
from orchestrator.commands import run as command
from orchestrator.commands.access import ledger_path
from orchestrator.commands.run import Watcher
from orchestrator.documents.names import native
from orchestrator.errors import InputError
from orchestrator.ledger.chunks.retry import Selection
from orchestrator.ledger.documents import uploads
from orchestrator.ledger.views import reading
from orchestrator.ledger.views.reading import FailedFile
from orchestrator.manifest.loading import Manifest
from orchestrator.manifest.sources import BUCKETS, MAX_DOCUMENT_BYTES, Place, Sources
from orchestrator.models import Config, Limits, Review, Rule
from orchestrator.plaintext import safe
from orchestrator.planning.options import Options
from orchestrator.settings import Settings

#: The ledger's key for all that was uploaded without a manifest.
NAME = "uploads"

#: The ledger of such uploads, in the current folder, unless another one is named.
LEDGER = "uploads.db"


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """A document and the ID of its file; documents of the same content share one."""

    file_id: str
    name: str
    document: str  #: its path or URL


@dataclass(frozen=True, slots=True)
class Uploaded:
    """The result of `upload` for documents that are named on the command line."""

    run_id: str
    host: str  #: the API's, as the ledger names it
    documents: int
    contents: int  #: different ones
    uploaded: int  #: contents; the others were at the API already, or failed
    skipped: dict[str, int]  #: why something in a folder was passed over -> how often
    failed: int  #: contents that the API does not take
    failed_files: list[FailedFile]  #: the first few
    unfinished: int  #: contents that are left to another call
    reason: str
    files: list[UploadedFile]  #: by path


def manifest_of(names: Sequence[str]) -> Manifest:
    """A manifest of just the documents *names*: files whatever their type, folders, URLs of buckets.

    Raises InputError for one that is not there, or that the API can't take.
    """
    for name in names:
        if not name.startswith(BUCKETS):
            _check(name)
    path = str(Path.cwd() / NAME)
    places = [name if name.startswith(BUCKETS) else os.path.abspath(name) for name in names]  # noqa: PTH100 - a text
    sources = Sources(
        tuple(Place(path, text, 1, 1, literal=True) for text in places),
        settle_s=0.0,  # they are named, so they are ready
        allow_empty=True,
    )
    return Manifest(
        path=path,
        name=NAME,
        api="v2",  # nothing is created, so nothing of a ledger that was lost is bought again
        config=Config((Rule("document", "not classified"),)),
        project_id=None,
        organization_id=None,
        webhook_configurations=(),
        webhook_configuration_ids=(),
        chunk_size=1,
        review=Review(),
        limits=Limits(),
        sha256="",
        sources=sources,
    )


def _check(name: str) -> None:
    """Raises InputError unless *name* is a folder, or a file that can be uploaded."""
    try:
        status = Path(name).stat()
        readable = os.access(name, os.R_OK)
    except (OSError, ValueError) as error:
        raise InputError(f"{safe(name)}: {getattr(error, 'strerror', None) or 'no such name'}") from None
    if stat.S_ISDIR(status.st_mode):
        return
    why = None
    if not stat.S_ISREG(status.st_mode):
        why = "not a regular file"
    elif not readable:
        why = "can't be read"
    elif not status.st_size:
        why = "the file is empty"
    elif status.st_size > MAX_DOCUMENT_BYTES:
        why = "too large: the API takes 512 MB"
    if why:
        raise InputError(f"{safe(name)}: {why}; nothing was uploaded")


def upload(
    manifest: Manifest, settings: Settings, options: Options, *, watcher: Watcher | None
) -> tuple[Uploaded, int]:
    """Upload what *manifest*, one of ``manifest_of``, names, and what failed before once more; with the exit code.

    Raises OrchestratorError when nothing was begun.
    """
    options = replace(options, command="upload", create=False, again=Selection())
    summary = command.run(manifest, settings, options, watcher=watcher)
    with (
        closing(ledger.open(ledger_path(manifest.path, settings, options.ledger), read_only=True)) as opened,
        opened.transaction() as connection,
    ):
        rows = reading.manifests(connection, manifest.name, rehearsal=False)
        found = uploads.of_documents(connection, manifest.name, rows[0].id if rows else 0)
    files = [UploadedFile(file_id, native(path).rpartition("/")[2], native(path)) for path, file_id in found]
    taken = summary.documents
    uploaded = Uploaded(
        run_id=summary.run_id,
        host=summary.host,
        documents=taken.documents if taken else 0,
        contents=taken.contents if taken else 0,
        uploaded=summary.uploaded,
        skipped=taken.skipped if taken else {},
        failed=summary.failed,
        failed_files=summary.failed_files,
        unfinished=summary.unfinished,
        reason=summary.reason,
        files=files,
    )
    return uploaded, summary.exit_code
