"""What a manifest's limits allow, to the file and the credit, and what they say when they do not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Connection
from support.ledgers import plan

from orchestrator.errors import LedgerError
from orchestrator.ledger import Ledger
from orchestrator.ledger import scope as ledger_scope
from orchestrator.ledger.chunks import retry
from orchestrator.manifest.loading import Manifest, load
from orchestrator.models import Limits
from orchestrator.planning.limits import (
    credits_left,
    files_per_chunk,
    may_begin_again,
    over_limits,
    over_reclassify,
    parses_since,
    refuse_incomplete,
)

MANIFEST = """\
version: 1
name: m
file_ids: [a]
chunk_size: 7
rules: [{type: invoice, description: contains line items}]
"""


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """Without limits, of v1."""
    monkeypatch.chdir(tmp_path)
    Path("m.yaml").write_text(MANIFEST)
    return load("m.yaml", environ={}, api="v1")


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    with Ledger(tmp_path / "ledger.db") as opened, opened.transaction() as connection:
        yield connection


def limited(manifest: Manifest, **limits: int) -> Manifest:
    return replace(manifest, limits=Limits(**limits), limit_lines=dict.fromkeys(limits, 6))


def test_without_limits_everything_is_allowed(manifest: Manifest) -> None:
    """Whatever it costs."""
    assert over_limits(manifest, 10**6, 10**9, 10**9) is None
    assert over_limits(manifest, 10**6, None, None) is None


def test_max_files_is_the_last_number_that_is_allowed(manifest: Manifest) -> None:
    """The words name number, limit and line."""
    few = limited(manifest, max_files=3)
    assert over_limits(few, 3, 0, 0) is None
    assert over_limits(few, 4, 0, 0) == ("4 files to send, over limits.max_files: 3; to go on raise it in m.yaml:6")


@pytest.mark.parametrize(
    ("ceiling", "earlier", "words"),
    [
        (10, 0, None),
        (10, None, None),
        (None, 100, None),
        (6, 4, None),
        (11, 0, "up to 11 credits, over limits.max_credits: 10; to go on raise it in m.yaml:6"),
        (11, None, "up to 11 credits, over limits.max_credits: 10; to go on raise it in m.yaml:6"),
        (
            7,
            4,
            "up to 7 credits and 4 for what earlier runs planned or got no answer about, over limits.max_credits: 10; "
            "to go on raise it in m.yaml:6",
        ),
        (
            10,
            1,
            "up to 10 credits and 1 for what earlier runs planned or got no answer about, over limits.max_credits: 10; "
            "to go on raise it in m.yaml:6",
        ),
    ],
)
def test_max_credits_counts_what_earlier_runs_left(
    manifest: Manifest, ceiling: int | None, earlier: int | None, words: str | None
) -> None:
    """A cost that is not known passes no limit."""
    assert over_limits(limited(manifest, max_credits=10), 1, ceiling, earlier) == words


@pytest.mark.parametrize(
    ("files", "have_outcome", "most"),
    [(100, 0, None), (101, 0, 100), (100, 1009, None), (101, 1019, None), (102, 1019, 101), (200, 2000, None)],
)
def test_a_tenth_may_be_classified_again_and_a_hundred_always(
    manifest: Manifest, files: int, have_outcome: int, most: int | None
) -> None:
    """Unless the manifest says otherwise."""
    words = over_reclassify(manifest, retry.Changes(files, ("rules", "mode")), have_outcome)
    if most is None:
        assert words is None
    else:
        assert words == (
            f"{files} files would be classified again because of rules and mode, over limits.max_reclassify: {most}; "
            "allow it once with --reclassify, or raise the limit"
        )


def test_max_reclassify_wins_over_what_is_usual(manifest: Manifest) -> None:
    """None at all, or many more; the line is named."""
    none = limited(manifest, max_reclassify=0)
    assert over_reclassify(none, retry.Changes(0, ()), 5000) is None
    words = over_reclassify(none, retry.Changes(1, ("rules",)), 5000)
    assert words is not None
    assert words.startswith("1 file would be")
    assert words.endswith(
        "over limits.max_reclassify: 0; allow it once with --reclassify, or raise the limit in m.yaml:6"
    )
    assert over_reclassify(limited(manifest, max_reclassify=600), retry.Changes(600, ("rules",)), 0) is None


def test_halves_and_second_opinions_get_what_the_limit_leaves(manifest: Manifest, connection: Connection) -> None:
    """Without a limit there is no end to it."""
    plan(connection, manifest.config, ["a", "b"])
    each = manifest.config.credits_per_file
    assert each
    assert credits_left(connection, limited(manifest, max_credits=100), "r") == 100 - 2 * each
    assert credits_left(connection, manifest, "r") is None


@pytest.mark.parametrize(
    ("api", "rehearsal", "allowed"), [("v1", False, False), ("v1", True, True), ("v2", False, True), ("v2", True, True)]
)
def test_only_v1_buys_twice_with_an_empty_ledger(
    manifest: Manifest,
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
    api: str,
    rehearsal: bool,
    allowed: bool,
) -> None:
    """v2 knows its jobs by their keys, and a rehearsal pays nothing."""
    manifest = replace(manifest, api=api)
    assert may_begin_again(manifest, rehearsal=rehearsal) is allowed
    refuse_incomplete(connection, manifest, rehearsal=rehearsal)
    known = plan(connection, manifest.config, ["a"])
    monkeypatch.setattr(ledger_scope, "lacks_jobs", lambda _, manifest_id: manifest_id == known.manifest_id)
    if allowed:
        refuse_incomplete(connection, manifest, rehearsal=rehearsal)
    else:
        with pytest.raises(LedgerError, match=r"first have `orchestrator adopt m\.yaml` take in what the API has"):
            refuse_incomplete(connection, manifest, rehearsal=rehearsal)


def test_a_parse_is_used_for_an_hour_less_than_it_is_kept() -> None:
    """47 hours."""
    assert parses_since(datetime(2026, 11, 25, 2, tzinfo=UTC)) == "2026-11-23T03:00:00.000+00:00"


def test_v2_jobs_have_one_file_each(manifest: Manifest) -> None:
    """v1 takes as many as the manifest says."""
    assert files_per_chunk(manifest) == 7
    assert files_per_chunk(replace(manifest, api="v2")) == 1
