"""The only room that knows SQL: the ledger of manifests, runs, jobs, files, results and events.

The ledger is the truth and also the queue. ``place`` has its files, ``database`` opens it; the other modules are sets
of plain functions that take the connection of one transaction, so that writes that belong together are one commit.
"""

from orchestrator.ledger.sql import Transaction
from orchestrator.ledger.sqlite.database import Ledger

__all__ = ["Ledger", "Transaction"]
