"""``python -m orchestrator``, and what the console script calls."""

from __future__ import annotations

import sys
import traceback
from typing import NoReturn


def main() -> NoReturn:
    """The command line; a program that can't even be loaded ends in 70, not in Python's 1: "some files failed"."""
    try:
        from orchestrator.cli import main as command_line
    except Exception:  # noqa: BLE001 - a broken installation, whatever is broken in it
        traceback.print_exc()
        sys.exit(70)
    command_line()


if __name__ == "__main__":
    main()
