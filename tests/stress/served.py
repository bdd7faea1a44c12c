"""A real monitor on real sockets, and small clients for it."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.monitor.app import Monitor, Options
from otel_progress.monitor.intake.requests import PROTOBUF

_pause = threading.Event()


class Answer:
    """The response."""

    def __init__(self, status: int, headers: http.client.HTTPMessage, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Served:
    """A monitor in a thread of this process."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        self.port = monitor.port
        self.host = f"127.0.0.1:{monitor.port}"

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        token: str | None = None,
    ) -> Answer:
        """Send a request on a connection of its own; `path` is sent unchanged."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            sent = {"Host": self.host, **(headers or {})}
            if token is not None:
                sent["Authorization"] = f"Bearer {token}"
            if body is not None:
                sent.setdefault("Content-Length", str(len(body)))
            for name, value in sent.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **more: Any) -> Any:
        """Return the JSON of an existing path."""
        answer = self.ask("GET", path, **more)
        assert answer.status == 200, (answer.status, answer.body[:500])
        return answer.json

    def detail(self, key: str, **more: Any) -> Any:
        return self.get(f"/operations/{quote(key, safe='')}", **more)

    def send(self, *records: LogRecord, instance: str = "i1", token: str | None = None) -> Answer:
        """Return log records of one process."""
        return self.post(logs(*records, instance=instance), token=token)

    def post(self, body: bytes, signal: str = "logs", token: str | None = None, **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("POST", f"/v1/{signal}", body, {"Content-Type": PROTOBUF, **named}, token=token)

    @contextlib.contextmanager
    def connect(self) -> Iterator[socket.socket]:
        """Return a bare connection."""
        with socket.create_connection(("127.0.0.1", self.port), 20) as found:
            yield found

    def head(self, path: str, method: str = "GET", **headers: str) -> bytes:
        """Return the head of a request for a bare connection."""
        more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        return f"{method} {path} HTTP/1.1\r\nHost: {self.host}\r\n{more}\r\n".encode()


@contextlib.contextmanager
def serving(folder: Path, **options: Any) -> Iterator[Served]:
    """Run a monitor during the block."""
    monitor = Monitor(Options(**{"db": folder / "m.db", "port": 0, "grpc_port": None, **options}))
    ready = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(monitor.serve(ready.set)), name="served", daemon=True)
    thread.start()
    assert ready.wait(20)
    try:
        yield Served(monitor)
    finally:
        monitor.stop()
        thread.join(20)
        assert not thread.is_alive()


def wait_until(true: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Return the result of the condition as soon as it is true."""
    until = clock.monotonic() + seconds
    while not (found := true()):
        assert clock.monotonic() < until, "it did not come true"
        _pause.wait(0.01)
    return found


def value(given: Any) -> AnyValue:
    """Return a scalar in OTLP form."""
    if isinstance(given, bool):
        return AnyValue(bool_value=given)
    if isinstance(given, int):
        return AnyValue(int_value=given)
    return AnyValue(double_value=given) if isinstance(given, float) else AnyValue(string_value=given)


STARTED = clock.unix()
"""When all operations of `event` started, unless it is told otherwise (s since 1970)."""


def event(
    key: str, name: str = "job", status: str = "running", *, kind: str = s.UPDATED, sequence: int = 1, **more: Any
) -> LogRecord:
    """Return a log event of an operation; `more` uses the names of semconv."""
    said = {s.OPERATION_ID: key, s.OPERATION_NAME: name, s.STATUS: status, s.SEQUENCE: sequence, s.START_TIME: STARTED}
    said |= {getattr(s, word): given for word, given in more.items()}
    pairs = [KeyValue(key=word, value=value(given)) for word, given in said.items()]
    moment = clock.time_ns()
    return LogRecord(event_name=kind, time_unix_nano=moment, observed_time_unix_nano=moment, attributes=pairs)


def logs(*records: LogRecord, instance: str = "i1") -> bytes:
    """Return a request with these records."""
    about = Resource(attributes=[KeyValue(key="service.instance.id", value=value(instance))])
    scopes = [ScopeLogs(log_records=records)]
    return ExportLogsServiceRequest(resource_logs=[ResourceLogs(resource=about, scope_logs=scopes)]).SerializeToString()
