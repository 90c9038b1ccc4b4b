"""Documents into folders by their type: nothing lost, nothing overwritten, nothing outside."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sandboxes import INVOICE, RECEIPT, desk, put

from orchestrator import ledger
from orchestrator.clock import SystemClock
from orchestrator.commands import route
from orchestrator.documents.hashing import content_of
from orchestrator.documents.routing import Sorted, belongs, numbered
from orchestrator.documents.shelf import NotPlaced, Shelf, Taken
from orchestrator.ledger.documents import known
from orchestrator.manifest import loading
from orchestrator.manifest.loading import Manifest
from orchestrator.manifest.sources import Route
from orchestrator.models import Outcome


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("how", ["copy", "move", "link", "symlink"])
def test_documents_go_where_they_belong_and_back(tmp_path: Path, how: str) -> None:
    """A second call finds nothing to do; --undo takes the last one back."""
    with desk(tmp_path) as at:
        at.put(a=INVOICE, b=RECEIPT, twin=INVOICE)
        at.cli("run", "m.yaml")
        before = tree(at.inbox)
        done = json.loads(at.cli("route", "m.yaml", "--into", "sorted", "--how", how, "--json").stdout)
        assert (done["placed"], done["folders"]) == (3, {"invoice": 2, "receipt": 1})
        assert tree(tmp_path / "sorted") == {
            "invoice/a.txt": INVOICE,
            "invoice/twin.txt": INVOICE,
            "receipt/b.txt": RECEIPT,
        }
        assert tree(at.inbox) == ({} if how == "move" else before)
        again = json.loads(at.cli("route", "m.yaml", "--into", "sorted", "--how", how, "--json").stdout)
        assert (again["placed"], again["already"]) == (0, 3)
        undone = json.loads(at.cli("route", "m.yaml", "--into", "sorted", "--undo", "--json").stdout)
        assert undone["undone"] == 3
        assert tree(tmp_path / "sorted") == {}
        assert tree(at.inbox) == before


def test_different_documents_of_one_name_are_told_apart_by_a_number(tmp_path: Path) -> None:
    """Neither they nor what a person has put there are overwritten."""
    with desk(tmp_path) as at:
        at.put(**{"x/a": INVOICE, "y/a": INVOICE + " other"})
        (tmp_path / "sorted/invoice").mkdir(parents=True)
        (tmp_path / "sorted/invoice/a.txt").write_text("mine")
        for path in (tmp_path / "sorted", tmp_path / "sorted/invoice", tmp_path / "sorted/invoice/a.txt"):
            path.chmod(0o700)
        at.cli("run", "m.yaml")
        at.cli("route", "m.yaml", "--into", "sorted")
        assert tree(tmp_path / "sorted/invoice") == {
            "a.txt": "mine",
            "a (2).txt": INVOICE,
            "a (3).txt": INVOICE + " other",
        }


def test_run_routes_at_its_end_where_the_manifest_says_so(tmp_path: Path) -> None:
    """And a night after a move does not take the sorted documents for new ones."""
    with desk(tmp_path) as at:
        at.manifest("route: {into: inbox/sorted, how: move}\nallow_empty: true")
        at.put(a=INVOICE, b=RECEIPT)
        done = json.loads(at.cli("run", "m.yaml", "--json").stdout)
        assert (done["exit_code"], done["routed"]) == (
            0,
            {"placed": 2, "already": 0, "not_placed": 0, "left": 0, "waiting": 0},
        )
        assert set(tree(at.inbox)) == {"sorted/invoice/a.txt", "sorted/receipt/b.txt"}
        again = json.loads(at.cli("run", "m.yaml", "--json").stdout)
        assert (again["exit_code"], again["jobs_created"], again["routed"]["placed"]) == (0, 0, 0)


@contextmanager
def routed(folder: Path, how: str) -> Iterator[tuple[Manifest, ledger.Ledger, Route]]:
    """Three documents that were classified and sorted once; their ledger is open."""
    with desk(folder) as at:
        at.put(a=INVOICE, b=RECEIPT, c=INVOICE + " other")
        at.cli("run", "m.yaml")
        at.cli("route", "m.yaml", "--into", "sorted", "--how", how)
        with closing(ledger.open(folder / "ledger.db")) as opened:
            yield loading.load(str(folder / "m.yaml"), environ={}), opened, Route(str(folder / "sorted"), how=how)


IN_PLACE = {"invoice/a.txt": INVOICE, "invoice/c.txt": INVOICE + " other", "receipt/b.txt": RECEIPT}
IN_THE_FOLDER = {"a.txt": INVOICE, "b.txt": RECEIPT, "c.txt": INVOICE + " other"}


class Killed(BaseException):
    """No handler of the program sees it."""


@pytest.mark.parametrize("how", ["copy", "move", "symlink"])
@pytest.mark.parametrize("undo_again", [False, True])
def test_a_killed_undo_is_finished_either_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, undo_again: bool
) -> None:
    """By `--undo` every document is back, by `route` in its place: none is taken to be where it is not."""
    with routed(tmp_path, how) as (manifest, opened, chosen):
        took: list[str] = []

        def take_back(shelf: Shelf, path: Sequence[str], source: str, content: str, how: str) -> None:
            if len(took) == 2:
                raise Killed
            took.append(source)
            whole(shelf, path, source, content, how)

        whole = Shelf.take_back
        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(Shelf, "take_back", take_back)
            route.carry_out(manifest, opened, chosen, SystemClock(), undo=True)
        assert len(tree(tmp_path / "sorted")) == 1
        done = route.carry_out(manifest, opened, chosen, SystemClock(), undo=undo_again)
        assert (done.troubles, done.undone or done.placed) == (0, 3)
        assert tree(tmp_path / "sorted") == ({} if undo_again else IN_PLACE)
        assert tree(tmp_path / "inbox") == ({} if how == "move" and not undo_again else IN_THE_FOLDER)


def test_an_undo_that_has_to_leave_a_document_leaves_it_in_place(tmp_path: Path) -> None:
    """It is not placed again by the next call, which has nothing to do."""
    with routed(tmp_path, "copy") as (manifest, opened, chosen):
        (tmp_path / "sorted/invoice/a.txt").write_text("edited")
        undone = route.carry_out(manifest, opened, chosen, SystemClock(), undo=True)
        assert (undone.undone, undone.not_placed) == (2, {str(tmp_path / "inbox/a.txt"): "it has been changed"})
        again = route.carry_out(manifest, opened, chosen, SystemClock())
        assert (again.placed, again.already) == (2, 1)


def test_a_document_that_comes_back_is_moved_again(tmp_path: Path) -> None:
    """After --undo, and where somebody delivers the same once more; without a run in between."""
    with routed(tmp_path, "move") as (manifest, opened, chosen):
        with opened.transaction() as connection:
            rows = known.remembered(connection, "letters")
            known.mark_gone(connection, [row[6] for row in rows.values()], gone=True)
        route.carry_out(manifest, opened, chosen, SystemClock(), undo=True)
        assert route.carry_out(manifest, opened, chosen, SystemClock()).placed == 3
        put(tmp_path / "inbox", {"a.txt": INVOICE, "b.txt": RECEIPT})
        (tmp_path / "sorted/receipt/b.txt").write_text("edited there")
        planned = route.preview(manifest, opened, chosen, SystemClock())
        done = route.carry_out(manifest, opened, chosen, SystemClock())
        assert (planned.placed, done.placed, done.already) == (2, 2, 1)
        assert tree(tmp_path / "inbox") == {}
        new = {"receipt/b.txt": "edited there", "receipt/b (2).txt": RECEIPT}
        assert tree(tmp_path / "sorted") == {**IN_PLACE, **new}
        assert route.carry_out(manifest, opened, chosen, SystemClock()).placed == 0


def test_a_document_that_a_person_puts_back_goes_where_it_belongs_by_now(tmp_path: Path) -> None:
    """As one does with a failed document, to have it classified again; the others go on from where they are."""
    with routed(tmp_path, "move") as (manifest, opened, chosen):
        (tmp_path / "sorted/receipt/b.txt").rename(tmp_path / "inbox/b.txt")
        done = route.carry_out(manifest, opened, replace(chosen, template="{type}s/{name}"), SystemClock())
        assert (done.placed, done.already) == (3, 0)
        assert tree(tmp_path / "inbox") == {}
        assert set(tree(tmp_path / "sorted")) == {"invoices/a.txt", "invoices/c.txt", "receipts/b.txt"}


def test_what_stays_where_it_is_is_reported_with_the_reason(tmp_path: Path) -> None:
    """Documents that the route leaves, by outcome, and those that have no outcome yet."""
    with desk(tmp_path) as at:
        at.manifest("route: {into: sorted, unmatched: leave}")
        at.put(a=INVOICE, odd="nothing that a rule would know")
        done = json.loads(at.cli("run", "m.yaml", "--json").stdout)
        assert (done["routed"]["placed"], done["routed"]["left"], done["routed"]["waiting"]) == (1, 1, 0)
        at.put(later=RECEIPT)
        at.cli("run", "m.yaml", "--no-wait", "--deadline", "0s")
        assert at.cli("route", "m.yaml").stdout.endswith(
            "0 documents put into "
            + str(tmp_path / "sorted")
            + "; 1 in place before, 1 left where they are (1 unmatched), 1 without an outcome yet\n"
        )


def test_a_dry_run_touches_nothing(tmp_path: Path) -> None:
    """It names each document and its place."""
    with desk(tmp_path) as at:
        at.put(a=INVOICE)
        at.cli("run", "m.yaml")
        told = at.cli("route", "m.yaml", "--into", "sorted", "--dry-run").stdout
        assert "inbox/a.txt -> " in told
        assert not (tmp_path / "sorted").exists()


def test_prune_deletes_what_was_uploaded_here_and_is_done_with(tmp_path: Path) -> None:
    """What another machine uploaded stays; changed rules upload the pruned ones again."""
    with desk(tmp_path) as at:
        at.put(a=INVOICE)
        at.cli("run", "m.yaml", "--ledger", "other.db")
        at.put(b=RECEIPT)
        at.cli("run", "m.yaml")
        done = json.loads(at.cli("prune", "m.yaml", "--older-than", "0s", "--json").stdout)
        assert (done["found"], done["deleted"]) == (1, 1)
        (left,) = at.embedded.state.files.values()
        assert left.name == "a.txt"
        at.manifest("parsing_configuration: {max_pages: 3}")
        again = json.loads(at.cli("run", "m.yaml", "--json").stdout)
        assert (again["exit_code"], again["uploaded"]) == (0, 1)


def test_upload_leaves_the_jobs_to_run(tmp_path: Path) -> None:
    """Exit 0 when every document is there; the run that follows uploads nothing."""
    with desk(tmp_path) as at:
        at.put(a=INVOICE, b=RECEIPT)
        up = json.loads(at.cli("upload", "m.yaml", "--json").stdout)
        assert (up["exit_code"], up["uploaded"], up["jobs_created"]) == (0, 2, 0)
        done = json.loads(at.cli("run", "m.yaml", "--json").stdout)
        assert (done["exit_code"], done["uploaded"], done["classified"]) == (0, 0, 2)


def test_names_and_paths_are_in_an_export_and_name_files_to_retry(tmp_path: Path) -> None:
    """Both documents of one content have a row; an ambiguous name is refused with what it may mean."""
    with desk(tmp_path) as at:
        at.put(**{"a": INVOICE, "twin": INVOICE, "x/same": RECEIPT, "y/same": RECEIPT + "!"})
        at.cli("run", "m.yaml")
        rows = [json.loads(line) for line in at.cli("export", "m.yaml").stdout.splitlines()]
        assert sorted(row["name"] for row in rows) == ["a.txt", "same.txt", "same.txt", "twin.txt"]
        assert {row["file_id"][:4] for row in rows} == {"dfl-"}
        assert json.loads(at.cli("retry", "m.yaml", "--file", "a.txt", "--dry-run", "--json").stdout)["files"] == 1
        refused = at.cli("retry", "m.yaml", "--file", "same.txt", "--dry-run")
        assert refused.returncode == 2
        assert "x/same.txt" in refused.stderr
        assert "y/same.txt" in refused.stderr
        assert at.cli("retry", "m.yaml", "--file", "inbox/x/same.txt", "--dry-run").returncode == 0


def test_init_writes_a_manifest_that_validate_calls_good(tmp_path: Path) -> None:
    """And never over one that is there."""
    with desk(tmp_path) as at:
        at.put(a=INVOICE)
        assert at.cli("init", "inbox").returncode == 0
        assert at.cli("validate", "orchestrator.yaml").returncode == 0
        assert at.cli("init", "inbox").returncode == 2
        (tmp_path / "orchestrator.yaml").unlink()


TODAY = date(2026, 11, 27)
NASTY = st.text(max_size=30) | st.sampled_from(["..", ".", "", "/", "../x", "a/b", "-rf", "x\n", "é" * 200, "\x00"])


@given(NASTY, NASTY, st.sampled_from(["{type}/{name}", "{type}{name}", "../{name}", "{stem}/../{type}"]))
def test_no_type_and_no_name_leads_out_of_the_folder(label: str, name: str, template: str) -> None:
    """Each part of the place is one name, whatever comes from outside."""
    where = belongs(Route("/sorted", template), Sorted(name, Outcome.CLASSIFIED, label, 0.9, None), today=TODAY)
    assert where
    for part in where:
        assert part.strip() not in ("", ".", "..")
        assert not set("/\0\n") & set(part)


def test_a_link_inside_the_folder_is_never_followed(tmp_path: Path) -> None:
    """Who can write into the folder can't send documents elsewhere."""
    source = tmp_path / "a.txt"
    source.write_text("x")
    (tmp_path / "sorted").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "sorted/invoice").symlink_to(tmp_path / "elsewhere")
    shelf = Shelf(str(tmp_path / "sorted"))
    for how in ("copy", "move", "link", "symlink"):
        with pytest.raises(NotPlaced):
            shelf.place(str(source), ("invoice", "a.txt"), content_of(str(source)), how)
    shelf.close()
    assert not list((tmp_path / "elsewhere").iterdir())


def test_hostile_names_are_placed_byte_for_byte(tmp_path: Path) -> None:
    """Not UTF-8, 255 bytes, a leading dash: what the source folder can hold, the sorted one can."""
    shelf = Shelf(str(tmp_path / "sorted"))
    for raw in (b"\xff\xfe.pdf", b"x" * 251 + b".pdf", b"-rf.pdf"):
        name = os.fsdecode(raw)
        source = tmp_path / name
        source.write_text(name.encode("utf-8", "replace").decode())
        where = belongs(Route("/s"), Sorted(name, Outcome.CLASSIFIED, "..", 0.9, None), TODAY)
        assert where is not None
        shelf.place(str(source), where, content_of(str(source)), "copy")
        assert shelf.content(where) == content_of(str(source))
        assert where[-1] == name
    shelf.close()


def test_a_move_that_was_cut_short_is_finished(tmp_path: Path) -> None:
    """Between the new name and the old one's removal both are there; placing it again removes the old one."""
    source, content = tmp_path / "a.txt", ""
    source.write_text("x")
    content = content_of(str(source))
    shelf = Shelf(str(tmp_path / "sorted"))
    shelf.place(str(source), ("t", "a.txt"), content, "copy")
    shelf.place(str(source), ("t", "a.txt"), content, "move")
    assert not source.exists()
    shelf.place(str(source), ("t", "a.txt"), content, "move")
    assert shelf.content(("t", "a.txt")) == content
    other = tmp_path / "b.txt"
    other.write_text("y")
    with pytest.raises(Taken):
        shelf.place(str(other), ("t", "a.txt"), content_of(str(other)), "move")
    assert other.exists()
    shelf.close()


def test_a_number_stands_before_the_suffix() -> None:
    """So that programs still know what it is."""
    assert numbered(("t", "a.pdf"), 2) == ("t", "a (2).pdf")
