"""``python -m orchestrator.workers.leash ARGUMENTS``: the program itself, ended when the worker that started it dies.

Standard input is a pipe that the worker holds the other end of and never writes to; however the worker ends, the
kernel closes it.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

#: How long a run may take to end in order before it is killed, which loses nothing either.
GRACE_S = 5.0


def _watch(leash: int) -> None:
    os.read(leash, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    leash = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    threading.Thread(target=_watch, args=(leash,), daemon=True).start()
    sys.argv[0] = "orchestrator"
    runpy.run_module("orchestrator", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
