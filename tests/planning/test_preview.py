"""``plan`` in figures: the files as the ledger knows them, what the next run sends, and nothing written for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from support.ledgers import AT, answer, bring, classify
from support.ledgers import plan as planned
from support.planning import NOW, OLD, many
from support.sandboxes import put

from orchestrator.errors import InputError, LedgerError, ManifestError, OutOfCredits
from orchestrator.ledger import Ledger
from orchestrator.ledger.chunks import cutting
from orchestrator.ledger.chunks.retry import Changes, Quarantine, QuarantinedFile
from orchestrator.ledger.database import MOVED
from orchestrator.manifest.loading import Manifest, load
from orchestrator.models import Config, Extent, FileResult, JobStatus, Limits, Outcome
from orchestrator.planning.ceiling import Ceiling, Line
from orchestrator.planning.documents import Taken
from orchestrator.planning.options import Options
from orchestrator.planning.preview import Preview, preview
from orchestrator.planning.run import plan

MANIFEST = """\
version: 1
name: m
chunk_size: 2
parsing_configuration: {max_pages: 1}
rules: [{type: invoice, description: contains line items}]
"""

NONE = Line()
NOTHING = Quarantine(0, [])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def manifest(folder: Path) -> Manifest:
    """Of v1 and three files, in chunks of two; one file costs 1 credit at most."""
    return write(folder, "file_ids: [a, b, c]")


@pytest.fixture
def path(folder: Path) -> Path:
    return folder / "ledger.db"


def write(folder: Path, more: str) -> Manifest:
    (folder / "m.yaml").write_text(MANIFEST + more)
    return load("m.yaml", environ={})


def look(manifest: Manifest, path: Path, *, rehearsal: bool = False) -> Preview:
    return preview(manifest, path, rehearsal=rehearsal, now=NOW)


def before(path: Path, *works: Callable[[Connection], object]) -> None:
    """Have *works* done in the ledger, which is made if need be."""
    with Ledger(path) as opened, opened.transaction() as connection:
        for work in works:
            work(connection)


def test_without_a_ledger_all_is_new_and_none_is_made(manifest: Manifest, folder: Path, path: Path) -> None:
    """Duplicates are counted once, in chunks of two."""
    assert look(replace(manifest, ids=("a", "b", "a", "c", "a")), path) == Preview(
        manifest="m",
        rehearsal=False,
        api="v1",
        listed=5,
        files=3,
        duplicates=2,
        done=0,
        failed=0,
        in_flight=0,
        new=3,
        changed=0,
        chunk_size=2,
        chunks=2,
        create_calls=2,
        free=0,
        credits_ceiling=3,
        quarantined=NOTHING,
        over_limits=None,
        planned_not_sent=0,
        sent=0,
        unanswered=0,
        ceiling=Ceiling(Line(3, 3), NONE, NONE, Line(3, 3), NONE, Line(6, 6)),
        reclassified=Changes(),
        documents=None,
        renamed_from=None,
        extents={"quarantined": Extent(0, False)},
    )
    assert [each.name for each in folder.iterdir()] == ["m.yaml"]


def in_every_state(connection: Connection, config: Config) -> None:
    """Of each state another number of files: 1 done, 2 failed, 3 sent, 4 without an answer, 5 planned, 6 changed."""
    classify(connection, config, ["done"])
    classify(connection, config, many("failed", 2), Outcome.FAILED)
    for letter, number, status in (
        ("sent", 2, JobStatus.SUBMITTED),
        ("running", 1, JobStatus.RUNNING),
        ("unanswered", 4, JobStatus.SUBMITTING),
    ):
        planned(connection, config, many(letter, number), size=9)
        bring(connection, cutting.last_chunk(connection), status)
    classify(connection, OLD, many("changed", 6))
    planned(connection, config, many("planned", 5), size=9)
    connection.execute(text("UPDATE jobs SET sends = 1 WHERE status = 'pending'"))  # refused, so not planned anew


def test_files_are_counted_by_how_they_stand(manifest: Manifest, path: Path) -> None:
    """What the API has is paid for; what is planned or unanswered is sent with the rest."""
    before(path, lambda connection: in_every_state(connection, manifest.config))
    listed = ["done", *many("failed", 2), *many("sent", 2), "running0", *many("unanswered", 4)]
    listed += [*many("planned", 5), *many("changed", 6), *many("new", 7)]
    limits = Limits(max_generations=1, max_reclassify=5)
    found = look(replace(manifest, ids=tuple(listed), limits=limits, chunk_size=9), path)
    quarantined = [QuarantinedFile(each, "failed", "", "submitted 1 time in vain") for each in ("failed0", "failed1")]
    assert found == Preview(
        manifest="m",
        rehearsal=False,
        api="v1",
        listed=28,
        files=28,
        duplicates=0,
        done=1,
        failed=2,
        in_flight=12,
        new=13,
        changed=6,
        chunk_size=9,
        chunks=2,
        create_calls=2,
        free=0,
        credits_ceiling=13,
        quarantined=Quarantine(2, quarantined),
        over_limits="6 files would be classified again because of rules, over limits.max_reclassify: 5; allow it once "
        "with --reclassify, or raise the limit",
        planned_not_sent=5,
        sent=3,
        unanswered=4,
        ceiling=Ceiling(
            Line(13, 13),
            Line(5, 5),
            Line(4, 4),
            Line(13 * 4 + 5 * 3 + 4 * 2 + 2 * 1, 77),
            NONE,
            Line(99, 99),
        ),
        reclassified=Changes(6, ("rules",)),
        documents=None,
        renamed_from=None,
        extents={"quarantined": Extent(2, False)},
    )


@pytest.mark.parametrize("api", ["v1", "v2"])
@pytest.mark.parametrize("limits", [Limits(), Limits(max_credits=21), Limits(max_credits=22), Limits(max_reclassify=5)])
def test_the_next_run_does_just_that(manifest: Manifest, path: Path, api: str, limits: Limits) -> None:
    """Also what stops it, in the same words."""
    before(path, lambda connection: in_every_state(connection, manifest.config))
    listed = ("done", "failed0", *many("unanswered", 4), *many("planned", 5), *many("changed", 6), *many("new", 7))
    manifest = replace(manifest, ids=listed, limits=limits, limit_lines={"max_credits": 6}, api=api)
    said = look(manifest, path)
    with Ledger(path) as opened:
        try:
            with opened.transaction() as connection:
                made = plan(connection, manifest, Options(), run_id="next", origin="api", now=NOW)
        except OutOfCredits as error:
            assert str(error) == f"{said.over_limits}; nothing was sent"
            return
    assert said.over_limits is None
    counts = made.counts
    assert (said.chunks, said.new, said.credits_ceiling) == (made.chunks, made.files_to_send, made.credits_ceiling)
    assert (said.done, said.failed, said.in_flight, said.changed) == (
        counts.done, counts.failed, counts.in_flight, counts.changed
    )  # fmt: skip
    assert said.reclassified == made.reclassified


def test_a_file_on_a_parse_is_free(manifest: Manifest, path: Path) -> None:
    """v2 has one file a call, and bills no classification on an earlier parse."""

    def parse(connection: Connection) -> None:
        planned(connection, OLD, ["a"])
        answer(connection, 1, FileResult("a", Outcome.CLASSIFIED, "invoice"), parse_job_id="pjb-a")

    before(path, parse)
    found = look(replace(manifest, api="v2"), path)
    assert (found.api, found.chunk_size, found.chunks, found.create_calls) == ("v2", 1, 3, 3)
    assert (found.free, found.credits_ceiling, found.ceiling.sum) == (1, 2, Line(3, 3))


def test_of_many_quarantined_files_the_first_thousand_are_named(manifest: Manifest, path: Path) -> None:
    """And how many there are."""
    names = many("f", 1001)
    before(path, lambda connection: classify(connection, manifest.config, names, Outcome.FAILED))
    found = look(replace(manifest, ids=tuple(names), limits=Limits(max_generations=1)), path)
    assert (found.quarantined.files, [each.file_id for each in found.quarantined.first]) == (1001, names[:1000])
    assert found.extents == {"quarantined": Extent(1001, True)}


def test_a_ledger_that_is_gone_would_have_all_bought_again(manifest: Manifest, path: Path) -> None:
    """Except by v2, which knows its jobs by their keys, and by a rehearsal."""
    before(path, lambda connection: planned(connection, manifest.config, ["a"]))
    path.unlink()
    with pytest.raises(LedgerError) as caught:
        look(manifest, path)
    assert str(caught.value) == (
        f"{path}: the ledger that was here is gone; put it back, or rebuild it from the API with `orchestrator adopt`; "
        "to pay for everything again, remove ledger.db.write-lock too"
    )
    assert look(replace(manifest, api="v2"), path).new == 3
    assert look(manifest, path, rehearsal=True).new == 3


def test_a_ledger_in_the_place_of_a_lost_one_is_refused_as_by_a_run(manifest: Manifest, path: Path) -> None:
    """It may lack jobs."""
    before(path, lambda connection: connection.execute(text("INSERT INTO sequences (name, last) VALUES ('lost', 1)")))
    with pytest.raises(
        LedgerError, match=r"^this ledger took the place of one that was lost, and may lack jobs of m: "
    ):
        look(manifest, path)
    assert look(manifest, path, rehearsal=True).rehearsal


def test_a_ledger_that_was_moved_is_refused_as_by_a_run(manifest: Manifest, path: Path) -> None:
    """Its figures would be of the ledger that no run takes any more."""
    with Ledger(path) as opened, opened.transaction() as connection:
        event = {"at": AT, "event": MOVED, "note": "postgresql://there/ledger"}
        connection.execute(text("INSERT INTO events (at, event, note) VALUES (:at, :event, :note)"), event)
    with pytest.raises(LedgerError) as caught:
        preview(manifest, path, rehearsal=False, now=NOW)
    assert str(caught.value) == (
        f"{path}: this ledger was moved to postgresql://there/ledger ({AT}); name that one with --ledger"
    )


def test_an_older_ledger_is_not_brought_up_to_date(manifest: Manifest, path: Path) -> None:
    """A look writes nothing, so that the program of before can go on with it."""
    before(
        path,
        lambda connection: connection.execute(text("ALTER TABLE manifests DROP COLUMN told")),
        lambda connection: connection.execute(text(f"PRAGMA user_version = {version(connection) - 1}")),
    )
    was = path.read_bytes()
    with pytest.raises(LedgerError) as caught:
        look(manifest, path)
    assert str(caught.value) == "the ledger is of an older version; any `orchestrator run` brings it up to date"
    assert path.read_bytes() == was


def version(connection: Connection) -> int:
    return int(connection.execute(text("PRAGMA user_version")).scalar_one())


def test_an_empty_list_is_a_mistake_as_in_a_run(folder: Path, path: Path) -> None:
    """Unless the manifest says that it can be right."""
    with pytest.raises(ManifestError) as caught:
        look(write(folder, "file_ids: []"), path)
    (problem,) = caught.value.problems
    assert (problem.file, problem.line, problem.column) == ("m.yaml", 1, 1)
    assert problem.message == "no file IDs are listed; if that can be right, write `allow_empty: true` in the manifest"
    found = look(write(folder, "file_ids: []\nallow_empty: true"), path)
    assert (found.files, found.chunks, found.credits_ceiling) == (0, 0, 0)


def test_documents_are_counted_and_not_recorded(folder: Path, path: Path) -> None:
    """A run reads them again; alike ones are one file."""
    put(folder / "inbox", {"one.txt": "1", "two.txt": "1", "three.txt": "3", "four.odd": "4"})
    manifest = write(folder, "documents_from: [inbox]")
    expected = Taken(3, 2, 3, {"unsupported type": 1})
    assert (look(manifest, path).documents, look(manifest, path).new) == (expected, 2)
    before(path)
    found = look(manifest, path)
    assert (found.documents, found.listed, found.files, found.duplicates) == (expected, 2, 2, 0)
    with Ledger(path) as opened, opened.transaction() as connection:
        assert connection.execute(text("SELECT count(*) FROM documents")).scalar_one() == 0


def test_a_second_manifest_of_a_name_is_refused_as_by_a_run(manifest: Manifest, folder: Path, path: Path) -> None:
    """Their files would be mixed."""
    run(path, manifest)
    other = folder / "other.yaml"
    other.write_text((folder / "m.yaml").read_text() + "\nmode: MULTIMODAL\n")
    with pytest.raises(InputError, match=r"^this ledger knows the name 'm' from .*/m\.yaml, which is still there"):
        look(load("other.yaml", environ={}), path)


def run(path: Path, manifest: Manifest, *, rehearsal: bool = False) -> None:
    options = Options(sandbox=rehearsal)
    before(path, lambda connection: plan(connection, manifest, options, run_id="r", origin="api", now=NOW))


def test_a_new_name_for_a_known_manifest_is_told(manifest: Manifest, folder: Path, path: Path) -> None:
    """With the files that would be bought under it once more; not of a rehearsal, which buys nothing."""
    run(path, manifest)
    assert look(manifest, path).renamed_words is None
    (folder / "m.yaml").write_text((folder / "m.yaml").read_text().replace("name: m", "name: n"))
    renamed = load("m.yaml", environ={})
    found = look(renamed, path)
    assert (found.renamed_from, found.new) == ("m", 3)
    assert found.renamed_words == "this path was known as m: 3 files would be new"
    assert look(replace(renamed, ids=("a",)), path).renamed_words == "this path was known as m: 1 file would be new"
    assert look(renamed, path, rehearsal=True).renamed_from is None


def test_a_rehearsal_is_counted_by_itself(manifest: Manifest, path: Path) -> None:
    """Whatever it left open is done again by the next one."""
    before(path, lambda connection: classify(connection, manifest.config, ["a", "b"]))
    real, rehearsal = look(manifest, path), look(manifest, path, rehearsal=True)
    assert (real.done, real.new, real.rehearsal) == (2, 1, False)
    assert (rehearsal.done, rehearsal.new, rehearsal.rehearsal) == (0, 3, True)
