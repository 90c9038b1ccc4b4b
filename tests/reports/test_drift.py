"""Drift is said when answers change by more than chance, and almost never otherwise."""

from __future__ import annotations

import math
import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.nights import DRIFTED, USUAL, Nights

from orchestrator.ledger import Ledger
from orchestrator.ledger.views import runs as ledger_runs
from orchestrator.reports import drift

ALERT = 0.1

#: Shares of the labels, and how sure the answers are: a few usual ones, and some that are hard to judge.
KINDS = {
    "three types": ({"invoice": 0.6, "receipt": 0.25, "note": 0.1, drift.NO_TYPE: 0.05}, (0.9, 0.12)),
    "rare types": ({"invoice": 0.97, "a": 0.01, "b": 0.01, "c": 0.005, drift.NO_TYPE: 0.005}, (0.8, 0.2)),
    "twelve types": ({f"type {n}": 1 / (n + 1) for n in range(12)}, (0.6, 0.2)),
    "always as sure": ({"invoice": 0.5, "receipt": 0.5}, (0.95, 0.0)),
}


class Quiet:
    """Nights that differ by nothing but chance."""

    def __init__(self, kind: str, files: int, seed: int) -> None:
        self.shares, (self.mean, self.spread) = KINDS[kind]
        self.files = files
        self.rng = random.Random(seed)

    def night(self) -> tuple[Counter[str], Counter[int]]:
        labels = self.rng.choices(list(self.shares), weights=list(self.shares.values()), k=self.files)
        sure = (self.rng.gauss(self.mean, self.spread) for label in labels if label != drift.NO_TYPE)
        return Counter(labels), Counter(round(100 * min(1.0, max(0.0, value))) for value in sure)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("files", "series"), [(20, 1000), (60, 700), (400, 400), (3000, 60)])
def test_fewer_than_one_quiet_night_in_a_hundred_raises_an_alarm(kind: str, files: int, series: int) -> None:
    """Whatever the number of files and types, and however rare a type is."""
    quiet = Quiet(kind, files, seed=files)
    nights = [quiet.night() for _ in range(series + drift.BASELINE)]
    alarms = 0
    for last in range(drift.BASELINE, len(nights)):
        before = nights[last - drift.BASELINE : last]
        types, sure = nights[last]
        found = drift.compare("r", types, [night[0] for night in before], sure, [night[1] for night in before], ALERT)
        alarms += found.alarm
    assert alarms < series / 100 + (series < 200)


def test_a_night_that_drifted_is_reported_with_what_moved() -> None:
    """Half of the invoices are recognised as nothing: the sentence says from what to what."""
    with Ledger.in_memory() as ledger, ledger.transaction() as connection:
        made = Nights(connection)
        for _ in range(15):
            made.night(200, shares=USUAL)
        made.night(200, shares=DRIFTED)
        runs = ledger_runs.latest(connection, made.scope.manifest_id, 30, verdicts=False)
        tallies = ledger_runs.recorded(connection, [run.run_id for run in runs])
    found = drift.of_latest(runs, tallies, ALERT)
    assert found is not None and found.alarm
    assert found.runs == drift.BASELINE
    assert {shift.label for shift in found.shifts if shift.measure == "types"} == {"invoice", drift.NO_TYPE}
    assert found.distance > 0.3
    (moved,) = (shift for shift in found.shifts if shift.label == drift.NO_TYPE)
    assert found.words.startswith(
        f"drift {found.distance:.2f} from the mean of the 14 runs before: "
        f"unmatched from {moved.share_before:.0%} to {moved.share_now:.0%}, invoice from "
    )
    quiet = drift.of_latest(runs[1:], tallies, ALERT)
    assert quiet is not None and not quiet.alarm and quiet.words == ""


def test_less_sure_answers_are_drift_too() -> None:
    """The types' shares stay; the mean confidence falls from 0.9 to 0.7."""
    usual = Quiet("three types", 300, seed=1)
    before = [usual.night() for _ in range(14)]
    usual.mean = 0.7
    types, sure = usual.night()
    found = drift.compare("r", types, [night[0] for night in before], sure, [night[1] for night in before], ALERT)
    assert found.alarm and found.types_distance < ALERT < found.confidence_distance
    assert "mean confidence from 0.8" in found.words


def test_without_an_alert_in_the_manifest_nothing_is_an_alarm() -> None:
    """The distances are reported all the same."""
    before = [Counter({"invoice": 100})] * 5
    found = drift.compare("r", Counter({"receipt": 100}), before, Counter(), [], None)
    assert not found.alarm and found.types_distance == 1.0


def test_too_little_to_compare_is_no_drift() -> None:
    """Neither in the first nights nor for a handful of files; and a retry's files were chosen."""
    with Ledger.in_memory() as ledger, ledger.transaction() as connection:
        made = Nights(connection)
        seen = []
        for files in (50, 50, 50, 50, 5):
            made.night(files)
            runs = ledger_runs.latest(connection, made.scope.manifest_id, 30, verdicts=False)
            tallies = ledger_runs.recorded(connection, [run.run_id for run in runs])
            seen.append(drift.of_latest(runs, tallies, ALERT) is not None)
    assert seen == [False, False, False, True, False]


def test_the_distance_has_known_values() -> None:
    """0 for equal, 1 for disjoint distributions, and a value worked out by hand between."""
    assert drift.distance({"a": 1.0}, {"a": 1.0}) == 0.0
    assert drift.distance({"a": 1.0}, {"b": 1.0}) == 1.0
    by_hand = math.sqrt(0.5 * math.log2(1 / 0.75) + 0.5 * (0.5 * math.log2(0.5 / 0.75) + 0.5 * math.log2(0.5 / 0.25)))
    assert drift.distance({"a": 1.0}, {"a": 0.5, "b": 0.5}) == pytest.approx(by_hand)


@given(
    st.integers(0, 40).flatmap(lambda hits: st.tuples(st.just(hits), st.integers(max(hits, 1), 60))),
    st.integers(0, 40).flatmap(lambda hits: st.tuples(st.just(hits), st.integers(max(hits, 1), 60))),
)
def test_small_counts_are_judged_by_every_table_with_these_margins(
    before: tuple[int, int], now: tuple[int, int]
) -> None:
    """Against a sum over every table with these margins, in whole numbers."""
    (hit_before, of_before), (hit_now, of_now) = before, now
    hits, total = hit_before + hit_now, of_before + of_now
    p = drift.two_proportions(hit_before, of_before, hit_now, of_now)
    assert 0 <= p <= 1
    if hits in (0, total) or min(hits, total - hits) * min(of_before, of_now) >= 10 * total:
        return
    ways = [math.comb(hits, k) * math.comb(total - hits, of_now - k) for k in range(of_now + 1)]
    tail = min(sum(ways[: hit_now + 1]), sum(ways[hit_now:])) / math.comb(total, of_now)
    assert p == pytest.approx(min(1.0, 2 * tail), rel=1e-6, abs=1e-12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_correcting_for_several_tests_never_makes_one_more_probable_to_alarm(ps: list[float]) -> None:
    """Each stays at least what it was, the order stays, and the least is multiplied by how many there are."""
    corrected = drift.holm(ps)
    assert all(after >= before for before, after in zip(ps, corrected, strict=True))
    in_order = [value for _, value in sorted(zip(ps, corrected, strict=True))]
    assert all(a <= b for a, b in pairwise(in_order))
    assert min(corrected) == min(1.0, min(ps) * len(ps))
