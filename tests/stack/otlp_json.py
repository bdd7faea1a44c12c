"""Converts the OTLP JSON lines of the Collector's file exporter to flat, plain Python values."""

from __future__ import annotations

import base64
import contextlib
import json
import re
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Value: TypeAlias = "str | bool | int | float | bytes | list[Value] | dict[str, Value] | None"
Attributes: TypeAlias = "dict[str, Value]"

# The start of a request. A quote inside a JSON string is escaped, so nothing else can match.
_START = re.compile(r'(?=\{"resource(?:Logs|Spans|Metrics)":)')

_SPAN_KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
_STATUSES = ("unset", "ok", "error")
_TEMPORALITIES = ("unspecified", "delta", "cumulative")
_METRIC_KINDS = {
    "gauge": "gauge",
    "sum": "sum",
    "histogram": "histogram",
    "exponentialHistogram": "exponential_histogram",
    "summary": "summary",
}


class Log(TypedDict):
    """A log record; times are nanoseconds since 1970, ids are hex, and empty if missing."""

    event_name: str
    time_unix_nano: int
    observed_time_unix_nano: int
    severity_number: int
    severity_text: str
    body: Value
    attributes: Attributes
    trace_id: str
    span_id: str
    resource: Attributes
    scope: str


class SpanEvent(TypedDict):
    """An event of a span."""

    name: str
    time: int
    attributes: Attributes


class SpanLink(TypedDict):
    """A link of a span."""

    trace_id: str
    span_id: str
    attributes: Attributes


class Span(TypedDict):
    """A span; `status` is unset, ok or error, `kind` is the last word of OTLP's name in lower case."""

    name: str
    trace_id: str
    span_id: str
    parent_span_id: str
    start: int
    end: int
    attributes: Attributes
    events: list[SpanEvent]
    links: list[SpanLink]
    status: str
    status_message: str
    kind: str
    resource: Attributes
    scope: str


class Exemplar(TypedDict):
    """An exemplar of a metric point."""

    value: int | float | None
    time: int
    trace_id: str
    span_id: str
    attributes: Attributes


class MetricPoint(TypedDict):
    """A data point of a metric.

    `kind` is gauge, sum, histogram, exponential_histogram or summary; `temporality` is delta or
    cumulative, and empty if the kind has none. `value` is None for the last three kinds, `count` and
    `sum` are None for the others; `sum` may be None for a histogram too. `bounds` and `buckets` are those
    of a histogram with explicit bounds.
    """

    name: str
    unit: str
    kind: str
    temporality: str
    monotonic: bool
    value: int | float | None
    count: int | None
    sum: float | None
    bounds: list[float]
    buckets: list[int]
    attributes: Attributes
    time: int
    start_time: int
    exemplars: list[Exemplar]
    resource: Attributes
    scope: str


def requests(text: str) -> list[dict[str, Any]]:
    """Return the complete requests in the text, without those that a kill truncated."""
    found = []
    for part in _START.split(text):
        with contextlib.suppress(ValueError):
            found.append(json.loads(part))
    return found


def logs(text: str) -> list[Log]:
    """Return the log records in the text, in order of arrival."""
    return [
        Log(
            event_name=raw.get("eventName", ""),
            time_unix_nano=int(raw.get("timeUnixNano", 0)),
            observed_time_unix_nano=int(raw.get("observedTimeUnixNano", 0)),
            severity_number=raw.get("severityNumber", 0),
            severity_text=raw.get("severityText", ""),
            body=_value(raw.get("body", {})),
            attributes=_attributes(raw),
            trace_id=raw.get("traceId", ""),
            span_id=raw.get("spanId", ""),
            resource=resource,
            scope=scope,
        )
        for resource, scope, raw in _records(text, "resourceLogs", "scopeLogs", "logRecords")
    ]


def spans(text: str) -> list[Span]:
    """Return the spans in the text, in order of arrival."""
    return [
        Span(
            name=raw.get("name", ""),
            trace_id=raw.get("traceId", ""),
            span_id=raw.get("spanId", ""),
            parent_span_id=raw.get("parentSpanId", ""),
            start=int(raw.get("startTimeUnixNano", 0)),
            end=int(raw.get("endTimeUnixNano", 0)),
            attributes=_attributes(raw),
            events=[
                SpanEvent(
                    name=event.get("name", ""),
                    time=int(event.get("timeUnixNano", 0)),
                    attributes=_attributes(event),
                )
                for event in raw.get("events", [])
            ],
            links=[
                SpanLink(
                    trace_id=link.get("traceId", ""),
                    span_id=link.get("spanId", ""),
                    attributes=_attributes(link),
                )
                for link in raw.get("links", [])
            ],
            status=_STATUSES[raw.get("status", {}).get("code", 0)],
            status_message=raw.get("status", {}).get("message", ""),
            kind=_SPAN_KINDS[raw.get("kind", 0)],
            resource=resource,
            scope=scope,
        )
        for resource, scope, raw in _records(text, "resourceSpans", "scopeSpans", "spans")
    ]


def metric_points(text: str) -> list[MetricPoint]:
    """Return the data points in the text, in order of arrival."""
    return [
        _point(point, metric, raw_kind, resource, scope)
        for resource, scope, metric in _records(text, "resourceMetrics", "scopeMetrics", "metrics")
        for raw_kind in _METRIC_KINDS
        for point in metric.get(raw_kind, {}).get("dataPoints", [])
    ]


def _point(raw: dict[str, Any], metric: dict[str, Any], raw_kind: str, resource: Attributes, scope: str) -> MetricPoint:
    data = metric[raw_kind]
    counted = raw_kind not in {"gauge", "sum"}
    temporality = data.get("aggregationTemporality", 0)
    return MetricPoint(
        name=metric.get("name", ""),
        unit=metric.get("unit", ""),
        kind=_METRIC_KINDS[raw_kind],
        temporality=_TEMPORALITIES[temporality] if temporality else "",
        monotonic=data.get("isMonotonic", False),
        value=None if counted else _number(raw),
        count=int(raw.get("count", 0)) if counted else None,
        sum=float(raw["sum"]) if counted and "sum" in raw else None,
        bounds=[float(bound) for bound in raw.get("explicitBounds", [])],
        buckets=[int(count) for count in raw.get("bucketCounts", [])],
        attributes=_attributes(raw),
        time=int(raw.get("timeUnixNano", 0)),
        start_time=int(raw.get("startTimeUnixNano", 0)),
        exemplars=[
            Exemplar(
                value=_number(exemplar),
                time=int(exemplar.get("timeUnixNano", 0)),
                trace_id=exemplar.get("traceId", ""),
                span_id=exemplar.get("spanId", ""),
                attributes=_attributes(exemplar, "filteredAttributes"),
            )
            for exemplar in raw.get("exemplars", [])
        ],
        resource=resource,
        scope=scope,
    )


def _records(text: str, outer: str, inner: str, leaf: str) -> Iterator[tuple[Attributes, str, dict[str, Any]]]:
    for request in requests(text):
        for group in request.get(outer, []):
            resource = _attributes(group.get("resource", {}))
            for scoped in group.get(inner, []):
                scope = scoped.get("scope", {}).get("name", "")
                for record in scoped.get(leaf, []):
                    yield resource, scope, record


def _attributes(raw: dict[str, Any], key: str = "attributes") -> Attributes:
    return {pair["key"]: _value(pair.get("value", {})) for pair in raw.get(key, [])}


def _number(raw: dict[str, Any]) -> int | float | None:
    if "asInt" in raw:
        return int(raw["asInt"])
    # NaN and the infinities are strings.
    return float(raw["asDouble"]) if "asDouble" in raw else None


def _value(raw: dict[str, Any]) -> Value:
    # A value is an object with one key that names its type, or an empty object.
    for kind, inner in raw.items():
        return _CONVERTERS[kind](inner)
    return None


_CONVERTERS: dict[str, Callable[[Any], Value]] = {
    "stringValue": str,
    "boolValue": bool,
    "intValue": int,
    "doubleValue": float,
    "bytesValue": base64.b64decode,
    "arrayValue": lambda inner: [_value(item) for item in inner.get("values", [])],
    "kvlistValue": lambda inner: _attributes(inner, "values"),
}
