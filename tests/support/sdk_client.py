"""Today's official SDK as a client of the API at the URL given: what it makes of each answer, as one JSON object.

A process of its own, as the tests' other SDK has the same name. Its models check every answer against their types.
"""

from __future__ import annotations

import json
import sys
from typing import Any, TypeVar

import llama_cloud

T = TypeVar("T")

RULES = [
    {"type": "invoice", "description": "asks to be paid: invoice number, line items and a total amount due"},
    {"type": "contract", "description": "an agreement between parties, with clauses and signatures"},
]


def talk(client: Any) -> dict[str, Any]:
    """Every call of the classify API that the SDK has."""
    classify = client.classify
    file = client.files.create(
        file=("a.txt", b"INVOICE. Line items: two bolts. Total amount due: 12.50"), purpose="classify"
    )
    asked = {"configuration": {"rules": RULES, "parsing_configuration": {"max_pages": 3, "target_pages": None}}}
    job = classify.create(file_input=file.id, transaction_id="once", **asked)
    again = classify.create(file_input=file.id, transaction_id="once", configuration={"rules": RULES[1:]})
    ended = classify.wait_for_completion(job.id, polling_interval=0.02)
    told = classify.get(job.id, expand=["usage"])
    on_parse = classify.run(file_input=told.parse_job_id, polling_interval=0.02, **asked)
    saved = classify.create(
        file_input=file.id,
        configuration_id="cfg-1",
        webhook_configuration_ids=["whc-1"],
        webhook_configurations=[{"webhook_url": "https://example.com", "webhook_events": ["classify.success"]}],
    )
    by_id = [found.id for found in classify.list(job_ids=[job.id, on_parse.id])]
    completed = [found.id for found in classify.list(status="COMPLETED", page_size=1)]
    refused = refusal(lambda: classify.cancel(job.id))
    stuck = classify.create(file_input="11111111-1111-4111-8111-111111111111", **asked)
    cancelled = classify.cancel(stuck.id)
    deleted = classify.delete(job.id)
    return {
        "file": file.id,
        "job": job.id,
        "again": again.id,
        "status": [job.status, ended.status, cancelled.status],
        "type": ended.result.type,
        "credits": told.usage.credits,
        "input_types": [told.document_input_type, on_parse.document_input_type],
        "on_parse": on_parse.id,
        "saved": saved.configuration_id,
        "by_id": by_id,
        "completed": completed,
        "refused": refused,
        "deleted": deleted.id,
        "gone": refusal(lambda: classify.get(job.id)),
        "bad": refusal(lambda: classify.create(file_input=file.id, configuration={"rules": []})),
    }


def refusal(call: Any) -> str:
    """The name of the error that *call* ends in."""
    try:
        call()
    except llama_cloud.APIStatusError as error:
        return type(error).__name__
    return "no error"


def main(base_url: str) -> None:
    client = llama_cloud.LlamaCloud(
        api_key="llx-any", base_url=base_url, max_retries=0, _strict_response_validation=True
    )
    with client:
        print(json.dumps({"version": llama_cloud.__version__, **talk(client)}))


if __name__ == "__main__":
    main(sys.argv[1])
