"""Everything that is specific to SQLite: pragmas, files and kernel locks, and the schema with its migrations.

Nothing may be imported from here but by ``orchestrator.ledger.opening``.
"""
