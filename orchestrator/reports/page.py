"""One self-contained page about a ledger: no script, nothing loaded, every text from outside escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape

from orchestrator.models import GOOD, Json, Outcome
from orchestrator.plaintext import counted, safe

#: How many failed files, and files to review, a page lists.
MOST_ROWS = 200

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:64rem;padding:0 1rem;color:#1c2733;background:#fff}
h1{font-size:1.5rem;margin:0 0 .25rem}h2{font-size:1.1rem;margin:2rem 0 .5rem}p{margin:.25rem 0;color:#4b5b6b}
table{border-collapse:collapse;max-width:100%;margin:.5rem 0}
th,td{text-align:left;padding:.3rem 2rem .3rem 0;border-bottom:1px solid #e3e8ee;vertical-align:top;
overflow-wrap:anywhere}
th,td:nth-child(2){overflow-wrap:normal}@media (max-width:40rem){th,td{padding-right:.8rem}}
th{font-weight:600;color:#4b5b6b}td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.bar{display:flex;height:.9rem;border-radius:.45rem;overflow:hidden;background:#e3e8ee;margin:.75rem 0}
.bar span{display:block;height:100%}.good{background:#2f9e6e}.plain{background:#5b8def}.bad{background:#d64545}
.rehearsal{background:#fff4d6;border:1px solid #e2b93b;padding:.5rem .8rem;border-radius:.4rem;color:#5c4a12}
@media (prefers-color-scheme:dark){body{background:#12181f;color:#e6edf3}p,th{color:#9fb0c0}
th,td{border-color:#2a3541}.bar{background:#2a3541}}
"""
#: No style attributes, which the policy below forbids: a class for each width instead.
_WIDTHS = "".join(f".w{percent}{{width:{percent}%}}" for percent in range(101))


def page(states: Sequence[dict[str, Json]], review: Sequence[Sequence[Json]], *, ledger: str, at: str) -> str:
    """The page for *states* (see ``status``); *review* rows are file ID, type, confidence, why."""
    style = _STYLE + _WIDTHS
    policy = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    body = "".join(_manifest(state) for state in states) or "<p>Nothing is recorded yet.</p>"
    if review:
        body += _heading("For a person to look at", len(review)) + _table(("file", "type", "confidence", "why"), review)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'sha256-{policy}'\">"
        '<meta name="viewport" content="width=device-width,initial-scale=1"><title>orchestrator report</title>'
        f"<style>{style}</style></head><body><h1>orchestrator report</h1>"
        f"<p>{_text(ledger)}, {_text(at)}</p>{body}</body></html>\n"
    )


def _manifest(state: dict[str, Json]) -> str:
    counts = [(outcome.value, state[outcome.value]) for outcome in Outcome] + [("unfinished", state["unfinished"])]
    parts = [f"<h2>{_text(state['manifest'])}</h2>"]
    if state["rehearsal"]:
        parts.append('<p class="rehearsal">A rehearsal: answered by the embedded sandbox, not real results.</p>')
    parts.append(f"<p>{counted(state['files'], 'file')} at {_text(state['api'])}</p>{_bar(state)}")
    parts.append(_table(("outcome", "files"), [(name, files) for name, files in counts if files]))
    if state["types"]:
        parts.append(_table(("type", "files"), list(state["types"].items())))
    if state["needs_decision"]:
        rows = [(found["chunk_id"], found["event"], found["note"]) for found in state["needs_decision"]]
        parts.append("<h2>Needs a decision</h2>" + _table(("chunk", "what", "why"), rows))
    if state["failed_files"]:
        rows = [(found["file_id"], found["outcome"], found["error"]) for found in state["failed_files"]]
        parts.append(_heading("Failed files", len(rows)) + _table(("file", "outcome", "the API's words"), rows))
    if quarantined := state["quarantined"]["first"][:MOST_ROWS]:
        rows = [(found["file_id"], found["why"], found["error"]) for found in quarantined]
        title = _heading("Quarantined: sent again only by retry --file", len(rows))
        parts.append(title + _table(("file", "why", "the API's words"), rows))
    runs = [
        (
            run["id"],
            run["command"],
            run["exit_code"],
            (run["summary"] or {"reason": "under way, or killed"}).get("reason"),
        )
        for run in state["runs"]
    ]
    parts.append("<h2>Latest runs</h2>" + _table(("run", "command", "exit", "reason"), runs))
    return "".join(parts)


def _heading(title: str, rows: int) -> str:
    """A long list is cut, and then says so."""
    return f"<h2>{title}{f', the first {rows}: all are in an export' if rows >= MOST_ROWS else ''}</h2>"


def _bar(state: dict[str, Json]) -> str:
    """Shares of the files: classified, unmatched, bad; what is left is unfinished."""
    total = max(state["files"], 1)
    bad = sum(state[outcome.value] for outcome in Outcome if outcome not in GOOD)
    shares = (("good", state["classified"]), ("plain", state["unmatched"]), ("bad", bad))
    spans = "".join(f'<span class="{kind} w{round(100 * files / total)}"></span>' for kind, files in shares if files)
    return f'<div class="bar">{spans}</div>'


def _table(head: Sequence[str], rows: Iterable[Sequence[Json]]) -> str:
    titles = "".join(f"<th>{_text(title)}</th>" for title in head)
    lines = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{lines}</tbody></table>"


def _cell(value: Json) -> str:
    if isinstance(value, int | float):
        return f'<td class="n">{value:,}</td>'
    return f"<td>{_text('' if value is None else value)}</td>"


def _text(value: Json) -> str:
    return escape(safe(value, 2000))
