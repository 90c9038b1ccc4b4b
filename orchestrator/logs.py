"""The only structlog set-up: one JSON object a line on stderr and in the log of the run, and no secret in it.

Global by nature: structlog and logging are configured once for the process.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping, MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote

import structlog

from orchestrator.models import Json
from orchestrator.plaintext import safe

HIDDEN = "[hidden]"

#: How long the logs of runs are kept.
KEEP_DAYS = 30

#: Every event of the log, in an operator's words. The words behind it in a log line are its details.
EVENTS = {
    "answers.drifted": "the answers have drifted from those of earlier runs",
    "api.in_clear": "the key travels unencrypted",
    "audit.put_off": "the list of jobs could not be searched for jobs paid twice; a later run does",
    "call.failed": "a call failed",
    "chunks.released": "held chunks will be sent again, as asked",
    "create.absent": "an unanswered create call had no effect; its files can be sent again",
    "create.found": "the job of an unanswered create call was found",
    "create.held": "an unanswered create call needs a person's decision",
    "create.parked": "an unanswered create call waits until it is known whether it had an effect",
    "create.refused": "the API refused a create call",
    "create.refused_after_unanswered": "the API refused a create call that had gone unanswered before",
    "create.unanswered": "a create call went unanswered; it may have had its effect",
    "create.undecided": "whether an unanswered create call had an effect is not known yet",
    "creates.stopped": "nothing more is sent",
    "database.away": "the database can't be reached; runs wait for it",
    "database.back": "the database can be reached again",
    "document.not_placed": "a document could not be put in its place",
    "documents.found": "documents were found in the folders",
    "documents.routed": "documents were put into their folders",
    "end.not_told": "the end of the run could not be reported everywhere",
    "engine.restarted": "a worker takes tasks again after the database was away",
    "escalation.over_budget": "second opinions would cost more than the limit; they are left to the next run",
    "file.deleted": "a file was deleted at the API",
    "file.quarantined": "a file is quarantined: sent again only by name",
    "file.uploaded": "a document was uploaded",
    "files.alike": "the API has several files of the same content; the first is used",
    "files.escalated": "second opinions are asked for",
    "files.gone": "files that the API no longer has will be uploaded again",
    "files.not_looked_at": "the API could not be asked which files it already has",
    "files.reclassified": "files are classified again because the manifest has changed",
    "files.sampled": "only a sample of the new files is sent",
    "halving.given_up": "most jobs failed; the files at fault are not looked for",
    "halving.over_budget": "looking for a file at fault would cost more than the limit",
    "job.adopted": "a job that the API has is recorded",
    "job.adopted_in_part": "a job with only some of a chunk's files, or more, is recorded as its own",
    "job.answers_against_contract": "the API's answer about a job breaks its contract",
    "job.cancel_refused": "the API refused to cancel a job",
    "job.cancelled": "a job was cancelled",
    "job.ended": "a job ended",
    "job.gone": "the API no longer has a job",
    "job.late": "the results of a job are late, or it gets no answer; it is asked again",
    "job.late_results": "results that had not come when a job was recorded are there now",
    "job.not_cancelled": "a job could not be cancelled",
    "job.orphan": "a job was paid for twice: the API had made it after all",
    "job.status_unknown": "the API reports an unknown status; the job counts as not ended",
    "job.submitted": "a job was created",
    "ledger.busy": "the ledger can't be written to at the moment; this run waits",
    "ledger.created": "a new ledger was made",
    "ledger.replaced": "the ledger's server was replaced; calls that may be missing are looked for before any is sent",
    "library.said": "a library logged",
    "list.doubtful": "a list of file IDs may not be whole",
    "listing.down": "the API's list of jobs is down; what can be done without it goes on",
    "listing.unreadable": "rows of the API's list of jobs can't be read; they are passed over",
    "log.cut_short": "a line that is not a log line",
    "manifest.changed": "the manifest has changed since files were last sent",
    "manifest.renamed": "this manifest was known under another name",
    "metrics.not_written": "the metrics file could not be written",
    "night.ended": "the night ended",
    "notice.not_sent": "a notification did not reach every service",
    "notice.sent": "a notification was sent",
    "notice.without_commands": "a notification has no commands, as the ledger's place is unclear",
    "pace.not_shared": "the pace can't be shared with other runs at the moment; this run keeps to its part of it",
    "page.not_written": "the report page could not be written",
    "page.written": "the report page was written",
    "ping.failed": "the monitor could not be reached",
    "rehearsal.started": "the embedded sandbox answers",
    "results.odd": "results are not as the contract says",
    "results.put_off": "late results could not be asked for; a later run does",
    "retry.not_cancelled": "jobs that do not end could not be cancelled",
    "run.crashed": "the program ended because of a bug",
    "run.finished": "the run ended",
    "run.planned": "the run is planned",
    "run.started": "the run began",
    "run.stopping": "the run is asked to stop",
    "status.bulk_refused": "the API refused to report the status of many jobs at once",
    "status.listing_refused": "the API refused to list its jobs",
    "task.due": "the time of a schedule has come",
    "task.ended": "a run of a task ended; `again_in_s`: when it is tried again",
    "task.refused": "this host's copy of a manifest or list is not what was submitted",
    "task.started": "a worker begins a task's run",
    "task.woken": "a task goes on that a worker or the engine had lost",
    "traces.not_sent": "the spans of the run could not be sent to the collector",
    "upload.left": "a document is left to a later run",
    "upload.refused": "the API refused a document",
    "upload.unanswered": "an upload went unanswered; it may have had its effect",
    "worker.draining": "a worker takes no more tasks, as a person asked",
    "worker.ended": "a worker ended",
    "worker.gone": "a worker died; others go on with its tasks",
    "worker.started": "a worker takes tasks",
    "worker.stopping": "a worker is asked to stop, and its runs with it",
}


def _spellings(character: str) -> str:
    """A pattern of the ways in which one character of a secret may be spelt."""
    code = ord(character)
    percent = "".join(f"%{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))
    numbers = rf"\\{{1,4}}(?:u{code:04x}|x{code:02x})|&\#(?:{code}|x0*{code:x});"
    return rf"(?:\\{{0,4}}{re.escape(character)}|(?i:{percent}|{numbers}))"


class Redactor:
    """Takes secrets out of any text: as they are, and as base64, URLs, JSON, HTML and Python's repr spell them."""

    def __init__(self) -> None:
        self._secrets: list[str] = []
        self._spelt: dict[str, re.Pattern[str]] = {}

    def add(self, secrets: Iterable[str]) -> None:
        for secret in secrets:
            if len(secret) >= 8:  # shorter ones would blank out ordinary words
                encoded = base64.b64encode(secret.encode()).decode().rstrip("=")
                escaped = [repr(secret)[1:-1], ascii(secret)[1:-1], json.dumps(secret)[1:-1]]
                self._secrets += {secret, encoded, quote(secret, safe=""), *escaped}
                self._spelt[secret] = re.compile("".join(map(_spellings, secret)))
        self._secrets.sort(key=len, reverse=True)

    def text(self, value: str) -> str:
        for secret in self._secrets:
            value = value.replace(secret, HIDDEN)
        if "%" in value or "\\" in value or "&#" in value:  # any of its characters may be spelt out
            for spelt in self._spelt.values():
                value = spelt.sub(HIDDEN, value)
        return value

    def may_change(self, text: str) -> bool:
        """Whether ``text`` may find a secret in *text* or in a part of it; no is certain."""
        if not self._secrets:
            return False
        return any(mark in text for mark in "%\\&") or any(secret in text for secret in self._secrets)

    def __call__(self, _: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {name: self._value(value) for name, value in event.items()}

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, int | float | bool) or value is None:
            return value
        return self.text(repr(value))


redactor = Redactor()


class _Filtered:
    """A stream that removes secrets, whatever library writes to it; a failing write stops no run."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(redactor.text(text))
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


def _in_order(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Put timestamp, level and event first: easier to read, and one pattern matches all three."""
    first = {name: event.pop(name) for name in ("timestamp", "level", "event")}
    return {**first, **event}


class RunLog:
    """The log of one run, ``FOLDER/MANIFEST/RUN.jsonl``: made by the first line that names the run.

    A log that can't be written stops nothing.
    """

    def __init__(self, folder: Path | None, level: int) -> None:
        self._folder = folder
        self.level = level if folder is not None else logging.CRITICAL + 1
        self._file: TextIO | None = None
        self.path: Path | None = None

    def write(self, event: Mapping[str, Any], line: str) -> None:
        with suppress(OSError):
            if self._file is None and self._folder is not None and "run_id" in event and "manifest" in event:
                self._begin(self._folder / event["manifest"] / f"{event['run_id']}.jsonl")
            if self._file is not None:
                self._file.write(redactor.text(line) + "\n")

    def _begin(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        prune(path.parent)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(descriptor, "w", encoding="ascii", buffering=1)
        self.path = path

    def close(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        self._file, self._folder = None, None


def prune(folder: Path) -> None:
    """Remove the logs in *folder* that are older than ``KEEP_DAYS``."""
    oldest = time.time() - KEEP_DAYS * 86400
    for path in folder.glob("*.jsonl"):
        if path.stat().st_mtime < oldest:
            path.unlink()


def append(path: Path, event: str, *, level: str = "info", **fields: Json) -> None:
    """Add one line to the log at *path* of a run that has ended. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    at = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    line = json.dumps({"timestamp": at, "level": level, "event": event, **fields})
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(redactor.text(line) + "\n")


class _Library(logging.Handler):
    """Makes what other libraries log lines of the run's log."""

    def emit(self, record: logging.LogRecord) -> None:
        words = logging.Formatter("%(message)s").format(record)
        structlog.get_logger().log(record.levelno, "library.said", library=record.name, words=words)


#: The log of this process's run; None before ``configure``.
_run_log: RunLog | None = None


def path_of_run() -> Path | None:
    """The file that this process's run is logged to; None where there is none."""
    return None if _run_log is None else _run_log.path


_PROCESSORS: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.ExceptionRenderer(
        structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=20)
    ),
    redactor,
    _in_order,
]


def configure(
    level: str,
    *,
    stream: TextIO | None = None,
    quiet: bool = False,
    shown: str | None = None,
    form: str = "json",
    folder: Path | None = None,
) -> None:
    """Log lines of *level* and above go to *stream* (stderr), in the *form* json or text; with *quiet* only errors do.

    With *shown*, only lines of that level and above go to *stream*. With *folder* the lines of *level* and above are
    also kept there: see ``RunLog``. ASCII only, so that no locale can break a line and no terminal escape gets through.
    """
    global _run_log
    if _run_log is not None:
        _run_log.close()
    levels = logging.getLevelNamesMapping()
    kept_level = levels[level]
    least = logging.ERROR if quiet else max(kept_level, levels[shown or level])
    kept = _run_log = RunLog(folder, kept_level)
    out = _Filtered(stream or sys.stderr)
    as_json = structlog.processors.JSONRenderer(ensure_ascii=True, default=repr)

    def keep_and_show(logger: object, method: str, event: MutableMapping[str, Any]) -> str:
        number = logging.getLevelNamesMapping()[str(event["level"]).upper()]
        line = str(as_json(logger, method, dict(event)))
        if number >= kept.level:
            kept.write(event, line)
        if number < least or (event["event"] == "library.said" and not quiet):  # those go to the stream by themselves
            raise structlog.DropEvent
        return line if form == "json" else in_words(event)

    structlog.configure(
        processors=[*_PROCESSORS, keep_and_show],
        wrapper_class=structlog.make_filtering_bound_logger(min(least, kept.level)),
        logger_factory=structlog.PrintLoggerFactory(out),  # type: ignore[arg-type]  # it asks for no more than write and flush
        cache_logger_on_first_use=False,
    )
    _configure_libraries(out, folder)


def _configure_libraries(out: _Filtered, folder: Path | None) -> None:
    """Send what libraries log, from warnings on, to *out*, and with a *folder* also into the log of the run."""
    logging.basicConfig(stream=out, level=logging.WARNING, format="%(levelname)s %(name)s %(message)s", force=True)
    if folder is not None:
        logging.getLogger().addHandler(_Library())
    for noisy in ("httpx", "httpcore", "asyncio", "aiohttp"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def in_words(event: Mapping[str, Any], *, run: bool = False) -> str:
    """A log line as a person reads it: time, how bad unless it is usual, what, and the details.

    With *run* the manifest and the run are details, too. ASCII only.
    """
    known = ("timestamp", "level", "event", *(() if run else ("manifest", "run_id", "rehearsal")))
    level = str(event.get("level", "")).upper()
    bad = "" if level in ("INFO", "DEBUG", "") else f"{level}: "
    name = str(event.get("event", ""))
    details = ", ".join(f"{key} {_detail(value)}" for key, value in event.items() if key not in known)
    line = f"{str(event.get('timestamp', ''))[11:19]}  {bad}{EVENTS.get(name, name)}"
    return safe(f"{line} ({details})" if details else line).encode("ascii", "backslashreplace").decode()


def _detail(value: object) -> str:
    return json.dumps(value) if isinstance(value, dict | list) else str(value)
