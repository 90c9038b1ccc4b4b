"""Names from outside: kept whole, and never a way out of a folder."""

from __future__ import annotations

import os

from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.documents.names import MAX_NAME_BYTES, component, for_upload, native, shortened, stored

NAMES = st.binary(min_size=1, max_size=300).filter(lambda name: b"\0" not in name).map(os.fsdecode)


@given(NAMES)
@example("a\\xffb")
@example(os.fsdecode(b"\xff\\"))
def test_any_path_comes_back_from_its_stored_form(path: str) -> None:
    """The ledger keeps text; a path is bytes."""
    assert native(stored(path)) == path
    stored(path).encode()


@given(NAMES | st.text(max_size=300))
@example("..")
@example(" .. ")
@example("../../etc/passwd")
@example("")
def test_a_component_is_one_name_in_its_folder(text: str) -> None:
    """Whatever a type or a name is, it neither leads elsewhere nor is too long."""
    name = component(text)
    assert name.strip() not in ("", ".", "..")
    assert "/" not in name
    assert "\0" not in name
    assert "\n" not in name
    assert (
        "surrogates" in name or len(name.encode("utf-8", "surrogateescape" if _encodable(name) else "replace")) <= 255
    )


def _encodable(name: str) -> bool:
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


def test_two_long_names_stay_two_and_keep_their_suffix() -> None:
    """A cut name carries a digest of the whole one."""
    one, two = (shortened("é" * 200 + str(number) + ".pdf") for number in range(2))
    assert one != two
    assert one.endswith(".pdf")
    assert len(os.fsencode(one)) <= MAX_NAME_BYTES


@given(NAMES)
def test_the_api_gets_one_line_of_text(name: str) -> None:
    """No half character, no line end and no path reaches a header of the upload."""
    told = for_upload(name)
    told.encode()
    assert told
    assert not set("/\r\n\0") & set(told)
