"""The v2 classify API: one document a job, an idempotency key, results within the job, cancel and delete."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256

from orchestrator.models import Json, Rule
from orchestrator.sandbox.checking import USER_ID, Call, Checks, Refused, spelt
from orchestrator.sandbox.v1 import a_page, refuse_unknown_files
from orchestrator.sandbox.world import UNDER_WAY, Job, Phase, Spec, World

JOBS = "/api/v2/classify"

WORDS = {
    Phase.PENDING: "PENDING",
    Phase.RUNNING: "RUNNING",
    Phase.UNHEARD: "ANALYZING",
    Phase.DONE: "COMPLETED",
    Phase.PARTIAL: "COMPLETED",
    Phase.ERROR: "FAILED",
    Phase.CANCELLED: "CANCELLED",
}

#: What every saved configuration asks for, as there is no way to save one here.
SAVED_RULES = (
    Rule("invoice", "asks for payment: invoice number, line items and a total amount"),
    Rule("other", "anything that is not an invoice"),
)

#: Most pages that a document nobody has can turn out to have.
_MADE_UP_PAGES = 8


def create(world: World, call: Call) -> tuple[int, Json]:
    body, project_id, checks = call.json_object(), call.project_id, Checks()
    key = body.get("transaction_id")
    if key is not None:
        checks.text(key, ("transaction_id",), 1, 1000)
        checks.done()
        if original := world.of_transaction(project_id, key):
            return 200, job_json(world, original)
    given = body.get("file_input") or body.get("file_id") or body.get("parse_job_id")
    if given is None:
        checks.add(("file_input",), "missing", "Field required", body)
    document = checks.text(given or "-", ("file_input",), 1, 200)
    spec = _spec(checks, body)
    webhooks = checks.webhooks(body, "v2")
    checks.done()
    if not _is_parse_job(document):
        refuse_unknown_files(world, (document,), project_id)
    elif world.story.happens("parse-gone", document):
        raise Refused(400, f"Parse Job ID {document} is not in Project ID {project_id}")
    job = world.add_job(
        version="v2",
        project_id=project_id,
        file_ids=(document,),
        spec=spec,
        transaction_id=key,
        body_digest=sha256(call.body).digest(),
        late_s=call.late_s,
        webhooks=webhooks,
    )
    return 200, job_json(world, job)


def list_jobs(world: World, call: Call) -> tuple[int, Json]:
    project_id = call.project_id
    size = call.whole_number("page_size", min(world.options.page_size, 100), 1, 100)
    status, configuration_id = call.one("status"), call.one("configuration_id")
    if status is not None:
        checks = Checks(("query",))
        checks.one_of(status, ("status",), ("PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED"))
        checks.done()
    oldest, newest = _moment(world, call, "on_or_after"), _moment(world, call, "on_or_before")

    def keep(job: Job) -> bool:
        return (
            job.project_id == project_id
            and job.created_at <= newest
            and (configuration_id is None or job.spec.configuration_id == configuration_id)
            and (status is None or WORDS[world.phase(job)] == status)
        )

    token: str | None = None
    if job_ids := call.query.get("job_ids"):
        named = (world.find("v2", job_id) for job_id in dict.fromkeys(job_ids))
        jobs = [job for job in named if job is not None and job.created_at >= oldest and keep(job)]
        start = call.whole_number("page_token", 0, 0, None)
        token = str(start + size) if start + size < len(jobs) else None
        jobs = jobs[start : start + size]
    else:
        jobs, token = a_page(world, "v2", call, size, keep, oldest)
    usage = "usage" in call.query.get("expand", ()) and world.options.usage_on == "both"
    items = [job_json(world, job, usage=usage) for job in jobs]
    return 200, {"items": items, "next_page_token": token, "total_size": None}


def get(world: World, call: Call) -> tuple[int, Json]:
    return 200, job_json(world, _found(world, call), usage="usage" in call.query.get("expand", ()))


def cancel(world: World, call: Call) -> tuple[int, Json]:
    job = _found(world, call)
    if world.phase(job) not in UNDER_WAY:
        raise Refused(world.options.refusal, "Classify job has ended and cannot be cancelled")
    job.cancelled, job.ends_at = True, world.now()
    return 200, job_json(world, job)


def delete(world: World, call: Call) -> tuple[int, Json]:
    job = _found(world, call)
    if world.phase(job) in UNDER_WAY:
        raise Refused(world.options.refusal, "Classify job has not ended and cannot be deleted")
    world.delete(job)
    return 200, {"id": job.id, "project_id": job.project_id}


def job_json(world: World, job: Job, *, usage: bool = False) -> dict[str, Json]:
    phase, spec, (document,) = world.phase(job), job.spec, job.file_ids
    on_parse_job = _is_parse_job(document)
    answer = next((found for _, found in world.rows(job)), None) if phase is Phase.DONE else None
    parsing: dict[str, Json] = {"lang": spec.lang, "max_pages": spec.max_pages, "target_pages": spec.target_pages}
    value: dict[str, Json] = {
        "id": job.id,
        "project_id": job.project_id,
        "user_id": USER_ID,
        "status": WORDS[phase],
        "file_input": document if on_parse_job else spelt(document, world.options.id_form),
        "document_input_type": "parse_job_id" if on_parse_job else "file_id",
        "parse_job_id": document if on_parse_job else f"pjb-{world.story.uuid('parse', job.id)}",
        "configuration": {
            "rules": [{"type": rule.type, "description": rule.description} for rule in spec.rules],
            "mode": spec.mode,
            "parsing_configuration": parsing,
        },
        "configuration_id": spec.configuration_id,
        "transaction_id": job.transaction_id,
        "error_message": "Classification failed" if phase is Phase.ERROR else None,
        "result": answer.json() if answer else None,
        "created_at": world.wall(job.created_at).isoformat(),
        "updated_at": world.wall(job.created_at if phase in UNDER_WAY else job.ends_at).isoformat(),
    }
    return value | {"usage": _usage(world, job, phase)} if usage else value


def _usage(world: World, job: Job, phase: Phase) -> dict[str, Json] | None:
    """A job is billed through the parse job that it runs; on a parse job of the caller's it costs nothing."""
    if phase in UNDER_WAY or world.now() < job.ends_at + world.options.usage_lag_s:
        return None
    document = job.file_ids[0]
    pages = 1 if world.file(document) is not None else 1 + int(world.story.unit("pages", document) * _MADE_UP_PAGES)
    free = _is_parse_job(document) or phase is not Phase.DONE
    credits_ = 0 if free else min(pages, job.spec.max_pages or pages)
    return {"credits": credits_, "parse_credits": credits_}


def _spec(checks: Checks, body: dict[str, Json]) -> Spec:
    saved = body.get("configuration_id")
    if saved is not None and body.get("configuration") is not None:
        message = "Value error, give configuration or configuration_id, not both"
        checks.add((), "value_error", message, None, error={})
    if saved is not None:
        if not str(saved).startswith("cfg-"):
            raise Refused(404, f"Classify configuration {saved} not found")
        return Spec(SAVED_RULES, "FAST", "en", None, None, str(saved))
    if body.get("configuration") is None:
        checks.add(("configuration",), "missing", "Field required", body)
        return Spec((), "FAST", "en", None, None)
    at = "configuration"
    configuration = checks.object(body, (at,))
    rules = checks.rules(configuration, at)
    mode = checks.one_of(configuration.get("mode", "FAST"), (at, "mode"), ("FAST",))
    parsing = checks.object(configuration, (at, "parsing_configuration"))
    loc = (at, "parsing_configuration")
    lang = checks.text(parsing.get("lang", "en"), (*loc, "lang"), 1, 50)
    max_pages = checks.pages(parsing.get("max_pages"), (*loc, "max_pages"), 1)
    pages = parsing.get("target_pages")
    if pages is not None:
        checks.text(pages, (*loc, "target_pages"), 1, 10_000)
    return Spec(rules, mode, lang, max_pages, pages)


def _is_parse_job(document: str) -> bool:
    return document.startswith("pjb-")


def _found(world: World, call: Call) -> Job:
    job = world.find("v2", call.id)
    if job is None:
        raise Refused(404, "Classify job not found")
    return job


def _moment(world: World, call: Call, side: str) -> float:
    """The filter ``created_at_<side>`` in seconds since the sandbox began; without it, no bound."""
    name = f"created_at_{side}"
    given = call.one(name)
    if given is None:
        return float("-inf") if side == "on_or_after" else float("inf")
    try:
        moment = datetime.fromisoformat(given)
    except ValueError:
        checks = Checks(("query",))
        checks.add((name,), "datetime_from_date_parsing", "Input should be a valid datetime or date", given)
        checks.done()
        raise
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - world.wall(0)).total_seconds()
