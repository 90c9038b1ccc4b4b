"""Chance without state: everything that seems random is a hash of the seed and of its subject."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from uuid import UUID


class Story:
    """The same seed replays the same story, in whatever order its parts are asked for."""

    def __init__(self, seed: int, faults: Mapping[str, float | str]) -> None:
        self._seed = str(seed)
        self._faults = faults

    def digest(self, *about: object) -> bytes:
        """16 bytes that depend on the seed and *about* only."""
        return blake2b("\x1f".join((self._seed, *map(str, about))).encode(), digest_size=16).digest()

    def unit(self, *about: object) -> float:
        """A number in [0, 1)."""
        return int.from_bytes(self.digest(*about)[:7]) / 2**56

    def uuid(self, *about: object) -> str:
        return str(UUID(bytes=self.digest("uuid", *about), version=4))

    def fault(self, name: str, *, kind: str = "") -> float | str:
        """The value that the fault *name* was given, the one for *kind* of call first; 0 when it was not."""
        return self._faults.get(f"{kind}.{name}", self._faults.get(name, 0.0))

    def seconds(self, name: str, *, kind: str = "", default: float = 0.0) -> float:
        return float(self.fault(name, kind=kind) or default)

    def happens(self, name: str, *about: object, kind: str = "") -> bool:
        """Whether the fault *name* strikes the subject *about*."""
        if not self._faults:
            return False
        probability = self.fault(name, kind=kind)
        return bool(probability) and self.unit(name, kind, *about) < float(probability)

    def matches(self, name: str, text: str) -> bool:
        """Whether the regular expression of the fault *name* is found in *text*."""
        pattern = self.fault(name)
        return bool(pattern) and _compiled(str(pattern)).search(text) is not None


@lru_cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)
