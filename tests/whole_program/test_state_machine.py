"""Stories of people and schedules at one ledger: runs, crashes, retries, verdicts and edits in any order."""

from __future__ import annotations

import pytest
from simulation.bugs import BUGS, Bug
from simulation.machine import MACHINES, tell

#: Stories of each API, and steps of each; `scripts/soak machine` plays as many as one likes.
STORIES, STEPS = 16, 10
#: Of the bugs that the simulation plants, those that a few stories are enough for.
CAUGHT_SOON = {
    "an unanswered create is sent again at once",
    "no intent before the call",
    "the answer is recorded wrongly",
    "a refusal after an unanswered send proves absence",
    "a missing row counts as done",
    "a new key for every send",
}
MOST_TO_CATCH = 50


@pytest.mark.long
@pytest.mark.parametrize("api", MACHINES)
def test_every_step_leaves_what_the_server_and_the_person_made_of_it(api: str) -> None:
    """Nothing is bought twice or lost; export, status and each exit code are those of the model."""
    counts = tell(api, STORIES, steps=STEPS)
    assert counts["run"] > STORIES
    assert min(counts[what] for what in ("retry", "crashes", "verdicts", "jobs")) > 0


@pytest.mark.long
@pytest.mark.parametrize("bug", [bug for bug in BUGS if bug.name in CAUGHT_SOON], ids=lambda bug: bug.name)
def test_a_planted_bug_is_noticed(bug: Bug) -> None:
    """The machine protects only from faults that it would notice."""
    with bug.plant(), pytest.raises((AssertionError, RuntimeError)):
        tell(bug.api, MOST_TO_CATCH, steps=STEPS, shrink=False)
