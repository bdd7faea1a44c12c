"""Providers for spans and by-name metrics, made only where the application set up none.

A provider stays global for the life of a process, so what it sends through can be exchanged: `configure()`, `shutdown()`
and `configure()` again work. Metrics are read by our own exporter thread, so a forked child never sends counts that
it inherited, and the end of the process waits for no reader.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Any, Final

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    InMemoryMetricReader,
    MetricExporter,
    MetricsData,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from otel_progress import semconv as s
from otel_progress.errors import MissingDependency
from otel_progress.live import runtime
from otel_progress.live.guard import tell_once
from otel_progress.settings import Endpoint, Settings

_DELTA: Final[dict[type, AggregationTemporality]] = {
    Counter: AggregationTemporality.DELTA,
    Histogram: AggregationTemporality.DELTA,
}
_TEMPORALITY: Final[dict[str, dict[type, AggregationTemporality]]] = {
    "delta": {**_DELTA, ObservableCounter: AggregationTemporality.DELTA},
    "lowmemory": _DELTA,
}


class Switch(SpanProcessor):
    """Passes spans to the processors of the day, or to none."""

    def __init__(self) -> None:
        """To none at first."""
        self.to: tuple[SpanProcessor, ...] = ()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """A span started."""
        for processor in self.to:
            processor.on_start(span, parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        """A span ended."""
        for processor in self.to:
            processor.on_end(span)

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Have all ended spans sent."""
        return all([processor.force_flush(timeout_millis) for processor in self.to])

    def shutdown(self) -> None:
        """Send what is left, and pass on no more."""
        to, self.to = self.to, ()
        for processor in to:
            processor.shutdown()


_switch = Switch()
_global_reader: InMemoryMetricReader | None = None
"""The reader of the meter provider that is global because we made it."""


def tracer_provider(settings: Settings, resource: Resource) -> Any:
    """The provider for our spans: that of the application, or one of ours, which becomes the application's."""
    present = trace.get_tracer_provider()
    ours = getattr(present, "otel_progress", False)
    if isinstance(present, TracerProvider) and not ours:
        return present
    _switch.to = tuple(BatchSpanProcessor(exporter) for exporter in _exporters("traces", settings))
    if not _switch.to:
        return None
    made = TracerProvider(resource=resource, shutdown_on_exit=False)
    made.add_span_processor(_switch)
    if not ours:
        made.otel_progress = True  # type: ignore[attr-defined]
        trace.set_tracer_provider(made)
    return made


class Exporter:
    """One thread that exports by-name metrics each interval, and flushes spans when asked."""

    def __init__(self, settings: Settings) -> None:
        """Export as the settings say."""
        self._interval = settings.metric_interval
        self._temporality = _TEMPORALITY.get(settings.temporality)
        self._exporters: list[MetricExporter] = []
        self._reader: InMemoryMetricReader | None = None
        self._ready = threading.Condition()
        self._asked: list[threading.Event] = []
        self._stopped = False
        self._thread: threading.Thread | None = None

    def meter_provider(self, settings: Settings, resource: Resource) -> Any:
        """The provider for our instruments: that of the application, or one of ours."""
        global _global_reader
        present = metrics.get_meter_provider()
        if isinstance(present, MeterProvider) and _global_reader is None:
            return present
        self._exporters = list(_exporters("metrics", settings))
        if not self._exporters:
            return None
        self._reader = InMemoryMetricReader(preferred_temporality=self._temporality)
        made = MeterProvider([self._reader], resource=resource, shutdown_on_exit=False)
        if _global_reader is None:
            _global_reader = self._reader
            metrics.set_meter_provider(made)
        return made

    def start(self) -> None:
        """Start the thread, if there is anything to do for it."""
        if self._thread is None and runtime.threads_allowed and (self._exporters or _switch.to):
            self._thread = threading.Thread(target=self._run, name="otel-progress-exporter", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while not self._stopped:
            with self._ready:
                self._ready.wait_for(lambda: bool(self._asked) or self._stopped, timeout=self._interval)
                asked, self._asked = self._asked, []
            self.export(flush=bool(asked))
            for done in asked:
                done.set()

    def export(self, *, flush: bool = False) -> None:
        """Read and send the metrics once; with `flush` the spans first."""
        try:
            if flush:
                _switch.force_flush(1500)
            for data in self._read():
                for exporter in self._exporters:
                    exporter.export(data)
        except Exception:
            tell_once("an export of spans or metrics failed; the job goes on")

    def _read(self) -> Iterator[MetricsData]:
        """What our instruments say, and what the application's say where it uses a provider of ours."""
        with runtime.parking:
            own = self._reader.get_metrics_data() if self._reader is not None else None
            other = None
            if _global_reader is not None and _global_reader is not self._reader:
                other = _global_reader.get_metrics_data()
        if own is not None:
            yield own
        if other is not None:
            yield _without_ours(other)

    def flush(self) -> threading.Event:
        """Have all exported now; the event tells when it was tried."""
        done = threading.Event()
        if self._thread is None or not self._thread.is_alive():
            self.export(flush=True)
            done.set()
            return done
        with self._ready:
            self._asked.append(done)
            self._ready.notify()
        return done

    def close(self) -> None:
        """Let the thread end; it may be called twice."""
        with self._ready:
            self._stopped = True
            self._ready.notify()


def let_spans_go() -> None:
    """Shut the processors of ours down; it may block, so it runs in a thread that is not waited for too long."""
    thread = threading.Thread(target=_switch.shutdown, name="otel-progress-shutdown", daemon=True)
    thread.start()
    thread.join(1.0)


def _without_ours(data: MetricsData) -> MetricsData:
    """The same without our scope: those instruments belong to an older configuration, or to the parent process."""
    kept = [
        dataclasses.replace(
            item, scope_metrics=[scoped for scoped in item.scope_metrics if scoped.scope.name != s.SCOPE]
        )
        for item in data.resource_metrics
    ]
    return MetricsData([item for item in kept if item.scope_metrics])


def _exporters(signal: str, settings: Settings) -> Iterator[Any]:
    """The exporters that `OTEL_TRACES_EXPORTER` or `OTEL_METRICS_EXPORTER` names; `otlp` unless said."""
    for raw in getattr(settings, signal).split(","):
        name = raw.strip()
        if name == "otlp":
            yield _otlp(signal, settings.endpoints[signal], settings)
        elif name and name != "none":
            found = tuple(entry_points(group=f"opentelemetry_{signal}_exporter", name=name))
            if not found:
                raise MissingDependency(f"no exporter named {name!r} is installed for OTEL_{signal.upper()}_EXPORTER")
            yield found[0].load()()


def _otlp(signal: str, endpoint: Endpoint, settings: Settings) -> Any:
    """The OTLP exporter of OpenTelemetry for a signal, bounded in time; the rest of its options are the environment's."""
    make = _exporter_class(signal, endpoint.protocol)
    options: dict[str, Any] = {"timeout": endpoint.timeout}
    if settings.explicit:
        options["endpoint"] = endpoint.url
    if endpoint.headers:
        options["headers"] = dict(endpoint.headers)
    if signal == "metrics":
        options["preferred_temporality"] = _TEMPORALITY.get(settings.temporality)
    return make(**options)


def _exporter_class(signal: str, protocol: str) -> Callable[..., Any]:
    try:
        if protocol == "grpc":
            if signal == "traces":
                from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc

                return Grpc
            from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetrics

            return GrpcMetrics
        if signal == "traces":
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Http

            return Http
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetrics

        return HttpMetrics
    except ImportError:
        extra = "grpc" if protocol == "grpc" else "otlp"
        raise MissingDependency(f'OTLP over {protocol} needs: pip install "otel-progress[{extra}]"') from None
