"""A manifest and a ledger for the tests of planning, which start no program.

The fixtures are those of tests/planning.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection
from support.ledgers import AT

from orchestrator.ledger import Ledger
from orchestrator.manifest.loading import Manifest, load
from orchestrator.models import Config, Mode, ParsingConfiguration, Rule

MANIFEST = """\
version: 1
name: m
file_ids: [a, b, c]
chunk_size: 2
parsing_configuration: {max_pages: 1}
rules: [{type: invoice, description: contains line items}]
"""

NOW = datetime.fromisoformat(AT) + timedelta(hours=1)

ONE_PAGE = ParsingConfiguration(max_pages=1)
#: The rules before the manifest was changed. One file costs 1 credit with these as with the present ones.
OLD = Config((Rule("invoice", "has a total"),), parsing_configuration=ONE_PAGE)
#: The present rules in the better mode: 2 credits a file.
BETTER = Config((Rule("invoice", "contains line items"),), Mode.MULTIMODAL, ONE_PAGE)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Of v1, in chunks of two; one file costs 1 credit at most."""
    path = tmp_path / "m.yaml"
    path.write_text(MANIFEST)
    return load(str(path), environ={})


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    with Ledger(tmp_path / "ledger.db") as opened, opened.transaction() as connection:
        yield connection


def many(letter: str, number: int) -> list[str]:
    return [f"{letter}{each}" for each in range(number)]
