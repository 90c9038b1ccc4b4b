"""Credits that the API reports late, or only when asked for one job: each run asks for those not yet known."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial

from orchestrator.clock import timestamp
from orchestrator.errors import Rejected, Unanswered
from orchestrator.ledger import billing
from orchestrator.stages.work import Work, while_going_on

#: Billing that has not come by then will not come.
WINDOW = timedelta(days=3)

#: Most jobs asked about in one run, at the pace of reads.
MOST = 5000

#: Jobs asked about at once. When so many report nothing, twice, the API does not report bills, or not yet.
AT_ONCE = 50


async def sweep(work: Work) -> int:
    """Record what ended jobs were billed, those of earlier runs first; for how many. Raises ApiError.

    Only the call for one job is sure to report it: the vendor's SDK knows no way to ask a list for it.
    """
    if not work.api.traits.tells_credits:
        return 0
    since = timestamp(work.clock.now() - WINDOW)
    billed, left = 0, MOST
    for mine in (False, True):
        chunks = await work.writer.write(
            partial(billing.unbilled, shard=work.shard, since=since, run_id=work.run_id, mine=mine, most=left)
        )
        left -= len(chunks)
        billed += await _ask(work, chunks)
    return billed


async def _ask(work: Work, chunks: dict[str, int]) -> int:
    """Record the bills of these jobs (id -> chunk), for as long as the API reports any; return how many it did."""
    billed = silent = 0
    job_ids = list(chunks)
    for start in range(0, len(job_ids), AT_ONCE):
        if work.stop.everything is not None or silent == 2:
            break
        tasks = [asyncio.create_task(_bill(work, job_id)) for job_id in job_ids[start : start + AT_ONCE]]
        answers = await while_going_on(work, tasks)
        bills = {chunks[job_id]: amount for job_id, amount in answers if amount is not None}
        await work.writer.write(partial(billing.bill, bills=bills))
        billed += len(bills)
        silent = 0 if bills else silent + 1
    return billed


async def _bill(work: Work, job_id: str) -> tuple[str, float | None]:
    """Return the credits that the job was billed; None when the API does not say."""
    try:
        return job_id, (await work.api.get(job_id)).credits
    except (Rejected, Unanswered):
        return job_id, None
