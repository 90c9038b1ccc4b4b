"""``orchestrator nightly``: one night of a schedule. The run is a process of its own, so that whatever becomes of it is
reported: to the monitor, and in the text that cron mails.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dotenv import dotenv_values

from orchestrator import ledger, logs
from orchestrator import settings as settings_
from orchestrator.commands.access import address, ledger_path, log_folder
from orchestrator.commands.announcing import metrics
from orchestrator.commands.announcing.pings import Monitor
from orchestrator.errors import ExitCode, OrchestratorError, SettingsError
from orchestrator.ledger.views import reading
from orchestrator.manifest import loading
from orchestrator.models import Json
from orchestrator.plaintext import safe
from orchestrator.reports import last_run
from orchestrator.reports.latest_runs import last_night
from orchestrator.settings import Settings

#: How many lines of the log a mail shows.
MOST_LINES = 30

#: How long the end of a night waits for the call that reported its start.
PATIENCE_S = 3.0

#: An exit code above it is that of a process that a signal has ended, as a shell shows it.
ENDED_BY_SIGNAL = 128

#: The meaning of an exit code that came without a reason.
MEANINGS: Mapping[int, str] = {
    ExitCode.OK: "every file has an outcome",
    ExitCode.SOME_FAILED: "some files failed, are missing or were cancelled",
    ExitCode.USAGE: "the manifest, the settings or the call is wrong; nothing was sent",
    ExitCode.UNFINISHED: "work is left; run again",
    ExitCode.LOCKED: "another run holds this manifest",
    ExitCode.UNAUTHORIZED: "the API refuses the key",
    ExitCode.OUT_OF_CREDITS: "out of credits, or over the limits set",
    ExitCode.UNREACHABLE: "the API could not be reached",
    ExitCode.LEDGER: "the ledger or an output can't be read or written",
    ExitCode.CONTRACT: "the API's answer breaks its contract",
    ExitCode.BUG: "a bug in this program; nothing recorded is lost",
}


@dataclass(frozen=True, slots=True)
class Ended:
    """How the run's process ended."""

    exit_code: int
    run_id: str | None  #: None when no run began
    reason: str
    lines: Sequence[str]  #: the last that it logged


@dataclass(frozen=True, slots=True)
class Task:
    """The run of a night: the manifest, as named, and the options of ``run``; two of them matter here, too."""

    manifest: str
    settings: Settings
    ledger: str | None = None
    sandbox: bool = False
    options: tuple[str, ...] = ()
    metrics_file: str | None = None

    @property
    def command(self) -> list[str]:
        known = [] if self.settings.strict else ["--known-ok"]
        named = ["--ledger", self.ledger] if self.ledger else []
        rehearsal = ["--sandbox"] if self.sandbox else []
        measured = ["--metrics-file", self.metrics_file] if self.metrics_file else []
        return [
            *(sys.executable, "-m", "orchestrator", "run", self.manifest, "--json", "--log-format", "json"),
            *(*known, *named, *rehearsal, *measured, *self.options),
        ]

    @property
    def address(self) -> last_run.Address:
        return address(self.manifest, self.settings, self.ledger, rehearsal=self.sandbox)


def monitor(settings: Settings) -> Monitor | None:
    """The monitor that the settings name. Raises SettingsError for exit codes that are none."""
    if settings.ping_url is None:
        return None
    down = None
    if settings.ping_down is not None:
        try:
            down = frozenset(int(code) for code in settings.ping_down.split(","))
        except ValueError:
            raise SettingsError("ORCHESTRATOR_PING_DOWN: write exit codes with commas between, such as 5,6,7") from None
    return Monitor(settings.ping_url.get_secret_value(), down)


def nightly(task: Task, say: Callable[[str], None]) -> int:
    """Run the manifest, report to its monitor, and *say* what cron is to mail: nothing after a good night."""
    told = monitor(task.settings)
    logs.redactor.add([task.settings.ping_url.get_secret_value()] if task.settings.ping_url else [])
    failed: list[str] = []
    starting: list[threading.Thread] = []

    def tell_of_start(told: Monitor, run_id: str) -> None:
        if not told.start(run_id):
            failed.append("start")

    def started(run_id: str) -> None:
        if told is not None:  # beside the run, which a dead monitor must not slow
            call = threading.Thread(target=tell_of_start, args=(told, run_id), daemon=True)
            call.start()
            starting.append(call)

    ended = _carry_out(task, started)
    if ended.exit_code > ENDED_BY_SIGNAL:  # the run itself could report to nobody
        with suppress(OrchestratorError, OSError):
            manifest = loading.load(task.manifest, environ={}, resolve_secrets=False)
            asked = (task.metrics_file, task.ledger)
            metrics.write_failure(manifest, task.settings, asked, ended.exit_code, datetime.now(UTC))
    text = _text(task, ended)
    for call in starting:
        call.join(PATIENCE_S)
    if told is not None and ended.exit_code != ExitCode.LOCKED and not told.end(ended.run_id, ended.exit_code, text):
        failed.append("end")
    log = _log_of(task, ended)
    with suppress(OSError):
        logs.append(log, "night.ended", exit_code=ended.exit_code, reason=ended.reason)
        for what in failed:
            logs.append(log, "ping.failed", what=what)
    if ended.exit_code != ExitCode.OK:
        say(text)
        if ended.lines:
            say(f"\nthe last lines of {log}:")
            say("\n".join(ended.lines))
    return ended.exit_code


def _carry_out(task: Task, started: Callable[[str], None]) -> Ended:
    """Run it as a process, and watch its log."""
    file = settings_.env_file(task.manifest)
    found = dotenv_values(file) if file is not None else {}
    # What a manifest's ${NAME} means; the settings themselves are read by the run.
    more = {name: value for name, value in found.items() if value and not name.startswith(("ORCHESTRATOR_", "LLAMA"))}
    environ = {**more, **os.environ, "PYTHONDONTWRITEBYTECODE": "1"}  # on a full disk half a .pyc would be kept
    lines: deque[str] = deque(maxlen=MOST_LINES)
    run_id = None
    process = subprocess.Popen(  # noqa: S603 - this very program
        task.command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    said: list[bytes] = []
    assert process.stdout is not None and process.stderr is not None  # noqa: S101 - as asked for above
    reader = threading.Thread(target=lambda out=process.stdout: said.append(out.read()), daemon=True)
    reader.start()
    with process, _signals_passed_on(process):
        for line in process.stderr:
            event = _event(line)
            if event.get("event") == "run.started" and run_id is None:
                run_id = str(event["run_id"])
                started(run_id)
            lines.append(logs.in_words(event) if "event" in event else safe(line.decode(errors="replace").rstrip()))
        reader.join()
        code = process.wait()
    summary = _event(b"".join(said))
    if code < 0:
        return Ended(
            ENDED_BY_SIGNAL - code, run_id, f"ended by signal {-code}; nothing recorded is lost, run it again", lines
        )
    reason = summary.get("reason") or MEANINGS.get(code, "not an exit code of orchestrator")
    return Ended(code, run_id, str(reason), lines)


@contextmanager
def _signals_passed_on(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """SIGTERM is handed to the run, which then ends in order; the others reach it by themselves."""

    def hand_on(number: int, _: object) -> None:
        if number == signal.SIGTERM:
            process.terminate()

    before = {
        number: signal.signal(number, hand_on)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _event(line: bytes) -> dict[str, Json]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _text(task: Task, ended: Ended) -> str:
    """The summary of the night, from the ledger where the run is in it."""
    name = Path(task.manifest).stem
    with suppress(OrchestratorError, OSError):
        name = loading.load(task.manifest, environ={}, resolve_secrets=False).name
        if ended.run_id is not None:
            at = ledger_path(task.manifest, task.settings, task.ledger)
            with ledger.open(at, read_only=True) as opened, opened.transaction() as connection:
                row = reading.manifests(connection, name, rehearsal=task.sandbox)[0]
                last = last_night(connection, row.id)
            if last is not None and last.night.run_id == ended.run_id and last.night.exit_code is not None:
                return "\n".join(last_run.in_lines(name, last, None, task.address))
    lines = [f"{name}: exit {ended.exit_code}: {safe(ended.reason)}"]
    with suppress(OrchestratorError):
        killed = ended.exit_code > ENDED_BY_SIGNAL
        code = None if killed else ended.exit_code
        lines += [f"now: {line}" for line in last_run.what_to_do(code, ended.run_id, task.address)]
    return "\n".join(lines)


def _log_of(task: Task, ended: Ended) -> Path:
    """The run's log; of a night in which no run began, one of its own."""
    folder = log_folder(task.manifest, task.settings, task.ledger)
    name = Path(task.manifest).stem
    with suppress(OrchestratorError, OSError):
        name = loading.load(task.manifest, environ={}, resolve_secrets=False).name
    file = ended.run_id or f"night-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    return folder / name / f"{file}.jsonl"
