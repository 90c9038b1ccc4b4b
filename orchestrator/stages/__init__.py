"""From pending to ended: the loops that carry one shard's chunks, side by side.

``commands`` imports ``pipeline`` and ``work`` to run them, and ``collector`` to record a job's end;
the rest is private.
"""
