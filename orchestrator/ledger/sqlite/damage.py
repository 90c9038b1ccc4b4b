"""Damage to a ledger's file: SQLite looks through all of it, a large one while the program goes on with other work."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

from orchestrator.errors import LedgerError

#: A file of fewer bytes takes less than a tenth of a second.
LARGE = 16 << 20


class Check:
    """A look through the file, for as long as nobody else uses *connection*: of a large file it is made in a thread."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection
        self._came_to: str | sqlite3.Error = ""
        self._thread = threading.Thread(target=self._look, name="ledger-check")
        if path.exists() and path.stat().st_size >= LARGE:
            self._thread.start()
        else:
            self._look()

    def _look(self) -> None:
        try:
            (self._came_to,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.Error as error:
            self._came_to = error

    @property
    def goes_on(self) -> bool:
        return self._thread.is_alive()

    def wait(self) -> None:
        """Until the connection is free."""
        if self._thread.ident is not None:
            self._thread.join()

    def found(self) -> str | None:
        """The first fault of the file, once all of it has been looked through. Raises sqlite3.Error."""
        self.wait()
        if isinstance(self._came_to, sqlite3.Error):
            raise self._came_to
        return None if self._came_to == "ok" else self._came_to

    def refuse(self) -> None:
        """Raises LedgerError for a fault, and what ``found`` raises."""
        if found := self.found():
            raise LedgerError(
                f"{self._path}: the ledger is damaged ({found}); put back a copy, or rebuild it from the API"
                " with `orchestrator adopt` into a new one"
            )
