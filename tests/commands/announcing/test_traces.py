"""OpenTelemetry: the spans that a collector gets of a run, and that a dead one does no harm."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from support.commands import Classify, Cli, Serve, command_line
from support.server import Server

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def cli(tmp_path: Path, serve: Serve) -> Iterator[Cli]:
    with command_line(tmp_path) as cli:
        cli.use(serve(Classify()))
        yield cli


@pytest.fixture
def collector(cli: Cli, serve: Serve) -> Server:
    async def take(_: web.Request) -> web.StreamResponse:
        return web.Response(content_type="application/x-protobuf")

    server = serve(take)
    cli.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = server.url
    return server


def spans(collector: Server) -> list[Span]:
    """All that the collector was sent."""
    assert {seen.path for seen in collector.seen} <= {"/v1/traces"}
    requests = [ExportTraceServiceRequest.FromString(seen.body) for seen in collector.seen]
    return [span for request in requests for of in request.resource_spans for at in of.scope_spans for span in at.spans]


def attributes(span: Span) -> dict[str, str | int]:
    return {
        pair.key: pair.value.string_value if pair.value.HasField("string_value") else pair.value.int_value
        for pair in span.attributes
    }


def test_a_run_is_a_span_and_each_job_one_within_it(cli: Cli, collector: Server) -> None:
    """It joins the trace of whoever called it."""
    cli.manifest("a", "b", "c", size=1)
    assert cli("run", "m.yaml", TRACEPARENT=f"00-{TRACE}-{PARENT}-01").returncode == 0
    *jobs, root = sorted(spans(collector), key=lambda span: span.name)
    assert (root.name, root.trace_id.hex(), root.parent_span_id.hex()) == ("orchestrator run", TRACE, PARENT)
    assert attributes(root)["process.exit.code"] == 0
    assert [job.name for job in jobs] == ["classify job"] * 3
    assert {job.parent_span_id for job in jobs} == {root.span_id}
    assert {attributes(job)["orchestrator.job.id"] for job in jobs} == {"job-0", "job-1", "job-2"}
    for job in jobs:
        assert (
            root.start_time_unix_nano <= job.start_time_unix_nano <= job.end_time_unix_nano <= root.end_time_unix_nano
        )


def test_a_run_that_does_not_begin_has_its_exit_code(cli: Cli, collector: Server) -> None:
    """And the reason as its status."""
    assert cli("run", "m.yaml", LLAMA_CLOUD_API_KEY="").returncode == 2
    (root,) = spans(collector)
    assert attributes(root)["process.exit.code"] == 2
    assert root.status.message.startswith("LLAMA_CLOUD_API_KEY is not set")


def test_a_trace_that_is_not_recorded_gets_no_span(cli: Cli, collector: Server) -> None:
    """As the flag of its caller says."""
    assert cli("run", "m.yaml", TRACEPARENT=f"00-{TRACE}-{PARENT}-00").returncode == 0
    assert spans(collector) == []


def test_a_collector_that_is_dead_fails_no_run(cli: Cli, unused_port: int) -> None:
    """One line in the log."""
    done = cli("run", "m.yaml", OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{unused_port}")
    assert (done.returncode, done.stderr.count("traces.not_sent")) == (0, 1)
