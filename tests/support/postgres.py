"""A real PostgreSQL for the tests: Debian's, started once in each process that asks for it, with a database for a test.

Import the fixtures into a conftest.py: ``from support.postgres import database, postgres_server``.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

import pytest

MISSING = "PostgreSQL's server is missing; install it: apt-get install postgresql"

#: The role that owns everything; there is no password.
ROLE = "ledger"


@dataclass(frozen=True)
class Postgres:
    """A running server. Its data is gone with it."""

    programs: Path
    folder: Path
    port: int

    def url(self, database: str = "postgres", role: str = ROLE) -> str:
        return f"postgresql://{role}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"t{secrets.token_hex(6)}"
        self.sql(f"CREATE DATABASE {name}")
        return self.url(name)

    def sql(self, *statements: str, database: str = "postgres") -> str:
        """What psql prints of *statements*, each a transaction of its own; columns with | between."""
        commands = [argument for statement in statements for argument in ("-c", statement)]
        done = subprocess.run(
            [str(self.programs / "psql"), "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", self.url(database), *commands],
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def call(self, program: str, *arguments: str) -> None:
        """Call one of its programs on its data, as the user that may."""
        subprocess.run(
            [str(self.programs / program), "-D", str(self.folder / "data"), *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self.folder,
            user=_user().pw_uid if os.geteuid() == 0 else None,
        )

    def start(self) -> None:
        options = (
            f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories={self.folder} "
            "-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c max_connections=200"
        )
        self.call("pg_ctl", "start", "--wait", "-l", str(self.folder / "log"), "-o", options)

    def stop(self, mode: str = "fast") -> None:
        self.call("pg_ctl", "stop", "--wait", "-m", mode)

    def crash(self) -> None:
        """Kill one of its processes, as the kernel does when memory is short: every session ends, then it goes on."""
        pid = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)

    def wait(self) -> None:
        """Return once it answers again after a crash; one that gives up while it recovers is started."""
        ready = [str(self.programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        until = monotonic() + 60
        while subprocess.run(ready, check=False).returncode != 0:
            try:
                self.call("pg_ctl", "status")
            except subprocess.CalledProcessError:
                self.start()
            if monotonic() > until:
                raise AssertionError("the server does not come back")
            sleep(0.1)


def programs() -> Path | None:
    """The folder of the newest server's programs; None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    named = shutil.which("initdb")
    return Path(named).resolve().parent if named else None


def _user() -> pwd.struct_passwd:
    """The user that the server runs as: it refuses to be root."""
    return pwd.getpwnam("nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name)


def owned_by_the_server(path: Path) -> None:
    os.chown(path, _user().pw_uid, _user().pw_gid)


def yet_to_be_made(where: Path) -> Postgres:
    """A server with an empty folder and a free port; *where* its programs are."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    owned_by_the_server(folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return Postgres(where, folder, int(probe.getsockname()[1]))


@contextmanager
def running(where: Path) -> Iterator[Postgres]:
    """A new server for as long as the block runs; *where* its programs are."""
    server = yet_to_be_made(where)
    folder = server.folder
    try:
        server.call("initdb", f"--username={ROLE}", "--auth=trust", "--locale=C", "--encoding=UTF8", "--no-sync")
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """The server of this process's tests; without PostgreSQL they are skipped."""
    where = programs()
    if where is None:
        pytest.skip(MISSING)
    with running(where) as server:
        yield server


@pytest.fixture
def database(postgres_server: Postgres) -> str:
    """The URL of an empty database."""
    return postgres_server.new_database()
