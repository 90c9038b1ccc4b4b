"""Upload files to LlamaCloud for classifying, and print their IDs: one a line, or CSV with ``file_id,name``.

A manifest's ``file_ids_from`` reads both. Key and URL come from the program's settings. Each row is printed as soon as
its file is uploaded, so the rows on standard output hold even if a later file fails.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from orchestrator import settings
from orchestrator.errors import OrchestratorError
from orchestrator.plaintext import safe


def passing(error: BaseException) -> bool:
    """Return whether another attempt may succeed. An upload is not billed, so a repeated one does no harm."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in (408, 429) or error.response.status_code >= 500
    return isinstance(error, httpx.TransportError)


@retry(
    retry=retry_if_exception(passing),
    stop=stop_after_attempt(5),
    wait=wait_exponential_jitter(initial=1, max=20),
    reraise=True,
)
def upload(client: httpx.Client, path: Path) -> str:
    """Upload *path* and return its file ID. Raises OSError, httpx.HTTPError, or ValueError when there is none."""
    with path.open("rb") as content:
        answer = client.post("/api/v1/beta/files", data={"purpose": "classify"}, files={"file": (path.name, content)})
    answer.raise_for_status()
    match answer.json():
        case {"id": str(file_id)}:
            return file_id
    raise ValueError("the answer names no file ID")


def uploaded(client: httpx.Client, paths: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """Upload *paths* in order; yield each file's ID and name. Raises SystemExit, naming the first file that fails."""
    for path in paths:
        try:
            yield upload(client, path), path.name
        except httpx.HTTPStatusError as error:
            said = f"{error.response.status_code} {error.response.text[:200]}"
            raise SystemExit(f"upload: {safe(str(path))}: the API said {safe(said)}") from None
        except (OSError, httpx.HTTPError, ValueError) as error:
            raise SystemExit(f"upload: {safe(str(path))}: {safe(str(error) or type(error).__name__)}") from None


def main() -> None:
    parser = argparse.ArgumentParser("scripts/upload", description="Upload files for classifying; print their IDs.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--csv", action="store_true", help="columns file_id and name, instead of one ID a line")
    arguments = parser.parse_args()
    try:
        loaded = settings.load()
        base_url, key = settings.checked_base_url(loaded.base_url), settings.key_of(loaded)
    except OrchestratorError as error:
        parser.exit(int(error.exit_code), f"upload: {error}\n")

    rows = csv.writer(sys.stdout, lineterminator="\n")
    if arguments.csv:
        rows.writerow(("file_id", "name"))
    with httpx.Client(base_url=base_url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as client:
        for file_id, name in uploaded(client, arguments.files):
            rows.writerow((file_id, name) if arguments.csv else (file_id,))
            sys.stdout.flush()


if __name__ == "__main__":
    main()
