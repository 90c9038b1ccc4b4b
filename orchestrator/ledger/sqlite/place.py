"""Where a ledger stands: the files that it is made of, opened so that nobody else's can take their place."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sqlalchemy import Connection

from orchestrator.errors import LedgerError, SettingsError
from orchestrator.ledger.database import Room, no_ledger
from orchestrator.ledger.sqlite import witness as witnesses

#: SQLite's WAL "does not work over a network filesystem" (sqlite.org/wal.html), and neither do kernel locks reliably.
NETWORK_FILE_SYSTEMS = frozenset({
    "9p", "afs", "ceph", "cifs", "fuse.ceph", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs",
    "glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3", "smbfs",
})  # fmt: skip
#: What is mounted where.
MOUNTS = Path("/proc/self/mountinfo")
#: What SQLite puts beside the database.
COMPANIONS = ("-wal", "-shm")


@dataclass(frozen=True, slots=True)
class Held:
    """A file that has to stay where it was opened: what was written to another one would be lost, or meant for it."""

    path: Path
    identity: tuple[int, int]

    @classmethod
    def of(cls, path: Path, found: os.stat_result) -> Self:
        return cls(path, (found.st_dev, found.st_ino))

    @property
    def in_place(self) -> bool:
        try:
            return self.of(self.path, self.path.stat()) == self
        except OSError:
            return False

    @property
    def fresh(self) -> bool:
        """The kernel takes no lock from a process that lives."""
        return True

    @property
    def took_over(self) -> bool:
        return False

    @property
    def replaced(self) -> bool:
        """An older copy of the ledger is refused as soon as it is opened."""
        return False

    def settle(self, connection: Connection) -> None:
        pass


def room(path: Path) -> Room:
    folder = next(folder for folder in path.absolute().parents if folder.exists())  # a run makes the missing ones
    if not folder.is_dir():
        return Room(f"{path}: {folder} is not a folder", 0)
    free = shutil.disk_usage(folder).free
    return Room(None if os.access(folder, os.W_OK) else f"{path}: {folder} can't be written to", free)


def locate(option: str) -> Path:
    """The file that a ``--ledger`` or ``ORCHESTRATOR_LEDGER`` value names. Raises SettingsError for other databases."""
    location = option.removeprefix("sqlite:///")
    if "://" in location:
        raise SettingsError(f"--ledger {location.split('://')[0]}://…: only a path or sqlite:///PATH is supported")
    if not location:
        raise SettingsError("--ledger is empty; give a path")
    if Path(location).name in ("", ".."):
        raise SettingsError(f"--ledger {location} is a folder; give a file")
    if Path(location).is_symlink():  # the locks and SQLite's companions are beside the file itself
        return Path(os.path.realpath(location))
    return Path(location)


def exists(path: Path) -> bool:
    """Whether something is at *path*; an empty file is no ledger."""
    return path.exists() and not (path.is_file() and path.stat().st_size == 0)


def require(path: Path) -> None:
    """Raises LedgerError when nothing is at *path*: for commands to which an empty ledger would be of no use."""
    refuse_gone(path)
    if not exists(path):
        raise no_ledger(path)


def refuse_gone(path: Path) -> None:
    """Raises LedgerError when a ledger was at *path*: an empty one would have everything bought again."""
    lock = witness(path)
    if lock.exists() and not path.exists():
        raise LedgerError(
            f"{path}: the ledger that was here is gone; put it back, or rebuild it from the API with "
            f"`orchestrator adopt`; to pay for everything again, remove {lock.name} too"
        )
    if not exists(path) and (problem := witnesses.problem(lock, witnesses.read(lock), None)):
        raise LedgerError(f"{path}: {problem}")


def witness(path: Path) -> Path:
    """The lock of all writers, made after the ledger and never removed by us."""
    return path.with_name(path.name + ".write-lock")


def open_lock(path: Path) -> int:
    """A lock file's descriptor: ours alone, never through a link, closed on exec so that no child keeps the lock."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        os.close(descriptor)
        raise LedgerError(f"{path}: not a plain file of its own; remove it")
    return descriptor


def create_private(path: Path) -> None:
    """Create the database file 0600, so that SQLite's companions inherit the mode; leave an existing one alone."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        if not path.is_file():
            raise LedgerError(f"{path}: not a plain file") from None
        if path.stat().st_nlink > 1:  # each name would have locks of its own, and two runs would buy everything twice
            raise LedgerError(f"{path}: the ledger has another name (a hard link); remove one of them") from None
        for name in (path, *(path.with_name(path.name + companion) for companion in COMPANIONS)):
            if name.exists() and name.stat().st_mode & 0o077:
                name.chmod(0o600)


def refuse_mount(path: Path) -> None:
    """Raises LedgerError for a *path* whose disk is in another machine, or that is itself mounted from elsewhere.

    A file that is mounted alone has a second name, and what SQLite and the locks put beside either is not beside the
    other: two runs would buy everything twice, and what a killed one left in its log would be passed over.
    """
    try:
        mounts = MOUNTS.read_bytes()
    except OSError:  # not Linux: nothing to go by
        return
    kind = file_system(mounts, path.absolute().parent.resolve())
    if kind in NETWORK_FILE_SYSTEMS:
        raise LedgerError(f"{path}: on a network file system ({kind}), where SQLite can lose data; use a local disk")
    if is_mounted(mounts, path.absolute().parent.resolve() / path.name):
        raise LedgerError(
            f"{path}: the ledger is mounted as a single file, without its log and locks; mount its folder instead"
        )


def _mount_points(mounts: bytes) -> Iterator[tuple[Path, list[bytes]]]:
    """Each line's mount point, which need not be text, and its fields."""
    for fields in (line.split(b" ") for line in mounts.split(b"\n") if line):
        yield Path(os.fsdecode(_unescaped(fields[4]))), fields


def is_mounted(mounts: bytes, path: Path) -> bool:
    """Whether something is mounted just at *path*, by the kernel's table of *mounts*."""
    return any(point == path for point, _ in _mount_points(mounts))


def file_system(mounts: bytes, folder: Path) -> str:
    """The kind of file system that *folder* is on, by the kernel's table of *mounts*."""
    kinds = [
        (len(point.parts), os.fsdecode(fields[fields.index(b"-") + 1]))
        for point, fields in _mount_points(mounts)
        if folder.is_relative_to(point)
    ]
    return max(kinds, key=lambda kind: kind[0], default=(0, ""))[1]


def _unescaped(field: bytes) -> bytes:
    """The kernel writes spaces, tabs, line breaks, ``\\`` and ``#`` as octal numbers."""
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8) & 0xFF]), field)


def read_only_mode(path: Path) -> str:
    """How to open *path* for reading: without write access SQLite reads a WAL ledger only if nobody can write."""
    writable = os.access(path.absolute().parent, os.W_OK, effective_ids=True)
    # What a killed run left in the WAL would be passed over: then SQLite must find its own way, or fail.
    return "mode=ro" if writable or path.with_name(path.name + "-wal").exists() else "mode=ro&immutable=1"


def uri_path(path: Path) -> str:
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
