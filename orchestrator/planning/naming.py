"""One name, one manifest: a second one of the name is refused, and a new name for a known one is told."""

from __future__ import annotations

import hashlib
from pathlib import Path

from orchestrator.errors import InputError
from orchestrator.ledger import Transaction
from orchestrator.ledger import scope as ledger_scope
from orchestrator.manifest.loading import Manifest
from orchestrator.plaintext import safe


def full_path(manifest: Manifest) -> str:
    """Where the manifest is, as the ledger writes it: a path need not be text."""
    return safe(Path(manifest.path).absolute())


def refuse_second(connection: Transaction, manifest: Manifest, *, rehearsal: bool) -> None:
    """Raises InputError when the ledger knows the name from another file that is still there and differs.

    Their files and rules would be mixed in all that the ledger says. A manifest that was moved goes on.
    """
    known = ledger_scope.known_path(connection, manifest.name, rehearsal=rehearsal)
    if known is None or known == full_path(manifest):
        return
    try:
        differs = hashlib.sha256(Path(known).read_bytes()).hexdigest() != manifest.sha256
    except (OSError, ValueError):
        return
    if differs:
        raise InputError(
            f"this ledger knows the name {manifest.name!r} from {known}, which is still there and differs from "
            f"{manifest.path}; give this one another `name` or another --ledger, or, if it takes the other's place, "
            "remove that file"
        )


def renamed_from(connection: Transaction, manifest: Manifest, *, rehearsal: bool) -> str | None:
    """The name under which the ledger knows this file, if it is another one and the present name is new."""
    if ledger_scope.known_path(connection, manifest.name, rehearsal=rehearsal) is not None:
        return None
    return ledger_scope.name_at(connection, full_path(manifest), rehearsal=rehearsal)
