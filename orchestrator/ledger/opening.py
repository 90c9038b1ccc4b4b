"""Where a ledger is, whether there is one, opening it, and the lease of a run: the one place that picks a database.

What is PostgreSQL's is imported only for a ledger there: its driver is an extra, and slow to load.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from orchestrator.errors import InputError
from orchestrator.ledger.database import Database, no_ledger
from orchestrator.ledger.database import Description as Description
from orchestrator.ledger.database import Lease as Lease
from orchestrator.ledger.database import Room as Room
from orchestrator.ledger.database import ServerState as ServerState
from orchestrator.ledger.database import refuse_moved as refuse_moved
from orchestrator.ledger.postgres import address
from orchestrator.ledger.postgres.address import Server as Server
from orchestrator.ledger.sql import Transaction
from orchestrator.ledger.sqlite import backup as backups
from orchestrator.ledger.sqlite import database as sqlite
from orchestrator.ledger.sqlite import lease as leases
from orchestrator.ledger.sqlite import place
from orchestrator.ledger.sqlite.database import ENGINE as ENGINE
from orchestrator.ledger.sqlite.turns import PATIENCE_S as PATIENCE_S

if TYPE_CHECKING:
    from orchestrator.ledger.postgres.pace import Place
    from orchestrator.ledger.postgres.session import Session

T = TypeVar("T")

#: Where a ledger is, as ``locate`` reads it from an option: a file, or a database on a server.
Location = Path | Server

#: How long a run waits for a database server that is away, unless the settings say otherwise.
AWAY_S = 60.0


class Ledger:
    """One open ledger, in whichever database it is. Only one thread uses it at a time; others wait for their turn."""

    def __init__(
        self,
        location: Location,
        *,
        read_only: bool = False,
        lease: Lease | None = None,
        rebuilding: bool = False,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Open the ledger at *location*: see ``open``. Raises LedgerError."""
        self.location = location
        self._lease = lease
        self._database: Database
        if isinstance(location, Path):
            assert lease is None or isinstance(lease, place.Held)  # noqa: S101 - of the same location
            self._database = sqlite.Database(
                location, read_only=read_only, lease=lease, rebuilding=rebuilding, patience_s=patience_s
            )
            return
        from orchestrator.ledger.postgres import database
        from orchestrator.ledger.postgres import lease as claims

        assert lease is None or isinstance(lease, claims.Held)  # noqa: S101 - of the same location
        self._database = database.Database(location, read_only=read_only, lease=lease, patience_s=patience_s)

    @classmethod
    def in_memory(cls) -> Ledger:
        """An empty ledger that is never written anywhere."""
        ledger = cls.__new__(cls)
        ledger.location, ledger._lease, ledger._database = Path(":memory:"), None, sqlite.Database.in_memory()
        return ledger

    @property
    def remote(self) -> bool:
        """Whether each transaction waits for a network."""
        return self._database.remote

    @property
    def still_ours(self) -> bool:
        """Whether surely no other run has the manifest by now; known without asking anybody."""
        return self._lease is None or self._lease.fresh

    @property
    def took_over(self) -> bool:
        """Whether the run before was pushed out: a call of its may still be on its way."""
        return self._lease is not None and self._lease.took_over

    @property
    def replaced(self) -> bool:
        """Whether a server took the place of the last run's: the ledger's latest commits may be missing."""
        return self._lease is not None and self._lease.replaced

    def settle(self, connection: Transaction) -> None:
        """Have ``replaced`` end with *connection*'s commit, in which all that may be missing is marked as open."""
        if self._lease is not None:
            self._lease.settle(connection)

    @property
    def patience_s(self) -> float:
        """How long a transaction waits while other processes write, or a server is away."""
        return self._database.patience_s

    @patience_s.setter
    def patience_s(self, seconds: float) -> None:
        self._database.patience_s = seconds

    def transaction(self, *, patience_s: float | None = None) -> AbstractContextManager[Transaction]:
        """One transaction: on disk when the block ends, rolled back when it raises.

        Raises LedgerError, LockHeld when another run has taken the manifest over, and what the block raises. Raises
        LedgerBusy, with nothing recorded, when it could not be begun for *patience_s* (``patience_s``), or when the
        connection to a server was lost.
        """
        return self._database.transaction(patience_s=patience_s)

    def in_step(self, connection: Transaction, works: Sequence[Callable[[Transaction], T]]) -> list[T]:
        """The answers of *works*, in order. On a server they go in step, so none may need what another one writes."""
        return self._database.in_step(connection, works)

    def glance(self) -> AbstractContextManager[Transaction]:
        """The last committed state, read-only, even while another process writes. Raises LedgerError."""
        return self._database.glance()

    def stage_again(self, stage: Callable[[Transaction], object]) -> None:
        """Call *stage* on every new connection that has to be made from now on: temporary tables die with the old."""
        self._database.stage_again(stage)

    def rebuilt(self) -> None:
        """Declare the ledger complete again: from now on it counts as the ledger that was here."""
        self._database.rebuilt()

    def describe(self) -> Description:
        """Describe this ledger; may be called inside a transaction."""
        return self._database.describe()

    def check(self) -> str | None:
        """Return what is wrong with the ledger and what to do about it; None when it is sound. Raises LedgerError."""
        return self._database.check()

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open(  # noqa: A001 - called as ledger.open
    location: Location,
    *,
    read_only: bool = False,
    lease: Lease | None = None,
    rebuilding: bool = False,
    patience_s: float = PATIENCE_S,
) -> Ledger:
    """The ledger at *location*, made if need be unless *read_only*. Raises LedgerError.

    *lease* is the run's: nothing is written once it is lost. *rebuilding* allows a new ledger where one has
    disappeared, and an older copy of it; otherwise they are refused, because they would buy again what they lack.
    ``Ledger.rebuilt`` ends that state. *patience_s*: how long each transaction waits while other processes write.
    """
    return Ledger(location, read_only=read_only, lease=lease, rebuilding=rebuilding, patience_s=patience_s)


def in_memory() -> Ledger:
    """An empty ledger that is never written anywhere."""
    return Ledger.in_memory()


def locate(option: str) -> Location:
    """The place that a ``--ledger`` or ``ORCHESTRATOR_LEDGER`` value names. Raises SettingsError."""
    return address.locate(option) if address.is_server(option) else place.locate(option)


def lease(
    location: Location, manifest: str, holder: Mapping[str, str], *, away_s: float = AWAY_S
) -> AbstractContextManager[Lease]:
    """Keep every other run of *manifest* out while the block runs. *holder*: the ``command``, and ``since`` when.

    *away_s*: how long a server that is away is waited for. Raises LockHeld, which names the holder, and
    LedgerError.
    """
    if isinstance(location, Path):
        return leases.lease(location, manifest, holder)
    from orchestrator.ledger.postgres import lease as claims

    return claims.lease(location, manifest, holder, away_s=away_s)


def holder(location: Location, manifest: str) -> str | None:
    """The holder of the lease of *manifest* right now, in words; None when nobody does. Raises LedgerError."""
    if isinstance(location, Path):
        return leases.holder(location, manifest)
    from orchestrator.ledger.postgres import lease as claims

    return claims.holder(location, manifest)


def exists(location: Location) -> bool:
    """Whether a ledger is at *location*; it may still be unreadable. An empty file or database is none.

    Raises LedgerError for a server that can't be asked.
    """
    if isinstance(location, Path):
        return place.exists(location)
    from orchestrator.ledger.postgres import schema

    return schema.exists(location)


def require(location: Location) -> None:
    """Raises LedgerError when nothing is at *location*: for commands to which an empty ledger would be of no use."""
    if isinstance(location, Path):
        place.require(location)
    elif not exists(location):
        raise no_ledger(location)


def refuse_gone(location: Location) -> None:
    """Raises LedgerError when a ledger was at *location*: an empty one would have everything bought again."""
    if isinstance(location, Path):
        place.refuse_gone(location)


def room(location: Location) -> Room:
    """Say whether a run could write a ledger at *location*, and how much."""
    return place.room(location) if isinstance(location, Path) else Room(None, None)


def server_state(location: Location) -> ServerState | None:
    """The state of the server that the ledger is on; None for a file. Raises LedgerError."""
    if isinstance(location, Path):
        return None
    from orchestrator.ledger.postgres import standing

    return standing.look(location)


def backup(location: Location, target: Path, *, force: bool) -> int:
    """Copy the ledger at *location* to *target* while it is in use; its size in bytes. See ``sqlite.backup``."""
    if not isinstance(location, Path):
        raise InputError(
            f"{location}: a ledger in PostgreSQL is backed up with PostgreSQL's own tools, such as pg_dump"
        )
    return backups.backup(location, target, force=force)


def session(server: Server, name: str) -> Session:
    """A session with *server* that belongs to no run; *name* is what the server lists it by."""
    from orchestrator.ledger.postgres import session

    return session.Session(server, name)


def pace(server: Server, project: str, kinds: tuple[str, ...]) -> Place:
    """Where all processes with a ledger on *server* keep the paces of *project* together, for these *kinds* of call."""
    from orchestrator.ledger.postgres.pace import Place

    return Place(server, project, kinds)


def parameters(server: Server, name: str) -> str:
    """libpq's parameters for connecting to *server*. Holds no secret."""
    from orchestrator.ledger.postgres import session

    return session.parameters(server, name)
