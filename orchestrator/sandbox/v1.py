"""The v1 classifier jobs: many files a job, no idempotency key, results apart, file IDs never echoed."""

from __future__ import annotations

from hashlib import sha256

from orchestrator.models import Json
from orchestrator.sandbox.checking import USER_ID, UUID, Call, Checks, Refused, spelt
from orchestrator.sandbox.world import UNDER_WAY, Found, Job, Keep, Phase, Spec, World

JOBS = "/api/v1/classifier/jobs"

_LANGUAGE_NAMES = """
af az bs cs cy da de en es et fr ga hr hu id is it ku la lt lv mi ms mt nl no oc pi pl pt ro rs_latin sk sl sq sv sw
tl tr uz vi ar fa ug ur bn as mni ru rs_cyrillic be bg uk mn abq ady kbd ava dar inh che lbe lez tab tjk hi mr ne bh
mai ang bho mah sck new gom sa bgc th ch_sim ch_tra ja ko ta te kn
"""

LANGUAGES = frozenset(_LANGUAGE_NAMES.split())

WORDS = {
    Phase.PENDING: "PENDING",
    Phase.RUNNING: "PENDING",
    Phase.UNHEARD: "ANALYZING",
    Phase.DONE: "SUCCESS",
    Phase.PARTIAL: "PARTIAL_SUCCESS",
    Phase.ERROR: "ERROR",
    Phase.CANCELLED: "CANCELLED",
}

_NOT_READY = "Result not found. Check job status to see if it has completed."


def create(world: World, call: Call) -> tuple[int, Json]:
    options, body, checks = world.options, call.json_object(), Checks()
    file_ids = checks.file_ids(body, strict=options.strict_ids)
    rules = checks.rules(body)
    mode = checks.one_of(body.get("mode", "FAST"), ("mode",), ("FAST", "MULTIMODAL"))
    parsing = checks.object(body, ("parsing_configuration",))
    at = "parsing_configuration"
    lang = checks.one_of(parsing.get("lang", "en"), (at, "lang"), LANGUAGES)
    max_pages = checks.pages(parsing.get("max_pages", 5), (at, "max_pages"), None)
    target = checks.list(parsing, (at, "target_pages")) if parsing.get("target_pages") is not None else []
    for index, page in enumerate(target):
        checks.pages(page, (at, "target_pages", index), None)
    if options.both_page_fields == "refuse" and target and parsing.get("max_pages") is not None:
        message = "Value error, target_pages can't be used with max_pages"
        checks.add((at,), "value_error", message, parsing, error={})
    webhooks = checks.webhooks(body, "v1")
    checks.done()
    project_id = call.project_id
    refuse_unknown_files(world, file_ids, project_id)
    job = world.add_job(
        version="v1",
        project_id=project_id,
        file_ids=file_ids,
        spec=Spec(rules, mode, lang, max_pages, tuple(target) or None),
        transaction_id=None,
        body_digest=sha256(call.body).digest(),
        late_s=call.late_s,
        webhooks=webhooks,
    )
    return 200, _job(world, job)


def list_jobs(world: World, call: Call) -> tuple[int, Json]:
    options, project_id = world.options, call.project_id
    size = call.whole_number("page_size", options.page_size, 1, None)
    if options.bare_list:
        size = len(world.journal)
    elif options.max_page_size is not None:
        size = min(size, options.max_page_size)
    jobs, token = a_page(world, "v1", call, size, lambda job: job.project_id == project_id)
    items = [_job(world, job) for job in jobs]
    return 200, items if options.bare_list else {"items": items, "next_page_token": token, "total_size": None}


def get(world: World, call: Call) -> tuple[int, Json]:
    return 200, _job(world, _found(world, call))


def results(world: World, call: Call) -> tuple[int, Json]:
    job, options = _found(world, call), world.options
    phase = world.phase(job)
    rows: list[dict[str, Json]] = []
    if phase in UNDER_WAY:
        if options.early_results == "404":
            raise Refused(404, _NOT_READY)
    elif phase is Phase.ERROR and options.error_results == "404":
        raise Refused(404, _NOT_READY)
    elif phase is not Phase.ERROR or options.error_results == "rows":
        rows = _rows(world, job)
    size = options.results_page_size or len(rows)
    given = call.one("page_token") or "0"
    if not given.isdecimal():
        raise Refused(400, "Invalid page token")
    start = int(given)
    token = str(start + size) if start + size < len(rows) else None
    if world.story.happens("page-loop", job.number):
        token = given
    return 200, {"items": rows[start : start + size], "next_page_token": token, "total_size": None}


def refuse_unknown_files(world: World, file_ids: tuple[str, ...], project_id: str) -> None:
    """Refuse a file of another project; one that was never uploaded as the option ``unknown_files`` says."""
    refused = {"accept": (), "uploads": ("dfl-",), "refuse": ("",)}[world.options.unknown_files]
    for file_id in file_ids:
        file = world.file(file_id)
        if file_id.startswith(refused) if file is None else file.project_id != project_id:
            raise Refused(400, f"File ID {file_id} is not in Project ID {project_id}")


def a_page(world: World, version: str, call: Call, size: int, keep: Keep, oldest: float = float("-inf")) -> Found:
    """``World.page``, a token that was never given out refused."""
    try:
        return world.page(version, call.one("page_token"), size, keep, oldest)
    except ValueError:
        raise Refused(400, "Invalid page token") from None


def _found(world: World, call: Call) -> Job:
    if not UUID.fullmatch(call.id):
        checks = Checks(("path",))
        checks.add(("classify_job_id",), "uuid_parsing", "Input should be a valid UUID", call.id, error="not a UUID")
        checks.done()
    job = world.find("v1", call.id.lower())
    if job is None:
        raise Refused(404, "Classify job not found")
    return job


def _job(world: World, job: Job) -> dict[str, Json]:
    phase, spec = world.phase(job), job.spec
    created_at = world.wall(job.created_at).isoformat()
    return {
        "id": job.id,
        "project_id": job.project_id,
        "user_id": USER_ID,
        "status": WORDS[phase],
        "rules": [{"type": rule.type, "description": rule.description} for rule in spec.rules],
        "mode": spec.mode,
        "parsing_configuration": {
            "lang": spec.lang,
            "max_pages": spec.max_pages,
            "target_pages": spec.target_pages,
        },
        "error_message": "Classification failed" if phase is Phase.ERROR else None,
        "effective_at": created_at,
        "job_record_id": None,
        "created_at": created_at,
        "updated_at": created_at if phase in UNDER_WAY else world.wall(job.ends_at).isoformat(),
    }


def _rows(world: World, job: Job) -> list[dict[str, Json]]:
    ended_at = world.wall(job.ends_at).isoformat()
    return [
        {
            "id": world.story.uuid("row", job.id, index),
            "classify_job_id": job.id,
            "file_id": spelt(file_id, world.options.id_form),
            "result": answer.json() if answer else None,
            "created_at": ended_at,
            "updated_at": ended_at,
        }
        for index, (file_id, answer) in enumerate(world.rows(job))
    ]
