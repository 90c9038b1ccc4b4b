"""The baseline: what one writes by hand with the official SDK. A task per job, so many at once; no ledger.

Usage: .venv/bin/python scripts/bench/sdk_script.py URL v1|v2 FILES [--at-once N] [--per-s R] [--chunk-size N]
Prints one JSON object: when each job was known to have ended, and how many tasks raised.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from llama_cloud import APIError, AsyncLlamaCloud
from llama_cloud.types import ClassifyConfigurationParam
from llama_cloud.types.classifier import ClassifierRuleParam
from program import RULES, Measured, file_ids, measure

V1_RULES = [ClassifierRuleParam(type=rule["type"], description=rule["description"]) for rule in RULES]
V2_CONFIGURATION = ClassifyConfigurationParam(
    rules=[{"type": rule["type"], "description": rule["description"]} for rule in RULES]
)


async def classify(client: AsyncLlamaCloud, api: str, chunk: Sequence[str]) -> str:
    """Create a job for *chunk* and wait for its end; its ID."""
    if api == "v1":
        job = await client.classifier.jobs.create(file_ids=list(chunk), rules=V1_RULES)
        await client.classifier.wait_for_completion(job.id)
        await client.classifier.jobs.get_results(job.id)
        return job.id
    created = await client.classify.create(file_input=chunk[0], configuration=V2_CONFIGURATION)
    await client.classify.wait_for_completion(created.id)
    return created.id


async def run(url: str, api: str, files: int, at_once: int, per_s: float, chunk_size: int) -> dict[str, Any]:
    noticed: dict[str, float] = {}
    lost = 0
    slots = asyncio.Semaphore(at_once)

    async def one(client: AsyncLlamaCloud, number: int, chunk: Sequence[str]) -> None:
        nonlocal lost
        if per_s:
            await asyncio.sleep(number / per_s)
        async with slots:
            try:
                job_id = await classify(client, api, chunk)
                noticed[job_id] = time.time()
            except APIError:
                lost += 1

    async with AsyncLlamaCloud(api_key="bench", base_url=url) as client, asyncio.TaskGroup() as tasks:
        listed = list(file_ids(files))
        for number, first in enumerate(range(0, files, chunk_size)):
            tasks.create_task(one(client, number, listed[first : first + chunk_size]))
    return {"noticed": noticed, "lost": lost}


def sdk(url: str, api: str, files: int, *options: str) -> Measured:
    """Run this script as a process of its own."""
    # v1 is deprecated in the SDK, and every call of it says so.
    quiet = ("-W", "ignore::DeprecationWarning")
    return measure([sys.executable, *quiet, __file__, url, api, str(files), *options], url)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("api", choices=("v1", "v2"))
    parser.add_argument("files", type=int)
    parser.add_argument("--at-once", type=int, default=100)
    parser.add_argument("--per-s", type=float, default=0.0)
    parser.add_argument("--chunk-size", type=int, default=1)
    given = parser.parse_args()
    done = asyncio.run(run(given.url, given.api, given.files, given.at_once, given.per_s, given.chunk_size))
    print(json.dumps(done))


if __name__ == "__main__":
    main()
