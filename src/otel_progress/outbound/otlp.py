"""The encoder: the few OTLP messages that we send, written directly as protobuf.

What does not change during a run is encoded once, so a new point or event costs only what is new in it. The field
numbers are those of opentelemetry-proto 1.x, which never change.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from otel_progress.model.values import INT_MAX, INT_MIN, Value
from otel_progress.semconv import EVENT_NAME, OPERATION_ENDED, Metric

_double = struct.Struct("<d").pack
_fixed64 = struct.Struct("<Q").pack
_fixed32 = struct.Struct("<I").pack

INFO: Final = 9
WARN: Final = 13
ERROR: Final = 17
REJECTED_MOST: Final = 1_000_000
"""More items than any request of ours holds; a receiver that claims to have rejected more is ignored."""
_FIXED: Final = {1: 8, 5: 4}
SPAN_ATTRIBUTES: Final = 9
"""The number of the field that holds a span's attributes."""
POINT_ATTRIBUTES: Final = 7
"""The number of the field that holds the labels of a point."""
NO_RECORDED_VALUE: Final = 1
"""The flag of a point that ends its series."""
_CUMULATIVE: Final = 2
_STATUS_ERROR: Final = 2
_PARENT_REMOTENESS_KNOWN: Final = 0x100
_PARENT_IS_REMOTE: Final = 0x200
_SEVERITY: Final = {INFO: "INFO", WARN: "WARN", ERROR: "ERROR"}


_BYTE: Final = tuple(bytes((value,)) for value in range(256))
_SHORT: Final = 31
"""Texts below this length have a length of one byte, even if each character takes four."""


def varint(value: int) -> bytes:
    """A non-negative integer in base 128."""
    if value < 0x80:
        return _BYTE[value]
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def chunk(field: int, body: bytes) -> bytes:
    """A length-delimited field: a text, bytes or a message; `field` is below 16."""
    return bytes((field << 3 | 2,)) + varint(len(body)) + body


def any_value(value: Value) -> bytes:
    """An AnyValue message."""
    if isinstance(value, str):
        return chunk(1, value.encode("utf-8", "replace"))
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        return b"\x18" + varint(max(INT_MIN, min(value, INT_MAX)) & 0xFFFFFFFFFFFFFFFF)
    if isinstance(value, float):
        return b"\x21" + _double(value)
    return chunk(5, b"".join(chunk(1, any_value(item)) for item in value))


@lru_cache(maxsize=1024)
def _key(key: str) -> bytes:
    return chunk(1, key.encode("utf-8", "replace"))


@lru_cache(maxsize=1024)
def _float_head(field: int, key: str) -> bytes:
    """A KeyValue with a float, without the eight bytes of the float."""
    pair = _key(key) + b"\x12\x09\x21"
    return bytes((field << 3 | 2,)) + varint(len(pair) + 8) + pair


def attributes(field: int, given: Mapping[str, Value]) -> bytes:
    """Repeated KeyValue messages under one field number."""
    tag = _BYTE[field << 3 | 2]
    out: list[bytes] = []
    for key, value in given.items():
        kind = type(value)
        if kind is float:
            out += (_float_head(field, key), _double(value))
            continue
        if kind is str and len(value) < _SHORT:  # type: ignore[arg-type]
            raw = value.encode("utf-8", "replace")  # type: ignore[union-attr]
            size = len(raw)
            encoded = b"\x12" + _BYTE[size + 2] + b"\x0a" + _BYTE[size] + raw
        else:
            encoded = chunk(2, any_value(value))
        name = _key(key)
        out += (tag, varint(len(name) + len(encoded)), name, encoded)
    return b"".join(out)


@lru_cache(maxsize=64)
def _event_name(name: str) -> bytes:
    """The event name, as a field and as the older attribute, since not every store keeps the field."""
    return chunk(12, name.encode()) + attributes(6, {EVENT_NAME: name})


def log_record(
    event_name: str,
    time: int,
    observed: int,
    severity: int,
    body: str,
    encoded_attributes: bytes,
    trace_id: str | None,
    span_id: str | None,
    sampled: bool,
    *,
    tagged: bool = True,
) -> bytes:
    """A LogRecord, with the tag it has in a ScopeLogs message unless `tagged` is false; times in ns.

    An `observed` time of 0 is left out: it says nothing more than the time of the event.
    """
    parts = [
        b"\x09" + _fixed64(time),
        bytes((0x10, severity)),
        chunk(3, _SEVERITY[severity].encode()),
        chunk(5, any_value(body)),
        encoded_attributes,
        b"\x45" + (b"\x01\0\0\0" if sampled else b"\0\0\0\0"),
        b"\x59" + _fixed64(observed) if observed else b"",
        _event_name(event_name),
    ]
    if trace_id and span_id:
        parts += (chunk(9, bytes.fromhex(trace_id)), chunk(10, bytes.fromhex(span_id)))
    record = b"".join(parts)
    return chunk(2, record) if tagged else record


def error_span(
    trace_id: str,
    span_id: str,
    parent_id: str | None,
    name: str,
    kind: int,
    start: int,
    end: int,
    encoded_attributes: bytes,
    message: str,
    *,
    parent_remote: bool,
) -> bytes:
    """A Span with the status error, with the tag it has in a ScopeSpans message; times in ns."""
    flags = _PARENT_REMOTENESS_KNOWN | (_PARENT_IS_REMOTE if parent_remote else 0)
    parts = [
        chunk(1, bytes.fromhex(trace_id)),
        chunk(2, bytes.fromhex(span_id)),
        chunk(4, bytes.fromhex(parent_id)) if parent_id else b"",
        chunk(5, name.encode("utf-8", "replace")),
        b"\x30" + varint(kind),
        b"\x39" + _fixed64(start),
        b"\x41" + _fixed64(end),
        encoded_attributes,
        chunk(15, chunk(2, message.encode("utf-8", "replace")) + b"\x18" + varint(_STATUS_ERROR)),
        b"\x85\x01" + _fixed32(flags),
    ]
    return chunk(2, b"".join(parts))


_ENDED: Final = chunk(12, OPERATION_ENDED.encode())


def ends_in(body: bytes) -> int:
    """The number of operations whose end a logs request reports, without parsing it."""
    return body.count(_ENDED)


def envelope(resource: bytes, scope: bytes, items: Iterable[bytes]) -> bytes:
    """An export request with items (tagged 2) of one scope of one resource; all signals have this form."""
    scoped = chunk(2, chunk(1, scope) + b"".join(items))
    return chunk(1, resource + scoped)


def resource(given: Mapping[str, Value]) -> bytes:
    """A Resource message, with its tag."""
    return chunk(1, attributes(1, given))


def scope(name: str, version: str) -> bytes:
    """An InstrumentationScope message."""
    return chunk(1, name.encode()) + chunk(2, version.encode())


def gauge(metric: Metric, points: Iterable[bytes]) -> bytes:
    """A Metric message of kind gauge, with the tag it has in a ScopeMetrics message."""
    return chunk(2, _head(metric) + chunk(5, b"".join(points)))


def counter(metric: Metric, points: Iterable[bytes], *, monotonic: bool = True) -> bytes:
    """A Metric message of kind sum, cumulative, with the tag it has in a ScopeMetrics message."""
    kind = b"\x10" + varint(_CUMULATIVE) + (b"\x18\x01" if monotonic else b"")
    return chunk(2, _head(metric) + chunk(7, b"".join(points) + kind))


def _head(metric: Metric) -> bytes:
    return chunk(1, metric.name.encode()) + chunk(2, metric.description.encode()) + chunk(3, metric.unit.encode())


def point_head(encoded_attributes: bytes) -> bytes:
    """The start of a NumberDataPoint with a double: tag, length and attributes (field 7)."""
    return b"\x0a" + varint(len(encoded_attributes) + 18) + encoded_attributes


def point_time(time: int) -> bytes:
    """What comes between the head of a point and its value, the same for a whole export; time in ns."""
    return b"\x19" + _fixed64(time) + b"\x21"


point_value = _double


def point_without_value(encoded_attributes: bytes, time: int) -> bytes:
    """A NumberDataPoint with the flag "no recorded value": the series ends here; time in ns."""
    body = encoded_attributes + b"\x19" + _fixed64(time) + b"\x40\x01"
    return b"\x0a" + varint(len(body)) + body


"""A point is `point_head(...) + point_time(...) + point_value(...)`."""


def rejected(answer: bytes) -> tuple[int, str]:
    """The number of items that a receiver rejected (partial success), and why, from its answer."""
    body = _field(answer, 1)
    if not isinstance(body, bytes) or not body:
        return 0, ""
    count, why = _field(body, 1), _field(body, 2)
    known = count if isinstance(count, int) and count <= REJECTED_MOST else 0
    return known, (why.decode("utf-8", "replace") if isinstance(why, bytes) else "")


def retry_delay(status: bytes) -> float | None:
    """The pause that the RetryInfo in a `google.rpc.Status` asks for, in seconds, or None."""
    detail = _field(status, 3)
    kind, value = (_field(detail, 1), _field(detail, 2)) if isinstance(detail, bytes) else (None, None)
    if not (isinstance(kind, bytes) and kind.endswith(b"google.rpc.RetryInfo") and isinstance(value, bytes)):
        return None
    delay = _field(value, 1)
    if not isinstance(delay, bytes):
        return None
    seconds, nanos = _field(delay, 1) or 0, _field(delay, 2) or 0
    return seconds + nanos / 1e9 if isinstance(seconds, int) and isinstance(nanos, int) else None


def _field(message: bytes, wanted: int) -> int | bytes | None:
    """The value of a varint or length-delimited field of a small message, or None."""
    at = 0
    try:
        while at < len(message):
            tag, at = _read_varint(message, at)
            if tag & 7 == 0:
                number, at = _read_varint(message, at)
                found: int | bytes = number
            elif tag & 7 == 2:
                size, at = _read_varint(message, at)
                found, at = message[at : at + size], at + size
                if at > len(message):
                    return None
            elif tag & 7 in _FIXED:
                at += _FIXED[tag & 7]
                continue
            else:
                return None
            if tag >> 3 == wanted:
                return found
    except IndexError:
        return None
    return None


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
    raise IndexError("a number of more than 64 bits")
