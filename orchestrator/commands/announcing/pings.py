"""The monitor of a schedule, which hears of the start and the end of each night. A dead one fails and slows nothing.

Two kinds of URL are understood. A plain one is a check of healthchecks.io and its kin: ``/start`` and the exit code are
added to its path, ``rid`` says which two belong together. One with a query or a placeholder is kept whole and called
at the end: ``{state}`` becomes up or down, ``{exit}`` the exit code, ``{summary}`` one line. Without ``{state}`` such
a URL means "up", so a night that counts as down does not call it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

import httpx

#: The longest body that the monitors take.
MOST_BODY = 100_000

#: The most that one call may take, the calls that are tried, and the pause between two of them.
TIMEOUT_S = 5.0
TRIES = 3
PAUSE_S = 1.0

#: The longest ``{summary}``: it stands in a URL.
MOST_IN_URL = 200


@dataclass(frozen=True, slots=True)
class Monitor:
    """The monitor at ``url``. ``down``: the exit codes reported to it as trouble; None: all but 0."""

    url: str
    down: frozenset[int] | None = None
    transport: httpx.BaseTransport | None = None
    sleep: Callable[[float], None] = time.sleep

    def start(self, run_id: str) -> bool:
        """Report the start of *run_id*; whether the monitor took it, or has no URL for it."""
        if self._whole:
            return True
        return self._call(f"{self.url.rstrip('/')}/start?rid={rid(run_id)}", "")

    def end(self, run_id: str | None, exit_code: int, body: str) -> bool:
        """Report the end of a night, of *run_id* if a run began; whether the monitor took it."""
        bad = exit_code != 0 if self.down is None else exit_code in self.down
        if self._whole:
            if bad and "{state}" not in self.url:
                return True
            first = body.partition("\n")[0][:MOST_IN_URL]
            url = self.url.replace("{state}", "down" if bad else "up").replace("{exit}", str(exit_code))
            return self._call(url.replace("{summary}", quote(first, safe="")), body)
        which = f"?rid={rid(run_id)}" if run_id else ""
        return self._call(f"{self.url.rstrip('/')}/{exit_code if bad else 0}{which}", body)

    @property
    def _whole(self) -> bool:
        return "?" in self.url or "{" in self.url

    def _call(self, url: str, body: str) -> bool:
        content = body.encode()[:MOST_BODY].decode(errors="ignore").encode()
        for attempt in range(TRIES):
            if attempt:
                self.sleep(PAUSE_S)
            try:
                with httpx.Client(timeout=TIMEOUT_S, transport=self.transport) as client:
                    if client.post(url, content=content).is_success:
                        return True
            except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError):
                continue
        return False


def rid(run_id: str) -> str:
    """The UUID by which a monitor finds the start of an end."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"orchestrator:run:{run_id}"))
