"""How well several processes keep one pace together, in virtual time: slots from one row, news every 0.1 s.

One line per limit and number of processes: how much of the limit was used, which part of the calls was refused, and the
most calls that left in any second. Usage: .venv/bin/python scripts/bench/shared_pace_sim.py
"""

from __future__ import annotations

import random
from bisect import bisect_right
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count

from limiter_sim import SHAPES, Window

from orchestrator.api.pacing.share import LEAD_S, Grant, Share, Wish

#: How often a process exchanges news, on average, and how long a word to or from the database takes.
EVERY_S = 0.1
WORD_S = 0.005


class Row:
    """The place where slots are given out, as the ledger has it."""

    def __init__(self) -> None:
        self.next_at = 0.0
        self.rate = float("inf")

    def give(self, now: float, wish: Wish) -> Grant:
        soonest = now + LEAD_S
        first = max(self.next_at, soonest, wish.not_before)
        room = int((now + wish.horizon_s - first) * wish.rate_per_s) + 1 if first <= now + wish.horizon_s else 0
        calls, step_s = min(wish.calls, room), 1 / wish.rate_per_s
        idle = soonest - self.next_at > 2 * step_s
        if calls:
            self.next_at = first + calls * step_s
        self.rate = wish.rate_per_s
        return Grant(first, calls, step_s, idle)


@dataclass
class Sender:
    """A process with *calls* to send, from *begins* on."""

    share: Share
    calls: int
    begins: float = 0.0


@dataclass(frozen=True, slots=True)
class Report:
    """How it went."""

    used: float  #: accepted calls as a part of what the limit allows in the time
    refused: float
    most_in_a_second: int
    seconds: float
    sent: tuple[int, ...]  #: by each process


def simulate(
    window: Window,
    per_s: float,
    senders: list[Sender],
    *,
    ceiling: float = 40.0,
    latency_s: float = 0.05,
    seed: int = 1,
    away: tuple[float, float] = (0.0, 0.0),
) -> Report:
    """Let *senders* send all their calls; the database does not answer while the time is in *away*."""
    rng, row, number = random.Random(seed), Row(), count()
    queue: list[tuple[float, int, str, int, object]] = []
    left, under_way, heard = [], [0] * len(senders), [sender.begins for sender in senders]
    post: list[list[object]] = [[] for _ in senders]  #: what is to be heard with the next exchange
    sent = [0] * len(senders)
    accepted = refused = 0
    first, last = float("inf"), 0.0

    def later(at: float, what: str, who: int, more: object = None) -> None:
        heappush(queue, (at, next(number), what, who, more))

    def to_others(now: float, who: int, more: object) -> None:
        for other in range(len(senders)):
            if other != who:
                later(now + WORD_S, "post", other, more)

    for who, sender in enumerate(senders):
        sender.share.since = sender.begins + who / 1000
        later(sender.begins + who * EVERY_S / len(senders), "exchange", who, True)
        later(sender.begins, "send", who)
    while queue and any(sender.calls or under_way[who] for who, sender in enumerate(senders)):
        now, _, what, who, more = heappop(queue)
        sender, share = senders[who], senders[who].share
        if what == "post":
            post[who].append(more)
        elif what == "exchange":
            if not away[0] <= now < away[1]:
                share.processes = sum(1 for each in senders if each.begins <= now and each.calls)
                heard[who] = now
                if row.rate < share.rate_per_s and sent[who] == 0:
                    share.join(row.rate)
                later(now + WORD_S, "hear", who, post[who])
                post[who] = []
                to_others(now, who, share.take_news() + share.learnt())
                wish = share.wish(now, min(sender.calls, 100))
                if wish is not None:
                    grant = row.give(now, wish)
                    to_others(now, who, grant)
                    later(now + WORD_S, "granted", who, grant)
            if more and sender.calls:
                later(now + EVERY_S * rng.uniform(0.5, 1.5), "exchange", who, True)
        elif what == "hear":
            assert isinstance(more, list)
            for each in more:
                if isinstance(each, Grant):
                    share.others_got(each)
                else:
                    share.hear(now, each)
        elif what == "granted":
            assert isinstance(more, Grant)
            share.got(more)
        elif what == "send":
            slot = share.next(now, heard[who]) if sender.calls else None
            if slot is not None and slot <= now:
                share.use(slot)
                sender.calls -= 1
                sent[who] += 1
                under_way[who] += 1
                left.append(now)
                first = min(first, now)
                later(now + rng.uniform(0.01, 0.03), "arrive", who, slot)
                if share.urgent:
                    later(now, "exchange", who)
            if sender.calls:
                later(slot if slot is not None and slot > now else now + 0.01, "send", who)
        elif what == "arrive":
            wait_s = window.refuses(now)
            if wait_s is None:
                accepted, last = accepted + 1, now
            else:
                refused += 1
                sender.calls += 1
                if sender.calls == 1:
                    later(now, "send", who)
                    later(now, "exchange", who, True)
            later(now + latency_s * rng.uniform(0.7, 1.3), "answer", who, (more, wait_s))
        else:
            assert isinstance(more, tuple)
            slot, wait_s = more
            under_way[who] -= 1
            if wait_s is None:
                share.accepted(now, slot)
            else:
                share.throttled(now, slot, None)
            if share.urgent:
                later(now, "exchange", who)
    left.sort()
    most = max(bisect_right(left, at + 1.0 - 1e-9) - place for place, at in enumerate(left))
    span_s = last - first
    return Report(accepted / (span_s * per_s), refused / (accepted + refused), most, span_s, tuple(sent))


def main() -> None:
    print(f"{'limit':>6} {'shape':8} {'processes':>9} {'latency':>7} {'used':>7} {'refused':>8} {'in 1 s':>6}")
    for limit in (20, 40):
        for shape in SHAPES:
            for processes in (1, 3, 8):
                for latency_s in (0.05, 0.5):
                    senders = [Sender(Share(40.0), 1400 // processes) for _ in range(processes)]
                    report = simulate(SHAPES[shape](limit, 1.0), limit, senders, latency_s=latency_s)
                    print(
                        f"{limit:>6} {shape:8} {processes:>9} {latency_s:>7} {report.used:>7.1%} "
                        f"{report.refused:>8.2%} {report.most_in_a_second:>6}"
                    )


if __name__ == "__main__":
    main()
