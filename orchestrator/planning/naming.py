"""One name, one manifest: a second one of the name is refused, and a new name for a known one is reported."""

from __future__ import annotations

import filecmp
import hashlib
import os
from pathlib import Path

from orchestrator.errors import InputError
from orchestrator.ledger import Transaction
from orchestrator.ledger import scope as ledger_scope
from orchestrator.manifest.lists import STANDARD_INPUT
from orchestrator.manifest.loading import Manifest
from orchestrator.manifest.sources import resolved
from orchestrator.plaintext import safe, unsafe


def full_path(manifest: Manifest) -> str:
    """Where the manifest is, as the ledger writes it: a path need not be text."""
    path = Path(manifest.path).absolute()
    # ``..`` behind a link leads elsewhere than its spelling does.
    plain = Path(os.path.normpath(path))
    return safe(plain if plain.exists() and plain.samefile(path) else path)


def _as_file(written: str) -> Path:
    """The path that the ledger has *written*."""
    path = Path(written)
    return path if path.exists() else Path(unsafe(written))


def refuse_second(connection: Transaction, manifest: Manifest, *, rehearsal: bool) -> None:
    """Raises InputError when the ledger knows the name from another file that is still there and differs.

    It differs too when a list or folder that it names is another one beside it. Their files and rules would be mixed
    in all that the ledger says. A manifest that was moved goes on.
    """
    known = ledger_scope.known_path(connection, manifest.name, rehearsal=rehearsal)
    if known is None or known == full_path(manifest):
        return
    try:
        there = _as_file(known)
        same = hashlib.sha256(there.read_bytes()).hexdigest() == manifest.sha256
        other = _other_source(manifest, str(there)) if same else None
    except (OSError, ValueError):
        return
    if not same or other:
        how = f"differs from {manifest.path}" if not same else f"names another {other} than {manifest.path} does"
        raise InputError(
            f"this ledger knows the name {manifest.name!r} from {known}, which is still there and {how}; "
            "give this one another `name` or another --ledger, or, if it takes the other's place, remove that file"
        )


def _other_source(manifest: Manifest, known: str) -> str | None:
    """A list or a folder of documents that *manifest* and its copy at *known* both have, and not with the same content.

    Raises OSError, ValueError.
    """
    texts = [file_list.entry.text for file_list in manifest.lists if file_list.entry.text != STANDARD_INPUT]
    for name in texts:
        mine, theirs = (Path(each).absolute().parent / name for each in (manifest.path, known))
        if mine.is_file() and theirs.is_file() and not filecmp.cmp(mine, theirs, shallow=False):
            return safe(name)
    for place in manifest.sources.places if manifest.sources else ():
        theirs = Path(resolved(known, place.text))
        if theirs.exists() and theirs.resolve() != Path(place.path).resolve():
            return safe(place.text)
    return None


def renamed_from(connection: Transaction, manifest: Manifest, *, rehearsal: bool) -> str | None:
    """The name under which the ledger knows this file, if it is another one and the present name is new."""
    if ledger_scope.known_path(connection, manifest.name, rehearsal=rehearsal) is not None:
        return None
    return ledger_scope.name_at(connection, full_path(manifest), rehearsal=rehearsal)
