"""Plots as SVG made here: four kinds of mark, no script, no style.

Colours stand in ``fill`` and ``stroke`` attributes, which every policy lets through; text and axes take the colour of
the page's text. Each plot has a description for who can't see it; what it shows in figures is a table's to say.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from orchestrator.plaintext import safe

#: Seen well on white and on black, and distinct for people who do not see red and green alike.
PALETTE = ("#3d7de0", "#c2741d", "#8a6ad1", "#1a938f", "#c9518f", "#7d8a1f", "#5d7f99", "#a0673f")
GOOD, PLAIN, BAD, MUTED = "#2c9463", "#3d7de0", "#d64545", "#7c8794"

_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 8, 10, 22


@dataclass(frozen=True, slots=True)
class Size:
    """The size of a plot, in the unit in which its letters are 12 high."""

    width: int
    height: int


#: For a page of two, and of three columns.
WIDE, NARROW = Size(440, 180), Size(320, 150)


@dataclass(frozen=True, slots=True)
class Bars:
    """Stacked bars: ``stacks[n]`` are the parts of bar n, from the foot up, each with its series' colour."""

    stacks: Sequence[Sequence[float]]
    colours: Sequence[str]
    titles: Sequence[str]  #: of each bar, shown when pointed at


@dataclass(frozen=True, slots=True)
class Line:
    """One line through values at equal steps; None leaves a gap."""

    values: Sequence[float | None]
    colour: str
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Area:
    """The surface under values at equal steps."""

    values: Sequence[float]
    colour: str


@dataclass(frozen=True, slots=True)
class Rule:
    """An upright dashed line at a share of the width, with its word."""

    at: float
    word: str


Mark = Bars | Line | Area | Rule


def plot(
    title: str,
    description: str,
    marks: Sequence[Mark],
    ticks: Sequence[tuple[float, str]],
    *,
    unit: str = "",
    size: Size = WIDE,
) -> str:
    """An SVG of *marks* over one axis from 0 up. *ticks*: texts under the plot, each at a share of its width."""
    frame = _Frame(size, nice_top(_highest(marks)))
    body = "".join(_mark(mark, frame) for mark in marks)
    label = escape(safe(f"{title}. {description}", 1000), quote=True)
    return (
        f'<svg viewBox="0 0 {size.width} {size.height}" role="img" aria-label="{label}" font-size="12" '
        f'fill="currentColor">{_axis(frame, unit)}{body}{"".join(_tick(frame, at, words) for at, words in ticks)}</svg>'
    )


def swatch(colour: str) -> str:
    """A small square of *colour*, for a legend."""
    square = f'<rect width="10" height="10" rx="2" fill="{colour}"/>'
    return f'<svg viewBox="0 0 10 10" width="10" height="10" aria-hidden="true">{square}</svg>'


def nice_top(highest: float) -> float:
    """The least of 1, 2, 4, 5, 10, 20, ... that is not below *highest*."""
    if highest <= 1:
        return 1
    power = 10 ** math.floor(math.log10(highest))
    return next(float(step * power) for step in (1, 2, 4, 5, 10) if highest <= step * power)


def short(value: float) -> str:
    """A number as an axis shows it: ``950``, ``1.5k``, ``20M``."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"


def _highest(marks: Iterable[Mark]) -> float:
    highest = 0.0
    for mark in marks:
        match mark:
            case Bars(stacks=stacks):
                highest = max(highest, *(sum(stack) for stack in stacks), 0.0)
            case Line(values=values) | Area(values=values):
                highest = max(highest, *(value for value in values if value is not None), 0.0)
            case Rule():
                pass
    return highest


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where values come to lie."""

    size: Size
    top: float  #: the highest value of the axis

    @property
    def width(self) -> float:
        return self.size.width - _LEFT - _RIGHT

    @property
    def floor(self) -> float:
        return self.size.height - _BOTTOM

    def x(self, share: float) -> float:
        return _LEFT + share * self.width

    def y(self, value: float) -> float:
        return self.floor - value / self.top * (self.floor - _TOP)


def _mark(mark: Mark, frame: _Frame) -> str:
    match mark:
        case Bars():
            return _bars(mark, frame)
        case Line():
            return _line(mark, frame)
        case Area():
            return _area(mark, frame)
        case Rule():
            return _rule(mark, frame)


def _bars(mark: Bars, frame: _Frame) -> str:
    """One thick line for each part, those of a colour in one path; over each bar a column that shows its title."""
    step = frame.width / max(len(mark.stacks), 1)
    drawn = dict.fromkeys(mark.colours, "")
    titles = ""
    for n, stack in enumerate(mark.stacks):
        x, under = _n(_LEFT + step * (n + 0.5)), 0.0
        for value, colour in zip(stack, mark.colours, strict=True):
            if value > 0:
                top = frame.y(under + value)
                height = max(frame.y(under) - top, 0.5)  # one failed file among thousands is still to be seen
                drawn[colour] += f"M{x} {_n(top)}v{_n(height)}"
                under += value
        if under:
            said = escape(safe(mark.titles[n], 160))
            titles += f'<path d="M{x} {_TOP}V{_n(frame.floor)}"><title>{said}</title></path>'
    parts = "".join(f'<path d="{line}" stroke="{colour}"/>' for colour, line in drawn.items() if line)
    width = max(min(step * 0.8, 40), 1)
    return f'<g stroke-width="{_n(width)}">{parts}<g stroke="{PLAIN}" stroke-opacity="0">{titles}</g></g>'


def _line(mark: Line, frame: _Frame) -> str:
    pieces: list[list[str]] = [[]]
    for point, value in zip(_points(mark.values, frame), mark.values, strict=True):
        if value is None:
            pieces.append([])
        else:
            pieces[-1].append(point)
    lines = "".join(f"M{'L'.join(piece)}" if len(piece) > 1 else f"M{piece[0]}h.1" for piece in pieces if piece)
    dashes = ' stroke-dasharray="5 3"' if mark.dashed else ""
    return f'<path d="{lines}" fill="none" stroke="{mark.colour}" stroke-width="2" stroke-linecap="round"{dashes}/>'


def _area(mark: Area, frame: _Frame) -> str:
    points = _points(mark.values, frame)
    if not points:
        return ""
    first, last = points[0].split()[0], points[-1].split()[0]
    floor = _n(frame.floor)
    return f'<path d="M{first} {floor}L{"L".join(points)}L{last} {floor}z" fill="{mark.colour}"/>'


def _rule(mark: Rule, frame: _Frame) -> str:
    x = frame.x(mark.at)
    anchor, shift = ("end", -4) if mark.at > 0.5 else ("start", 4)
    return (
        f'<path d="M{_n(x)} {_TOP}V{_n(frame.floor)}" stroke="{BAD}" stroke-dasharray="4 3" fill="none"/>'
        f'<text x="{_n(x + shift)}" y="{_TOP + 10}" text-anchor="{anchor}">'
        f"{escape(safe(mark.word, 40))}</text>"
    )


def _points(values: Sequence[float | None], frame: _Frame) -> list[str]:
    """One for each value, in the middle of its step."""
    return [f"{_n(frame.x((n + 0.5) / len(values)))} {_n(frame.y(value or 0))}" for n, value in enumerate(values)]


def _axis(frame: _Frame, unit: str) -> str:
    lines = ""
    for share in (0.0, 0.5, 1.0):
        y, faint = frame.y(frame.top * share), "" if share == 0 else ' stroke-opacity=".2"'
        lines += (
            f'<path d="M{_LEFT} {_n(y)}h{_n(frame.width)}" stroke="currentColor"{faint}/>'
            f'<text x="{_LEFT - 5}" y="{_n(y + 4)}" text-anchor="end">'
            f"{short(frame.top * share)}{escape(unit) if share else ''}</text>"
        )
    return lines


def _tick(frame: _Frame, at: float, words: str) -> str:
    anchor = "start" if at < 0.1 else "end" if at > 0.9 else "middle"
    return (
        f'<text x="{_n(frame.x(at))}" y="{frame.size.height - 6}" text-anchor="{anchor}">'
        f"{escape(safe(words, 40))}</text>"
    )


def _n(value: float) -> str:
    """A coordinate: one digit after the point is more than a screen shows."""
    return f"{value:.1f}".removesuffix(".0")
