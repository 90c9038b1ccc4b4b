"""Interim schedule: every job at 1 s, growing."""

from __future__ import annotations


class PollSchedule:
    def __init__(self, *, batch: int = 1, max_interval_s: float = 60.0) -> None:
        self._batch = batch
        self._max = max_interval_s
        self._at: dict[int, float] = {}
        self._step: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._at)

    def add(self, key: int, started: float, size: int = 1) -> None:
        self._at[key] = started + 1.0
        self._step[key] = 0.5

    def due(self, now: float, limit: int) -> list[int]:
        return sorted((k for k, t in self._at.items() if t <= now), key=self._at.__getitem__)[: min(limit, self._batch)]

    def next_at(self) -> float | None:
        return min(self._at.values(), default=None)

    def asked(self, key: int, now: float) -> None:
        if key in self._at:
            self._step[key] = min(self._step[key] * 1.3, self._max)
            self._at[key] = now + self._step[key]

    def ended(self, key: int, now: float, duration: float | None) -> None:
        self._at.pop(key, None)
        self._step.pop(key, None)
