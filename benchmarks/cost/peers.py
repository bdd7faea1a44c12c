"""The same work told by others' means: Logfire's pending spans, and a processor that repeats open spans.

python -m benchmarks.cost.peers pending|logs|partial STAGES SECONDS LASTS
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from google.protobuf import json_format
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

from otel_progress.outbound import otlp
from otel_progress.rehearsal import Work
from otel_progress.telemetry.tally import LEVEL, Tally
from otel_progress.testing import FakeClock

PEERS = {
    "pending": "Logfire, pending spans",
    "logs": "the same with a log each second",
    "partial": "partial spans, each open span every 5 s",
}
HEARTBEAT = 5
"""Seconds between two heartbeats of a partial span."""


def count(tally: Tally, body: bytes, items: int) -> None:
    tally.requests += 1
    tally.items += items
    tally.size += len(body)
    tally.zipped += len(gzip.compress(body, LEVEL))


def seconds(work: Work) -> Iterator[tuple[int, int | None, bool]]:
    """Each second of an operation: its number, the stage that begins now (if any), and whether a new one begins."""
    before = None
    for second in range(work.seconds):
        stage = second * work.stages // work.seconds
        yield second, stage, stage != before
        before = stage


# -- spans of Logfire


def logfire_spans(work: Work, fake: FakeClock, *, logs: bool) -> dict[str, Tally]:
    """Spans for the operation and its stages, sent as they begin and as they end; with `logs`, a log each second."""
    import logfire
    from logfire.testing import TestExporter
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    sent = Tally()
    waiting: list[ReadableSpan] = []

    class Exporter(TestExporter):  # Logfire gives pending spans to few exporters, this is one
        def export(self, spans: Sequence[ReadableSpan]) -> Any:
            waiting.extend(spans)
            from opentelemetry.sdk.trace.export import SpanExportResult

            return SpanExportResult.SUCCESS

    logger = logfire.configure(
        local=True,
        send_to_logfire=False,
        console=False,
        metrics=False,
        service_name="cost",
        advanced=logfire.AdvancedOptions(ns_timestamp_generator=fake.time_ns),
        additional_span_processors=[SimpleSpanProcessor(Exporter())],
    )

    def export() -> None:  # Logfire does so each half second
        if waiting:
            count(sent, encode_spans(waiting).SerializeToString(), len(waiting))
            waiting.clear()

    each = work.seconds / work.stages
    for _ in range(work.lasts // work.seconds):
        with logger.span("operation {operation}", operation="cost"):
            inner = None
            for second, stage, begins in seconds(work):
                if begins:
                    if inner is not None:
                        inner.__exit__(None, None, None)
                    inner = logger.span("stage {stage}", stage=f"stage {stage}")
                    inner.__enter__()
                export()
                fake.sleep(1)
                if logs:
                    done = second + 1 - int((stage or 0) * each)
                    logger.info("{completed} of {total}", completed=done, total=each)
            assert inner is not None
            inner.__exit__(None, None, None)
        export()
    return {"traces": sent}


# -- partial spans


class PartialSpans(SpanProcessor):
    """Sends each open span as a log record when it starts, again and again, and when it ends.

    As the processors do that were proposed for OpenTelemetry (opentelemetry-python-contrib issue 3564): the
    record's body is the span as OTLP/JSON, its attributes say which kind of record it is and how often it comes.
    """

    def __init__(self, send: Callable[[bytes, str], None]) -> None:
        self._send = send
        self._open: dict[int, Any] = {}

    def on_start(self, span: Any, parent_context: Any = None) -> None:  # noqa: ARG002 (that of a processor)
        self._open[span.context.span_id] = span
        self._tell(span, "heartbeat")

    def on_end(self, span: ReadableSpan) -> None:
        assert span.context is not None
        del self._open[span.context.span_id]
        self._tell(span, "stop")

    def beat(self) -> None:
        for span in self._open.values():
            self._tell(span, "heartbeat")

    def _tell(self, span: ReadableSpan, kind: str) -> None:
        text = json_format.MessageToJson(encode_spans([span]), indent=None)
        self._send(text.encode(), kind)


def partial_spans(work: Work, fake: FakeClock) -> dict[str, Tally]:
    """Spans whose attributes say how far they are, and the records of them; beside them the spans as they end."""
    records: list[bytes] = []
    ended: list[ReadableSpan] = []
    sent = {"logs": Tally(), "traces": Tally()}
    about = {"service.name": "cost", "service.instance.id": "cost"}
    resource = Resource(about)
    head, scope = otlp.resource(about), otlp.scope("partial", "1")

    def send(body: bytes, kind: str) -> None:
        attributes = {"partial.event": kind, "partial.frequency": "5000ms", "partial.body.type": "json/v1"}
        now = fake.time_ns()
        records.append(
            otlp.log_record("", now, now, otlp.INFO, body.decode(), otlp.attributes(6, attributes), None, None, False)
        )

    class Ended(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            ended.append(span)

    processor = PartialSpans(send)
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(processor)
    provider.add_span_processor(Ended())
    tracer = provider.get_tracer("cost")

    def export() -> None:
        if records:
            count(sent["logs"], otlp.envelope(head, scope, records), len(records))
            records.clear()
        if ended:
            count(sent["traces"], encode_spans(ended).SerializeToString(), len(ended))
            ended.clear()

    for _ in range(work.lasts // work.seconds):
        root = tracer.start_span("cost", start_time=fake.time_ns())
        around = trace.set_span_in_context(root)
        inner = None
        for second, stage, begins in seconds(work):
            if begins:
                if inner is not None:
                    inner.end(fake.time_ns())
                inner = tracer.start_span(f"stage {stage}", around, start_time=fake.time_ns())
                inner.set_attribute("total", work.seconds / work.stages)
            if second % HEARTBEAT == 0:
                processor.beat()
                export()
            fake.sleep(1)
            assert inner is not None
            inner.set_attribute("completed", second + 1)
        assert inner is not None
        inner.end(fake.time_ns())
        root.end(fake.time_ns())
        export()
    return sent


def main() -> None:
    kind, *numbers = sys.argv[1:]
    stages, length, lasts = map(int, numbers)
    work, fake = Work(stages, length, 1, lasts), FakeClock()
    sent = partial_spans(work, fake) if kind == "partial" else logfire_spans(work, fake, logs=kind == "logs")
    print(json.dumps({signal: asdict(tally) for signal, tally in sent.items()}))


if __name__ == "__main__":
    main()
