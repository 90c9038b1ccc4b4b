"""A folder of documents, uploaded, classified and moved into sorted folders, with faults and kill -9 all the while.

The embedded API answers 5 % of all calls with a 5xx and loses 4 % of the answers to uploads and creates. At the end
each content must have been uploaded once and bought once, and each document must stand once where it belongs, byte for
byte. Prints one JSON object; exit 0 when all of that held.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.sandboxes import INVOICE, MANIFEST, RECEIPT, SETTLED_NS, creates, sandbox, uploads

from orchestrator.models import Json

FAULTS = {"http-5xx": 0.05, "upload.drop-after": 0.04, "create.drop-after": 0.04}

#: Runs after the last kill until one ends with 0.
MOST_RUNS = 20


def write_documents(folder: Path, documents: int, size: int, rng: random.Random) -> dict[str, bytes]:
    """Name -> content of the *documents*, which are written into *folder*."""
    folder.mkdir()
    written = {}
    for number in range(documents):
        words = f"{(INVOICE, RECEIPT)[number % 2]} {number} "
        written[f"d{number}.txt"] = content = (words + rng.randbytes(size // 2).hex())[:size].encode()
        path = folder / f"d{number}.txt"
        path.write_bytes(content)
        os.utime(path, ns=(SETTLED_NS, SETTLED_NS))
    return written


def run(folder: Path, environ: dict[str, str], kill_after_s: float | None) -> int | None:
    """The exit code of one run; None when it was killed."""
    with (folder / "log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "orchestrator", "run", "m.yaml", "--quiet"],
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


def soak(documents: int, size: int, kills: int, seed: int) -> dict[str, Json]:
    began, rng = time.monotonic(), random.Random(seed)
    with tempfile.TemporaryDirectory() as name, sandbox(faults=FAULTS, seed=seed) as (url, embedded):
        folder = Path(name)
        written = write_documents(folder / "inbox", documents, size, rng)
        more = "allow_empty: true\nchunk_size: 50\nroute: {into: sorted, how: move}"
        (folder / "m.yaml").write_text(MANIFEST.format(more=more))
        environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("ORCHESTRATOR_", "LLAMA_"))},
            "LLAMA_CLOUD_BASE_URL": url,
            "LLAMA_CLOUD_API_KEY": "any",
            "ORCHESTRATOR_ENV_FILE": "none",
            "ORCHESTRATOR_SETTLE_S": "1",
            "ORCHESTRATOR_LATE_RESULTS_S": "5",
            "ORCHESTRATOR_UPLOADS_PER_S": "1000",
        }
        killed, codes = 0, []
        for _ in range(kills):
            killed += run(folder, environ, rng.uniform(0.5, 6.0)) is None
        for _ in range(MOST_RUNS):
            codes.append(run(folder, environ, None))
            if codes[-1] == 0:
                break
        sorted_ = [path for path in (folder / "sorted").rglob("*") if path.is_file()]
        right = {path.name for path in sorted_ if written.get(path.name) == path.read_bytes()}
        bought, sent = creates(embedded), uploads(embedded)
        wrong = {
            "uploaded twice": sum(times > 1 for times in sent.values()),
            "bought twice": sum(times > 1 for times in bought.values()),
            "lost": len(written.keys() - right),
            "placed twice or changed": len(sorted_) - len(right),
            "left in the folder": len(list((folder / "inbox").iterdir())),
        }
    return {
        "documents": documents,
        "kills": killed,
        "uploaded": len(sent),
        "bought": len(bought),
        "codes": codes,
        "wrong": {what: number for what, number in wrong.items() if number},
        "seconds": round(time.monotonic() - began, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser("scripts/soak documents", description=__doc__)
    parser.add_argument("--documents", type=int, default=10_000, metavar="N")
    parser.add_argument("--size", type=int, default=20_000, metavar="BYTES")
    parser.add_argument("--kills", type=int, default=200, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    arguments = parser.parse_args()
    found = soak(arguments.documents, arguments.size, arguments.kills, arguments.seed)
    print(json.dumps(found))
    sys.exit(bool(found["wrong"]) or found["codes"][-1:] != [0])


if __name__ == "__main__":
    main()
