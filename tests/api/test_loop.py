"""The event loop that the commands run on: nothing that the resolver does holds up their end."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import pytest

from orchestrator.api.loop import run


async def look_up(host: str, within_s: float = 30) -> object:
    async with asyncio.timeout(within_s):
        return await asyncio.get_running_loop().getaddrinfo(host, 443, type=socket.SOCK_STREAM)


def test_a_resolver_that_never_answers_holds_up_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The call ends when its time is up, and the loop with it."""
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: answered.wait(60))
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        run(look_up("api.example", within_s=0.05))
    took_s = time.monotonic() - began
    answered.set()
    assert took_s < 30


def test_what_the_resolver_says_is_passed_on() -> None:
    """Addresses as asyncio gives them."""
    assert run(look_up("127.0.0.1")) == socket.getaddrinfo("127.0.0.1", 443, type=socket.SOCK_STREAM)


def test_a_name_that_does_not_exist_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The resolver's own error reaches who asked."""

    def refuse(*_: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(socket.gaierror):
        run(look_up("nowhere.example"))
