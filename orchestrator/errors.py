"""Every error that the program raises on purpose, and the exit code each one ends a run with.

OrchestratorError
├── InputError                the manifest, the settings or the call is wrong; nothing was sent   (2)
│   ├── ManifestError         one or more Problems, each with file, line and column
│   └── SettingsError
├── LockHeld                  another run holds this manifest                                     (4)
├── LedgerError               the ledger or an output can't be read or written                    (8)
│   └── LedgerBusy            another process is in the middle of writing to the ledger
├── Interrupted               a signal or the deadline ended the run early                        (3)
└── ApiError                  what a call to the API came to
    ├── NotCreated            the call surely had no effect: it may be sent again
    │   ├── NotSent           never connected
    │   └── Throttled         429, with the wait the API asked for, if any
    ├── Rejected              refused for what it asks; sending it again would be refused again
    ├── Ambiguous             no readable answer: the call may have had its effect
    ├── Unanswered            a read without a good answer for its own patience; others may have theirs
    └── RunStopped            no call of this kind will do better; stop sending
        ├── Unauthorized      401, 403: the key                                                  (5)
        ├── OutOfCredits      402, or over the manifest's own limits                             (6)
        ├── Unreachable       no answer for the whole retry budget, or the route is gone         (7)
        └── ContractBroken    a redirect, a page loop, results for files never sent              (9)
            ├── AnothersJob   a create call was answered with the job of another call
            └── Redirected    to an address that the key is not sent to; one route may do so alone

Anything else that escapes is a bug (70).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """The process's exit codes. They are part of the command line's contract: never renumber."""

    OK = 0  #: every file is classified or unmatched
    SOME_FAILED = 1  #: finished; some files failed, are missing or were cancelled
    USAGE = 2  #: the manifest, the settings or the call is wrong; nothing was sent
    UNFINISHED = 3  #: work is left (deadline, signal, ambiguous creates): run again
    LOCKED = 4  #: another run holds this manifest
    UNAUTHORIZED = 5  #: the API refuses the key
    OUT_OF_CREDITS = 6  #: 402, or over the budget set
    UNREACHABLE = 7  #: the API could not be reached for the whole retry budget
    LEDGER = 8  #: the ledger or an output can't be read or written
    CONTRACT = 9  #: the API's answer breaks its contract
    BUG = 70  #: a bug in this program
    READER_LEFT = 141  #: whoever read the output left early (``| head``): what a shell shows of any such program


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake in an input file; line and column count from 1."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}"


class OrchestratorError(Exception):
    """Base of every deliberate error. ``str(error)`` is one line fit to show a person."""

    exit_code: ClassVar[ExitCode] = ExitCode.BUG
    #: Only says why work was left: a run that left none has not failed by it.
    moot_when_finished: ClassVar[bool] = False


class InputError(OrchestratorError):
    """The manifest, the settings or the call is wrong; nothing was sent."""

    exit_code = ExitCode.USAGE


class ManifestError(InputError):
    """The manifest, or a list it names, can't be used; ``problems`` is never empty and is in file order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


class SettingsError(InputError):
    """An environment variable or option has a value that can't be used."""


class LockHeld(OrchestratorError):
    """Another run holds this manifest in this ledger."""

    exit_code = ExitCode.LOCKED


class LedgerError(OrchestratorError):
    """The ledger or an output can't be read or written: disk full, corrupt, too new, wrong file system."""

    exit_code = ExitCode.LEDGER


class LedgerBusy(LedgerError):
    """Another process has been writing to the ledger all the while, or its server is away; nothing was recorded."""


class Interrupted(OrchestratorError):
    """A signal or the deadline ended the run early."""

    exit_code = ExitCode.UNFINISHED
    moot_when_finished = True


class ApiError(OrchestratorError):
    """The failure of a call to the API, with the API's own words where it gave any."""

    exit_code = ExitCode.UNREACHABLE


class NotCreated(ApiError):
    """The call surely had no effect; it may be sent again later."""


class NotSent(NotCreated):
    """No connection was made, so nothing left this machine."""


class Throttled(NotCreated):
    """429. ``retry_after_s`` is the wait that the API asked for, None when it named none."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Rejected(ApiError):
    """The API refuses this very call; sending it again would be refused again."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Ambiguous(ApiError):
    """The call may have had its effect: no answer, or none that can be read.

    ``created`` is True when the API did say 2xx and only its words were unreadable. ``retry_after_s`` is the wait that
    it asked for, None when it named none.
    """

    def __init__(self, message: str, *, created: bool = False, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.created = created
        self.retry_after_s = retry_after_s


class Unanswered(ApiError):
    """A read got no good answer for its own patience: one part of the API is in trouble, the others need not be."""


class RunStopped(ApiError):
    """No further call of this kind can do better: stop sending, keep what is in flight."""

    moot_when_finished = True


class Unauthorized(RunStopped):
    """401 or 403: the key is missing, wrong, expired, or of another region or project.

    ``sure`` is False where that is only likely: the 403 of a create call that is not the API's words about the key.
    """

    exit_code = ExitCode.UNAUTHORIZED

    def __init__(self, message: str, *, sure: bool = True) -> None:
        super().__init__(message)
        self.sure = sure


class OutOfCredits(RunStopped):
    """402, or the manifest's own ``limits``."""

    exit_code = ExitCode.OUT_OF_CREDITS


class Unreachable(RunStopped):
    """No answer for the whole retry budget, or the route does not exist (any more)."""

    exit_code = ExitCode.UNREACHABLE


class ContractBroken(RunStopped):
    """The API answered against its contract in a way that must not be guessed around."""

    exit_code = ExitCode.CONTRACT


class AnothersJob(ContractBroken):
    """A create call was answered with the job of another call."""


class Redirected(ContractBroken):
    """An answer that leads elsewhere, and is never followed."""


#: The endings of a list call that say nothing of any other: all that can be done without the list goes on.
WITHOUT_A_LIST = (Rejected, Unanswered, Redirected)

#: The same where a list was only to be looked in: with a row that can't be read it is no more use than none.
WITHOUT_ALL_JOBS = (Rejected, Unanswered, ContractBroken)


def exit_code_of(error: OrchestratorError | None, *, unfinished: bool) -> ExitCode | None:
    """The exit code of a run that *error* ended early; None when the error does not decide it."""
    return None if error is None or (error.moot_when_finished and not unfinished) else error.exit_code
