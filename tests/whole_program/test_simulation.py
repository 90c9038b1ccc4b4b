"""Whole nights in virtual time, with faults and crashes: nothing is lost, and nothing is paid for twice."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import AbstractContextManager
from itertools import chain
from pathlib import Path
from unittest.mock import patch

import pytest
from simulation.bugs import BUGS, Bug
from simulation.episode import Episode, play
from simulation.process import MortalLedger
from support.postgres import Postgres

from orchestrator.ledger.postgres.lease import Held

#: Episodes of each API, in blocks that run side by side; `scripts/soak simulation` plays as many as one likes.
BLOCKS, EPISODES = 1, 40
#: A planted bug shows itself within so many, should its own seed no longer show it.
MOST_TO_CATCH = 300


@pytest.mark.long
@pytest.mark.parametrize("block", range(BLOCKS))
@pytest.mark.parametrize("api", ["v1", "v2"])
def test_every_file_ends_with_one_true_outcome_paid_for_once(api: str, block: int) -> None:
    """Through faults, crashes, late commits and lagging listings, the ledger ends as the API would have answered."""
    episodes = [play(seed, api) for seed in range(block * EPISODES, (block + 1) * EPISODES)]
    assert {episode.seed: episode.violations for episode in episodes if episode.violations} == {}
    _are_hostile(episodes)


def _are_hostile(episodes: list[Episode]) -> None:
    """A simulation in which nothing goes wrong would prove nothing."""
    assert sum(episode.crashes for episode in episodes) > EPISODES
    assert sum(episode.runs for episode in episodes) > 2 * EPISODES
    assert sum(episode.retries for episode in episodes) > EPISODES / 2
    assert sum(episode.changed_rules for episode in episodes) > EPISODES / 20
    if episodes[0].api == "v1":
        assert sum(episode.adopted for episode in episodes) > EPISODES / 4
        assert sum(episode.sent_again for episode in episodes) > EPISODES / 10
        assert sum(episode.halves for episode in episodes) > EPISODES / 4
        assert sum(episode.second_opinions for episode in episodes) > EPISODES / 4


def test_a_seed_is_the_same_episode_every_time() -> None:
    """In this process and in others that hash text differently: what is found once can be looked at again."""
    expression = "[play(seed, api).trace for api in ('v1', 'v2') for seed in range(2)]"
    here = [play(seed, api).trace for api in ("v1", "v2") for seed in range(2)]
    code = f"from simulation.episode import play; print({expression})"
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONHASHSEED": hash_seed}
        there = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        assert there.stdout.strip() == repr(here)


@pytest.mark.long
def test_a_ledger_on_a_server_may_be_lost_in_more_ways(postgres_server: Postgres) -> None:
    """Another run takes over at any step, and the connection is cut around a commit, its answer heard or not."""
    episodes = [play(2, "v1", postgres_server), play(0, "v2", postgres_server)]
    assert {episode.api: episode.violations for episode in episodes if episode.violations} == {}
    assert sum(episode.taken_over for episode in episodes) > 0
    assert sum(episode.cuts for episode in episodes) > 0


@pytest.mark.long
@pytest.mark.parametrize(
    ("api", "seed", "bug"),
    [
        ("v1", 2, patch.object(MortalLedger, "still_ours", True)),
        ("v2", 0, patch.object(Held, "_has_committed", lambda self: False)),
    ],
    ids=["no-last-look", "a-commit-without-an-answer-is-thought-lost"],
)
def test_a_bug_that_only_a_server_shows_is_noticed(
    postgres_server: Postgres, api: str, seed: int, bug: AbstractContextManager[object]
) -> None:
    """A run that sends without asking whether it still has its manifest, or makes a commit again that was made."""
    with bug:
        assert play(seed, api, postgres_server).violations


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name.replace(" ", "-"))
def test_a_planted_bug_is_noticed(bug: Bug) -> None:
    """The simulation protects only from faults that it would notice."""
    with bug.plant():
        assert any(play(seed, bug.api).violations for seed in chain([bug.seed], range(MOST_TO_CATCH)))
