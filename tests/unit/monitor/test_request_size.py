"""What a request holds is counted in its bytes, as exactly as the parser would find it, and never too low."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from otel_progress import semconv as s
from otel_progress.monitor.intake import request_size, requests
from otel_progress.monitor.intake.records import groups
from otel_progress.monitor.intake.requests import Envelope, Refused, parse
from otel_progress.monitor.state.foreign_traces import ForeignTraces
from otel_progress.outbound.otlp import chunk

LOGS = request_size.kind_of(ExportLogsServiceRequest.DESCRIPTOR)
VALUES: st.SearchStrategy[AnyValue] = st.recursive(
    st.one_of(
        st.just(AnyValue()),
        st.text(max_size=40).map(lambda text: AnyValue(string_value=text)),
        st.floats(allow_nan=False).map(lambda number: AnyValue(double_value=number)),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda some: AnyValue(array_value=ArrayValue(values=some))),
        st.lists(inner, max_size=4).map(
            lambda some: AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key="k", value=one) for one in some]))
        ),
    ),
    max_leaves=12,
)


def found_in(message: Message) -> int:
    """The parts of a message, as the parser has them."""
    found = 0
    for field, value in message.ListFields():
        is_repeated = hasattr(value, "append")
        for one in value if is_repeated else [value]:
            if field.message_type is not None:
                found += 1 + found_in(one)
            elif field.type == field.TYPE_STRING:
                found += is_repeated
    return found


def request(*values: AnyValue) -> ExportLogsServiceRequest:
    """A request with a record with these values."""
    message = ExportLogsServiceRequest()
    group = message.resource_logs.add()
    group.resource.attributes.add(key="a").value.string_value = "b"
    group.resource.entity_refs.add(type="t", id_keys=["one", "two"])
    record = group.scope_logs.add().log_records.add(event_name=s.UPDATED)
    for value in values:
        record.attributes.add(key="key").value.CopyFrom(value)
    return message


@given(st.lists(VALUES, max_size=5))
def test_parts_are_counted_as_the_parser_finds_them(values: list[AnyValue]) -> None:
    """The count of the bytes is that of the message, and the quick look never finds less."""
    message = request(*values)
    body = message.SerializeToString()
    assert request_size.count(body, LOGS, 10**6) == found_in(message)
    assert len(body) - len(body.translate(None, request_size.tags(LOGS))) >= found_in(message)


@given(st.binary(max_size=300))
def test_any_bytes_are_counted_or_malformed(body: bytes) -> None:
    """Whatever comes in, the count ends, and what the parser takes it counts in full."""
    try:
        found = request_size.count(body, LOGS, 10**6)
    except request_size.Malformed:
        return
    assert found <= len(body)


def test_tags_with_bits_to_spare_are_found() -> None:
    """A tag that is written in more bytes than it needs is a part, too."""
    record = chunk(1, chunk(2, chunk(2, b"\xb2\x00\x00" * 10)))
    assert ExportLogsServiceRequest.FromString(record).resource_logs[0].scope_logs[0].log_records[0].attributes
    assert request_size.count(record, LOGS, 100) == 13
    assert len(record) - len(record.translate(None, request_size.tags(LOGS))) >= 13


BOMBS: dict[str, tuple[str, bytes]] = {
    "attributes": ("logs", chunk(1, chunk(2, chunk(2, b"\x32\x00" * 700_000)))),
    "values": ("logs", chunk(1, chunk(2, chunk(2, chunk(5, chunk(5, b"\x0a\x00" * 700_000)))))),
    "of a resource": ("logs", chunk(1, chunk(1, b"\x0a\x00" * 700_000))),
    "of a scope": ("logs", chunk(1, chunk(2, chunk(1, b"\x1a\x00" * 700_000)))),
    "of a span": ("traces", chunk(1, chunk(2, chunk(2, b"\x4a\x00" * 700_000)))),
    "events": ("traces", chunk(1, chunk(2, chunk(2, b"\x5a\x00" * 700_000)))),
    "links": ("traces", chunk(1, chunk(2, chunk(2, b"\x6a\x00" * 700_000)))),
    "points": ("metrics", chunk(1, chunk(2, chunk(2, chunk(5, b"\x0a\x00" * 700_000))))),
    "numbers that nobody knows": ("logs", chunk(1, chunk(2, chunk(2, b"\x50\x0a" * 700_000)))),
    "names of an entity": ("logs", chunk(1, chunk(1, chunk(3, b"\x1a\x00" * 700_000)))),
}


@pytest.mark.parametrize("name", BOMBS)
def test_many_small_parts_are_refused_before_any_is_built(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a request consists of, it is refused by the number of its parts, and its message is never parsed."""
    signal, body = BOMBS[name]
    with pytest.raises(Refused):
        parse(signal, body)  # the types of its parts are cached from now on
    monkeypatch.setattr(requests, "REQUESTS", {})
    with pytest.raises(Refused, match="attributes and values") as refused:
        parse(signal, body)
    assert refused.value.status == 413


def test_what_is_in_strings_does_not_count_in_json() -> None:
    """Only objects and values make JSON dear; a long text with braces and commas is one value."""
    text = json.dumps({"a": '{"x":[1,2]},' * 100})
    assert not request_size.json_holds_more(text.encode(), 1, 1)
    assert request_size.json_holds_more(b"[{},{}]", 1, 100)
    assert request_size.json_holds_more(b"[[],[],0]", 100, 4)
    assert not request_size.json_holds_more(b"[[],[],0]", 100, 5)


@pytest.mark.parametrize(
    "text", ['"' + '\\"' * 300_000, '"\\' * 300_000, '"' * 600_000, '{"a":"' + "{," * 300_000, "\\" * 600_000]
)
def test_strings_without_an_end_are_read_once(text: str) -> None:
    """The search for strings never goes back, so that it takes as long as the text is; here it ends at all."""
    assert request_size.json_holds_more(text.encode() + b"{" * 3, 2, 2) in (True, False)


def log_request(*records: LogRecord) -> bytes:
    """A request of these."""
    message = ExportLogsServiceRequest()
    message.resource_logs.add().scope_logs.add().log_records.extend(records)
    return message.SerializeToString()


def test_record_that_holds_too_much_is_refused_and_the_others_are_taken() -> None:
    """A record with too many attributes and values is refused and counted; the others are accepted."""
    small = LogRecord(event_name=s.UPDATED, attributes=[KeyValue(key="k", value=AnyValue(int_value=1))])
    large = LogRecord(event_name=s.UPDATED)
    for _ in range(requests.RECORD_PARTS + 1):
        large.attributes.add()
    deep = LogRecord(event_name=s.UPDATED, attributes=[KeyValue(key="k", value=AnyValue(array_value=ArrayValue()))])
    deep.attributes[0].value.array_value.values.extend([AnyValue()] * (requests.RECORD_PARTS + 1))
    parcel = parse("logs", log_request(small, large, deep, small))
    (group,) = groups(parcel)
    assert len(group.records) == 2
    assert parcel.allowance.refused == 2


def test_what_is_read_of_a_request_is_bounded() -> None:
    """Of many records with many attributes only as many are read as a request may have; the others are counted."""
    record = LogRecord(event_name=s.UPDATED, attributes=[KeyValue()] * 300)
    parcel = parse("logs", log_request(*[record] * 10), attributes=1_000)
    (group,) = groups(parcel)
    assert (len(group.records), parcel.allowance.refused) == (3, 7)
    spans = chunk(1, chunk(2, chunk(2, chunk(1, b"1" * 16) + chunk(2, b"1" * 8) + b"\x4a\x00" * 300) * 10))
    parcel = parse("traces", spans, attributes=1_000)
    list(ForeignTraces().groups(parcel, lambda *_: False))
    assert parcel.allowance.refused == 7


def test_gzip_can_not_say_that_it_is_small() -> None:
    """The size that gzip ends with decides how long a request waits; one that holds more is refused."""
    import gzip

    body = gzip.compress(b"\x32\x00" * 100_000) + gzip.compress(b"")
    envelope = Envelope("logs", body, zipped=True)
    assert envelope.size < 1_000
    with pytest.raises(Refused, match="larger than"):
        envelope.open()


@pytest.mark.parametrize(
    ("cheap", "dear"),
    [
        (Envelope("logs", b"x" * 20_000), Envelope("logs", b"x" * 200_000)),
        (Envelope("logs", b"x" * 100_000), Envelope("logs", b"x" * 100_000, is_json=True)),
        (Envelope("logs", b"x" * 100_000), Envelope("logs", b"\0" * 96 + (10**6).to_bytes(4, "little"), zipped=True)),
    ],
    ids=["size", "JSON", "packed far too well"],
)
def test_what_takes_longer_costs_more(cheap: Any, dear: Any) -> None:
    """The cost of a request, which decides whose turn it is, follows from what it takes to read it."""
    assert dear.cost > 4 * cheap.cost
