"""Tables that hosts share to carry runs out: tasks, schedules and workers, in the same PostgreSQL as the ledger.

Procrastinate's tables stand beside ours. Its jobs only wake a worker; what is asked for, and whether it was carried
out, stands in ``tasks``, so a job that is lost or doubled changes nothing.
"""
