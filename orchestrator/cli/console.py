"""The console script: commands in, one of ``ExitCode`` out."""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from contextlib import suppress
from io import TextIOWrapper
from typing import NoReturn, cast

import typer

from orchestrator.cli.app import app, begin, keep_private, say, tell
from orchestrator.errors import ExitCode, LedgerError, ManifestError, OrchestratorError, Problem
from orchestrator.plaintext import safe

#: UsageError, click's or Typer's copy of it, which has no public name.
WrongCall = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])


def _call(arguments: list[str]) -> int:
    """Carry out the command; its exit code. Typer's own way to do so makes 1, "some files failed", of a closed pipe."""
    command = typer.main.get_command(app)
    try:
        with command.make_context("orchestrator", arguments) as context:
            command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    return ExitCode.OK


def _fail(error: OrchestratorError, arguments: list[str]) -> int:
    """Show a deliberate error: the problems of a manifest one a line, any other on one line."""
    if isinstance(error, ManifestError):
        for problem in error.problems:
            tell(safe(problem))
        _tell_json(arguments, error.exit_code, str(error), list(error.problems))
    else:
        say(str(error))
        _tell_json(arguments, error.exit_code, str(error))
    return int(error.exit_code)


def _tell_json(arguments: list[str], exit_code: int, words: str, problems: list[Problem] | None = None) -> None:
    """With ``--json`` among *arguments*, the one object on standard output of a command that has no other to print."""
    command, *options = arguments or [""]
    if "--json" not in options:
        return
    from orchestrator.cli.answers import answer_failure

    with suppress(OSError):
        answer_failure(command, exit_code, words, problems)


def _refused_by_the_system(error: BaseException) -> LedgerError | None:
    """The error for a refusal of the operating system: a full disk, too few open files, a folder that can't be read."""
    if not isinstance(error, OSError):
        return None
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return LedgerError(f"an output can't be written: {error}")
        case errno.EMFILE | errno.ENFILE:
            return LedgerError(f"{error.strerror}: allow this program more of them, see `ulimit -n`")
        case errno.EACCES | errno.EPERM | errno.EROFS | errno.EIO:
            return LedgerError(f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror))
    return None


def _crash(arguments: list[str]) -> int:
    """A bug: the traceback goes to the log, without the values of variables, which may be secret."""
    from orchestrator.logs import append, path_of_run, redactor

    if log := path_of_run():
        with suppress(OSError):
            append(log, "run.crashed", level="error", traceback=traceback.format_exc().splitlines())
    for line in traceback.format_exc().splitlines():
        tell(redactor.text(line.encode("ascii", "backslashreplace").decode()))
    words = "this is a bug; nothing recorded is lost, and the next run goes on where this one stopped"
    say(words)
    if log:
        say(f"the log of this run: {log}")
    _tell_json(arguments, ExitCode.BUG, words)
    return int(ExitCode.BUG)


def _interrupted(number: int, _: object) -> NoReturn:
    """A signal to end where no create call can be out; while one can, the runner listens itself."""
    sys.exit(f"stopped by {signal.Signals(number).name}")


def _written_out(code: int, arguments: list[str]) -> int:
    """*code*, unless standard output can't be written: its reader has gone, or its disk is full."""
    for stream in (sys.stderr, sys.stdout):
        try:
            stream.flush()
        except OSError as error:
            # The interpreter would try again as it ends, and turn the exit code into one of its own.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            if stream is sys.stdout and isinstance(error, BrokenPipeError):
                code = ExitCode.READER_LEFT
            elif stream is sys.stdout:
                code = _fail(LedgerError(f"standard output: {error.strerror or error}"), arguments)
    return code


def main() -> NoReturn:
    """The console script: every way out is one of ``ExitCode``."""
    keep_private()
    begin()
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
    arguments = sys.argv[1:]
    try:
        code = _call(arguments)
    except WrongCall as error:
        error.show()
        code = ExitCode.USAGE
        _tell_json(arguments, code, error.format_message())
    except SystemExit as end:  # a signal
        code = ExitCode.UNFINISHED
        say(str(end))
        _tell_json(arguments, code, str(end))
    except OrchestratorError as error:
        code = _fail(error, arguments)
    except BrokenPipeError:
        code = ExitCode.READER_LEFT
    except Exception as error:  # noqa: BLE001 - the outermost frame: what gets here is a bug, and cron must see 70
        refusal = _refused_by_the_system(error)
        code = _crash(arguments) if refusal is None else _fail(refusal, arguments)
    sys.exit(_written_out(int(code), arguments))
