"""A small OTLP receiver in a thread, over HTTP or gRPC, that can fail in many ways and recover."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_progress.model.deltas import merge

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from typing_extensions import Self

    T = TypeVar("T")

NO_ANSWER = 0
RESET = -1
GARBAGE = -2
ENDLESS = -3
"""Responses that are no HTTP status: none at all, a reset, bytes that are not HTTP, a body without an end."""
_LINGER_0 = struct.pack("ii", 1, 0)
_PATHS = {"/v1/logs": "logs", "/v1/metrics": "metrics", "/v1/traces": "traces"}
_METHODS = {
    f"/opentelemetry.proto.collector.{package}.v1.{service}Service/Export": signal
    for package, service, signal in (
        ("logs", "Logs", "logs"),
        ("metrics", "Metrics", "metrics"),
        ("trace", "Trace", "traces"),
    )
}


@dataclass(frozen=True)
class Answer:
    """A response: a status (of HTTP, translated for gRPC) after a number of seconds."""

    status: int = 200
    after: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Log:
    """An acknowledged log record; `received` is by this machine's monotonic clock."""

    name: str
    time: float
    attributes: dict[str, Any]
    resource: dict[str, Any]
    trace_id: str
    span_id: str
    received: float

    @property
    def operation(self) -> str:
        """The id of its operation."""
        return str(self.attributes.get("progress.operation.id", ""))

    @property
    def key(self) -> tuple[Any, ...]:
        """The identity of the event."""
        known = self.attributes
        return self.operation, known.get("progress.operation.attempt"), known.get("progress.sequence"), self.name


@dataclass(frozen=True)
class Span:
    """An acknowledged span."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    status: int
    attributes: dict[str, Any]
    resource: dict[str, Any]


@dataclass(frozen=True)
class Point:
    """An acknowledged metric point; of a histogram the count."""

    name: str
    value: float
    attributes: dict[str, Any]
    resource: dict[str, Any]


class Receiver:
    """Receives OTLP on a port of its own, which stays the same; `answer` decides the response to each request."""

    def __init__(self, protocol: str = "http/protobuf", *, listening: bool = True) -> None:
        """Start without listening: connections are refused until `listen()`."""
        self.protocol = protocol
        self.answer: Callable[[str], Answer] = lambda signal: Answer()
        self.logs: list[Log] = []
        self.spans: list[Span] = []
        self.points: list[Point] = []
        self.requests: Counter[str] = Counter()
        self._keyframes: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._changed = threading.Condition()
        self._released = threading.Event()
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._http: ThreadingHTTPServer | None = None
        self._grpc: Any = None
        if listening:
            self.listen()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def env(self) -> dict[str, str]:
        """Return the standard variables that send a program's telemetry here."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": self.protocol}

    def listen(self) -> None:
        """Accept connections from now on."""
        if self.protocol == "grpc":
            self._socket.close()
            self._grpc = grpc.server(ThreadPoolExecutor(32), options=[("grpc.so_reuseport", 0)])
            self._grpc.add_generic_rpc_handlers((_Rpc(self),))
            assert self._grpc.add_insecure_port(f"127.0.0.1:{self.port}") == self.port
            self._grpc.start()
            return
        server = ThreadingHTTPServer(("127.0.0.1", self.port), _Http, bind_and_activate=False)
        server.socket.close()
        server.socket, server.server_address = self._socket, ("127.0.0.1", self.port)
        server.daemon_threads = True
        server.receiver = self  # type: ignore[attr-defined]
        self._socket.listen(64)
        self._http = server
        threading.Thread(target=server.serve_forever, args=(0.02,), name="receiver", daemon=True).start()

    def close(self) -> None:
        """Release everything that hangs, and stop listening."""
        self._released.set()
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
        if self._grpc is not None:
            self._grpc.stop(0).wait()
        self._socket.close()

    def fail(self, status: int, **more: Any) -> None:
        """Respond to all requests like this from now on; `fail(200)` recovers."""
        self.answer = lambda signal: Answer(status, **more)

    # -- what arrived

    def wait_for(self, predicate: Callable[[], T], timeout: float = 20.0) -> T:
        """Call the predicate until its result is true, and return the result."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                if found := predicate():
                    return found
                left = deadline - time.monotonic()
                if left <= 0:
                    names = Counter(log.name for log in self.logs)
                    raise AssertionError(
                        f"waited {timeout:g} s in vain; {dict(self.requests)} requests, {dict(names)} logs, "
                        f"{len(self.spans)} spans, {len(self.points)} points had arrived"
                    )
                self._changed.wait(min(left, 0.5))

    def of(self, name: str) -> list[Log]:
        """Return the log events of a name."""
        return [log for log in list(self.logs) if log.name == name]

    def heard(self) -> set[str]:
        """Return the operations with any acknowledged event."""
        return {log.operation for log in list(self.logs) if log.operation}

    def ended(self) -> dict[str, str]:
        """Return the operations with an acknowledged end, and their statuses."""
        return {log.operation: log.attributes["progress.status"] for log in self.of("progress.operation.ended")}

    def doubled(self) -> list[tuple[Any, ...]]:
        """Return the events that were acknowledged more than once."""
        counts = Counter(log.key for log in list(self.logs) if log.operation)
        return [key for key, count in counts.items() if count > 1]

    def values(self, metric: str, **attributes: Any) -> list[float]:
        """Return the values of a metric, in order of arrival."""
        return [
            point.value
            for point in list(self.points)
            if point.name == metric
            and attributes.items() <= {k.rpartition(".")[2]: v for k, v in point.attributes.items()}.items()
        ]

    # -- for the servers

    def take(self, signal: str, body: bytes) -> Answer:
        """Decide the response to a request, and keep its data if it is acknowledged."""
        with self._changed:
            self.requests[signal] += 1
            self._changed.notify_all()
        answer = self.answer(signal)
        if answer.status == NO_ANSWER:
            self._released.wait()
        elif answer.after:
            self._released.wait(answer.after)
        if answer.status == 200:
            self._keep(signal, body)
        return answer

    def _keep(self, signal: str, body: bytes) -> None:
        now = time.monotonic()
        with self._changed:
            if signal == "logs":
                self.logs += map(self._whole, _logs(body, now))
            elif signal == "traces":
                self.spans += _spans(body)
            else:
                self.points += _points(body)
            self._changed.notify_all()

    def _whole(self, log: Log) -> Log:
        """The event with everything that its keyframe said."""
        said = log.attributes
        sender = log.resource.get("service.instance.id"), log.operation
        if "progress.keyframe" in said:
            return replace(log, attributes=merge(self._keyframes.get((*sender, said["progress.keyframe"]), {}), said))
        if "progress.sequence" in said:
            self._keyframes[(*sender, said["progress.sequence"])] = said
        return log


class _Http(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        receiver: Receiver = self.server.receiver  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = receiver.take(_PATHS[self.path], body)
        if answer.status in (RESET, NO_ANSWER):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
            self.close_connection = True
            self.connection.close()
        elif answer.status == GARBAGE:
            self.wfile.write(bytes(range(256)) * 8 + b"\n" * 4)
            self.close_connection = True
        elif answer.status == ENDLESS:
            self._endless()
        else:
            self.send_response(answer.status)
            for key, value in answer.headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

    def _endless(self) -> None:
        self.close_connection = True
        try:
            self.send_response(200)
            self.end_headers()
            for _ in range(100_000):
                self.wfile.write(b"\xff" * 65_536)
        except OSError:
            pass

    def log_message(self, *_: object) -> None:
        """Do not log requests."""

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            super().handle()

    def finish(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().finish()


_CODES = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.UNIMPLEMENTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    RESET: grpc.StatusCode.ABORTED,
    GARBAGE: grpc.StatusCode.INTERNAL,
    NO_ANSWER: grpc.StatusCode.CANCELLED,
}


class _Rpc(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def service(self, details: Any) -> Any:
        signal = _METHODS[details.method]

        def export(body: bytes, context: Any) -> bytes:
            answer = self._receiver.take(signal, body)
            if answer.status != 200:
                context.abort(_CODES[answer.status], "as the test wants it")
            return answer.body

        return grpc.unary_unary_rpc_method_handler(export)


def _logs(body: bytes, now: float) -> list[Log]:
    message = ExportLogsServiceRequest.FromString(body)
    return [
        Log(
            record.event_name,
            record.time_unix_nano / 1e9,
            _plain(record.attributes),
            _plain(group.resource.attributes),
            record.trace_id.hex(),
            record.span_id.hex(),
            now,
        )
        for group in message.resource_logs
        for scope in group.scope_logs
        for record in scope.log_records
    ]


def _spans(body: bytes) -> list[Span]:
    message = ExportTraceServiceRequest.FromString(body)
    return [
        Span(
            span.name,
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            span.status.code,
            _plain(span.attributes),
            _plain(group.resource.attributes),
        )
        for group in message.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


def _points(body: bytes) -> list[Point]:
    message = ExportMetricsServiceRequest.FromString(body)
    found = []
    for group in message.resource_metrics:
        resource = _plain(group.resource.attributes)
        for scope in group.scope_metrics:
            for metric in scope.metrics:
                data = getattr(metric, metric.WhichOneof("data"))
                for point in data.data_points:
                    if hasattr(point, "bucket_counts"):
                        value = float(point.count)
                    elif (kind := point.WhichOneof("value")) is not None:
                        value = float(getattr(point, kind))
                    else:  # the end of a series
                        continue
                    found.append(Point(metric.name, value, _plain(point.attributes), resource))
    return found


def _plain(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None
