"""What people read of one: a file, not files; and a list's title says how long the whole list is."""

from __future__ import annotations

import json
import re

import pytest
from support.commands import Cli, Serve
from support.moody import Moody

from orchestrator.plaintext import amount, counted

#: "1 files"; not "1 is", and not the s of seconds.
WRONG = re.compile(r"(?<![\d.,:/-])1 (?!is\b|was\b|has\b|process\b|status\b)[a-z]+s\b")


@pytest.fixture
def api(cli: Cli, serve: Serve) -> Moody:
    api = Moody()
    cli.use(serve(api))
    return api


def test_no_screen_says_1_files(cli: Cli, api: Moody) -> None:
    """Each command, of one file that failed, one that is fine, and one of each list."""
    api.bad = "^b$"
    cli.manifest("b")
    said = [cli(*words).stdout for words in (("validate", "m.yaml"), ("plan", "m.yaml"), ("run", "m.yaml"))]
    cli.manifest("a", "b")
    for words in (
        *(("plan",), ("run",), ("status",), ("retry", "--dry-run"), ("retry",), ("nightly",), ("diff",)),
        ("export", "--type", "invoice", "-o", "x.jsonl"),
        *(("accept", "--file", "b", "--dismiss"), ("run",), ("status",), ("report",), ("cancel",), ("doctor",)),
    ):
        done = cli(words[0], "m.yaml", *words[1:])
        said.append(re.sub("<[^>]+>", "\n", done.stdout + done.stderr))
    (cli.folder / "x.jsonl").unlink()  # its mode is a matter of the person's umask
    shown = "\n".join(said)
    assert "1 file " in shown and "1 job " in shown and "1 row written" in shown
    assert [line for line in shown.splitlines() if WRONG.search(line)] == []
    assert WRONG.search("1 files failed") and WRONG.search("so 1 jobs, ")


def test_a_retry_says_how_many_are_good_now(cli: Cli, api: Moody) -> None:
    """Three failed; on the retry one of them still does."""
    api.bad = "^[bcd]$"
    cli.manifest("a", "b", "c", "d")
    assert json.loads(cli("run", "m.yaml", "--json").stdout)["retried"] is None
    api.bad = "^b$"
    done = cli("retry", "m.yaml")
    assert done.returncode == 1
    assert "3 files retried, 2 of them good now" in done.stdout
    told = json.loads(cli("retry", "m.yaml", "--json").stdout)
    assert told["retried"] == {"files": 1, "good": 0}
    api.bad = "^$"
    assert "1 file retried, 1 of them good now" in cli("retry", "m.yaml").stdout
    assert "0 files retried: none to retry" in cli("retry", "m.yaml").stdout


@pytest.mark.parametrize(("bad", "title"), [("^a$", "1 failed file\n"), ("^[a-g]$", "7 failed files, the first 5\n")])
def test_a_list_of_failed_files_says_how_many_there_are(cli: Cli, api: Moody, bad: str, title: str) -> None:
    """On the screen of the run and on that of status; nothing where none failed."""
    api.bad = bad
    cli.manifest(*"abcdefgh", size=1)
    assert title in cli("run", "m.yaml").stdout
    assert title in cli("status", "m.yaml").stdout
    api.bad = "^$"
    assert "failed file" not in cli("retry", "m.yaml").stdout


def test_credits_are_never_told_in_powers_of_ten() -> None:
    """However many, and however small a part of one."""
    assert (amount(1_234_567.0), amount(0.25), amount(3)) == ("1,234,567", "0.25", "3")
    assert (counted(1, "credit"), counted(2.5, "credit")) == ("1 credit", "2.50 credits")
