"""The only room that knows SQL: the ledger of manifests, runs, jobs, files, results and events.

The ledger is the truth and also the queue. ``ledger.open`` opens it and ``ledger.lease`` keeps a second run out; the
other modules are plain functions that take the ``Transaction`` they belong to, so that writes which belong together are
one commit. Import what this page names and those modules, never ``ledger.sqlite``.
"""

from orchestrator.ledger.opening import (
    ENGINE,
    PATIENCE_S,
    Description,
    Lease,
    Ledger,
    Location,
    Room,
    Server,
    ServerState,
    backup,
    exists,
    holder,
    in_memory,
    lease,
    locate,
    open,  # noqa: A004 - called as ledger.open
    pace,
    parameters,
    refuse_gone,
    refuse_moved,
    require,
    room,
    server_state,
    session,
)
from orchestrator.ledger.sql import Transaction

__all__ = [
    "ENGINE",
    "PATIENCE_S",
    "Description",
    "Lease",
    "Ledger",
    "Location",
    "Room",
    "Server",
    "ServerState",
    "Transaction",
    "backup",
    "exists",
    "holder",
    "in_memory",
    "lease",
    "locate",
    "open",
    "pace",
    "parameters",
    "refuse_gone",
    "refuse_moved",
    "require",
    "room",
    "server_state",
    "session",
]
