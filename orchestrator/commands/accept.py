"""``orchestrator accept``: a person's verdict on files, which later runs respect."""

from __future__ import annotations

import getpass
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from orchestrator import ledger
from orchestrator.clock import Clock, timestamp
from orchestrator.commands.access import lock_name
from orchestrator.errors import ExitCode, InputError
from orchestrator.ledger import Transaction, runs
from orchestrator.ledger import scope as ledger_scope
from orchestrator.ledger.chunks import accept as ledger_accept
from orchestrator.manifest.loading import Manifest
from orchestrator.models import GOOD, Outcome, canonical_id
from orchestrator.plaintext import counted


@dataclass(frozen=True, slots=True)
class Signature:
    """The person who gives a verdict, and the reason; ``note`` may be empty."""

    by: str
    note: str = ""

    def words(self, done: str) -> str:
        """``accepted by a person: anna, looked at the scan``."""
        return f"{done} by a person: {', '.join(filter(None, (self.by, self.note)))}"


def login_name() -> str:
    """The user who is logged in; ``uid 1000`` for a user without a name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def accept(
    manifest: Manifest,
    path: ledger.Location,
    file_ids: Collection[str],
    *,
    label: str | None,
    unmatched: bool,
    rehearsal: bool,
    clock: Clock,
    signature: Signature | None = None,
) -> dict[str, str | None]:
    """File ID -> accepted type, for each of *file_ids*: *label*, none (*unmatched*), or what the API had said.

    A file may be in any state: its verdict counts, and what comes of it later is only recorded. All or nothing. Raises
    InputError for a file that the API has said nothing of where no verdict is given, or a type that no rule names.
    """
    types = [rule.type for rule in manifest.config.rules]
    if label is not None and types and label not in types:
        raise InputError(f"--type {label}: no rule of {manifest.path} names it; rules: {', '.join(types)}")
    signature = signature or Signature(login_name())
    accepted: dict[str, str | None] = {}
    with _verdicts(manifest, path, accepted, signature, clock, rehearsal=rehearsal) as (connection, scope, run_id, at):
        for file_id in file_ids:
            outcome, given = _standing(connection, scope, manifest, file_id)
            if outcome not in GOOD and label is None and not unmatched:
                state = f"is {outcome}: say --type, --unmatched or --dismiss" if outcome else _UNTOLD
                raise InputError(f"--file {file_id} {state}; nothing was recorded")
            accepted[file_id] = None if unmatched else label or given
            words = signature.words("accepted")
            ledger_accept.accept(connection, scope, file_id, accepted[file_id], run_id=run_id, at=at, words=words)
    return accepted


def dismiss(
    manifest: Manifest,
    path: ledger.Location,
    file_ids: Collection[str] | None,
    error: str | None,
    *,
    rehearsal: bool,
    clock: Clock,
    signature: Signature | None = None,
) -> list[str]:
    """Record "known, leave it" of failed files: *file_ids*, those whose error has the text *error*, or both conditions.

    Returns the files. All or nothing. Raises InputError for a file that has not failed, and where none is meant.
    """
    signature = signature or Signature(login_name())
    dismissed: dict[str, str | None] = {}
    with _verdicts(manifest, path, dismissed, signature, clock, rehearsal=rehearsal) as (connection, scope, run_id, at):
        failed = dict.fromkeys(ledger_accept.undecided(connection, scope, error))
        chosen = list(failed if file_ids is None else dict.fromkeys(map(canonical_id, file_ids)))
        for file_id in chosen:
            if file_id not in failed:
                outcome, _ = _standing(connection, scope, manifest, file_id)
                if outcome is None:
                    raise InputError(f"--file {file_id} {_UNTOLD}; nothing was recorded")
                why = "is dismissed already, or has another error" if outcome not in GOOD else f"is {outcome}"
                raise InputError(f"--file {file_id} {why}; nothing was recorded")
        if not chosen:
            raise InputError("no failed file matches; `orchestrator status` names the first ones")
        words = signature.words("dismissed")
        ledger_accept.dismiss(connection, scope, chosen, run_id=run_id, at=at, words=words)
        dismissed |= dict.fromkeys(chosen)
    return list(dismissed)


_UNTOLD = "has no outcome yet: say --type or --unmatched"


@contextmanager
def _verdicts(
    manifest: Manifest,
    path: ledger.Location,
    given: dict[str, str | None],
    signature: Signature,
    clock: Clock,
    *,
    rehearsal: bool,
) -> Iterator[tuple[Transaction, ledger_scope.Scope, str, str]]:
    """A transaction under the manifest's lock, in which the verdicts *given* are recorded: all of them, or none."""
    ledger.require(path)
    at = timestamp(clock.now())
    run_id = runs.new_id(clock.now())
    holder = {"command": "orchestrator accept", "since": at}
    with (
        ledger.lease(path, lock_name(manifest.name, rehearsal=rehearsal), holder) as lease,
        ledger.open(path, lease=lease) as opened,
        opened.transaction() as connection,
    ):
        scope = ledger_scope.find_scope(connection, manifest.name, rehearsal=rehearsal, config=manifest.config)
        if not scope.manifest_id or not scope.config_id:
            raise InputError(
                f"{path}: this ledger has no outcomes of manifest {manifest.name!r} under its current rules"
            )
        runs.begin(connection, run_id, scope.manifest_id, command="accept", api=ledger_accept.PERSON, at=at)
        yield connection, scope, run_id, at
        summary = {"reason": counted(len(given), "verdict"), "by": signature.by, "note": signature.note}
        runs.finish(connection, run_id, exit_code=int(ExitCode.OK), summary=summary, at=at)


def _standing(
    connection: Transaction, scope: ledger_scope.Scope, manifest: Manifest, file_id: str
) -> tuple[Outcome | None, str | None]:
    """The outcome and type that count for *file_id*; none where it has none yet. Raises InputError for a stranger."""
    found = ledger_accept.standing(connection, scope, file_id)
    if found is not None:
        return found
    is_known = ledger_accept.is_known(connection, scope, file_id)
    if not is_known and canonical_id(file_id) not in set(map(canonical_id, manifest.file_ids())):
        raise InputError(f"--file {file_id} is not a file of this manifest; nothing was recorded")
    return None, None
