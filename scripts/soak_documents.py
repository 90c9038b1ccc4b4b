"""A folder of documents, uploaded, classified and moved into sorted folders, with faults and kill -9 all the while.

The embedded API answers 5 % of all calls with a 5xx and loses 4 % of the answers to uploads and creates. Half of the
kills strike `run`, the other half `route` and `route --undo`, whose moves they interrupt. At the end each content must
have been uploaded once and bought once, and each document must stand once where it belongs, byte for byte. With
--bucket the documents lie in a bucket, of a server of this process, and are sorted into it. Prints one JSON object;
exit 0 when all of that held.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.sandboxes import INVOICE, MANIFEST, RECEIPT, SETTLED_NS, creates, sandbox, uploads

from orchestrator.documents import buckets
from orchestrator.models import Json

FAULTS = {"http-5xx": 0.05, "upload.drop-after": 0.04, "create.drop-after": 0.04}

#: Runs after the last kill until one ends with 0.
MOST_RUNS = 20

#: The seconds that a program under way has at least before it is killed, and at most.
SPARED_S = (0.5, 6.0)

BUCKET = "s3://soak"

RUN, ROUTE, UNDO = ("run", "--quiet"), ("route",), ("route", "--undo")


class Place:
    """The documents in a folder of this machine."""

    inbox, sorted = "inbox", "sorted"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / self.inbox).mkdir()

    def put(self, name: str, content: bytes) -> None:
        path = self._folder / self.inbox / name
        path.write_bytes(content)
        os.utime(path, ns=(SETTLED_NS, SETTLED_NS))

    def found(self, where: str) -> list[tuple[str, bytes]]:
        """Name and content of each document below *where*."""
        return [(path.name, path.read_bytes()) for path in (self._folder / where).rglob("*") if path.is_file()]


class BucketPlace(Place):
    """The documents in a bucket."""

    inbox, sorted = f"{BUCKET}/inbox", f"{BUCKET}/sorted"

    def __init__(self) -> None:
        pass

    def put(self, name: str, content: bytes) -> None:
        buckets.put(f"{self.inbox}/{name}", content)

    def found(self, where: str) -> list[tuple[str, bytes]]:
        found = []
        with suppress(FileNotFoundError):
            for each in buckets.listing(where):
                with os.fdopen(buckets.open_object(each.url), "rb") as file:
                    found.append((each.url.rpartition("/")[2], file.read()))
        return found


@contextmanager
def bucket_server() -> Iterator[None]:
    """A server of buckets, which this process and its children find by their environment."""
    import httpx

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would tell of every request
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from moto.server import ThreadedMotoServer
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "anything",
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ENDPOINT_URL": url,
    }
    signed = "AWS4-HMAC-SHA256 Credential=someone/20261128/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=x"
    httpx.put(f"{url}/{BUCKET.removeprefix('s3://')}", headers={"Authorization": signed}, timeout=60).raise_for_status()
    try:
        yield
    finally:
        server.stop()


def write_documents(place: Place, documents: int, size: int, rng: random.Random) -> dict[str, bytes]:
    """Name -> content of the *documents*, which are put into *place*."""
    written = {}
    for number in range(documents):
        words = f"{(INVOICE, RECEIPT)[number % 2]} {number} "
        written[f"d{number}.txt"] = content = (words + rng.randbytes(size // 2).hex())[:size].encode()
        place.put(f"d{number}.txt", content)
    return written


def call(folder: Path, environ: dict[str, str], what: tuple[str, ...], kill_after_s: float | None) -> int | None:
    """The exit code of one command; None when it was killed."""
    command, *options = what
    with (folder / "log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "orchestrator", command, "m.yaml", *options],
            cwd=folder,
            env=environ,
            stdout=log,
            stderr=log,
        )
        with suppress(subprocess.TimeoutExpired):
            return child.wait(kill_after_s)
        child.kill()
        child.wait()
        return None


def kill_runs(folder: Path, environ: dict[str, str], kills: int, rng: random.Random) -> int:
    """Kill `run` again and again until it has nothing to do any more or *kills* are made; how many were."""
    killed = 0
    while killed < kills and call(folder, environ, RUN, rng.uniform(*SPARED_S)) is None:
        killed += 1
    return killed


def kill_routes(folder: Path, environ: dict[str, str], kills: int, rng: random.Random) -> int:
    """Kill the moves there and back until *kills* are made; how many were, in three times as many calls at most."""
    killed, calls, longest_s = 0, 0, SPARED_S[1]
    while killed < kills and calls < 3 * kills:
        calls += 1
        what = (UNDO, ROUTE)[calls // 3 % 2]  # several of a kind in a row: the next one finishes what was begun
        began = time.monotonic()
        if call(folder, environ, what, rng.uniform(SPARED_S[0], longest_s)) is None:
            killed += 1
        else:
            longest_s = max(1.0, time.monotonic() - began)
    return killed


def soak(documents: int, size: int, kills: int, seed: int, *, bucket: bool) -> dict[str, Json]:
    began, rng = time.monotonic(), random.Random(seed)
    with (
        tempfile.TemporaryDirectory() as name,
        bucket_server() if bucket else nullcontext(),
        sandbox(faults=FAULTS, seed=seed) as (url, embedded),
    ):
        folder = Path(name)
        place = BucketPlace() if bucket else Place(folder)
        written = write_documents(place, documents, size, rng)
        more = f"allow_empty: true\nchunk_size: 50\nroute: {{into: '{place.sorted}', how: move}}"
        (folder / "m.yaml").write_text(MANIFEST.format(more=more).replace("[inbox]", f"['{place.inbox}']"))
        environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("ORCHESTRATOR_", "LLAMA_"))},
            "LLAMA_CLOUD_BASE_URL": url,
            "LLAMA_CLOUD_API_KEY": "any",
            "ORCHESTRATOR_ENV_FILE": "none",
            "ORCHESTRATOR_SETTLE_S": "1",
            "ORCHESTRATOR_LATE_RESULTS_S": "5",
            "ORCHESTRATOR_UPLOADS_PER_S": "1000",
        }
        killed = kill_runs(folder, environ, kills // 2, rng)
        codes = [call(folder, environ, RUN, None)]
        routes_killed = kill_routes(folder, environ, kills - killed, rng)
        for _ in range(MOST_RUNS):
            codes.append(call(folder, environ, RUN, None))
            if codes[-1] == 0:
                break
        in_place = place.found(place.sorted)
        right = {name for name, content in in_place if written.get(name) == content}
        bought, sent = creates(embedded), uploads(embedded)
        wrong = {
            "uploaded twice": sum(times > 1 for times in sent.values()),
            "bought twice": sum(times > 1 for times in bought.values()),
            "lost": len(written.keys() - right),
            "placed twice or changed": len(in_place) - len(right),
            "left in the folder": len(place.found(place.inbox)),
        }
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {
        "documents": documents,
        "kills": killed + routes_killed,
        "while routing": routes_killed,
        "uploaded": len(sent),
        "bought": len(bought),
        "codes": codes,
        "wrong": {what: number for what, number in wrong.items() if number},
        "seconds": round(time.monotonic() - began, 1),
        "cpu_s": round(children.ru_utime + children.ru_stime, 1),  #: of the program
        "servers_cpu_s": round(own.ru_utime + own.ru_stime, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser("scripts/soak documents", description=__doc__)
    parser.add_argument("--documents", type=int, default=10_000, metavar="N")
    parser.add_argument("--size", type=int, default=20_000, metavar="BYTES")
    parser.add_argument("--kills", type=int, default=200, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--bucket", action="store_true", help="from a bucket into a bucket")
    arguments = parser.parse_args()
    found = soak(arguments.documents, arguments.size, arguments.kills, arguments.seed, bucket=arguments.bucket)
    print(json.dumps(found))
    sys.exit(bool(found["wrong"]) or found["codes"][-1:] != [0])


if __name__ == "__main__":
    main()
