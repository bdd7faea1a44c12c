"""Our own encoder of protobuf, held against the official one."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Gauge, Metric, NumberDataPoint
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, Status

from otel_progress import semconv
from otel_progress.model.values import INT_MAX, INT_MIN
from otel_progress.outbound import otlp

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
INTS = st.integers(INT_MIN, INT_MAX)
FLOATS = st.floats(allow_nan=False)
SCALARS = TEXTS | st.booleans() | INTS | FLOATS
VALUES = SCALARS | st.one_of(*(st.lists(kind, max_size=5).map(tuple) for kind in (TEXTS, st.booleans(), INTS, FLOATS)))
ATTRIBUTES = st.dictionaries(TEXTS, VALUES, max_size=8)
TIMES = st.integers(0, 2**64 - 1)


def official(value: Any) -> AnyValue:
    """The value as the official classes have it."""
    if isinstance(value, tuple):
        return AnyValue(array_value=ArrayValue(values=[official(item) for item in value]))
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    return AnyValue(string_value=value)


def pairs(attributes: dict[str, Any]) -> list[KeyValue]:
    """Attributes as the official classes have them."""
    return [KeyValue(key=key, value=official(value)) for key, value in attributes.items()]


@given(st.integers(0, 2**64 - 1))
def test_varint_is_base_128(number: int) -> None:
    """A varint reads back as the number, and takes no byte too many."""
    encoded = otlp.varint(number)
    assert sum((byte & 0x7F) << 7 * at for at, byte in enumerate(encoded)) == number
    assert [byte >> 7 for byte in encoded] == [1] * (len(encoded) - 1) + [0]
    assert len(encoded) == max(1, math.ceil(number.bit_length() / 7))


@given(VALUES)
@example("x" * 29 + "ü")
@example("😀" * 30)
@example("😀" * 31)
@example(-1)
@example(-0.0)
@example(())
@example(True)
def test_a_value_means_what_was_given(value: Any) -> None:
    """Every value decodes to what the official encoder makes of it."""
    assert AnyValue.FromString(otlp.any_value(value)) == official(value)


@given(ATTRIBUTES)
def test_attributes_mean_what_was_given(attributes: dict[str, Any]) -> None:
    """Attributes decode to the same keys and values, in their order."""
    resource = Resource.FromString(otlp.attributes(1, attributes))
    assert list(resource.attributes) == pairs(attributes)


@pytest.mark.parametrize("character", ["x", "ü", "€", "😀"])
def test_texts_of_every_length_mean_what_was_given(character: str) -> None:
    """Short texts are written by a shortcut; it makes no difference, whatever their characters take."""
    given_ = {str(length): character * length for length in range(140)}
    assert list(Resource.FromString(otlp.attributes(1, given_)).attributes) == pairs(given_)


@given(st.floats())
def test_every_float_keeps_its_bits(number: float) -> None:
    """NaN and the infinities keep their bits, too."""
    resource = Resource.FromString(otlp.attributes(1, {"x": number}))
    assert struct.pack("<d", resource.attributes[0].value.double_value) == struct.pack("<d", number)


@pytest.mark.parametrize(
    ("given_", "sent"), [(2**63, INT_MAX), (10**30, INT_MAX), (-(2**63) - 1, INT_MIN), (INT_MAX, INT_MAX)]
)
def test_ints_are_clamped_to_64_bits(given_: int, sent: int) -> None:
    """An int beyond 64 bits becomes the nearest one that OTLP can hold."""
    assert AnyValue.FromString(otlp.any_value(given_)).int_value == sent
    assert AnyValue.FromString(otlp.any_value((given_,))).array_value.values[0].int_value == sent


@given(st.text(max_size=50), st.text(max_size=50))
@example("\ud800", "\udfff")
def test_lone_surrogates_become_question_marks(key: str, value: str) -> None:
    """A text that is no valid Unicode is sent with replacements, so that no batch is refused for it."""
    (pair,) = Resource.FromString(otlp.attributes(1, {key: value})).attributes
    assert pair.key == key.encode("utf-8", "replace").decode()
    assert pair.value.string_value == value.encode("utf-8", "replace").decode()


@given(
    name=TEXTS,
    time=TIMES,
    observed=TIMES,
    severity=st.sampled_from([otlp.INFO, otlp.WARN, otlp.ERROR]),
    body=TEXTS,
    attributes=ATTRIBUTES,
    ids=st.none() | st.tuples(st.binary(min_size=16, max_size=16), st.binary(min_size=8, max_size=8)),
    sampled=st.booleans(),
    resource=ATTRIBUTES,
)
def test_a_request_of_log_events_means_what_was_given(
    name: str,
    time: int,
    observed: int,
    severity: int,
    body: str,
    attributes: dict[str, Any],
    ids: tuple[bytes, bytes] | None,
    sampled: bool,
    resource: dict[str, Any],
) -> None:
    """A whole request is, field for field, the one that the official classes would make."""
    trace_id, span_id = ids or (b"", b"")
    record = otlp.log_record(
        name,
        time,
        observed,
        severity,
        body,
        otlp.attributes(6, attributes),
        trace_id.hex() or None,
        span_id.hex() or None,
        sampled,
    )
    request = otlp.envelope(otlp.resource(resource), otlp.scope("scope", "1.2"), [record, record])
    expected = ExportLogsServiceRequest()
    logs = expected.resource_logs.add(resource=Resource(attributes=pairs(resource)))
    scope = logs.scope_logs.add(scope=InstrumentationScope(name="scope", version="1.2"))
    official_record = LogRecord(
        time_unix_nano=time,
        observed_time_unix_nano=observed,
        severity_number=severity,
        severity_text={9: "INFO", 13: "WARN", 17: "ERROR"}[severity],
        body=official(body),
        attributes=[*pairs(attributes), *pairs({"event.name": name})],
        flags=int(sampled),
        trace_id=trace_id,
        span_id=span_id,
        event_name=name,
    )
    scope.log_records.extend([official_record, official_record])
    found = ExportLogsServiceRequest.FromString(request)
    assert found == expected
    assert found.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)


@given(
    attributes=ATTRIBUTES,
    points=st.lists(st.tuples(TIMES, st.floats(allow_nan=False) | st.integers(-(2**53), 2**53)), max_size=4),
    name=TEXTS,
    unit=TEXTS,
    description=TEXTS,
)
def test_a_request_of_gauges_means_what_was_given(
    attributes: dict[str, Any], points: list[tuple[int, float]], name: str, unit: str, description: str
) -> None:
    """Points written from cached heads are, field for field, those of the official classes."""
    head = otlp.point_head(otlp.attributes(7, attributes))
    encoded = [head + otlp.point_time(time) + otlp.point_value(value) for time, value in points]
    gauge = otlp.gauge(semconv.Metric(name, unit, description), encoded)
    request = ExportMetricsServiceRequest.FromString(otlp.envelope(b"", otlp.scope("s", "1"), [gauge]))
    assert request.resource_metrics[0].scope_metrics[0].metrics[0] == Metric(
        name=name,
        unit=unit,
        description=description,
        gauge=Gauge(
            data_points=[
                NumberDataPoint(attributes=pairs(attributes), time_unix_nano=time, as_double=value)
                for time, value in points
            ]
        ),
    )


# -- what a receiver answers


@given(
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=8, max_size=8),
    st.none() | st.binary(min_size=8, max_size=8),
    TEXTS,
    st.integers(1, 5),
    TIMES,
    TIMES,
    ATTRIBUTES,
    TEXTS,
    st.booleans(),
)
def test_a_failed_span_means_what_was_given(
    trace: bytes,
    span: bytes,
    parent: bytes | None,
    name: str,
    kind: Any,
    start: int,
    end: int,
    attributes: dict[str, Any],
    message: str,
    remote: bool,
) -> None:
    """The span reads back as the official class has it, in the place of a ScopeSpans message."""
    encoded = otlp.error_span(
        trace.hex(),
        span.hex(),
        None if parent is None else parent.hex(),
        name,
        kind,
        start,
        end,
        otlp.attributes(otlp.SPAN_ATTRIBUTES, attributes),
        message,
        parent_remote=remote,
    )
    expected = Span(
        trace_id=trace,
        span_id=span,
        parent_span_id=parent or b"",
        name=name,
        kind=kind,
        start_time_unix_nano=start,
        end_time_unix_nano=end,
        attributes=pairs(attributes),
        status=Status(code=Status.STATUS_CODE_ERROR, message=message),
        flags=0x300 if remote else 0x100,
    )
    assert ScopeSpans.FromString(encoded) == ScopeSpans(spans=[expected])


@given(st.integers(0, 1_000_000), TEXTS)
def test_a_partial_success_is_read(count: int, why: str) -> None:
    """How many records or points a receiver refused, and its reason, come out of its answer."""
    logs = ExportLogsServiceResponse(
        partial_success=ExportLogsPartialSuccess(rejected_log_records=count, error_message=why)
    )
    points = ExportMetricsServiceResponse(
        partial_success=ExportMetricsPartialSuccess(rejected_data_points=count, error_message=why)
    )
    assert otlp.rejected(logs.SerializeToString()) == (count, why)
    assert otlp.rejected(points.SerializeToString()) == (count, why)


def test_an_empty_answer_refused_nothing() -> None:
    """Success is an empty message, or one with an empty partial success."""
    assert otlp.rejected(b"") == (0, "")
    assert otlp.rejected(ExportLogsServiceResponse().SerializeToString()) == (0, "")


def test_unknown_fields_before_it_are_passed_over() -> None:
    """Fields of later versions, of every wire type, don't hide the count."""
    inner = b"\x21" + bytes(8) + b"\x2d" + bytes(4) + b"\x32\x02hi" + b"\x08\x05"
    assert otlp.rejected(otlp.chunk(1, inner)) == (5, "")


@pytest.mark.parametrize("count", [-1, 2**62, 10**9])
def test_a_count_that_can_not_be_meant_is_not_believed(count: int) -> None:
    """A receiver can't reject more than a request holds, so an absurd count is ignored."""
    answer = ExportLogsServiceResponse(partial_success=ExportLogsPartialSuccess(rejected_log_records=count))
    assert otlp.rejected(answer.SerializeToString()) == (0, "")


@given(st.binary(max_size=200))
@example(b"<html>502 Bad Gateway</html>")
@example(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
@example(b"\x0a\x02\x08")
def test_garbage_is_an_answer_that_refused_nothing_or_little(answer: bytes) -> None:
    """Whatever bytes a receiver answers, parsing them neither raises nor returns an absurd number."""
    count, why = otlp.rejected(answer)
    assert 0 <= count <= otlp.REJECTED_MOST
    assert isinstance(why, str)


def test_a_number_without_end_is_no_work() -> None:
    """Megabytes of continuation bytes are given up after ten."""
    assert otlp.rejected(b"\x80" * 5_000_000) == (0, "")
    assert otlp.rejected(otlp.chunk(1, b"\x08" + b"\xff" * 5_000_000)) == (0, "")
