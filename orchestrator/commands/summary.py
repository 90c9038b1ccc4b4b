"""What a run came to: its counts, and the exit code that they stand for."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass

from orchestrator.errors import ExitCode, OrchestratorError, exit_code_of
from orchestrator.ledger.reading import Totals
from orchestrator.models import Json, Outcome


@dataclass(frozen=True, slots=True)
class Summary:
    """What ``run --json`` prints, and what the ledger keeps of a run."""

    manifest: str
    run_id: str
    rehearsal: bool
    files: int
    classified: int
    unmatched: int
    failed: int
    missing: int
    cancelled: int
    unfinished: int
    skipped: int
    duplicates: int
    jobs_created: int
    requests: int
    seconds: float
    exit_code: int
    reason: str
    types: dict[str, int]
    review: int
    adopted: int
    sent_again: int
    credits_ceiling: int | None  #: None: not known, because the configuration is kept on the server
    credits: float | None  #: billed to this run's jobs, as far as the API has told; None when it has not
    failed_files: list[dict[str, str]]  #: the first few
    quarantined: dict[str, Json]  #: ``files``: how many; ``first``: the first few of them
    second_opinions: dict[str, Json] | None  #: with ``escalate``: files, answered, mean confidence before and after
    changes: dict[str, Json]  #: of the manifest since the retried files were last sent: ``files``, ``fields``

    def as_json(self) -> dict[str, Json]:
        return asdict(self)


def verdict(
    totals: Totals, unfinished: int, error: OrchestratorError | None, left: Collection[str]
) -> tuple[ExitCode, str]:
    """The exit code and the one line that says why; *left*: why chunks were left to a later run or to a person."""
    code = exit_code_of(error, unfinished=bool(unfinished))
    if code is not None:
        return code, str(error)
    if unfinished:
        reasons = "; ".join(sorted(set(left))[:3])
        return ExitCode.UNFINISHED, reasons or "submitted; a later run collects the results"
    bad = sum(totals.outcomes[outcome] for outcome in (Outcome.FAILED, Outcome.MISSING, Outcome.CANCELLED))
    if bad:
        return ExitCode.SOME_FAILED, f"{bad} files failed, are missing or were cancelled"
    return ExitCode.OK, "every file has an outcome"
