"""An API whose jobs fail on order, for the tests of sending files again."""

from __future__ import annotations

import re
from collections import Counter

from aiohttp import web

from orchestrator.models import Json


class Moody:
    """A v1 API whose jobs end at once; ``bad`` files have no result, a file ``at_fault`` sinks its job."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Json]] = {}
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
            if any(re.search(self.lost, file_id) for file_id in body["file_ids"]):
                return web.json_response({"detail": "upstream"}, status=503)
            return web.json_response(self._job(job_id))
        if parts == [""]:
            return web.json_response({"items": [self._job(job_id) for job_id in self.jobs]})
        if parts[1:] == ["results"]:
            job = self.jobs[parts[0]]
            rows = [f for f in job["file_ids"] if not re.search(self.left_out, f)]
            items = [self._row(f, job["mode"], failed=self._sunk(job) or re.search(self.bad, f)) for f in rows]
            return web.json_response({"items": items})
        return web.json_response(self._job(parts[0]))

    def _sunk(self, job: dict[str, Json]) -> bool:
        return any(re.search(self.at_fault, file_id) for file_id in job["file_ids"])

    def _job(self, job_id: str) -> dict[str, Json]:
        job = self.jobs[job_id]
        status = "ERROR" if self._sunk(job) else "SUCCESS"
        return {"id": job_id, "status": status, "rules": job["rules"], "mode": job["mode"], "user_id": "u"}

    def _row(self, file_id: str, mode: str, *, failed: object) -> dict[str, Json]:
        if failed:
            return {"id": "i", "file_id": file_id, "result": None}
        sure = 0.9 if mode == "MULTIMODAL" or not re.search(self.unsure, file_id) else 0.3
        label = "receipt" if mode == "MULTIMODAL" else "invoice"
        return {"id": "i", "file_id": file_id, "result": {"type": label, "confidence": sure, "reasoning": "r"}}
