"""Drift: whether a run's answers differ from those of the runs before it by more than chance.

Two measures, each a Jensen-Shannon distance (0: the same, 1: nothing in common) between this run and the mean of up to
fourteen earlier ones: of the types' shares, and of the confidences. A distance alone is no alarm, since the few files
of a small night differ from any mean; so a two-proportion test has to agree, corrected (Holm) for looking at several
shares at once. Quiet nights then raise an alarm less often than once in a hundred.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.ledger.views.runs import Run, Tally
from orchestrator.models import Outcome
from orchestrator.plaintext import counted

Measure = Literal["types", "confidence"]

#: How many earlier runs a run is compared with, and how few of them are too few to say anything.
BASELINE = 14
LEAST_RUNS = 3

#: Fewer answered files than this, in the run or in all earlier ones together, say nothing.
LEAST_FILES = 20

#: How improbable, after Holm's correction, a share has to be.
ALPHA = 0.01

#: Expected counts below this are too small for the normal distribution: Fisher's exact test is used.
_FEW = 10

#: The label of answered files that no rule matched.
NO_TYPE = "unmatched"


@dataclass(frozen=True, slots=True)
class Shift:
    """One share that is not what it was. ``p``: how probable that is by chance, after Holm's correction."""

    measure: Measure
    label: str
    share_before: float
    share_now: float
    p: float


@dataclass(frozen=True, slots=True)
class Drift:
    """A run compared with those before it. ``alert`` is the manifest's; None: never an alarm."""

    run_id: str
    runs: int  #: earlier runs that it is compared with
    files: int  #: answered files of the run
    alert: float | None
    types_distance: float
    confidence_distance: float
    confidence_before: float | None  #: mean
    confidence_now: float | None
    shifts: tuple[Shift, ...]  #: those that chance does not explain, the largest first
    alarm: bool

    @property
    def distance(self) -> float:
        """The larger of the two distances."""
        return max(self.types_distance, self.confidence_distance)

    @property
    def words(self) -> str:
        """One sentence; empty without an alarm."""
        if not self.alarm:
            return ""
        moved = [
            f"{shift.label} from {shift.share_before:.0%} to {shift.share_now:.0%}"
            for shift in self.shifts
            if shift.measure == "types"
        ][:3]
        if self.alert is not None and self.confidence_distance > self.alert:
            moved.append(f"mean confidence from {self.confidence_before or 0:.2f} to {self.confidence_now or 0:.2f}")
        return f"drift {self.distance:.2f} from the mean of the {counted(self.runs, 'run')} before: {', '.join(moved)}"


def of_latest(runs: Sequence[Run], tallies: Iterable[Tally], alert: float | None) -> Drift | None:
    """The drift of the latest of *runs* (newest first); None when there is too little to compare.

    Only what ``run`` recorded counts: a retry asks about files that were chosen for how they ended.
    """
    if not runs or runs[0].command != "run":
        return None
    types: dict[str, Counter[str]] = {run.run_id: Counter() for run in runs if run.command == "run"}
    sure: dict[str, Counter[int]] = {run_id: Counter() for run_id in types}
    for tally in tallies:
        if tally.run_id in types and tally.outcome in (Outcome.CLASSIFIED, Outcome.UNMATCHED):
            types[tally.run_id][tally.type or NO_TYPE] += tally.files
            if tally.type:
                sure[tally.run_id][max(tally.percent, 0)] += tally.files
    now, *earlier = types
    before = [run_id for run_id in earlier if types[run_id]][:BASELINE]
    files = types[now].total()
    if len(before) < LEAST_RUNS or min(files, sum(types[run_id].total() for run_id in before)) < LEAST_FILES:
        return None
    return compare(
        now, types[now], [types[run_id] for run_id in before], sure[now], [sure[run_id] for run_id in before], alert
    )


def _shifts(
    types_before: Counter[str], types: Counter[str], sure_before: Counter[int], sure: Counter[int]
) -> list[Shift]:
    """The shares that have changed by more than chance explains: of each type, of the surer and the less sure."""
    tests = [
        (("types", label), types_before[label], types_before.total(), types[label], types.total())
        for label in sorted(types_before | types)
    ]
    if sure_before and sure:
        middle = _median(sure_before)
        for label, side in (("surer than usual", 1), ("less sure than usual", -1)):
            before, after = (
                sum(files for percent, files in which.items() if (percent - middle) * side > 0)
                for which in (sure_before, sure)
            )
            tests.append((("confidence", label), before, sure_before.total(), after, sure.total()))
    return [
        Shift("types" if measure == "types" else "confidence", label, before / of_before, after / of_after, p)
        for ((measure, label), before, of_before, after, of_after), p in zip(
            tests, holm([two_proportions(*test[1:]) for test in tests]), strict=True
        )
        if p < ALPHA
    ]


def compare(
    run_id: str,
    types: Counter[str],
    types_before: Sequence[Counter[str]],
    sure: Counter[int],
    sure_before: Sequence[Counter[int]],
    alert: float | None,
) -> Drift:
    """The drift of one run's *types* and confidences (*sure*, in whole percent) from those before it."""
    pooled_sure = sum(sure_before, Counter())
    shifts = _shifts(sum(types_before, Counter()), types, pooled_sure, sure)
    distances: dict[str, float] = {
        "types": distance(_mean_shares(types_before), _shares(types)),
        "confidence": distance(_mean_shares([*map(_tenths, sure_before)]), _shares(_tenths(sure))),
    }
    return Drift(
        run_id=run_id,
        runs=len(types_before),
        files=types.total(),
        alert=alert,
        types_distance=round(distances["types"], 4),
        confidence_distance=round(distances["confidence"], 4),
        confidence_before=_mean(pooled_sure),
        confidence_now=_mean(sure),
        shifts=tuple(sorted(shifts, key=lambda shift: (-abs(shift.share_now - shift.share_before), shift.label))),
        alarm=alert is not None and any(distances[shift.measure] > alert for shift in shifts),
    )


def distance(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Jensen-Shannon distance, to base 2, of two distributions; 0 when one of them is empty."""
    if not one or not other:
        return 0.0
    divergence = 0.0
    for label in one.keys() | other.keys():
        p, q = one.get(label, 0.0), other.get(label, 0.0)
        middle = (p + q) / 2
        divergence += sum(share * math.log2(share / middle) / 2 for share in (p, q) if share > 0)
    return math.sqrt(min(max(divergence, 0.0), 1.0))


def two_proportions(before: int, of_before: int, now: int, of_now: int) -> float:
    """How probable so large a difference of two shares is by chance, two-sided.

    By the normal distribution with a correction for continuity; by Fisher's exact test where counts are small.
    """
    hits, total = before + now, of_before + of_now
    if hits in (0, total):
        return 1.0
    share = hits / total
    if min(share, 1 - share) * min(of_before, of_now) < _FEW:
        return _fisher(hits, total, now, of_now)
    spread = math.sqrt(share * (1 - share) * (1 / of_before + 1 / of_now))
    off = abs(now / of_now - before / of_before) - (1 / of_before + 1 / of_now) / 2
    return min(1.0, math.erfc(max(off, 0.0) / spread / math.sqrt(2)))


def holm(ps: Sequence[float]) -> list[float]:
    """*ps* corrected for being several: any below ALPHA is wrong with no more than that probability in all."""
    corrected, worst = [0.0] * len(ps), 0.0
    for rank, at in enumerate(sorted(range(len(ps)), key=lambda at: ps[at])):
        worst = max(worst, min(1.0, ps[at] * (len(ps) - rank)))
        corrected[at] = worst
    return corrected


def _fisher(hits: int, total: int, now: int, of_now: int) -> float:
    """Twice the smaller tail of the hypergeometric distribution. Few hits or few misses: the sums are short."""
    if hits > total - hits:
        hits, now = total - hits, of_now - now
    least, most = max(0, of_now - (total - hits)), min(hits, of_now)
    rest = _log_choose(total, of_now)

    def probability(found: int) -> float:
        return math.exp(_log_choose(hits, found) + _log_choose(total - hits, of_now - found) - rest)

    lower = sum(probability(found) for found in range(least, now + 1))
    upper = sum(probability(found) for found in range(now, most + 1))
    return min(1.0, 2 * min(lower, upper))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _shares(counter: Mapping[str, int]) -> dict[str, float]:
    total = sum(counter.values())
    return {label: files / total for label, files in counter.items()} if total else {}


def _mean_shares(counters: Sequence[Mapping[str, int]]) -> dict[str, float]:
    """The mean of the runs' shares: a large night counts no more than a small one."""
    shares = [_shares(counter) for counter in counters if counter]
    labels = {label for each in shares for label in each}
    return {label: sum(each.get(label, 0.0) for each in shares) / len(shares) for label in labels}


def _tenths(sure: Mapping[int, int]) -> Counter[str]:
    bins: Counter[str] = Counter()
    for percent, files in sure.items():
        bins[str(min(percent // 10, 9))] += files
    return bins


def _median(sure: Counter[int]) -> int:
    passed, half = 0, sure.total() / 2
    for percent in sorted(sure):
        passed += sure[percent]
        if passed >= half:
            return percent
    raise ValueError("the median of nothing")


def _mean(sure: Counter[int]) -> float | None:
    total = sure.total()
    return round(sum(percent * files for percent, files in sure.items()) / total / 100, 4) if total else None
