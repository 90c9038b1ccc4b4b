"""An API whose jobs fail on order, for the tests of sending files again."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from aiohttp import web

from orchestrator.models import Json


@dataclass(frozen=True)
class Mood:
    """How the files of a job end, each as a pattern of their IDs."""

    bad: str
    left_out: str
    at_fault: str
    unsure: str

    def sinks(self, job: dict[str, Json]) -> bool:
        return any(re.search(self.at_fault, file_id) for file_id in job["file_ids"])


class Moody:
    """A v1 API whose jobs end at once; ``bad`` files have no result, a file ``at_fault`` sinks its job.

    A job stays what it was made in: a mood that passes changes only those to come, and those of others in ``jobs``.
    """

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Json]] = {}
        self.made_in: dict[str, Mood] = {}
        self.bad = "^$"
        self.left_out = "^$"
        self.at_fault = "^$"
        self.unsure = "^$"
        self.refused = "^$"  #: a create call with such a file is answered 422: the quickest way to fail a chunk
        self.lost = "^$"  #: a create call with such a file takes effect, and its answer is a 503
        self.calls = 0  #: creates, refused ones included

    @property
    def bought(self) -> Counter[str]:
        """How often each file was sent."""
        return Counter(file_id for job in self.jobs.values() for file_id in job["file_ids"])

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        parts = request.path.removeprefix("/api/v1/classifier/jobs").strip("/").split("/")
        if request.method == "POST":
            body, job_id = await request.json(), f"job-{len(self.jobs)}"
            self.calls += 1
            if any(re.search(self.refused, file_id) for file_id in body["file_ids"]):
                return web.json_response({"detail": "no such file"}, status=422)
            self.jobs[job_id] = body
            self.made_in[job_id] = self._mood()
            if any(re.search(self.lost, file_id) for file_id in body["file_ids"]):
                return web.json_response({"detail": "upstream"}, status=503)
            return web.json_response(self._job(job_id))
        if parts == [""]:
            return web.json_response({"items": [self._job(job_id) for job_id in self.jobs]})
        if parts[1:] == ["results"]:
            job = self.jobs[parts[0]]
            mood = self._mood(parts[0])
            rows = [f for f in job["file_ids"] if not re.search(mood.left_out, f)]
            failed = {f for f in rows if mood.sinks(job) or re.search(mood.bad, f)}
            items = [_row(f, job["mode"], failed=f in failed, unsure=bool(re.search(mood.unsure, f))) for f in rows]
            return web.json_response({"items": items})
        return web.json_response(self._job(parts[0]))

    def _mood(self, job_id: str = "") -> Mood:
        """The mood that the job was made in; the present one for any other."""
        return self.made_in.get(job_id) or Mood(self.bad, self.left_out, self.at_fault, self.unsure)

    def _job(self, job_id: str) -> dict[str, Json]:
        job = self.jobs[job_id]
        status = "ERROR" if self._mood(job_id).sinks(job) else "SUCCESS"
        return {"id": job_id, "status": status, "rules": job["rules"], "mode": job["mode"], "user_id": "u"}


def _row(file_id: str, mode: str, *, failed: bool, unsure: bool) -> dict[str, Json]:
    if failed:
        return {"id": "i", "file_id": file_id, "result": None}
    sure = 0.9 if mode == "MULTIMODAL" or not unsure else 0.3
    label = "receipt" if mode == "MULTIMODAL" else "invoice"
    return {"id": "i", "file_id": file_id, "result": {"type": label, "confidence": sure, "reasoning": "r"}}
