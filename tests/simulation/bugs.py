"""Bugs that somebody could write one day, each planted in the real program: the simulation must notice every one."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType
from typing import Any
from unittest.mock import patch

from sqlalchemy import Connection, text

from orchestrator.api import dialect, status_codes, v1, v2
from orchestrator.api.client import Api
from orchestrator.commands import run as runner
from orchestrator.errors import Ambiguous, ApiError, NotSent, RunStopped, Throttled
from orchestrator.ledger import jobs, projects, queue
from orchestrator.ledger import scope as ledger_scope
from orchestrator.ledger.chunks import cutting, doubts, retry
from orchestrator.ledger.chunks import halving as halves
from orchestrator.ledger.chunks import plan as ledger_plan
from orchestrator.manifest.loading import Manifest
from orchestrator.models import IN_FLIGHT, Chunk, Config, FileResult, JobResults, JobStatus, Json, Outcome, RemoteJob
from orchestrator.planning import ceiling as ceilings
from orchestrator.planning import options as planning_options
from orchestrator.planning import plan as planning_plan
from orchestrator.planning import run
from orchestrator.stages import halving, matching, work
from orchestrator.stages.polling import late
from orchestrator.stages.polling.denied import Denied
from orchestrator.stages.sending import Sending
from orchestrator.stages.unanswered import doubt, evidence, judging, likeness, reconciler
from orchestrator.stages.unanswered.strangers import Strangers
from simulation import process


@dataclass(frozen=True, slots=True)
class Bug:
    """*plant* has the bug in the program for as long as the block runs; *seed* is of an episode that showed it."""

    name: str
    api: str
    plant: Callable[[], AbstractContextManager[object]]
    seed: int = 0


def _resend_at_once() -> AbstractContextManager[object]:
    """An unanswered v1 create is sent again, as if it had an idempotency key."""
    return patch.object(v1.V1, "traits", replace(v1.V1.traits, idempotent=True))


def _no_intent() -> AbstractContextManager[object]:
    """The create call leaves before the ledger knows of it."""

    async def nothing(self: Sending) -> None:
        pass

    return patch.object(Sending, "_intend", nothing)


def _wrong_id() -> AbstractContextManager[object]:
    """The answer to a create call is recorded with an id that is not the job's."""
    honest = jobs.submitted

    def wrong(connection: Connection, chunk_id: int, job_id: str, *, at: str) -> None:
        honest(connection, chunk_id, f"{job_id}0", at=at)

    return patch.object(jobs, "submitted", wrong)


def _refusal_proves_absence() -> AbstractContextManager[object]:
    """A refusal of a later send is taken as proof that no earlier one had an effect."""
    honest = Sending._send

    async def forgetful(self: Sending) -> RemoteJob | ApiError | None:
        came_to = await honest(self)
        if self._unsure and isinstance(came_to, NotSent | Throttled | RunStopped):
            await self._not_created()
        return came_to

    return patch.object(Sending, "_send", forgetful)


def _refused_later_has_failed() -> AbstractContextManager[object]:
    """A 4xx after an unanswered send is the end of its file."""
    return patch.object(Sending, "_look_for_job", Sending._refused)


def _unavailable_is_refused() -> AbstractContextManager[object]:
    """A 503 is taken as "surely not created"."""
    honest = status_codes.of_response

    def trusting(
        status: int, headers: Mapping[str, str], body: bytes, *, creating: bool, cancelling: bool = False
    ) -> Json:
        if status == 503 and creating:
            raise Throttled("503")
        return honest(status, headers, body, creating=creating, cancelling=cancelling)

    return patch.object(status_codes, "of_response", trusting)


def _adopt_unproved() -> AbstractContextManager[object]:
    """Any unknown job of the same config is taken for the chunk's."""
    return patch.object(evidence.Evidence, "proves", lambda self, job, chunk: True)


def _ignore_hints() -> AbstractContextManager[object]:
    """A job with some results of the chunk's files and some of others is taken for nobody's."""

    class Strict(evidence.Evidence):
        def suggests(self, job: RemoteJob, chunk: Chunk) -> bool:
            return bool(self.files.get(job.id)) and self.files[job.id] < frozenset(chunk.file_ids)

        def hints(self, job: RemoteJob, chunk: Chunk) -> bool:
            return False

    return patch.object(reconciler, "Evidence", Strict)


def _no_settling() -> AbstractContextManager[object]:
    """A job that is not listed at once does not exist."""
    return patch.object(process, "SETTINGS", process.SETTINGS.model_copy(update={"settle_s": 0.0}))


def _one_listing() -> AbstractContextManager[object]:
    """One listing without the job proves its absence."""

    honest = judging.judge

    def hasty(case: judging.Case) -> judging.Finding:
        return honest(replace(case, signs=replace(case.signs, clean_at=-math.inf)))

    return patch.object(reconciler, "judge", hasty)


def _first_page_of_jobs() -> AbstractContextManager[object]:
    """The first page is taken for the whole listing."""

    async def partial(api: Api) -> list[RemoteJob]:
        return list((await api.page(None)).jobs)

    return patch.object(reconciler, "complete_listing", partial)


def _first_page_of_results() -> AbstractContextManager[object]:
    """The first page is taken for all results."""

    async def partial(self: Api, job_id: str) -> JobResults:
        call = self.dialect.results(job_id, None)
        return (await self._persist(call, "read", self.limiters.reads, self.dialect.read_results))[0]

    return patch.object(Api, "results", partial)


def _missing_is_done() -> AbstractContextManager[object]:
    """A file without a row counts as one that no rule matched."""
    return patch.object(matching, "_rowless", lambda file_id, job: FileResult(file_id, Outcome.UNMATCHED))


@contextmanager
def _unknown_is_success() -> Iterator[None]:
    """A status word that nobody knows means that the job has ended well, and refused results that it has none."""

    lacks = late._lacks  # alone it does no harm: the API refuses the results, and they are waited for
    trusting = defaultdict(lambda: JobStatus.SUCCEEDED, v1.STATUSES)

    class Trusting(dict[str, JobStatus]):
        def get(self, word: str, default: object = None) -> JobStatus:
            return trusting[word]

    def hasty(job: RemoteJob, answer: JobResults, collected: matching.Collected) -> str:
        return "" if answer.refusal is not None else lacks(job, answer, collected)

    with patch.object(v1, "STATUSES", Trusting()), patch.object(late, "_lacks", hasty):
        yield


def _failed_poll_is_failed_job() -> AbstractContextManager[object]:
    """One status call without an answer, and the job counts as failed."""

    async def impatient(self: Api, job_id: str) -> RemoteJob:
        try:
            return await self._attempt(self.dialect.get(job_id), "read", self.limiters.reads, self.dialect.read_job)
        except (Ambiguous, NotSent) as error:
            return RemoteJob(job_id, JobStatus.FAILED, "ERROR", error=str(error), results=JobResults(()))

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
    return patch.object(work, "DRAIN_S", 0.01)


def _any_config() -> AbstractContextManager[object]:
    """A job of other rules, or of a time before the call, may be the chunk's, and nobody else's."""
    honest = judging.one_each
    alone = patch.object(reconciler, "one_each", lambda *known, others, **more: honest(*known, others=False, **more))

    @contextmanager
    def both() -> Iterator[None]:
        with alone, patch.object(doubt.Doubt, "may_have_made", lambda self, candidates, echoes: list(candidates)):
            yield

    return both()


def _pairs_at_random() -> AbstractContextManager[object]:
    """A failed job without results is taken for any chunk's whose call it may have been."""
    return patch.object(reconciler, "one_each", lambda empty, marks, **_: True)


def _another_echo_is_anothers() -> AbstractContextManager[object]:
    """A job whose echo is not what was sent is another's, however this API echoes."""

    def literal(self: likeness.Echoes, job: RemoteJob, config: Config) -> likeness.Likeness:
        return likeness.Likeness.ALIKE if job.echo == config.echo else likeness.Likeness.OTHER

    return patch.object(likeness.Echoes, "likeness", literal)


def _rewritten_is_anybodys() -> AbstractContextManager[object]:
    """What the API rewrites in its echoes counts for nothing, whoever's rules came back so."""
    honest = likeness.Echoes.likeness

    def lax(self: likeness.Echoes, job: RemoteJob, config: Config) -> likeness.Likeness:
        told = replace(job.echo, **dict.fromkeys(self.rewritten))
        return honest(self, replace(job, echo=told), config)

    def nobody(*_: object) -> list[Chunk]:
        return []

    @contextmanager
    def both() -> Iterator[None]:
        with patch.object(evidence.Evidence, "rivals", nobody), patch.object(likeness.Echoes, "likeness", lax):
            yield

    return both()


def _every_mark_counts() -> AbstractContextManager[object]:
    """A job that is dated before the newest one that was listed before the call is not the call's."""
    return patch.object(doubt, "is_borne_out", lambda mark, since: True)


def _choosing(instead_of: str, condition: str) -> AbstractContextManager[object]:
    """The files to send again are chosen by another *condition*."""
    honest = cutting.choose

    def choose(connection: Connection, query: str, scope: ledger_scope.Scope, **parameters: object) -> int:
        return honest(connection, query.replace(instead_of, condition), scope, **parameters)

    return patch.object(retry, "choose", choose)


def _retry_open() -> AbstractContextManager[object]:
    """A retry sends a file of which a retry is still open."""
    return _choosing("nr.file_row IS NULL", "nr.file_row < 0")


def _selecting(asked: Mapping[str, Any] = {}, allowed: Mapping[str, Any] = {}) -> AbstractContextManager[object]:
    """What is to be sent again is chosen with changes of what a person *asked* and of what is *allowed*."""
    honest = retry.select_again

    def select(
        connection: Connection, scope: ledger_scope.Scope, selection: retry.Selection, limits: retry.Allowed
    ) -> int:
        return honest(connection, scope, replace(selection, **asked), replace(limits, **allowed))

    return patch.object(retry, "select_again", select)


def _retry_everything() -> AbstractContextManager[object]:
    """A retry sends also what has a good answer."""
    return _selecting(asked={"outcomes": tuple(Outcome)})


def _no_most_generations() -> AbstractContextManager[object]:
    """No file is ever left alone."""
    return _selecting(allowed={"max_generations": None})


def _second_opinion_twice() -> AbstractContextManager[object]:
    """A run asks for a second opinion without looking whether an earlier one did."""
    return _selecting(allowed={"never_escalated": False})


def _last_result_stands() -> AbstractContextManager[object]:
    """A later result takes an earlier one's place, whether it is better or not."""
    return patch.object(jobs, "GOOD_SQL", "('" + "', '".join(Outcome) + "')")


def _forgetful_halves() -> AbstractContextManager[object]:
    """The halves of a second opinion are sent like any others."""
    honest = halves.split

    def split(
        connection: Connection, chunk_id: int, parts: Sequence[Sequence[str]], *, run_id: str, at: str
    ) -> list[int]:
        made = honest(connection, chunk_id, parts, run_id=run_id, at=at)
        connection.execute(text("UPDATE jobs SET escalation = 0 WHERE parent_id = :id"), {"id": chunk_id})
        return made

    return patch.object(halves, "split", split)


def _lost_half() -> AbstractContextManager[object]:
    """Of a failed chunk only the first half is sent again."""
    honest = halving.halve
    return patch.object(halving, "halve", lambda *failed: honest(*failed)[:1])


def _halves_of_all() -> AbstractContextManager[object]:
    """A failed chunk's files that have a good answer are halved and sent again with the others."""
    honest = halves.to_halve

    def greedy(connection: Connection, shard: queue.Shard) -> list[halves.Failed]:
        return [
            replace(failed, file_ids=sorted(jobs.file_rows(connection, failed.chunk_id)))
            for failed in honest(connection, shard)
        ]

    return patch.object(halves, "to_halve", greedy)


def _nothing_open_nothing_to_do() -> AbstractContextManager[object]:
    """A run with no open job ends at once, although a failed one is yet to be halved, or a second opinion to be had."""

    def apis(self: runner._Execution, connection: Connection, plan: run.Plan) -> list[str]:
        open_ = {JobStatus.PENDING, JobStatus.SUBMITTING, *IN_FLIGHT} & queue.tally(
            connection, plan.scope.manifest_id
        ).keys()
        return [self.manifest.api] if open_ else []

    return patch.object(runner._Execution, "_apis_with_work", apis)


def _released_blindly() -> AbstractContextManager[object]:
    """A retry sends again every unanswered chunk, and not only those that a person decided about."""
    honest = run.plan

    def plan(connection: Connection, manifest: Manifest, options: planning_options.Options, **rest: Any) -> run.Plan:
        if options.command == "retry":
            connection.execute(text("UPDATE jobs SET status = 'pending' WHERE status = 'submitting'"))
        return honest(connection, manifest, options, **rest)

    return patch.object(run, "plan", plan)


def _first_read_is_final() -> AbstractContextManager[object]:
    """What an ended job's results lack at the first read has failed to come."""
    return patch.object(late, "_lacks", lambda job, answer, collected: "")


def _refusal_is_final() -> AbstractContextManager[object]:
    """A job that failed, and whose results are refused once, has none."""
    honest = late._lacks

    def hasty(job: RemoteJob, answer: JobResults, collected: matching.Collected) -> str:
        return honest(job, answer, collected) if job.status is JobStatus.SUCCEEDED else ""

    return patch.object(late, "_lacks", hasty)


def _any_job_is_ours() -> AbstractContextManager[object]:
    """Whatever a create call is answered with is the chunk's job, be it another chunk's already."""
    return patch.object(projects, "is_of_another_chunk", lambda connection, chunk_id, job_id: False)


def _denied_is_gone() -> AbstractContextManager[object]:
    """A job that the API denies for long is gone, whatever else it lists."""

    async def nothing(self: Strangers, chunk_id: int, in_flight: Set[str]) -> bool:
        return False

    return patch.object(Strangers, "may_include_one_of", nothing)


def _named_is_owned() -> AbstractContextManager[object]:
    """A job that a create call was answered with can be no other call's, even before its results were read."""
    return patch.object(doubts, "named_since", lambda connection, chunk_id: set())


def _mistaken_for_ever() -> AbstractContextManager[object]:
    """A call that is always answered with another's job is asked for by its key for ever, and no person is asked."""
    honest = jobs.answered_with_anothers

    def hopeful(connection: Connection, chunk_id: int, why: str, *, keyed: bool, at: str) -> bool:
        return honest(connection, chunk_id, why, keyed=False, at=at)

    return patch.object(jobs, "answered_with_anothers", hopeful)


def _the_key_of_before() -> AbstractContextManager[object]:
    """What a person has sent again is sent under the key that brought another's job."""
    return patch.object(queue, "_renew_key", lambda connection, chunk_id: None)


def _echo_of_nobody() -> AbstractContextManager[object]:
    """v2: whatever a create call is answered with is the chunk's job, whichever file it names."""
    return patch.object(v2.V2, "echoes", lambda self, chunk, job: True)


def _strangers_rows_are_missing() -> AbstractContextManager[object]:
    """A job whose rows are all of other files counts as the chunk's, with every row missing."""
    honest = matching.collect

    def trusting(file_ids: Collection[str], types: Collection[str], job: RemoteJob, answer: JobResults) -> Any:
        own = set(file_ids)
        return honest(file_ids, types, job, replace(answer, rows=tuple(r for r in answer.rows if r.file_id in own)))

    return patch.object(matching, "collect", trusting)


@contextmanager
def _as_text(*rooms: ModuleType) -> Iterator[None]:
    """IDs of files are compared letter by letter, in some rooms of the program."""
    with ExitStack() as stack:
        for room in rooms:
            stack.enter_context(patch.object(room, "canonical_id", lambda file_id: file_id))
        yield


def _setting(**values: float) -> AbstractContextManager[object]:
    return patch.object(process, "SETTINGS", process.SETTINGS.model_copy(update=values))


@contextmanager
def _gone_at_once() -> Iterator[None]:
    """A job that the API denies by name is gone, whatever the list shows and however short that lasted."""

    async def unseen(self: Denied, denial: object) -> None:
        return None

    with _setting(gone_s=0.0), patch.object(Denied, "_listed", unseen):
        yield


def _never_too_many() -> AbstractContextManager[object]:
    """However many files changed rules would have classified again, nobody is asked."""
    return patch.object(planning_plan, "over_reclassify", lambda manifest, changes, have_outcome: None)


def _halves_untold() -> AbstractContextManager[object]:
    """The price told leaves out that the files of a failed job are sent again in halves."""
    return patch.object(ceilings, "halvings", lambda size: 0)


def _left_untold() -> AbstractContextManager[object]:
    """The price told leaves out what earlier runs have planned and not sent."""
    return patch.object(ledger_plan, "open_chunks", lambda connection, manifest_id: [])


def _endless_drain() -> AbstractContextManager[object]:
    """A run that is told to end waits for calls that are out, however long they take."""
    return patch.object(work, "DRAIN_S", 50.0)


BUGS = (
    Bug("an unanswered create is sent again at once", "v1", _resend_at_once),
    Bug("no intent before the call", "v1", _no_intent),
    Bug("the answer is recorded wrongly", "v1", _wrong_id),
    Bug("a refusal after an unanswered send proves absence", "v2", _refusal_proves_absence, 8),
    Bug("a 4xx after an unanswered send is a failure", "v2", _refused_later_has_failed, 4),
    Bug("a 503 counts as not created", "v1", _unavailable_is_refused, 7),
    Bug("a job is adopted without proof", "v1", _adopt_unproved, 11),
    Bug("results that fit in part count as nobody's", "v1", _ignore_hints, 38),
    Bug("no time to settle", "v1", _no_settling, 16),
    Bug("one listing proves absence", "v1", _one_listing, 253),
    Bug("the first page is the whole listing", "v1", _first_page_of_jobs, 29),
    Bug("the first page is all results", "v1", _first_page_of_results, 11),
    Bug("a missing row counts as done", "v1", _missing_is_done, 8),
    Bug("an unknown status is success", "v1", _unknown_is_success, 20),
    Bug("a failed poll is a failed job", "v1", _failed_poll_is_failed_job, 16),
    Bug("a new key for every send", "v2", _new_key_each_time, 1),
    Bug("calls that are out are cut short", "v2", _no_drain),
    Bug("a job of other rules is adopted", "v1", _any_config),
    Bug("a failed job is anybody's", "v1", _pairs_at_random, 1),
    Bug("a job that is echoed otherwise is another's", "v1", _another_echo_is_anothers, 2),
    Bug("a date alone tells older jobs", "v1", _every_mark_counts, 37),
    Bug("a rewritten echo is anybody's", "v1", _rewritten_is_anybodys, 20213),
    Bug("a retry of what is being retried", "v1", _retry_open, 43),
    Bug("a v2 retry of what is being retried", "v2", _retry_open, 59),
    Bug("a retry of what is good", "v2", _retry_everything),
    Bug("a retry without end", "v2", _no_most_generations, 12),
    Bug("a retry of unanswered calls", "v1", _released_blindly, 2),
    Bug("a second opinion asked for twice", "v1", _second_opinion_twice, 7),
    Bug("a failure takes a good answer's place", "v2", _last_result_stands, 62),
    Bug("half of a second opinion is an answer", "v1", _forgetful_halves, 55),
    Bug("one half is forgotten", "v1", _lost_half, 0),
    Bug("good files are halved with the bad", "v1", _halves_of_all, 30),
    Bug("the first read is final", "v1", _first_read_is_final, 4),
    Bug("the first read of v2 is final", "v2", _first_read_is_final, 72),
    Bug("results that are refused once do not exist", "v1", _refusal_is_final, 20164),
    Bug("a job has two chunks", "v1", _any_job_is_ours, 311),
    Bug("a stranger's job is missing all rows", "v1", _strangers_rows_are_missing, 226),
    Bug("a job that is denied was the chunk's", "v1", _denied_is_gone, 60443),
    Bug("a job that is named is owned", "v1", _named_is_owned, 25121),
    Bug("a mistaken answer is asked for again for ever", "v2", _mistaken_for_ever, 28),
    Bug("a mistaken key is kept", "v2", _the_key_of_before, 28),
    Bug("whatever v2 answers is the chunk's", "v2", _echo_of_nobody, 83),
    Bug("results name files as they were sent", "v1", partial(_as_text, dialect, matching), 12),
    Bug("v2 echoes files as they were sent", "v2", partial(_as_text, v2), 12),
    Bug("each spelling is a file", "v1", partial(_as_text, ledger_plan), 12),
    Bug("a job that is denied once is gone", "v1", _gone_at_once, 936),
    Bug("a v2 job that is denied once is gone", "v2", partial(_setting, gone_s=0.0), 89),
    Bug("a job is never gone", "v2", partial(_setting, gone_s=math.inf), 82),
    Bug("changed rules are never too many", "v1", _never_too_many, 404),
    Bug("the price told leaves out halves", "v1", _halves_untold, 30),
    Bug("the price told leaves out what is planned", "v2", _left_untold, 7),
    Bug("calls that are out are waited for without end", "v2", _endless_drain, 71),
    Bug("halving is forgotten after a crash", "v1", _nothing_open_nothing_to_do, 52),
)
