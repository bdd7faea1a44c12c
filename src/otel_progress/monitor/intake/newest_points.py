"""The newest point of each cumulative series in metrics requests: what is kept of the metrics of a long outage.

A cumulative point includes all points before it, so only the newest is kept. A delta does not, so every one is kept.

Stores refuse a request as a whole if one of its points is too old: Prometheus takes an hour without an
`out_of_order_time_window`, and a Collector in between puts new points into the same request. So what is older than
`OLD` seconds is not sent with its time any more. A total, and that something is over, are true later as well: they get
the present time. Any other old point is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.monitor.intake.messages import REQUESTS, DecodeError
from otel_progress.outbound import otlp

OLD: Final = 1800.0
"""Seconds after which a point is old: half of what every store of metrics takes."""
REQUEST_BYTES: Final = 512 * 1024
"""The size of a request, as far as single points allow."""
_DELTA: Final = 1
_OVER: Final = frozenset({s.RUN_ACTIVE.name, s.RUN_PENDING.name})
"""Gauges whose 0 says that something is over."""
_TIMES: Final = frozenset({s.RUN_LOST.name, s.RUN_ENDED.name})
"""Gauges whose value is a time, and so is true at any time."""


class _Point(NamedTuple):
    """A point, with the messages around it."""

    about: Any
    scope: Any
    metric: Any
    kind: str
    point: Any

    @property
    def is_delta(self) -> bool:
        return getattr(getattr(self.metric, self.kind), "aggregation_temporality", None) == _DELTA


def newest(bodies: Iterable[bytes], now: int) -> list[bytes]:
    """The requests that remain of these, oldest first; `now` is in ns since 1970.

    A request that can't be read is kept as it is.
    """
    series: dict[tuple[bytes | int, ...], _Point] = {}
    kept: list[bytes] = []
    for body in bodies:
        try:
            message: Any = REQUESTS["metrics"].FromString(body)
        except DecodeError:
            kept.append(body)
            continue
        for found in _points(message):
            key = _key(found, len(series))
            before = series.get(key)
            if before is None or before.point.time_unix_nano <= found.point.time_unix_nano:
                series[key] = found
    return [*kept, *_requests(found for found in series.values() if _is_true(found, now))]


def newest_now(bodies: list[bytes]) -> list[bytes]:
    """The requests that remain of these now, oldest first."""
    return newest(bodies, clock.time_ns())


def _points(message: Any) -> Iterator[_Point]:
    for about in message.resource_metrics:
        for scope in about.scope_metrics:
            for metric in scope.metrics:
                kind = metric.WhichOneof("data")
                if kind is not None:
                    for point in getattr(metric, kind).data_points:
                        yield _Point(about, scope, metric, kind, point)


def _key(found: _Point, number: int) -> tuple[bytes | int, ...]:
    """What is equal for all points of a series; each point of a delta is one of its own."""
    if found.is_delta:
        return (number,)
    labels = sorted(label.SerializeToString(deterministic=True) for label in found.point.attributes)
    resource, scope = found.about.resource, found.scope.scope
    around = (resource.SerializeToString(deterministic=True), scope.SerializeToString(deterministic=True))
    return (*around, found.metric.name.encode(), found.kind.encode(), *labels)


def _is_true(found: _Point, now: int) -> bool:
    """Whether a point may be sent; an old one that is still true gets the present time."""
    point = found.point
    if now - point.time_unix_nano < OLD * 1e9:
        return True
    if found.kind == "gauge":
        over = found.metric.name in _OVER and point.WhichOneof("value") and not (point.as_double or point.as_int)
        if not over and found.metric.name not in _TIMES:
            return False
    elif found.is_delta:
        return False
    if point.flags & otlp.NO_RECORDED_VALUE:
        return False
    point.time_unix_nano = now
    return True


def _requests(found: Iterable[_Point]) -> Iterator[bytes]:
    """Requests with these points, whose neighbours share the messages around them."""
    request: Any = REQUESTS["metrics"]()
    about: Any = None
    scope: Any = None
    metric: Any = None
    around: Any = None
    size = 0
    for one in sorted(found, key=lambda one: one.point.time_unix_nano // 10**9):
        more = one.point.ByteSize() + 8
        if size + more > REQUEST_BYTES and size:
            yield request.SerializeToString()
            request, around, size = REQUESTS["metrics"](), None, 0
        same = around is not None
        if not same or one.about is not around.about:
            about, same = request.resource_metrics.add(), False
            about.resource.CopyFrom(one.about.resource)
            about.schema_url = one.about.schema_url
            more += about.ByteSize()
        if not same or one.scope is not around.scope:
            scope, same = about.scope_metrics.add(), False
            scope.scope.CopyFrom(one.scope.scope)
            scope.schema_url = one.scope.schema_url
            more += scope.ByteSize()
        if not same or one.metric is not around.metric:
            metric = scope.metrics.add()
            _copy_head(one, metric)
            more += metric.ByteSize()
        getattr(metric, one.kind).data_points.add().CopyFrom(one.point)
        around, size = one, size + more
    if size:
        yield request.SerializeToString()


def _copy_head(found: _Point, metric: Any) -> None:
    """Copy a metric without its points."""
    metric.name, metric.description, metric.unit = found.metric.name, found.metric.description, found.metric.unit
    data, copied = getattr(found.metric, found.kind), getattr(metric, found.kind)
    copied.SetInParent()
    for name in ("aggregation_temporality", "is_monotonic"):
        if hasattr(data, name):
            setattr(copied, name, getattr(data, name))
