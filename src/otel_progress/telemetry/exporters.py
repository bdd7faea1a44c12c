"""Exporters for spans and metrics: over our own transport, or those that the standard variables name."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Final

from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.errors import MissingDependency
from otel_progress.live.guard import drops
from otel_progress.outbound.answer import ASK_AGAIN, Answer, SignalStatus
from otel_progress.outbound.backoff import STANDARD
from otel_progress.outbound.transport import OTLP, Transport, connect
from otel_progress.outbound.trouble import Trouble
from otel_progress.settings import Endpoint, Settings
from otel_progress.telemetry.outbox import REQUEST_BYTES

SPAN_REQUESTS: Final = 64
"""Requests of spans (at most 512 in each) that wait while the receiver does not answer."""

_inherited: list[object] = []
"""Transports of the parent process; freeing them in a forked child could close its connections."""

Make = Callable[[], Any]


class OtlpSender:
    """Sends requests of one signal by our transport, which is made at the first request.

    So a process that forks before its first export shares no connection with its children.
    """

    def __init__(self, signal: str, endpoint: Endpoint) -> None:
        """Check that the client is there; nothing is opened.

        Raises:
            MissingDependency: if the client for the protocol is not installed.
        """
        connect(signal, endpoint).close()
        self._signal = signal
        self._endpoint = endpoint
        self._transport: Transport | None = None
        self._failed = False
        self._not_before = 0.0
        self.status: Final = SignalStatus(signal)

    def send(self, body: bytes) -> Answer:
        """Send a request, and once more if no answer came, as on a stale connection.

        Nothing is sent during a pause that the receiver asked for.
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
        self.status.update(answer)
        return answer

    def at_once(self) -> None:
        """End the pause: the process is about to end."""
        self._not_before = 0.0

    def renew(self) -> None:
        """Use a new connection from now on; the old one stays open, as it is the parent's."""
        _inherited.append(self._transport)
        self._transport = None

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()


class OtlpSpans(SpanExporter):
    """Sends spans over OTLP; a bounded number of requests waits while the receiver does not answer."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Prepare to send to this endpoint; nothing is opened."""
        self._otlp = OtlpSender("traces", endpoint)
        self._encode = _encoder("trace_encoder", "encode_spans")
        self._waiting: deque[tuple[bytes, int]] = deque()
        self._sending = threading.Lock()
        self.delivered = 0
        """Spans that the receiver accepted."""

    @property
    def trouble(self) -> Trouble | None:
        """Why the last request was not delivered."""
        return self._otlp.status.trouble

    def at_once(self) -> None:
        """End pauses: the process is about to end."""
        self._otlp.at_once()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans, after the waiting ones."""
        for one in self._requests(spans):
            self._waiting.append(one)
            if len(self._waiting) > SPAN_REQUESTS:
                drops.add(s.DROP_OUTBOX, self._waiting.popleft()[1])
        self.resend()
        return SpanExportResult.SUCCESS

    def _requests(self, spans: Sequence[ReadableSpan]) -> Iterator[tuple[bytes, int]]:
        """Encode spans, in as many requests as their size needs."""
        body = self._encode(spans).SerializeToString()
        if len(body) <= REQUEST_BYTES or len(spans) == 1:
            yield body, len(spans)
            return
        half = len(spans) // 2
        yield from self._requests(spans[:half])
        yield from self._requests(spans[half:])

    def resend(self) -> None:
        """Send what waits, the oldest first, unless another thread does."""
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
        """Start anew in a forked child: the waiting requests and the connection are the parent's."""
        self._otlp.renew()
        self._waiting.clear()
        self.delivered = 0
        self._sending = threading.Lock()

    def shutdown(self) -> None:
        """Close the connection."""
        self._otlp.close()


class OtlpMetrics:
    """Sends metrics over OTLP."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Prepare to send to this endpoint; nothing is opened."""
        self._otlp = OtlpSender("metrics", endpoint)
        self._encode = _encoder("metrics_encoder", "encode_metrics")
        self._not_before = 0.0

    def export(self, data: MetricsData) -> None:
        """Send metrics; to a receiver that keeps none only now and then."""
        now = clock.monotonic()
        if now >= self._not_before:
            answer = self._otlp.send(self._encode(data).SerializeToString())
            self._not_before = now + ASK_AGAIN if answer.discards else 0.0

    def shutdown(self) -> None:
        """Close the connection."""
        self._otlp.close()


def _encoder(module: str, name: str) -> Any:
    """Import an encoder of the SDK; early, as the end of a process or a forked child has no time for it."""
    try:
        return getattr(import_module(f"opentelemetry.exporter.otlp.proto.common.{module}"), name)
    except ImportError:
        raise MissingDependency("OTLP needs: pip install otel-progress") from None


def makers(signal: str, settings: Settings) -> Iterator[Make]:
    """The factories of the exporters that `OTEL_TRACES_EXPORTER` or `OTEL_METRICS_EXPORTER` lists; `otlp` by default.

    Raises:
        MissingDependency: if an exporter of that name is not installed.
    """
    for raw in getattr(settings, signal).split(","):
        name = raw.strip()
        if name in OTLP:
            yield partial(OtlpSpans if signal == "traces" else OtlpMetrics, settings.endpoints[signal])
        elif name and name != "none":
            found = tuple(entry_points(group=f"opentelemetry_{signal}_exporter", name=name))
            if not found:
                raise MissingDependency(f"no exporter named {name!r} is installed for OTEL_{signal.upper()}_EXPORTER")
            yield found[0].load()
