"""The interface of a ledger's database, whichever kind it is, and its description of itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from sqlalchemy import Connection

from orchestrator.errors import LedgerError
from orchestrator.ledger.sql import STATUSES_SQL, text

T = TypeVar("T")

#: The event of a ledger whose rows are all in another one, which its note names.
MOVED = "moved"


@dataclass(frozen=True, slots=True)
class Description:
    """A ledger's description of itself."""

    location: str  #: in full, whatever the working folder
    engine: str
    version: int  #: of the schema
    bytes: int  #: on disk, with what the database keeps beside it
    files: tuple[Path, ...]  #: nothing else may be written over these


@dataclass(frozen=True, slots=True)
class ClaimState:
    """The latest hold on a manifest."""

    manifest: str
    host: str
    pid: int
    epoch: int
    command: str
    since: str
    beat_s: float | None  #: since its last beat
    held: bool  #: it goes on: its session has the lock

    @property
    def holder(self) -> str:
        return (
            f"pid {self.pid} on {self.host}, {self.command} since {self.since} "
            f"(epoch {self.epoch}, last heard of {self.beat_s or 0.0:.0f} s ago)"
        )

    @property
    def words(self) -> str:
        return f"{self.manifest}: held by {self.holder}"


@dataclass(frozen=True, slots=True)
class PaceState:
    """The pace of one kind of call that all processes of an API project keep together."""

    kind: str
    rate_per_s: float
    wait_s: float  #: until the next free slot: how long whoever asks now waits
    processes: int  #: that share a pace in this database

    @property
    def words(self) -> str:
        shared = f"shared by {self.processes} processes" if self.processes > 1 else "one process"
        return f"pace of {self.kind} calls: {self.rate_per_s:.1f}/s, {shared}, next free slot in {self.wait_s:.1f} s"


@dataclass(frozen=True, slots=True)
class ServerState:
    """A ledger's server, as the role that asks sees it."""

    engine: str
    role: str
    standby: bool  #: a copy that can only be read
    may_run: bool
    may_migrate: bool
    claims: list[ClaimState]
    paces: list[PaceState]  #: of calls that are made just now

    @property
    def news(self) -> list[str]:
        """Who holds which manifest now, and the paces, in words."""
        return [*(claim.words for claim in self.claims if claim.held), *(pace.words for pace in self.paces)]

    @property
    def words(self) -> str:
        may = ["read", *(["run"] if self.may_run else []), *(["migrate"] if self.may_migrate else [])]
        listed = " and ".join([", ".join(may[:-1]), may[-1]] if may[1:] else may)
        return f"{self.engine}, {'a standby' if self.standby else 'primary'}; role {self.role} may {listed}"


@dataclass(frozen=True, slots=True)
class Room:
    """The state of the place where a run wants to write."""

    problem: str | None  #: why it could not write there
    free_bytes: int | None  #: None: nobody but the server knows


def no_ledger(location: object) -> LedgerError:
    """The error of a command to which an empty ledger would be of no use, where there is none."""
    return LedgerError(f"no ledger at {location}; correct --ledger, or let `orchestrator run` create it")


def refuse_moved(connection: Connection, location: object) -> None:
    """Raises LedgerError when the ledger was moved: whoever wrote to the old one would buy everything again."""
    indexed = f"event = '{MOVED}' AND event NOT IN {STATUSES_SQL}"
    moved = connection.execute(text(f"SELECT at, note FROM events WHERE {indexed} ORDER BY id DESC LIMIT 1")).first()
    if moved is not None:
        raise LedgerError(
            f"{location}: this ledger was moved to {moved.note} ({moved.at}); name that one with --ledger"
        )


class Lease(Protocol):
    """A run's hold on its manifest."""

    @property
    def fresh(self) -> bool:
        """Whether nobody can have taken over; known without asking anybody."""

    @property
    def took_over(self) -> bool:
        """Whether the holder before had not ended by itself: its last call may still be on its way."""

    @property
    def replaced(self) -> bool:
        """Whether the ledger is on another server than its last run's: the latest commits may be missing."""

    def settle(self, connection: Connection) -> None:
        """From the commit of *connection*'s transaction on, nothing is missing: what was open is looked for."""


class Database(Protocol):
    """One open database with a ledger; see ``opening.Ledger``."""

    remote: bool  #: each transaction waits for a network
    patience_s: float  #: how long a transaction waits to begin

    def transaction(self, *, patience_s: float | None = None) -> AbstractContextManager[Connection]: ...
    def in_step(self, connection: Connection, works: Sequence[Callable[[Connection], T]]) -> list[T]: ...
    def glance(self) -> AbstractContextManager[Connection]: ...
    def rebuilt(self) -> None: ...
    def describe(self) -> Description: ...
    def check(self) -> str | None: ...
    def stage_again(self, stage: Callable[[Connection], object]) -> None: ...
    def close(self) -> None: ...
