"""The intake: what it takes, what it refuses and how it says so, over a real connection."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from otel_progress import semconv as s
from otel_progress.errors import InvalidArgument
from otel_progress.monitor import intake as monitor_intake
from otel_progress.monitor import otlp
from otel_progress.monitor.intake import Intake
from otel_progress.monitor.otlp import Parcel, Refused, Taken, count, groups, inflate, parse

PROTOBUF, JSON = otlp.PROTOBUF, otlp.JSON
LIMIT = 10_000


def request(records: int = 1, event: str = s.UPDATED) -> ExportLogsServiceRequest:
    """A request with so many log records."""
    value = AnyValue(string_value="x")
    record = LogRecord(
        event_name=event,
        time_unix_nano=5,
        trace_id=b"\1" * 16,
        span_id=b"\2" * 8,
        flags=1,
        attributes=[
            KeyValue(key="text", value=value),
            KeyValue(key="number", value=AnyValue(int_value=7)),
            KeyValue(key="list", value=AnyValue(array_value=ArrayValue(values=[value, value]))),
            KeyValue(key="map", value=AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key="k", value=value)]))),
            KeyValue(key="nothing", value=AnyValue()),
        ],
    )
    about = Resource(attributes=[KeyValue(key="service.name", value=value)])
    return ExportLogsServiceRequest(
        resource_logs=[ResourceLogs(resource=about, scope_logs=[ScopeLogs(log_records=[record] * records)])]
    )


BODY = request().SerializeToString()
AS_JSON = json.dumps(
    {
        "resourceLogs": [
            {
                "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "x"}}]},
                "scopeLogs": [
                    {
                        "logRecords": [
                            {
                                "eventName": s.UPDATED,
                                "timeUnixNano": "5",
                                "traceId": "01" * 16,
                                "spanId": "02" * 8,
                                "flags": 1,
                                "newField": {"a": 1},
                                "attributes": [{"key": "number", "value": {"intValue": "7"}}],
                            }
                        ]
                    }
                ],
            }
        ]
    }
).encode()


class Taker:
    """Keeps what came, or refuses it."""

    def __init__(self) -> None:
        self.parcels: list[Parcel] = []
        self.taken = Taken()
        self.refuse: Refused | None = None

    def __call__(self, parcel: Parcel) -> Taken:
        if self.refuse is not None:
            raise self.refuse
        self.parcels.append(parcel)
        return self.taken


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Intake, Taker]]:
    """An intake with small limits."""
    taker = Taker()
    intake = Intake(taker, most_bytes=LIMIT, most_records=50)
    intake.start()
    yield intake, taker
    intake.stop()


@pytest.fixture
def intake(served: tuple[Intake, Taker]) -> Intake:
    """It, with nothing taken yet."""
    taker = served[1]
    taker.parcels, taker.taken, taker.refuse = [], Taken(), None
    return served[0]


@pytest.fixture
def taker(served: tuple[Intake, Taker]) -> Taker:
    """What it gives its parcels to."""
    return served[1]


def post(intake: Intake, body: bytes, path: str = "/v1/logs", kind: str = PROTOBUF, **headers: str) -> Any:
    """Send a request; returns status, headers and body of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", intake.port, timeout=10)
    try:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        connection.request("POST", path, body, {"Content-Type": kind, **named})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("body", "kind", "headers"),
    [
        (BODY, PROTOBUF, {}),
        (gzip.compress(BODY), PROTOBUF, {"Content_Encoding": "gzip"}),
        (AS_JSON, JSON, {}),
        (gzip.compress(AS_JSON), "application/json; charset=utf-8", {"Content_Encoding": "gzip"}),
    ],
)
def test_logs_are_taken(intake: Intake, taker: Taker, body: bytes, kind: str, headers: dict[str, str]) -> None:
    """Protobuf and JSON, plain and gzip, are the same message; the answer is of the request's type."""
    status, said, answer = post(intake, body, kind=kind, **headers)
    assert (status, said["Content-Type"].partition(";")[0]) == (200, kind.partition(";")[0])
    assert answer == (b"" if kind == PROTOBUF else b"{}")
    (parcel,) = taker.parcels
    (group,) = groups(parcel)
    assert group.resource == {"service.name": "x"}
    (record,) = group.records
    assert (record.event, record.time, record.trace_id, record.span_id) == (s.UPDATED, 5, "01" * 16, "02" * 8)
    assert record.sampled
    assert record.attributes["number"] == 7
    assert ExportLogsServiceRequest.FromString(parcel.body) == parcel.message
    if kind == PROTOBUF:
        assert parcel.body == BODY


@pytest.mark.parametrize("signal", ["traces", "metrics"])
def test_other_signals_are_taken(intake: Intake, taker: Taker, signal: str) -> None:
    """Each signal has its path."""
    assert post(intake, b"", f"/v1/{signal}")[0] == 200
    assert taker.parcels[0].signal == signal


def test_ids_in_json_are_hex() -> None:
    """Ids of spans, parents and links are hex in JSON; other bytes are base64."""
    span = {"traceId": "ab" * 16, "spanId": "cd" * 8, "parentSpanId": "ef" * 8, "links": [{"spanId": "12" * 8}]}
    body = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
    message = parse("traces", json.dumps(body).encode(), json_body=True).message
    assert isinstance(message, ExportTraceServiceRequest)
    found = message.resource_spans[0].scope_spans[0].spans[0]
    assert (found.trace_id, found.span_id) == (b"\xab" * 16, b"\xcd" * 8)
    assert (found.parent_span_id, found.links[0].span_id) == (b"\xef" * 8, b"\x12" * 8)


def test_values_of_all_kinds_are_decoded() -> None:
    """Lists and maps become lists and dicts, an empty value None; log records that are not ours are left out."""
    (group,) = groups(parse("logs", BODY))
    assert group.records[0].attributes == {
        "text": "x",
        "number": 7,
        "list": ["x", "x"],
        "map": {"k": "x"},
        "nothing": None,
    }
    (other,) = groups(parse("logs", request(event="of another").SerializeToString()))
    assert (other.records, other.resource) == ((), {"service.name": "x"})


BIG = b"\x0a\x80\x80\x80\x01" + b"x" * 10
REFUSED = [
    ("not protobuf", b"\xff\xff\xff", PROTOBUF, {}, 400),
    ("cut off", BODY[:-3], PROTOBUF, {}, 400),
    ("larger inside than it is", BIG, PROTOBUF, {}, 400),
    ("not JSON", b"{", JSON, {}, 400),
    ("JSON of something else", b"[1]", JSON, {}, 400),
    ("ids that are not hex", AS_JSON.replace(b"0202", b"zzzz"), JSON, {}, 400),
    ("deep JSON", b"[" * 9_000, JSON, {}, 400),
    ("not gzip", b"plain", PROTOBUF, {"Content_Encoding": "gzip"}, 400),
    ("gzip cut off", gzip.compress(BODY)[:-5], PROTOBUF, {"Content_Encoding": "gzip"}, 400),
    ("many gzips", gzip.compress(b"") * 20, PROTOBUF, {"Content_Encoding": "gzip"}, 400),
    ("too long", b"x" * (LIMIT + 1), PROTOBUF, {}, 413),
    ("a bomb", gzip.compress(b"\0" * 10_000_000), PROTOBUF, {"Content_Encoding": "gzip"}, 413),
    ("too many records", request(60).SerializeToString(), PROTOBUF, {}, 413),
    ("too many records, empty", b"\x0a\xc8\x01" + b"\x12\x00" * 100, PROTOBUF, {}, 413),
    ("no type", BODY, "", {}, 415),
    ("a form", BODY, "application/x-www-form-urlencoded", {}, 415),
    ("brotli", BODY, PROTOBUF, {"Content_Encoding": "br"}, 415),
    ("a web page", BODY, PROTOBUF, {"Origin": "http://127.0.0.1"}, 403),
    ("a web page's fetch", BODY, JSON, {"Sec_Fetch_Site": "same-site"}, 403),
]


@pytest.mark.parametrize(("why", "body", "kind", "headers", "status"), REFUSED, ids=[case[0] for case in REFUSED])
def test_what_can_not_be_taken_is_refused(
    intake: Intake, taker: Taker, why: str, body: bytes, kind: str, headers: dict[str, str], status: int
) -> None:
    """Each has the status that the specification names, and the reason in the request's type; nothing is taken."""
    found, said, answer = post(intake, body, kind=kind, **headers)
    assert found == status
    assert taker.parcels == []
    if kind == JSON:
        assert json.loads(answer)["message"]
    elif status != 415:
        assert said["Content-Type"] == PROTOBUF
        assert answer.startswith(b"\x12")


def test_streamed_body_is_bounded(intake: Intake, taker: Taker) -> None:
    """A body that does not name its length is cut at the limit."""
    connection = http.client.HTTPConnection("127.0.0.1", intake.port, timeout=10)
    parts = iter([b"x" * 6_000] * 2)
    connection.request("POST", "/v1/logs", parts, {"Content-Type": PROTOBUF}, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


def test_body_that_is_announced_as_too_long_is_not_waited_for(intake: Intake) -> None:
    """Where the head names a length above the limit, the answer comes before the body does."""
    with socket.create_connection(("127.0.0.1", intake.port), 20) as client:
        client.sendall(f"POST /v1/logs HTTP/1.1\r\nContent-Type: {PROTOBUF}\r\nContent-Length: 999999\r\n\r\n".encode())
        assert client.recv(1000).startswith(b"HTTP/1.1 413")


def test_taker_may_be_overloaded(intake: Intake, taker: Taker) -> None:
    """429 says when to come again."""
    taker.refuse = Refused(429, "too much", retry_after=3)
    status, headers, _ = post(intake, BODY)
    assert (status, headers["Retry-After"]) == (429, "3")


def test_partial_success_is_told(intake: Intake, taker: Taker) -> None:
    """What was refused of a request that was taken is counted in the answer."""
    taker.taken = Taken(2, "too old")
    message = ExportLogsServiceResponse.FromString(post(intake, BODY)[2])
    assert (message.partial_success.rejected_log_records, message.partial_success.error_message) == (2, "too old")
    answer = json.loads(post(intake, AS_JSON, kind=JSON)[2])
    assert answer == {"partialSuccess": {"rejectedLogRecords": "2", "errorMessage": "too old"}}


def test_other_paths_and_methods_are_none(intake: Intake) -> None:
    """Only POST, and only the three paths."""
    assert post(intake, BODY, "/v1/other")[0] == 404
    connection = http.client.HTTPConnection("127.0.0.1", intake.port, timeout=10)
    connection.request("GET", "/v1/logs")
    assert connection.getresponse().status == 405
    connection.close()


def test_settled_means_that_all_was_taken(intake: Intake, taker: Taker) -> None:
    """It is not settled while a request is under way, and is when that was answered or its sender is gone."""
    assert intake.settled(5)
    head = f"POST /v1/logs HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\nContent-Length: {len(BODY)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", intake.port)) as half:
        half.sendall(head.encode() + BODY[:5])
        assert not intake.settled(5)
        half.sendall(BODY[5:])
        assert half.recv(1000).startswith(b"HTTP/1.1 200")
        assert intake.settled(5)
        half.sendall(head.encode() + BODY[:5])
        assert not intake.settled(5)
    pause = threading.Event()
    for _ in range(500):
        if intake.settled(5):
            break
        pause.wait(0.01)
    assert intake.settled(5)
    assert len(taker.parcels) == 1


def test_head_that_does_not_come_to_an_end_is_given_up(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that sends half a head, or an endless one, is let go; others are served meanwhile."""
    monkeypatch.setattr(monitor_intake, "HEAD_SECONDS", 0.1)
    with socket.create_connection(("127.0.0.1", intake.port), 20) as slow:
        slow.sendall(b"POST /v1/logs HTTP/1.1\r\nHost: x\r\n")
        assert post(intake, BODY)[0] == 200
        assert slow.recv(1000) == b""
    monkeypatch.setattr(monitor_intake, "HEAD_SECONDS", 1000.0)
    with socket.create_connection(("127.0.0.1", intake.port), 20) as endless:
        endless.sendall(b"POST /v1/logs HTTP/1.1\r\nHost: ")
        with pytest.raises(OSError):
            for _ in range(200):
                endless.sendall(b"x" * 100_000)
    assert post(intake, BODY)[0] == 200


def test_what_is_no_http_is_answered_in_silence() -> None:
    """A program that speaks something else gets 400, and nothing is written on stderr."""
    script = (
        "import socket\n"
        "from otel_progress.monitor.intake import Intake\n"
        "intake = Intake(print)\n"
        "intake.start()\n"
        "with socket.create_connection(('127.0.0.1', intake.port), 20) as other:\n"
        "    other.sendall(b'\\x16\\x03\\x01 hello\\r\\n\\r\\n')\n"
        "    print(other.recv(12))\n"
        "intake.stop()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("b'HTTP/1.1 400'\n", "")


def test_port_that_another_one_has_is_told() -> None:
    """A port that can't be had is an error that names it."""
    first = Intake(Taker())
    with pytest.raises(InvalidArgument, match=str(first.port)):
        Intake(Taker(), port=first.port)
    first.stop()
    first.stop()


def test_stopped_intake_takes_nothing() -> None:
    """After the stop nobody listens any more, even where a connection is still open."""
    intake = Intake(Taker())
    intake.start()
    with socket.create_connection(("127.0.0.1", intake.port)):
        assert intake.settled(5)
        intake.stop()
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", intake.port), 1).close()


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(body: bytes) -> None:
    """No body makes anything but a message or a refusal; what protobuf reads, the count reads too."""
    try:
        found = parse("logs", body)
    except Refused:
        return
    message = ExportLogsServiceRequest.FromString(body)
    assert found.message == message
    records = sum(
        1 + len(group.scope_logs) + sum(len(scope.log_records) for scope in group.scope_logs)
        for group in message.resource_logs
    )
    assert count(body, 10**6) >= records


@given(st.binary(max_size=200))
def test_any_bytes_as_json_are_refused_or_read(body: bytes) -> None:
    """The same for JSON."""
    with contextlib.suppress(Refused):
        parse("logs", body, json_body=True)


@given(st.binary(max_size=5000), st.integers(1, 3))
def test_inflate_is_the_inverse_of_gzip(body: bytes, parts: int) -> None:
    """Any body comes back, in one part or several; a byte above the limit is too much."""
    packed = b"".join(gzip.compress(body) for _ in range(parts))
    whole = body * parts
    assert inflate(packed, max(1, len(whole))) == whole
    if whole:
        with pytest.raises(Refused):
            inflate(packed, len(whole) - 1)


def test_count_stops_early() -> None:
    """A request of very many records is not walked to its end."""
    assert count(b"\x0a\x00" * 100_000, 10) == 11
    with pytest.raises(DecodeError):
        ExportLogsServiceRequest.FromString(b"\xff")
