"""The page that ``report`` writes: ``content`` reads it from a ledger, ``html`` and ``plots`` draw it."""
