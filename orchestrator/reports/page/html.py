"""The page as HTML: one file, no script, nothing loaded, every text from outside escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence

from orchestrator.errors import ExitCode
from orchestrator.models import Outcome
from orchestrator.plaintext import counted, safe
from orchestrator.reports import last_run
from orchestrator.reports.last_run import not_ended
from orchestrator.reports.latest_runs import Night, Since
from orchestrator.reports.page import plots
from orchestrator.reports.page.content import Page, Section
from orchestrator.reports.page.style import STYLE
from orchestrator.reports.page.tags import Cell, duration, heading, moment, number, table, text

#: Letters of all rows of a list together, and of one: long words in a long list leave the page small. Exports have all.
LETTERS = 4000
MOST_LETTERS = 500


def html(page: Page) -> str:
    """The whole page."""
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    names = [section.manifest for section in page.manifests]
    title = names[0] if len(names) == 1 else counted(len(names), "manifest")
    body = "".join(_section(section, alone=len(names) == 1, place=n) for n, section in enumerate(page.manifests))
    versions = ", ".join(f"{name} {version}" for name, version in page.versions.items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{text(title)}: report</title><style>{STYLE}</style></head><body>"
        f'<header><h1>{text(title)}</h1><p class="soft">Report of {text(moment(page.at))}</p></header>'
        f"<main>{_overview(page)}{body or '<p>Nothing is recorded yet.</p>'}</main>"
        f"<footer><p>Ledger {text(page.ledger)}. Made by {text(versions)}.</p></footer></body></html>\n"
    )


def _overview(page: Page) -> str:
    """One line for each of several manifests."""
    if len(page.manifests) < 2:
        return ""
    rows: list[Sequence[Cell]] = [
        (
            section.manifest + (" (rehearsal)" if section.rehearsal else ""),
            headline(section)[1],
            moment(section.nights[0].started_at) if section.nights else "",
            len(section.todos) or "nothing",
        )
        for section in page.manifests
    ]
    return table(("manifest", "last run", "began", "to do"), rows, name="All manifests")


def _section(section: Section, *, alone: bool, place: int) -> str:
    name = '<h2 class="hide">The last run</h2>' if alone else f"<h2>{text(section.manifest)}</h2>"
    rehearsal = (
        '<p class="card rehearsal">A rehearsal: answered by the embedded sandbox. These are not real results, '
        "and nothing was billed.</p>"
        if section.rehearsal
        else ""
    )
    parts = [
        name,
        rehearsal,
        _first_screen(section),
        _sums(section),
        plots.history(section),
        plots.confidence(section),
        plots.course(section),
        _held(section),
        _causes(section),
        _quarantine(section),
        _review(section),
        _runs(section),
        _settings(section),
    ]
    return f'<section aria-label="{text(section.manifest)}" id="m{place}">{"".join(parts)}</section>'


def _first_screen(section: Section) -> str:
    """Three answers: whether it worked, what changed, what there is to do."""
    todos = "".join(
        f"<li>{text(todo.why)}{_command(todo.command) if todo.command else ''}</li>" for todo in section.todos
    )
    todo = f'<ul class="todo">{todos}</ul>' if todos else "<p>Nothing.</p>"
    return (
        (f'<div class="grid first">{_headline(section)}<div class="card"><h3>What to do</h3>{todo}</div></div>')
        .replace("<h3>", "<h3 class=top>")
        .replace(" class=top", "")
    )


def _command(command: str) -> str:
    """Broken between its words, where it is too long for a line."""
    words = " ".join(f"<span>{text(word, 4000)}</span>" for word in command.split(" "))
    return f"<code>{words}</code>"


def headline(section: Section) -> tuple[str, str]:
    """``good``, ``warn`` or ``bad``, and the sentence that says whether the last run worked."""
    if not section.nights:
        return "warn", "No run yet."
    last = section.nights[0]
    if last.exit_code is None:
        return "warn", f"The last run: {not_ended(section.running)}."
    if last.exit_code == ExitCode.OK:
        return ("warn", "It worked, but the answers have drifted.") if _drifted(section) else ("good", "It worked.")
    if last.exit_code == ExitCode.SOME_FAILED:
        return "bad" if section.bad * 20 > section.files else "warn", "It finished, and some files failed."
    if last.exit_code == ExitCode.UNFINISHED:
        return "warn", "It is not finished."
    return "bad", "It stopped."


def _drifted(section: Section) -> bool:
    return section.drift is not None and section.drift.alarm


def _headline(section: Section) -> str:
    kind, sentence = headline(section)
    lines = [f"<p><b>{text(sentence)}</b></p>"]
    if section.nights:
        last = section.nights[0]
        took = f", {duration(last.seconds)}" if last.seconds is not None else ""
        code = "" if last.exit_code is None else f", exit {last.exit_code}: {last.reason or ''}"
        lines.append(f"<p>{text(f'{last.command.capitalize()} of {moment(last.started_at)}{took}{code}')}</p>")
        lines += [f"<p>{text(line)}</p>" for line in _figures(last)]
    lines.append(_since(section.since) if section.since else "<p>There is no earlier run to compare with.</p>")
    if section.drift is not None and section.drift.alarm:
        lines.append(f"<p><b>{text(section.drift.words[:1].upper() + section.drift.words[1:])}.</b></p>")
    return f'<div class="card say {kind}">{"".join(lines)}</div>'


def _figures(last: Night) -> list[str]:
    """The recorded outcomes, the results to review, and the bill, in the figures and the words of ``status``."""
    types = f" Types: {last_run.by_types(last.types)}." if last.types else ""
    lines = [f"This run recorded {_listed(last.outcomes)}.{types}"]
    if last.review_by_type:
        lines.append(f"To review: {last_run.by_types(last.review_by_type)}.")
    if last.credits is not None or last.credits_ceiling:
        lines.append(f"{last_run.bill(last).capitalize()}.")
    return lines


def _listed(outcomes: dict[str, int]) -> str:
    return ", ".join(f"{number(files)} {name}" for name, files in outcomes.items()) or "no outcome"


def _since(since: Since) -> str:
    """Return the difference from the end of the run before."""
    when = text(moment(since.started_at))
    if not since.standing:
        return f"<p>Nothing has changed since the run of {when}.</p>"
    items = "".join(f"<li>{text(change)}</li>" for change in last_run.changes(since))
    return f"<p>Since the run of {when}:</p><ul>{items}</ul>"


def _sums(section: Section) -> str:
    sums: list[tuple[str, float]] = [("files", section.files)]
    sums += [(outcome.value, section.outcomes[outcome.value]) for outcome in Outcome]
    sums += [("unfinished", section.unfinished), ("to review", section.to_review), ("credits", section.credits)]
    shown = (
        f"<div><dt>{name}</dt><dd>{number(value)}</dd></div>"
        for name, value in sums
        if value or name in ("files", "classified")
    )
    return f'<dl class="sums">{"".join(shown)}</dl>'


def _causes(section: Section) -> str:
    if not section.causes:
        return ""
    rows: list[Sequence[Cell]] = [
        (each.files, each.outcome, _cut(each.words, rows=len(section.causes)), ", ".join(each.called))
        for each in section.causes
    ]
    of = f", of the latest {number(section.causes_of)}" if section.causes_of < section.bad else ""
    named = sum(each.files for each in section.causes)
    rest = f", the first {len(rows)} causes" if named < section.causes_of else ""
    title = f"{counted(section.bad, 'file')} failed, by cause{rest}{of}"
    return heading(title) + table(("files", "outcome", "the API's words", "for example"), rows, name=title)


def _review(section: Section) -> str:
    if not section.review:
        return ""
    cut = f", the {len(section.review)} least sure" if len(section.review) < section.to_review else ""
    title = f"{counted(section.to_review, 'result')} to look at{cut}"
    rows: list[Sequence[Cell]] = [
        (
            each.name or each.file_id,
            each.type or each.outcome,
            _confidence(each.confidence),
            _cut(each.reasoning or "", rows=len(section.review)),
        )
        for each in section.review
    ]
    return heading(title) + table(("file", "type", "confidence", "reasoning"), rows, name=title)


def _cut(words: str, *, rows: int) -> str:
    """Cut *words* to the room in one of so many rows; two lines of a narrow column at least."""
    return safe(words, max(min(LETTERS // rows, MOST_LETTERS), 60))


def _confidence(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _quarantine(section: Section) -> str:
    found = section.quarantined
    if not found.first:
        return ""
    cut = f", the first {len(found.first)}" if len(found.first) < found.files else ""
    title = f"{counted(found.files, 'file')} in quarantine{cut}"
    note = '<p class="soft">They are sent again only when they are named: retry --file.</p>'
    rows: list[Sequence[Cell]] = [
        (each.name or each.file_id, each.why, _cut(each.error, rows=len(found.first))) for each in found.first
    ]
    return heading(title) + note + table(("file", "why", "the API's words"), rows, name=title)


def _held(section: Section) -> str:
    if not section.held:
        return ""
    title = "Needs a decision"
    rows: list[Sequence[Cell]] = [(each.chunk_id, each.event, moment(each.at), each.note) for each in section.held]
    return heading(title) + table(("chunk", "what", "when", "why"), rows, name=title)


def _runs(section: Section) -> str:
    if not section.nights:
        return ""
    rows: list[Sequence[Cell]] = [
        (
            moment(run.started_at),
            run.command,
            "" if run.exit_code is None else run.exit_code,
            run.reason or "" if run.exit_code is not None else not_ended(None if older else section.running),
            run.run_id,
        )
        for older, run in enumerate(section.nights)
    ]
    title = f"The latest {counted(len(rows), 'run')}"
    inner = table(("began", "command", "exit", "reason", "run"), rows, name=title)
    return f'<details class="runs"><summary>{heading(title)}</summary>{inner}</details>'


def _settings(section: Section) -> str:
    config = section.config
    rows: list[Sequence[Cell]] = [(rule.type, _cut(rule.description, rows=len(config.rules))) for rule in config.rules]
    rules = table(("type", "when"), rows, name="Rules") if rows else ""
    parsing = config.parsing_configuration
    settings: list[Sequence[Cell]] = [
        ("manifest", section.path),
        ("API", f"{section.host} ({section.api})" + (f", project {section.project_id}" if section.project_id else "")),
    ]
    if config.configuration_id:
        settings.append(("configuration", config.configuration_id))
    else:
        pages = (
            f"pages {', '.join(map(str, parsing.target_pages))} (from 0)"
            if parsing.target_pages
            else f"the first {counted(parsing.max_pages or 0, 'page')}"
        )
        settings.append(("mode", f"{config.mode.value}, {pages}, language {parsing.lang}"))
    if section.below_confidence is not None:
        settings.append(("to review", f"below confidence {section.below_confidence:g}"))
    settings += [(name.replace("_", " "), _setting(value)) for name, value in section.settings.items() if value]
    settings.append(("fingerprint", section.fingerprint))
    return heading("Rules and settings") + rules + table(("setting", "value"), settings, name="Settings")


def _setting(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {each}" for name, each in value.items() if each is not None)
    return str(value)
