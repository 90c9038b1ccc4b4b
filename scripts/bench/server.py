"""The embedded API as a process of its own, with limits and durations to order, and what it saw.

As a program it is that process: ``server.py '{"creates_per_s": 20}'`` prints its base URL and serves until killed.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from time import sleep
from types import TracebackType
from typing import Any, Self

import httpx

from orchestrator.sandbox import Sandbox, SandboxOptions


@dataclass(frozen=True, slots=True)
class Seen:
    """The calls that the server has seen."""

    created: dict[str, datetime]  #: job ID -> when its create took effect
    requests: dict[str, int]  #: kind of call -> calls
    throttled: dict[str, int]  #: kind of call -> calls answered 429

    @property
    def span_s(self) -> float:
        """From the first create that took effect to the last."""
        return (max(self.created.values()) - min(self.created.values())).total_seconds()

    @property
    def refused(self) -> float:
        """The part of the creates that was answered 429."""
        return self.throttled.get("create", 0) / self.requests["create"]

    @property
    def status_calls(self) -> int:
        return self.requests.get("get", 0) + self.requests.get("list", 0)


class Server:
    """A sandbox with *options* (fields of ``SandboxOptions``) as a child process, for as long as the block runs."""

    def __init__(self, **options: Any) -> None:
        self._options = options

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, __file__, json.dumps(self._options)], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        self._client = httpx.Client(
            base_url=self.url, headers={"Authorization": "Bearer bench"}, trust_env=False, timeout=60
        )
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._client.close()
        self._process.kill()
        with self._process:  # closes the pipe and reaps
            pass

    def seen(self) -> Seen:
        journal = self._client.get("/_sandbox/journal").raise_for_status().json()
        created = {entry["job_id"]: datetime.fromisoformat(entry["at"]) for entry in journal["creates"]}
        return Seen(created, journal["requests"], journal["throttled"])

    def ends(self, job_ids: list[str]) -> dict[str, datetime]:
        """When each of these jobs, which have ended, did so: its ``updated_at``. Ask for ``seen`` first."""
        ends: dict[str, datetime] = {}
        for job_id in job_ids:
            path = "/api/v2/classify" if job_id.startswith("clj-") else "/api/v1/classifier/jobs"
            while (response := self._client.get(f"{path}/{job_id}")).status_code == 429:
                sleep(0.05)  # the limit on reads holds for us too
            ends[job_id] = datetime.fromisoformat(response.raise_for_status().json()["updated_at"])
        return ends


async def _serve(options: SandboxOptions) -> None:
    print(await Sandbox(options).start(), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(SandboxOptions(**json.loads(sys.argv[1]))))
