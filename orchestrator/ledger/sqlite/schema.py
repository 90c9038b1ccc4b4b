"""The ledger's tables, and how an older ledger becomes a current one.

One row of ``jobs`` is one chunk and its job; one row of ``files`` is one deliberate submission of one file under one
config (its *generation*); ``results`` says how that ended. ``files.standing`` marks, for each file under each config,
the generation that counts; ``tallies`` sums those up, so that no status has to read a million rows. Every change of a
job's status leaves an event: a trigger writes it, so no caller forgets.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

from orchestrator.errors import LedgerError
from orchestrator.ledger.sqlite import documents, witness
from orchestrator.models import JobStatus, Outcome, canonical_id

#: "orch" in ASCII: marks our file among SQLite databases.
APPLICATION_ID = 0x6F726368


def _one_of(column: str, words: type[JobStatus] | type[Outcome]) -> str:
    return f"{column} IN ({', '.join(repr(word.value) for word in words)})"


_FIRST = f"""
CREATE TABLE configs (
  id INTEGER PRIMARY KEY,
  fingerprint TEXT NOT NULL UNIQUE,
  canonical TEXT NOT NULL
);
CREATE TABLE manifests (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  rehearsal INTEGER NOT NULL CHECK (rehearsal IN (0, 1)),
  origin TEXT NOT NULL,
  project_id TEXT,
  config_id INTEGER NOT NULL REFERENCES configs (id),
  review TEXT NOT NULL DEFAULT '{{}}',
  path TEXT NOT NULL,
  sha256 TEXT NOT NULL,
  UNIQUE (name, rehearsal)
);
CREATE TABLE runs (
  id TEXT PRIMARY KEY,
  manifest_id INTEGER NOT NULL REFERENCES manifests (id),
  command TEXT NOT NULL,
  api TEXT NOT NULL,
  started_at TEXT NOT NULL,
  finished_at TEXT,
  exit_code INTEGER,
  summary TEXT
);
CREATE INDEX runs_manifest ON runs (manifest_id, started_at);
CREATE TABLE jobs (
  id INTEGER PRIMARY KEY,
  manifest_id INTEGER NOT NULL REFERENCES manifests (id),
  config_id INTEGER NOT NULL REFERENCES configs (id),
  run_id TEXT NOT NULL REFERENCES runs (id),
  api TEXT NOT NULL,
  parent_id INTEGER,
  depth INTEGER NOT NULL DEFAULT 0,
  escalation INTEGER NOT NULL DEFAULT 0 CHECK (escalation IN (0, 1)),
  size INTEGER NOT NULL CHECK (size > 0),
  status TEXT NOT NULL DEFAULT 'pending' CHECK ({_one_of("status", JobStatus)}),
  job_id TEXT,
  api_status TEXT,
  error TEXT,
  sends INTEGER NOT NULL DEFAULT 0,
  resends INTEGER NOT NULL DEFAULT 0 CHECK (resends <= 3),
  isolate INTEGER NOT NULL DEFAULT 0 CHECK (isolate IN (0, 1)),
  accepted INTEGER NOT NULL DEFAULT 0 CHECK (accepted IN (0, 1)),
  held INTEGER NOT NULL DEFAULT 0 CHECK (held IN (0, 1)),
  mark TEXT,
  credits REAL,
  parse_job_id TEXT,
  parse_from TEXT,
  sent_at TEXT,
  submitted_at TEXT,
  finished_at TEXT,
  changed_at TEXT NOT NULL,
  CHECK (status NOT IN ('submitted', 'running', 'succeeded') OR job_id IS NOT NULL),
  CHECK (status <> 'submitting' OR sent_at IS NOT NULL)
);
CREATE UNIQUE INDEX jobs_job_id ON jobs (manifest_id, job_id) WHERE job_id IS NOT NULL;
CREATE INDEX jobs_open ON jobs (manifest_id, status, id)
  WHERE status IN ('pending', 'submitting', 'submitted', 'running');
CREATE INDEX jobs_isolate ON jobs (manifest_id) WHERE isolate = 1;
CREATE TABLE files (
  id INTEGER PRIMARY KEY,
  chunk_id INTEGER NOT NULL REFERENCES jobs (id),
  manifest_id INTEGER NOT NULL,
  config_id INTEGER NOT NULL,
  file_id TEXT NOT NULL,
  generation INTEGER NOT NULL,
  standing INTEGER NOT NULL CHECK (standing IN (0, 1)),
  UNIQUE (manifest_id, file_id, config_id, generation)
);
CREATE INDEX files_chunk ON files (chunk_id);
CREATE TABLE results (
  file_row INTEGER PRIMARY KEY REFERENCES files (id),
  outcome TEXT NOT NULL CHECK ({_one_of("outcome", Outcome)}),
  type TEXT,
  confidence REAL,
  reasoning TEXT,
  error TEXT,
  CHECK ((outcome = 'classified') = (type IS NOT NULL))
);
CREATE TABLE tallies (
  manifest_id INTEGER NOT NULL,
  config_id INTEGER NOT NULL,
  outcome TEXT NOT NULL,
  type TEXT NOT NULL,
  percent INTEGER NOT NULL,
  files INTEGER NOT NULL CHECK (files >= 0),
  PRIMARY KEY (manifest_id, config_id, outcome, type, percent)
) WITHOUT ROWID;
CREATE TABLE events (
  id INTEGER PRIMARY KEY,
  at TEXT NOT NULL,
  chunk_id INTEGER REFERENCES jobs (id),
  event TEXT NOT NULL,
  note TEXT
);
CREATE INDEX events_chunk ON events (chunk_id);
CREATE INDEX events_named ON events (event, chunk_id) WHERE event NOT IN
  ('pending', 'submitting', 'submitted', 'running', 'succeeded', 'failed', 'cancelled');
CREATE TRIGGER jobs_status AFTER UPDATE OF status ON jobs
WHEN OLD.status <> NEW.status
BEGIN
  INSERT INTO events (at, chunk_id, event, note)
  VALUES (NEW.changed_at, NEW.id, NEW.status, coalesce(NEW.error, NEW.job_id));
END
"""


def _statements(script: str) -> list[str]:
    """*script* cut at its semicolons; a trigger's body stays whole."""
    statements: list[str] = []
    for piece in script.split(";\n"):
        if statements and statements[-1].lstrip().startswith("CREATE TRIGGER") and "\nEND" not in statements[-1]:
            statements[-1] += ";\n" + piece
        else:
            statements.append(piece)
    return [statement for statement in statements if statement.strip()]


def _create(connection: Connection) -> None:
    for statement in _statements(_FIRST):
        connection.exec_driver_sql(statement)


def _quarantine(connection: Connection) -> None:
    """``status`` names the quarantined files without reading the manifest, nor a million good results."""
    connection.exec_driver_sql("ALTER TABLE manifests ADD COLUMN max_generations INTEGER")
    connection.exec_driver_sql(
        "CREATE INDEX results_bad ON results (file_row) WHERE outcome NOT IN ('classified', 'unmatched')"
    )


def _run_tallies(connection: Connection) -> None:
    """``run_tallies`` counts what each run recorded: a page of thirty nights reads no result of a million files.

    A result belongs to the latest run that had begun when it was recorded. A manifest has one run at a time.
    """
    for statement in _statements(_RUN_TALLIES):
        connection.exec_driver_sql(statement)


_RUN_TALLIES = """
CREATE TABLE run_tallies (
  run_id TEXT NOT NULL REFERENCES runs (id),
  outcome TEXT NOT NULL,
  type TEXT NOT NULL,
  percent INTEGER NOT NULL,
  files INTEGER NOT NULL CHECK (files > 0),
  PRIMARY KEY (run_id, outcome, type, percent)
) WITHOUT ROWID;
CREATE INDEX jobs_finished ON jobs (manifest_id, finished_at) WHERE finished_at IS NOT NULL;
INSERT INTO run_tallies (run_id, outcome, type, percent, files)
SELECT ended.recorded_by, r.outcome, coalesce(r.type, ''),
       CAST(coalesce(r.confidence, -0.01) * 100 + 0.0000001 AS INTEGER), count(*)
FROM (
  SELECT j.id, coalesce((SELECT u.id FROM runs u WHERE u.manifest_id = j.manifest_id AND u.started_at <= j.finished_at
                         ORDER BY u.started_at DESC, u.id DESC LIMIT 1), j.run_id) AS recorded_by
  FROM jobs j WHERE j.finished_at IS NOT NULL
) AS ended JOIN files f ON f.chunk_id = ended.id JOIN results r ON r.file_row = f.id
GROUP BY ended.recorded_by, r.outcome, coalesce(r.type, ''),
         CAST(coalesce(r.confidence, -0.01) * 100 + 0.0000001 AS INTEGER)
"""


def _percents(connection: Connection) -> None:
    """Store what a query worked out each time: a result's percent. Chunk ids come from a sequence of our own."""
    for statement in _statements(_PERCENTS):
        connection.exec_driver_sql(statement)


_PERCENTS = """
ALTER TABLE results ADD COLUMN percent INTEGER NOT NULL DEFAULT 0;
UPDATE results SET percent = CAST(confidence * 100 + 0.0000001 AS INTEGER) WHERE confidence IS NOT NULL;
CREATE TABLE sequences (
  name TEXT PRIMARY KEY,
  last INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO sequences (name, last) SELECT 'jobs', coalesce(max(id), 0) FROM jobs
"""


def _canonical_ids(connection: Connection) -> None:
    """File IDs stand in their canonical form; how the user spells them is kept beside.

    Two spellings of one file that an older version took for two files stay two: both were paid for. A call that is out
    keeps the key that it was sent with.
    """
    for statement in _statements(_CANONICAL_IDS):
        connection.exec_driver_sql(statement)
    rows = connection.exec_driver_sql(
        "SELECT DISTINCT manifest_id, file_id FROM files WHERE file_id <> lower(file_id) OR file_id LIKE 'dfl-%'"
    ).all()
    spelt = [(manifest_id, canonical_id(file_id), file_id) for manifest_id, file_id in rows]
    taken: set[tuple[int, str]] = set()
    for manifest_id, canonical, file_id in spelt:
        known = connection.exec_driver_sql(
            "SELECT 1 FROM files WHERE manifest_id = ? AND file_id = ? LIMIT 1", (manifest_id, canonical)
        ).first()
        if canonical == file_id or known or (manifest_id, canonical) in taken:
            continue
        taken.add((manifest_id, canonical))
        connection.exec_driver_sql(
            "UPDATE jobs SET keyed_as = ? WHERE manifest_id = ? AND api = 'v2' AND finished_at IS NULL AND sends > 0 "
            "AND id IN (SELECT chunk_id FROM files WHERE manifest_id = ? AND file_id = ?)",
            (file_id, manifest_id, manifest_id, file_id),
        )
        connection.exec_driver_sql(
            "UPDATE events SET note = ? WHERE event = 'quarantined' AND note = ? "
            "AND chunk_id IN (SELECT chunk_id FROM files WHERE manifest_id = ? AND file_id = ?)",
            (canonical, file_id, manifest_id, file_id),
        )
        connection.exec_driver_sql(
            "UPDATE files SET file_id = ? WHERE manifest_id = ? AND file_id = ?", (canonical, manifest_id, file_id)
        )
        connection.exec_driver_sql("INSERT INTO spellings VALUES (?, ?, ?)", (manifest_id, canonical, file_id))


_CANONICAL_IDS = """
CREATE TABLE spellings (
  manifest_id INTEGER NOT NULL REFERENCES manifests (id),
  file_id TEXT NOT NULL,
  spelling TEXT NOT NULL,
  PRIMARY KEY (manifest_id, file_id)
) WITHOUT ROWID;
ALTER TABLE jobs ADD COLUMN keyed_as TEXT
"""


def _settings(connection: Connection) -> None:
    """A page shows a manifest's settings without the manifest, and finds the least sure results by an index."""
    connection.exec_driver_sql("ALTER TABLE manifests ADD COLUMN settings TEXT NOT NULL DEFAULT '{}'")
    connection.exec_driver_sql(
        "CREATE INDEX results_unsure ON results (coalesce(confidence, 0)) "
        "WHERE outcome = 'classified' AND coalesce(confidence, 0) < 0.9"
    )


def _job_records(connection: Connection) -> None:
    """Keep what the API says of a job beyond its end, for whoever asks later."""
    for name in ("api_created_at", "api_updated_at", "effective_at", "job_record_id", "user_id", "project_id"):
        connection.exec_driver_sql(f"ALTER TABLE jobs ADD COLUMN {name} TEXT")


def _told(connection: Connection) -> None:
    """A notification is sent when what the last one said is no longer so."""
    connection.exec_driver_sql("ALTER TABLE manifests ADD COLUMN told TEXT NOT NULL DEFAULT '{}'")


#: ``MIGRATIONS[n]`` takes a ledger of version n to version n + 1.
MIGRATIONS: tuple[Callable[[Connection], None], ...] = (
    _create,
    _quarantine,
    _run_tallies,
    _percents,
    _canonical_ids,
    _settings,
    documents.add,
    witness.add,
    _job_records,
    _told,
)


def check_version(connection: Connection) -> None:
    """Raises LedgerError unless the ledger is just of this program's version."""
    with connection.begin():
        version = _version(connection)
    if version < len(MIGRATIONS):
        raise LedgerError("the ledger is of an older version; any `orchestrator run` brings it up to date")


def migrate(connection: Connection) -> None:
    """Bring the ledger to this program's version; all steps and their record are one transaction.

    Raises LedgerError when the file is not a ledger, or was written by a newer version of this program.
    """
    with connection.begin():
        for step, migration in enumerate(MIGRATIONS[_version(connection) :], start=_version(connection) + 1):
            migration(connection)
            connection.exec_driver_sql(f"PRAGMA user_version = {step}")
            connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")


def is_empty(connection: Connection) -> bool:
    """Whether nothing was ever written to the file. Raises LedgerError as ``migrate`` does."""
    return _version(connection) == 0


def is_current(connection: Connection) -> bool:
    """Whether ``migrate`` has nothing to do. Raises LedgerError as it does."""
    with connection.begin():
        return _version(connection) == len(MIGRATIONS)


def _version(connection: Connection) -> int:
    """The ledger's version; 0 for an empty file."""
    version = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
    application = int(connection.exec_driver_sql("PRAGMA application_id").scalar_one())
    tables = int(connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one())
    if application != APPLICATION_ID and (tables or version):
        raise LedgerError("this file is a database, but not a ledger; choose another --ledger")
    if version < 0:
        raise LedgerError(f"the ledger has schema version {version}, which no program writes; put a backup back")
    if version > len(MIGRATIONS):
        raise LedgerError(
            f"the ledger has schema version {version}, this program knows {len(MIGRATIONS)} at most; "
            "upgrade orchestrator"
        )
    return version
