"""Work found only when the other stages have ended is sent before the run does."""

from __future__ import annotations

import asyncio
from typing import cast

from conftest import FakeClock
from sqlalchemy import Connection

from orchestrator.api.client import Api
from orchestrator.engine import Progress, Work
from orchestrator.follow_up import FollowUp
from orchestrator.ledger import Ledger
from orchestrator.ledger.jobs import Shard
from orchestrator.ledger.writer import Writer


def test_it_is_not_idle_while_what_it_finds_is_being_written() -> None:
    """Else a run whose other stages are done ends there, and leaves the halves of a failed chunk unsent."""
    idle: list[bool] = []

    async def look() -> None:
        clock = FakeClock()
        writer = Writer(Ledger.in_memory(), clock)
        work = Work(Shard(1, "v1"), "run", cast(Api, None), writer, clock, settle_s=0, stale_s=0, progress=Progress())

        def plan_more(_: Connection) -> int:
            idle.append(follow_up.idle)
            return 0

        follow_up = FollowUp(work, others_idle=lambda: True, plan_more=plan_more, send_again=lambda: None)
        running = asyncio.create_task(follow_up.run())
        await work.stop.changed.wait()
        idle.append(follow_up.idle)
        running.cancel()

    asyncio.run(look())
    assert idle == [False, True]
