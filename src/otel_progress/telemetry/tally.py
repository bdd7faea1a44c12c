"""Counts what is sent instead of sending it: requests, items, bytes, series."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from typing import Any, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_progress.outbound.answer import Answer
from otel_progress.outbound.compression import LEVEL

SCOPES: Final = {"logs": "scope_logs", "metrics": "scope_metrics", "traces": "scope_spans"}
_REQUESTS: Final[dict[str, Any]] = {
    "logs": ExportLogsServiceRequest,
    "metrics": ExportMetricsServiceRequest,
    "traces": ExportTraceServiceRequest,
}


@dataclass
class Tally:
    """What was sent of one signal.

    Attributes:
        items: events, spans, or points of metrics, each bucket of a histogram counted as one.
        size: bytes of the requests as they are encoded.
        zipped: the same after gzip.
        requests: how many there were.
        series: different series in each hour, summed over the hours.
    """

    items: int = 0
    size: int = 0
    zipped: int = 0
    requests: int = 0
    series: int = 0

    def plus(self, other: Tally, times: float = 1.0) -> Tally:
        """The sum with `times` times another one."""
        return Tally(*(round(one + times * more) for one, more in zip(vars(self).values(), vars(other).values())))


class Counter:
    """A transport of one signal that delivers nothing and counts everything."""

    def __init__(self, signal: str) -> None:
        """Count the requests of `logs`, `metrics` or `traces`."""
        self._signal = signal
        self._series: set[tuple[str, bytes, int]] = set()
        self.tally = Tally()

    def send(self, body: bytes, timeout: float | None = None) -> Answer:  # noqa: ARG002 (that of a transport)
        """Count a request, and say that it was delivered."""
        tally = self.tally
        tally.requests += 1
        tally.size += len(body)
        tally.zipped += len(gzip.compress(body, LEVEL))
        request = _REQUESTS[self._signal].FromString(body)
        for resource in getattr(request, f"resource_{SCOPES[self._signal].replace('scope_', '')}"):
            for scope in getattr(resource, SCOPES[self._signal]):
                self._count(scope)
        return Answer(delivered=True)

    def _count(self, scope: Any) -> None:
        if self._signal == "logs":
            self.tally.items += len(scope.log_records)
        elif self._signal == "traces":
            self.tally.items += len(scope.spans)
        else:
            for metric in scope.metrics:
                for point in getattr(metric, metric.WhichOneof("data")).data_points:
                    self._count_point(metric.name, point)

    def _count_point(self, name: str, point: Any) -> None:
        size = len(point.bucket_counts) + 2 if hasattr(point, "explicit_bounds") else 1
        labels = b"".join(sorted(pair.SerializeToString() for pair in point.attributes))
        self.tally.items += size
        self._series.update((name, labels, number) for number in range(size))

    def end_hour(self) -> None:
        """Begin to count series anew, as they are counted by the hour."""
        self.tally.series += len(self._series)
        self._series.clear()

    def close(self) -> None:
        """There is no connection to close."""
