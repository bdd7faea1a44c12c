"""Providers for spans and by-name metrics, made only where the application set up none.

A provider stays global for the life of a process, so what it sends through can be exchanged: `configure()`,
`shutdown()` and `configure()` again work. Metrics are read by our own exporter thread, so a forked child never sends
counts that it inherited, and the end of the process waits for no reader.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Final

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    InMemoryMetricReader,
    MetricsData,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.errors import MissingDependency
from otel_progress.live import hooks
from otel_progress.live.drops import drops
from otel_progress.live.engine import runtime
from otel_progress.live.guard import tell_once
from otel_progress.outbound.backoff import STANDARD
from otel_progress.outbound.transport import OTLP, Answer, Said, Transport, connect
from otel_progress.outbound.trouble import Trouble
from otel_progress.settings import Endpoint, Settings
from otel_progress.telemetry.outbox import REQUEST_BYTES

SPAN_REQUESTS: Final = 64
"""Requests of spans (512 at the most in each) that wait for a receiver that is away."""
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
        self.ended = 0
        """Sampled spans that ended while they were passed on; several threads count, so it may be a few too low."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """A span started."""
        for processor in self.to:
            processor.on_start(span, parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        """A span ended."""
        if self.to and span.context is not None and span.context.trace_flags.sampled:
            self.ended += 1
        for processor in self.to:
            processor.on_end(span)

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Have all ended spans sent."""
        return all(processor.force_flush(timeout_millis) for processor in self.to)

    def shutdown(self) -> None:
        """Send what is left, and pass on no more."""
        to, self.to = self.to, ()
        for processor in to:
            processor.shutdown()


Make = Callable[[], Any]


class Otlp:
    """Sends requests of one signal by a transport of ours, which is made when it is needed first.

    So a process that forks before it exports shares no connection with its children, and a forked child makes its own.
    """

    def __init__(self, signal: str, endpoint: Endpoint) -> None:
        """To this endpoint.

        Raises:
            MissingDependency: where the client for the protocol is not installed.
        """
        connect(signal, endpoint).close()
        self._signal = signal
        self._endpoint = endpoint
        self._transport: Transport | None = None
        self._failed = False
        self._not_before = 0.0
        self.said: Final = Said(signal)

    def send(self, body: bytes) -> Answer:
        """Send a request; when that fails in passing, such as by a connection that went stale, a second time.

        While a pause lasts that the receiver asked for, nothing is sent.
        """
        if clock.monotonic() < self._not_before:
            return Answer(False, retry=True, reason="the receiver asked for a pause")
        if self._transport is None:
            self._transport = connect(self._signal, self._endpoint)
        answer = self._transport.send(body)
        if answer.unclear and answer.after is None and not self._failed:
            threading.Event().wait(STANDARD.pause(1))
            answer = self._transport.send(body)
        self._failed = not answer.delivered
        if answer.after is not None:
            self._not_before = clock.monotonic() + STANDARD.bounded(answer.after)
        self.said.answered(answer)
        return answer

    def at_once(self) -> None:
        """Forget the pause: the end is near."""
        self._not_before = 0.0

    def renew(self) -> None:
        """Forget the connection, but keep it: it is the parent's."""
        _inherited.append(self._transport)
        self._transport = None

    def close(self) -> None:
        """Let the connection go, if there ever was one."""
        if self._transport is not None:
            self._transport.close()


class OtlpSpans(SpanExporter):
    """Sends spans over OTLP, and keeps a bounded number of requests while the receiver is away."""

    def __init__(self, endpoint: Endpoint) -> None:
        """To this endpoint."""
        self._otlp = Otlp("traces", endpoint)
        self._encode = _encoder("trace_encoder", "encode_spans")
        self._waiting: deque[tuple[bytes, int]] = deque()
        self._sending = threading.Lock()
        self.delivered = 0
        """Spans that the receiver has."""

    @property
    def trouble(self) -> Trouble | None:
        """Why the last request was not delivered."""
        return self._otlp.said.trouble

    def at_once(self) -> None:
        """Forget pauses: the end is near."""
        self._otlp.at_once()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans, after those that wait."""
        for one in self._requests(spans):
            self._waiting.append(one)
            if len(self._waiting) > SPAN_REQUESTS:
                drops.add(s.DROP_OUTBOX, self._waiting.popleft()[1])
        self.resend()
        return SpanExportResult.SUCCESS

    def _requests(self, spans: Sequence[ReadableSpan]) -> Iterator[tuple[bytes, int]]:
        """The spans in as many requests as their size needs."""
        body = self._encode(spans).SerializeToString()
        if len(body) <= REQUEST_BYTES or len(spans) == 1:
            yield body, len(spans)
            return
        half = len(spans) // 2
        yield from self._requests(spans[:half])
        yield from self._requests(spans[half:])

    def resend(self) -> None:
        """Send what waits, the oldest first, unless another thread is at it."""
        if not self._sending.acquire(blocking=False):
            return
        try:
            while self._waiting:
                one = self._waiting[0]
                body, count = one
                answer = self._otlp.send(body)
                if answer.retry:
                    return
                if self._waiting and self._waiting[0] is one:
                    self._waiting.popleft()
                refused = min(answer.rejected, count) if answer.delivered else count
                self.delivered += count - refused
                if refused:
                    drops.add(s.DROP_REJECTED, refused)
        finally:
            self._sending.release()

    def renew(self) -> None:
        """In a forked child: what waits is the parent's, and so is the connection."""
        self._otlp.renew()
        self._waiting.clear()
        self.delivered = 0
        self._sending = threading.Lock()

    def shutdown(self) -> None:
        """Let the connection go."""
        self._otlp.close()


class OtlpMetrics:
    """Sends metrics over OTLP."""

    def __init__(self, endpoint: Endpoint) -> None:
        """To this endpoint."""
        self._otlp = Otlp("metrics", endpoint)
        self._encode = _encoder("metrics_encoder", "encode_metrics")

    def export(self, data: MetricsData) -> None:
        """Send metrics."""
        self._otlp.send(self._encode(data).SerializeToString())

    def shutdown(self) -> None:
        """Let the connection go."""
        self._otlp.close()


def _encoder(module: str, name: str) -> Any:
    """Imported when telemetry is set up: at the end of a process, or in a forked child, there is no time for it."""
    try:
        return getattr(import_module(f"opentelemetry.exporter.otlp.proto.common.{module}"), name)
    except ImportError:
        raise MissingDependency("OTLP needs: pip install otel-progress") from None


_inherited: list[object] = []
_switch = Switch()
_span_exporters: tuple[SpanExporter, ...] = ()
_global_meters: MeterProvider | None = None
"""The meter provider that is global because we made it, and the reader that reads it."""
_global_reader: InMemoryMetricReader | None = None


def tracer_provider(settings: Settings, resource: Resource, *, forked: bool = False) -> Any:
    """The provider for our spans: that of the application, or one of ours, which becomes the application's."""
    global _span_exporters
    present = trace.get_tracer_provider()
    ours = getattr(present, "otel_progress", False)
    if isinstance(present, TracerProvider) and not ours:
        return present
    if forked:
        _switch.ended = 0
        for exporter in _span_exporters:
            if isinstance(exporter, OtlpSpans):
                exporter.renew()
    else:
        _switch.ended = 0
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
    """One thread that exports by-name metrics each interval, and flushes spans when asked."""

    def __init__(self, settings: Settings, *, forked: bool = False) -> None:
        """Export as the settings say."""
        self._interval = settings.metric_interval
        self._temporality = _TEMPORALITY.get(settings.temporality)
        self._makers: list[Make] = []
        self._exporters: list[Any] = []
        self._reader: InMemoryMetricReader | None = None
        self._inherited_counts = forked
        self._ready = threading.Condition()
        self._asked: list[threading.Event] = []
        self._stopped = False
        self._thread: threading.Thread | None = None

    def meter_provider(self, settings: Settings, resource: Resource) -> Any:
        """The provider for our instruments: that of the application, or one of ours."""
        global _global_meters, _global_reader
        present = metrics.get_meter_provider()
        if isinstance(present, MeterProvider) and _global_meters is None:
            return present
        self._makers = list(makers("metrics", settings))
        if not self._makers:
            return None
        self._reader = InMemoryMetricReader(preferred_temporality=self._temporality)
        made = MeterProvider([self._reader], resource=resource, shutdown_on_exit=False)
        if _global_meters is None:
            _global_meters, _global_reader = made, self._reader
            metrics.set_meter_provider(made)
        return made

    def start(self) -> None:
        """Start the thread, if there is anything to do for it."""
        if self._thread is None and runtime.threads_allowed and (self._makers or _switch.to):
            self._thread = threading.Thread(target=self._run, name="otel-progress-exporter", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        self._renew_reader()
        while not self._stopped or self._asked:
            with self._ready:
                self._ready.wait_for(lambda: bool(self._asked) or self._stopped, timeout=self._interval)
                asked, self._asked = self._asked, []
            if asked or not self._stopped:
                self.export(flush=bool(asked))
            for done in asked:
                done.set()
        for exporter in self._exporters:
            exporter.shutdown()

    def export(self, *, flush: bool = False) -> None:
        """Read and send the metrics once; with `flush` the spans first."""
        try:
            if flush:
                for exporter in _span_exporters:
                    if isinstance(exporter, OtlpSpans):
                        exporter.at_once()
                _switch.force_flush(1500)
            for exporter in _span_exporters:
                if isinstance(exporter, OtlpSpans):
                    exporter.resend()
            for data in self._read():
                if self._makers and not self._exporters:
                    self._exporters = [make() for make in self._makers]
                for sender in self._exporters:
                    sender.export(data)
        except Exception:
            tell_once("an export of spans or metrics failed; the job goes on")

    def _read(self) -> Iterator[MetricsData]:
        """What our instruments say, and what the application's say where it uses a provider of ours."""
        with runtime.parking:
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
        """In a forked child the application's instruments count from zero too: a fresh reader knows no old counts.

        It takes a lock that another thread of the parent may have held at the fork, so it is done only here, in a
        thread that nobody has to wait for.
        """
        global _global_reader
        if self._inherited_counts and _global_meters is not None and self._makers:
            fresh = InMemoryMetricReader(preferred_temporality=self._temporality)
            _global_meters.add_metric_reader(fresh)
            _inherited.append(_global_reader)
            _global_reader = fresh

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


def unsent_spans() -> tuple[int, Trouble | None]:
    """How many of the spans that were to be sent over OTLP the receiver does not have, and why."""
    for exporter in _span_exporters:
        if isinstance(exporter, OtlpSpans):
            return max(0, _switch.ended - exporter.delivered), exporter.trouble
    return 0, None


def detach_spans() -> tuple[SpanProcessor, ...]:
    """Pass spans on no more; returns the processors that did, to be let go."""
    to, _switch.to = _switch.to, ()
    return to


def no_spans() -> None:
    """Make none where the provider is ours: nobody would take them. One of the application goes on."""
    if getattr(trace.get_tracer_provider(), "otel_progress", False):
        hooks.tracing.use(trace.NoOpTracerProvider())


def let_go(processors: tuple[SpanProcessor, ...], timeout: float) -> None:
    """Shut processors down; it may block, so it runs in a thread that is not waited for longer than that."""

    def run() -> None:
        for processor in processors:
            processor.shutdown()

    if processors:
        thread = threading.Thread(target=run, name="otel-progress-shutdown", daemon=True)
        thread.start()
        thread.join(timeout)


def _without_ours(data: MetricsData) -> MetricsData:
    """The same without our scope: those instruments belong to an older configuration, or to the parent process."""
    kept = [
        dataclasses.replace(
            item, scope_metrics=[scoped for scoped in item.scope_metrics if scoped.scope.name != s.SCOPE]
        )
        for item in data.resource_metrics
    ]
    return MetricsData([item for item in kept if item.scope_metrics])


def makers(signal: str, settings: Settings) -> Iterator[Make]:
    """What makes the exporters that `OTEL_TRACES_EXPORTER` or `OTEL_METRICS_EXPORTER` names; `otlp` unless said."""
    for raw in getattr(settings, signal).split(","):
        name = raw.strip()
        if name in OTLP:
            yield partial(OtlpSpans if signal == "traces" else OtlpMetrics, settings.endpoints[signal])
        elif name and name != "none":
            found = tuple(entry_points(group=f"opentelemetry_{signal}_exporter", name=name))
            if not found:
                raise MissingDependency(f"no exporter named {name!r} is installed for OTEL_{signal.upper()}_EXPORTER")
            yield found[0].load()
