"""Nothing that the network does outlasts a deadline, or leaves a call in doubt that never left."""

from __future__ import annotations

import json
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest
from support.commands import Cli


@pytest.fixture
def unreachable() -> Iterator[str]:
    """The base URL of a machine that answers no attempt to connect, as if the network swallowed them."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):  # the places in its queue
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("api", ["v1", "v2"])
def test_a_connection_that_is_never_made_ends_with_the_deadline(cli: Cli, unreachable: str, api: str) -> None:
    """Exit 3; no create call left, and none is in doubt."""
    cli.environ["LLAMA_CLOUD_BASE_URL"] = unreachable
    done = cli("run", "m.yaml", "--api", api, "--deadline", "200ms", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["unfinished"]) == (3, 3), told
    with closing(sqlite3.connect(cli.folder / "ledger.db")) as ledger:
        assert set(ledger.execute("SELECT status FROM jobs")) == {("pending",)}
