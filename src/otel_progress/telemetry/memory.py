"""The pipeline with receivers in memory, for tests: what would have been sent, decoded."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator

from otel_progress import semconv as s
from otel_progress.live import hooks
from otel_progress.live.engine import process, runtime
from otel_progress.live.registry import registry
from otel_progress.model.deltas import merge
from otel_progress.outbound import otlp
from otel_progress.outbound.answer import Answer
from otel_progress.settings import Settings
from otel_progress.telemetry.events import Events
from otel_progress.telemetry.metrics import ByName
from otel_progress.telemetry.pipeline import Pipeline
from otel_progress.telemetry.run_series import RunSeries


@dataclass(frozen=True)
class Log:
    """A log event as a receiver sees it, a delta with all that its keyframe says; times in ns since 1970."""

    event_name: str
    time: int
    body: str
    severity: str
    attributes: Mapping[str, Any]
    trace_id: str
    span_id: str
    sampled: bool = False
    sent: Mapping[str, Any] = field(default_factory=dict)
    """The attributes as they were sent."""


@dataclass(frozen=True)
class Point:
    """A point of a metric as a receiver sees it; time in ns since 1970; NaN for "no recorded value"."""

    name: str
    unit: str
    value: float
    attributes: Mapping[str, Any]
    time: int
    exemplars: tuple[str, ...] = ()
    """The trace ids of its exemplars."""


class Receiver:
    """A transport that keeps the requests; `answer` decides the outcome of each."""

    def __init__(self) -> None:
        """Accept everything."""
        self.requests: list[bytes] = []
        self.answer: Callable[[bytes], Answer] = lambda _: Answer(delivered=True)

    def send(self, body: bytes, timeout: float | None = None) -> Answer:
        """Answer a request, and keep it if it counts as delivered."""
        answer = self.answer(body)
        if answer.delivered:
            self.requests.append(body)
        return answer

    def close(self) -> None:
        """Do nothing; there is no connection."""


class _Counting(IdGenerator):
    """Ids that count up, so that whole spans are comparable."""

    def __init__(self) -> None:
        self._trace = self._span = 0

    def generate_trace_id(self) -> int:
        self._trace += 1
        return self._trace

    def generate_span_id(self) -> int:
        self._span += 1
        return self._span


class Memory:
    """All signals of a process, kept in memory; `hook` registers it."""

    def __init__(self, settings: Settings) -> None:
        """Apply the limits of these settings."""
        self.settings = settings
        self.logs_receiver = Receiver()
        self.metrics_receiver = Receiver()
        self._spans = InMemorySpanExporter()
        resource = Resource({s.SERVICE_NAME: "test", s.SERVICE_INSTANCE_ID: "test"})
        # In a forked child the provider starts a pool: the lock of pools must be free by then, so its hook comes first.
        importlib.import_module("concurrent.futures.thread")
        self.tracer_provider = TracerProvider(resource=resource, id_generator=_Counting(), shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self._reader = InMemoryMetricReader()
        self._meters = MeterProvider([self._reader], resource=resource, shutdown_on_exit=False)
        self.pipeline = Pipeline(
            self.logs_receiver,
            self.metrics_receiver,
            {s.SERVICE_NAME: "test"},
            "test",
            settings.outbox,
            heartbeat=settings.heartbeat,
        )

    def hook(self) -> None:
        """Register with the hooks."""
        settings = self.settings
        registry.service = "test"
        hooks.stall_after = settings.stall_after
        events = Events(self.pipeline)
        runs = RunSeries(self.pipeline, settings)
        by_name = ByName(self._meters.get_meter(s.SCOPE))
        hooks.paced_sinks.append(events.on_event)
        hooks.seen_ends.append(events.on_seen_end)
        hooks.on_change += [by_name.on_change, runs.on_change]
        hooks.on_trouble.append(runs.on_trouble)
        hooks.on_tick += [runs.on_tick, events.on_tick]
        hooks.tracing.use(self.tracer_provider)
        process.at_exit.append(self.pipeline.flush)
        runtime.set_pace(settings.interval, settings.event_budget, settings.keyframe_interval, settings.update_interval)

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        """The spans that ended."""
        return self._spans.get_finished_spans()

    @property
    def logs(self) -> list[Log]:
        """The log events that were sent."""
        found = []
        keyframes: dict[tuple[Any, ...], Mapping[str, Any]] = {}
        for request in self.logs_receiver.requests:
            for record in _records(request):
                sent = _plain(record.attributes)
                named = sent.get(s.KEYFRAME)
                number = sent.get(s.SEQUENCE) if named is None else named
                key = (sent.get(s.OPERATION_ID), sent.get(s.START_TIME), number)
                if named is None:
                    keyframes[key] = sent
                found.append(
                    Log(
                        record.event_name,
                        record.time_unix_nano,
                        record.body.string_value,
                        record.severity_text,
                        sent if named is None else merge(keyframes.get(key, {}), sent),
                        record.trace_id.hex(),
                        record.span_id.hex(),
                        bool(record.flags & 1),
                        sent,
                    )
                )
        return found

    @property
    def series(self) -> list[Point]:
        """The points of the run series that were sent."""
        found = []
        for request in self.metrics_receiver.requests:
            for metric in _metrics(request):
                for point in metric.gauge.data_points:
                    value = math.nan if point.flags & otlp.NO_RECORDED_VALUE else point.as_double
                    found.append(Point(metric.name, metric.unit, value, _plain(point.attributes), point.time_unix_nano))
        return found

    def metrics(self) -> list[Point]:
        """The points by operation name, as an export would send them now; the value of a histogram is its count."""
        data = self._reader.get_metrics_data()
        found = []
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        value = getattr(point, "value", None)
                        if value is None:
                            value = point.count  # type: ignore[union-attr]
                        attributes = dict(point.attributes or {})
                        traces = tuple(f"{e.trace_id:032x}" for e in getattr(point, "exemplars", ()) if e.trace_id)
                        found.append(
                            Point(metric.name, metric.unit or "", value, attributes, point.time_unix_nano, traces)
                        )
        return found


def _records(request: bytes) -> list[Any]:
    message = ExportLogsServiceRequest.FromString(request)
    return [record for r in message.resource_logs for scope in r.scope_logs for record in scope.log_records]


def _metrics(request: bytes) -> list[Any]:
    message = ExportMetricsServiceRequest.FromString(request)
    return [metric for r in message.resource_metrics for scope in r.scope_metrics for metric in scope.metrics]


def _plain(attributes: Any) -> dict[str, Any]:
    """Protobuf attributes as Python values."""
    return {pair.key: _value(pair.value) for pair in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return tuple(_value(item) for item in value.array_value.values)
    return getattr(value, kind) if kind else None
