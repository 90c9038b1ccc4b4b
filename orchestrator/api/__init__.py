"""Calls to LlamaCloud: the only room that knows HTTP.

Import ``client`` (``Api``, which speaks in jobs and results), ``files`` and ``listing`` from any room above, and
``loop`` to run on; ``v1``, ``v2`` and ``limiter`` only where an ``Api`` is put together.
"""
