"""The files that a task is made of, by their content: a host whose copy differs must not run it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from orchestrator.errors import InputError
from orchestrator.manifest.lists import STANDARD_INPUT
from orchestrator.manifest.loading import Manifest
from orchestrator.plaintext import safe


def copies(manifest: Manifest, *, lists: bool) -> dict[str, str]:
    """The absolute path of *manifest* -> its sha256; with *lists* those of its lists too. Raises InputError."""
    path = Path(manifest.path).absolute()
    if any(file_list.name == STANDARD_INPUT for file_list in manifest.lists):
        raise InputError(f"{safe(path)}: a worker has no standard input; name a file in `file_ids_from` instead of -")
    named = [path.parent / file_list.entry.text for file_list in manifest.lists] if lists else []
    return {str(name): _sha256(name) for name in (path, *named)}


def difference(wanted: Mapping[str, str], host: str) -> str | None:
    """Why this host can't run what was submitted, in words; None where every file is as it was."""
    for name, sha256 in wanted.items():
        try:
            here = _sha256(Path(name))
        except InputError as error:
            return f"{error} (on {host}); put it there, or submit the manifest from where it is"
        if here != sha256:
            return (
                f"{safe(name)} on {host} is not what was submitted (sha256 {here[:12]}, not {sha256[:12]}); "
                "bring the hosts' copies in line, or submit it again"
            )
    return None


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{safe(path)}: can't be read: {error.strerror}") from error
