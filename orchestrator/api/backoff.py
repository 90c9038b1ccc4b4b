"""The one retry policy: full jitter, and an end that is measured by how long nobody has had an answer."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

from tenacity import AsyncRetrying, RetryCallState

from orchestrator.clock import Clock
from orchestrator.errors import Ambiguous, ApiError, Throttled

#: Full jitter: a random part of ``BASE_S * 2 ** n``, never more than CAP_S.
BASE_S = 0.5
CAP_S = 30.0


def retrying(
    *,
    on: tuple[type[ApiError], ...],
    given_up: Callable[[float, float], bool],
    clock: Clock,
    rng: random.Random,
    sleep: Callable[[float], Awaitable[None]],
) -> AsyncRetrying:
    """Tenacity's loop for errors of the kinds *on*, raised or returned, until *given_up*; the last counts.

    ``given_up(started, asked_s)`` gets ``clock.monotonic()`` at the first attempt and the wait that the API asks
    for, 0 without one: a wait that outlasts the patience is not begun. Tenacity's own time limits read the machine's
    clock, so the end is ours. A 429 needs no wait here: the limiter holds every caller back for as long as the API
    asked.
    """
    started = clock.monotonic()

    def wait(state: RetryCallState) -> float:
        if isinstance(_came_to(state), Throttled):
            return 0.0
        return max(asked_s(_came_to(state)), rng.uniform(0.0, min(CAP_S, BASE_S * 2.0 ** (state.attempt_number - 1))))

    return AsyncRetrying(
        retry=lambda state: isinstance(_came_to(state), on),
        wait=wait,
        stop=lambda state: given_up(started, asked_s(_came_to(state))),
        sleep=sleep,
        retry_error_callback=_last,
    )


def _came_to(state: RetryCallState) -> object:
    """Return what the attempt raised or returned."""
    if state.outcome is None:
        return None
    return state.outcome.exception() if state.outcome.failed else state.outcome.result()


def _last(state: RetryCallState) -> object:
    """Return or raise what the last attempt did."""
    return None if state.outcome is None else state.outcome.result()


def asked_s(came_to: object) -> float:
    """The wait that the API asked for with an error, in seconds."""
    return (came_to.retry_after_s or 0.0) if isinstance(came_to, Throttled | Ambiguous) else 0.0
