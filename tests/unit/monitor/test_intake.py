"""The intake: what it takes, what it refuses and how it says so, over a real connection."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span
from opentelemetry.proto.trace.v1.trace_pb2 import Status as SpanStatus
from tests.stress.served import Served, event, logs, serving

from otel_progress import semconv as s
from otel_progress.errors import InvalidArgument
from otel_progress.model import wire
from otel_progress.model.snapshot import Progress, Snapshot
from otel_progress.model.status import Status
from otel_progress.monitor.intake import bodies, requests
from otel_progress.monitor.intake import connection as monitor_intake
from otel_progress.monitor.intake.grpc import SERVICES
from otel_progress.monitor.intake.records import RECORD_BYTES, Record, groups
from otel_progress.monitor.intake.requests import Accepted, Parcel, Refused, Sender, count_records, inflate, parse
from otel_progress.monitor.intake.server import Intake
from otel_progress.monitor.state import store
from otel_progress.monitor.state.ledger import head_of, read
from otel_progress.outbound import otlp
from otel_progress.settings import Endpoint

PROTOBUF, JSON = requests.PROTOBUF, requests.JSON
LIMIT = 10_000


def request(records: int = 1, event: str = s.UPDATED) -> ExportLogsServiceRequest:
    """A request with this number of log records."""
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
        self.taken = Accepted()
        self.refuse: Refused | None = None

    def __call__(self, parcel: Parcel) -> Accepted:
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
    taker.parcels, taker.taken, taker.refuse = [], Accepted(), None
    return served[0]


@pytest.fixture
def taker(served: tuple[Intake, Taker]) -> Taker:
    """What it gives its parcels to."""
    return served[1]


def post(intake: Intake, body: bytes, path: str = "/v1/logs", kind: str = PROTOBUF, **headers: str) -> Any:
    """Send a request; returns status, headers and body of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", intake.port, timeout=60)
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
    ("a list in JSON", b"[]", JSON, {}, 400),
    ("null in JSON", b"null", JSON, {}, 400),
    ("no type", BODY, "", {}, 415),
    ("a form", BODY, "application/x-www-form-urlencoded", {}, 415),
    ("brotli", BODY, PROTOBUF, {"Content_Encoding": "br"}, 415),
    ("a web page", BODY, PROTOBUF, {"Origin": "http://127.0.0.1"}, 403),
    ("a web page's fetch", BODY, JSON, {"Sec_Fetch_Site": "same-site"}, 403),
]


@pytest.mark.parametrize(("why", "body", "kind", "headers", "status"), REFUSED, ids=[case[0] for case in REFUSED])
def test_what_can_not_be_taken_is_refused(
    intake: Intake,
    taker: Taker,
    monkeypatch: pytest.MonkeyPatch,
    why: str,
    body: bytes,
    kind: str,
    headers: dict[str, str],
    status: int,
) -> None:
    """Each has the status that the specification names, and the reason in the type of the request, as JSON if that is unknown; nothing is taken, and no more of a body that is complete is waited for."""
    monkeypatch.setattr(bodies, "BODY_SECONDS", 3600.0)
    found, said, answer = post(intake, body, kind=kind, **headers)
    assert found == status
    assert taker.parcels == []
    if kind != PROTOBUF:
        assert json.loads(answer)["message"]
    elif status != 415:
        assert said["Content-Type"] == PROTOBUF
        assert answer.startswith(b"\x12")


@pytest.mark.parametrize("sizes", [[6_000, 6_000], [12_000]])
def test_streamed_body_is_bounded(intake: Intake, monkeypatch: pytest.MonkeyPatch, sizes: list[int]) -> None:
    """A body that does not name its length is cut at the limit, in whatever pieces it comes."""
    monkeypatch.setattr(bodies, "BODY_SECONDS", 3600.0)
    connection = http.client.HTTPConnection("127.0.0.1", intake.port, timeout=60)
    parts = iter([b"x" * size for size in sizes])
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
    taker.taken = Accepted(2, "too old")
    message = ExportLogsServiceResponse.FromString(post(intake, BODY)[2])
    assert (message.partial_success.rejected_log_records, message.partial_success.error_message) == (2, "too old")
    answer = json.loads(post(intake, AS_JSON, kind=JSON)[2])
    assert answer == {"partialSuccess": {"rejectedLogRecords": "2", "errorMessage": "too old"}}


def test_other_paths_and_methods_are_none(intake: Intake) -> None:
    """Only POST, and only the three paths."""
    assert post(intake, BODY, "/v1/other")[0] == 404
    connection = http.client.HTTPConnection("127.0.0.1", intake.port, timeout=60)
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
        "from otel_progress.monitor.intake.server import Intake\n"
        "intake = Intake(print)\n"
        "intake.start()\n"
        "with socket.create_connection(('127.0.0.1', intake.port), 20) as other:\n"
        "    other.sendall(b'\\x16\\x03\\x01 hello\\r\\n\\r\\n')\n"
        "    print(other.recv(12))\n"
        "intake.stop()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("b'HTTP/1.1 400'\n", "")


def test_the_address_is_known_before_the_server_is_imported() -> None:
    """A command starts at once: what serves HTTP is imported meanwhile, and its first connections wait for that."""
    script = (
        "import socket, sys\n"
        "from otel_progress.monitor.intake.server import Intake\n"
        "idle = Intake(print)\n"
        "print(idle.settled(), sys.modules.keys() & {'uvicorn', 'starlette', 'httptools'})\n"
        "idle.stop()\n"
        "intake = Intake(print)\n"
        "with socket.create_connection(('127.0.0.1', intake.port), 20) as other:\n"
        "    print(intake.settled(0.0))\n"
        "    other.sendall(b'GET / HTTP/1.1\\r\\nHost: here\\r\\n\\r\\n')\n"
        "    intake.start()\n"
        "    print(other.recv(12))\n"
        "intake.stop()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("True set()\nFalse\nb'HTTP/1.1 404'\n", "")


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
    assert count_records(body, 10**6)[0] >= records


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
    assert count_records(b"\x0a\x00" * 100_000, 10) == (11, 0)
    with pytest.raises(DecodeError):
        ExportLogsServiceRequest.FromString(b"\xff")


# -- the same on the real monitor


@pytest.fixture(scope="module")
def monitor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A whole monitor."""
    with serving(tmp_path_factory.mktemp("otlp"), grpc_port=0, keep_days=100_000) as found:  # 1970 counts, too
        yield found


def test_any_language_is_enough(monitor: Served) -> None:
    """OTLP/JSON written by hand, with only the required attributes, makes an operation."""
    for key, named in (
        ("by-hand", {"eventName": s.UPDATED}),
        ("in-the-old-way", {}),
    ):
        said = {s.OPERATION_ID: key, s.OPERATION_NAME: "import", s.STATUS: "running"}
        said |= {} if named else {s.EVENT_NAME: s.UPDATED}
        pairs = [{"key": name, "value": {"stringValue": text}} for name, text in said.items()]
        pairs.append({"key": s.SEQUENCE, "value": {"intValue": "1"}})
        pairs.append({"key": s.START_TIME, "value": {"doubleValue": 1763750000.0}})
        record = {"timeUnixNano": "1763750000000000000", "attributes": pairs, **named}
        body = json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}).encode()
        answer = monitor.ask("POST", "/v1/logs", body, {"Content-Type": JSON})
        assert (answer.status, answer.json) == (200, {})
        assert answer.headers["Otel-Progress-Control"] == "/control"
        (row,) = monitor.get(f"/operations?search={key}")["operations"]
        assert (row["id"], row["name"], row["status"], row["said_at"]) == (key, "import", "running", 1763750000.0)


def test_part_of_a_request_may_be_refused(monitor: Served) -> None:
    """Events that bear our name but are none are counted in the answer; the others are taken."""
    answer = monitor.send(event("whole"), LogRecord(event_name=s.UPDATED), event("odd", status="no status"))
    message = ExportLogsServiceResponse.FromString(answer.body)
    assert answer.status == 200
    assert message.partial_success.rejected_log_records == 2
    assert message.partial_success.error_message
    assert monitor.detail("whole")["status"] == "running"


@pytest.mark.parametrize("size", [requests.LARGEST + 1, 2 * requests.LARGEST])
def test_client_that_is_still_sending_gets_the_answer(monitor: Served, size: int) -> None:
    """A body above the limit is read to its end and forgotten, as else the client sees a reset instead of the 413."""
    connection = http.client.HTTPConnection("127.0.0.1", monitor.monitor.port, timeout=60)
    with contextlib.closing(connection):
        connection.request("POST", "/v1/logs", bytes(size), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert (answer.status, b"send smaller batches" in answer.read()) == (413, True)


def test_too_large_event_counts_without_what_is_large(monitor: Served) -> None:
    """The answer names the attribute and the limit; what orders and ends the operation is taken, and so are others."""
    before = monitor.get("/health")["intake"]["records"]
    answer = monitor.send(event("small"), event("large", MESSAGE="y" * RECORD_BYTES))
    success = ExportLogsServiceResponse.FromString(answer.body).partial_success
    assert (answer.status, success.rejected_log_records) == (200, 0)
    assert "progress.message makes an event larger than 320 KiB: it is left out" in success.error_message
    assert monitor.get("/health")["intake"]["records"] == before
    assert monitor.get("/health")["mistakes"]["too_large"] == 1
    assert monitor.detail("small")["status"] == "running"
    assert monitor.detail("large")["status"] == "running"


@pytest.mark.parametrize("key", [s.OPERATION_ATTEMPT, s.SEQUENCE, s.START_TIME, s.OPERATION_PARENT_ID])
def test_attribute_without_a_value_counts_as_missing(key: str) -> None:
    """Of what orders an event, another type is refused; no value at all is as if it was not sent."""
    about = [pair for pair in event("a").attributes if pair.key != key]
    odd = {"none": AnyValue(), "list": AnyValue(array_value=ArrayValue())}
    heads = {
        name: head_of(Record(s.UPDATED, LogRecord(attributes=[*about, KeyValue(key=key, value=value)])))
        for name, value in odd.items()
    }
    assert heads["none"] is not None
    assert (heads["list"] is None) == (key != s.OPERATION_PARENT_ID)


def test_too_much_is_told_with_when_to_come_again(monitor: Served) -> None:
    """Where too much waits it is 429 with `Retry-After`, and over gRPC UNAVAILABLE with `RetryInfo`."""
    grpc = pytest.importorskip("grpc")
    queue = monitor.monitor.core.inbox.queue
    most_bytes, queue.most_bytes = queue.most_bytes, 10
    answer = monitor.send(event("late"))
    assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
    assert answer.body.startswith(b"\x12")
    with grpc.insecure_channel(f"127.0.0.1:{monitor.monitor.grpc_port}") as channel:
        export = channel.unary_unary("/opentelemetry.proto.collector.logs.v1.LogsService/Export")
        with pytest.raises(grpc.RpcError) as caught:
            export(logs(event("late")), timeout=20)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    details = dict(caught.value.trailing_metadata())["grpc-status-details-bin"]
    assert b"type.googleapis.com/google.rpc.RetryInfo\x12\x04\x0a\x02\x08\x01" in details
    queue.most_bytes = most_bytes
    assert monitor.send(event("late")).status == 200


def test_request_above_the_size_of_a_part_is_taken_by_both_protocols(monitor: Served) -> None:
    """5 MiB of events, as a Collector sends that batches by items, over HTTP and over gRPC."""
    grpc = pytest.importorskip("grpc")
    body = logs(*(event("large", MESSAGE="x" * 7_000, sequence=number) for number in range(1, 751)))
    assert len(body) > requests.BYTES
    assert monitor.post(body).status == 200
    assert monitor.detail("large")["id"] == "large"
    with grpc.insecure_channel(f"127.0.0.1:{monitor.monitor.grpc_port}") as channel:
        export = channel.unary_unary("/opentelemetry.proto.collector.logs.v1.LogsService/Export")
        assert export(body, timeout=20) == b""
    answer = monitor.post(bytes(requests.LARGEST + 1))
    assert answer.status == 413
    assert b"send smaller batches" in answer.body


def test_what_it_does_not_keep_is_told(monitor: Served, tmp_path: Path) -> None:
    """Answers to metrics say so, over HTTP and over gRPC, unless they are passed on; those to logs name the channel."""
    grpc = pytest.importorskip("grpc")
    for kind in (JSON, PROTOBUF):
        answer = monitor.ask("POST", "/v1/metrics", b"{}" if kind == JSON else b"", {"Content-Type": kind})
        assert (answer.status, answer.headers["Otel-Progress-Discards"]) == (200, "metrics")
        assert "Otel-Progress-Control" not in answer.headers
        answer = monitor.ask("POST", "/v1/logs", b"{}" if kind == JSON else b"", {"Content-Type": kind})
        assert "Otel-Progress-Discards" not in answer.headers
    with grpc.insecure_channel(f"127.0.0.1:{monitor.monitor.grpc_port}") as channel:
        for signal, names in (("metrics", {"otel-progress-discards"}), ("logs", {"otel-progress-control"})):
            service = next(name for name, one in SERVICES.items() if one == signal)
            _, call = channel.unary_unary(f"/{service}/Export").with_call(b"", timeout=20)
            assert {key for key, _ in call.initial_metadata() if key.startswith("otel-progress")} == names
    forward = {"metrics": Endpoint("http/protobuf", "http://127.0.0.1:9/v1/metrics", ())}
    with serving(tmp_path, forward=forward) as passes_on:
        answer = passes_on.ask("POST", "/v1/metrics", b"", {"Content-Type": PROTOBUF})
        assert (answer.status, "Otel-Progress-Discards" in answer.headers) == (200, False)


def test_grpc_health(monitor: Served) -> None:
    """The health checking protocol of gRPC answers for the whole server and for each service, without a token."""
    grpc = pytest.importorskip("grpc")
    with grpc.insecure_channel(f"127.0.0.1:{monitor.monitor.grpc_port}") as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        for name in (b"", *(service.encode() for service in SERVICES)):
            assert check(otlp.chunk(1, name) if name else b"", timeout=20) == b"\x08\x01"
        with pytest.raises(grpc.RpcError) as caught:
            check(otlp.chunk(1, b"other"), timeout=20)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        watching = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=20)
        assert next(watching) == b"\x08\x01"
        watching.cancel()
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/grpc.health.v1.Health/Other")(b"", timeout=20)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_what_can_not_be_stored_is_not_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another program holds the file it is 503 with `Retry-After`; what is sent again then is there."""
    monkeypatch.setattr(store, "BUSY_SECONDS", 0.1)
    with serving(tmp_path) as found:
        with contextlib.closing(sqlite3.connect(tmp_path / "m.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            answer = found.send(event("again"))
            assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
            other.execute("ROLLBACK")
        assert found.send(event("again")).status == 200
        assert found.detail("again")["id"] == "again"


TEXTS = st.text(max_size=20) | st.sampled_from(["", "\0", "a/b", "\u2028", "x" * 2_000, "<script>", "NaN", "-1"])
INTS = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 1, -1, 2**63 - 1, -(2**63)])
DOUBLES = st.floats() | st.sampled_from([1e308, -1e308, 1e-320])
SCALARS = (
    st.builds(AnyValue, string_value=TEXTS)
    | st.builds(AnyValue, int_value=INTS)
    | st.builds(AnyValue, double_value=DOUBLES)
    | st.builds(AnyValue, bool_value=st.booleans())
    | st.builds(AnyValue, bytes_value=st.binary(max_size=5))
    | st.just(AnyValue())
)


def nested(inner: Any) -> Any:
    """Lists and maps of values."""
    lists = st.lists(inner, max_size=3).map(lambda values: AnyValue(array_value=ArrayValue(values=values)))
    pairs = st.lists(st.builds(KeyValue, key=TEXTS, value=inner), max_size=3)
    return lists | pairs.map(lambda values: AnyValue(kvlist_value=KeyValueList(values=values)))


def deep(depth: int) -> AnyValue:
    """A list in a list, so often."""
    found = AnyValue(int_value=1)
    for _ in range(depth):
        found = AnyValue(array_value=ArrayValue(values=[found]))
    return found


VALUES = st.recursive(SCALARS, nested, max_leaves=6) | st.integers(1, 40).map(deep)
FIELDS = st.sampled_from(
    ["path", "name", "status", "eta", "wait", "elapsed", "completed", "attributes", "input_tokens", "cost.USD", "x"]
)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5)
TREES = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(FIELDS, inner, max_size=4))
STAGE = st.fixed_dictionaries(
    {"path": st.just("p"), "status": st.just("running")},
    optional={"eta": TREES, "wait": TREES, "completed": TREES, "x": TREES},
)
ODD_JSON = st.sampled_from(
    [
        '{"a": "\\ud800"}',
        '{"\\udfff": 1, "cost.\\ud800": 2}',
        '{"cost.USD": 1e999, "input_tokens": NaN}',
        '{"cost.USD": 1' + "0" * 400 + "}",
        '{"a": ' + "[" * 900 + "]" * 900 + "}",
        "[" * 3_000,
        '{"a":' * 500 + "1" + "}" * 500,
        "null",
        '"text"',
    ]
)
JSONS = (ODD_JSON | TREES.map(json.dumps) | st.lists(STAGE, max_size=3).map(json.dumps)).map(
    lambda text: AnyValue(string_value=text)
)
OUR_KEYS = sorted(
    name
    for name in vars(s).values()
    if isinstance(name, str) and name.startswith((s.PREFIX, "gen_ai.")) and name != s.PREFIX
)
HEADS = st.fixed_dictionaries(
    {
        s.OPERATION_ID: st.sampled_from(["a", "b", "c", "a/b", "\0", "é"]).map(
            lambda text: AnyValue(string_value=text)
        ),
        s.OPERATION_NAME: st.just(AnyValue(string_value="fuzz")),
        s.STATUS: st.sampled_from([status.value for status in Status]).map(lambda text: AnyValue(string_value=text)),
        s.SEQUENCE: INTS.map(lambda number: AnyValue(int_value=number)),
    },
)
TIMES = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**64 - 1])
ATTRIBUTES = st.dictionaries(st.sampled_from(OUR_KEYS) | TEXTS, VALUES | JSONS, max_size=8)
RECORDS = st.builds(
    lambda head, more, **about: LogRecord(
        attributes=[KeyValue(key=k, value=v) for k, v in {**more, **head}.items()], **about
    ),
    head=HEADS | st.just({}),
    more=ATTRIBUTES,
    event_name=st.sampled_from(sorted(s.EVENTS)) | TEXTS,
    time_unix_nano=TIMES,
    observed_time_unix_nano=TIMES,
    body=VALUES,
    trace_id=st.binary(max_size=20) | st.just(b"\1" * 16),
    span_id=st.binary(max_size=20) | st.just(b"\2" * 8),
    flags=st.integers(0, 2**32 - 1),
)
ABOUT = st.dictionaries(
    st.sampled_from(["service.instance.id", "service.name", "process.pid", "host.name", s.PROCESS_CREATED]) | TEXTS,
    VALUES,
    max_size=4,
).map(lambda given: Resource(attributes=[KeyValue(key=key, value=value) for key, value in given.items()]))
REQUESTS = st.builds(
    lambda about, records: ExportLogsServiceRequest(
        resource_logs=[ResourceLogs(resource=about, scope_logs=[ScopeLogs(log_records=records)])]
    ),
    ABOUT,
    st.lists(RECORDS, min_size=1, max_size=6),
)
SPANS = st.builds(
    lambda attributes, code, **about: Span(
        attributes=[KeyValue(key=k, value=v) for k, v in attributes.items()],
        status=SpanStatus(code=code, message="m"),
        **about,
    ),
    attributes=ATTRIBUTES,
    code=st.integers(0, 5),
    name=TEXTS,
    trace_id=st.sampled_from([b"\1" * 16, b"\2" * 16]) | st.binary(max_size=20),
    span_id=st.binary(max_size=10),
    parent_span_id=st.just(b"") | st.binary(max_size=10),
    start_time_unix_nano=TIMES,
    end_time_unix_nano=TIMES,
    flags=st.integers(0, 2**32 - 1),
)
TRACES = st.builds(
    lambda about, spans: ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(resource=about, scope_spans=[ScopeSpans(spans=spans)])]
    ),
    ABOUT,
    st.lists(SPANS, min_size=1, max_size=6),
)


def strict(body: bytes) -> Any:
    """JSON as the standard has it."""

    def odd(name: str) -> Any:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(body.decode("utf-8"), parse_constant=odd)


@given(st.tuples(st.just("logs"), REQUESTS) | st.tuples(st.just("traces"), TRACES))
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
def test_no_message_harms_the_monitor(monitor: Served, given: tuple[str, Any]) -> None:
    """Whatever well-formed message comes, it is taken or refused, and all that is answered afterwards is JSON."""
    signal, message = given
    answer = monitor.post(message.SerializeToString(), signal)
    assert answer.status == 200, answer.body
    health = strict(monitor.ask("GET", "/health").body)
    assert (health["status"], health.get("trouble")) == ("ok", None)
    listed = monitor.ask("GET", "/operations?limit=10000")
    assert listed.status == 200
    for row in strict(listed.body)["operations"]:
        path = f"/operations/{quote(row['id'], safe='')}"
        if path == "/operations/":
            continue
        for there in (path, path + "/events"):
            answer = monitor.ask("GET", there)
            assert answer.status == 200, (there, answer.body)
            strict(answer.body)


def test_streams_go_on_after_all_that(monitor: Served) -> None:
    """A reader of the stream still hears what is new."""
    with monitor.connect() as client:
        client.settimeout(20)
        client.sendall(monitor.head("/stream"))
        said = b""
        while b"hello" not in said:
            said += client.recv(65_536)
        monitor.send(event("still-here"))
        while b"still-here" not in said:
            said += client.recv(65_536)


def own(sequence: int, event: str = s.UPDATED, key: str = "a", seconds: float = 1.0) -> bytes:
    """An event in the order in which our SDK writes it."""
    about = {s.SEQUENCE: sequence, s.OPERATION_ID: key, s.OPERATION_NAME: "n", s.STATUS: "running", s.START_TIME: 1.0}
    encoded = otlp.attributes(6, {**about, s.IDLE: 0.5, s.MESSAGE: f"at {sequence}"})
    moment = round(seconds * 1e9)
    return otlp.log_record(event, moment, moment, otlp.INFO, "", encoded, None, None, False)


@pytest.mark.parametrize(
    ("events", "kept"),
    [
        ([own(1), own(2), own(3)], [3]),
        ([own(1), own(2, key="b")], [1, 2]),
        ([own(3), own(2)], [3, 2]),
        ([own(1, s.NOTE), own(2), own(3, s.STAGE_ENDED)], [1, 3]),
        ([own(7), own(1, s.OPERATION_STARTED), own(2)], [7, 1, 2]),
    ],
)
def test_plain_update_before_a_newer_event_of_its_operation_is_void(events: list[bytes], kept: list[int]) -> None:
    """Only plain updates are, only by what comes later in the request, and never by another attempt or operation."""
    body = otlp.envelope(otlp.resource({}), otlp.scope("x", ""), events)
    (group,) = groups(parse("logs", body), lambda *_: False)
    assert [record.brief[s.SEQUENCE] for record in group.records] == kept
    assert group.void == len(events) - len(kept)
    (group,) = groups(parse("logs", body), lambda *_: True)
    assert (len(group.records), group.void) == (len(events), 0)


SAID: dict[str, Any] = {
    s.SEQUENCE: 7,
    s.STAGE_PATH: "x",
    s.NOTE_TEXT: "seen",
    "file": "a.csv",
    s.OPERATION_ID: "a",
    s.OPERATION_NAME: "n",
    s.STATUS: "running",
    s.HEALTH: "progressing",
    s.RATIO: 0.25,
    s.OPERATION_ATTEMPT: 2,
    s.OPERATION_PARENT_ID: "p",
    s.GEN_AI_AGENT: "me",
    s.START_TIME: 1.0,
    s.ELAPSED: 4.0,
    s.SLOW_AFTER: 9.0,
    s.START_WITHIN: 3.0,
    s.IDLE: 0.5,
    s.MESSAGE: "here",
    s.HEALTH_REASON: "why",
    s.STUCK_AT: "a.py:1",
    s.RATIO_RAW: 0.2,
    s.WAIT_REASON: "lock",
    s.WAIT_REMAINING: 2.0,
}


@given(
    st.sampled_from(sorted(s.EVENTS - {s.PROCESS_HEARTBEAT})),
    st.one_of(
        st.permutations(list(SAID)),
        st.permutations(list(SAID)[1:]).map(lambda keys: [s.SEQUENCE, *keys]),
        st.sampled_from(list(SAID)[1:]).map(lambda last: [*(key for key in SAID if key != last), last]),
    ),
)
@settings(max_examples=200, deadline=None)
def test_the_order_of_attributes_changes_nothing(kind: str, order: list[str]) -> None:
    """OTLP attributes have no order: an event is the same in any, also if it begins or goes on as ours do."""

    def received(keys: Iterable[str]) -> Record:
        encoded = otlp.attributes(6, {key: SAID[key] for key in keys})
        record = otlp.log_record(kind, 5, 5, otlp.INFO, "", encoded, None, None, False)
        ((found,),) = [group.records for group in groups(parse("logs", otlp.envelope(b"", b"", [record])))]
        return found

    usual, other = received(SAID), received(order)
    assert (other.brief, other.own) == (usual.brief, usual.own)
    assert head_of(other) == head_of(usual) is not None
    assert read(other) == read(usual) is not None


def test_what_orders_an_event_of_ours_is_read_at_once_and_the_rest_when_it_is_asked_for() -> None:
    """A reader in a hurry decodes what orders and judges an operation; nothing of the rest is lost."""
    snapshot = Snapshot(
        "a",
        "n",
        Status.RUNNING,
        5.0,
        2,
        "p",
        7,
        started_at=1.0,
        elapsed=4.0,
        slow_after=9.0,
        agent="me",
        message="here",
        progress=Progress(1, 4, ratio=0.25, ratio_raw=0.25),
    )
    known = wire.to_attributes(snapshot)
    known.pop(s.SEQUENCE)
    encoded = otlp.attributes(6, {s.SEQUENCE: 7, s.STAGE_PATH: "x"}) + otlp.attributes(6, known)
    record = otlp.log_record(s.UPDATED, 5 * 10**9, 5 * 10**9, otlp.INFO, "", encoded, None, None, False)
    body = otlp.envelope(otlp.resource({}), otlp.scope("x", ""), [record])
    ((found,),) = [group.records for group in groups(parse("logs", body))]
    head = head_of(found)
    assert head is not None
    assert (head.attempt, head.parent_id, head.sequence, head.started_at, head.agent) == (2, "p", 7, 1.0, "me")
    assert found.brief[s.SLOW_AFTER] == 9.0
    assert found.brief[s.RATIO] == 0.25
    assert s.MESSAGE not in found.brief
    assert read(found) == snapshot


def test_health_tells_what_was_not_taken(monitor: Served) -> None:
    """What a request held too much of is refused with a word, and `/health` counts it by reason."""
    before = monitor.get("/health")["intake"]
    bomb = gzip.compress(otlp.chunk(1, otlp.chunk(1, b"\x0a\x00" * 700_000)))
    answer = monitor.post(bomb, Content_Encoding="gzip")
    assert answer.status == 413
    assert b"send smaller batches" in answer.body
    assert monitor.get("/health")["intake"]["too_large"] == before["too_large"] + 1
    assert set(before) == {
        "waiting",
        "refused",
        "no_room",
        "too_fast",
        "client_gone",
        "too_large",
        "records",
        "too_slow",
    }


def test_records_share_the_names_of_their_attributes() -> None:
    """A hundred thousand operations in memory have the name of an attribute once, not once for each of them."""
    first, second = (
        record for group in groups(parse("logs", logs(event("a"), event("b")))) for record in group.records
    )
    assert first.brief.keys() == second.brief.keys()
    assert all(one is other for one, other in zip(sorted(first.brief), sorted(second.brief), strict=True))


@pytest.mark.parametrize(
    ("sender", "port"),
    [
        (Sender(("127.0.0.1", 5000)), 5000),
        (Sender("ipv6:%5B::1%5D:5001"), 5001),
        (Sender(("10.0.0.1", 5002), address="10.0.0.1"), None),
        (Sender("redis"), None),
        (Sender(), None),
    ],
)
def test_port_of_a_sender_is_known_on_this_machine(sender: Sender, port: int | None) -> None:
    """The port of a connection says which process of this machine sent a request, by HTTP and by gRPC."""
    assert sender.port == port
