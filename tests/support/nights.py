"""A ledger as many nights leave it: three types, failures with causes, a review list, quarantine, held, drift."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from orchestrator.ledger import Transaction, billing, jobs, runs
from orchestrator.ledger import scope as ledger_scope
from orchestrator.ledger.chunks import cutting
from orchestrator.ledger.chunks import plan as planning
from orchestrator.ledger.chunks.retry import QUARANTINED
from orchestrator.ledger.scope import Scope
from orchestrator.ledger.views import reading
from orchestrator.models import Config, FileResult, JobStatus, Json, Outcome, Review, Rule

RULES = Config(
    (
        Rule("invoice", "contains an invoice number, line items and a total amount"),
        Rule("receipt", "is the proof of a payment, with a merchant name and a total"),
        Rule("delivery note", "lists goods that were handed over, without any prices"),
    )
)

USUAL = {"invoice": 0.6, "receipt": 0.25, "delivery note": 0.1, "": 0.05}
DRIFTED = {"invoice": 0.3, "receipt": 0.25, "delivery note": 0.1, "": 0.35}

CAUSES = ("the file is encrypted", "Page 7 could not be rendered (request 81-{n})", "unsupported file type: .msg")

FIRST = datetime(2026, 11, 1, 2, 0, tzinfo=UTC)


def text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")


@dataclass
class Nights:
    """Nights in a ledger, one ``night`` after the other; the same seed tells the same."""

    connection: Transaction
    config: Config = RULES
    seed: int = 7
    name: str = "nightly-invoices"
    below_confidence: float = 0.6

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.scope: Scope = ledger_scope.register(
            self.connection,
            self.name,
            rehearsal=False,
            origin="https://api.cloud.llamaindex.ai",
            project_id=None,
            config=self.config,
            review=Review(self.below_confidence),
            max_generations=3,
            path=f"/srv/classify/{self.name}.yaml",
            sha256="0",
        )
        ledger_scope.keep_settings(
            self.connection,
            self.scope.manifest_id,
            {"chunk_size": 10, "limits": {"max_files": 50_000, "max_credits": None}, "drift": {"alert": 0.1}},
        )
        self.number = 0
        self.latest = ""
        self.file_ids: list[str] = []

    def night(
        self,
        files: int,
        *,
        shares: dict[str, float] = USUAL,
        failed: float = 0.02,
        sureness: float = 0.9,
        size: int = 10,
        ended: bool = True,
        billed: bool = True,
    ) -> str:
        """One run over so many new files; its id. Without *ended* it was killed after all of them had a result."""
        began = FIRST + timedelta(days=self.number)
        run_id = f"{began:%Y%m%dT%H%M%SZ}-{self.number:06x}"
        self.number += 1
        self.latest = run_id
        new = [f"night-{self.number}-{n}" for n in range(files)]
        self.file_ids += new
        planning.stage(self.connection, new)
        runs.begin(self.connection, run_id, self.scope.manifest_id, command="run", api="v1", at=text(began))
        planning.select_new(self.connection, self.scope)
        first = cutting.last_chunk(self.connection) + 1
        chunks = cutting.cut(
            self.connection,
            self.scope,
            chunk_size=size,
            job_config_id=self.scope.config_id,
            api="v1",
            run_id=run_id,
            at=text(began),
        )
        last = began
        for n, chunk_id in enumerate(range(first, first + chunks)):
            sent = began + timedelta(seconds=1 + n * 5)
            last = max(last, self._end(chunk_id, sent, shares, failed, sureness, billed=billed))
        if ended:
            self.finish(run_id, began, last + timedelta(seconds=2), chunks, requests=6 * chunks + 4, billed=billed)
        return run_id

    def quarantine(self, chunk_id: int) -> str:
        """Say that the first failed file of the chunk sank its job; its ID."""
        file_id = next(iter(jobs.file_rows(self.connection, chunk_id)))
        jobs.note(self.connection, chunk_id, QUARANTINED, file_id, at=text(FIRST))
        return file_id

    def hold(self, files: int) -> None:
        """Leave a chunk of so many new files whose create call nobody can judge."""
        began = FIRST + timedelta(days=self.number, minutes=-5)
        new = [f"held-{self.number}-{n}" for n in range(files)]
        planning.stage(self.connection, new)
        planning.select_new(self.connection, self.scope)
        cutting.cut(
            self.connection,
            self.scope,
            chunk_size=files,
            job_config_id=self.scope.config_id,
            api="v1",
            run_id=self.latest,
            at=text(began),
        )
        chunk_id = cutting.last_chunk(self.connection)
        jobs.intend(self.connection, [chunk_id], mark=None, at=text(began))
        jobs.hold(self.connection, chunk_id, "two jobs at the API may be this one", at=text(began))

    def _end(
        self, chunk_id: int, sent: datetime, shares: dict[str, float], failed: float, sureness: float, *, billed: bool
    ) -> datetime:
        jobs.intend(self.connection, [chunk_id], mark=None, at=text(sent))
        jobs.submitted(self.connection, chunk_id, f"job-{chunk_id}", at=text(sent + timedelta(seconds=1)))
        rows = jobs.file_rows(self.connection, chunk_id)
        ended = sent + timedelta(seconds=self.rng.uniform(30, 120))
        results = [(row, self._result(file_id, shares, failed, sureness)) for file_id, row in rows.items()]
        bill: dict[str, Json] = {"credits": float(sum(self.rng.randrange(1, 6) for _ in rows))} if billed else {}
        jobs.end(self.connection, chunk_id, JobStatus.SUCCEEDED, results, at=text(ended), **bill)
        return ended

    def _result(self, file_id: str, shares: dict[str, float], failed: float, sureness: float) -> FileResult:
        if self.rng.random() < failed:
            cause = self.rng.choice(CAUSES).format(n=self.rng.randrange(1000))
            return FileResult(file_id, Outcome.FAILED, error=cause)
        (label,) = self.rng.choices(list(shares), weights=list(shares.values()))
        if not label:
            return FileResult(file_id, Outcome.UNMATCHED, reasoning="no rule fits")
        confidence = round(min(0.99, max(0.05, self.rng.gauss(sureness, 0.12))), 3)
        return FileResult(file_id, Outcome.CLASSIFIED, label, confidence, f"looks like a {label}, on its first page")

    def finish(
        self, run_id: str, began: datetime, ended: datetime, chunks: int, *, requests: int, billed: bool
    ) -> None:
        """Leave the run's record, as ``run`` does."""
        totals = reading.totals(
            self.connection,
            self.scope,
            staged=None,
            review={"below_confidence": self.below_confidence, "unmatched": False},
        )
        outcomes: dict[str, int] = {outcome.value: files for outcome, files in totals.outcomes.items()}
        bad = sum(outcomes[name] for name in ("failed", "missing", "cancelled"))
        summary: dict[str, Json] = {
            "files": sum(outcomes.values()) + totals.unfinished,
            **outcomes,
            "unfinished": totals.unfinished,
            "review": totals.review,
            "jobs_created": chunks,
            "requests": requests,
            "seconds": round((ended - began).total_seconds(), 3),
            "credits": billing.spent_by_run(self.connection, run_id).credits if billed else None,
            "credits_ceiling": 250 * chunks,
            "reason": f"{bad} files failed" if bad else "every file has an outcome",
        }
        runs.finish(self.connection, run_id, exit_code=int(bool(bad)), summary=summary, at=text(ended))


def thirty(connection: Transaction, *, files: int = 200, quiet: int = 29) -> Nights:
    """*quiet* usual nights, and a last one on which many invoices are recognised as nothing.

    One file is in quarantine, and one chunk of five is held.
    """
    made = Nights(connection)
    for _ in range(quiet):
        made.night(files)
    sunk = cutting.last_chunk(connection) + 1
    made.night(1, failed=1.0)
    made.quarantine(sunk)
    made.hold(5)
    made.night(files, shares=DRIFTED, sureness=0.75, failed=0.04)
    return made


def sums(rows: Sequence[dict[str, Json]], column: str) -> dict[str, int]:
    """How often each value of *column* is in *rows*, without None."""
    counted: dict[str, int] = {}
    for row in rows:
        if row[column] is not None:
            counted[row[column]] = counted.get(row[column], 0) + 1
    return counted
