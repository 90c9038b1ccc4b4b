"""The server: the routes of both versions, told by ``telling`` as ``temper`` has it. One event loop serves them all."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from hostile import telling
from hostile.books import Books, Job, fraction
from hostile.temper import HONEST, Temper
from hostile.trouble import lost, refused, said, throttled
from hostile.wire import Answer, Manner, Request, read, write

KEY = "llx-hostile-0123456789"

V1, V2 = "/api/v1/classifier/jobs", "/api/v2/classify"
_V1_ONE = re.compile(rf"{V1}/([^/]+)(/results)?")
_V2_ONE = re.compile(rf"{V2}/([^/]+)(/cancel)?")

#: Seconds in which it throttles, and after which its clock jumps, counted from the first request.
THROTTLES_S, JUMPS_S = 2.0, 1.0


class Loop:
    """An event loop in a thread of its own, for as long as the block runs."""

    def __enter__(self) -> Self:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class Server:
    """One server on a port of its own; the books stay when its temper changes."""

    def __init__(self, seed: int, temper: Temper, books: Books) -> None:
        self.seed, self.temper, self.books = seed, temper, books
        self.began = time.monotonic()
        self.creates = self.requests = self.seen = 0
        self.faults: list[str] = []  #: its own, which no client may cause
        self._connections: set[asyncio.Task[None]] = set()

    # Life

    def start(self, loop: asyncio.AbstractEventLoop) -> str:
        """Serve; the base URL."""
        self._loop = loop
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0), loop
        ).result()
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()

    def be_honest(self) -> None:
        """Do from now on what the contract says, at once and in the plainest form."""
        self.temper = HONEST

    async def _stop(self) -> None:
        self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while (request := await read(reader)) is not None:
                if self.temper.slow_s:
                    await asyncio.sleep(self.temper.slow_s)
                if not await write(writer, self._answer(request)):
                    break
        except (OSError, asyncio.CancelledError):
            pass  # the client has left, or the server is being stopped
        except Exception as error:
            self.faults.append(f"{type(error).__name__}: {error}")
            raise
        finally:
            self._connections.discard(task)
            writer.close()

    # Time

    def now(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        """What the server takes for the time, in seconds since 1970."""
        jumped = self.temper.clock_jumps_s if self.now() - self.began > JUMPS_S else 0.0
        return time.time() + self.temper.clock_off_s + jumped

    def _happens(self, share: float, *what: object) -> bool:
        return share > 0 and fraction(self.seed, *what) < share

    # Answers

    def _answer(self, request: Request) -> Answer:
        self.requests += 1
        if self.requests == 1:
            self.began = self.now()
        temper = self.temper
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return refused(401)
        early = self.now() - self.began < THROTTLES_S
        if early and self._happens(temper.throttled, "throttled", self.requests):
            return throttled(temper.throttle_status, temper.retry_after)
        if request.method == "GET" and self._happens(temper.failing_reads, "reading", self.requests):
            broken = (said({}, manner=Manner.RESET), refused(500), refused(502), said({"items": []}, manner=Manner.CUT))
            return broken[int(fraction(self.seed, "form", self.requests) * len(broken))]
        answer = self._routed(request)
        if answer.manner is Manner.PLAIN and answer.body:
            unasked = temper.manner is Manner.GZIP and "gzip" not in request.headers.get("accept-encoding", "")
            return Answer(answer.status, answer.body, Manner.PLAIN if unasked else temper.manner, answer.headers)
        return answer

    def _routed(self, request: Request) -> Answer:
        route = (request.method, request.path)
        if route in (("POST", V1), ("POST", V2)):
            return self._create(json.loads(request.body), "v1" if request.path == V1 else "v2")
        if route in (("GET", V1), ("GET", V2)):
            return self._list(request.query, "v1" if request.path == V1 else "v2")
        if request.method == "GET" and (match := _V1_ONE.fullmatch(request.path)):
            return self._results(match[1]) if match[2] else self._get(match[1])
        if match := _V2_ONE.fullmatch(request.path):
            return self._get(match[1]) if request.method == "GET" else refused(409)
        return refused(404)

    def _create(self, body: dict[str, Any], api: str) -> Answer:
        temper = self.temper
        self.creates += 1
        if self._happens(temper.lost_before, "before", self.creates):
            return lost(temper.loss, None)
        files = body["file_ids"] if api == "v1" else [body["file_input"]]
        asked = {"rules": body["rules"]} | body if api == "v1" else body["configuration"]
        asked = {"mode": "FAST", "parsing_configuration": {"lang": "en", "max_pages": 5}} | asked
        key = body.get("transaction_id") if api == "v2" else None
        if key is not None and (old := self.books.keys.get(key)):
            return refused(409) if temper.conflict else said(self._told(old))
        lasts_s = 0.0 if temper.create_answer == "ended" else temper.lasts_s
        lasts_s *= 0.5 + fraction(self.seed, "lasts", self.creates)
        job = Job(
            self.books.new_id(api), api, tuple(files), asked | {"transaction_id": key}, self.now(), self.wall(), lasts_s
        )
        self.books.add(job)
        if key is not None:
            self.books.keys[key] = job
        told = self._told(job)
        if self._happens(temper.lost_after, "after", self.creates) or (temper.lost_first and self.creates == 1):
            return lost(temper.loss, told)
        strangers = [other for other in self.books.jobs.values() if other.foreign]
        if temper.foreign_id and self.creates == 2 and strangers:
            told["id"] = strangers[0].id
        return said(self._created(told), temper.create_status)

    def _created(self, told: dict[str, Any]) -> dict[str, Any]:
        """The answer to a create call, in the form of the day."""
        optional = ("created_at", "updated_at", "error_message")
        match self.temper.create_answer:
            case "only id":
                return {"id": told["id"]}
            case "no status":
                return {name: value for name, value in told.items() if name != "status"}
            case "odd status":
                return {**told, "status": "ACCEPTED"}
            case "no rules":
                return {name: value for name, value in told.items() if name not in ("rules", "configuration")}
            case "extra":
                return {**told, "job": {"id": "another"}, "jobs": []}
            case "nulls":
                return {**told, **dict.fromkeys(optional)}
            case _:
                return told

    def _told(self, job: Job, *, listed: bool = False) -> dict[str, Any]:
        return telling.job(job, self.books, self.temper, self.now(), listed=listed)

    def _find(self, job_id: str) -> Job | None:
        job = self.books.jobs.get(job_id) or self.books.jobs.get(job_id.lower())
        return None if job is None or self.now() < job.born + self.temper.get_lag_s else job

    def _broken(self, job: Job) -> bool:
        return not job.foreign and self._happens(self.temper.broken_jobs, "broken", job.id)

    def _get(self, job_id: str) -> Answer:
        if self.temper.get_down:
            return refused(self.temper.get_down)
        job = self._find(job_id)
        if job is None:
            return said({"detail": "Classify job not found"}, 404)
        if job.api == "v2" and self._broken(job):
            return refused(self.temper.broken)
        return said(self._told(job))

    def _results(self, job_id: str) -> Answer:
        job = self._find(job_id)
        if job is None:
            return said({"detail": "Classify job not found"}, 404)
        late = self.now() < job.born + job.lasts_s + self.temper.late_s
        if not job.over(self.now()) or (late and self.temper.late == "404"):
            return said({"detail": "Result not found. Check job status to see if it has completed."}, 404)
        if late and self.temper.late == "500":
            return refused(500)
        if self._broken(job):
            return refused(self.temper.broken)
        return said(telling.rows(job, self.books, self.temper, self.now()))

    # The list

    def _list(self, query: Mapping[str, Sequence[str]], api: str) -> Answer:
        temper = self.temper
        if temper.list_down:
            return refused(temper.list_down)
        asked = int((query.get("page_size") or ["50"])[0])
        if temper.list_most and asked > temper.list_most:
            return refused(422)
        jobs = self._shown(query, api)
        if temper.bare:
            return said([self._row(job) for job in jobs[: temper.bare]])
        token = (query.get("page_token") or [""])[0]
        digits = re.search(r"\d+", token)
        start = int(digits[0]) if digits else 0
        end = start + max(1, min(asked, temper.page_cap))
        if temper.blank_pages and start and not token.startswith("b"):
            return said({"items": [], "next_page_token": f"b-{start}-", "total_size": None})
        page: dict[str, Any] = {"items": [self._row(job) for job in jobs[start:end]]}
        if end < len(jobs) or temper.loops:
            following = end - 1 if temper.overlap and end - start > 1 else end
            page["next_page_token"] = self._token(following if end < len(jobs) else 0)
        elif temper.last_token != "absent":
            page["next_page_token"] = "" if temper.last_token == "empty" else None
        sizes = {"zero": 0, "text": str(len(jobs)), "wrong": 3}
        return said(page | {"total_size": sizes.get(temper.total_size)})

    def _token(self, place: int) -> Any:
        match self.temper.token:
            case "long":
                return f"-{place}-{'x' * 3000}"
            case "odd":
                return f"-{place}- &page_token=%00+/?#é"
            case "number":
                return place
            case _:
                return f"-{place}-"

    def _shown(self, query: Mapping[str, Sequence[str]], api: str) -> list[Job]:
        """The jobs that the list shows, in its order."""
        temper, now = self.temper, self.now()
        jobs = [job for job in self.books.jobs.values() if job.api == api]
        jobs = [job for job in jobs if job.foreign or (now >= job.born + temper.lag_s and not temper.hides_own)]
        if (wanted := query.get("job_ids")) and not temper.ignores_filter:
            jobs = [job for job in jobs if job.id in wanted]
        for name, sign in (("created_at_on_or_after", 1), ("created_at_on_or_before", -1)):
            if bounds := query.get(name):
                bound = datetime.fromisoformat(bounds[0]).timestamp()
                jobs = [job for job in jobs if (job.stamp - bound) * sign >= 0]
        jobs.sort(key=lambda job: job.stamp, reverse=temper.order != "old")
        match temper.order:
            case "status":
                jobs.sort(key=lambda job: telling.status(job, self.books, HONEST, now))
            case "foreign":
                jobs.sort(key=lambda job: not job.foreign)
            case "id":
                jobs.sort(key=lambda job: job.id)
            case "any":
                jobs.sort(key=lambda job: fraction(self.seed, "order", job.id))
            case _:
                pass
        return jobs

    def _row(self, job: Job) -> Any:
        """*job* as the list tells it."""
        told = self._told(job, listed=True)
        first = job.foreign and next(other for other in self.books.jobs.values() if other.foreign) is job
        if not first:
            return told
        rows: dict[str, Any] = {
            "number id": {**told, "id": 12345}, "null id": {**told, "id": None}, "null": None, "text": "a job",
            "null rules": {**told, "rules": None, "configuration": None},
            "no status": {name: value for name, value in told.items() if name != "status"}, "list": [],
        }  # fmt: skip
        return rows.get(self.temper.foreign_row, told)
