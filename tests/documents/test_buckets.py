"""A bucket in, sorted folders of a bucket out, by the manifest that would do it with folders."""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from support.sandboxes import INVOICE, RECEIPT, Desk, creates, desk, uploads

from orchestrator.documents import buckets
from orchestrator.errors import InputError

ENVIRON = {
    "AWS_ACCESS_KEY_ID": "someone",
    "AWS_SECRET_ACCESS_KEY": "anything",
    "AWS_REGION": "us-east-1",
    "AWS_ALLOW_HTTP": "true",
}


class Bucket:
    """A bucket of a real S3 server on loopback. What it holds is asked over HTTP, not by the program's library."""

    def __init__(self, url: str, name: str) -> None:
        # Nobody checks the signature; without one, the server takes the caller for a stranger.
        signed = (
            "AWS4-HMAC-SHA256 Credential=someone/20261128/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=x"
        )
        self._client, self._url = httpx.Client(headers={"Authorization": signed}, timeout=60), f"{url}/{name}"
        assert self._client.put(self._url).status_code == 200

    def put(self, key: str, text: str) -> None:
        assert self._client.put(f"{self._url}/{quote(key)}", content=text.encode()).status_code == 200

    def remove(self, key: str) -> None:
        assert self._client.delete(f"{self._url}/{quote(key)}").status_code == 204

    def get(self, key: str) -> str:
        return self._client.get(f"{self._url}/{quote(key)}").text

    def list(self) -> list[str]:
        return re.findall(r"<Key>([^<]*)</Key>", self._client.get(f"{self._url}?list-type=2").text)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from moto.server import ThreadedMotoServer
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def at(tmp_path: Path, s3: str) -> Iterator[Desk]:
    with desk(tmp_path) as at:
        at.cli.environ |= {**ENVIRON, "AWS_ENDPOINT_URL": s3}
        yield at


@pytest.fixture
def bucket(s3: str, tmp_path: Path) -> Bucket:
    """One of this test's own, of a name that its manifest says."""
    return Bucket(s3, tmp_path.name.replace("_", "-").lower())


@pytest.fixture
def manifest(at: Desk, tmp_path: Path) -> Callable[[str], None]:
    """Writes the manifest: the bucket's folder ``in`` in, and *more*."""
    name = tmp_path.name.replace("_", "-").lower()

    def write(more: str = "") -> None:
        at.manifest(more.replace("BUCKET", f"s3://{name}"))
        path = at.folder / "m.yaml"
        path.write_text(path.read_text().replace("[inbox]", f"['s3://{name}/in/']"))

    write()
    return write


def test_a_bucket_is_sorted_into_a_bucket(at: Desk, bucket: Bucket, manifest: Callable[[str], None]) -> None:
    """Each content once, two documents of one content both placed, what is passed over counted; again: nothing."""
    manifest("route: {into: BUCKET/sorted}")
    for key, text in {"a.txt": INVOICE, "x/b c.txt": RECEIPT, "twin.txt": INVOICE, ".x": "", "e.txt": ""}.items():
        bucket.put(f"in/{key}", text)
    bucket.put("elsewhere/c.txt", RECEIPT)
    done = json.loads(at.cli("run", "m.yaml", "--json").stdout)
    assert (done["exit_code"], done["classified"], done["uploaded"], done["routed"]["placed"]) == (0, 2, 2, 3)
    assert done["documents"]["skipped"] == {"hidden": 1, "empty": 1}
    placed = {key for key in bucket.list() if key.startswith("sorted/")}
    assert placed == {"sorted/invoice/a.txt", "sorted/invoice/twin.txt", "sorted/receipt/b c.txt"}
    assert bucket.get("sorted/receipt/b c.txt") == RECEIPT
    again = json.loads(at.cli("run", "m.yaml", "--json").stdout)
    assert (again["jobs_created"], again["documents"]["read"], again["routed"]["already"]) == (0, 0, 3)
    assert set(uploads(at.embedded).values()) == set(creates(at.embedded).values()) == {1}


def test_changed_content_is_a_new_document(at: Desk, bucket: Bucket, manifest: Callable[[str], None]) -> None:
    """Told by the object's tag, without reading those that have not changed."""
    bucket.put("in/a.txt", INVOICE)
    bucket.put("in/b.txt", INVOICE + "!")
    assert at.cli("run", "m.yaml").returncode == 0
    bucket.put("in/a.txt", INVOICE + "?")
    done = json.loads(at.cli("run", "m.yaml", "--json").stdout)
    assert (done["documents"]["read"], done["uploaded"], done["jobs_created"]) == (1, 1, 1)


def test_a_move_is_taken_back(at: Desk, bucket: Bucket, manifest: Callable[[str], None]) -> None:
    """From bucket to bucket and from bucket to folder; nothing of other content is overwritten."""
    bucket.put("in/a.txt", INVOICE)
    bucket.put("sorted/invoice/a.txt", "somebody else's")
    assert at.cli("run", "m.yaml").returncode == 0
    url = json.loads(at.cli("export", "m.yaml").stdout)["document"].removesuffix("/in/a.txt")
    assert at.cli("route", "m.yaml", "--into", f"{url}/sorted", "--how", "move").returncode == 0
    assert (set(bucket.list()), bucket.get("sorted/invoice/a (2).txt")) == (
        {"sorted/invoice/a.txt", "sorted/invoice/a (2).txt"},
        INVOICE,
    )
    assert at.cli("route", "m.yaml", "--into", f"{url}/sorted", "--undo").returncode == 0
    assert set(bucket.list()) == {"in/a.txt", "sorted/invoice/a.txt"}
    assert at.cli("route", "m.yaml", "--into", "here", "--how", "move").returncode == 0
    assert (at.folder / "here/invoice/a.txt").read_text() == INVOICE
    assert set(bucket.list()) == {"sorted/invoice/a.txt"}
    assert at.cli("route", "m.yaml", "--into", "here", "--undo").returncode == 0
    assert bucket.get("in/a.txt") == INVOICE
    assert at.cli("route", "m.yaml", "--into", "here", "--how", "symlink").returncode == 1


def test_a_folder_is_sorted_into_a_bucket(at: Desk, bucket: Bucket, manifest: Callable[[str], None]) -> None:
    """A move ends with the document in the bucket alone, and can be taken back."""
    at.manifest()
    at.put(a=INVOICE)
    assert at.cli("run", "m.yaml").returncode == 0
    url = f"s3://{at.folder.name.replace('_', '-').lower()}/out"
    shown = at.cli("route", "m.yaml", "--into", url, "--how", "move", "--dry-run").stdout
    assert f"{url}/invoice/a.txt (move)" in shown
    assert bucket.list() == []
    assert at.cli("route", "m.yaml", "--into", url, "--how", "move").returncode == 0
    assert (bucket.list(), list(at.inbox.iterdir())) == (["out/invoice/a.txt"], [])
    assert at.cli("route", "m.yaml", "--into", url, "--undo").returncode == 0
    assert (bucket.list(), (at.inbox / "a.txt").read_text()) == ([], INVOICE)


def test_a_bucket_that_is_not_there_is_a_line_of_the_manifest(at: Desk, manifest: Callable[[str], None]) -> None:
    """Nothing is sent; an empty one is an error as an empty folder is."""
    refused = at.cli("run", "m.yaml")
    assert refused.returncode == 2
    assert "m.yaml:8:" in refused.stderr
    assert "can't be read" in refused.stderr
    assert not at.embedded.state.requests


def test_without_the_extra_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is loaded when a URL is used, and only then."""
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(InputError, match=r"pip install 'orchestrator\[cloud\]'"):
        list(buckets.listing("s3://letters/in"))
