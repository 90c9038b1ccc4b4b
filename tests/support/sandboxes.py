"""The embedded API in a thread, for the program to talk to, and a folder of documents for it to take."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.commands import Cli

from orchestrator.sandbox import Sandbox, SandboxOptions

#: Long ago, to a folder that is looked at now.
SETTLED_NS = 1_700_000_000_000_000_000

MANIFEST = """\
version: 1
name: letters
rules:
  - type: invoice
    description: invoice number, total amount due, payment due date, bank account
  - type: receipt
    description: receipt number, cashier, thank you, paid in cash
documents_from: [inbox]
{more}
"""

INVOICE = "invoice number 7, total amount due 12.50, payment due date tomorrow, bank account"
RECEIPT = "receipt number 9, cashier Ann, thank you, paid in cash"


@contextmanager
def sandbox(**options: Any) -> Iterator[tuple[str, Sandbox]]:
    """A sandbox's base URL, and the sandbox itself, to be looked at once nobody talks to it."""
    fast = {"job_seconds": (0.01, 0.05), "lists_per_s": 0, "uploads_per_s": 0, "creates_per_s": 0, "gets_per_s": 0}
    loop, embedded = asyncio.new_event_loop(), Sandbox(SandboxOptions(**{**fast, **options}))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(embedded.start(), loop).result(10), embedded
    finally:
        asyncio.run_coroutine_threadsafe(embedded.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def uploads(embedded: Sandbox) -> Counter[str | None]:
    """How often each content was uploaded."""
    return Counter(file.external_file_id for file in embedded.state.uploads)


def creates(embedded: Sandbox) -> Counter[str]:
    """How many jobs were made for each file."""
    return Counter(file_id for job in embedded.state.journal for file_id in job.file_ids)


def put(folder: Path, documents: Mapping[str, str]) -> None:
    """Write *documents*, name and text, into *folder*, as if they had been there for long."""
    for name, text in documents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_text(text)
        path.chmod(0o600)
        os.utime(path, ns=(SETTLED_NS, SETTLED_NS))


class Desk:
    """The program in a folder with an ``inbox``, talking to a sandbox."""

    def __init__(self, folder: Path, url: str, embedded: Sandbox) -> None:
        self.cli = Cli(folder)
        self.cli.environ |= {"LLAMA_CLOUD_BASE_URL": url, "ORCHESTRATOR_UPLOADS_PER_S": "1000"}
        self.folder, self.inbox, self.embedded = folder, folder / "inbox", embedded
        self.inbox.mkdir(mode=0o700)
        self.manifest()

    def manifest(self, more: str = "") -> None:
        (self.folder / "m.yaml").write_text(MANIFEST.format(more=more))

    def put(self, **documents: str) -> None:
        """Text files: name without its suffix, and text."""
        put(self.inbox, {f"{name}.txt": text for name, text in documents.items()})


@contextmanager
def desk(folder: Path, **options: Any) -> Iterator[Desk]:
    with sandbox(**options) as (url, embedded):
        yield Desk(folder, url, embedded)
