"""An event loop that waits for no name look-up: the system's resolver knows no deadline and can't be stopped."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """``asyncio.run``, but over when *work* is, whatever the resolver is doing."""
    try:
        with asyncio.Runner(loop_factory=_Loop) as runner:
            return runner.run(work)
    finally:
        work.close()  # it may never have begun


class _Loop(asyncio.SelectorEventLoop):
    """Looks names up in threads that nobody joins, neither at the loop's end nor at the process's."""

    def close(self) -> None:
        if hasattr(self, "_csock"):  # it may be half made, where no file may be opened any more
            super().close()

    async def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        *,
        family: int = 0,
        type: int = 0,  # noqa: A002 - the name that asyncio gives it
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        found: asyncio.Future[Any] = self.create_future()

        def settle(answer: Any, error: BaseException | None) -> None:
            if found.done():
                return
            if error is None:
                found.set_result(answer)
            else:
                found.set_exception(error)

        def look_up() -> None:
            answer, failed = None, None
            try:
                answer = socket.getaddrinfo(host, port, family, type, proto, flags)
            except BaseException as error:  # noqa: BLE001 - it is for who asked
                failed = error
            with suppress(RuntimeError):  # the loop has ended meanwhile
                self.call_soon_threadsafe(settle, answer, failed)

        threading.Thread(target=look_up, daemon=True).start()
        return await found
