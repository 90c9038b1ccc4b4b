"""Work found only when the other stages have ended is sent before the run does."""

from __future__ import annotations

import asyncio
from typing import cast

from sqlalchemy import Connection
from support.server import FakeClock

from orchestrator.api.client import Api
from orchestrator.ledger import Ledger
from orchestrator.ledger.queue import Shard
from orchestrator.ledger.writer import Writer
from orchestrator.stages.follow_up import FollowUp
from orchestrator.stages.work import Progress, Work


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
        await work.stop.news(work.stop.version)
        idle.append(follow_up.idle)
        running.cancel()

    asyncio.run(look())
    assert idle == [False, True]


def test_it_looks_as_soon_as_the_others_have_ended() -> None:
    """The end of the last job is the end of the run: nobody waits for a round of looking."""
    looks: list[float] = []
    done: list[bool] = []

    async def follow() -> None:
        clock = FakeClock()
        writer = Writer(Ledger.in_memory(), clock)
        work = Work(Shard(1, "v1"), "run", cast(Api, None), writer, clock, settle_s=0, stale_s=0, progress=Progress())
        looked = asyncio.Event()

        def plan_more(_: Connection) -> int:
            looks.append(clock.monotonic())
            looked.set()
            return 0

        async def read_the_news() -> None:
            seen = work.stop.version
            while True:
                seen = await work.stop.news(seen)

        follow_up = FollowUp(work, others_idle=lambda: bool(done), plan_more=plan_more, send_again=lambda: None)
        tasks = [asyncio.create_task(follow_up.run()), asyncio.create_task(read_the_news())]
        for _ in range(3):
            work.stop.tell()  # news that is none for it
            await clock.sleep(1)
        done.append(True)
        work.stop.tell()
        await looked.wait()
        for task in tasks:
            task.cancel()

    asyncio.run(follow())
    assert looks == [3.0]
