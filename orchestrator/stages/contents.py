"""The contents of documents that the API has from an earlier ledger: which files are theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from orchestrator.api.files import Files
from orchestrator.ledger import Ledger
from orchestrator.ledger.documents import uploads
from orchestrator.models import RemoteFile, canonical_id

#: Contents asked about at once; the API's pace is kept by its limiter.
MOST_AT_ONCE = 32


async def recognized(
    files: Files, opened: Ledger, manifest_id: int, contents: Iterable[str], *, at: str
) -> dict[str, tuple[str, str]]:
    """Canonical file ID -> content, and the ID as the API spells it, of every file that the API has of *contents*.

    The latest of each is recorded. None counts as this ledger's own: nothing will delete it. Raises ApiError,
    LedgerError.
    """
    found: dict[str, tuple[str, str]] = {}
    waiting = iter(contents)

    async def look() -> None:
        for content in waiting:
            there: list[RemoteFile] = await files.of_external_id(content)
            found.update((canonical_id(file.id), (content, file.id)) for file in there)
            if there:
                with opened.transaction() as connection:
                    uploads.there(connection, manifest_id, content, there[-1].id, ours=False, at=at)

    await asyncio.gather(*(look() for _ in range(MOST_AT_ONCE)))
    return found
