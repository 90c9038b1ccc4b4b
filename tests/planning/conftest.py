"""A manifest and a ledger for the tests that start no program; a test file may have its own of either."""

from __future__ import annotations

from support.planning import connection, manifest

__all__ = ["connection", "manifest"]
