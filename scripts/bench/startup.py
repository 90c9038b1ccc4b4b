"""How long the program takes to say anything, beside the time to import httpx.

Usage: .venv/bin/python scripts/bench/startup.py
"""

from __future__ import annotations

import sys
from statistics import median

from program import heading, line, measure

TIMES = 10


def main() -> None:
    heading(f"Start, median of {TIMES}")
    commands = {
        "orchestrator --help": [sys.executable, "-m", "orchestrator", "--help"],
        "import httpx": [sys.executable, "-c", "import httpx"],
        "import llama_cloud": [sys.executable, "-c", "import llama_cloud"],
    }
    # In turn, so that whatever else the machine does strikes all of them alike.
    rounds = [{what: measure(command, "").seconds for what, command in commands.items()} for _ in range(TIMES)]
    middle = {what: median(one[what] for one in rounds) for what in commands}
    sdk = f"{middle['import llama_cloud'] * 1000:.0f} ms"
    line("orchestrator --help", f"{middle['orchestrator --help'] * 1000:.0f} ms", "", sdk)
    ratio = middle["orchestrator --help"] / middle["import httpx"]
    line(f"beside import httpx ({middle['import httpx'] * 1000:.0f} ms)", f"{ratio:.2f} x", "<= 2 x")


if __name__ == "__main__":
    main()
