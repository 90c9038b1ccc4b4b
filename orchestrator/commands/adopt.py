"""``orchestrator adopt``: outcomes of jobs that the API has and the ledger does not, recorded without paying again.

Reconcile with an empty ledger: every job of the project that was created with the manifest's config is looked at, and
what it says of the manifest's files is recorded, so that the next run buys only what is really missing.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import structlog

from orchestrator import ledger
from orchestrator import settings as settings_
from orchestrator.api import loop
from orchestrator.api.client import Api
from orchestrator.api.dialect import Target
from orchestrator.api.files import Files
from orchestrator.api.listing import complete_listing
from orchestrator.clock import Clock, timestamp
from orchestrator.commands.access import access, connect, hide_secrets
from orchestrator.documents.hashing import PREFIX
from orchestrator.errors import ExitCode
from orchestrator.ledger import Ledger, Transaction, jobs, queue, runs
from orchestrator.ledger import scope as ledger_scope
from orchestrator.ledger.chunks import adopt as ledger_adopt
from orchestrator.ledger.chunks import plan
from orchestrator.ledger.documents import names, uploads
from orchestrator.manifest.loading import Manifest
from orchestrator.models import TERMINAL, Chunk, Config, JobResults, Json, RemoteJob, canonical_id
from orchestrator.plaintext import counted
from orchestrator.planning import documents
from orchestrator.planning.run import register
from orchestrator.settings import Settings
from orchestrator.stages.collector import end_job, results_of
from orchestrator.stages.contents import recognized
from orchestrator.stages.unanswered.evidence import Evidence
from orchestrator.stages.unanswered.judging import WHOLE
from orchestrator.stages.unanswered.likeness import Echoes, compared

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Adopted:
    """The jobs that were found, and what was recorded of them."""

    manifest: str
    run_id: str
    api: str  #: v1 or v2
    host: str  #: the API's, as the ledger names it
    jobs_listed: int  #: all of the project
    jobs_alike: int  #: unknown to the ledger, and of the manifest's config
    jobs_adopted: int
    files_adopted: int
    jobs_running: int  #: have not ended: adopt again later (v1 names no files before)

    def as_json(self) -> dict[str, Json]:
        return asdict(self)


def adopt(
    manifest: Manifest, settings: Settings, path: ledger.Location, clock: Clock, *, base_url: str | None
) -> Adopted:
    """Raises OrchestratorError; what was recorded until then stays recorded."""
    base, key = access(manifest, settings, base_url)
    hide_secrets(manifest, settings, key)
    run_id = runs.new_id(clock.now())
    at, host = timestamp(clock.now()), settings_.origin(base)
    holder = {"command": f"orchestrator adopt (run {run_id})", "since": at}
    with (
        ledger.lease(path, manifest.name, holder) as lease,
        ledger.open(path, lease=lease, rebuilding=True) as opened,
    ):
        manifest, _ = documents.take(manifest, opened, write=True)
        with opened.transaction() as connection:
            scope = _begin(connection, manifest, run_id=run_id, origin=host, at=at)

        async def go() -> Adopted:
            api = connect(manifest, manifest.api, settings, base_url=base, key=key, clock=clock, rng=random.Random())
            contents = [each for each in manifest.ids if each.startswith(PREFIX)]
            files = Files(api, Target(manifest.project_id, manifest.organization_id))
            try:
                of_content = await recognized(files, opened, scope.manifest_id, contents, at=at)
                return await _adopt(api, manifest, opened, scope, run_id, at, host, of_content)
            finally:
                await api.close()

        adopted = loop.run(go())
        with opened.transaction() as connection:
            reason = f"{counted(adopted.jobs_adopted, 'job')} adopted with {counted(adopted.files_adopted, 'file')}"
            summary = {**adopted.as_json(), "reason": reason}
            runs.finish(connection, run_id, exit_code=int(ExitCode.OK), summary=summary, at=at)
        opened.rebuilt()
        with opened.transaction() as connection:
            ledger_scope.has_its_jobs(connection, ledger_scope.manifest_id(connection, manifest.name, rehearsal=False))
    return adopted


def _begin(connection: Transaction, manifest: Manifest, *, run_id: str, origin: str, at: str) -> ledger_scope.Scope:
    """Record the manifest with its files and names, and the begin of this adoption."""
    listed_names = names.Names(connection)
    plan.stage(connection, manifest.file_ids(listed_names))
    scope = register(connection, manifest, rehearsal=False, origin=origin)
    listed_names.keep(manifest.name)
    plan.forget_unsent(connection, scope, api=manifest.api)  # the next run plans what is then missing
    runs.begin(connection, run_id, scope.manifest_id, command="adopt", api=manifest.api, at=at)
    return scope


def _in_order(manifest: Manifest, found: list[tuple[RemoteJob, Config | None]]) -> list[tuple[RemoteJob, Config]]:
    """The jobs that were made with a config of *manifest*, each with that config, in the order to record them.

    Ended jobs first: a file whose older job is stuck counts as in flight, and its good result would be passed over.
    """
    alike = [(job, config) for job, config in found if config is not None]
    return sorted(
        alike,
        key=lambda each: (
            each[1] != manifest.config,
            each[0].status not in TERMINAL,
            each[0].created_at is None,
            each[0].created_at,
            each[0].id,
        ),
    )


async def _adopt(
    api: Api,
    manifest: Manifest,
    opened: Ledger,
    scope: ledger_scope.Scope,
    run_id: str,
    at: str,
    host: str,
    of_content: Mapping[str, tuple[str, str]],
) -> Adopted:
    """*of_content*: canonical file ID -> content, and the ID as the API spells it, of the documents' files."""
    unreadable: list[int] = []
    listed = await complete_listing(api, unreadable=unreadable.append)
    if any(unreadable):
        log.warning("listing.unreadable", rows=unreadable[0])
    with opened.transaction() as connection:
        known, echoes = compared(connection, {job.id: job for job in listed})
    strangers = [job for job in listed if job.id not in known]
    settled = await _settle_unanswered(api, manifest, opened, scope, strangers, echoes, at)
    strangers = [job for job in strangers if job.id not in settled]
    alike = _in_order(manifest, [(job, _made_with(job, manifest, echoes)) for job in strangers])
    file_of = {job.parse_job_id: job.file_id for job in listed if job.parse_job_id != job.file_id}
    jobs_adopted, running = len(settled), 0
    file_ids: set[str] = {file_id for files in settled.values() for file_id in files}
    for job, config in alike:
        if job.status not in TERMINAL and job.file_id is None:
            running += 1
            continue
        answer = await results_of(api, job) if job.status in TERMINAL else JobResults(())
        with opened.transaction() as connection:
            job = _of_a_file(job, file_of)
            taken = _take_in(connection, manifest, scope, job, config, answer, run_id, at, of_content)
        jobs_adopted += bool(taken)
        file_ids.update(taken)
        log.info("job.adopted", job_id=job.id, files=len(taken))
    found = len(alike) + len(settled)
    return Adopted(manifest.name, run_id, manifest.api, host, len(listed), found, jobs_adopted, len(file_ids), running)


def _made_with(job: RemoteJob, manifest: Manifest, echoes: Echoes) -> Config | None:
    """The config of the manifest that *job* was made with: what it does not say of its rules is never guessed."""
    if not echoes.tells_rules(job):
        return None
    asked_for = (manifest.config, manifest.stronger_config)
    return next((config for config in asked_for if config and echoes.is_alike(job, config)), None)


async def _settle_unanswered(
    api: Api,
    manifest: Manifest,
    opened: Ledger,
    scope: ledger_scope.Scope,
    strangers: list[RemoteJob],
    echoes: Echoes,
    at: str,
) -> dict[str, tuple[str, ...]]:
    """Give each unanswered chunk the job whose results are of just its files; the files of each job so taken.

    A held chunk whose good results several jobs have in part is given the one with the most: what the others say is
    then taken as that of any job is.
    """
    with opened.transaction() as connection:
        parked = queue.unanswered(connection, queue.Shard(scope.manifest_id, manifest.api))
        chunks = [queue.chunk(connection, each.chunk_id) for each in parked]
    taken: dict[str, tuple[str, ...]] = {}
    evidence, answers = Evidence(), dict[str, JobResults]()

    def give(chunk: Chunk, job: RemoteJob, why: str) -> None:
        with opened.transaction() as connection:
            jobs.submitted(connection, chunk.id, job.id, at=at)
            jobs.note(connection, chunk.id, "adopted", why, at=at)
            end_job(connection, chunk.id, job, answers[job.id], at=at)
        chunks.remove(chunk)
        taken[job.id] = chunk.file_ids
        log.info("job.adopted", job_id=job.id, files=len(chunk.file_ids))

    for job in [job for job in strangers if job.status in TERMINAL and chunks]:
        mine = [chunk for chunk in chunks if echoes.is_alike(job, chunk.config)]
        if not mine:
            continue
        answers[job.id] = await results_of(api, job)
        evidence.learn(job, answers[job.id])
        chunk = next((chunk for chunk in mine if evidence.proves(job, chunk)), None)
        if chunk is not None:
            give(chunk, job, WHOLE)
    held = {each.chunk_id for each in parked if each.held}
    rest = [job for job in strangers if job.id in answers and job.id not in taken]
    for chunk in [chunk for chunk in chunks if chunk.id in held]:
        alike = [job for job in rest if echoes.is_alike(job, chunk.config)]
        partial = evidence.partial(alike, chunk, chunks, echoes)
        if partial and evidence.lacks(partial[0], chunk, partial):
            give(chunk, partial[0], "of several jobs with results of this chunk's files it has the most good ones")
    return taken


def _of_a_file(job: RemoteJob, file_of: Mapping[str | None, str | None]) -> RemoteJob:
    """*job*; of one that was made on a file's parse the file is named, if some job on the file itself says which."""
    if job.file_id is None or job.file_id != job.parse_job_id:
        return job
    return replace(job, file_id=file_of.get(job.file_id) or job.file_id)


def _take_in(
    connection: Transaction,
    manifest: Manifest,
    scope: ledger_scope.Scope,
    job: RemoteJob,
    config: Config,
    answer: JobResults,
    run_id: str,
    at: str,
    of_content: Mapping[str, tuple[str, str]],
) -> list[str]:
    """Record what *job* says of the manifest's files, where the ledger has nothing good of them; which these are."""
    told = [row.file_id for row in answer.rows] + ([job.file_id] if job.file_id else [])
    sent_as = dict(of_content[key] for file_id in told if (key := canonical_id(file_id)) in of_content)
    reported = [of_content.get(canonical_id(file_id), (file_id,))[0] for file_id in told]
    escalation = config != manifest.config
    ended = job.status in TERMINAL
    fixed_by = run_id if ended else None
    file_ids = ledger_adopt.to_take_in(connection, scope, reported, fixed_by=fixed_by, escalation=escalation)
    if not file_ids:
        return []
    chunk_id = ledger_adopt.take_in(
        connection,
        scope,
        file_ids,
        job_config_id=ledger_scope.config_row(connection, config),
        escalation=escalation,
        api=manifest.api,
        run_id=run_id,
        job_id=job.id,
        at=at,
    )
    uploads.sent_as(connection, chunk_id, sent_as)
    jobs.note(connection, chunk_id, "adopted", "found in the API's list of jobs", at=at)
    if ended:
        end_job(connection, chunk_id, job, answer, at=at, partly=True)
    return file_ids
