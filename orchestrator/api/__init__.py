"""Calls to LlamaCloud: the only room that knows HTTP.

Import ``client`` (``Api``, which speaks in jobs and results), ``listing`` and ``retry`` from any room above; ``v1``,
``v2`` and ``limiter`` only where an ``Api`` is put together.
"""
