"""Small pieces of HTML, and figures and times as people read them. Whatever comes in is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape

from orchestrator.plaintext import amount, safe

Cell = str | int | float | None

number = amount


def text(value: object, most: int = 2000) -> str:
    """*value* as text in HTML, in an attribute too; cut at *most* characters."""
    return escape(safe(value, most), quote=True)


def heading(title: str) -> str:
    return f"<h3>{text(title)}</h3>"


def table(head: Sequence[str], rows: Iterable[Sequence[Cell]], *, name: str) -> str:
    """A table that scrolls by itself where it is too wide, also by keyboard."""
    return _table("<table>", head, (map(_cell, row) for row in rows), name)


def _table(begin: str, head: Sequence[str], rows: Iterable[Iterable[str]], name: str) -> str:
    # HTML lets the ends of cells and rows be left out, and thirty nights have two thousand of them.
    titles = "".join(f'<th scope="col">{text(title)}' for title in head)
    lines = "".join(f"<tr>{''.join(row)}" for row in rows)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{text(name)}">'
        f"{begin}<thead><tr>{titles}</thead><tbody>{lines}</tbody></table></div>"
    )


def figures(summary: str, head: Sequence[str], rows: Iterable[Sequence[Cell]], *, name: str = "") -> str:
    """A table that opens on demand: what a plot shows, in figures."""
    # The style aligns all columns but the first; a class on each of a thousand cells would say no more.
    inner = _table('<table class="figures">', head, (map(_plain, row) for row in rows), name or summary)
    return f"<details><summary>{text(summary)}</summary>{inner}</details>"


def _cell(value: Cell) -> str:
    if isinstance(value, int | float):
        return f'<td class="n">{number(value)}'
    return _plain(value)


def _plain(value: Cell) -> str:
    shown = number(value) if isinstance(value, int | float) else "" if value is None else text(value)
    return f"<td>{shown}"


def duration(seconds: float | None) -> str:
    """``850 ms``, ``42 s``, ``4 min 10 s``, ``7 h 5 min``."""
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s" if seconds >= 10 else f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def moment(at: str) -> str:
    """A time of the ledger as this machine's clock shows it: ``27 Nov 2026, 02:00 CET``."""
    local = datetime.fromisoformat(at).astimezone()
    return f"{local.day} {local:%b %Y, %H:%M %Z}"


def day(at: str) -> str:
    """``27 Nov``."""
    local = datetime.fromisoformat(at).astimezone()
    return f"{local.day} {local:%b}"


def clock(at: str) -> str:
    """``02:00:07``."""
    return f"{datetime.fromisoformat(at).astimezone():%H:%M:%S}"
