"""Bugs that somebody could write one day, each planted in the real program: the simulation must notice every one."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from unittest.mock import patch

from sqlalchemy import Connection

from orchestrator import collector, engine, reconcile
from orchestrator.api import v1, v2, verdict
from orchestrator.api.client import Api
from orchestrator.errors import Ambiguous, NotSent, RunStopped, Throttled
from orchestrator.ledger import jobs
from orchestrator.models import FileResult, JobResults, JobStatus, Json, Outcome, RemoteJob
from orchestrator.submitter import _Sending
from simulation import episode


@dataclass(frozen=True, slots=True)
class Bug:
    """*plant* has the bug in the program for as long as the block runs."""

    name: str
    api: str
    plant: Callable[[], AbstractContextManager[object]]


def _resend_at_once() -> AbstractContextManager[object]:
    """An unanswered v1 create is sent again, as if it had an idempotency key."""
    return patch.object(v1.V1, "traits", replace(v1.V1.traits, idempotent=True))


def _no_intent() -> AbstractContextManager[object]:
    """The create call leaves before the ledger knows of it."""

    async def nothing(self: _Sending) -> None:
        pass

    return patch.object(_Sending, "_intend", nothing)


def _wrong_id() -> AbstractContextManager[object]:
    """The answer to a create call is recorded with an id that is not the job's."""
    honest = jobs.submitted

    def wrong(connection: Connection, chunk_id: int, job_id: str, *, at: str) -> None:
        honest(connection, chunk_id, f"{job_id}0", at=at)

    return patch.object(jobs, "submitted", wrong)


def _refusal_proves_absence() -> AbstractContextManager[object]:
    """A refusal of a later send is taken as proof that no earlier one had an effect."""
    honest = _Sending._send

    async def forgetful(self: _Sending) -> RemoteJob:
        try:
            return await honest(self)
        except (NotSent, Throttled, RunStopped):
            if self._unsure:
                await self._move(JobStatus.PENDING)
            raise

    return patch.object(_Sending, "_send", forgetful)


def _refused_later_has_failed() -> AbstractContextManager[object]:
    """A 4xx after an unanswered send is the end of its file."""
    return patch.object(_Sending, "_look_for_job", _Sending._refused)


def _unavailable_is_refused() -> AbstractContextManager[object]:
    """A 503 is taken as "surely not created"."""
    honest = verdict.of_response

    def trusting(status: int, headers: Mapping[str, str], body: bytes, *, creating: bool) -> Json:
        if status == 503 and creating:
            raise Throttled("503")
        return honest(status, headers, body, creating=creating)

    return patch.object(verdict, "of_response", trusting)


def _adopt_unproved() -> AbstractContextManager[object]:
    """Any unknown job of the same config is taken for the chunk's."""
    return patch.object(reconcile.Evidence, "proves", lambda self, job, chunk: True)


def _ignore_hints() -> AbstractContextManager[object]:
    """A job with some results of the chunk's files and some of others is taken for nobody's."""
    return patch.object(reconcile.Evidence, "hints", lambda self, job, chunk: False)


def _no_settling() -> AbstractContextManager[object]:
    """A job that is not listed at once does not exist."""
    return patch.object(episode, "SETTINGS", episode.SETTINGS.model_copy(update={"settle_s": 0.0}))


def _one_listing() -> AbstractContextManager[object]:
    """One listing without the job proves its absence."""

    class Hasty(reconcile._Open):
        @property  # as if an earlier listing had been clean, always
        def clean_at(self) -> float:
            return -math.inf

        @clean_at.setter
        def clean_at(self, _: float | None) -> None:
            pass

    return patch.object(reconcile, "_Open", Hasty)


def _first_page_of_jobs() -> AbstractContextManager[object]:
    """The first page is taken for the whole listing."""

    async def partial(api: Api, *, since: datetime | None = None) -> list[RemoteJob]:
        return list((await api.page(None)).jobs)

    return patch.object(reconcile, "complete_listing", partial)


def _first_page_of_results() -> AbstractContextManager[object]:
    """The first page is taken for all results."""

    async def partial(self: Api, job_id: str) -> JobResults:
        call = self.dialect.results(job_id, None)
        return (await self._persist(call, "read", self.limiters.reads, self.dialect.read_results))[0]

    return patch.object(Api, "results", partial)


def _missing_is_done() -> AbstractContextManager[object]:
    """A file without a row counts as one that no rule matched."""
    return patch.object(collector, "_rowless", lambda file_id, job: FileResult(file_id, Outcome.UNMATCHED))


def _unknown_is_success() -> AbstractContextManager[object]:
    """A status word that nobody knows means that the job has ended well."""

    trusting = defaultdict(lambda: JobStatus.SUCCEEDED, v1.STATUSES)

    class Trusting(dict[str, JobStatus]):
        def get(self, word: str, default: object = None) -> JobStatus:
            return trusting[word]

    return patch.object(v1, "STATUSES", Trusting())


def _failed_poll_is_failed_job() -> AbstractContextManager[object]:
    """One status call without an answer, and the job counts as failed."""

    async def impatient(self: Api, job_id: str) -> RemoteJob:
        try:
            return await self._attempt(self.dialect.get(job_id), "read", self.limiters.reads, self.dialect.read_job)
        except (Ambiguous, NotSent) as error:
            return RemoteJob(job_id, JobStatus.FAILED, "ERROR", error=str(error))

    return patch.object(Api, "get", impatient)


def _new_key_each_time() -> AbstractContextManager[object]:
    """Every send of a v2 create has an idempotency key of its own."""
    count = itertools.count()
    keys = patch.object(v2, "transaction_id", lambda project_id, chunk: f"orc-{next(count)}")
    echoes = patch.object(v2.V2, "echoes", lambda self, chunk, job: True)

    class Both:
        def __enter__(self) -> None:
            keys.start()
            echoes.start()

        def __exit__(self, *_: object) -> None:
            echoes.stop()
            keys.stop()

    return Both()


def _no_drain() -> AbstractContextManager[object]:
    """Create calls that are out are cancelled when the run is told to stop."""
    return patch.object(engine, "DRAIN_S", 0.01)


BUGS = (
    Bug("an unanswered create is sent again at once", "v1", _resend_at_once),
    Bug("no intent before the call", "v1", _no_intent),
    Bug("the answer is recorded wrongly", "v1", _wrong_id),
    Bug("a refusal after an unanswered send proves absence", "v2", _refusal_proves_absence),
    Bug("a 4xx after an unanswered send is a failure", "v2", _refused_later_has_failed),
    Bug("a 503 counts as not created", "v1", _unavailable_is_refused),
    Bug("a job is adopted without proof", "v1", _adopt_unproved),
    Bug("results that fit in part count as nobody's", "v1", _ignore_hints),
    Bug("no time to settle", "v1", _no_settling),
    Bug("one listing proves absence", "v1", _one_listing),
    Bug("the first page is the whole listing", "v1", _first_page_of_jobs),
    Bug("the first page is all results", "v1", _first_page_of_results),
    Bug("a missing row counts as done", "v1", _missing_is_done),
    Bug("an unknown status is success", "v1", _unknown_is_success),
    Bug("a failed poll is a failed job", "v1", _failed_poll_is_failed_job),
    Bug("a new key for every send", "v2", _new_key_each_time),
    Bug("calls that are out are cut short", "v2", _no_drain),
)
