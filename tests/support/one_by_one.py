"""A small v2 API whose jobs end when the test likes; what becomes of a create call is the test's to say."""

from __future__ import annotations

import json
import multiprocessing
from collections import Counter
from collections.abc import Callable
from typing import Literal

from aiohttp import web
from support.commands import Cli

from orchestrator.models import Json

#: What a test may have become of a create call instead of its answer: refused with this status; lost once it has taken
#: effect, or before; or whoever sent it is killed, likewise.
Fate = int | Literal["lose answer", "lose call", "kill after", "kill before"] | None

MANIFEST = """\
version: 1
name: letters
api: v2
rules:
  - type: invoice
    description: {description}
file_ids:
{ids}
"""


def manifest(cli: Cli, *file_ids: str, description: str = "contains line items and a total") -> None:
    ids = "\n".join(f"  - {file_id}" for file_id in file_ids)
    (cli.folder / "m.yaml").write_text(MANIFEST.format(description=description, ids=ids))


class OneByOne:
    """Every job is an invoice, has a parse job, and ends at once unless its file is in ``stuck``."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Json]] = {}
        self.by_key: dict[str, str] = {}
        self.fate: Callable[[dict[str, Json]], Fate] = lambda _body: None
        self.ends: dict[str, str] = {}  #: document -> the word that its jobs end with, instead of COMPLETED
        self.stuck: set[str] = set()  #: documents whose jobs do not end
        self.cancels: list[str] = []  #: what was asked to be cancelled
        self.on_cancel: Callable[[dict[str, Json]], Fate] = self.stop
        self.confidence = 0.9
        self.forgets_its_keys = False  #: its answer to a create call is the first job, and tells no key

    @property
    def documents(self) -> list[str]:
        """The document of each job, in the order of the creates."""
        return [job["file_input"] for job in self.jobs.values()]

    @property
    def bought(self) -> Counter[str]:
        """How many jobs were made on each document."""
        return Counter(self.documents)

    def stop(self, job: dict[str, Json]) -> Fate:
        """The answer to a cancel call, unless a test replaces it."""
        job["cancelled"] = True
        return None

    def stop_and_mend(self, job: dict[str, Json]) -> Fate:
        """Nor does any job that is made later get stuck."""
        self.stuck.clear()
        return self.stop(job)

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        parts = request.path.removeprefix("/api/v2/classify").strip("/").split("/")
        if request.method == "POST" and parts[1:] == ["cancel"]:
            self.cancels.append(parts[0])
            fate = self.on_cancel(self.jobs[parts[0]])
            return web.json_response(self._told(parts[0])) if fate is None else _struck(request, fate)
        if request.method == "POST":
            return self._create(request, json.loads(await request.read()))
        if parts == [""]:
            asked = request.query.getall("job_ids", list(self.jobs))
            return web.json_response({"items": [self._told(job_id) for job_id in asked], "next_page_token": None})
        return web.json_response(self._told(parts[0]))

    def _create(self, request: web.Request, body: dict[str, Json]) -> web.StreamResponse:
        fate = self.fate(body)
        if fate in (None, "lose answer", "kill after"):
            job_id = self.by_key.setdefault(body["transaction_id"], f"clj-{len(self.jobs)}")
            self.jobs.setdefault(job_id, body)
        return web.json_response(self._told(job_id)) if fate is None else _struck(request, fate)

    def _told(self, job_id: str) -> dict[str, Json]:
        job = next(iter(self.jobs.values())) if self.forgets_its_keys else self.jobs[job_id]
        document = job["file_input"]
        on_parse = document.startswith("pjb-")
        word = "RUNNING" if document in self.stuck else self.ends.get(document, "COMPLETED")
        word = "CANCELLED" if job.get("cancelled") else word
        result = {"type": "invoice", "confidence": self.confidence, "reasoning": "has a total"}
        return {
            "id": next(iter(self.jobs)) if self.forgets_its_keys else job_id,
            "project_id": "p",
            "user_id": "u",
            "status": word,
            "file_input": document,
            "document_input_type": "parse_job_id" if on_parse else "file_id",
            "parse_job_id": document if on_parse else f"pjb-of-{document}",
            "configuration": job["configuration"],
            "transaction_id": None if self.forgets_its_keys else job["transaction_id"],
            "result": result if word == "COMPLETED" else None,
            "created_at": "2026-11-25T02:00:00Z",
        }


def _struck(request: web.Request, fate: Fate) -> web.StreamResponse:
    if isinstance(fate, int):
        return web.json_response({"detail": f"refused with {fate}"}, status=fate)
    if str(fate).startswith("kill"):
        for child in multiprocessing.active_children():
            child.kill()
    assert request.transport is not None
    request.transport.abort()
    return web.Response()
