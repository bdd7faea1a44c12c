"""gzip of requests: when it is used, and what happens with receivers that do not take it."""

from __future__ import annotations

import gzip
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from otel_progress.outbound.answer import Answer
from otel_progress.outbound.compression import LEAST, is_wanted
from otel_progress.outbound.grpc_transport import GrpcTransport
from otel_progress.outbound.http_transport import HttpTransport
from otel_progress.settings import Endpoint, read

LONG, SHORT = b"\x0a\x00" * LEAST, b"\x0a\x00" * (LEAST // 2 - 1)

Judge = Callable[[bool, bytes], int]
"""The status of the answer to a request: whether it is compressed, and what it holds."""


@contextmanager
def receiver(judge: Judge) -> Iterator[tuple[str, list[bool]]]:
    """A receiver; yields its URL, and whether the requests so far were compressed."""
    seen: list[bool] = []

    class Receive(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            packed = self.headers.get("Content-Encoding") == "gzip"
            seen.append(packed)
            self.send_response(judge(packed, gzip.decompress(body) if packed else body))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receive)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1/logs", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def transport(judge: Judge) -> Iterator[tuple[HttpTransport, list[bool]]]:
    """A transport with gzip to a receiver."""
    with receiver(judge) as (url, seen):
        made = HttpTransport("logs", Endpoint("http/protobuf", url, compression="gzip"))
        try:
            yield made, seen
        finally:
            made.close()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"ENDPOINT": "http://collector:4318"}, [True, True, True]),
        ({"ENDPOINT": "http://localhost:4318"}, [False, False, False]),
        ({"ENDPOINT": "http://[::1]:4317", "PROTOCOL": "grpc"}, [False, False, False]),
        ({"ENDPOINT": "collector:4317", "PROTOCOL": "grpc"}, [True, True, True]),
        ({}, [False, False, False]),
        ({"ENDPOINT": "http://localhost:4318", "COMPRESSION": "gzip"}, [True, True, True]),
        ({"ENDPOINT": "http://collector:4318", "COMPRESSION": "none"}, [False, False, False]),
        ({"ENDPOINT": "http://collector:4318", "LOGS_COMPRESSION": "none"}, [False, True, True]),
        (
            {"ENDPOINT": "http://collector:4318", "COMPRESSION": "none", "METRICS_COMPRESSION": "gzip"},
            [False, True, False],
        ),
    ],
)
def test_gzip_by_default_except_on_this_machine(variables: dict[str, str], expected: list[bool]) -> None:
    """Requests over a network are compressed; the standard variables decide otherwise, for one signal or for all."""
    found = read(environ={f"OTEL_EXPORTER_OTLP_{name}": value for name, value in variables.items()}).endpoints
    assert [is_wanted(found[signal]) for signal in ("logs", "metrics", "traces")] == expected


def test_only_what_is_worth_it_is_compressed() -> None:
    """A request below 1 kB, or one that gets no smaller, is sent as it is."""
    noise = random.Random(1).randbytes(3 * LEAST)
    with transport(lambda packed, body: 200 if body in (LONG, SHORT, noise) else 400) as (sender, seen):
        assert [sender.send(body).delivered for body in (SHORT, LONG, noise)] == [True] * 3
        assert seen == [False, True, False]


def test_a_receiver_without_gzip_is_remembered() -> None:
    """415 to a compressed request: it is sent again without, and so are all others."""
    with transport(lambda packed, _: 415 if packed else 200) as (sender, seen):
        assert [sender.send(LONG).delivered for _ in range(3)] == [True] * 3
        assert seen == [True, False, False, False]


def test_a_receiver_that_can_not_tell_why_it_refuses_is_asked_without_gzip() -> None:
    """400 may be for gzip, as long as none was accepted; if the plain request is accepted, it was."""
    with transport(lambda packed, _: 400 if packed else 200) as (sender, seen):
        assert [sender.send(LONG).delivered for _ in range(2)] == [True] * 2
        assert seen == [True, False, False]


def test_data_that_is_refused_is_no_reason_to_give_up_gzip() -> None:
    """A receiver that accepted gzip before, or refuses the plain request as well, keeps getting it."""
    bad = LONG + b"bad"
    with transport(lambda _, body: 400 if body == bad else 200) as (sender, seen):
        answers = [sender.send(body) for body in (bad, LONG, bad, LONG)]
        assert [answer.delivered for answer in answers] == [False, True, False, True]
        assert answers[0].about_data
        assert seen == [True, False, True, True, True]


class Scripted(GrpcTransport):
    """A transport over gRPC to a server without gzip, or without the service."""

    def __init__(self, *, serves: bool) -> None:
        super().__init__("logs", Endpoint("grpc", "http://collector:4317", compression="auto"))
        self.serves = serves
        self.asked: list[bool] = []

    def _ask(self, body: bytes, deadline: float, *, is_packed: bool) -> tuple[Answer, str]:
        self.asked.append(is_packed)
        good = self.serves and not is_packed
        return (Answer(True), "") if good else (Answer(False, reason="UNIMPLEMENTED"), "UNIMPLEMENTED")


@pytest.mark.parametrize(("serves", "asked"), [(True, [True, False, False]), (False, [True, False, True, False])])
def test_grpc_without_gzip(serves: bool, asked: list[bool]) -> None:
    """UNIMPLEMENTED may be about gzip: the request is sent again without, and all others if that was it."""
    sender = Scripted(serves=serves)
    assert [sender.send(LONG).delivered for _ in range(2)] == [serves] * 2
    assert sender.asked == asked
