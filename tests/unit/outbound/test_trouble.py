"""Why nothing is delivered: recognised on real sockets, said in one line with the cure, once for all signals."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import pytest

from otel_progress.outbound import trouble
from otel_progress.outbound.answer import Answer, SignalStatus
from otel_progress.outbound.transport import connect
from otel_progress.outbound.trouble import Reporter, Trouble
from otel_progress.settings import Endpoint, read

PAGE = b"\xef\xbb\xbf\n<!DOCTYPE html><html><body>It works!</body></html>"


class WebServer(BaseHTTPRequestHandler):
    """Answers everything with what its server holds."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        status, body = self.server.answer  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def web() -> Iterator[ThreadingHTTPServer]:
    """A web server that does not speak OTLP."""
    with ThreadingHTTPServer(("127.0.0.1", 0), WebServer) as server:
        server.answer = (200, PAGE)  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def grpc_port() -> Iterator[int]:
    """A server of gRPC."""
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(0).wait()


@pytest.fixture
def closed() -> Iterator[int]:
    """A port on which nothing listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def answer(url: str, protocol: str = "http/protobuf") -> Answer:
    """The trouble of a request to an address."""
    transport = connect("logs", read(endpoint=url, protocol=protocol, environ={}).endpoints["logs"])
    try:
        return transport.send(b"")
    finally:
        transport.close()


def text(found: Answer) -> str:
    assert not found.delivered
    assert found.trouble is not None
    return found.trouble.text


@pytest.mark.parametrize(("protocol", "option"), [("http/protobuf", "--port"), ("grpc", "--grpc-port")])
def test_nothing_listens(closed: int, protocol: str, option: str) -> None:
    """Where nothing listens on this machine, the cure is to start the monitor."""
    assert text(answer(f"http://127.0.0.1:{closed}", protocol)) == (
        f"nothing listens at http://127.0.0.1:{closed}: start `otel-progress monitor {option} {closed}`, "
        "or run `otel-progress doctor`"
    )


def test_usual_ports_need_no_option() -> None:
    """The monitor listens at the usual ports by itself; elsewhere it is not a monitor that is missing."""
    refused = ConnectionRefusedError(111, "Connection refused")
    told = {
        url: trouble.of_error(Endpoint("http/protobuf", url), refused).text
        for url in ("http://localhost:4318/v1/logs", "http://user:secret@collector:4318/v1/logs")
    }
    assert list(told.values()) == [
        "nothing listens at http://localhost:4318: start `otel-progress monitor`, or run `otel-progress doctor`",
        (
            "nothing listens at http://collector:4318: start the Collector there, or check the address, "
            "or run `otel-progress doctor`"
        ),
    ]


def test_port_of_grpc(grpc_port: int) -> None:
    """HTTP to a port of gRPC is recognised."""
    assert text(answer(f"http://127.0.0.1:{grpc_port}")).startswith(
        f"http://127.0.0.1:{grpc_port} speaks gRPC, but gets HTTP: set OTEL_EXPORTER_OTLP_PROTOCOL=grpc"
    )


def test_port_of_http(web: ThreadingHTTPServer) -> None:
    """gRPC to a port of HTTP is recognised."""
    assert text(answer(f"http://127.0.0.1:{web.server_port}", "grpc")).startswith(
        f"http://127.0.0.1:{web.server_port} speaks HTTP, but gets gRPC: set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"
    )


def test_other_port_is_named_where_it_is_the_usual_one() -> None:
    """The log names the right port if 4317 and 4318 were confused."""
    endpoint = Endpoint("grpc", "http://localhost:4318")
    said = trouble.of_grpc(endpoint, "logs", "UNAVAILABLE", "Expected SETTINGS frame as the first frame").text
    assert "use port 4317, or set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf" in said


@pytest.mark.parametrize("status", [200, 404, 405, 501])
def test_web_page(web: ThreadingHTTPServer, status: int) -> None:
    """A web page is no delivery, whatever the status."""
    web.answer = (status, PAGE)  # type: ignore[attr-defined]
    where = f"http://127.0.0.1:{web.server_port}"
    assert text(answer(where)).startswith(f"a web server answers at {where}, not a receiver of OTLP")


@pytest.mark.parametrize("body", [b"", b"ok"])
def test_an_answer_in_no_format_is_a_delivery(web: ThreadingHTTPServer, body: bytes) -> None:
    """A simple receiver of the user's own may answer 200 with any type and nothing in it."""
    web.answer = (200, body)  # type: ignore[attr-defined]
    assert answer(f"http://127.0.0.1:{web.server_port}").delivered


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_no_tls(web: ThreadingHTTPServer, protocol: str) -> None:
    """https:// to a port of plain text is recognised."""
    said = text(answer(f"https://127.0.0.1:{web.server_port}", protocol))
    assert said.startswith(f"https://127.0.0.1:{web.server_port} speaks no TLS: use http://")


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, b"no", "refuses us (HTTP 401)"),
        (403, PAGE, "refuses us (HTTP 403)"),
        (404, b"no", "takes no logs (HTTP 404)"),
        (421, b"no", "by this name (HTTP 421): start the monitor with --allowed-host 127.0.0.1"),
        (503, PAGE, "does not take logs (HTTP 503)"),
        (503, b"busy", "does not take logs (HTTP 503 busy)"),
    ],
)
def test_refusals(web: ThreadingHTTPServer, status: int, body: bytes, said: str) -> None:
    """A refusal names its status; the page of a gateway before the receiver is not repeated."""
    web.answer = (status, body)  # type: ignore[attr-defined]
    assert said in text(answer(f"http://127.0.0.1:{web.server_port}"))


@pytest.mark.parametrize(("status", "body"), [(200, PAGE), (302, b""), (308, b"")])
def test_what_no_receiver_of_otlp_answers_refuses_nothing(web: ThreadingHTTPServer, status: int, body: bytes) -> None:
    """A login page or a redirect comes from a proxy, so the data is kept for the receiver behind it."""
    web.answer = (status, body)  # type: ignore[attr-defined]
    found = answer(f"http://127.0.0.1:{web.server_port}")
    assert (found.delivered, found.retry, found.about_data, found.unclear) == (False, True, False, False)


def test_what_a_receiver_says_controls_no_terminal(web: ThreadingHTTPServer) -> None:
    """An answer is logged as one short line without escape sequences."""
    web.answer = (400, b"\x1b]0;owned\x07\r\n\x9b2J" + b"x" * 5000)  # type: ignore[attr-defined]
    found = answer(f"http://127.0.0.1:{web.server_port}")
    assert found.reason.isprintable()
    assert text(found).isprintable()
    assert len(found.reason) <= trouble.SHOWN
    assert "HTTP 400" in text(found)


@pytest.mark.parametrize(("seconds", "nanos", "asked"), [(3600, 0, 3600.0), (0, 500_000_000, 0.5), (None, 0, None)])
def test_grpc_says_when_to_come_again(seconds: int | None, nanos: int, asked: float | None) -> None:
    """A RetryInfo in the status of gRPC is what a Retry-After is in HTTP."""
    from google.rpc import error_details_pb2, status_pb2

    status = status_pb2.Status(code=8, message="busy")
    if seconds is not None:
        info = error_details_pb2.RetryInfo()
        info.retry_delay.seconds, info.retry_delay.nanos = seconds, nanos
        status.details.add().Pack(info)

    class Busy(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: Any) -> Any:
            def export(body: bytes, call: Any) -> bytes:
                call.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
                call.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy")
                return b""

            return grpc.unary_unary_rpc_method_handler(export)

    server = grpc.server(ThreadPoolExecutor(1), handlers=(Busy(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        found = answer(f"http://127.0.0.1:{port}", "grpc")
        assert (found.retry, found.after) == (True, asked)
    finally:
        server.stop(None).wait()


REFUSED = Answer(False, retry=True, trouble=Trouble("http://x:1", "refused", "nothing listens at http://x:1"))
GOOD = Answer(True)


def test_three_signals_tell_one_trouble(caplog: pytest.LogCaptureFixture) -> None:
    """A trouble that all signals meet is logged once, and its end once."""
    reporter = Reporter()
    signals = [SignalStatus(name, reporter) for name in ("logs", "metrics", "traces")]
    with caplog.at_level(logging.WARNING, "otel_progress"):
        for came in (REFUSED, REFUSED, GOOD, GOOD):
            for signal in signals:
                signal.update(came)
    assert [record.getMessage() for record in caplog.records] == [
        "nothing listens at http://x:1; the job goes on",
        "http://x:1 takes telemetry now",
    ]


def test_a_receiver_that_comes_and_goes_does_not_flood(caplog: pytest.LogCaptureFixture) -> None:
    """The same trouble is logged at most once in ten seconds."""
    reporter = Reporter()
    signal = SignalStatus("logs", reporter)
    with caplog.at_level(logging.WARNING, "otel_progress"):
        for _ in range(100):
            signal.update(REFUSED)
            signal.update(GOOD)
    assert len(caplog.records) == 2


JOB = """
import time
import otel_progress as progress

progress.configure(endpoint="{url}", protocol="{protocol}")
with progress.operation("job"), progress.stage("inside"):
    time.sleep(0.6)
"""


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_job_without_a_collector_says_one_line(closed: int, protocol: str, scheme: str) -> None:
    """The stderr of a job that reaches no receiver has one line at the start and one at the end, none from C++."""
    job = JOB.format(url=f"{scheme}://127.0.0.1:{closed}", protocol=protocol)
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "GRPC_"))}
    ran = subprocess.run([sys.executable, "-c", job], env=environ, capture_output=True, text=True, check=True)
    line, last = ran.stderr.splitlines()
    assert line.startswith(f"nothing listens at {scheme}://127.0.0.1:{closed}: start `otel-progress monitor")
    assert last.startswith("1 end of an operation")
    assert f"could not be sent before the end: nothing listens at {scheme}://127.0.0.1:{closed}: start" in last


def test_a_tls_mistake_over_grpc_says_one_line(web: ThreadingHTTPServer) -> None:
    """gRPC's C++ code writes no lines of its own, unless the user wants them."""
    job = JOB.format(url=f"https://127.0.0.1:{web.server_port}", protocol="grpc")
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "GRPC_"))}
    ran = subprocess.run([sys.executable, "-c", job], env=environ, capture_output=True, text=True, check=True)
    at_once, last = ran.stderr.splitlines()
    assert at_once.startswith(f"https://127.0.0.1:{web.server_port} speaks no TLS: ")
    assert f"could not be sent before the end: https://127.0.0.1:{web.server_port} speaks no TLS: " in last
    wanted = subprocess.run(
        [sys.executable, "-c", job],
        env={**environ, "GRPC_VERBOSITY": "INFO"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "ssl_transport_security" in wanted.stderr
