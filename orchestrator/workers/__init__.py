"""Workers on any number of hosts that carry manifests' runs out: ``submit`` asks, a worker's child process runs.

Needs a ledger in PostgreSQL and the extra ``distributed``. Procrastinate wakes the workers; the ledger decides what is
bought, so nothing here can buy anything twice.
"""
