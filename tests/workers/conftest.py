"""The fixture of all tests of workers."""

from support.crews import crew

__all__ = ["crew"]
