"""How much of 40 creates a second a run keeps whose PostgreSQL is some milliseconds away.

Needs PostgreSQL's programs. Usage: .venv/bin/python scripts/bench/far_database.py [--jobs 800] [--ms 0 5 20]
"""

from __future__ import annotations

import argparse
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from time import monotonic, sleep

from program import folder, heading, line, manifest, orchestrator
from server import Server

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from support.postgres import MISSING, programs, running

PER_S = 40
GOAL = 0.97


def forward(source: socket.socket, target: socket.socket, delay_s: float) -> None:
    """Hand on what comes from *source*, *delay_s* later."""
    on_its_way: SimpleQueue[tuple[float, bytes]] = SimpleQueue()

    def deliver() -> None:
        with suppress(OSError):
            while True:
                due, data = on_its_way.get()
                sleep(max(due - monotonic(), 0.0))
                if not data:
                    target.shutdown(socket.SHUT_WR)
                    return
                target.sendall(data)

    threading.Thread(target=deliver, daemon=True).start()
    data = b"-"
    while data:
        try:
            data = source.recv(65536)
        except OSError:
            data = b""
        on_its_way.put((monotonic() + delay_s, data))


@contextmanager
def far_away(port: int, delay_s: float) -> Iterator[int]:
    """A port by which *port* is reached with a round trip of *delay_s* more."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", port))
                for each in (near, far):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=forward, args=(near, far, delay_s / 2), daemon=True).start()
                threading.Thread(target=forward, args=(far, near, delay_s / 2), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=800)
    parser.add_argument("--ms", type=float, nargs="+", default=[0, 5, 20])
    options = parser.parse_args()
    where = programs()
    if where is None:
        print(MISSING)
        return 2
    heading(f"{options.jobs} v2 jobs at {PER_S}/s, the ledger in PostgreSQL")
    worst = 1.0
    with running(where) as postgres:
        for ms in options.ms:
            name = postgres.new_database()
            with far_away(postgres.port, ms / 1000) as port, folder() as here, Server(creates_per_s=0) as server:
                ledger = name.replace(f":{postgres.port}/", f":{port}/")
                cost = orchestrator(
                    "run", manifest(here, options.jobs, api="v2"), "--json", url=server.url, ORCHESTRATOR_LEDGER=ledger
                )
                seen = server.seen()
            part = (len(seen.created) - 1) / (PER_S * seen.span_s)
            worst = min(worst, part)
            line(f"{ms:g} ms to the database: of the pace", f"{part:.1%}", f">= {GOAL:.0%}")
            line("  CPU per file", f"{cost.cpu_s / options.jobs * 1e3:.1f} ms")
    return worst < GOAL


if __name__ == "__main__":
    sys.exit(main())
