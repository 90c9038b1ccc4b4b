"""The plan of a run as it stands in the ledger: chunks, the run's record, what is said of it, and what undoes it."""

from __future__ import annotations

import json
from collections.abc import Iterator, MutableMapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs
from support.ledgers import AT, answer, bring, end, events
from support.planning import MANIFEST, NOW

from orchestrator.clock import timestamp
from orchestrator.errors import InputError, LedgerError, ManifestError, OutOfCredits
from orchestrator.ledger import Ledger, jobs
from orchestrator.ledger import scope as ledger_scope
from orchestrator.ledger.chunks.plan import Counts
from orchestrator.ledger.chunks.retry import Changes, Selection
from orchestrator.ledger.documents import uploads
from orchestrator.manifest.loading import Manifest, load
from orchestrator.models import FileResult, JobStatus, Mode, Outcome
from orchestrator.planning.options import Options
from orchestrator.planning.plan import Sample
from orchestrator.planning.run import Plan, doubt_pending, plan, register

NIGHT = Options()  #: as cron has it
#: What the log says, by event.
Said = dict[str, dict[str, Any]]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.db") as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a manifest of three files for 1 credit each, in chunks of two."""
    monkeypatch.chdir(tmp_path)
    write()
    return tmp_path


def write(path: str = "m.yaml", more: str = "", **fields: str) -> Manifest:
    """The manifest of before with other *fields*, written to *path* and loaded."""
    lines = [
        f"{line.partition(':')[0]}: {fields.get(line.partition(':')[0], line.partition(': ')[2])}"
        for line in MANIFEST.splitlines()
    ]
    Path(path).write_text("\n".join([*lines, more]))
    return load(path, environ={})


def at_night(
    ledger: Ledger, manifest: Manifest, options: Options = NIGHT, *, run_id: str = "r1", origin: str = "api"
) -> tuple[Plan, Said]:
    """The plan that a run leaves in the ledger, and what it logs."""
    with capture_logs() as logs, ledger.transaction() as connection:
        made = plan(connection, manifest, options, run_id=run_id, origin=origin, now=NOW)
    return made, {entry["event"]: facts(entry) for entry in logs}


def facts(entry: MutableMapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name != "event"}


def chunks(ledger: Ledger) -> dict[int, tuple[str, str, list[str]]]:
    """Chunk -> status, run, and its files."""
    with ledger.transaction() as connection:
        rows = connection.execute(
            text(
                "SELECT j.id, j.status, j.run_id, f.file_id FROM jobs j JOIN files f ON f.chunk_id = j.id ORDER BY f.id"
            )
        ).all()
    found: dict[int, tuple[str, str, list[str]]] = {}
    for row in rows:
        found.setdefault(row.id, (row.status, row.run_id, []))[2].append(row.file_id)
    return found


def ask(ledger: Ledger, query: str) -> list[Any]:
    """The rows of *query*; of one column its values."""
    with ledger.transaction() as connection:
        rows = [tuple(row) for row in connection.execute(text(query))]
    return [row[0] if len(row) == 1 else row for row in rows]


@pytest.mark.usefixtures("folder")
class TestPlan:
    """What one transaction writes before anything is sent."""

    def test_a_run_and_its_chunks_are_in_the_ledger(self, ledger: Ledger, folder: Path) -> None:
        """In figures for whoever sends them; nothing is worth a word in the log."""
        manifest = write()
        made, said = at_night(ledger, manifest, replace(NIGHT, command="retry"))
        with ledger.transaction() as connection:
            scope = ledger_scope.find_scope(connection, "m", rehearsal=False, config=manifest.config)
        assert made == Plan(scope, made.staged, Counts(3, 3, 0, 0, 0, 3, 0), 2, 3, 3, Changes(), Changes(), None, None)
        assert made.staged.listed == 3
        assert said == {}
        assert chunks(ledger) == {1: ("pending", "r1", ["a", "b"]), 2: ("pending", "r1", ["c"])}
        assert ask(ledger, "SELECT id, manifest_id, command, api, started_at FROM runs") == [
            ("r1", scope.manifest_id, "retry", "v1", timestamp(NOW))
        ]
        assert (
            ask(ledger, "SELECT api, config_id, changed_at FROM jobs") == [("v1", scope.config_id, timestamp(NOW))] * 2
        )
        assert ask(ledger, "SELECT name, path, sha256, origin FROM manifests") == [
            ("m", str(folder / "m.yaml"), manifest.sha256, "api")
        ]

    def test_a_run_without_work_is_recorded_too(self, ledger: Ledger) -> None:
        """If the manifest allows that no file is listed."""
        made, _ = at_night(ledger, write(file_ids="[]", more="allow_empty: true"))
        assert (made.chunks, made.files_to_send, made.credits_ceiling) == (0, 0, 0)
        assert (ask(ledger, "SELECT id FROM runs"), chunks(ledger)) == (["r1"], {})

    def test_an_empty_list_is_a_mistake_unless_nothing_new_is_sent(self, ledger: Ledger) -> None:
        """What writes it has most likely failed; a retry has other files to send."""
        empty = write(file_ids="[]")
        with pytest.raises(ManifestError, match="no file IDs are listed") as caught:
            at_night(ledger, empty)
        assert [(problem.file, problem.line) for problem in caught.value.problems] == [("m.yaml", 1)]
        made, _ = at_night(ledger, empty, Options(new=False, again=Selection()))
        assert (made.counts.listed, made.chunks) == (0, 0)

    def test_what_was_never_sent_is_planned_anew(self, ledger: Ledger) -> None:
        """By the next run, under its name; what was sent stays as it is."""
        at_night(ledger, write())
        with ledger.transaction() as connection:
            bring(connection, 1, JobStatus.SUBMITTED)
        made, _ = at_night(ledger, write(file_ids="[a, c, d, e]"), run_id="r2")
        assert (made.counts, made.chunks) == (Counts(4, 4, 0, 0, 1, 3, 0), 2)
        assert chunks(ledger) == {
            1: ("submitted", "r1", ["a", "b"]),
            3: ("pending", "r2", ["c", "d"]),
            4: ("pending", "r2", ["e"]),
        }

    @pytest.mark.parametrize(
        ("limits", "words"),
        [
            ({"max_files": 2}, "3 files to send, over limits.max_files: 2; to go on raise it in m.yaml:7"),
            ({"max_credits": 2}, "up to 3 credits, over limits.max_credits: 2; to go on raise it in m.yaml:7"),
        ],
    )
    def test_a_run_over_its_limits_leaves_no_trace(self, ledger: Ledger, limits: dict[str, int], words: str) -> None:
        """It is as if it had not been."""
        name, most = next(iter(limits.items()))
        with pytest.raises(OutOfCredits) as caught:
            at_night(ledger, write(more=f"limits: {{{name}: {most}}}"))
        assert str(caught.value) == f"{words}; nothing was sent"
        assert (chunks(ledger), ask(ledger, "SELECT id FROM runs"), ask(ledger, "SELECT id FROM manifests")) == (
            {},
            [],
            [],
        )
        made, _ = at_night(ledger, write(more=f"limits: {{{name}: {most + 1}}}"))
        assert made.files_to_send == 3

    def test_new_files_and_files_sent_again_are_chunks_of_their_own(self, ledger: Ledger) -> None:
        """Those sent again with another config still count for the manifest's."""
        manifest = write(file_ids="[a, b]")
        at_night(ledger, manifest)
        with ledger.transaction() as connection:
            end(connection, 1, a=Outcome.FAILED, b=Outcome.CLASSIFIED)
        better = replace(manifest.config, mode=Mode.MULTIMODAL)
        options = Options(again=Selection(), config=better)
        made, _ = at_night(ledger, write(file_ids="[a, b, c]"), options, run_id="r2")
        assert (made.files_to_send, made.chunks, made.credits_ceiling) == (2, 2, 1 + 2)
        assert {**chunks(ledger), 1: None} == {1: None, 2: ("pending", "r2", ["c"]), 3: ("pending", "r2", ["a"])}
        canonical = (
            "SELECT c.canonical FROM jobs j JOIN configs c ON c.id = j.config_id WHERE j.run_id = 'r2' ORDER BY j.id"
        )
        assert ask(ledger, canonical) == [manifest.config.canonical, better.canonical]
        assert ask(ledger, "SELECT DISTINCT config_id FROM files") == [made.scope.config_id]
        assert ask(ledger, "SELECT file_id, generation FROM files WHERE chunk_id > 1") == [("c", 0), ("a", 1)]

    def test_only_the_sample_is_cut(self, ledger: Ledger) -> None:
        """The rest stays new; the log says of how many."""
        made, said = at_night(ledger, write(), Options(sample=1, seed=3))
        assert (made.sample, made.files_to_send) == (Sample(1, 3, 3, 3), 1)
        assert said == {"files.sampled": {"files": 1, "of": 3, "seed": 3, "log_level": "info"}}
        made, _ = at_night(ledger, write(), run_id="r2")
        assert (made.counts.new, made.sample) == (3, None)

    def test_how_a_list_spells_its_files_is_kept(self, ledger: Ledger, folder: Path) -> None:
        """And what it calls them."""
        (folder / "list.csv").write_text("file_id,name\nDFL-0B5A7C3E-1111-2222-3333-444455556666,letter.pdf\nb,\n")
        at_night(ledger, write(more="file_ids_from: [list.csv]"))
        canonical = "0b5a7c3e-1111-2222-3333-444455556666"
        assert chunks(ledger)[2] == ("pending", "r1", ["c", canonical])
        assert ask(ledger, "SELECT file_id, spelling FROM spellings") == [(canonical, f"DFL-{canonical.upper()}")]
        assert ask(ledger, "SELECT name FROM names WHERE file_id LIKE '0b%'") == ["letter.pdf"]

    def test_a_list_that_may_be_cut_short_is_reported(self, ledger: Ledger, folder: Path) -> None:
        """And sent all the same: its IDs are good ones."""
        (folder / "list.txt").write_text("file-1\nfile-2\nfil")
        made, said = at_night(ledger, write(more="file_ids_from: [list.txt]"))
        assert made.counts.files == 6
        words = "list.txt: the last line is shorter than all others and has no line end; is the list cut short?"
        assert said == {"list.doubtful": {"note": words, "log_level": "warning"}}

    def test_a_bad_list_leaves_no_trace(self, ledger: Ledger, folder: Path) -> None:
        """Its good lines were staged before the bad one was seen."""
        (folder / "list.txt").write_text("file-1\ntwo words\n")
        with pytest.raises(ManifestError):
            at_night(ledger, write(more="file_ids_from: [list.txt]"))
        assert (chunks(ledger), ask(ledger, "SELECT id FROM runs")) == ({}, [])

    def test_a_run_goes_to_the_api_that_the_ledger_has_results_of(self, ledger: Ledger) -> None:
        """Another one knows nothing of its jobs."""
        at_night(ledger, write())
        with pytest.raises(InputError, match="holds results of manifest 'm' from api, this run would go to elsewhere"):
            at_night(ledger, write(), run_id="r2", origin="elsewhere")
        assert ask(ledger, "SELECT id FROM runs") == ["r1"]

    def test_a_second_manifest_of_the_name_is_refused(self, ledger: Ledger) -> None:
        """Before anything of it is written."""
        at_night(ledger, write())
        with pytest.raises(InputError, match="this ledger knows the name 'm' from"):
            at_night(ledger, write("other.yaml", file_ids="[x]"), run_id="r2")
        assert {files for _, _, names in chunks(ledger).values() for files in names} == {"a", "b", "c"}

    def test_a_ledger_in_the_place_of_a_lost_one_has_no_run_planned(self, ledger: Ledger) -> None:
        """Until what the API has is adopted."""
        with ledger.transaction() as connection:
            connection.execute(text("INSERT INTO sequences (name, last) VALUES ('lost', 1)"))
        with pytest.raises(LedgerError, match=r"first have `orchestrator adopt m\.yaml` take in what the API has"):
            at_night(ledger, write())
        assert at_night(ledger, write(), Options(sandbox=True))[0].files_to_send == 3


@pytest.mark.usefixtures("folder")
class TestWarnings:
    """What a person may not expect of a plan is logged."""

    def test_changed_rules_are_told_with_what_they_buy_again(self, ledger: Ledger) -> None:
        """Once as new files, once as those of a retry."""
        at_night(ledger, write())
        with ledger.transaction() as connection:
            end(connection, 1, a=Outcome.FAILED, b=Outcome.CLASSIFIED)
            end(connection, 2, c=Outcome.FAILED)
        changed = write(rules="[{type: invoice, description: has a total}]")
        made, said = at_night(ledger, changed, Options(new=False, again=Selection(other_rules=True)), run_id="r2")
        assert (made.changes, made.reclassified) == (Changes(2, ("rules",)), Changes())
        assert said == {"manifest.changed": {"log_level": "warning", "files": 2, "fields": ("rules",)}}
        made, said = at_night(ledger, changed, run_id="r3")
        assert (made.reclassified, made.changes) == (Changes(3, ("rules",)), Changes())
        assert said == {"files.reclassified": {"log_level": "warning", "files": 3, "fields": ("rules",)}}

    def test_a_new_name_is_told_with_the_files_that_it_makes_new(self, ledger: Ledger) -> None:
        """Once: from then on the ledger knows it."""
        at_night(ledger, write(file_ids="[a, b]"))
        renamed = write(name="other")
        made, said = at_night(ledger, renamed, run_id="r2")
        assert (made.renamed_from, made.counts.new) == ("m", 3)
        assert said == {"manifest.renamed": {"log_level": "warning", "was": "m", "new_files": 3}}
        made, said = at_night(ledger, renamed, run_id="r3")
        assert (made.renamed_from, said) == (None, {})


@pytest.mark.usefixtures("folder")
class TestRehearsal:
    """A rehearsal shares the ledger with the real runs, and nothing else."""

    def test_a_rehearsal_forgets_what_it_left_open(self, ledger: Ledger) -> None:
        """The sandbox that had the jobs is gone; what has ended stays."""
        rehearsal = Options(sandbox=True)
        at_night(ledger, write(), rehearsal)
        with ledger.transaction() as connection:
            end(connection, 1, a=Outcome.CLASSIFIED, b=Outcome.CLASSIFIED)
            bring(connection, 2, JobStatus.SUBMITTED)
        made, _ = at_night(ledger, write(), rehearsal, run_id="r2")
        assert made.counts == Counts(3, 3, 2, 0, 0, 1, 0)
        assert chunks(ledger) == {1: ("succeeded", "r1", ["a", "b"]), 3: ("pending", "r2", ["c"])}

    def test_a_real_run_forgets_nothing_that_was_sent(self, ledger: Ledger) -> None:
        """Nor does a rehearsal of the same manifest between two of them."""
        at_night(ledger, write())
        with ledger.transaction() as connection:
            bring(connection, 1, JobStatus.SUBMITTING)
            bring(connection, 2, JobStatus.SUBMITTED)
        before = chunks(ledger)
        assert at_night(ledger, write(), Options(sandbox=True), run_id="r2")[0].files_to_send == 3
        assert at_night(ledger, write(), run_id="r3")[0].files_to_send == 0
        assert {chunk_id: chunks(ledger)[chunk_id] for chunk_id in before} == before


@pytest.mark.usefixtures("folder")
class TestHeld:
    """Chunks that are held for a person."""

    @pytest.fixture
    def held(self, ledger: Ledger) -> Ledger:
        at_night(ledger, write())
        with ledger.transaction() as connection:
            bring(connection, 1, JobStatus.SUBMITTING)
            jobs.hold(connection, 1, "two jobs look like it", at=AT)
        return ledger

    def test_a_person_has_them_sent_again(self, held: Ledger) -> None:
        """They are pending then, and the log says how many."""
        made, said = at_night(held, write(), Options(new=False, held=True), run_id="r2")
        assert (made.counts.in_flight, made.files_to_send) == (2, 0)
        assert said == {"chunks.released": {"log_level": "warning", "chunks": 1}}
        assert ask(held, "SELECT status, held, error FROM jobs") == [("pending", 0, None)]
        with held.transaction() as connection:
            assert events(connection, 1)[-2:] == ["pending", "released"]

    def test_otherwise_they_stay_where_they_are(self, held: Ledger) -> None:
        """And the rest is sent without them."""
        made, said = at_night(held, write(), run_id="r2")
        assert (made.counts.in_flight, made.files_to_send, said) == (2, 1, {})
        assert ask(held, "SELECT status, held, error FROM jobs ORDER BY id") == [
            ("submitting", 1, "two jobs look like it"),
            ("pending", 0, None),
        ]


@pytest.mark.usefixtures("folder")
class TestParses:
    """v2: one file a chunk, made on an earlier parse where there is one."""

    @pytest.fixture
    def parsed(self, ledger: Ledger) -> Ledger:
        """Of a and b the parse is there; c failed."""
        at_night(ledger, write(more="api: v2"))
        with ledger.transaction() as connection:
            for chunk_id, file_id in enumerate("ab", start=1):
                result = FileResult(file_id, Outcome.CLASSIFIED, "invoice")
                answer(connection, chunk_id, result, parse_job_id=f"pjb-{file_id}")
            answer(connection, 3, FileResult("c", Outcome.FAILED), JobStatus.FAILED)
        return ledger

    def test_changed_rules_are_applied_to_the_parses(self, parsed: Ledger) -> None:
        """Which costs nothing; what has no parse is sent as a file."""
        changed = write(rules="[{type: invoice, description: has a total}]", more="api: v2")
        made, _ = at_night(parsed, changed, run_id="r2")
        assert (made.chunks, made.files_to_send, made.credits_ceiling) == (3, 3, 1)
        assert ask(parsed, "SELECT id, api, parse_from FROM jobs WHERE run_id = 'r2' ORDER BY id") == [
            (4, "v2", "pjb-a"),
            (5, "v2", "pjb-b"),
            (6, "v2", None),
        ]

    def test_only_the_runs_own_chunks_are_made_on_parses(self, parsed: Ledger) -> None:
        """A retry of before that found its parse gone is not put back on it."""
        manifest = write(more="api: v2")
        at_night(parsed, manifest, Options(new=False, again=Selection(tuple(Outcome), file_ids=("a",))), run_id="r2")
        with parsed.transaction() as connection:
            jobs.intend(connection, [4], mark=None, at=AT)
            jobs.use_file(connection, 4, unsure=False, at=AT)
        at_night(parsed, manifest, Options(new=False, again=Selection(tuple(Outcome), file_ids=("b",))), run_id="r3")
        assert ask(parsed, "SELECT id, run_id, parse_from FROM jobs WHERE id > 3 ORDER BY id") == [
            (4, "r2", None),
            (5, "r3", "pjb-b"),
        ]

    def test_a_parse_that_is_too_old_is_left_alone(self, parsed: Ledger) -> None:
        """The vendor keeps them for two days."""
        with parsed.transaction() as connection:
            connection.execute(text("UPDATE jobs SET finished_at = '2026-11-23T02:00:00.000+00:00' WHERE id = 1"))
        changed = write(rules="[{type: invoice, description: has a total}]", more="api: v2")
        assert at_night(parsed, changed, run_id="r2")[0].credits_ceiling == 2
        assert ask(parsed, "SELECT parse_from FROM jobs WHERE id > 3 ORDER BY id") == [None, "pjb-b", None]


@pytest.mark.usefixtures("folder")
def test_an_upload_is_looked_at_before_it_is_used_again(ledger: Ledger) -> None:
    """Whoever keeps the files may have removed it since; one that nothing waits for is left alone."""
    manifest = replace(write(), ids=("sha256:1", "sha256:2"))
    made, _ = at_night(ledger, manifest)
    with ledger.transaction() as connection:
        bring(connection, 1, JobStatus.SUBMITTED)
        for content in ("sha256:1", "sha256:3"):
            uploads.there(connection, made.scope.manifest_id, content, f"id-{content}", ours=True, at=AT)
    at_night(ledger, replace(manifest, ids=("sha256:1", "sha256:3")), run_id="r2")
    assert ask(ledger, "SELECT content, ready FROM uploads ORDER BY content") == [("sha256:1", 1), ("sha256:3", 0)]


SETTINGS = {
    "chunk_size": 2,
    "limits": {"max_files": None, "max_credits": None, "max_generations": None, "max_reclassify": None},
    "escalate": None,
    "drift": None,
    "report": None,
}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("", {}),
        (
            "limits: {max_files: 9, max_generations: 3}",
            {"limits": {"max_files": 9, "max_credits": None, "max_generations": 3, "max_reclassify": None}},
        ),
        ("escalate: {below_confidence: 0.5}", {"escalate": {"below_confidence": 0.5, "mode": "MULTIMODAL"}}),
        ("drift: {alert: 0.25}", {"drift": {"alert": 0.25}}),
        ("report: page.html", {"report": "page.html"}),
        (
            "notify: ['https://example.com/secret']\n"
            "webhook_configurations: [{webhook_url: 'https://example.com/', webhook_headers: {x: secret}}]",
            {},
        ),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_a_page_shows_of_a_manifest_is_kept(ledger: Ledger, more: str, expected: dict[str, object]) -> None:
    """As of the latest run, and nothing that is secret."""
    at_night(ledger, write(more="report: old.html"))
    manifest = write(more=more)
    with ledger.transaction() as connection:
        scope = register(connection, manifest, rehearsal=False, origin="api")
    (kept,) = ask(ledger, "SELECT settings FROM manifests")
    assert json.loads(kept) == {**SETTINGS, **expected}
    assert ask(ledger, "SELECT id, max_generations FROM manifests") == [
        (scope.manifest_id, manifest.limits.max_generations)
    ]


@pytest.mark.usefixtures("folder")
def test_a_replaced_server_puts_each_pending_chunk_in_doubt(ledger: Ledger) -> None:
    """Its call may have gone out. v2 answers a repeated call with the job of the first, so none is looked for."""
    made, _ = at_night(ledger, write(file_ids="[a, b, c, d, e]"))
    at_night(ledger, write("other.yaml", name="other", file_ids="[a]"), run_id="r2")
    with ledger.transaction() as connection:
        bring(connection, 1, JobStatus.SUBMITTED)
        connection.execute(text("UPDATE jobs SET api = 'v2' WHERE id = 3"))
        with capture_logs() as logs:
            doubt_pending(connection, made, at=AT)
    assert logs == [{"event": "ledger.replaced", "log_level": "warning", "chunks": 1}]
    why = "the ledger's server was replaced by another; the call's intent may have been lost with it"
    assert ask(ledger, "SELECT id, status, sends, error FROM jobs ORDER BY id") == [
        (1, "submitted", 1, None),
        (2, "submitting", 1, why),
        (3, "pending", 0, None),
        (4, "pending", 0, None),
    ]
