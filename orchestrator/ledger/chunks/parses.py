"""Parse jobs that can be classified once more for nothing: "on a parse job you created it bills nothing of its own"."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam

from orchestrator.ledger.scope import Scope
from orchestrator.ledger.sql import text
from orchestrator.models import Config

#: Parse jobs of a manifest's files, read alike: the pages and the language have to be the same. ``:since``: the vendor
#: keeps parses for 48 hours. A job that failed may have failed for its parse: neither that parse nor one on which a
#: job has failed since is tried again.
_PARSED = """
    SELECT p.parse_job_id FROM files o JOIN jobs p ON p.id = o.chunk_id
    WHERE o.manifest_id = :manifest_id AND o.file_id = {file_id} AND p.parse_job_id IS NOT NULL
      AND p.status = 'succeeded' AND p.finished_at >= :since AND p.config_id IN :configs
      AND NOT EXISTS (SELECT 1 FROM files q JOIN jobs s ON s.id = q.chunk_id WHERE q.manifest_id = :manifest_id
                      AND q.file_id = o.file_id AND s.parse_from = p.parse_job_id AND s.status = 'failed')
    ORDER BY p.id DESC LIMIT 1
"""


def use_parse_jobs(connection: Connection, scope: Scope, config: Config, *, after: int, since: str) -> int:
    """Have the pending chunks with ids above *after* made on a parse job where there is one; how many."""
    statement = text(f"""
        UPDATE jobs SET parse_from = (
            SELECT ({_PARSED.format(file_id="f.file_id")}) FROM files f WHERE f.chunk_id = jobs.id)
        WHERE id > :after AND manifest_id = :manifest_id AND status = 'pending' AND size = 1
    """).bindparams(bindparam("configs", expanding=True))
    parameters = {
        "manifest_id": scope.manifest_id,
        "after": after,
        "since": since,
        "configs": _alike(connection, config),
    }
    if not parameters["configs"]:
        return 0
    connection.execute(statement, parameters)
    found = connection.execute(
        text("SELECT count(parse_from) FROM jobs WHERE id > :after AND manifest_id = :manifest_id"), parameters
    )
    return int(found.scalar_one())


def count_reusable(connection: Connection, scope: Scope, config: Config, *, since: str) -> int:
    """How many of the files chosen for the next cut have a parse job to be classified on."""
    configs = _alike(connection, config)
    if not configs or not scope.manifest_id:
        return 0
    statement = text(f"SELECT count(*) FROM chosen w WHERE EXISTS ({_PARSED.format(file_id='w.file_id')})").bindparams(
        bindparam("configs", expanding=True)
    )
    parameters = {"manifest_id": scope.manifest_id, "since": since, "configs": configs}
    return int(connection.execute(statement, parameters).scalar_one())


def _alike(connection: Connection, config: Config) -> list[int]:
    """The configs that read a document as *config* does, and that some job left a parse job of."""
    rows = connection.execute(
        text(
            "SELECT c.id, c.canonical FROM configs c WHERE EXISTS "
            "(SELECT 1 FROM jobs j WHERE j.config_id = c.id AND j.parse_job_id IS NOT NULL)"
        )
    )
    wanted = config.parsing_configuration
    return [row.id for row in rows if Config.from_canonical(row.canonical).parsing_configuration == wanted]
