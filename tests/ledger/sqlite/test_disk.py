"""A ledger that can't be written or read: exit 8, nothing sent that it does not know of, and a clean recovery."""

from __future__ import annotations

import errno
import os
import resource
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from support.api_server import answer_to
from support.procs import ORCHESTRATOR, ApiServer, Run, environment, read_ledger, run, wait_until, write_manifest

from orchestrator.cli import console
from orchestrator.errors import ExitCode
from orchestrator.ledger.sqlite import place

FILES = [f"f{i}" for i in range(120)]
TOO_LARGE = os.strerror(errno.EFBIG)
AS_ROOT = os.geteuid() == 0


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer() as server:
        yield server


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return write_manifest(tmp_path, FILES)


def no_larger_than(size: int) -> Callable[[], None]:
    """In the child: files may grow to *size* bytes, then writing fails, as it does on a full disk."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def limited(url: str) -> dict[str, str]:
    """A child that may not write must not write half a bytecode file into the installation either."""
    return environment(url, PYTHONDONTWRITEBYTECODE="1")


def assert_complete(server: ApiServer, ledger: Path, files: list[str] = FILES, *, posts: int = 12) -> None:
    """Each file has its outcome, and was bought once."""
    state, stats = read_ledger(ledger), server.stats()
    assert state.integrity == "ok"
    assert state.outcomes == {file_id: answer_to(file_id)["type"] for file_id in files}
    assert (state.open, stats.twice, stats.posts) == (frozenset(), [], posts)


@pytest.mark.parametrize(
    ("api", "jobs", "sizes"),
    [
        ("v1", 12, (4_000, 90_000, 125_000, 130_000, 140_000, 160_000, 185_000)),
        ("v2", 40, (240_000, 270_000, 300_000)),
    ],
)
def test_wherever_the_disk_fills_up_nothing_unrecorded_is_sent(
    server: ApiServer, tmp_path: Path, api: str, jobs: int, sizes: tuple[int, ...]
) -> None:
    """Each run gets a little further before writing fails; every job the server made is one the ledger knows of."""
    files = FILES if api == "v1" else FILES[:jobs]
    manifest = write_manifest(tmp_path, files, api=api)
    ledger, codes = manifest.with_name("ledger.db"), []
    for size in sizes:
        ended = run(manifest, limited(server.url), before=no_larger_than(size))
        codes.append(ended.code)
        state, created = read_ledger(ledger), server.stats().created
        assert state.integrity == "ok"
        assert created.keys() <= state.intents
        assert "Traceback" not in ended.err
    # How much a run writes depends on its timing: the last ones may just get through.
    assert set(codes) <= {ExitCode.LEDGER, ExitCode.OK}
    assert codes.count(ExitCode.LEDGER) > len(sizes) // 2
    assert server.stats().posts > 0, "the disk was full from the start: the test shows nothing"
    assert run(manifest, environment(server.url)).code == ExitCode.OK
    # On v2 a call whose answer could not be recorded is sent again, under the same key.
    assert_complete(server, ledger, files, posts=jobs if api == "v1" else server.stats().posts)
    assert len(server.stats().jobs) == jobs


def test_not_even_a_byte_left_is_reported_as_such(server: ApiServer, manifest: Path) -> None:
    """The very first write, the name of the holder in the lock, fails: exit 8 with the file's name, nothing sent."""
    done = subprocess.run(
        [*ORCHESTRATOR, "run", str(manifest)],
        env=limited(server.url),
        preexec_fn=no_larger_than(0),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, server.stats().posts) == (ExitCode.LEDGER, 0)
    assert done.stderr.splitlines() == [
        f"orchestrator: {manifest.with_name('ledger.db.night.lock')}: {TOO_LARGE}".encode()
    ]


@contextmanager
def small_disk(at: Path, size_kb: int) -> Iterator[Path]:
    """A file system of its own, mounted at *at*."""
    at.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={size_kb}k,mode=700", "tmpfs", str(at)]
    if not AS_ROOT or subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
        pytest.skip("may not mount a file system here")
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


def remount(at: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(at)], check=True)


def test_a_full_disk_stops_the_run_until_there_is_space(server: ApiServer, manifest: Path) -> None:
    """A real ENOSPC: exit 8 with SQLite's words, and the next run goes on once there is space."""
    with small_disk(manifest.with_name("disk"), 128) as disk:
        full = run(manifest, environment(server.url), "--ledger", str(disk / "ledger.db"))
        assert full.code == ExitCode.LEDGER
        assert "full" in full.summary["reason"]
        assert server.stats().created.keys() <= read_ledger(disk / "ledger.db").intents
        remount(disk, "size=8m")
        assert run(manifest, environment(server.url), "--ledger", str(disk / "ledger.db")).code == ExitCode.OK
        assert_complete(server, disk / "ledger.db")


def test_a_disk_that_became_read_only_stops_the_run(server: ApiServer, manifest: Path) -> None:
    """As a failing disk is remounted by the kernel: exit 8, nothing sent; what is there can be looked at."""
    with small_disk(manifest.with_name("disk"), 8192) as disk:
        assert run(manifest, environment(server.url), "--ledger", str(disk / "ledger.db")).code == ExitCode.OK
        posts = server.stats().posts
        write_manifest(manifest.parent, [*FILES, "new"])
        remount(disk, "ro")
        ended = run(manifest, environment(server.url), "--ledger", str(disk / "ledger.db"))
        assert (ended.code, server.stats().posts) == (ExitCode.LEDGER, posts)
        assert "Read-only file system" in ended.summary["reason"]
        for look in ("status", "export"):
            looked = subprocess.run([*ORCHESTRATOR, look, "--ledger", str(disk / "ledger.db")], check=False)
            assert looked.returncode == ExitCode.OK


@pytest.mark.skipif(AS_ROOT, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_stops_the_run(server: ApiServer, manifest: Path) -> None:
    """Exit 8, nothing sent."""
    manifest.parent.chmod(0o500)
    try:
        ended = run(manifest, environment(server.url))
    finally:
        manifest.parent.chmod(0o700)
    assert (ended.code, server.stats().posts) == (ExitCode.LEDGER, 0)


def tear_the_middle(ledger: Path) -> None:
    """Overwrite a quarter of the file."""
    size = ledger.stat().st_size
    with ledger.open("r+b") as file:
        file.seek(size // 4)
        file.write(b"\xa5" * (size // 4))


def cut_short(ledger: Path) -> None:
    os.truncate(ledger, ledger.stat().st_size // 2)


def overwrite_with_text(ledger: Path) -> None:
    ledger.write_text("this is no database\n" * 100)


def put_a_folder(ledger: Path) -> None:
    ledger.unlink()
    ledger.mkdir()


def put_another_database(ledger: Path) -> None:
    ledger.unlink()
    with closing(sqlite3.connect(ledger)) as connection:
        connection.execute("CREATE TABLE somebody_elses (x)")


def make_newer(ledger: Path) -> None:
    with closing(sqlite3.connect(ledger)) as connection:
        connection.execute("PRAGMA user_version = 99")


@pytest.fixture(scope="module")
def good() -> Iterator[tuple[ApiServer, bytes]]:
    """A server, and the ledger of a run that has submitted everything to it and collected nothing."""
    with ApiServer() as server, TemporaryDirectory() as folder:
        manifest = write_manifest(Path(folder), FILES)
        assert run(manifest, environment(server.url), "--no-wait").code == ExitCode.UNFINISHED
        yield server, manifest.with_name("ledger.db").read_bytes()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (tear_the_middle, ""),
        (cut_short, ""),
        (overwrite_with_text, "not a database"),
        (put_a_folder, "not a plain file"),
        (put_another_database, "not a ledger"),
        (make_newer, "upgrade orchestrator"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_ledger_that_cannot_be_trusted_stops_the_run(
    good: tuple[ApiServer, bytes], manifest: Path, damage: Callable[[Path], None], words: str
) -> None:
    """Exit 8 in one line that says why, nothing sent, and the file is left as it was found."""
    server, content = good
    ledger = manifest.with_name("ledger.db")
    ledger.write_bytes(content)
    damage(ledger)
    bad = ledger.read_bytes() if ledger.is_file() else None
    ended = run(manifest, environment(server.url))
    assert (ended.code, server.stats().posts) == (ExitCode.LEDGER, 12)
    assert words in ended.summary["reason"]
    assert (ended.err.count("\n"), "Traceback" in ended.err) == (1, False)
    assert bad == (ledger.read_bytes() if ledger.is_file() else None)


def test_with_a_copy_put_back_the_work_goes_on(good: tuple[ApiServer, bytes], manifest: Path) -> None:
    """A copy of the ledger, even in another folder, knows what was sent: it is collected, and nothing is bought."""
    server, content = good
    manifest.with_name("ledger.db").write_bytes(content)
    assert run(manifest, environment(server.url)).code == ExitCode.OK
    assert_complete(server, manifest.with_name("ledger.db"))


def test_a_folder_in_place_of_the_lock_stops_the_run(server: ApiServer, manifest: Path) -> None:
    """Exit 8, nothing sent."""
    manifest.with_name("ledger.db.night.lock").mkdir()
    ended = run(manifest, environment(server.url))
    assert (ended.code, server.stats().posts) == (ExitCode.LEDGER, 0)
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("full", "code"), [("stdout", ExitCode.LEDGER), ("stderr", ExitCode.OK)], ids=["results", "log"]
)
def test_a_full_disk_under_the_output_does_not_stop_the_work(
    server: ApiServer, manifest: Path, full: str, code: ExitCode
) -> None:
    """What was asked for and can't be printed is told by exit 8, a lost log by nothing; every file has its outcome."""
    with Path("/dev/full").open("wb") as nowhere:
        done = subprocess.run(
            [*ORCHESTRATOR, "run", str(manifest), "--json"],
            env=environment(server.url),
            stdout=nowhere if full == "stdout" else subprocess.DEVNULL,
            stderr=nowhere if full == "stderr" else subprocess.DEVNULL,
            check=False,
        )
    assert done.returncode == code
    assert_complete(server, manifest.with_name("ledger.db"))


def working(server: ApiServer, manifest: Path) -> Run:
    """A run that has some of its twelve jobs made, while the others wait for their turn."""
    started = Run(manifest, environment(server.url, ORCHESTRATOR_CREATES_PER_S="8"))
    wait_until(lambda: server.stats().posts >= 3, what="some create calls")
    return started


def put_an_old_copy(ledger: Path) -> None:
    ledger.with_name("copy").touch(0o600)
    ledger.with_name("copy").replace(ledger)


@pytest.mark.parametrize("take_away", [Path.unlink, put_an_old_copy], ids=lambda value: value.__name__)
def test_a_ledger_that_is_taken_away_under_a_run_is_rescued(
    server: ApiServer, manifest: Path, take_away: Callable[[Path], None]
) -> None:
    """SQLite would not notice: the run ends with 8, sends no more, and leaves beside it all that the ledger held."""
    ledger = manifest.with_name("ledger.db")
    started = working(server, manifest)
    take_away(ledger)
    ended, posts = started.ended(), server.stats().posts
    assert (ended.code, "Traceback" in ended.err, posts < 12) == (ExitCode.LEDGER, False, True)
    (rescued,) = ledger.parent.glob("ledger.db.rescued-*")
    assert rescued.name in ended.summary["reason"]
    assert server.stats().created.keys() <= read_ledger(rescued).intents
    rescued.replace(ledger)
    assert run(manifest, environment(server.url)).code == ExitCode.OK
    assert_complete(server, ledger)


def test_a_ledger_whose_folder_is_moved_away_is_reported_as_such(server: ApiServer, manifest: Path) -> None:
    """Nothing can be saved where there is no folder; it is all in the moved one."""
    folder, moved = manifest.with_name("folder"), manifest.with_name("moved")
    started = Run(manifest, environment(server.url, ORCHESTRATOR_CREATES_PER_S="2"), "--ledger", "folder/ledger.db")
    wait_until(lambda: server.stats().posts >= 3, what="some create calls")
    folder.rename(moved)
    ended = started.ended()
    assert (ended.code, "could not be saved" in ended.summary["reason"]) == (ExitCode.LEDGER, True)
    moved.rename(folder)
    assert run(manifest, environment(server.url), "--ledger", "folder/ledger.db").code == ExitCode.OK
    assert_complete(server, folder / "ledger.db")


def test_a_ledger_that_is_gone_is_not_begun_again(server: ApiServer, manifest: Path) -> None:
    """An empty one would have everything bought again; whoever wants that removes what is left of the old one."""
    assert run(manifest, environment(server.url)).code == ExitCode.OK
    manifest.with_name("ledger.db").unlink()
    ended = run(manifest, environment(server.url))
    assert (ended.code, server.stats().posts) == (ExitCode.LEDGER, 12)
    assert "orchestrator adopt" in ended.summary["reason"]
    manifest.with_name("ledger.db.write-lock").unlink()
    assert run(manifest, environment(server.url)).code == ExitCode.OK


def test_a_run_whose_lock_is_removed_ends(server: ApiServer, manifest: Path) -> None:
    """The next run finds nothing to keep it out: the first one sends no more, and nothing is bought twice."""
    first = working(server, manifest)
    manifest.with_name("ledger.db.night.lock").unlink()
    second = run(manifest, environment(server.url))
    ended = first.ended()
    assert (ended.code, second.code) == (ExitCode.LEDGER, ExitCode.OK)
    assert "night.lock: removed" in ended.summary["reason"]
    assert_complete(server, manifest.with_name("ledger.db"))


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/home/x", "ext4"),
        ("/mnt/with space/x", "nfs4"),
        ("/mnt/a#b\tc\\d/x", "cifs"),
        ("/mnt/caf\udce9/x", "fuse.sshfs"),
    ],
)
def test_the_table_of_mounts_need_not_be_text(folder: str, kind: str) -> None:
    """The kernel writes some characters as octal numbers, and a path of other bytes as it is."""
    mounts = (
        b"20 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        b"21 20 0:1 / /mnt/with\\040space rw - nfs4 host:/ rw\n"
        b"22 20 0:2 / /mnt/a\\043b\\011c\\134d rw shared:1 - cifs //host/a rw\n"
        b"23 20 0:3 / /mnt/caf\xe9 rw - fuse.sshfs host: rw\n"
    )
    assert place.file_system(mounts, Path(folder)) == kind


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files: allow this program more of them"),
        (PermissionError(errno.EACCES, "Permission denied", "x/.env"), "x/.env: Permission denied"),
        (OSError(errno.ENOSPC, "No space left"), "an output can't be written"),
    ],
)
def test_what_the_system_refuses_is_no_bug(error: OSError, words: str) -> None:
    """Wherever it is refused: 8 and a sentence, and no traceback."""
    refusal = console._refused_by_the_system(error)
    assert (words in str(refusal), refusal and refusal.exit_code) == (True, ExitCode.LEDGER)
    assert console._refused_by_the_system(OSError(errno.EBADF, "Bad file descriptor")) is None


def test_too_few_open_files_end_in_8(tmp_path: Path) -> None:
    """`ulimit -n 12` leaves the event loop without a pipe of its own: it ended in a traceback and 70."""
    manifest = write_manifest(tmp_path, ["a"])
    ended = run(
        manifest,
        environment("http://127.0.0.1:9"),
        before=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (12, 12)),
    )
    assert (ended.code, ended.summary["exit_code"]) == (ExitCode.LEDGER, ExitCode.LEDGER)
    assert not any(words in ended.err for words in ("Traceback", "never awaited"))
