"""Requests that the protocol takes itself: the same answers as through ASGI, and nothing else taken."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path

import pytest
from monitor_parts import event_of, request_of

from otel_progress.model.snapshot import Snapshot
from otel_progress.model.status import Status
from otel_progress.monitor.app import Monitor, Options
from otel_progress.monitor.auth import Identity
from otel_progress.monitor.intake import direct

TOKEN = "a-token-of-sixteen-characters"
PROTOBUF = "application/x-protobuf"


class Served:
    """A monitor that serves, in a thread."""

    def __init__(self, path: Path) -> None:
        self.monitor = Monitor(Options(path, port=0, grpc_port=None, tokens={TOKEN: Identity()}))
        ready = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self.monitor.serve(ready.set)))
        self.thread.start()
        assert ready.wait(20)

    @property
    def taken(self) -> int:
        """How many requests were taken without ASGI."""
        return self.monitor.direct.taken

    def connect(self) -> socket.socket:
        """A new connection."""
        return socket.create_connection(("127.0.0.1", self.monitor.port), 20)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One monitor for all tests."""
    found = Served(tmp_path_factory.mktemp("direct") / "m.db")
    yield found
    found.monitor.stop()
    found.thread.join(30)


def body_of(key: str = "a", sequence: int = 1) -> bytes:
    """A request with one event."""
    return request_of(event_of(Snapshot(key, "work", Status.RUNNING, 1.7e9, sequence=sequence, started_at=1.7e9)))


def post(body: bytes, path: str = "/v1/logs", **headers: str) -> bytes:
    """The bytes of a request; a header of None is left out."""
    given = {
        "Host": "127.0.0.1",
        "Authorization": f"Bearer {TOKEN}",
        "Content-Type": PROTOBUF,
        "Content-Length": str(len(body)),
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """The next response."""
    found = HTTPResponse(connection)
    found.begin()
    body = found.read()
    return found.status, {name.lower(): value for name, value in found.getheaders() if name.lower() != "date"}, body


BAD = b"\x0a\xff"
HALF = request_of(
    event_of(Snapshot("b", "work", Status.RUNNING, 1.7e9, started_at=1.7e9), **{"progress.status": "odd"})
)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (body_of(), {}),
        (gzip.compress(body_of()), {"Content_Encoding": "gzip"}),
        (b'{"resourceLogs":[]}', {"Content_Type": "application/json"}),
        (b"{", {"Content_Type": "application/json; charset=utf-8"}),
        (BAD, {}),
        (HALF, {}),
        (b"no gzip", {"Content_Encoding": "gzip"}),
        (b"", {}),
    ],
)
@pytest.mark.parametrize("signal", ["logs", "traces", "metrics"])
def test_the_answer_is_that_of_asgi(served: Served, signal: str, body: bytes, headers: dict[str, str]) -> None:
    """Status, headers and body do not depend on which of the two ways a request took."""
    before = served.taken
    with served.connect() as connection:
        connection.sendall(post(body, f"/v1/{signal}", **headers))
        mine = answer(connection)
        assert served.taken == before + 1
        connection.sendall(post(body, f"/v1/{signal}?", **headers))  # a query takes the other way
        assert served.taken == before + 1
        assert answer(connection) == mine


@pytest.mark.parametrize(("path", "status"), [("/health", 200), ("/operations", 421), ("/", 421)])
def test_a_probe_calls_the_monitor_by_any_name(served: Served, path: str, status: int) -> None:
    """Kubernetes and load balancers know the address of a pod alone: `/health` says whether it is well, and no more."""
    with served.connect() as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 10.1.2.3:4318\r\n\r\n".encode())
        found, _, body = answer(connection)
    assert found == status
    if path == "/health":
        assert json.loads(body)["status"] == "ok"
        assert "records" not in json.loads(body)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": "Bearer another-token-of-sixteen"}, 401),
        ({"Origin": "http://127.0.0.1"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Encoding": "br"}, 415),
        ({"Content_Length": str(direct.SMALL + 1)}, None),
        ({"Host": "evil.example"}, 421),
    ],
)
def test_what_is_unusual_is_left_to_asgi(served: Served, headers: dict[str, str], status: int | None) -> None:
    """A refusal by the headers, and a large body, are answered where they are explained."""
    before = served.taken
    body = bytes(direct.SMALL + 1) if "Content_Length" in headers else b""
    with served.connect() as connection:
        connection.sendall(post(body, **headers))
        found = answer(connection)[0]
    assert served.taken == before
    assert found == status or status is None


def test_a_header_that_changes_on_a_connection_is_looked_at_again(served: Served) -> None:
    """Who was admitted once is not admitted with another token, or from a page."""
    with served.connect() as connection:
        for headers, status in (
            ({}, 200),
            ({}, 200),
            ({"Authorization": "Bearer another-token-of-sixteen"}, 401),
            ({}, 200),
            ({"Origin": "http://127.0.0.1"}, 403),
        ):
            connection.sendall(post(body_of(), **headers))
            assert answer(connection)[0] == status


def test_requests_that_follow_each_other_without_waiting_are_answered_in_order(served: Served) -> None:
    """Pipelined requests of both ways get their answers in the order in which they were sent."""
    with served.connect() as connection:
        connection.sendall(post(body_of()) + post(BAD) + post(body_of(), "/v1/logs?") + post(BAD) + post(body_of()))
        assert [answer(connection)[0] for _ in range(5)] == [200, 400, 200, 400, 200]


def test_a_body_may_arrive_in_pieces(served: Served) -> None:
    """Each byte may come by itself; incomplete bodies are accounted for until they are complete."""
    body = body_of("pieces")
    with served.connect() as connection:
        for byte in post(body):
            connection.sendall(bytes((byte,)))
        assert answer(connection)[0] == 200
    assert served.monitor.core.ledger.operations["pieces"].open
    assert served.monitor.direct.reading == 0


def test_a_connection_that_breaks_off_leaves_nothing(served: Served) -> None:
    """A body that never comes is forgotten with its connection, and the monitor goes on."""
    with served.connect() as connection:
        connection.sendall(post(body_of())[:-3])
    with served.connect() as connection:
        connection.sendall(post(body_of(), Connection="close"))
        status, headers, _ = answer(connection)
        assert (status, headers["connection"]) == (200, "close")
        assert connection.recv(1) == b""
    while served.monitor.direct.reading:
        pass


def test_without_room_for_bodies_requests_are_left_to_asgi(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read here is bounded over all connections."""
    monkeypatch.setattr(direct, "READING", 10)
    before = served.taken
    with served.connect() as connection:
        connection.sendall(post(body_of()))
        assert answer(connection)[0] == 200
    assert served.taken == before


def test_what_was_refused_says_when_to_retry(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full queue is answered with 429 and Retry-After, as through ASGI."""
    monkeypatch.setattr(served.monitor.core.inbox.queue, "most_requests", 0)
    with served.connect() as connection:
        connection.sendall(post(body_of()))
        status, headers, _ = answer(connection)
        assert (status, headers["retry-after"]) == (429, "1")
        connection.sendall(post(b"{}", Content_Type="application/json"))
        assert "message" in json.loads(answer(connection)[2])
