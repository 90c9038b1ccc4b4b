"""A tick of a schedule is carried on once, however many hosts look at it and however long they were away."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from support.crews import Crew

from orchestrator.errors import Interrupted
from orchestrator.ledger import Transaction
from orchestrator.ledger.workers import schedules, tasks
from orchestrator.workers import cron

AT = datetime(2026, 11, 28, 2, 0, tzinfo=UTC)


def kept(connection: Transaction, cron: str = "*/10 * * * *", next_at: datetime = AT) -> None:
    tasks.submit(connection, "night", "/srv/night.yaml", {}, None)
    schedules.keep(connection, "night", cron, "UTC", next_at)


def asked(connection: Transaction) -> int:
    return int(connection.execute(text("SELECT asked FROM tasks")).scalar_one())


def test_a_tick_is_carried_on_once_by_two_hosts(crew: Crew) -> None:
    """Who comes second finds it in hand or done, at the same instant and later."""
    with crew.transaction() as connection:
        kept(connection)
        assert schedules.tick(connection, cron.around, AT - timedelta(seconds=1)) == []
    there = crew.session()
    with crew.transaction() as one, there.transaction() as other:
        assert schedules.tick(one, cron.around, AT) == ["night"]
        assert schedules.tick(other, cron.around, AT) == []
    with there.transaction() as other:
        assert schedules.tick(other, cron.around, AT) == []
        assert asked(other) == 1
        (state,) = schedules.states(other)
        assert (state.last_at, state.next_at) == (AT, AT + timedelta(minutes=10))


def test_a_tick_that_is_not_committed_is_not_lost(crew: Crew) -> None:
    """The host that had it in hand dies: the next one carries it on."""
    with crew.transaction() as connection:
        kept(connection)
    there = crew.session()
    with pytest.raises(Interrupted), there.transaction() as other:
        assert schedules.tick(other, cron.around, AT) == ["night"]
        raise Interrupted("the host dies")
    with crew.transaction() as connection:
        assert schedules.tick(connection, cron.around, AT) == ["night"]
        assert asked(connection) == 1


def test_an_outage_is_made_up_for_once(crew: Crew) -> None:
    """Of the ticks that passed while nobody looked the last is carried on, and the next comes at its own time."""
    with crew.transaction() as connection:
        kept(connection)
        assert schedules.tick(connection, cron.around, AT + timedelta(minutes=35)) == ["night"]
        (state,) = schedules.states(connection)
        assert (state.last_at, state.next_at) == (AT + timedelta(minutes=30), AT + timedelta(minutes=40))
        assert asked(connection) == 1


def test_to_submit_again_changes_no_tick_unless_the_times_change(crew: Crew) -> None:
    """A tick that is due is not put off by whoever submits the manifest just then."""
    with crew.transaction() as connection:
        kept(connection)
        kept(connection, next_at=AT + timedelta(minutes=10))
        assert schedules.states(connection)[0].next_at == AT
        kept(connection, cron="0 3 * * *", next_at=AT + timedelta(hours=1))
        assert schedules.states(connection)[0].next_at == AT + timedelta(hours=1)
        assert schedules.drop(connection, "night")
        assert not schedules.drop(connection, "night")
