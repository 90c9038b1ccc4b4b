"""The console script: commands in, one of ``ExitCode`` out."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from io import TextIOWrapper
from typing import TYPE_CHECKING, NoReturn

from orchestrator.cli.app import (
    app,
    say,
)
from orchestrator.errors import ExitCode, ManifestError, OrchestratorError
from orchestrator.plaintext import safe

if TYPE_CHECKING:
    pass


def _fail(error: OrchestratorError) -> int:
    """Show a deliberate error: the problems of a manifest one a line, any other on one line."""
    if isinstance(error, ManifestError):
        for problem in error.problems:
            print(safe(problem), file=sys.stderr)
    else:
        say(str(error))
    return int(error.exit_code)


def _crash() -> int:
    """A bug: the traceback goes to the log, without the values of variables, which may be secret."""
    from orchestrator.logs import redactor

    for line in traceback.format_exc().splitlines():
        print(redactor.text(line.encode("ascii", "backslashreplace").decode()), file=sys.stderr)
    say("this is a bug; nothing recorded is lost, and running again goes on where this stopped")
    return int(ExitCode.BUG)


def _interrupted(number: int, _: object) -> NoReturn:
    """A signal to end where no create call can be out; while one can, the runner listens itself."""
    say(f"stopped by {signal.Signals(number).name}")
    sys.exit(int(ExitCode.UNFINISHED))


def _written_out(code: int) -> int:
    """*code*, unless standard output can't be written: its disk is full, or its reader has gone."""
    if not isinstance(sys.stdout, TextIOWrapper):  # closed from the start
        return code
    try:
        sys.stdout.flush()
    except OSError as error:
        # The interpreter would try again as it ends, and turn the exit code into one of its own.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        say(f"standard output: {error.strerror or error}")
        return int(ExitCode.LEDGER)
    return code


def main() -> NoReturn:
    """The console script: every way out is one of ``ExitCode``."""
    os.umask(0o077)
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
    except Exception:  # noqa: BLE001 - the outermost frame: what gets here is a bug, and cron must see 70
        code = _crash()
    sys.exit(_written_out(int(code)))
