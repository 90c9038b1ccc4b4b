"""OpenTelemetry: a span for the run and one for each of its jobs, sent at the end to ``OTEL_EXPORTER_OTLP_ENDPOINT``.

Nothing of it is loaded without that variable and the extra ``otel``. A dead or slow collector is not waited for.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING

import structlog

from orchestrator import __version__
from orchestrator.ledger.views.traced import Job
from orchestrator.models import Json
from orchestrator.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import Tracer

log = structlog.get_logger()

#: The most that the collector may take, in all.
TIMEOUT_S = 10.0

#: Spans in one request, and the jobs of one run that have a span: the latest.
BATCH = 512
MOST_JOBS = 10_000


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that has ended, and what is said of it."""

    command: str
    began: datetime
    ended: datetime
    exit_code: int
    reason: str
    attributes: Mapping[str, Json]


def wanted(settings: Settings) -> bool:
    """Whether there is a collector, and the extra to talk to it."""
    return settings.otel_endpoint is not None and find_spec("opentelemetry.sdk") is not None


def send(settings: Settings, run: Ended, jobs: Sequence[Job]) -> None:
    """Send the spans of *run* and its *jobs*. What is not taken in time is lost, and the log says so."""
    if not wanted(settings) or settings.otel_endpoint is None:
        return
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)  # of a dead collector one line is enough
    taken = threading.Event()
    endpoint, trace = settings.otel_endpoint.rstrip("/") + "/v1/traces", settings.traceparent

    def export() -> None:
        try:
            if _export(endpoint, _spans(run, jobs, trace)):
                taken.set()
        except Exception as error:  # noqa: BLE001 - whatever the library makes of endpoint and environment
            log.debug("traces.not_sent", error=type(error).__name__)

    thread = threading.Thread(target=export, daemon=True)
    thread.start()
    thread.join(TIMEOUT_S)
    if not taken.is_set():
        log.warning("traces.not_sent", jobs=len(jobs))


def _export(endpoint: str, spans: Sequence[ReadableSpan]) -> bool:
    """Whether the collector took all *spans*."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import SpanExportResult

    exporter = OTLPSpanExporter(endpoint=endpoint, timeout=TIMEOUT_S / 2)
    batches = (spans[start : start + BATCH] for start in range(0, len(spans), BATCH))
    return all(exporter.export(batch) is SpanExportResult.SUCCESS for batch in batches)


def _spans(run: Ended, jobs: Sequence[Job], traceparent: str | None) -> Sequence[ReadableSpan]:
    """The spans; none where whoever began the trace does not want it recorded."""
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.trace import Status, StatusCode, set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    about = Resource({"service.name": "orchestrator", "service.version": __version__})
    provider = TracerProvider(resource=about.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    kept = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    tracer = provider.get_tracer("orchestrator", __version__)
    outer = TraceContextTextMapPropagator().extract({"traceparent": traceparent} if traceparent else {})
    known = {name: value for name, value in run.attributes.items() if value is not None}
    root = tracer.start_span(
        f"orchestrator {run.command}",
        outer,
        start_time=_ns(run.began),
        attributes={**known, "process.exit.code": run.exit_code},
    )
    inner = set_span_in_context(root)
    for job in jobs:
        _add_job(tracer, inner, job, run.ended)
    root.set_status(Status(StatusCode.ERROR, run.reason) if run.exit_code else Status(StatusCode.OK))
    root.end(_ns(run.ended))
    return kept.get_finished_spans()


def _add_job(tracer: Tracer, inner: Context, job: Job, run_ended: datetime) -> None:
    """One span for *job*, from its submission to its end, or to the run's where it went on."""
    from opentelemetry.trace import SpanKind, Status, StatusCode

    span = tracer.start_span(
        "classify job",
        inner,
        kind=SpanKind.CLIENT,
        start_time=_ns(datetime.fromisoformat(job.submitted_at)),
        attributes={
            "orchestrator.job.id": job.job_id,
            "orchestrator.job.api": job.api,
            "orchestrator.job.status": job.status,
            "orchestrator.job.files": job.files,
        },
    )
    if job.status in ("failed", "cancelled"):
        span.set_status(Status(StatusCode.ERROR, job.error or job.status))
    span.end(_ns(datetime.fromisoformat(job.finished_at) if job.finished_at else run_ended))


def _ns(at: datetime) -> int:
    return int(at.timestamp() * 1000) * 1_000_000
