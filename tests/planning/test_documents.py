"""Documents taken in: what is unchanged is known again and not read, whatever it is called."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

from support.sandboxes import MANIFEST, SETTLED_NS

from orchestrator import ledger
from orchestrator.manifest import loading
from orchestrator.planning.documents import take

NAMES = (b"plain.pdf", b"back\\slash.pdf", b"two\\\\.pdf", b"not-utf8-\xff.pdf", "schön.pdf".encode())


def test_unchanged_documents_are_known_again_and_gone_ones_come_back(tmp_path: Path) -> None:
    """A second look reads nothing, a name that is no text included; a document moved away and back is no new one."""
    (tmp_path / "m.yaml").write_text(MANIFEST.format(more=""))
    inbox = os.fsencode(tmp_path / "inbox")
    os.mkdir(inbox)  # noqa: PTH102 - names of bytes
    for number, name in enumerate(NAMES):
        path = inbox + b"/" + name
        with open(path, "wb") as file:  # noqa: PTH123 - as above
            file.write(b"%d" % number)
        os.utime(path, ns=(SETTLED_NS, SETTLED_NS))
    manifest = loading.load(str(tmp_path / "m.yaml"), environ={})

    with closing(ledger.open(tmp_path / "ledger.db")) as opened:

        def look() -> tuple[int, int, int]:
            found, taken = take(manifest, opened, write=True)
            assert taken is not None
            return taken.documents, len(found.ids), taken.read

        looks = [look(), look()]
        os.rename(inbox + b"/" + NAMES[1], tmp_path / "away")  # noqa: PTH104 - as above
        looks += [look(), look()]
        os.rename(tmp_path / "away", inbox + b"/" + NAMES[1])  # noqa: PTH104 - as above
        looks += [look(), look()]

    assert looks == [(5, 5, 5), (5, 5, 0), (4, 4, 0), (4, 4, 0), (5, 5, 0), (5, 5, 0)]
