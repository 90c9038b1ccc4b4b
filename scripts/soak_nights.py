"""Five nights under the machine's own cron, with a fake API and a monitor: what each night tells, and whom.

Needs root, Debian's cron and promtool, in a machine of its own such as a container; one night a minute. Prints for
each night the exit code, the first lines of the mail, what the monitor was told, the alerts that Prometheus would raise
on the figures that the night left, and how the commands of the mail end in a shell at home once the trouble is over.
Ends in 1 when one of these is not as it should be.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import yaml
from aiohttp import web

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.moody import Moody  # noqa: E402 - after the path to it
from support.server import Server  # noqa: E402 - as above

ALERTS = ROOT / "configs/prometheus-alerts.yml"

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
        self.told.append((request.path, (await request.read()).decode()))
        return web.Response()


@dataclass
class Night:
    """A state of the world, and what it should come to: ``codes`` of each entry of that minute, sorted."""

    state: str
    codes: list[int]
    alerts: frozenset[str] = frozenset({"OrchestratorRunFailed"})
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
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=320m", "tmpfs", disk], check=True)
    shell = folder / "shell"
    shell.write_text(SHELL.format(folder=folder))
    shell.chmod(0o755)
    _write_manifest(disk, api, monitor)
    filler = disk / "filler"
    nights = [
        Night("good", [0], frozenset()),
        Night("API down", [7]),
        Night("key expired", [5]),
        Night("disk full", [8], before=lambda: _fill(filler), after=lambda: filler.unlink(missing_ok=True)),
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
            told = list(world.told)
            mails = [text.read_text() for text in sorted((folder / "mail").glob("*.text"))]
            for text in (folder / "mail").glob("*.text"):
                text.unlink()
            print(f"== {night.state}: exit {codes}")
            faults = [f"exit {codes}, not {night.codes}"] if codes != night.codes else []
            faults += _mail_faults(mails, night) + _monitor_faults(told, night)
            faults += _alert_faults(folder / "night.prom", night)
            world.state = "good"
            faults += _command_faults(mails)
            print("   " + ("as it should be" if not faults else f"WRONG: {'; '.join(faults)}"), flush=True)
            wrong += bool(faults)
    finally:
        CRONTAB.unlink(missing_ok=True)
        if cron is not None:
            cron.terminate()
            cron.wait()
        subprocess.run(["umount", "-l", disk], check=False)
        api.stop()
        monitor.stop()
    return 1 if wrong else 0


def _mail_faults(mails: list[str], night: Night) -> list[str]:
    """Print how each mail begins. A good night mails nothing, and of two at once that which found the other says so."""
    for mail in mails:
        for line in mail.splitlines()[:3] or ["(no mail)"]:
            print(f"   mail     {line}")
    codes = sorted(int(found[1]) for mail in mails if (found := re.match(r"night: exit (\d+)", mail)))
    wanted = [code for code in night.codes if code]
    return [] if codes == wanted else [f"mails of exit {codes}, not {wanted}"]


def _monitor_faults(told: list[tuple[str, str]], night: Night) -> list[str]:
    """Print what the monitor was told. The run that found another at work tells nothing."""
    for path, body in told:
        first, *rest = body.splitlines() or [""]
        print(f"   monitor  {path}  {first}{f' (and {len(rest)} more lines)' if rest else ''}")
    ends = [(path.rpartition("/")[2], body.partition(":")[0]) for path, body in told if not path.endswith("/start")]
    wanted = [(str(code), "night") for code in night.codes if code != 4]
    return [] if ends == wanted else [f"the monitor was told {ends}, not {wanted}"]


def _alert_faults(figures: Path, night: Night) -> list[str]:
    """Ask Prometheus's own tool which alerts the figures raise: now, and after 27 hours without another night."""
    with figures.open("rb") as file:
        read = subprocess.run(["promtool", "check", "metrics"], stdin=file, capture_output=True, text=True, check=False)
    if read.returncode:
        return [f"figures that a collector can't read: {read.stderr}"]
    now, series = time.time(), []
    for line in figures.read_text().splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            # The tool's clock begins at 0.
            shifted = float(value) - (now if "_time_seconds" in name else 0)
            series.append({"series": name, "values": f"{shifted:f}+0x400"})
    later = night.alerts | {"OrchestratorNoSuccess"}
    severity = {
        rule["alert"]: rule["labels"]["severity"]
        for group in yaml.safe_load(ALERTS.read_text())["groups"]
        for rule in group["rules"]
    }

    def samples(alerts: frozenset[str]) -> list[dict[str, object]]:
        label = 'ALERTS{{alertname="{0}",alertstate="firing",manifest="night",severity="{1}"}}'
        return [{"labels": label.format(alert, severity[alert]), "value": 1} for alert in sorted(alerts)]

    firing = 'ALERTS{alertstate="firing"}'
    expected = [
        {"expr": firing, "eval_time": at, "exp_samples": samples(alerts)}
        for at, alerts in (("5m", night.alerts), ("27h", later))
    ]
    test = figures.with_name("alerts.yml")
    tests = [{"interval": "5m", "input_series": series, "promql_expr_test": expected}]
    test.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "evaluation_interval": "5m", "tests": tests}))
    done = subprocess.run(["promtool", "test", "rules", test], capture_output=True, text=True, check=False)
    if done.returncode:
        return [f"other alerts than {sorted(night.alerts)}: {done.stdout} {done.stderr}"]
    print(f"   alerts   {', '.join(sorted(night.alerts)) or 'none'}; 27 h later also OrchestratorNoSuccess")
    return []


def _command_faults(mails: list[str]) -> list[str]:
    """Paste each command of the mails into a shell at home, and print how it ended."""
    faults = []
    for command in dict.fromkeys(line[5:] for mail in mails for line in mail.splitlines() if line.startswith("now: ")):
        done = subprocess.run(
            ["bash", "-c", command], cwd=Path.home(), capture_output=True, text=True, check=False, timeout=120
        )
        said = (done.stdout.strip() or done.stderr.strip() or "(nothing)").splitlines()
        print(f"   $ {command}\n     exit {done.returncode}: {said[0][:100]}")
        if done.returncode not in (0, 1):
            faults.append(f"{command} ended in {done.returncode}")
    return faults


def _write_manifest(folder: Path, api: Server, monitor: Server) -> None:
    (folder / "m.yaml").write_text(
        "version: 1\nname: night\nchunk_size: 5\nfile_ids_from: [list.txt]\nrules:\n"
        "  - {type: invoice, description: contains an invoice number and a total amount}\n"
    )
    env = folder / ".env"
    env.write_text(
        f"LLAMA_CLOUD_API_KEY=llx-soak-nights\nLLAMA_CLOUD_BASE_URL={api.url}\n"
        f"ORCHESTRATOR_PING_URL={monitor.url}/check\nORCHESTRATOR_RETRY_BUDGET_S=5\nORCHESTRATOR_SETTLE_S=1\n"
        f"ORCHESTRATOR_METRICS_FILE={folder.parent}/night.prom\n"
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
            for size in (1 << 20, 1 << 12):
                with suppress(OSError):
                    while True:
                        file.write(b"\0" * size)
                        file.flush()
    except OSError:
        pass


if __name__ == "__main__":
    sys.exit(main())
