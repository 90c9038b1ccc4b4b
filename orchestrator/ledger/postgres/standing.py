"""The state of a ledger's server, for who looks at it: its version, what this role may do there, and who holds what."""

from __future__ import annotations

from orchestrator.ledger.database import ClaimState, PaceState, ServerState
from orchestrator.ledger.postgres import pace, schema
from orchestrator.ledger.postgres.address import Server
from orchestrator.ledger.postgres.lease import key_of
from orchestrator.ledger.postgres.session import Session, translated

_ABOUT = """
WITH ours AS (
  SELECT c.oid, c.relowner FROM pg_class c WHERE c.relkind = 'r' AND c.relname = ANY (%(tables)s)
  AND c.relnamespace = (SELECT n.oid FROM pg_namespace n WHERE n.nspname = current_schema())
)
SELECT current_user, pg_is_in_recovery(), current_schema(),
  has_database_privilege(current_database(), 'TEMP') AND NOT EXISTS (SELECT 1 FROM ours o WHERE NOT (
    has_table_privilege(o.oid, 'SELECT') AND has_table_privilege(o.oid, 'INSERT')
    AND has_table_privilege(o.oid, 'UPDATE') AND has_table_privilege(o.oid, 'DELETE'))),
  has_schema_privilege(current_schema(), 'CREATE')
    AND NOT EXISTS (SELECT 1 FROM ours o WHERE NOT pg_has_role(o.relowner, 'USAGE'))
"""
_CLAIMS = """
SELECT c.name, c.host, c.pid, c.epoch, c.command, c.since,
  CAST(extract(epoch FROM clock_timestamp() - b.at) AS DOUBLE PRECISION)
FROM claims c LEFT JOIN beats b ON b.name = c.name ORDER BY c.name
"""
_LOCKS = """
SELECT (CAST(l.classid AS BIGINT) << 32) + CAST(l.objid AS BIGINT) FROM pg_locks l
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
"""

#: The table of paces is not copied to a standby, and a role that only looks may not have been given it.
_MAY_SEE_PACES = "SELECT coalesce(has_table_privilege(to_regclass('paces'), 'SELECT'), FALSE)"
_PACES = """
WITH clock AS (SELECT CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION) AS now)
SELECT p.kind, p.rate, greatest(p.next_at - c.now, 0), (SELECT count(*) FROM pg_stat_activity a
  WHERE a.datname = current_database() AND a.application_name = %(session)s)
FROM paces p CROSS JOIN clock c WHERE p.rate > 0 AND p.found_at > c.now - %(stale_s)s ORDER BY p.project, p.kind
"""


def look(server: Server) -> ServerState:
    """The state of *server* and of the ledger on it, if there is one. Raises LedgerError."""
    with Session(server, read_only=True) as session, translated(server), session.connection.begin():
        raw = session.raw
        number = raw.info.server_version
        about = raw.execute(_ABOUT, {"tables": list(schema.tables())}).fetchone()
        assert about is not None  # noqa: S101 - one row, whatever is there
        role, standby, room, may_run, may_migrate = about
        claims, paces = [], []
        if schema.version(session.connection) is not None:
            locks = {int(key) for (key,) in raw.execute(_LOCKS)}
            claims = [
                ClaimState(name, host, pid, epoch, command, since, beat_s, key_of(str(room), name) in locks)
                for name, host, pid, epoch, command, since, beat_s in raw.execute(_CLAIMS)
            ]
            if not standby and raw.execute(_MAY_SEE_PACES).fetchone() == (True,):
                found = raw.execute(_PACES, {"session": pace.SESSION, "stale_s": pace.STALE_S})
                paces = [PaceState(*row) for row in found]
        return ServerState(
            f"PostgreSQL {number // 10000}.{number % 10000}",
            role,
            standby,
            may_run=bool(may_run) and not standby,
            may_migrate=bool(may_migrate) and not standby,
            claims=claims,
            paces=paces,
        )
