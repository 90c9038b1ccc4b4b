"""Ledgers of every earlier version: each opens, becomes a current one, loses nothing, and its work goes on."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from support.ledgers import AT, SMALL, again, cut, register

from orchestrator import ledger as ledger_room
from orchestrator.ledger import Ledger, billing, jobs, projects, queue
from orchestrator.ledger.chunks import adopt, cancel, cutting, parses, plan, retry
from orchestrator.ledger.queue import Shard
from orchestrator.ledger.scope import Scope
from orchestrator.ledger.sqlite import schema
from orchestrator.ledger.views import diff, export, reading
from orchestrator.models import FileResult, JobStatus, Outcome

VERSIONS = range(1, len(schema.MIGRATIONS) + 1)

#: Every kind of row in the columns of the first version, as its program left them: an open intent, a held one, a job in
#: flight, a planned chunk, good and bad results, a file at fault, a retry and a person's verdict.
ROWS = f"""
INSERT INTO configs VALUES (1, '{SMALL.fingerprint}', '{SMALL.canonical}'), (2, 'old', '{{}}');
INSERT INTO manifests (id, name, rehearsal, origin, project_id, config_id, review, path, sha256)
  VALUES (1, 'm', 0, 'api', 'p', 1, '{{"below_confidence": 0.6}}', 'm.yaml', '0');
INSERT INTO runs (id, manifest_id, command, api, started_at, finished_at, exit_code, summary)
  VALUES ('r1', 1, 'run', 'v1', '{AT}', '{AT}', 3, '{{}}'), ('r2', 1, 'accept', 'person', '{AT}', '{AT}', 0, '{{}}');
INSERT INTO jobs (id, manifest_id, config_id, run_id, api, depth, size, status, job_id, error, sends, resends, held,
                  mark, credits, sent_at, submitted_at, finished_at, changed_at) VALUES
  (1, 1, 1, 'r1', 'v1', 0, 2, 'succeeded', 'job-1', NULL, 1, 0, 0, NULL, 10.5, '{AT}', '{AT}', '{AT}', '{AT}'),
  (2, 1, 1, 'r1', 'v1', 0, 1, 'submitting', NULL, NULL, 1, 0, 0, 'mark', NULL, '{AT}', NULL, NULL, '{AT}'),
  (3, 1, 1, 'r1', 'v1', 0, 1, 'submitting', NULL, 'two jobs', 2, 1, 1, NULL, NULL, '{AT}', NULL, NULL, '{AT}'),
  (4, 1, 1, 'r1', 'v1', 0, 1, 'submitted', 'job-4', NULL, 1, 0, 0, NULL, NULL, '{AT}', '{AT}', NULL, '{AT}'),
  (5, 1, 1, 'r1', 'v1', 0, 1, 'pending', NULL, NULL, 0, 0, 0, NULL, NULL, NULL, NULL, NULL, '{AT}'),
  (6, 1, 1, 'r1', 'v1', 1, 1, 'failed', 'job-6', 'broken', 1, 0, 0, NULL, NULL, '{AT}', '{AT}', '{AT}', '{AT}'),
  (7, 1, 1, 'r2', 'person', 0, 1, 'succeeded', 'verdict-7', NULL, 0, 0, 0, NULL, 0, '{AT}', '{AT}', '{AT}', '{AT}'),
  (8, 1, 1, 'r1', 'v1', 0, 1, 'pending', NULL, NULL, 0, 0, 0, NULL, NULL, NULL, NULL, NULL, '{AT}');
INSERT INTO files (id, chunk_id, manifest_id, config_id, file_id, generation, standing) VALUES
  (1, 1, 1, 1, 'sure', 0, 1), (2, 1, 1, 1, 'decided', 0, 0), (3, 2, 1, 1, 'intended', 0, 1), (4, 3, 1, 1, 'held', 0, 1),
  (5, 4, 1, 1, 'in flight', 0, 1), (6, 5, 1, 1, 'planned', 0, 1), (7, 6, 1, 1, 'at fault', 1, 1),
  (8, 7, 1, 1, 'decided', 1, 1), (9, 8, 1, 1, 'sure', 1, 0);
INSERT INTO results (file_row, outcome, type, confidence, reasoning, error) VALUES
  (1, 'classified', 'invoice', 0.29, 'why', NULL), (2, 'unmatched', NULL, NULL, NULL, NULL),
  (7, 'failed', NULL, NULL, NULL, 'broken'), (8, 'classified', 'invoice', 1.0, 'accepted by a person', NULL);
INSERT INTO tallies VALUES (1, 1, 'classified', 'invoice', 29, 1), (1, 1, 'classified', 'invoice', 100, 1),
  (1, 1, 'failed', '', 0, 1);
INSERT INTO events (at, chunk_id, event, note) VALUES ('{AT}', 3, 'held', 'two jobs'),
  ('{AT}', 6, 'quarantined', 'at fault');
"""  # noqa: S608 - our own constants
TABLES = ("configs", "manifests", "runs", "jobs", "files", "results", "tallies", "events")


@pytest.fixture(params=VERSIONS, ids=lambda version: f"version-{version}")
def older(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ledger as the program of one version left it."""
    path = tmp_path / "ledger.db"
    with monkeypatch.context() as then:
        then.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[: request.param])
        Ledger(path).close()
    with closing(sqlite3.connect(path)) as raw:
        raw.executescript(ROWS)
        if request.param > schema.MIGRATIONS.index(schema._percents):  # what its program stores itself
            raw.executescript(
                "UPDATE results SET percent = 29 WHERE file_row = 1; UPDATE results SET percent = 100 WHERE "
                "file_row = 8; UPDATE sequences SET last = 8"
            )
            raw.commit()
    return path


def content(path: Path) -> dict[str, list[dict[str, Any]]]:
    with closing(sqlite3.connect(path)) as raw:
        raw.row_factory = sqlite3.Row
        return {
            table: [dict(row) for row in raw.execute(f"SELECT * FROM {table} ORDER BY 1")]  # noqa: S608 - our tables
            for table in TABLES
        }


def test_an_older_ledger_keeps_every_row(older: Path) -> None:
    """Each column that it had holds what it held; opening it once more changes nothing."""
    before = content(older)
    ledger_room.open(older).close()
    after = content(older)
    for table, rows in before.items():
        assert [{name: row[name] for name in rows[0]} for row in after[table]] == rows
    ledger_room.open(older).close()
    assert content(older) == after


def test_the_percent_of_an_older_result_is_the_one_that_it_was_counted_under(older: Path) -> None:
    """0.29 * 100 is a little less than 29, and was counted as 29: else the tallies and the results would part."""
    ledger_room.open(older).close()
    assert [row["percent"] for row in content(older)["results"]] == [29, 0, 0, 100]


def test_the_work_of_an_older_ledger_goes_on_to_its_end(older: Path) -> None:
    """What was open is found and ends, what a person decided or halving found stands, and no id is used twice."""
    with ledger_room.open(older) as opened, opened.transaction() as connection:
        scope, shard = register(connection, SMALL, project="p"), Shard(1, "v1")
        assert scope == Scope(1, 1)
        assert [(parked.chunk_id, parked.held, parked.cut_off) for parked in queue.unanswered(connection, shard)] == [
            (2, False, True),
            (3, True, False),
        ]
        assert [job.chunk_id for job in queue.in_flight(connection, shard)] == [4]
        assert [chunk.id for chunk in queue.pending(connection, shard, after=0, most=9)] == [5, 8]
        assert retry.quarantined(connection, scope, None, staged=None, most=9).first[0].file_id == "at fault"
        assert queue.release_held(connection, shard, at=AT) == 1
        for chunk_id in (2, 3, 5, 8):
            if chunk_id != 2:
                jobs.intend(connection, [chunk_id], mark=None, at=AT)
            jobs.submitted(connection, chunk_id, f"job-{chunk_id}", at=AT)
        for chunk_id in (2, 3, 4, 5, 8):
            rows = jobs.file_rows(connection, chunk_id)
            results = [(row, FileResult(file_id, Outcome.CLASSIFIED, "invoice", 0.9)) for file_id, row in rows.items()]
            jobs.end(connection, chunk_id, JobStatus.SUCCEEDED, results, at=AT)
        totals = reading.totals(connection, scope, staged=None, review={"below_confidence": 0.6})
        assert (totals.unfinished, totals.review) == (0, 0)
        assert {outcome.value: files for outcome, files in totals.outcomes.items() if files} == {
            "classified": 6,
            "failed": 1,
        }
        assert again(connection, scope, "at fault", "decided") == []
        assert again(connection, scope, "at fault", file_ids=("at fault",)) == ["at fault"]
        cut(connection, scope, run_id="r1")
        assert [chunk.id for chunk in queue.pending(connection, shard, after=0, most=9)] == [9]


def test_the_ids_of_an_older_ledger_become_canonical(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user wrote is kept; a v2 call that is out keeps its key; what was paid for twice stays two files."""
    uuid = "182bd5e5-6e1a-4fe4-a799-aa6d9a6ab26"
    path = tmp_path / "ledger.db"
    with monkeypatch.context() as then:
        then.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[: schema.MIGRATIONS.index(schema._canonical_ids)])
        Ledger(path).close()
    with closing(sqlite3.connect(path)) as raw:
        raw.executescript(ROWS)
        rows = [(1, uuid.upper() + "A"), (2, f"{uuid}b"), (3, f"dfl-{uuid}b"), (4, f"dfl-{uuid}c"), (7, f"dfl-{uuid}d")]
        raw.executemany("UPDATE files SET file_id = ?2 WHERE id = ?1", rows)
        raw.execute("UPDATE jobs SET api = 'v2' WHERE id IN (1, 3)")
        raw.execute("UPDATE events SET note = ? WHERE event = 'quarantined'", (f"dfl-{uuid}d",))
        raw.commit()
    with ledger_room.open(path) as opened, opened.transaction() as connection:
        held, ended = (queue.chunk(connection, chunk_id) for chunk_id in (3, 1))
        assert (held.file_ids, held.as_written, held.keyed_as) == ((f"{uuid}c",), (f"dfl-{uuid}c",), f"dfl-{uuid}c")
        assert (ended.file_ids, ended.as_written) == ((f"{uuid}a", f"{uuid}b"), (uuid.upper() + "A", f"{uuid}b"))
        assert ended.keyed_as is None
        assert queue.chunk(connection, 2).file_ids == (f"dfl-{uuid}b",)
        assert retry.quarantined(connection, Scope(1, 1), None, staged=None, most=9).first[0].file_id == f"dfl-{uuid}d"


def test_an_older_ledger_answers_whatever_it_is_asked(older: Path) -> None:
    """Reports, adopt, cancel, billing and parses, none of which the work above asks."""
    with ledger_room.open(older) as opened, opened.transaction() as connection:
        scope, shard = register(connection, SMALL, project="p"), Shard(1, "v1")
        wanted = ["sure", "decided", "held", "in flight", "at fault", "new", "new"]
        staged = plan.stage(connection, wanted)
        counts = plan.count(connection, scope, staged)
        assert (counts.files, counts.done, counts.failed, counts.in_flight, counts.new) == (6, 2, 1, 2, 1)
        assert reading.only_under_other_rules(connection, scope) == 0
        totals = reading.totals(connection, scope, staged=staged, review={})
        assert reading.with_other_rules(connection, scope, totals, {}, staged=staged)[1] == 1
        assert [found.event for found in reading.decisions(connection, 1)] == ["held"]
        assert reading.second_opinions(connection, "r1").files == 0
        assert [row[1] for row in export.export_rows(connection, [1])] == ["sure", "at fault", "decided"]
        assert len(list(export.export_rows(connection, [1], history=True))) == 4
        assert diff.last_two(connection, 1) == ["r1"]
        assert sum(flow.files for flow in diff.flows(connection, 1, diff.ended_at(connection, 1, "r1") or "", AT)) == 3
        assert billing.unbilled(connection, shard, since="", run_id="r2", mine=False, most=9) == {"job-6": 6}
        billing.bill(connection, {6: 1.5})
        assert billing.spent(connection, 1).credits == 12.0
        assert billing.spent_by_run(connection, "r1").credits == 12.0
        assert billing.ceiling_of_run(connection, "r1") == 45  # all of one moment: the other run's job too
        assert projects.project(connection, 1) == "p"
        projects.made_in(connection, 1, "q")
        assert projects.is_of_another_chunk(connection, 5, "job-4")
        assert projects.seem_elsewhere(connection, shard, [])
        stuck = cancel.select_stuck(connection, scope, retry.Selection(), retry.Allowed(), ["in flight"], since="9")
        assert [(job.chunk_id, job.file_id) for job in stuck] == [(4, "in flight")]
        plan.stage(connection, wanted)
        assert adopt.to_take_in(connection, scope, ["sure", "at fault", "new"], fixed_by=None, escalation=False) == [
            "at fault",
            "new",
        ]
        assert adopt.to_take_in(connection, scope, ["decided"], fixed_by=None, escalation=True) == ["decided"]
        taken = adopt.take_in(
            connection,
            scope,
            ["at fault", "new"],
            job_config_id=scope.config_id,
            escalation=False,
            api="v1",
            run_id="r1",
            job_id="job-9",
            at=AT,
        )
        assert (taken, queue.chunk(connection, taken).file_ids) == (9, ("at fault", "new"))
        connection.execute(text("UPDATE jobs SET parse_job_id = 'parse-1' WHERE id = 1"))
        cutting.choose_named(connection, scope, ["sure"])
        assert parses.count_reusable(connection, scope, SMALL, since="") == 1
        assert parses.use_parse_jobs(connection, scope, SMALL, after=7, since="") == 1
        assert again(connection, scope, *wanted, error="BROK", types=(), outcomes=tuple(Outcome), run_id="r1") == []
        assert retry.changes(connection, scope, SMALL).files == 0
