"""Runs the program in a forked child, as a process with an exit code but without the time to start Python.

Imported by the children too, so it imports nothing heavy itself.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

#: A clean process, without threads or sockets, that has the program loaded and forks.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "orchestrator.cli",
        "orchestrator.commands.run",
        "orchestrator.cli.screens.summary",
        "orchestrator.settings",
        "orchestrator.reports.status",
    ]
)


@dataclass(frozen=True, slots=True)
class Done:
    """How the program ended, and what it wrote."""

    arguments: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


def run(
    *arguments: str,
    folder: Path,
    environ: Mapping[str, str],
    stdout: str | None = None,
    stderr: str | None = None,
    timeout_s: float = 300,
) -> Done:
    """``orchestrator ARGUMENTS`` in *folder* with nothing but *environ*; warnings are errors there.

    *stdout* and *stderr* name devices to write to instead.
    """
    streams = folder.with_name(folder.name + "-streams")
    streams.mkdir(exist_ok=True)
    out, err = streams / "out", streams / "err"
    child = FORKS.Process(target=_main, args=(arguments, folder, dict(environ), stdout or out, stderr or err))
    child.start()
    child.join(timeout_s)
    if child.exitcode is None:
        child.kill()
        raise TimeoutError(f"{arguments} did not end within {timeout_s} s")
    return Done(arguments, child.exitcode, "" if stdout else _text(out), "" if stderr else _text(err))


def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "surrogateescape")


def _main(arguments: tuple[str, ...], folder: Path, environ: dict[str, str], out: str | Path, err: str | Path) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    for descriptor, path in ((0, os.devnull), (1, out), (2, err)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), descriptor)
    warnings.simplefilter("error")
    sys.argv = ["orchestrator", *arguments]
    from orchestrator.cli import main

    main()
