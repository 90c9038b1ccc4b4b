"""Five nights under the machine's own cron, with a fake API and a monitor: what each night tells, and whom.

Needs root and Debian's cron, in a machine of its own such as a container; one night a minute. Prints for each night the
exit code, the first lines of the mail and what the monitor was told, and ends in 1 when one is not as it should be.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from aiohttp import web

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.moody import Moody  # noqa: E402 - after the path to it
from support.server import Server  # noqa: E402 - as above

CRONTAB = Path("/etc/cron.d/orchestrator-soak-nights")

#: Cron runs each entry with this shell, which keeps what cron would mail.
SHELL = """#!/bin/bash
out={folder}/mail/$(date +%s%N)
bash "$@" >"$out.text" 2>&1
echo $? >"$out.code"
"""


@dataclass
class World:
    """What the nights find: an API in some state, and a monitor that notes what it is told."""

    state: str = "good"
    api: Moody = field(default_factory=Moody)
    told: list[tuple[str, str]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if self.state == "key expired":
            return web.json_response({"detail": "Invalid API key"}, status=401)
        if self.state == "API down":
            return web.json_response({"detail": "upstream"}, status=503)
        if self.state == "overlapping" and request.method == "GET":
            job_id = request.path.rpartition("/")[2]
            if job_id == "jobs":
                return web.json_response({"items": [], "next_page_token": None})
            return web.json_response({"id": job_id, "status": "PENDING", "rules": [], "user_id": "u"})
        return await self.api(request)

    async def listen(self, request: web.Request) -> web.StreamResponse:
        self.told.append((request.path, (await request.read()).decode().partition("\n")[0]))
        return web.Response()


@dataclass
class Night:
    """A state of the world, and the exit codes that it should come to: of each entry of that minute, sorted."""

    state: str
    codes: list[int]
    before: Callable[[], object] = lambda: None
    after: Callable[[], object] = lambda: None


def main() -> int:
    argparse.ArgumentParser(description=__doc__).parse_args()
    if os.geteuid() != 0:
        print("soak nights: needs root, in a machine of its own", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="nights-") as name:
        return _nights(Path(name))


def _nights(folder: Path) -> int:
    world = World()
    api, monitor = Server(world.answer), Server(world.listen)
    api.start()
    monitor.start()
    (folder / "mail").mkdir()
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], check=True)
    shell = folder / "shell"
    shell.write_text(SHELL.format(folder=folder))
    shell.chmod(0o755)
    _write_manifest(disk, api, monitor)
    filler = disk / "filler"
    nights = [
        Night("good", [0]),
        Night("API down", [7]),
        Night("key expired", [5]),
        Night("disk full", [8], lambda: _fill(filler), lambda: filler.unlink(missing_ok=True)),
        Night("overlapping", [3, 4]),
    ]
    cron = None
    wrong = 0
    try:
        for number, night in enumerate(nights):
            world.state = night.state
            world.told.clear()
            (disk / "list.txt").write_text("".join(f"f{i}\n" for i in range(5 * (number + 1))))
            night.before()
            entries = 2 if night.state == "overlapping" else 1
            _write_crontab(shell, disk, entries)
            if cron is None:
                cron = subprocess.Popen(["cron", "-f"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            codes = _wait(folder / "mail", entries)
            CRONTAB.unlink(missing_ok=True)
            night.after()
            good = codes == night.codes
            wrong += not good
            print(f"== {night.state}: exit {codes}: {'as it should be' if good else f'WRONG, not {night.codes}'}")
            for text in sorted((folder / "mail").glob("*.text")):
                for line in text.read_text().splitlines()[:3] or ["(no mail)"]:
                    print(f"   mail     {line}")
                text.unlink()
            for path, body in world.told or [("nothing", "")]:
                print(f"   monitor  {path}  {body}")
            sys.stdout.flush()
    finally:
        CRONTAB.unlink(missing_ok=True)
        if cron is not None:
            cron.terminate()
            cron.wait()
        subprocess.run(["umount", "-l", disk], check=False)
        api.stop()
        monitor.stop()
    return 1 if wrong else 0


def _write_manifest(folder: Path, api: Server, monitor: Server) -> None:
    (folder / "m.yaml").write_text(
        "version: 1\nname: night\nchunk_size: 5\nfile_ids_from: [list.txt]\nrules:\n"
        "  - {type: invoice, description: contains an invoice number and a total amount}\n"
    )
    env = folder / ".env"
    env.write_text(
        f"LLAMA_CLOUD_API_KEY=llx-soak-nights\nLLAMA_CLOUD_BASE_URL={api.url}\n"
        f"ORCHESTRATOR_PING_URL={monitor.url}/check\nORCHESTRATOR_RETRY_BUDGET_S=5\nORCHESTRATOR_SETTLE_S=1\n"
    )
    env.chmod(0o600)


def _write_crontab(shell: Path, folder: Path, entries: int) -> None:
    """The entry that `orchestrator schedule cron` prints, for every minute."""
    program = ROOT / ".venv/bin/orchestrator"
    line = f"* * * * * root {program} nightly {folder}/m.yaml --deadline 20s\n"
    CRONTAB.write_text(f"SHELL={shell}\n" + line * entries)
    CRONTAB.chmod(0o644)


def _wait(mail: Path, entries: int) -> list[int]:
    """The exit codes of so many entries, sorted, once they have ended."""
    end = time.monotonic() + 150
    while time.monotonic() < end:
        found = sorted(mail.glob("*.code"))
        if found and datetime.now().second < 58:  # noqa: DTZ005 - cron goes by the machine's own clock
            CRONTAB.unlink(missing_ok=True)  # one minute is one night
        if len(found) >= entries and all(path.read_text() for path in found):
            codes = sorted(int(path.read_text()) for path in found)
            for path in found:
                path.unlink()
            return codes
        time.sleep(0.2)
    return []


def _fill(path: Path) -> None:
    """Leave no room on the disk."""
    try:
        with path.open("wb") as file:
            while True:
                file.write(b"\0" * 4096)
    except OSError:
        pass


if __name__ == "__main__":
    sys.exit(main())
