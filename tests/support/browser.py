"""A real Chromium without a window, spoken to through a pipe: what a page asks for, breaks, and looks like."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.models import Json

#: Where Debian, Fedora and others put it.
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

#: Where CI unpacks axe-core, which judges accessibility: see ``.ci/run``.
AXE = "AXE_CORE"

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)

PATIENCE_S = 60

#: Becomes a Chromium that reads from descriptor 3 and writes to descriptor 4, as it does with a debugging pipe.
_LAUNCH = """
import fcntl, os, sys
pipes = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3]]
for number, pipe in zip((3, 4), pipes):
    os.dup2(pipe, number)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """One page of one Chromium. ``events`` are all that it has told, in order."""

    def __init__(self, to: int, back: int) -> None:
        self._to, self._back = to, back
        self._read = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Json]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime", "Audits"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Json) -> dict[str, Json]:
        """The result of a call of the DevTools protocol; what is reported meanwhile goes to ``events``."""
        self._number += 1
        message: dict[str, Json] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            told = self._message()
            if told.get("id") == self._number:
                assert "error" not in told, told
                return dict(told["result"])

    def _message(self) -> dict[str, Json]:
        until = time.monotonic() + PATIENCE_S
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._back], [], [], max(0, until - time.monotonic()))
            assert ready, "Chromium does not answer"
            piece = os.read(self._back, 1 << 20)
            assert piece, "Chromium has ended"
            self._read += piece
        message, self._read = self._read.split(b"\0", 1)
        told: dict[str, Json] = json.loads(message)
        if "method" in told:
            self.events.append(told)
        return told

    def look(self, width: int, height: int = 900, *, dark: bool = False, medium: str = "screen") -> None:
        """Make the window so wide, the light so dark, and the medium a screen or paper."""
        scheme = "dark" if dark else "light"
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call(
            "Emulation.setEmulatedMedia", media=medium, features=[{"name": "prefers-color-scheme", "value": scheme}]
        )

    def open(self, page: Path) -> None:
        """Show the file *page*, until it is loaded."""
        self.events.clear()
        self.call("Page.navigate", url=page.absolute().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._message()

    def evaluate(self, expression: str) -> Json:
        """The value of a JavaScript expression in the page; a promise is awaited."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def picture(self, path: Path) -> None:
        """The whole page as a PNG."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))

    def paper(self, path: Path) -> None:
        """The page as it is printed, a PDF."""
        found = self.call("Page.printToPDF", printBackground=False, preferCSSPageSize=True)
        path.write_bytes(base64.b64decode(found["data"]))

    @property
    def requests(self) -> list[str]:
        """What the page asked for, itself included."""
        return [
            event["params"]["request"]["url"] for event in self.events if event["method"] == "Network.requestWillBeSent"
        ]

    @property
    def complaints(self) -> list[Json]:
        """What the browser has to say against the page: broken policy, errors, deprecated features."""
        methods = ("Log.entryAdded", "Audits.issueAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        return [event["params"] for event in self.events if event["method"] in methods]


def program() -> str | None:
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@contextmanager
def browser() -> Iterator[Browser]:
    """A Chromium of its own; the test is skipped where there is none."""
    found = program()
    if found is None:
        pytest.skip(f"no {' or '.join(NAMES[:2])} on this machine; CI installs it")
    their_in, to = os.pipe()
    back, their_out = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, str(their_in), str(their_out), found, *FLAGS, f"--user-data-dir={profile}"],
            pass_fds=(their_in, their_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(their_in)
        os.close(their_out)
        try:
            yield Browser(to, back)
        finally:
            os.close(to)
            process.kill()
            process.wait(PATIENCE_S)
            os.close(back)


def axe() -> str:
    """The source of axe-core; the test is skipped where there is none."""
    path = os.environ.get(AXE)
    if not path:
        pytest.skip(f"axe-core is not here; CI installs it and names it in {AXE}")
    return Path(path).read_text(encoding="utf-8")
