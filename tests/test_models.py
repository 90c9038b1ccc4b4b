"""The nouns: what makes two file IDs the same."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.models import canonical_id


@given(st.uuids(), st.booleans(), st.sampled_from(["", "dfl-", "DFL-"]))
def test_every_spelling_of_a_uuid_is_one_file(uuid: UUID, upper: bool, prefix: str) -> None:
    """The API answers with one spelling, whichever was sent."""
    text = str(uuid).upper() if upper else str(uuid)
    assert canonical_id(prefix + text) == str(uuid)


@given(st.text())
def test_the_canonical_form_is_its_own(text: str) -> None:
    """To compare twice is to compare once."""
    assert canonical_id(canonical_id(text)) == canonical_id(text)


@pytest.mark.parametrize(
    "text",
    [
        "File-A",
        "dfl-file",
        "dfl-dfl-182bd5e5-6e1a-4fe4-a799-aa6d9a6ab26e",
        "pjb-182BD5E5-6e1a-4fe4-a799-aa6d9a6ab26e",
        "182BD5E56E1A4FE4A799AA6D9A6AB26E",
        "182BD5E5-6e1a-4fe4-a799-aa6d9a6ab26e-2",
        "\uff11\uff18\uff12BD5E5-6e1a-4fe4-a799-aa6d9a6ab26e",
    ],
)
def test_any_other_id_is_as_it_is(text: str) -> None:
    """Opaque text: nothing is known of what may be changed in it."""
    assert canonical_id(text) == text
