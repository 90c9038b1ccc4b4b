"""A network to a database server that is cut at a word: between a program and PostgreSQL, on loopback."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self


class Cutting:
    """Forwards connections to *port* for as long as the block runs."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.word: bytes | None = None  #: where the next cut is, once: a client sends it
        self.after = False  #: the word reaches the server and its answer never comes back
        self.cuts = 0
        self.when_cut: Callable[[], None] = lambda: None  #: called before anybody can connect again
        self._open: set[socket.socket] = set()
        self._free = threading.Event()
        self._free.set()
        self.flows = threading.Event()  #: cleared, nothing comes through and no connection ends: a lost network
        self.flows.set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.flows.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes up who waits for a connection
        self._listener.close()
        self._close_all()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._free.wait()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._open |= {client, server}
                threading.Thread(target=self._forward, args=(client, server, True), daemon=True).start()
                threading.Thread(target=self._forward, args=(server, client, False), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, asks: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if asks and self.word is not None and self.word in data:
                    self.word = None
                    self._cut(source, target, data)
                    return
                self.flows.wait()
                target.sendall(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _cut(self, client: socket.socket, server: socket.socket, data: bytes) -> None:
        self._free.clear()
        self.cuts += 1
        try:
            with suppress(OSError):  # whichever end is there no more: all others are to come through again
                client.shutdown(socket.SHUT_RDWR)
                if self.after:
                    server.sendall(data)
                    server.shutdown(socket.SHUT_WR)  # the server does what it has got, and then sees the end
                    self._until_ended(server)
            self._close_all()
            self.when_cut()
        finally:
            self._free.set()

    @staticmethod
    def _until_ended(server: socket.socket) -> None:
        with suppress(OSError):
            while server.recv(65536):
                pass

    def _close_all(self) -> None:
        for each in list(self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._open.clear()
