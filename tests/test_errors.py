"""From the reason that ended a run early to its exit code."""

from __future__ import annotations

import pytest

from orchestrator.errors import (
    Ambiguous,
    ContractBroken,
    ExitCode,
    InputError,
    Interrupted,
    LedgerError,
    LockHeld,
    NotSent,
    OrchestratorError,
    OutOfCredits,
    Throttled,
    Unauthorized,
    Unreachable,
    exit_code_of,
)

#: error, exit code with work left, exit code with none left
CODES: tuple[tuple[OrchestratorError | None, ExitCode | None, ExitCode | None], ...] = (
    (None, None, None),
    (Interrupted("SIGTERM"), ExitCode.UNFINISHED, None),
    (Unauthorized("401"), ExitCode.UNAUTHORIZED, None),
    (OutOfCredits("402"), ExitCode.OUT_OF_CREDITS, None),
    (Unreachable("no answer"), ExitCode.UNREACHABLE, None),
    (ContractBroken("a redirect"), ExitCode.CONTRACT, None),
    (NotSent("no connection"), ExitCode.UNREACHABLE, ExitCode.UNREACHABLE),
    (Throttled("429"), ExitCode.UNREACHABLE, ExitCode.UNREACHABLE),
    (Ambiguous("cut"), ExitCode.UNREACHABLE, ExitCode.UNREACHABLE),
    (LedgerError("disk full"), ExitCode.LEDGER, ExitCode.LEDGER),
    (LockHeld("another run"), ExitCode.LOCKED, ExitCode.LOCKED),
    (InputError("a typo"), ExitCode.USAGE, ExitCode.USAGE),
)


@pytest.mark.parametrize(("error", "left", "done"), CODES, ids=lambda value: type(value).__name__)
def test_what_stopped_the_sending_counts_only_while_work_is_left(
    error: OrchestratorError | None, left: ExitCode | None, done: ExitCode | None
) -> None:
    """A run that finished all its work in spite of the error is judged by its outcomes; a broken ledger never is."""
    assert exit_code_of(error, unfinished=True) is left
    assert exit_code_of(error, unfinished=False) is done
