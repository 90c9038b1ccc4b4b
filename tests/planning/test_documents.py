"""Documents taken in: what is unchanged is known again and not read; and which file is meant by a name or path."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs
from support.ledgers import AT
from support.sandboxes import MANIFEST, SETTLED_NS, put

from orchestrator import ledger
from orchestrator.documents import hashing
from orchestrator.documents.finding import Found, Skip
from orchestrator.errors import InputError, LedgerError
from orchestrator.ledger import Ledger
from orchestrator.ledger.documents import uploads
from orchestrator.manifest import loading
from orchestrator.manifest.loading import Manifest
from orchestrator.planning import documents
from orchestrator.planning.documents import Taken, called, take
from orchestrator.planning.options import Options
from orchestrator.planning.run import plan

NAMES = (b"plain.pdf", b"back\\slash.pdf", b"two\\\\.pdf", b"not-utf8-\xff.pdf", "schön.pdf".encode())


def content(words: str) -> str:
    return f"sha256:{hashlib.sha256(words.encode()).hexdigest()}"


NOW = datetime.fromisoformat(AT)
UUID = "0B5A7C3E-1111-2222-3333-444455556666"

ONE, TWO, THREE, NEW = map(content, ("one", "two", "three", "brand new"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with three documents in its ``inbox``."""
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "inbox", {"a.txt": "one", "b.txt": "two", "c.txt": "three"})
    return tmp_path


@pytest.fixture
def opened(folder: Path) -> Iterator[Ledger]:
    with ledger.open(folder / "ledger.db") as opened:
        yield opened


def write(more: str = "") -> Manifest:
    Path("m.yaml").write_text(MANIFEST.format(more=more))
    return loading.load("m.yaml", environ={})


def look(opened: Ledger, manifest: Manifest | None = None, *, write_down: bool = True) -> tuple[tuple[str, ...], Taken]:
    """The contents that are listed, and how many documents there are."""
    found, taken = take(manifest or write(), opened, write=write_down)
    assert taken is not None
    return found.ids, taken


def known(opened: Ledger) -> dict[str, tuple[str, int]]:
    """Name of each document that the ledger knows -> its content, and whether it is gone."""
    with opened.transaction() as connection:
        rows = connection.execute(text("SELECT path, content, gone FROM documents ORDER BY id"))
        return {row.path.rpartition("/")[2]: (row.content, row.gone) for row in rows}


def test_unchanged_documents_are_known_again_and_gone_ones_come_back(tmp_path: Path) -> None:
    """A second look reads nothing, a name that is no text included; a document moved away and back is no new one."""
    (tmp_path / "m.yaml").write_text(MANIFEST.format(more=""))
    inbox = os.fsencode(tmp_path / "inbox")
    os.mkdir(inbox)  # noqa: PTH102 - names of bytes
    for number, name in enumerate(NAMES):
        path = inbox + b"/" + name
        with open(path, "wb") as file:  # noqa: PTH123 - as above
            file.write(b"%d" % number)
        os.utime(path, ns=(SETTLED_NS, SETTLED_NS))
    manifest = loading.load(str(tmp_path / "m.yaml"), environ={})

    with closing(ledger.open(tmp_path / "ledger.db")) as opened:

        def look() -> tuple[int, int, int]:
            found, taken = take(manifest, opened, write=True)
            assert taken is not None
            return taken.documents, len(found.ids), taken.read

        looks = [look(), look()]
        os.rename(inbox + b"/" + NAMES[1], tmp_path / "away")  # noqa: PTH104 - as above
        looks += [look(), look()]
        os.rename(tmp_path / "away", inbox + b"/" + NAMES[1])  # noqa: PTH104 - as above
        looks += [look(), look()]

    assert looks == [(5, 5, 5), (5, 5, 0), (4, 4, 0), (4, 4, 0), (5, 5, 0), (5, 5, 0)]


class TestTake:
    """What a folder holds, against what the ledger knows of it."""

    def test_a_manifest_without_documents_stays_as_it_is(self, opened: Ledger) -> None:
        """And nothing is said of them."""
        manifest = replace(write(), sources=None)
        with capture_logs() as logs:
            assert take(manifest, opened, write=True) == (manifest, None)
        assert logs == []

    def test_documents_are_listed_after_the_ids_that_the_manifest_names(self, opened: Ledger) -> None:
        """In the order of their paths; a folder that is empty one night is no mistake once it was looked at."""
        manifest, taken = take(write("file_ids: [x, y]"), opened, write=True)
        assert (manifest.ids, manifest.allow_empty) == (("x", "y", ONE, TWO, THREE), True)
        assert taken == Taken(3, 3, 3, {})
        assert known(opened) == {"a.txt": (ONE, 0), "b.txt": (TWO, 0), "c.txt": (THREE, 0)}

    def test_only_what_is_new_is_read(self, opened: Ledger, folder: Path) -> None:
        """It is listed after the others."""
        look(opened)
        put(folder / "inbox", {"a-new.txt": "brand new"})
        assert look(opened) == ((ONE, TWO, THREE, NEW), Taken(4, 4, 1, {}))
        assert look(opened) == ((NEW, ONE, TWO, THREE), Taken(4, 4, 0, {}))

    def test_documents_of_the_same_content_are_listed_once(self, opened: Ledger, folder: Path) -> None:
        """Whether they are read or known."""
        put(folder / "inbox", {"d.txt": "one", "e.txt": "one"})
        assert look(opened) == ((ONE, TWO, THREE), Taken(5, 3, 5, {}))
        assert look(opened) == ((ONE, TWO, THREE), Taken(5, 3, 0, {}))
        put(folder / "inbox", {"f.txt": "two"})
        assert look(opened) == ((ONE, TWO, THREE), Taken(6, 3, 1, {}))

    @pytest.mark.parametrize("changed", ["size", "time", "inode"])
    def test_a_document_that_changed_is_read_again(self, opened: Ledger, folder: Path, changed: str) -> None:
        """Its size, its time or the file that stands in its place tells."""
        look(opened)
        words = "longer" if changed == "size" else "six"
        put(folder, {"other": words})
        if changed == "inode":
            (folder / "other").replace(folder / "inbox/b.txt")
        else:
            (folder / "inbox/b.txt").write_text(words)
            later = SETTLED_NS + (changed == "time")
            os.utime(folder / "inbox/b.txt", ns=(later, later))
        assert look(opened) == ((ONE, THREE, content(words)), Taken(3, 3, 1, {}))
        assert known(opened)["b.txt"] == (content(words), 0)

    def test_a_renamed_document_is_no_other_content(self, opened: Ledger, folder: Path) -> None:
        """It is read, as its name is new; the old name is gone."""
        look(opened)
        (folder / "inbox/a.txt").rename(folder / "inbox/z.txt")
        assert look(opened) == ((TWO, THREE, ONE), Taken(3, 3, 1, {}))
        assert known(opened) == {"a.txt": (ONE, 1), "b.txt": (TWO, 0), "c.txt": (THREE, 0), "z.txt": (ONE, 0)}

    def test_who_comes_and_who_goes_is_recorded(self, opened: Ledger, folder: Path) -> None:
        """One that comes back while another goes included, and one that changes the same night."""
        inbox = folder / "inbox"
        look(opened)
        (inbox / "b.txt").rename(folder / "away")
        assert look(opened) == ((ONE, THREE), Taken(2, 2, 0, {}))
        assert known(opened) == {"a.txt": (ONE, 0), "b.txt": (TWO, 1), "c.txt": (THREE, 0)}
        (folder / "away").rename(inbox / "b.txt")
        (inbox / "a.txt").unlink()
        assert look(opened) == ((TWO, THREE), Taken(2, 2, 0, {}))
        assert known(opened) == {"a.txt": (ONE, 1), "b.txt": (TWO, 0), "c.txt": (THREE, 0)}
        put(inbox, {"b.txt": "brand new"})
        (inbox / "c.txt").unlink()
        assert look(opened) == ((NEW,), Taken(1, 1, 1, {}))
        assert known(opened) == {"a.txt": (ONE, 1), "b.txt": (NEW, 0), "c.txt": (THREE, 1)}

    def test_a_look_alone_records_nothing(self, opened: Ledger, folder: Path) -> None:
        """Not what is new, not what is gone or back, and no line in the log."""
        with capture_logs() as logs:
            assert look(opened, write_down=False) == ((ONE, TWO, THREE), Taken(3, 3, 3, {}))
            assert known(opened) == {}
        assert logs == []
        look(opened)
        (folder / "inbox/a.txt").rename(folder / "away")
        look(opened)
        before = known(opened)
        (folder / "away").rename(folder / "inbox/a.txt")
        (folder / "inbox/b.txt").unlink()
        put(folder / "inbox", {"c.txt": "brand new"})
        assert look(opened, write_down=False) == ((ONE, NEW), Taken(2, 2, 1, {}))
        assert known(opened) == before

    def test_what_is_passed_over_is_counted(self, opened: Ledger, folder: Path) -> None:
        """In the log too, the most frequent first."""
        put(folder / "inbox", {".d.txt": "4", "e.odd": "5", "f.odd": "6"})
        with capture_logs() as logs:
            _, taken = look(opened)
        assert taken == Taken(3, 3, 3, {"unsupported type": 2, "hidden": 1})
        assert list(taken.skipped) == ["unsupported type", "hidden"]
        counts = {"documents": 3, "contents": 3, "read": 3, "unsupported type": 2, "hidden": 1}
        assert logs == [{"event": "documents.found", "log_level": "info", **counts}]

    def test_what_changes_or_goes_while_it_is_read_is_left_for_the_next_run(
        self, opened: Ledger, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is no document of this one, and nothing is recorded of it."""
        put(folder / "inbox", {"d.txt": ""})

        def meanwhile() -> None:
            (folder / "inbox/a.txt").unlink()
            (folder / "inbox/b.txt").write_text("twenty")

        interrupt(monkeypatch, meanwhile)
        assert look(opened) == ((THREE,), Taken(1, 1, 1, {"empty": 1, "changed recently": 1, "unreadable": 1}))
        assert known(opened) == {"c.txt": (THREE, 0)}

    def test_where_the_sorted_documents_are_put_is_not_looked_in(self, opened: Ledger, folder: Path) -> None:
        """It may lie in the folder that they come from."""
        put(folder / "inbox/sorted", {"invoice/d.txt": "brand new"})
        assert look(opened)[0] == (ONE, TWO, THREE, NEW)
        assert look(opened, write("route: {into: inbox/sorted}"))[0] == (ONE, TWO, THREE)

    def test_manifests_know_their_own_documents(self, opened: Ledger) -> None:
        """The same folder is new to the next one."""
        look(opened)
        assert look(opened, replace(write(), name="other"))[1] == Taken(3, 3, 3, {})
        assert look(opened)[1].read == 0

    def test_unchanged_documents_are_compared_all_at_once(
        self, opened: Ledger, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """There may be a hundred thousand, and some that went long ago: no path of them is gone through by itself."""
        put(folder / "inbox", {"d.txt": "gone"})
        look(opened)
        (folder / "inbox/d.txt").unlink()
        look(opened)

        def go_through(path: str) -> str:
            raise AssertionError(path)

        monkeypatch.setattr(documents, "stored", go_through)
        assert look(opened) == ((ONE, TWO, THREE), Taken(3, 3, 0, {}))


@pytest.mark.parametrize(
    ("taken", "words"),
    [
        (Taken(0, 0, 0, {}), "0 documents"),
        (Taken(1, 1, 1, {}), "1 document"),
        (Taken(2000, 2000, 0, {}), "2,000 documents"),
        (Taken(3000, 2999, 5, {}), "3,000 documents, 1 of the same content as another"),
        (Taken(1, 1, 0, {"hidden": 1, "empty": 1200}), "1 document; passed over: 1,200 empty, 1 hidden"),
        (Taken(4, 2, 4, {"link": 1}), "4 documents, 2 of the same content as another; passed over: 1 link"),
    ],
)
def test_documents_in_words(taken: Taken, words: str) -> None:
    """For a person's screen."""
    assert taken.words == words


def interrupt(monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], None]) -> None:
    """Have *meanwhile* happen once the documents were found, and before they are read."""
    contents = hashing.contents

    def later(found: list[Found]) -> Iterator[tuple[Found, str | Skip]]:
        meanwhile()
        return contents(found)

    monkeypatch.setattr(hashing, "contents", later)


class Killed(BaseException):
    """The program is killed."""


class Reading:
    """Documents without end, each read in *seconds*, of which *until* are read before the program is killed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, until: int, seconds: float) -> None:
        self.now, self.until, self.seconds = 0.0, until, seconds
        monkeypatch.setattr(hashing, "contents", self.contents)
        monkeypatch.setattr(documents, "time", self)

    def monotonic(self) -> float:
        return self.now

    def time_ns(self) -> int:
        return SETTLED_NS + 3600 * 10**9

    def contents(self, _: list[Found]) -> Iterator[tuple[Found, str | Skip]]:
        for number in range(self.until):
            self.now += self.seconds
            yield Found(f"/{number}", 1, 1, 1), content(str(number))
        raise Killed


@pytest.mark.parametrize(
    ("seconds", "read", "recorded"),
    [
        (0.0, 4999, 0),
        (0.0, 5000, 5000),
        (0.0, 9999, 5000),
        (0.0, 10_000, 10_000),
        (0.5, 3, 0),
        (0.5, 4, 4),
        (0.5, 7, 4),
        (0.5, 8, 8),
        (3.0, 5, 5),
    ],
)
def test_a_killed_run_has_most_of_what_it_read_in_the_ledger(
    opened: Ledger, monkeypatch: pytest.MonkeyPatch, seconds: float, read: int, recorded: int
) -> None:
    """Every 5,000 documents or 2 seconds are recorded: the next one need not read them again."""
    Reading(monkeypatch, read, seconds)
    with pytest.raises(Killed):
        look(opened)
    assert len(known(opened)) == recorded


def test_all_batches_are_counted_and_listed_together(
    opened: Ledger, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However they are recorded; one that could not be read is in no batch, and in no other's place."""
    monkeypatch.setattr(documents, "RECORD_EVERY", 2)
    put(folder / "inbox", {"d.txt": "four", "e.txt": "five"})
    interrupt(monkeypatch, (folder / "inbox/b.txt").unlink)
    expected = (ONE, THREE, content("four"), content("five"))
    assert look(opened) == (expected, Taken(4, 4, 4, {"unreadable": 1}))
    assert Counter(known(opened).values()) == {(each, 0): 1 for each in expected}


class TestCalled:
    """A file by whatever a person calls it: each name becomes what the ledger has for it."""

    @pytest.fixture
    def ran(self, folder: Path) -> Manifest:
        """A run of documents and of a list with names."""
        put(folder / "inbox", {"deep/a.txt": "deep", "deep/d.txt": "deeper"})
        (folder / "list.csv").write_text(
            "file_id,name\nid-1,letter.pdf\nid-2,post/bill.pdf\nid-3,post/twice.pdf\nid-4,mail/twice.pdf\n"
            f"{UUID},upper.pdf\nid-5,c.txt\n"
        )
        manifest = write("file_ids_from: [list.csv]")
        with ledger.open(folder / "ledger.db") as opened:
            ready, _ = take(manifest, opened, write=True)
            with opened.transaction() as connection:
                made = plan(connection, ready, Options(), run_id="r", origin="api", now=NOW)
                uploads.there(connection, made.scope.manifest_id, ONE, "uploaded-1", ours=True, at=AT)
        return manifest

    @pytest.mark.parametrize(
        ("name", "meant"),
        [
            ("inbox/a.txt", ONE),
            ("./inbox/b.txt", TWO),
            ("b.txt", TWO),
            ("deep/d.txt", content("deeper")),
            ("d.txt", content("deeper")),
            ("letter.pdf", "id-1"),
            ("bill.pdf", "id-2"),
            ("post/twice.pdf", "id-3"),
            ("id-4", "id-4"),
            ("uploaded-1", ONE),
            (TWO, TWO),
            ("upper.pdf", "0b5a7c3e-1111-2222-3333-444455556666"),
            ("nobody", "nobody"),
            (".txt", ".txt"),
            ("", ""),
        ],
    )
    def test_a_path_a_name_or_an_id_is_the_file(self, ran: Manifest, folder: Path, name: str, meant: str) -> None:
        """An ID before a name; what nobody is called stays, for others to refuse."""
        assert called(ran, folder / "ledger.db", [name], rehearsal=False) == [meant]
        assert called(ran, folder / "ledger.db", [f"{folder}/inbox/c.txt", name], rehearsal=False) == [THREE, meant]

    def test_without_a_name_there_is_no_file(self, ran: Manifest, folder: Path) -> None:
        """Nor without a ledger any that could have a name."""
        assert called(ran, folder / "ledger.db", [], rehearsal=False) == []
        assert called(ran, folder / "absent.db", iter(["b.txt", "id-1"]), rehearsal=False) == ["b.txt", "id-1"]
        assert not (folder / "absent.db").exists()

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("a.txt", "2 documents have this name: {inbox}/a.txt, {inbox}/deep/a.txt; give the path"),
            ("twice.pdf", "2 files have this name: id-4 (mail/twice.pdf), id-3 (post/twice.pdf); give the ID"),
            (
                "c.txt",
                "2 files have this name: {inbox}/c.txt, id-5 (c.txt); give a document's path, or the ID",
            ),
        ],
    )
    def test_a_name_that_several_have_is_refused(self, ran: Manifest, folder: Path, name: str, words: str) -> None:
        """With all of them, and how to name one."""
        with pytest.raises(InputError) as caught:
            called(ran, folder / "ledger.db", ["b.txt", name], rehearsal=False)
        assert str(caught.value) == f"--file {name}: " + words.format(inbox=folder / "inbox")

    def test_a_path_through_a_link_or_another_folder_means_its_document(self, ran: Manifest, folder: Path) -> None:
        """However a person spells it: the ledger has it as the file system does."""
        (folder / "linked").symlink_to(folder / "inbox")
        for given in ("linked/b.txt", "inbox/../inbox/b.txt", "inbox/deep/../b.txt"):
            assert called(ran, folder / "ledger.db", [given], rehearsal=False) == called(
                ran, folder / "ledger.db", ["inbox/b.txt"], rehearsal=False
            )

    def test_documents_of_the_same_content_are_one_file(self, ran: Manifest, folder: Path) -> None:
        """Under one name or several; and a document that is gone has no name any more."""
        with ledger.open(folder / "ledger.db") as opened:
            put(folder / "inbox", {"other/d.txt": "deeper"})
            look(opened, ran)
            assert called(ran, folder / "ledger.db", ["d.txt"], rehearsal=False) == [content("deeper")]
            (folder / "inbox/a.txt").unlink()
            look(opened, ran)
        assert called(ran, folder / "ledger.db", ["a.txt"], rehearsal=False) == [content("deep")]

    def test_long_and_harmful_names_are_shown_harmless(self, opened: Ledger, folder: Path) -> None:
        """At most 200 characters of each path."""
        name = "x\u200b.txt"
        length = 201 - len(f"{folder}/inbox//x\\u200b.txt")
        put(folder / "inbox", {f"{'1' * length}/{name}": "1", f"{'2' * (length - 1)}/{name}": "2"})
        look(opened)
        with pytest.raises(InputError) as caught:
            called(write(), folder / "ledger.db", [name], rehearsal=False)
        whole = f"{folder}/inbox/{'2' * (length - 1)}/x\\u200b.txt"
        cut = f"{folder}/inbox/{'1' * length}/x\\u200b.tx"[:199] + "…"
        assert (len(whole), len(cut)) == (200, 200)
        assert str(caught.value) == (f"--file x\\u200b.txt: 2 documents have this name: {cut}, {whole}; give the path")

    def test_another_manifests_files_are_not_meant(self, ran: Manifest, folder: Path) -> None:
        """Nor are a real run's in a rehearsal that has had none."""
        other = replace(ran, name="other")
        for manifest, rehearsal in ((other, False), (ran, True)):
            assert called(manifest, folder / "ledger.db", ["uploaded-1"], rehearsal=rehearsal) == ["uploaded-1"]
        assert called(other, folder / "ledger.db", ["b.txt"], rehearsal=False) == ["b.txt"]

    def test_a_name_that_is_no_text_is_found(self, opened: Ledger, folder: Path) -> None:
        """As the shell gives it."""
        name = os.fsdecode(b"caf\xe9.txt")
        put(folder / "inbox", {name: "4"})
        look(opened)
        for given in (name, f"inbox/{name}"):
            assert called(write(), folder / "ledger.db", [given], rehearsal=False) == [content("4")]

    def test_an_older_ledger_is_not_brought_up_to_date(self, ran: Manifest, folder: Path) -> None:
        """To look for a name writes nothing."""
        with ledger.open(folder / "ledger.db") as opened, opened.transaction() as connection:
            version = int(connection.execute(text("PRAGMA user_version")).scalar_one())
            connection.execute(text("ALTER TABLE manifests DROP COLUMN told"))
            connection.execute(text(f"PRAGMA user_version = {version - 1}"))
        with pytest.raises(LedgerError, match=r"^the ledger is of an older version"):
            called(ran, folder / "ledger.db", ["b.txt"], rehearsal=False)
