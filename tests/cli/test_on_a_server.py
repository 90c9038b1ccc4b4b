"""The command line with its ledger in PostgreSQL: the same nights, and what is said when the server can't be used."""

from __future__ import annotations

import json

import pytest
from support.commands import Classify, Cli, Serve, creates
from support.postgres import Postgres

from orchestrator import ledger


def test_a_night_and_what_looks_at_it(cli: Cli, serve: Serve, database: str) -> None:
    """plan, run, status, export, report, diff, doctor and logs find one ledger; the second run buys nothing."""
    server = serve(Classify())
    cli.use(server)
    cli.environ["ORCHESTRATOR_LEDGER"] = database
    assert json.loads(cli("plan", "m.yaml", "--json").stdout)["new"] == 3
    assert [cli("run", "m.yaml").returncode for _ in range(2)] == [0, 0]
    assert creates(server) == 1
    assert (cli.state()["files"], cli.state()["unfinished"]) == (3, 0)
    assert [row["file_id"] for row in cli.exported()] == ["a", "b", "c"]
    assert "<html" in cli("report", "m.yaml").stdout
    assert "sound" in cli("doctor", "m.yaml").stdout
    assert "the run ended" in cli("logs", "m.yaml").stdout
    assert not list(cli.folder.glob("ledger.db*"))


def test_what_a_person_decides_is_kept(cli: Cli, serve: Serve, database: str) -> None:
    """accept and retry write to the server too, and each command is named so that it finds it again."""
    server = serve(Classify())
    cli.use(server)
    done = cli("run", "m.yaml", "--ledger", database)
    assert done.returncode == 0
    assert f"--ledger {database}" in done.stdout
    cli.environ["ORCHESTRATOR_LEDGER"] = database
    assert cli("accept", "m.yaml", "--file", "a", "--type", "receipt").returncode == 0
    assert cli("retry", "m.yaml", "--file", "b").returncode == 0
    assert {row["file_id"]: row["type"] for row in cli.exported()} == {"a": "receipt", "b": "invoice", "c": "invoice"}
    assert creates(server) == 2


def test_a_nul_in_the_words_of_the_api_loses_no_outcome(cli: Cli, serve: Serve, database: str) -> None:
    """The server stores none: a mark stands in its place."""
    api = Classify()
    api.result = {"type": "invoice", "confidence": 0.9, "reasoning": "a\0b \\u0000"}
    cli.use(serve(api))
    cli.environ["ORCHESTRATOR_LEDGER"] = database
    assert cli("run", "m.yaml").returncode == 0
    assert {row["reasoning"] for row in cli.exported()} == {"a\ufffdb \\u0000"}


@pytest.mark.parametrize("command", [("run",), ("retry",), ("retry", "--file", "b", "--file", "c", "--file", "a")])
def test_results_that_come_late_are_taken_in(cli: Cli, serve: Serve, database: str, command: tuple[str, ...]) -> None:
    """By the next run or retry, which buys nothing, and every count is of what is there now."""
    api = Classify()
    api.result, good = None, api.result
    cli.use(serve(api))
    cli.environ["ORCHESTRATOR_LEDGER"] = database
    assert cli("run", "m.yaml").returncode == 1
    api.results["job-0"] = good
    assert cli(command[0], "m.yaml", *command[1:]).returncode == 0
    assert (cli.state()["classified"], cli.state()["failed"], len(api.jobs)) == (3, 0, 1)


def test_a_second_run_is_kept_out(cli: Cli, serve: Serve, database: str, postgres_server: Postgres) -> None:
    """Exit 4, in words that say who has the manifest; status says so too. Another manifest is free."""
    server = serve(Classify())
    cli.use(server)
    cli.environ["ORCHESTRATOR_LEDGER"] = database
    assert cli("run", "m.yaml").returncode == 0
    postgres_server.sql(
        "INSERT INTO paces VALUES ('p', 'elsewhere', 0, 20, extract(epoch FROM now()) + 3600)",
        database=database.rpartition("/")[2],
    )
    with ledger.lease(ledger.locate(database), "letters", {"command": "orchestrator run", "since": "02:00"}):
        done = cli("run", "m.yaml")
        assert done.returncode == 4
        assert "orchestrator run since 02:00 (epoch 2" in done.stderr
        assert ledger.holder(ledger.locate(database), "letters") is not None
        assert ledger.holder(ledger.locate(database), "others") is None
        for command in ("status", "doctor", "workers"):
            shown = " ".join(cli(command).stdout.split())
            assert "primary; role ledger may read, run and migrate" in shown, command
            assert "letters: held by pid" in shown, command
            assert "pace of elsewhere calls: 20.0/s, one process, next free slot in 0.0 s" in shown, command
            assert "orchestrator run since 02:00 (epoch 2, last heard of " in shown, command
        (claim,) = json.loads(cli("status", "--json").stdout)["server"]["claims"]
        assert (claim["manifest"], claim["epoch"], claim["held"]) == ("letters", 2, True)
    assert cli("run", "m.yaml").returncode == 0
    assert creates(server) == 1


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:open-sesame@127.0.0.1/db",
        "postgresql://127.0.0.1/db?password=open-sesame",
        "postgresql://127.0.0.1/db?open-sesame=1",
        "postgresql:open-sesame",
        "postgres://[open-sesame/db",
    ],
)
def test_a_url_that_cannot_be_used_is_not_repeated(cli: Cli, serve: Serve, url: str) -> None:
    """Exit 2, one line, nothing sent; what was typed may hold a password, so no output shows it."""
    server = serve(Classify())
    cli.use(server)
    done = cli("run", "m.yaml", "--ledger", url)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "open-sesame" not in done.stdout + done.stderr
    assert not server.seen


def test_a_server_that_is_away_stops_a_run_before_it_sends(cli: Cli, serve: Serve, unused_port: int) -> None:
    """Exit 8, in libpq's words on one line."""
    server = serve(Classify())
    cli.use(server)
    for command in ("run", "status"):
        done = cli(command, "m.yaml", "--ledger", f"postgresql://127.0.0.1:{unused_port}/db", PGPASSWORD="open-sesame")
        assert done.returncode == 8
        assert "refused" in done.stderr.splitlines()[-1]
        assert "open-sesame" not in done.stderr
    assert not server.seen


def test_a_role_that_may_not_write_sends_nothing(cli: Cli, serve: Serve, postgres_server: Postgres) -> None:
    """It may look; a run of its ends with exit 8. With what README asks for, and no more, it runs."""
    url = postgres_server.new_database()
    name = url.rpartition("/")[2]
    server = serve(Classify())
    cli.use(server)
    assert cli("run", "m.yaml", "--ledger", url).returncode == 0
    postgres_server.sql(
        f"CREATE ROLE r{name} LOGIN", f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO r{name}", database=name
    )
    reader = postgres_server.url(name, f"r{name}")
    assert cli("status", "--ledger", reader).returncode == 0
    assert cli("export", "--ledger", reader).returncode == 0
    cli.manifest("a", "b", "c", "d")
    done = cli("run", "m.yaml", "--ledger", reader)
    assert done.returncode == 8
    assert "permission denied" in done.stderr
    assert creates(server) == 1
    examined = cli("doctor", "--ledger", reader)
    assert examined.returncode == 8
    assert f"role r{name} may read: no run can write there" in " ".join(examined.stdout.split())
    postgres_server.sql(
        f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC",
        f"GRANT TEMPORARY ON DATABASE {name} TO r{name}",
        f"GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO r{name}",
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO r{name}",
        database=name,
    )
    assert cli("run", "m.yaml", "--ledger", reader).returncode == 0
    assert creates(server) == 2


def left_behind(cli: Cli, postgres_server: Postgres) -> tuple[str, str]:
    """Two ledgers after a night of a and b, each on a server of its own: the second lacks all that comes later."""
    before, after = (postgres_server.new_database() for _ in range(2))
    names = [url.rpartition("/")[2] for url in (before, after)]
    cli.manifest("a", "b", size=1)
    assert cli("run", "m.yaml", "--ledger", before).returncode == 0
    postgres_server.sql(f"DROP DATABASE {names[1]}", f"CREATE DATABASE {names[1]} TEMPLATE {names[0]}")
    postgres_server.sql("UPDATE claims SET server = 'of the old server'", database=names[1])
    return before, after


def test_what_a_failover_lost_is_looked_for_before_anything_is_sent(
    cli: Cli, serve: Serve, postgres_server: Postgres
) -> None:
    """A standby lacks the last commits: their jobs are found in the API's list, and none is made again."""
    server = serve(Classify())
    cli.use(server)
    before, after = left_behind(cli, postgres_server)
    cli.manifest("a", "b", "c", "d", size=1)
    assert cli("run", "m.yaml", "--ledger", before).returncode == 0
    assert creates(server) == 4
    cli.manifest("a", "b", "c", "d", "e", size=1)
    done = cli("run", "m.yaml", "--ledger", after)
    assert done.returncode == 0, done.stderr
    assert creates(server) == 5
    assert "the ledger's server was replaced" in cli("logs", "m.yaml", "--ledger", after).stdout
    cli.environ["ORCHESTRATOR_LEDGER"] = after
    assert {row["file_id"] for row in cli.exported()} == set("abcde")


def test_a_failover_that_lost_a_manifest_altogether_is_noticed(
    cli: Cli, serve: Serve, postgres_server: Postgres
) -> None:
    """The standby lacks all of a manifest's first night: other manifests tell that the server is another."""
    server = serve(Classify())
    cli.use(server)
    before, after = left_behind(cli, postgres_server)
    cli.manifest("c", "d", size=1)
    manifest = cli.folder / "m.yaml"
    manifest.write_text(manifest.read_text().replace("name: letters", "name: receipts"))
    assert cli("run", "m.yaml", "--ledger", before).returncode == 0
    assert creates(server) == 4
    done = cli("run", "m.yaml", "--ledger", after)
    assert done.returncode == 0, done.stderr
    assert creates(server) == 4
    assert "the ledger's server was replaced" in cli("logs", "m.yaml", "--ledger", after).stdout


def test_an_empty_database_is_no_ledger(cli: Cli, database: str) -> None:
    """status does not make one."""
    done = cli("status", "--ledger", database)
    assert done.returncode == 8
    assert "no ledger at" in done.stderr
