"""Read-only views of a ledger, as typed values or as files: what ``status``, ``diff``, ``export`` and ``report`` show.

May be imported by commands and cli. Writes nothing into a ledger and calls no API.
"""
