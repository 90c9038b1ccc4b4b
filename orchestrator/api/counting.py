"""How many calls of each kind were made, and what they came to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.errors import NotSent, Rejected, RunStopped, Throttled

#: (kind of call, result) -> calls. The results: ``answered``, ``throttled``, ``refused``, ``not_sent``, ``unanswered``.
Calls = Counter[tuple[str, str]]


@contextmanager
def counted(calls: Calls, kind: str) -> Iterator[None]:
    """Count the call that is made in the block."""
    result = "unanswered"
    try:
        yield
        result = "answered"
    except Throttled:
        result = "throttled"
        raise
    except NotSent:
        result = "not_sent"
        raise
    except (Rejected, RunStopped):
        result = "refused"
        raise
    finally:
        calls[kind, result] += 1


def by_kind(calls: Calls) -> dict[str, dict[str, int]]:
    """Kind -> result -> calls, both in the order of the alphabet."""
    kinds: dict[str, dict[str, int]] = {}
    for (kind, result), number in sorted(calls.items()):
        kinds.setdefault(kind, {})[result] = number
    return kinds
