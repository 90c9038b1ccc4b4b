"""Everything that is specific to PostgreSQL: where a server is, sessions and transactions, the schema, and the lease.

Nothing may be imported from here but by ``orchestrator.ledger.opening``. Only ``address`` comes without psycopg.
"""
