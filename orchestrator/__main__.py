"""``python -m orchestrator``, and what the console script calls."""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """The command line; a program that can't even be loaded ends in 70, not in Python's 1: "some files failed"."""
    gc.set_threshold(1_000_000, 20, 20)  # the modules of a start are many objects and no garbage
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # to look for any takes as long as a create call
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # ignored under nohup
            signal.signal(number, _interrupted)
    try:
        from orchestrator.cli import main as command_line
    except Exception:  # noqa: BLE001 - a broken installation, whatever is broken in it
        import traceback

        traceback.print_exc()
        sys.exit(70)
    try:
        command_line()
    finally:
        gc.freeze()  # the last collection would look through all that the end of the process frees anyway


def _interrupted(*_: object) -> NoReturn:
    """Nothing has begun, and an exception in the middle of an import would be shown as a bug of what is imported.

    The exit code is ``ExitCode.UNFINISHED``, which can't be imported here.
    """
    os._exit(3)


if __name__ == "__main__":
    main()
