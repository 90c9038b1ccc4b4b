"""A run's claim on its manifest, on a server that several hosts share.

The claim is a row with an epoch, and an advisory lock of the session that all of the run's transactions are made on:
who has the lock is alone, and the server frees it when the session ends. A thread beats beside it. Whoever finds a beat
that is too old ends the holder's sessions first, so that nothing of the holder's can be committed once the next one
has begun; what is *sent* is stopped by ``Held.fresh``, before the next one may begin.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from sqlalchemy import Connection, RootTransaction
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.errors import LedgerBusy, LedgerError, LockHeld
from orchestrator.ledger.postgres import schema
from orchestrator.ledger.postgres.address import Server
from orchestrator.ledger.postgres.session import Session, connect, identity, translated, words
from orchestrator.ledger.sql import text

BEAT_S = 2.0
#: A holder without a beat for so long is thought to be gone; a newcomer waits for certainty.
DOUBT_S = 7.0
#: A holder without a beat for so long loses its claim.
DEAD_S = 20.0
#: Nothing is sent by a holder whose last beat is older: five seconds before anybody may take over.
FRESH_S = 15.0
#: How long a lock that is being freed may take.
_RELEASE_S = 10.0
_TRY_EVERY_S = 0.2

_WHO = """
SELECT l.pid, c.epoch, c.pid AS process, c.host, c.command, c.since, c.session,
       CAST(extract(epoch FROM clock_timestamp() - b.at) AS DOUBLE PRECISION) AS beat_s,
       CAST(extract(epoch FROM clock_timestamp() - a.backend_start) AS DOUBLE PRECISION) AS session_s
FROM pg_locks l LEFT JOIN claims c ON c.name = %(name)s LEFT JOIN beats b ON b.name = c.name
LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
  AND (CAST(l.classid AS BIGINT) << 32) + CAST(l.objid AS BIGINT) = %(key)s
"""
_TAKE = """
INSERT INTO claims AS c (name, epoch, writes, session, pid, host, command, since)
VALUES (%(name)s, 1, 0, %(session)s, %(pid)s, %(host)s, %(command)s, %(since)s)
ON CONFLICT (name) DO UPDATE SET epoch = c.epoch + 1, session = excluded.session, pid = excluded.pid,
  host = excluded.host, command = excluded.command, since = excluded.since
RETURNING epoch, writes, server
"""
#: A manifest's own claim may be among what the ledger lacks: those of the others tell then.
_SETTLED_ELSEWHERE = "SELECT server FROM claims WHERE server <> %(server)s LIMIT 1"
_FIRST_BEAT = """
INSERT INTO beats (name, epoch, at) VALUES (%(name)s, %(epoch)s, clock_timestamp())
ON CONFLICT (name) DO UPDATE SET epoch = excluded.epoch, at = excluded.at
"""
_BEAT = "UPDATE beats SET at = clock_timestamp() WHERE name = %(name)s AND epoch = %(epoch)s"
_FENCE = "SELECT writes FROM claims WHERE name = %(name)s AND epoch = %(epoch)s"
_SETTLE = "UPDATE claims SET server = :server WHERE name = :name AND epoch = :epoch"
_COUNT = "UPDATE claims SET writes = writes + 1 WHERE name = %(name)s AND epoch = %(epoch)s"


def boottime() -> float:
    """Seconds on a clock that nobody sets and that goes on while the machine sleeps or the process stands still."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Replaced(LedgerError):
    """The server that a run began on is another one now."""


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that has the lock of a manifest."""

    backend: int  #: the server's process that has it
    session_s: float | None  #: its age; None: the server does not say
    words: str
    session: str | None
    epoch: int | None
    silent_s: float  #: since the last beat

    @property
    def heard_s(self) -> float:
        """Seconds without a sign of it: of a session that has just begun, none was due yet."""
        return min(self.silent_s, 0.0 if self.session_s is None else self.session_s)


def key_of(room: str, name: str) -> int:
    """The advisory lock of *name* in the schema *room*: 63 bits, which the server shows as they are."""
    return int.from_bytes(hashlib.sha256(f"{room}\0{name}".encode()).digest()[:8]) >> 1


def who(raw: psycopg.Connection[Any], name: str) -> Holder | None:
    """The holder of the lock of *name* now; None when nobody has. Raises psycopg.Error."""
    row = raw.execute(_WHO, {"name": name, "key": _key(raw, name)}).fetchone()
    if row is None:
        return None
    backend, epoch, process, host, command, since, session, beat_s, session_s = row
    if epoch is None:
        return Holder(backend, session_s, "it has just begun", None, None, 0.0)
    said = f"pid {process} on {host}, {command} since {since} (epoch {epoch}, last heard of {beat_s or 0:.0f} s ago)"
    return Holder(backend, session_s, said, session, epoch, 0.0 if beat_s is None else beat_s)


def _key(raw: psycopg.Connection[Any], name: str) -> int:
    row = raw.execute("SELECT current_schema()").fetchone()
    return key_of(str(row[0]) if row else "", name)


class Held:
    """A run's hold on its manifest, and the session that it writes on."""

    def __init__(self, server: Server, name: str, holder: Mapping[str, str], *, away_s: float) -> None:
        self.name = name
        self.session = Session(server, f"orchestrator {secrets.token_hex(6)}")
        self.epoch = self._writes = 0
        self.took_over = False  #: from a holder that had not ended by itself
        self.replaced = False
        self._identity: str | None = None  #: of the server
        self._holder = holder
        self._away_s = away_s
        self._away_since: float | None = None
        self._last_beat = boottime()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="beat", daemon=True)

    @property
    def server(self) -> Server:
        return self.session.server

    @property
    def fresh(self) -> bool:
        """Whether nobody can have taken over; known without asking anybody."""
        return boottime() - self._last_beat < FRESH_S

    # Taking and keeping

    def take(self) -> None:
        """Raises LockHeld, which names the holder, and LedgerError."""
        schema.prepare(self.session, make=True)
        self._lock()
        with translated(self.server):
            self._identity = identity(self.session.raw)
        with translated(self.server), self.session.connection.begin():
            raw, about = self.session.raw, {"pid": os.getpid(), "host": socket.gethostname(), **self._holder}
            asked_at = boottime()
            row = raw.execute(_TAKE, {"name": self.name, "session": self.session.name, **about}).fetchone()
            assert row is not None  # noqa: S101 - RETURNING
            self.epoch, self._writes, settled_on = row
            if settled_on is None:
                others = raw.execute(_SETTLED_ELSEWHERE, {"server": self._identity}).fetchone()
                settled_on = others[0] if others else None
            self.replaced = None not in (settled_on, self._identity) and settled_on != self._identity
            raw.execute(_FIRST_BEAT, {"name": self.name, "epoch": self.epoch})
        self._last_beat = asked_at
        self._thread.start()

    def _lock(self) -> None:
        """Get the lock, from a holder without a sign of life if need be."""
        until = time.monotonic() + DEAD_S + _RELEASE_S
        while True:
            with translated(self.server), self.session.connection.begin():
                raw = self.session.raw
                row = raw.execute("SELECT pg_try_advisory_lock(%s)", (_key(raw, self.name),)).fetchone()
                if row == (True,):
                    return
                holder = who(raw, self.name)
                if holder is not None:
                    self._push_out(raw, holder, waited_out=time.monotonic() >= until)
            time.sleep(_TRY_EVERY_S)

    def _push_out(self, raw: psycopg.Connection[Any], holder: Holder, *, waited_out: bool) -> None:
        """End the sessions of a *holder* that is gone, or of an earlier connection of our own."""
        ours = bool(self.epoch) and (holder.session, holder.epoch) == (self.session.name, self.epoch)
        if (holder.heard_s <= DOUBT_S and not ours) or waited_out:
            raise LockHeld(f"another run holds manifest {self.name!r}: {holder.words}")
        if holder.heard_s <= DEAD_S and not ours:
            return
        self.took_over = self.took_over or not ours
        raw.execute(
            "SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a "
            "WHERE a.pid <> pg_backend_pid() AND (a.pid = %s OR a.application_name = %s)",
            (holder.backend, holder.session),
        )

    def _beat(self) -> None:
        """Beat on a connection of its own, as a long transaction may hold the other one up."""
        connection: psycopg.Connection[Any] | None = None
        while not self._ending.wait(BEAT_S):
            try:
                connection = connection or connect(self.server, self.session.name, autocommit=True)
                asked_at = boottime()
                if connection.execute(_BEAT, {"name": self.name, "epoch": self.epoch}).rowcount == 1:
                    self._last_beat = asked_at
            except (psycopg.Error, LedgerError):
                if connection is not None:
                    connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def release(self) -> None:
        """Give the claim back."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(BEAT_S)
        with suppress(LedgerError):
            self.session.close()

    # Transactions

    def begin(self, patience_s: float) -> tuple[Connection, RootTransaction]:
        """Begin a transaction that can only be committed by the claim's holder.

        Raises LedgerBusy after *patience_s* when the server is away, LedgerError when it has been for too long, and
        LockHeld when another run has the claim now.
        """
        until = time.monotonic() + patience_s
        while True:
            try:
                if self.session.lost:
                    self._return()
                connection = self.session.connection
                transaction = connection.begin()
                with translated(self.server):
                    self._fence()
            except LedgerError as error:
                lost = self.session.lost
                self.session.drop()
                self._away_since = self._away_since or time.monotonic()
                if isinstance(error, Replaced) or not lost or time.monotonic() - self._away_since >= self._away_s:
                    raise
                if time.monotonic() >= until:
                    raise LedgerBusy(str(error)) from error
                time.sleep(_TRY_EVERY_S)
                continue
            except BaseException:
                self.session.drop()
                raise
            self._away_since = None
            return connection, transaction

    def _fence(self) -> None:
        """The first statement, which goes out together with BEGIN: the claim is this run's."""
        raw = self.session.raw
        with raw.pipeline():
            found = raw.execute(_FENCE, {"name": self.name, "epoch": self.epoch})
        if found.fetchone() is None:
            raise self._taken(None)

    def settle(self, connection: Connection) -> None:
        """See ``database.Lease``."""
        connection.execute(text(_SETTLE), {"server": self._identity, "name": self.name, "epoch": self.epoch})

    def _return(self) -> None:
        """A new connection for the same claim: nobody may have had it meanwhile, and every commit has to be there."""
        self.session.drop()
        with translated(self.server):
            here = identity(self.session.raw)
        with translated(self.server), self.session.connection.begin():
            raw = self.session.raw
            row = raw.execute(_FENCE, {"name": self.name, "epoch": self.epoch}).fetchone()
            if row is None and here == self._identity:
                raise self._taken(who(raw, self.name))
        if here != self._identity:
            raise Replaced(
                f"{self.server}: another server has taken its place, and the latest commits may be missing; the next "
                "run looks for the open create calls before it sends anything"
            )
        self._lock()

    def _taken(self, holder: Holder | None) -> LockHeld:
        said = f": {holder.words}" if holder else ""
        return LockHeld(f"another run has taken over manifest {self.name!r}{said}; nothing more is sent by this one")

    def commit(self, transaction: RootTransaction, *, wrote: bool) -> None:
        """Commit, and know whether it was. Raises LedgerBusy when the connection was lost before, and LedgerError."""
        try:
            with self.session.raw.pipeline():
                if wrote:
                    self.session.raw.execute(_COUNT, {"name": self.name, "epoch": self.epoch})
                transaction.commit()
        except (SQLAlchemyError, psycopg.Error) as error:
            said = words(self.server, error.__cause__ or error)
            if not self.session.lost:
                self.session.drop()
                raise LedgerError(said) from error
            if not wrote or self._has_committed():
                self._writes += wrote
                return
            raise LedgerBusy(said) from error
        self._writes += wrote

    def _has_committed(self) -> bool:
        """Whether the transaction whose answer was lost is in the ledger, by the claim's own count of its writes."""
        connection, transaction = self.begin(self._away_s)
        with translated(self.server):
            row = self.session.raw.execute(_FENCE, {"name": self.name, "epoch": self.epoch}).fetchone()
            transaction.rollback()
        del connection
        return row is not None and int(row[0]) > self._writes


@contextmanager
def lease(server: Server, name: str, holder: Mapping[str, str], *, away_s: float) -> Iterator[Held]:
    """Hold *name* for as long as the block runs. See ``opening.lease``."""
    held = Held(server, name, holder, away_s=away_s)
    try:
        held.take()
        yield held
    finally:
        held.release()


def holder(server: Server, name: str) -> str | None:
    """The holder of *name* right now, in words; None when nobody does. Raises LedgerError."""
    session = Session(server)
    try:
        with translated(server), session.connection.begin():
            found = who(session.raw, name)
        return None if found is None else found.words
    finally:
        session.close()
