"""``notify:`` in the manifest: one message when the state of its work has changed, by Apprise.

A dead service fails and slows nothing. An address is a secret: no log, message or ledger has it.
"""

from __future__ import annotations

import logging
import threading
import time
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import structlog

from orchestrator.commands.access import address
from orchestrator.commands.summary import Summary
from orchestrator.errors import OrchestratorError, SettingsError
from orchestrator.ledger import Ledger
from orchestrator.ledger.views import notified, reading
from orchestrator.logs import redactor
from orchestrator.manifest.loading import Manifest
from orchestrator.plaintext import safe
from orchestrator.reports import notices
from orchestrator.reports.last_run import in_lines, what_to_do
from orchestrator.reports.latest_runs import last_night
from orchestrator.settings import Settings

if TYPE_CHECKING:
    from apprise import Apprise

log = structlog.get_logger()

#: The most that all services together may take.
TIMEOUT_S = 10.0

#: Apprise's word for each kind of news: services show it as a colour or a sign.
KINDS = {"trouble": "failure", "decision": "warning", "drift": "warning", "recovery": "success", "test": "info"}


def urls(manifest: Manifest, settings: Settings) -> list[str]:
    """The services to notify, as Apprise names them: the manifest's, and those of ``ORCHESTRATOR_NOTIFY``."""
    more = settings.notify.get_secret_value().split() if settings.notify else []
    found = list(dict.fromkeys([*manifest.notify, *more]))
    redactor.add(found)
    return found


def check(manifest: Manifest, settings: Settings) -> None:
    """Raises SettingsError when there is someone to notify and nothing installed to do it with."""
    if urls(manifest, settings) and find_spec("apprise") is None:
        raise SettingsError("notify needs an extra; run: pip install 'orchestrator[notify]'")


def services(found: Sequence[str]) -> list[Apprise | None]:
    """A service for each URL; None where Apprise does not know it. Its own log is off, as it shows addresses."""
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    made: list[Apprise | None] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the modules that it loads
        import apprise

        for url in found:
            service = apprise.Apprise()
            made.append(service if service.add(url) else None)
    return made


def send(found: Sequence[str], kind: str, title: str, body: str, timeout_s: float = TIMEOUT_S) -> int:
    """Notify every service, all at once; return how many took it in time."""
    from apprise import NotifyType

    taken: list[bool] = []

    def tell(service: Apprise) -> None:
        try:
            taken.append(bool(service.notify(title=title, body=body, notify_type=NotifyType(KINDS[kind]))))
        except Exception as error:  # noqa: BLE001 - whatever a service's library raises
            log.debug("notice.not_sent", error=type(error).__name__)

    threads = [
        threading.Thread(target=tell, args=(service,), daemon=True)
        for service in services(found)
        if service is not None
    ]
    end = time.monotonic() + timeout_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return sum(taken)


def of_end(manifest: Manifest, settings: Settings, option: str | None, opened: Ledger, summary: Summary) -> None:
    """Notify of a run that is recorded, if it is news. *option*: ``--ledger``."""
    found = urls(manifest, settings)
    if not found:
        return
    now = notices.state_of(summary.as_json())
    with opened.transaction() as connection:
        (row,) = reading.manifests(connection, manifest.name, rehearsal=False)
        before = notices.known(notified.last(connection, row.id))
        last = last_night(connection, row.id)
    what = notices.news(before, now)
    if what is not None:
        lines = in_lines(manifest.name, last, None, address(manifest.path, settings, option))
        drift = summary.drift.words if summary.drift is not None and summary.drift.alarm else None
        if not _sent(found, what, *notices.message(what, manifest.name, now, lines, drift)):
            return  # the next run reports it
    with opened.transaction() as connection:
        notified.keep(connection, row.id, now.json)


def of_failure(
    manifest: Manifest, settings: Settings, option: str | None, opened: Ledger | None, code: int, why: str
) -> None:
    """Notify of a run that recorded nothing. Without its ledger nobody knows what was reported before."""
    found = urls(manifest, settings)
    if not found or find_spec("apprise") is None:
        return
    before, manifest_id = notices.State(), None
    if opened is not None:
        with opened.transaction() as connection:
            rows = reading.manifests(connection, manifest.name, rehearsal=False)
            if rows:
                manifest_id = rows[0].id
                before = notices.known(notified.last(connection, manifest_id))
    now = before.failing(code)
    if notices.news(before, now) is None:
        return
    steps: list[str] = []
    try:
        steps = what_to_do(code, None, address(manifest.path, settings, option))
    except OrchestratorError:
        log.debug("notice.without_commands")
    lines = [f"{manifest.name}: exit {code}: {safe(why)}", *(f"now: {step}" for step in steps)]
    sent = _sent(found, "trouble", *notices.message("trouble", manifest.name, notices.State(), lines, None))
    if sent and opened is not None and manifest_id is not None:
        with opened.transaction() as connection:
            notified.keep(connection, manifest_id, now.json)


def _sent(found: Sequence[str], what: notices.News, title: str, body: str) -> bool:
    """Whether at least one service took it; the log has how many."""
    taken = send(found, what, redactor.text(title), redactor.text(body))
    if taken < len(found):
        log.warning("notice.not_sent", services=len(found), taken=taken, about=what)
    if taken:
        log.info("notice.sent", services=taken, about=what)
    return taken > 0
