"""``orchestrator accept``: a person's verdict on a file, which later runs respect."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orchestrator import ledger
from orchestrator.clock import SystemClock, timestamp
from orchestrator.commands.access import lock_name
from orchestrator.errors import ExitCode, InputError
from orchestrator.ledger import accept as ledger_accept
from orchestrator.ledger import runs
from orchestrator.ledger import scope as ledger_scope
from orchestrator.manifest.loading import Manifest
from orchestrator.models import GOOD
from orchestrator.plaintext import counted


def accept(
    manifest: Manifest, path: Path, file_ids: Sequence[str], *, label: str | None, unmatched: bool, rehearsal: bool
) -> dict[str, str | None]:
    """File ID -> accepted type, for each of *file_ids*: *label*, none (*unmatched*), or what the API had said.

    All or nothing. Raises InputError for a file without an outcome, or a type that no rule names.
    """
    ledger.require(path)
    types = [rule.type for rule in manifest.config.rules]
    if label is not None and types and label not in types:
        raise InputError(f"--type {label}: no rule of {manifest.path} names it; rules: {', '.join(types)}")
    clock = SystemClock()
    at = timestamp(clock.now())
    run_id = runs.new_id(clock.now())
    accepted: dict[str, str | None] = {}
    holder = {"command": "orchestrator accept", "since": at}
    with (
        ledger.lease(path, lock_name(manifest, rehearsal=rehearsal), holder) as lease,
        ledger.open(path, lease=lease) as opened,
        opened.transaction() as connection,
    ):
        scope = ledger_scope.find_scope(connection, manifest.name, rehearsal=rehearsal, config=manifest.config)
        if not scope.manifest_id or not scope.config_id:
            raise InputError(
                f"{path}: this ledger has no outcomes of manifest {manifest.name!r} under its current rules"
            )
        runs.begin(connection, run_id, scope.manifest_id, command="accept", api=ledger_accept.PERSON, at=at)
        for file_id in file_ids:
            found = ledger_accept.standing(connection, scope, file_id)
            if found is None:
                raise InputError(f"--file {file_id}: no outcome yet; nothing was recorded")
            outcome, given = found
            if outcome not in GOOD and label is None and not unmatched:
                raise InputError(f"--file {file_id} is {outcome}: say --type or --unmatched; nothing was recorded")
            accepted[file_id] = None if unmatched else label or given
            ledger_accept.accept(connection, scope, file_id, accepted[file_id], run_id=run_id, at=at)
        runs.finish(
            connection, run_id, exit_code=int(ExitCode.OK), summary={"reason": counted(len(accepted), "verdict")}, at=at
        )
    return accepted
