"""Credits that the API told of too late for the run that spent them: a later run asks once more, many jobs a call."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from orchestrator.clock import timestamp
from orchestrator.errors import Rejected
from orchestrator.ledger import billing
from orchestrator.stages.work import Work

#: Billing that has not come by then will not come.
WINDOW = timedelta(days=3)

#: Most jobs asked about in one run: 50 calls.
MOST = 5000


async def sweep(work: Work) -> int:
    """Record what earlier runs' jobs were billed; for how many. Raises ApiError."""
    per_call = work.api.traits.jobs_per_ask
    if per_call == 1:
        return 0  # one call a job would cost more than it tells
    since = timestamp(work.clock.now() - WINDOW)
    chunks = await work.writer.write(
        lambda connection: billing.unbilled(connection, work.shard, since=since, but_of_run=work.run_id, most=MOST)
    )
    job_ids = list(chunks)
    billed = 0
    for start in range(0, len(job_ids), per_call):
        try:
            told = await work.api.status(job_ids[start : start + per_call])
        except Rejected:
            break
        bills = {chunks[job.id]: job.credits for job in told if job.id in chunks and job.credits is not None}
        await work.writer.write(partial(billing.bill, bills=bills))
        billed += len(bills)
        if not bills:
            break  # the API does not tell, or not yet
    return billed
