"""Slots and news for all processes that use one API project: a row for each kind of call, and NOTIFY.

Each process exchanges in a thread, on a connection of its own. Nothing here is worth keeping: the table is not logged,
commits wait for no disk, and who finds no row makes one.
"""

from __future__ import annotations

import random
import threading
import time
from typing import Any, Protocol

import psycopg
import structlog

from orchestrator.errors import LedgerError
from orchestrator.ledger.postgres.address import Server
from orchestrator.ledger.postgres.session import connect

log = structlog.get_logger()

#: What the server lists a process by that shares its pace.
SESSION = "orchestrator pace"

#: How often a process with calls to make exchanges, on average; never at times that others may keep, too.
EVERY_S = 0.1
#: The shortest time between two exchanges, and the longest, of a process with nothing to say.
SOONEST_S, IDLE_S = 0.05, 1.0
#: A process that was not heard of for so long is not there.
GONE_S = 5.0
#: A pace that was found so long ago is not taken over.
STALE_S = 60.0
#: Pause before a server that is away is tried again.
AGAIN_S = 1.0

_ROWS = """
INSERT INTO paces (project, kind) SELECT %(project)s, k.kind FROM unnest(%(kinds)s) AS k (kind)
ON CONFLICT (project, kind) DO NOTHING
"""
_FOUND = """
SELECT kind, rate FROM paces
WHERE project = %(project)s AND rate > 0 AND found_at > extract(epoch FROM clock_timestamp()) - %(stale_s)s
"""
_WISH = ("kind", "calls", "step_s", "not_before", "horizon_s")
_NOW = "SELECT CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION)"
_GIVE = """
WITH held AS MATERIALIZED (
  SELECT next_at FROM paces WHERE project = %(project)s AND kind = %(kind)s FOR UPDATE
), asked AS MATERIALIZED (
  SELECT next_at, CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION) AS now FROM held
), placed AS MATERIALIZED (
  SELECT now, now + %(lead_s)s - next_at > 2 * %(step_s)s AS idle,
         greatest(next_at, now + %(lead_s)s, %(not_before)s) AS first FROM asked
), given AS MATERIALIZED (
  SELECT now, first, idle, least(%(calls)s, CASE WHEN first <= now + %(horizon_s)s
    THEN CAST(floor((now + %(horizon_s)s - first) / %(step_s)s) AS BIGINT) + 1 ELSE 0 END) AS calls FROM placed
), moved AS (
  UPDATE paces p SET next_at = g.first + g.calls * %(step_s)s, rate = 1 / %(step_s)s, found_at = g.now
  FROM given g WHERE p.project = %(project)s AND p.kind = %(kind)s AND g.calls > 0
)
SELECT first, calls, idle, CASE WHEN calls > 0 THEN CAST(pg_notify(%(channel)s, CAST(json_build_object(
  'kind', %(kind)s, 'slots', json_build_array(first, calls, %(step_s)s, idle)) AS TEXT)) AS TEXT) END
FROM given
"""


class Part(Protocol):
    """What is exchanged for; see ``api.sharing.Part``. Called from the place's thread."""

    def asks(self) -> tuple[list[tuple[str, int, float, float, float]], list[str]]: ...
    def told(self, now: float, waited_s: float, processes: int) -> None: ...
    def given(self, kind: str, first: float, calls: int, step_s: float, *, idle: bool) -> None: ...
    def heard(self, words: str) -> None: ...
    def joined(self, kind: str, rate_per_s: float) -> None: ...


class Place:
    """Where the processes of *project* meet: *project* is a name that tells nothing of its key."""

    def __init__(self, server: Server, project: str, kinds: tuple[str, ...]) -> None:
        self._server = server
        self._project = project
        self._kinds = kinds
        self._channel = f"pace_{project}"
        self._others: dict[int, float] = {}  # process of the server -> when it was heard of
        self._awake = threading.Event()
        self._ending = False
        self._told = False  # that the server is away, in the log
        self._thread: threading.Thread | None = None

    def start(self, part: Part, *, lead_s: float) -> None:
        """Exchange for *part* from now on. No slot is given that is less than *lead_s* ahead."""
        about = {"project": self._project, "channel": self._channel, "lead_s": lead_s}
        self._thread = threading.Thread(target=self._run, args=(part, about), name="pace", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Exchange soon."""
        self._awake.set()

    def close(self) -> None:
        self._ending = True
        self._awake.set()
        if self._thread is not None:
            self._thread.join(AGAIN_S)

    def _run(self, part: Part, about: dict[str, Any]) -> None:
        while not self._ending:
            try:
                with connect(self._server, SESSION, autocommit=True) as connection:
                    self._exchange_until_the_end(connection, part, about)
            except (psycopg.Error, LedgerError) as error:
                if not self._told:
                    log.warning("pace.not_shared", words=(str(error).splitlines() or [type(error).__name__])[0])
                    self._told = True
                time.sleep(AGAIN_S)

    def _exchange_until_the_end(self, connection: psycopg.Connection[Any], part: Part, about: dict[str, Any]) -> None:
        ours, channel = connection.info.backend_pid, psycopg.sql.Identifier(self._channel)

        def hear(notice: psycopg.Notify) -> None:
            if notice.pid != ours:
                self._others[notice.pid] = time.monotonic()
                if notice.payload:
                    part.heard(notice.payload)

        connection.add_notify_handler(hear)
        connection.execute("SET synchronous_commit = off")
        connection.execute(psycopg.sql.SQL("LISTEN {}").format(channel))
        connection.execute(_ROWS, {**about, "kinds": list(self._kinds)})
        for kind, rate_per_s in connection.execute(_FOUND, {**about, "stale_s": STALE_S}):
            part.joined(kind, rate_per_s)
        while not self._ending:
            began = time.monotonic()
            busy = self._exchange(connection, part, about)
            rest_s = random.uniform(0.5, 1.5) * EVERY_S if busy else IDLE_S
            self._awake.wait(rest_s)
            time.sleep(max(began + SOONEST_S - time.monotonic(), 0.0) if self._awake.is_set() else 0.0)
            self._awake.clear()

    def _exchange(self, connection: psycopg.Connection[Any], part: Part, about: dict[str, Any]) -> bool:
        """Tell, ask, be given, hear; whether there was anything to tell or to ask for."""
        asked, news = part.asks()
        began = time.monotonic()
        with connection.pipeline() as pipeline:
            time_ = connection.execute(_NOW)
            for words in news or [""]:
                connection.execute("SELECT pg_notify(%(channel)s, %(words)s)", {**about, "words": words})
            given = [connection.execute(_GIVE, {**about, **dict(zip(_WISH, each, strict=True))}) for each in asked]
            pipeline.sync()
            row = time_.fetchone()
            slots = [cursor.fetchone() for cursor in given]
        ended = time.monotonic()
        self._others = {pid: at for pid, at in self._others.items() if ended - at < GONE_S}
        assert row is not None  # noqa: S101 - a SELECT of one row
        part.told(row[0], ended - began, 1 + len(self._others))
        for (kind, _, step_s, *_), got in zip(asked, slots, strict=True):
            if got is None:
                connection.execute(_ROWS, {**about, "kinds": list(self._kinds)})
            elif got[1]:
                part.given(kind, got[0], got[1], step_s, idle=got[2])
        return bool(asked or news)
