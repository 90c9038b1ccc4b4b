"""The program as its users start it, measured from outside; and a line of the table that every benchmark prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

RULES = (
    {"type": "invoice", "description": "contains an invoice number, line items and a total amount"},
    {"type": "receipt", "description": "proof of payment with a merchant name and a total"},
)


@dataclass(frozen=True, slots=True)
class Measured:
    """One process from its start to its end."""

    seconds: float
    cpu_s: float
    peak_mb: float
    out: str

    @property
    def summary(self) -> dict[str, Any]:
        """Its ``--json`` object."""
        summary: dict[str, Any] = json.loads(self.out)
        return summary


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        yield Path(name)


def file_ids(count: int) -> Iterator[str]:
    return (str(uuid.UUID(int=number, version=4)) for number in range(count))


def manifest(where: Path, files: int, *, api: str, chunk_size: int | None = None) -> Path:
    """A manifest of *files* made-up files in *where*; beside it the ledger will be."""
    with (where / "files.txt").open("w") as listing:
        listing.writelines(f"{file_id}\n" for file_id in file_ids(files))
    path = where / "bench.yaml"
    lines = [f"version: 1\nname: bench\napi: {api}\nrules: {json.dumps(RULES)}\nfile_ids_from: [files.txt]\n"]
    path.write_text("".join([*lines, *([f"chunk_size: {chunk_size}\n"] if chunk_size else [])]))
    return path


def orchestrator(*arguments: str | Path, url: str = "", before: Sequence[str] = (), **settings: str) -> Measured:
    """Run ``orchestrator ARGUMENTS`` to its end, behind the command *before*; *settings* are environment variables."""
    return measure([*before, sys.executable, "-m", "orchestrator", *map(str, arguments)], url, settings)


def measure(command: Sequence[str], url: str, settings: dict[str, str] | None = None) -> Measured:
    """Run *command* against the API at *url*. Raises SystemExit with what it said when it fails."""
    told = {"LLAMA_CLOUD_API_KEY": "bench", "ORCHESTRATOR_ENV_FILE": "none", "ORCHESTRATOR_LOG_LEVEL": "ERROR"}
    environment = {"PATH": os.environ["PATH"], **told, **(settings or {})}
    if url:
        environment["LLAMA_CLOUD_BASE_URL"] = url
    with tempfile.TemporaryFile() as out:
        began = perf_counter()
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        text = os.pread(out.fileno(), 1 << 24, 0).decode()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}: {text[-2000:]}")
    return Measured(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, text)


def line(what: str, figure: str, goal: str = "", sdk: str = "") -> None:
    """One row of the table."""
    print(f"{what:52} {figure:>20} {goal:>14} {sdk:>20}".rstrip(), flush=True)


def heading(what: str) -> None:
    line(f"{what} (load {os.getloadavg()[0]:.1f})", "here", "goal", "official SDK")
