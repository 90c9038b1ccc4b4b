"""The console script: commands in, one of ``ExitCode`` out."""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from io import TextIOWrapper
from typing import NoReturn

from orchestrator.cli.app import app, say, tell
from orchestrator.errors import ExitCode, LedgerError, ManifestError, OrchestratorError
from orchestrator.plaintext import safe


def _fail(error: OrchestratorError) -> int:
    """Show a deliberate error: the problems of a manifest one a line, any other on one line."""
    if isinstance(error, ManifestError):
        for problem in error.problems:
            tell(safe(problem))
    else:
        say(str(error))
    return int(error.exit_code)


def _crash() -> int:
    """A bug: the traceback goes to the log, without the values of variables, which may be secret."""
    from orchestrator.logs import redactor

    for line in traceback.format_exc().splitlines():
        tell(redactor.text(line.encode("ascii", "backslashreplace").decode()))
    say("this is a bug; nothing recorded is lost, and running again goes on where this stopped")
    return int(ExitCode.BUG)


def _interrupted(number: int, _: object) -> NoReturn:
    """A signal to end where no create call can be out; while one can, the runner listens itself."""
    say(f"stopped by {signal.Signals(number).name}")
    sys.exit(int(ExitCode.UNFINISHED))


def _written_out(code: int) -> int:
    """*code*, unless standard output can't be written: its disk is full, or its reader has gone."""
    for stream in (sys.stderr, sys.stdout):
        try:
            stream.flush()
        except OSError as error:
            # The interpreter would try again as it ends, and turn the exit code into one of its own.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            if stream is sys.stdout:
                code = _fail(LedgerError(f"standard output: {error.strerror or error}"))
    return code


def main() -> NoReturn:
    """The console script: every way out is one of ``ExitCode``."""
    os.umask(0o077)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us: its number must not become another file's
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123 - for as long as the process lives
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # ignored under nohup
            signal.signal(number, _interrupted)
    code: int = ExitCode.OK
    try:
        app()  # ends in SystemExit: 0, 2 for a wrong call, or what a command asked for with typer.Exit
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else ExitCode.OK
    except OrchestratorError as error:
        code = _fail(error)
    except Exception as error:  # noqa: BLE001 - the outermost frame: what gets here is a bug, and cron must see 70
        unwritable = isinstance(error, OSError) and error.errno in (errno.EPIPE, errno.ENOSPC)
        code = _fail(LedgerError(f"an output can't be written: {error}")) if unwritable else _crash()
    sys.exit(_written_out(int(code)))
