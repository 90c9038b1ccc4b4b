"""The page's plots, each with a legend and its figures in a table: the runs, the confidences, the last run's course."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from orchestrator.models import Outcome
from orchestrator.plaintext import counted
from orchestrator.reports.latest_runs import Night
from orchestrator.reports.page import charts
from orchestrator.reports.page.content import BINS, Histogram, Section
from orchestrator.reports.page.tags import Cell, clock, day, duration, figures, heading, moment, number, text
from orchestrator.reports.page.timeline import STEPS, Timeline

_COLOURS = {
    Outcome.CLASSIFIED: charts.GOOD,
    Outcome.UNMATCHED: charts.PLAIN,
    Outcome.FAILED: charts.BAD,
    Outcome.MISSING: "#b5651d",
    Outcome.CANCELLED: charts.MUTED,
}

#: Types that have a colour of their own; the others are one.
MOST_TYPES = len(charts.PALETTE) - 1
OTHER = "other"

#: Types whose confidences are drawn.
MOST_HISTOGRAMS = 6


def history(section: Section) -> str:
    """Outcomes, types, duration, requests and credits of the latest runs."""
    nights = list(reversed(section.nights))
    if not nights:
        return ""
    parts = [_outcomes(nights), _types(nights)]
    costs = [
        _cost(nights, "Duration", lambda night: night.seconds, duration, charts.MUTED, time=True),
        _cost(nights, "Requests", lambda night: night.requests, number, charts.PLAIN),
        _cost(nights, "Credits", lambda night: night.credits, number, charts.PALETTE[1]),
    ]
    return (
        heading(f"The latest {counted(len(nights), 'run')}")
        + f'<div class="grid two">{"".join(parts)}</div>'
        + f'<div class="grid three">{"".join(costs)}</div>'
    )


def _card(title: str, svg: str, legend: str, table: str) -> str:
    return f'<div class="card"><h4>{text(title)}</h4>{legend}{svg}{table}</div>'


def _legend(entries: Sequence[tuple[str, str]]) -> str:
    items = "".join(f"<li>{charts.swatch(colour)}{text(name, 50)}</li>" for name, colour in entries)
    return f'<ul class="key">{items}</ul>'


def _days(nights: Sequence[Night]) -> list[tuple[float, str]]:
    """The first, the middle and the last day, each under its bar."""
    places = sorted({0, len(nights) // 2, len(nights) - 1})
    return [((place + 0.5) / len(nights), day(nights[place].started_at)) for place in places]


def _short_moment(at: str) -> str:
    """``27 Nov, 02:00:07``: enough for a bar among thirty, whose table says more."""
    return f"{day(at)}, {clock(at)}"


def _outcomes(nights: Sequence[Night]) -> str:
    used = [outcome for outcome in Outcome if any(outcome.value in night.outcomes for night in nights)]
    return _stacked(
        nights,
        "Outcomes that each run recorded",
        [(outcome.value, _COLOURS[outcome]) for outcome in used],
        [[night.outcomes.get(outcome.value, 0) for outcome in used] for night in nights],
    )


def _types(nights: Sequence[Night]) -> str:
    totals: Counter[str] = Counter()
    for night in nights:
        totals.update(night.types)
    ordered = sorted(totals, key=lambda label: (-totals[label], label))
    named = ordered[: MOST_TYPES if len(ordered) > len(charts.PALETTE) else len(charts.PALETTE)]
    stacks = [[night.types.get(label, 0) for label in named] for night in nights]
    series = list(zip(named, charts.PALETTE, strict=False))
    if len(named) < len(ordered):
        series.append((OTHER, charts.PALETTE[-1]))
        for stack, night in zip(stacks, nights, strict=True):
            stack.append(sum(night.types.values()) - sum(stack))
    return _stacked(nights, "Types that each run recorded", series, stacks)


def _stacked(
    nights: Sequence[Night], title: str, series: Sequence[tuple[str, str]], stacks: Sequence[Sequence[int]]
) -> str:
    names = [name for name, _ in series]
    titles = [
        f"{_short_moment(night.started_at)}: " + (_listed(names, stack) or "nothing")
        for night, stack in zip(nights, stacks, strict=True)
    ]
    total = _listed(names, [sum(column) for column in zip(*stacks, strict=True)])
    svg = charts.plot(
        title,
        f"Stacked bars, one for each of {counted(len(nights), 'run')}. In all {total or 'nothing'}.",
        [charts.Bars(stacks, [colour for _, colour in series], titles)],
        _days(nights),
    )
    rows: list[Sequence[Cell]] = [
        (moment(night.started_at), *stack) for night, stack in zip(nights, stacks, strict=True)
    ]
    return _card(title, svg, _legend(series), figures("Figures", ("run", *names), rows, name=title))


def _listed(names: Sequence[str], values: Sequence[int]) -> str:
    return ", ".join(f"{value:,} {name}" for name, value in zip(names, values, strict=True) if value)


def _cost(
    nights: Sequence[Night],
    title: str,
    of: Callable[[Night], float | None],
    shown: Callable[[float], str],
    colour: str,
    *,
    time: bool = False,
) -> str:
    values = [of(night) for night in nights]
    known = [value for value in values if value is not None]
    highest = max(known, default=0)
    size, unit = _unit(highest) if time else (1, "")
    said = f"From {shown(min(known))} to {shown(highest)}." if known else "Nothing is known."
    svg = charts.plot(
        title,
        f"Bars, one for each of {counted(len(nights), 'run')}. {said}",
        [
            charts.Bars(
                [[(value or 0) / size] for value in values],
                [colour],
                [
                    f"{_short_moment(night.started_at)}: {'not known' if value is None else shown(value)}"
                    for night, value in zip(nights, values, strict=True)
                ],
            )
        ],
        _days(nights),
        unit=unit,
        size=charts.NARROW,
    )
    rows: list[Sequence[Cell]] = [
        (moment(night.started_at), "" if value is None else shown(value))
        for night, value in zip(nights, values, strict=True)
    ]
    return _card(title, svg, "", figures("Figures", ("run", title.lower()), rows, name=title))


def _unit(seconds: float) -> tuple[int, str]:
    """The unit of time in which an axis up to *seconds* is read best."""
    return (3600, " h") if seconds >= 7200 else (60, " min") if seconds >= 120 else (1, " s")


def confidence(section: Section) -> str:
    """A histogram for each type, with the review threshold."""
    drawn = section.histograms[:MOST_HISTOGRAMS]
    if not drawn:
        return ""
    cards = "".join(_histogram(each, section.below_confidence) for each in drawn)
    cut = f" of the {len(drawn)} most frequent types" if len(drawn) < len(section.histograms) else ""
    return heading(f"Confidence{cut}, all files") + f'<div class="grid three">{cards}</div>'


def _histogram(found: Histogram, below: float | None) -> str:
    edges = [f"{n / BINS:.2f} to {(n + 1) / BINS:.2f}" for n in range(BINS)]
    titles = [f"{edge}: {counted(files, 'file')}" for edge, files in zip(edges, found.bins, strict=True)]
    marks: list[charts.Mark] = [charts.Bars([[files] for files in found.bins], [charts.PLAIN], titles)]
    said = counted(found.files, "file")
    if below is not None:
        marks.append(charts.Rule(below, f"review below {below:g}"))
        said += f", {found.unsure:,} of them below the review threshold of {below:g}"
    svg = charts.plot(
        f"Confidence of {found.type}",
        f"Histogram of {said}.",
        marks,
        [(0, "0"), (0.5, "0.5"), (1, "1")],
        size=charts.NARROW,
    )
    rows: list[Sequence[Cell]] = [(edge, files) for edge, files in zip(edges, found.bins, strict=True) if files]
    note = f'<p class="soft">{text(said[0].upper() + said[1:])}</p>'
    return _card(found.type, svg, note, figures("Figures", ("confidence", "files"), rows, name=found.type))


def course(section: Section) -> str:
    """Time to a result, and jobs in flight, over the last run."""
    found = section.timeline
    if found is None:
        return ""
    sample = f", of every {found.step}th job" if found.step > 1 else ""
    title = f"The course of the last run: {counted(found.jobs, 'job')}{sample}"
    return heading(title) + f'<div class="grid two">{_waits(found)}{_flight(found)}</div>'


def _waits(found: Timeline) -> str:
    colours = (charts.PLAIN, charts.PALETTE[1])
    size, unit = _unit(max((p95 for p95 in found.p95s if p95 is not None), default=0))
    lines = [
        [None if value is None else value / size for value in _joined(values)] for values in (found.p50s, found.p95s)
    ]
    svg = charts.plot(
        "Time to a result",
        f"Two lines over the run: half of the files had their result within {duration(found.p50_s)}, "
        f"19 of 20 within {duration(found.p95_s)}.",
        [charts.Line(lines[0], colours[0]), charts.Line(lines[1], colours[1], dashed=True)],
        _hours(found),
        unit=unit,
    )
    legend = _legend(
        [(f"p50, {duration(found.p50_s)} in all", colours[0]), (f"p95, {duration(found.p95_s)} in all", colours[1])]
    )
    rows: list[Sequence[Cell]] = [
        (clock(at), duration(p50), duration(p95))
        for at, p50, p95 in zip(_moments(found), found.p50s, found.p95s, strict=True)
        if p50 is not None
    ]
    table = figures("Figures", ("results from", "p50", "p95"), rows, name="Time to a result")
    return _card("Time to a result", svg, legend, table)


def _flight(found: Timeline) -> str:
    svg = charts.plot(
        "Jobs in flight",
        f"A surface over the run: at most {counted(found.most_in_flight, 'job')} at once.",
        [charts.Area(found.in_flight, charts.PLAIN)],
        _hours(found),
    )
    rows: list[Sequence[Cell]] = [(clock(at), jobs) for at, jobs in zip(_moments(found), found.in_flight, strict=True)]
    table = figures("Figures", ("from", "most jobs in flight"), rows, name="Jobs in flight")
    legend = _legend([(f"at most {found.most_in_flight:,} at once", charts.PLAIN)])
    return _card("Jobs in flight", svg, legend, table)


def _joined(values: Sequence[float | None]) -> list[float | None]:
    """Steps in which no result came take the value between their neighbours', so that the line goes on."""
    joined = list(values)
    known = [at for at, value in enumerate(values) if value is not None]
    for left, right in pairwise(known):
        for at in range(left + 1, right):
            share = (at - left) / (right - left)
            joined[at] = (values[left] or 0) * (1 - share) + (values[right] or 0) * share
    return joined


def _moments(found: Timeline) -> list[str]:
    began, ended = datetime.fromisoformat(found.began), datetime.fromisoformat(found.ended)
    step = max(ended - began, timedelta(0)) / STEPS
    return [(began + step * n).isoformat() for n in range(STEPS)]


def _hours(found: Timeline) -> list[tuple[float, str]]:
    began, ended = datetime.fromisoformat(found.began), datetime.fromisoformat(found.ended)
    return [(0, clock(found.began)), (0.5, clock((began + (ended - began) / 2).isoformat())), (1, clock(found.ended))]
