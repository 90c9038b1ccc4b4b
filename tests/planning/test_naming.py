"""One name, one manifest: when a second file of a name is refused, and when a new name for a known file is told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection

from orchestrator.errors import InputError
from orchestrator.ledger import Ledger
from orchestrator.ledger.chunks.plan import stage
from orchestrator.manifest.loading import Manifest, load
from orchestrator.planning.naming import full_path, refuse_second, renamed_from
from orchestrator.planning.run import register

MANIFEST = """\
version: 1
name: m
rules: [{type: invoice, description: contains line items}]
"""

IDS = "file_ids: [a]"
LIST = "file_ids_from: [list.txt]"
STDIN = "file_ids_from: ['-']"
FOLDER = "documents_from: [inbox]"


@pytest.fixture
def connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    """Of a ledger in the working directory, which has the folders ``old`` and ``new``."""
    monkeypatch.chdir(tmp_path)
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    with Ledger(tmp_path / "ledger.db") as opened, opened.transaction() as connection:
        yield connection


def write(path: str, more: str = IDS, *, name: str = "m") -> Manifest:
    Path(path).write_text(MANIFEST.replace("name: m", f"name: {name}") + more)
    return load(path, environ={})


def ran(connection: Connection, manifest: Manifest, *, rehearsal: bool = False) -> None:
    """A run of *manifest* has been planned, of no files."""
    stage(connection, [])
    register(connection, manifest, rehearsal=rehearsal, origin="api")


def refusal(connection: Connection, manifest: Manifest, *, rehearsal: bool = False) -> str | None:
    """Why *manifest* is refused; None when it is not."""
    try:
        refuse_second(connection, manifest, rehearsal=rehearsal)
    except InputError as error:
        return str(error)
    return None


def words(how: str, known: str = "old/m.yaml") -> str:
    return (
        f"this ledger knows the name 'm' from {Path.cwd() / known}, which is still there and {how}; "
        "give this one another `name` or another --ledger, or, if it takes the other's place, remove that file"
    )


DIFFERS = "differs from new/m.yaml"


def test_a_name_that_the_ledger_does_not_know_is_free(connection: Connection) -> None:
    """Nor does another name beside it take it."""
    ran(connection, write("old/m.yaml", name="other"))
    assert refusal(connection, write("new/m.yaml")) is None


def test_a_manifest_may_change_in_its_place(connection: Connection) -> None:
    """However its path is written, and even while a run begins."""
    ran(connection, write("old/m.yaml"))
    changed = write("old/m.yaml", "file_ids: [a, b]")
    assert refusal(connection, changed) is None
    assert refusal(connection, load(f"{Path.cwd()}/new/../old/m.yaml", environ={})) is None
    write("old/m.yaml", "file_ids: [c]")
    assert refusal(connection, changed) is None


def test_another_manifest_of_the_name_is_refused(connection: Connection) -> None:
    """As long as the first one is there."""
    ran(connection, write("old/m.yaml"))
    second = write("new/m.yaml", "file_ids: [b]")
    assert refusal(connection, second) == words(DIFFERS)
    Path("old/m.yaml").unlink()
    assert refusal(connection, second) is None


def test_a_manifest_that_was_moved_or_copied_goes_on(connection: Connection) -> None:
    """The same bytes are the same manifest; once one of the two is edited, it is another."""
    ran(connection, write("old/m.yaml"))
    copy = write("new/m.yaml")
    assert refusal(connection, copy) is None
    write("old/m.yaml", "file_ids: [a, b]")
    assert refusal(connection, copy) == words(DIFFERS)


def test_a_rehearsal_has_names_of_its_own(connection: Connection) -> None:
    """It may well be of a draft beside the real one."""
    ran(connection, write("old/m.yaml"))
    draft = write("new/m.yaml", "file_ids: [b]")
    assert refusal(connection, draft, rehearsal=True) is None
    ran(connection, draft, rehearsal=True)
    assert refusal(connection, draft) == words(DIFFERS)
    assert refusal(connection, load("old/m.yaml", environ={}), rehearsal=True) == words(
        "differs from old/m.yaml", "new/m.yaml"
    )


def test_a_known_path_that_is_no_file_any_more_is_no_other_manifest(connection: Connection) -> None:
    """A folder of the name, or what can't be opened at all."""
    ran(connection, write("old/m.yaml"))
    Path("old/m.yaml").unlink()
    Path("old/m.yaml").mkdir()
    assert refusal(connection, write("new/m.yaml", "file_ids: [b]")) is None


def test_a_known_path_that_no_system_takes_is_no_other_manifest(connection: Connection) -> None:
    """As one that came with a ledger from elsewhere, or that is not text there."""
    ran(connection, write("old/m.yaml"))
    connection.exec_driver_sql("UPDATE manifests SET path = '/with' || char(0) || 'zero.yaml'")
    assert refusal(connection, write("new/m.yaml", "file_ids: [b]")) is None


class TestCopyBesideOtherFiles:
    """The same manifest in two folders means two things, when what it names is beside it and differs."""

    @pytest.mark.parametrize(("content", "refused"), [("a\nb\n", False), ("a\nc\n", True), ("a\nb\nc\n", True)])
    def test_a_list_of_other_content(self, connection: Connection, content: str, refused: bool) -> None:
        """Its size and its time may be the same: what is in it counts."""
        for folder, text in (("old", "a\nb\n"), ("new", content)):
            Path(f"{folder}/list.txt").write_text(text)
            os.utime(f"{folder}/list.txt", ns=(0, 0))
        ran(connection, write("old/m.yaml", LIST))
        expected = words("names another list.txt than new/m.yaml does") if refused else None
        assert refusal(connection, write("new/m.yaml", LIST)) == expected

    @pytest.mark.parametrize("gone", ["old", "new"])
    def test_a_list_that_is_missing_beside_one_of_them(self, connection: Connection, gone: str) -> None:
        """Then it is no other one; the run says itself that it can't be read."""
        for folder in ("old", "new"):
            Path(f"{folder}/list.txt").write_text(folder)
        ran(connection, write("old/m.yaml", LIST))
        copy = write("new/m.yaml", LIST)
        Path(f"{gone}/list.txt").unlink()
        assert refusal(connection, copy) is None

    def test_the_second_of_two_lists(self, connection: Connection) -> None:
        """It is the one that is named; standard input is beside neither."""
        for folder in ("old", "new"):
            Path(f"{folder}/-").write_text(folder)
            Path(f"{folder}/one.txt").write_text("a\n")
            Path(f"{folder}/two.txt").write_text(f"{folder}\n")
        lists = "file_ids_from: ['-', one.txt, two.txt]"
        ran(connection, write("old/m.yaml", lists))
        assert refusal(connection, write("new/m.yaml", lists)) == words("names another two.txt than new/m.yaml does")

    def test_standard_input_is_no_file_of_that_name(self, connection: Connection) -> None:
        """Even where there are such files."""
        for folder in ("old", "new"):
            Path(f"{folder}/-").write_text(folder)
        ran(connection, write("old/m.yaml", STDIN))
        assert refusal(connection, write("new/m.yaml", STDIN)) is None

    def test_a_list_that_both_name_by_its_full_path_is_one(self, connection: Connection) -> None:
        """Wherever the manifest is."""
        Path("list.txt").write_text("a\n")
        more = f"file_ids_from: ['{Path.cwd()}/list.txt']"
        ran(connection, write("old/m.yaml", more))
        assert refusal(connection, write("new/m.yaml", more)) is None

    def test_a_folder_of_the_same_name(self, connection: Connection) -> None:
        """Its documents are others, even when it is empty; without it the manifest was moved."""
        for folder in ("old", "new"):
            Path(f"{folder}/inbox").mkdir()
        ran(connection, write("old/m.yaml", FOLDER))
        copy = write("new/m.yaml", FOLDER)
        assert refusal(connection, copy) == words("names another inbox than new/m.yaml does")
        Path("old/inbox").rmdir()
        assert refusal(connection, copy) is None

    def test_a_link_to_the_same_folder_is_that_folder(self, connection: Connection) -> None:
        """And so is one that both name by its full path."""
        Path("old/inbox").mkdir()
        Path("new/inbox").symlink_to(Path.cwd() / "old" / "inbox")
        more = f"documents_from: [inbox, '{Path.cwd()}/old/inbox']"
        ran(connection, write("old/m.yaml", more))
        assert refusal(connection, write("new/m.yaml", more)) is None

    def test_the_second_of_two_folders(self, connection: Connection) -> None:
        """It is named as the manifest names it, harmless for a terminal."""
        Path("inbox").mkdir()
        for folder in ("old", "new"):
            Path(f"{folder}/a\u200bb").mkdir()
        more = f"documents_from: ['{Path.cwd()}/inbox', a\u200bb]"
        ran(connection, write("old/m.yaml", more))
        assert refusal(connection, write("new/m.yaml", more)) == words("names another a\\u200bb than new/m.yaml does")


class TestRenamed:
    """The name under which the ledger knows a file that has a new one."""

    def test_a_new_name_is_told_with_the_last_one(self, connection: Connection) -> None:
        """By the file's path, until a run has taken the new name."""
        ran(connection, write("old/m.yaml"))
        ran(connection, write("old/m.yaml", name="second"))
        third = write("old/m.yaml", name="third")
        assert renamed_from(connection, third, rehearsal=False) == "second"
        ran(connection, third)
        assert renamed_from(connection, third, rehearsal=False) is None

    def test_a_name_that_the_ledger_knows_is_not_new(self, connection: Connection) -> None:
        """A file may get the name of one that was there before."""
        ran(connection, write("old/m.yaml"))
        ran(connection, write("new/m.yaml", name="other"))
        Path("old/m.yaml").unlink()
        assert renamed_from(connection, write("new/m.yaml"), rehearsal=False) is None

    def test_a_new_file_had_no_name(self, connection: Connection) -> None:
        """Whatever others there are."""
        assert renamed_from(connection, write("new/m.yaml"), rehearsal=False) is None
        ran(connection, write("old/m.yaml"))
        assert renamed_from(connection, write("new/m.yaml", name="n"), rehearsal=False) is None

    def test_real_runs_and_rehearsals_know_names_of_their_own(self, connection: Connection) -> None:
        """A rehearsal under another name buys nothing again."""
        ran(connection, write("old/m.yaml"), rehearsal=True)
        renamed = write("old/m.yaml", name="n")
        assert renamed_from(connection, renamed, rehearsal=False) is None
        assert renamed_from(connection, renamed, rehearsal=True) == "m"


@pytest.mark.parametrize(
    "name", [os.fsdecode(b"caf\xe9.yaml"), "zero\u200bwidth.yaml", "new\nline.yaml", "back\\slash.yaml", "a\\x41.yaml"]
)
def test_a_known_manifest_whose_path_is_spelt_out_is_still_there(connection: Connection, name: str) -> None:
    """A second one of its name would be mixed with it."""
    ran(connection, write(name))
    assert "differs from" in (refusal(connection, write("other.yaml", "file_ids: [b]")) or "")


def test_a_path_through_another_folder_is_the_same(connection: Connection) -> None:
    """Unless a link leads elsewhere: a new name for the manifest is noticed all the same."""
    ran(connection, write("old/../m.yaml"))
    assert renamed_from(connection, write("m.yaml", name="n"), rehearsal=False) == "m"
    Path("link").symlink_to(Path.cwd() / "old/deep")
    Path("old/deep").mkdir()
    assert full_path(write("link/../m.yaml")) == f"{Path.cwd()}/link/../m.yaml"


def test_a_path_is_kept_in_full_and_as_text(connection: Connection) -> None:
    """A byte that is not text is spelt out, and such a manifest is its own on the next night too."""
    name = os.fsdecode(b"caf\xe9.yaml")
    manifest = write(name)
    assert full_path(manifest) == f"{Path.cwd()}/caf\\udce9.yaml"
    ran(connection, manifest)
    assert refusal(connection, write(name, "file_ids: [b]")) is None
