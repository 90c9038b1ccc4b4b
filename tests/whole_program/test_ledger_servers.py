"""The program and the servers that people keep ledgers on: an encrypted one whose name is checked, and a standby."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest
import trustme
from support.commands import Cli
from support.moody import Moody
from support.postgres import Postgres, owned_by_the_server, yet_to_be_made


@pytest.fixture
def authority(postgres_server: Postgres, tmp_path: Path) -> Iterator[Path]:
    """The certificate of the authority that the server's own comes from; meanwhile the server speaks TLS."""
    authority = trustme.CA()
    _certificate(authority, tmp_path / "authority.pem")
    leaf = authority.issue_cert("127.0.0.1")
    data = postgres_server.folder / "data"
    leaf.private_key_pem.write_to_path(data / "server.key")
    leaf.cert_chain_pems[0].write_to_path(data / "server.crt")
    for name in ("server.key", "server.crt"):
        (data / name).chmod(0o600)
        owned_by_the_server(data / name)
    postgres_server.sql("ALTER SYSTEM SET ssl = on")
    postgres_server.call("pg_ctl", "reload")
    try:
        yield tmp_path / "authority.pem"
    finally:
        postgres_server.sql("ALTER SYSTEM RESET ssl")
        postgres_server.call("pg_ctl", "reload")


def _certificate(authority: trustme.CA, path: Path) -> None:
    path.touch(0o600)
    authority.cert_pem.write_to_path(path)


def verified(database: str, authority: Path) -> str:
    return f"{database}?sslmode=verify-full&sslrootcert={authority}"


def test_a_server_is_believed_by_its_certificate(
    cli: Cli, api: Moody, postgres_server: Postgres, database: str, authority: Path, tmp_path: Path
) -> None:
    """The right authority and name let a run through; another authority, or another name, and nothing is sent."""
    other = tmp_path / "other.pem"
    _certificate(trustme.CA(), other)
    cli.manifest("a", "b")
    until = monotonic() + 600
    while postgres_server.sql("SHOW ssl") != "on":  # a reload takes its time
        assert monotonic() < until
        sleep(0.02)
    misnamed = verified(database, authority).replace("127.0.0.1", "localhost")
    for refused in (verified(database, other), misnamed):
        done = cli("run", "m.yaml", ORCHESTRATOR_LEDGER=refused)
        assert done.returncode == 8, done.stderr
        assert "certificate" in done.stderr
    assert api.calls == 0
    done = cli("run", "m.yaml", ORCHESTRATOR_LEDGER=verified(database, authority))
    assert done.returncode == 0, done.stderr
    assert api.bought == {"a": 1, "b": 1}


@pytest.fixture
def standby(postgres_server: Postgres) -> Iterator[Postgres]:
    """A server that follows; it is made when it is started."""
    server = yet_to_be_made(postgres_server.programs)
    try:
        yield server
        server.stop("immediate")
    finally:
        shutil.rmtree(server.folder, ignore_errors=True)


def test_a_standby_shows_everything_and_sends_nothing(
    cli: Cli, api: Moody, postgres_server: Postgres, database: str, standby: Postgres
) -> None:
    """Looking ends in 0 there; a run ends in 8, and nothing leaves."""
    cli.manifest("a", "b")
    assert cli("run", "m.yaml", ORCHESTRATOR_LEDGER=database).returncode == 0
    source = ("-h", "127.0.0.1", "-p", str(postgres_server.port), "-U", "ledger")
    standby.call("pg_basebackup", *source, "-R", "-X", "stream", "-c", "fast", "--no-sync")
    standby.start()
    there = standby.url(database.rpartition("/")[2])
    for look in ("status", "export"):
        done = cli(look, "m.yaml", ORCHESTRATOR_LEDGER=there)
        assert done.returncode == 0, done.stderr
    cli.manifest("a", "b", "c")
    done = cli("run", "m.yaml", ORCHESTRATOR_LEDGER=there)
    assert done.returncode == 8, done.stderr
    assert api.bought == {"a": 1, "b": 1}
