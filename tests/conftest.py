"""Fixtures that several test files share: a real server, the program and an API for it, a small config, a free port."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from support.commands import Cli, command_line
from support.moody import Moody
from support.postgres import database, postgres_server
from support.server import Answer, Server

from orchestrator.models import Chunk, Config, ParsingConfiguration, Rule

__all__ = ["database", "postgres_server"]  # fixtures of a real PostgreSQL, for every test

# A machine under load is slow, not wrong.
settings.register_profile("orchestrator", deadline=None)
settings.load_profile("orchestrator")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have every worker begin with its share of the long tests, so that none waits for one alone at the end.

    ``--dist worksteal`` first gives each worker as many tests as any other, in this order.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    long = [item for item in items if item.get_closest_marker("long")]
    rest = [item for item in items if not item.get_closest_marker("long")]
    bounds = [len(rest) * worker // workers for worker in range(workers + 1)]
    items[:] = [
        item
        for worker in range(workers)
        for item in (*long[worker::workers], *rest[bounds[worker] : bounds[worker + 1]])
    ]


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], Server]]:
    """Starts servers, and stops them when the test ends."""
    servers: list[Server] = []

    def start(answer: Answer) -> Server:
        server = Server(answer)
        server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    """The program in a folder of its own."""
    with command_line(tmp_path) as cli:
        yield cli


@pytest.fixture
def api(cli: Cli, serve: Callable[[Answer], Server]) -> Moody:
    """An API whose jobs fail on order, which *cli* talks to."""
    api = Moody()
    cli.use(serve(api))
    return api


@pytest.fixture
def config() -> Config:
    return Config(
        (
            Rule("invoice", "contains line items and a total"),
            Rule("receipt", "proof of a payment that was made"),
        ),
        parsing_configuration=ParsingConfiguration("en", 5),
    )


@pytest.fixture
def chunk(config: Config) -> Chunk:
    return Chunk(1, config, ("file-a", "file-b"))


@pytest.fixture
def unused_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
