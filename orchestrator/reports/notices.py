"""Whether the end of a run is news to those who are notified, and the message. Two states decide it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from orchestrator.errors import ExitCode
from orchestrator.models import BAD, Json
from orchestrator.plaintext import counted

News = Literal["trouble", "decision", "drift", "recovery"]

#: How a message begins that is not about a new trouble: that one begins with the exit code.
TITLES: Mapping[News, str] = {
    "decision": "needs a decision",
    "drift": "the answers have drifted",
    "recovery": "well again",
}


@dataclass(frozen=True, slots=True)
class State:
    """How a manifest stands, as far as a person has to act on it."""

    trouble: int = 0  #: the exit code; 1 as long as there are failed files that nobody has decided on, known or not
    failed: int = 0  #: files that failed, are missing or were cancelled, and that nobody has decided on
    held: int = 0  #: files in chunks that wait for a person
    quarantined: int = 0
    drift: bool = False

    @property
    def json(self) -> dict[str, Json]:
        return asdict(self)

    def failing(self, exit_code: int) -> State:
        """The same after a run that recorded nothing but how it ended."""
        return replace(self, trouble=exit_code)


def known(told: Mapping[str, Json]) -> State:
    """The state that was reported; all well before the first time."""
    return State(**{name: told[name] for name in State.__slots__ if name in told})


def state_of(summary: Mapping[str, Json]) -> State:
    """The state at the end of a run with this *summary*."""
    failed = sum(summary[outcome.value] for outcome in BAD) - summary["dismissed"]
    code = summary["exit_code"]
    if code in (ExitCode.OK, ExitCode.SOME_FAILED):
        code = int(failed > 0)  # that the failures are known to the run does not mean that they are decided on
    drift = summary["drift"]
    return State(code, failed, summary["held"], summary["quarantined"]["files"], bool(drift and drift["alarm"]))


def news(told: State, now: State) -> News | None:
    """The news since the last message, or None. Fewer failures are no news, unless all is well again."""
    if now.trouble and now.trouble != told.trouble:
        return "trouble"
    if told.trouble and not now.trouble:
        return "recovery"
    if now.failed > told.failed or now.held > told.held or now.quarantined > told.quarantined:
        return "decision"
    return "drift" if now.drift and not told.drift else None


def message(what: News, name: str, now: State, lines: Sequence[str], drift: str | None) -> tuple[str, str]:
    """Title and text. *lines*: the last run in a few lines; *drift*: its drift in words, if it passes the threshold."""
    first, *rest = lines
    title = first if what == "trouble" else f"{name}: {TITLES[what]} ({first.removeprefix(f'{name}: ')})"
    waiting = [
        f"held for a decision: {counted(now.held, 'file')}; see `orchestrator status`" if now.held else "",
        f"quarantined: {counted(now.quarantined, 'file')}, sent again only by name" if now.quarantined else "",
        drift or "",
    ]
    steps = [line for line in rest if line.startswith("now: ")]
    told = [line for line in rest if not line.startswith("now: ")]
    return title, "\n".join([*told, *filter(None, waiting), *steps]) or first
