"""Providers for spans and by-name metrics, made only if the application set up none.

A provider stays global for the life of the process, so its exporters can be exchanged: `configure()`, `shutdown()` and
another `configure()` work. Our own exporter thread reads metrics, so a forked child never sends inherited counts, and
the end of the process does not wait for a reader.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    ExponentialHistogram,
    InMemoryMetricReader,
    MetricsData,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from opentelemetry.sdk.metrics.view import Aggregation, ExponentialBucketHistogramAggregation
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.live import hooks
from otel_progress.live.engine import process
from otel_progress.live.guard import tell_once
from otel_progress.live.registry import registry
from otel_progress.outbound.trouble import Trouble
from otel_progress.settings import Settings
from otel_progress.telemetry.exporters import Make, OtlpSpans, makers

if TYPE_CHECKING:
    from otel_progress.live.state import OperationState

_DELTA: Final[dict[type, AggregationTemporality]] = {
    Counter: AggregationTemporality.DELTA,
    Histogram: AggregationTemporality.DELTA,
}
_AGGREGATIONS: Final[dict[str, dict[type, Aggregation]]] = {
    "base2_exponential_bucket_histogram": {Histogram: ExponentialBucketHistogramAggregation()}
}
SPANS_MS: Final = 1500
"""How long a flush waits for the spans, in ms."""
INTERRUPTED: Final = 512
"""Spans of running operations that go before all others at the end of the process; as many as fit into one request."""
_HISTOGRAMS: Final = (HistogramData, ExponentialHistogram)
_TEMPORALITY: Final[dict[str, dict[type, AggregationTemporality]]] = {
    "delta": {**_DELTA, ObservableCounter: AggregationTemporality.DELTA},
    "lowmemory": _DELTA,
}


class Switch(SpanProcessor):
    """Passes spans on to processors that can be exchanged."""

    def __init__(self) -> None:
        """Pass spans on to nobody at first."""
        self.to: tuple[SpanProcessor, ...] = ()
        self.ended = 0
        """Sampled spans that were passed on; threads count without a lock, so it may be slightly low."""
        self.interrupted: list[ReadableSpan] = []
        """Spans that the end of the process interrupted; they are sent before those that wait."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Pass on the start of a span."""
        for processor in self.to:
            processor.on_start(span, parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        """Pass on the end of a span, or keep it for the next flush if the end of the process interrupts it."""
        if self.to and span.context is not None and span.context.trace_flags.sampled:
            self.ended += 1
            if process.interrupts and len(self.interrupted) < INTERRUPTED:
                self.interrupted.append(span)
                return
        for processor in self.to:
            processor.on_end(span)

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Have all ended spans sent."""
        first, self.interrupted = self.interrupted, []
        for exporter in _span_exporters if first else ():
            exporter.export(first)
        return all(processor.force_flush(timeout_millis) for processor in self.to)

    def shutdown(self) -> None:
        """Shut the processors down, and pass on no more."""
        to, self.to = self.to, ()
        for processor in to:
            processor.shutdown()


_inherited: list[object] = []
"""Readers of the parent process, kept alive."""
_switch = Switch()
_span_exporters: tuple[SpanExporter, ...] = ()
_global_meters: MeterProvider | None = None
"""The global meter provider, if we made it, and its reader."""
_global_reader: InMemoryMetricReader | None = None


def tracer_provider(settings: Settings, resource: Resource, *, forked: bool = False) -> Any:
    """The provider for our spans: the application's, or a new one, which becomes the global one."""
    global _span_exporters
    present = trace.get_tracer_provider()
    ours = getattr(present, "otel_progress", False)
    if isinstance(present, TracerProvider) and not ours:
        return present
    _switch.ended = 0
    _switch.interrupted.clear()
    if forked:
        for exporter in _span_exporters:
            if isinstance(exporter, OtlpSpans):
                exporter.renew()
    else:
        _span_exporters = tuple(make() for make in makers("traces", settings))
        _switch.to = tuple(BatchSpanProcessor(exporter) for exporter in _span_exporters)
    if not _switch.to:
        return None
    made = TracerProvider(resource=resource, shutdown_on_exit=False)
    made.add_span_processor(_switch)
    if not ours:
        made.otel_progress = True  # type: ignore[attr-defined]
        trace.set_tracer_provider(made)
    return made


class Exporter:
    """One thread that exports by-name metrics when they are due, and flushes spans when asked."""

    def __init__(self, settings: Settings, *, forked: bool = False) -> None:
        """Prepare to export as the settings say; `start` starts the thread."""
        self._interval = settings.by_name_interval
        self._soonest = min(settings.metric_interval, self._interval)
        self._next = 0.0
        self._seen: Counts | None = None
        self._temporality = _TEMPORALITY.get(settings.temporality)
        self._aggregation = _AGGREGATIONS.get(settings.histograms)
        self._makers: list[Make] = []
        self._exporters: list[Any] = []
        self._reader: InMemoryMetricReader | None = None
        self._inherited_counts = forked
        self._ready = threading.Condition()
        self._asked: list[threading.Event] = []
        self._stopped = False
        self._thread: threading.Thread | None = None

    def meter_provider(self, settings: Settings, resource: Resource) -> Any:
        """The provider for our instruments: the application's, or a new one."""
        global _global_meters, _global_reader
        present = metrics.get_meter_provider()
        if isinstance(present, MeterProvider) and _global_meters is None:
            return present
        self._makers = list(makers("metrics", settings))
        if not self._makers:
            return None
        self._reader = self._new_reader()
        made = MeterProvider([self._reader], resource=resource, shutdown_on_exit=False)
        if _global_meters is None:
            _global_meters, _global_reader = made, self._reader
            metrics.set_meter_provider(made)
        return made

    def _new_reader(self) -> InMemoryMetricReader:
        return InMemoryMetricReader(self._temporality, self._aggregation)

    def start(self) -> None:
        """Start the thread if there is anything to export."""
        self._next = clock.monotonic() + self._interval
        if self._thread is None and process.threads_allowed and (self._makers or _switch.to):
            self._thread = threading.Thread(target=self._run, name="otel-progress-exporter", daemon=True)
            self._thread.start()

    def on_trouble(self, _: OperationState) -> None:
        """Export counts soon, as an operation became stuck or overdue, or is so no longer."""
        self._seen = None

    def _run(self) -> None:
        self._renew_reader()
        while not self._stopped or self._asked:
            with self._ready:
                self._ready.wait_for(lambda: bool(self._asked) or self._stopped, timeout=self._soonest)
                asked, self._asked = self._asked, []
            if asked or not self._stopped:
                self.export(flush=bool(asked))
            for done in asked:
                done.set()
        for exporter in self._exporters:
            exporter.shutdown()

    def export(self, *, flush: bool = False) -> None:
        """Send spans that wait, and the metrics that are due; with `flush` all of them."""
        try:
            if flush:
                for exporter in _span_exporters:
                    if isinstance(exporter, OtlpSpans):
                        exporter.at_once()
                flush_spans()
            for exporter in _span_exporters:
                if isinstance(exporter, OtlpSpans):
                    exporter.resend()
            for data in self._due(flush=flush):
                if self._makers and not self._exporters:
                    self._exporters = [make() for make in self._makers]
                for sender in self._exporters:
                    sender.export(data)
        except Exception:
            tell_once("an export of spans or metrics failed; the job goes on")

    def _due(self, *, flush: bool) -> Iterator[MetricsData]:
        """The metrics to send now.

        All of them each interval; in between our counts if an operation started, ended, or got into trouble or out of
        it. Durations are left out then, as they are most of the points. Deltas have no such exports: what is read is
        not read again.
        """
        now, counts = clock.monotonic(), _counts()
        if flush or now >= self._next - 1e-3:
            self._next = now + self._interval
            self._seen = counts
            yield from self._read()
        elif counts != self._seen and self._temporality is None and self._reader is not None:
            self._seen = counts
            with process.parking:
                data = self._reader.get_metrics_data()
            yield from _counts_of(data)

    def _read(self) -> Iterator[MetricsData]:
        """Read our instruments, and the application's if it uses our provider."""
        with process.parking:
            own = self._reader.get_metrics_data() if self._reader is not None else None
            other = None
            if _global_reader is not None and _global_reader is not self._reader:
                other = _global_reader.get_metrics_data()
        if own is not None and own.resource_metrics:
            yield own
        if other is not None:
            other = _without_ours(other)
            if other.resource_metrics:
                yield other

    def _renew_reader(self) -> None:
        """In a forked child, have the application's instruments count from zero, too, by a fresh reader.

        This takes a lock that another thread of the parent may have held at the fork, so it is done in a thread that
        nobody waits for.
        """
        global _global_reader
        if self._inherited_counts and _global_meters is not None and self._makers:
            fresh = self._new_reader()
            _global_meters.add_metric_reader(fresh)
            _inherited.append(_global_reader)
            _global_reader = fresh

    def flush(self) -> threading.Event:
        """Export everything now; the event is set afterwards, whether it succeeded or not."""
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
        """End the thread; may be called twice."""
        with self._ready:
            self._stopped = True
            self._ready.notify()


def unsent_spans() -> tuple[int, Trouble | None]:
    """How many spans the OTLP receiver did not accept so far, and why."""
    for exporter in _span_exporters:
        if isinstance(exporter, OtlpSpans):
            return max(0, _switch.ended - exporter.delivered), exporter.trouble
    return 0, None


def flush_spans() -> None:
    """Have all ended spans sent."""
    _switch.force_flush(SPANS_MS)


def detach_spans() -> tuple[SpanProcessor, ...]:
    """Pass spans on no more; returns the processors, which are to be shut down."""
    to, _switch.to = _switch.to, ()
    return to


def no_spans() -> None:
    """Make no more spans if the provider is ours, as nobody takes them; an application's provider goes on."""
    if getattr(trace.get_tracer_provider(), "otel_progress", False):
        hooks.tracing.use(trace.NoOpTracerProvider())


def shut_down(processors: tuple[SpanProcessor, ...], timeout: float) -> None:
    """Shut processors down, in a thread as it may block; wait at most `timeout` seconds for it."""

    def run() -> None:
        for processor in processors:
            processor.shutdown()

    if processors:
        thread = threading.Thread(target=run, name="otel-progress-shutdown", daemon=True)
        thread.start()
        thread.join(timeout)


Counts = tuple[int, int]


def _counts() -> Counts:
    """How many operations started and ended."""
    return sum(list(registry.started.values())), sum(list(registry.ended.values()))


def _counts_of(data: MetricsData | None) -> Iterator[MetricsData]:
    """Our metrics without histograms."""
    for item in data.resource_metrics if data is not None else ():
        for scoped in item.scope_metrics:
            kept = [metric for metric in scoped.metrics if not isinstance(metric.data, _HISTOGRAMS)]
            if scoped.scope.name == s.SCOPE and kept:
                yield MetricsData(
                    [dataclasses.replace(item, scope_metrics=[dataclasses.replace(scoped, metrics=kept)])]
                )


def _without_ours(data: MetricsData) -> MetricsData:
    """The same without our scope, whose instruments belong to an older configuration or to the parent process."""
    kept = [
        dataclasses.replace(
            item, scope_metrics=[scoped for scoped in item.scope_metrics if scoped.scope.name != s.SCOPE]
        )
        for item in data.resource_metrics
    ]
    return MetricsData([item for item in kept if item.scope_metrics])
