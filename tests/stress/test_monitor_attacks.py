"""Attacks on the real monitor over real sockets: none gets in, brings it down or makes it grow."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import socket
import struct
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tests.stress.served import Served, event, logs, serving, wait_until
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from otel_progress import semconv as s
from otel_progress.errors import InvalidArgument
from otel_progress.monitor.app import Monitor, Options
from otel_progress.monitor.auth import ANYBODY, CONTROL, READ, SEND, Identity
from otel_progress.monitor.intake import bodies
from otel_progress.monitor.intake import connection as server
from otel_progress.monitor.intake.requests import JSON, PROTOBUF
from otel_progress.monitor.state.core import ENDED
from otel_progress.monitor.web import routes, stream

ADMIN, ANN, READER, SENDER = (
    "admin-token-0123456789",
    "ann-token-0123456789",
    "reader-token-01234567",
    "sender-token-012345",
)
TOKENS = {
    ADMIN: ANYBODY,
    ANN: Identity(frozenset({READ, CONTROL}), "ann"),
    READER: Identity(frozenset({READ})),
    SENDER: Identity(frozenset({SEND})),
}
IN_TIME = 20.0


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Return a monitor without tokens, on loopback."""
    with serving(tmp_path_factory.mktemp("open"), grpc_port=0) as found:
        yield found
        assert found.get("/health")["status"] == "ok"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Return a monitor with tokens, and operations of ann, of bob and of nobody."""
    with serving(tmp_path_factory.mktemp("guarded"), tokens=TOKENS, grpc_port=0) as found:
        answer = found.send(
            event("of-ann", name="both", ATTRIBUTES='{"owner": "ann"}', USAGE='{"cost.USD": 1}'),
            event(
                "bob-below-ann", OPERATION_PARENT_ID="of-ann", ATTRIBUTES='{"owner": "bob"}', USAGE='{"cost.USD": 9}'
            ),
            event("inherits", OPERATION_PARENT_ID="of-ann", USAGE='{"cost.USD": 2}'),
            event("of-bob", name="both", ATTRIBUTES='{"owner": "bob", "x": "secret"}'),
            event("ann-below-bob", OPERATION_PARENT_ID="of-bob", ATTRIBUTES='{"owner": "ann"}'),
            event("bob-done", name="both", status="completed", kind=s.OPERATION_ENDED, ATTRIBUTES='{"owner": "bob"}'),
            event("ann-done", name="both", status="completed", kind=s.OPERATION_ENDED, ATTRIBUTES='{"owner": "ann"}'),
            event("of-nobody", name="both"),
            token=ADMIN,
        )
        assert (answer.status, answer.body) == (200, b"")
        yield found


# -- pages of others


def test_name_that_was_rebound_gets_nothing(served: Served) -> None:
    """A page under a rebound name reaches no path, by HTTP or WebSocket."""
    evil = {"Host": f"evil.example:{served.port}"}
    for method, path in (("GET", "/"), ("GET", "/operations"), ("GET", "/stream"), ("POST", "/v1/logs")):
        assert served.ask(method, path, b"", evil).status == 421
    assert upgrade(served, "/stream", host="evil.example").startswith(b"HTTP/1.1 421")


def upgrade(served: Served, path: str, host: str = "", **headers: str) -> bytes:
    """Return the first line of the response to a WebSocket request."""
    head = served.head(
        path,
        Connection="Upgrade",
        Upgrade="websocket",
        Sec_WebSocket_Version="13",
        Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==",
        **headers,
    )
    with served.connect() as client:
        client.sendall(head.replace(served.host.encode(), host.encode()) if host else head)
        return client.recv(4096)


FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=[" ".join(headers.values()) for headers in FOREIGN])
def test_pages_of_others_get_nothing(served: Served, headers: dict[str, str]) -> None:
    """Another site, and another port of this machine, may not read, cancel, log in or listen; no response allows CORS."""
    asked = [("GET", "/operations"), ("DELETE", "/operations/x"), ("POST", "/session"), ("GET", "/stream")]
    for method, path in [*asked, ("OPTIONS", "/operations"), ("POST", "/v1/logs"), ("POST", "/control")]:
        answer = served.ask(method, path, b"{}", {"Content-Type": JSON, **headers})
        assert answer.status == 403
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    named = {name.replace("-", "_"): text for name, text in headers.items()}
    assert upgrade(served, "/stream", **named).startswith(b"HTTP/1.1 403")


def test_our_page_listens_but_sends_nothing(served: Served) -> None:
    """Our own origin may open a WebSocket; routes for programs refuse it."""
    assert upgrade(served, "/stream", Origin=f"http://{served.host}").startswith(b"HTTP/1.1 101")
    for path in ("/v1/logs", "/v1/traces", "/v1/metrics", "/control"):
        ours = {"Origin": f"http://{served.host}", "Sec-Fetch-Site": "same-origin", "Content-Type": PROTOBUF}
        assert served.ask("POST", path, b"", ours).status == 403


def test_each_answer_keeps_browsers_in(served: Served) -> None:
    """Every response, also an error, has a policy without inline script, and no page contains received data."""
    served.send(event("<script>alert(1)</script>", name="</script><img src=x onerror=alert(1)>"))
    paths = ["/", "/static/app.js", "/operations", "/nothing", "/operations/nothing", "/operations?limit=x", "/api"]
    for method, path in [("GET", path) for path in paths] + [("PUT", "/operations"), ("POST", "/v1/logs")]:
        answer = served.ask(method, path)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        if answer.headers["Content-Type"].startswith("text/html"):
            assert b"alert(1)" not in answer.body


# -- paths and ids


@pytest.mark.parametrize(
    "path",
    [
        "/static/../auth.py",
        "/static/%2e%2e/auth.py",
        "/static/..%2fauth.py",
        "/static/%2e%2e%2f%2e%2e%2fsettings.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/..\\auth.py",
        "/static/x%00.js",
        "/static/" + "a" * 5_000,
        "/static/",
        "/static/vendor",
        "/login/../operations",
        "//operations",
        "/%6fperations",
        "/operations%2Fx",
    ],
)
def test_paths_lead_nowhere_else(served: Served, path: str) -> None:
    """No spelling of a path leaves the page's directory, or bypasses a right."""
    answer = served.ask("GET", path)
    assert answer.status in (303, 404, 307)
    assert b"Identity" not in answer.body
    assert b"root:" not in answer.body


IDS = [
    "a/b",
    "a%2Fb",
    "..",
    "../operations",
    "nul\0nul",
    "line\nbreak\r\n\r\nevent: x",
    "sep\u2028\u2029\x85arator",
    "?#&=+ %",
    "\U0001f600 ü",
    "' OR 1=1 --",
    "x" * 1_000,
    ".",
    "stream",
    "events",
]


@pytest.mark.parametrize("key", IDS, ids=range(len(IDS)))
def test_any_id_has_its_own_place(served: Served, key: str) -> None:
    """An id is one path segment, whatever it contains: detail, history and cancel find exactly it."""
    served.send(event(key, kind=s.OPERATION_STARTED, MESSAGE="it"))
    path = f"/operations/{quote(key, safe='')}"
    assert served.get(path)["id"] == key
    assert [one["operation_id"] for one in served.get(path + "/events")["events"]] == [key]
    assert served.ask("DELETE", path).status == 409  # it has no control channel
    assert key in [row["id"] for row in served.get("/operations?limit=10000")["operations"]]


def test_ids_that_are_none_are_told(served: Served) -> None:
    """An id of 10 kB is refused and counted; the rest of the request is taken."""
    answer = served.send(event("i" * 10_000), event("beside"))
    assert b"progress.operation.id must be a text of 1 to 1024 characters, it is longer" in answer.body
    assert served.detail("beside")["id"] == "beside"
    assert served.ask("GET", "/operations/" + "i" * 10_000).status == 404


def frames(client: socket.socket, ended: bytes) -> bytes:
    """Read until this is in the data."""
    client.settimeout(IN_TIME)
    found = b""
    while ended not in found:
        part = client.recv(65_536)
        assert part, found[-500:]
        found += part
    return found


def test_data_can_not_split_a_frame(served: Served) -> None:
    """Line breaks of any kind in received data make no line of an event stream."""
    nasty = "x\n\nevent: reset\ndata: {}\n\n\r\rid: 9\u2028data: 1"
    with served.connect() as client:
        client.sendall(served.head("/stream"))
        frames(client, b"event: hello")
        served.send(event("split\n\ndata: 1\n\n", name=nasty, MESSAGE=nasty))
        said = frames(client, b"split")
        said += b"" if said.endswith(b"\n\n\r\n") else frames(client, b"\n\n\r\n")
    lines = said.replace(b"\r", b"\n").split(b"\n")
    told = [line for line in lines if line.startswith((b"event:", b"data:", b"id:"))]
    assert b"event: reset" not in told
    assert all(line in (b"event: changes", b"event: hello") for line in told if line.startswith(b"event:"))
    for line in told:
        if line.startswith(b"data:"):
            json.loads(line[5:])


def test_headers_can_not_be_added(served: Served) -> None:
    """Nothing in a request becomes a header of the response."""
    for path in (
        "/login/x%0d%0aSet-Cookie:%20a=1",
        "/operations/%0d%0aX-Evil:%201",
        "/operations?search=%0d%0aX-Evil:1",
    ):
        answer = served.ask("GET", path)
        assert "X-Evil" not in answer.headers
        assert "Set-Cookie" not in answer.headers


# -- too much, too slow


def memory() -> int:
    """Return the memory of this process, in MiB."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmRSS"))


def sockets() -> int:
    """Return the number of file descriptors of this process."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return found


def test_bombs_are_not_unpacked(served: Served) -> None:
    """A gzip bomb is refused, over HTTP and gRPC, and costs no more memory than the limit."""
    before = memory()
    bomb = gzip.compress(b"\0" * 100_000_000)
    assert served.post(bomb, Content_Encoding="gzip").status == 413
    deep = gzip.compress(gzip.compress(b"\0" * 1_000_000))
    assert served.post(deep, Content_Encoding="gzip").status == 400
    empties = b"\x12\x00" * 1_900_000
    many = b"\x0a" + varint(len(empties) + 5) + b"\x12" + varint(len(empties)) + empties
    assert served.post(gzip.compress(many), Content_Encoding="gzip").status in (400, 413)
    assert memory() - before < 150


def varint(number: int) -> bytes:
    """Return it in protobuf form."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))


def closed(client: socket.socket) -> bool:
    """Return whether the other side closes in time."""
    client.settimeout(IN_TIME)
    try:
        while client.recv(65_536):
            pass
    except ConnectionError:
        pass
    return True


SLOW = [
    ("nothing", b""),
    ("half a head", b"GET /operations HTTP/1.1\r\nHost: x\r\n"),
    ("half a body", b"POST /v1/logs HTTP/1.1\r\nContent-Length: 100\r\nContent-Type: application/json\r\n"),
    ("half a chunk", b"POST /control HTTP/1.1\r\nTransfer-Encoding: chunked\r\n"),
    ("half a session", b"POST /session HTTP/1.1\r\nContent-Length: 9\r\nContent-Type: application/json\r\n"),
    ("a body nobody reads", b"GET /operations HTTP/1.1\r\nContent-Length: 100\r\n"),
    ("a reader's body", b"GET /stream HTTP/1.1\r\nContent-Length: 100\r\n"),
]


@pytest.mark.parametrize(("what", "start"), SLOW, ids=[case[0] for case in SLOW])
def test_slow_clients_are_let_go(served: Served, what: str, start: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that begins and does not go on loses its connection; others are served meanwhile."""
    for name in ("HEAD_SECONDS", "BODY_SECONDS"):
        monkeypatch.setattr(server, name, 0.2)
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.1)
    with served.connect() as client:
        if start:
            whole = f"Host: {served.host}\r\n\r\n".encode() if what.encode() != b"half a head" else b""
            client.sendall(start + whole)
        assert served.get("/health")
        assert closed(client)


def test_breaks_between_requests_keep_no_connection(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty lines after a response are not a request that keeps a connection open."""
    with served.connect() as client:
        client.sendall(served.head("/health"))
        client.recv(4_096)
        monkeypatch.setattr(server, "HEAD_SECONDS", 0.2)
        client.sendall(b"\r\n")
        assert closed(client)


def test_endless_input_is_cut(served: Served) -> None:
    """Endless headers, bodies or trailers are cut off, not kept."""
    endless = {
        "head": b"GET / HTTP/1.1\r\nX: ",
        "url": b"GET /",
        "body": served.head("/v1/logs", "POST", Content_Type=PROTOBUF, Content_Length="99999999999999"),
        "chunks": served.head("/v1/logs", "POST", Content_Type=PROTOBUF, Transfer_Encoding="chunked"),
        "trailers": served.head("/v1/logs", "POST", Content_Type=PROTOBUF, Transfer_Encoding="chunked") + b"0\r\nX: ",
        "unread": served.head("/health", Content_Length="99999999999999"),
    }
    before = memory()
    for what, start in endless.items():
        part = b"10000\r\n" + b"x" * 65_536 + b"\r\n" if what == "chunks" else b"x" * 65_536
        with served.connect() as client, pytest.raises(OSError):
            client.settimeout(IN_TIME)
            client.sendall(start)
            for _ in range(3_000):  # 200 MB
                client.sendall(part)
    assert memory() - before < 100


def test_slow_bodies_make_room_for_others(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """If all incoming bodies together hold too much, the oldest is dropped, and its sender told to retry."""
    monkeypatch.setattr(bodies, "READING", 100_000)
    before = served.get("/health")["intake"]["too_slow"]
    head = served.head("/v1/logs", "POST", Content_Type=PROTOBUF, Content_Length="90000")
    with served.connect() as oldest, served.connect() as newest:
        oldest.settimeout(IN_TIME)
        oldest.sendall(head + bytes(60_000))
        wait_until(lambda: served.get("/health"))
        newest.sendall(head + bytes(60_000))
        answer = oldest.recv(4_096)
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 1" in answer.lower()
        newest.sendall(bytes(30_000))
        assert newest.recv(4_096).startswith(b"HTTP/1.1 400")  # it arrived whole, and is invalid
    assert served.get("/health")["intake"]["too_slow"] == before + 1


@pytest.mark.parametrize("room", [1_000, 10], ids=["each in its time", "the oldest makes room"])
def test_grpc_waits_for_nobody(served: Served, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """gRPC calls without a message block nobody, and are closed: in time, or when there are many."""
    grpc = pytest.importorskip("grpc")
    from otel_progress.monitor.intake import grpc as intake

    monkeypatch.setattr(intake, "READING", room)
    monkeypatch.setattr(intake, "MESSAGE_SECONDS", 0.2 if room > 100 else 3 * IN_TIME)
    name, address = "/opentelemetry.proto.collector.logs.v1.LogsService/Export", served.monitor.grpc_port
    hold = threading.Event()

    def never() -> Iterator[bytes]:
        hold.wait(3 * IN_TIME)
        yield from ()

    apart = (("grpc.use_local_subchannel_pool", 1),)  # otherwise both share one connection
    with (
        grpc.insecure_channel(f"127.0.0.1:{address}") as channel,
        grpc.insecure_channel(f"127.0.0.1:{address}", apart) as honest,
    ):
        try:
            open_ = [channel.stream_unary(name).future(never()) for _ in range(64)]
            assert honest.unary_unary(name)(logs(event(f"by-grpc-{room}")), timeout=IN_TIME / 2) == b""
            codes = {call.exception(timeout=IN_TIME).code() for call in open_[: 64 - 10]}
        finally:
            hold.set()
    assert codes <= {grpc.StatusCode.CANCELLED, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNAVAILABLE}
    assert served.detail(f"by-grpc-{room}")["name"] == "job"


def test_grpc_bounds_what_it_unpacks(served: Served) -> None:
    """What is too large, compressed or not, is refused, without a hint to retry."""
    grpc = pytest.importorskip("grpc")
    name = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
    with grpc.insecure_channel(f"127.0.0.1:{served.monitor.grpc_port}") as channel:
        for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(name)(b"\0" * 20_000_000, timeout=IN_TIME, compression=compression)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "grpc-status-details-bin" not in dict(caught.value.trailing_metadata() or ())
        assert channel.unary_unary(name)(b"", timeout=IN_TIME, compression=grpc.Compression.Gzip) == b""


def test_readers_have_a_limit(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """One reader too many must come later, over HTTP and WebSocket; then there is room again."""
    wait_until(lambda: served.get("/health")["readers"] == 0)
    served.send(event("read"))
    monkeypatch.setattr(routes, "READERS", 2)
    with served.connect() as one, served.connect() as two:
        for client, path in ((one, "/stream"), (two, "/operations/read/stream")):
            client.sendall(served.head(path))
            frames(client, b"hello")
        wait_until(lambda: served.get("/health")["readers"] == 2)
        for path in ("/stream", "/operations/read/stream"):
            assert served.ask("GET", path).status == 503
            assert upgrade(served, path).startswith(b"HTTP/1.1 503")
    wait_until(lambda: served.get("/health")["readers"] == 0)


def test_who_never_reads_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does not read its response or stream loses its connection, and leaves nothing behind."""
    monkeypatch.setattr(server, "STUCK_SECONDS", 2.0)
    monkeypatch.setattr(stream, "SLOW_SECONDS", 2.0)
    large = json.dumps({f"k{n}": "x" * 1_000 for n in range(20)})
    with serving(tmp_path) as served, contextlib.ExitStack() as stack:
        served.monitor._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)  # accepted sockets inherit it
        served.send(*(event(f"{n}", MESSAGE="m" * 500, STACK="s" * 16_000, ATTRIBUTES=large) for n in range(60)))
        before = sockets()
        paths = ["/operations?limit=10000", "/operations/0/stream", "/stream"]
        for path in paths * 5:
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            client.connect(("127.0.0.1", served.port))
            client.sendall(served.head(path))
        ours = len(paths) * 5
        wait_until(lambda: sockets() >= before + 2 * ours - 2)  # an earlier one may have been about to close
        turn = count(1)

        def gone() -> bool:
            served.send(*(event(f"{n}", sequence=next(turn), MESSAGE="m" * 500, STACK="t" * 9_000) for n in range(60)))
            return sockets() <= before + ours + 2

        wait_until(gone)
        wait_until(lambda: served.get("/health")["readers"] == 0)


def test_socket_outlives_the_time_for_a_body(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """WebSockets and streams do not count as slow bodies."""
    for name in ("HEAD_SECONDS", "BODY_SECONDS", "STUCK_SECONDS"):
        monkeypatch.setattr(server, name, 0.05)
    with connect(f"ws://{served.host}/stream") as client, served.connect() as reader:
        reader.sendall(served.head("/stream"))
        frames(reader, b"hello")
        assert json.loads(client.recv(IN_TIME))["event"] == "hello"
        looked = threading.Event()
        served.monitor._notices.loop.call_soon_threadsafe(served.monitor._notices.loop.call_later, 0.3, looked.set)
        assert looked.wait(IN_TIME)
        served.send(event("after"))
        while "after" not in str(client.recv(IN_TIME)):
            pass
        frames(reader, b"after")


# -- many, and large


def test_huge_texts_stay_small_in_rows(served: Served) -> None:
    """What is too large for an event is left out of it; of large data, a row and a frame show little."""
    huge = "h" * 1_000_000
    assert b"larger than 320 KiB: it is left out" in served.send(event("huge", MESSAGE=huge)).body
    large = "l" * 40_000
    served.send(
        event(
            "large",
            name=large,
            MESSAGE=large,
            STATUS_REASON=large,
            GEN_AI_AGENT=large,
            STAGE_CURRENT=large,
            STUCK_AT=large,
        )
    )
    row = next(row for row in served.get("/operations?limit=10000")["operations"] if row["id"] == "large")
    assert len(json.dumps(row)) < 8_000
    served.send(*(event("noisy", kind=s.NOTE, sequence=n, NOTE_TEXT=large, STACK=large) for n in range(2, 40)))
    events = served.ask("GET", "/operations/noisy/events?limit=1000").body
    assert len(events) < 38 * 45_000


def test_long_history_comes_in_parts(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A response has a maximum size of events; all of them arrive once, forwards and backwards."""
    monkeypatch.setattr(routes, "EVENTS_BYTES", 20_000)
    served.send(*(event("long", kind=s.NOTE, sequence=n, NOTE_TEXT=f"{n} " * 200) for n in range(1, 301)))
    for step in ("after", "before"):
        seen: list[int] = []
        place: Any = 0 if step == "after" else 2**62
        while place is not None:
            page = served.get(f"/operations/long/events?limit=1000&{step}={place}")
            numbers = [one["sequence"] for one in page["events"]]
            assert len(numbers) < 300
            seen = seen + numbers if step == "after" else numbers + seen
            place = page["next"]
        assert seen == list(range(1, 301))


def test_flood_of_ids_is_bounded(tmp_path: Path) -> None:
    """With very many ids the memory stays bounded, and the monitor answers."""

    def flood(name: str) -> None:
        for n in range(10):
            ended = (event(f"{name}-{n}-{m}", status="completed", kind=s.OPERATION_ENDED) for m in range(1_000))
            assert served.send(*ended).status == 200

    with serving(tmp_path) as served:
        flood("first")
        before = memory()
        flood("second")
        flood("third")
        assert memory() - before < 25
        assert len(served.monitor.core.ledger.operations) <= ENDED
        assert served.get("/operations?limit=10")["total"] == 30_000


def test_flood_of_running_ids_makes_room(tmp_path: Path) -> None:
    """Running operations beyond the limit are not held; only the store knows those that were put aside."""
    with serving(tmp_path) as served:
        core = served.monitor.core
        core.ledger.most = 500
        for n in range(5):
            served.send(*(event(f"{n}-{m}") for m in range(500)))
        assert len(core.ledger.operations) == 500
        assert core.ledger.room.counts.total() == 2_000
        wait_until(lambda: len(core.labels) <= 500)
        assert served.get("/operations?status=running&limit=10000")["total"] == 500
        assert served.get("/operations?status=lost&limit=10000")["total"] == 0
        assert served.get("/operations/0-0")["state"] == "unknown"


# -- who may what


FREE = {("GET", "/"), ("GET", "/health"), ("GET", "/api"), ("POST", "/session"), ("DELETE", "/session")}


def test_without_a_token_there_is_nothing(guarded: Served) -> None:
    """Every protected route answers 401 without a token, with a wrong one, and with one in the URL."""
    paths = guarded.get("/api")["paths"]
    for path, methods in paths.items():
        for method in map(str.upper, methods):
            if (method, path) in FREE or path.startswith(("/login", "/static")):
                continue
            there = path.replace("{id}", "of-ann")
            for where, headers in (
                (there, {}),
                (f"{there}?token={ADMIN}&access_token={ADMIN}", {}),
                (there, {"Authorization": f"Bearer {ADMIN[:-1]}"}),
                (there, {"Authorization": f"Bearer {ADMIN}x"}),
                (there, {"Authorization": ADMIN}),
                (there, {"Cookie": f"otel-progress-{guarded.port}={ADMIN}"}),
            ):
                answer = guarded.ask(method, where, b"{}", {"Content-Type": JSON, **headers})
                assert answer.status == 401, (method, where)
                assert ADMIN.encode() not in answer.body
    for path in ("/stream", "/operations/of-ann/stream"):
        assert upgrade(guarded, path).startswith(b"HTTP/1.1 401")
    assert "operations" not in guarded.get("/health")


def test_rights_are_apart(guarded: Served) -> None:
    """Who may read cannot cancel or send; who may send cannot read; the response names the missing right."""
    sent = {"Content-Type": PROTOBUF}
    expected = {
        READER: {"read": 200, "cancel": 403, "send": 403, "control": 403},
        SENDER: {"read": 403, "cancel": 403, "send": 200, "control": 400},
        ANN: {"read": 200, "cancel": 409, "send": 403, "control": 403},
        ADMIN: {"read": 200, "cancel": 409, "send": 200, "control": 400},
    }
    for token, rights in expected.items():
        found = {
            "read": guarded.ask("GET", "/operations/of-ann", token=token).status
            if token != SENDER
            else guarded.ask("GET", "/operations", token=token).status,
            "cancel": guarded.ask("DELETE", "/operations/of-ann", token=token).status,
            "send": guarded.ask("POST", "/v1/logs", b"", sent, token=token).status,
            "control": guarded.ask("POST", "/control", b"", token=token).status,
        }
        assert found == rights


def test_grpc_needs_the_right_to_send(guarded: Served) -> None:
    """The same tokens apply over gRPC."""
    grpc = pytest.importorskip("grpc")
    name = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
    with grpc.insecure_channel(f"127.0.0.1:{guarded.monitor.grpc_port}") as channel:
        export = channel.unary_unary(name)
        for token, code in ((None, "UNAUTHENTICATED"), ("wrong", "UNAUTHENTICATED"), (READER, "PERMISSION_DENIED")):
            metadata = () if token is None else (("authorization", f"Bearer {token}"),)
            with pytest.raises(grpc.RpcError) as caught:
                export(b"", metadata=metadata, timeout=IN_TIME)
            assert caught.value.code() is getattr(grpc.StatusCode, code)
        assert export(b"", metadata=(("authorization", f"Bearer {SENDER}"),), timeout=IN_TIME) == b""


MINE = {"of-ann", "inherits", "ann-below-bob", "ann-done"}


def test_owner_sees_only_their_own(guarded: Served) -> None:
    """Lists, counts, searches, details, histories and cancels of a token with an owner show no other operations."""
    everything = guarded.get("/operations", token=ADMIN)
    assert everything["total"] == 8
    mine = guarded.get("/operations", token=ANN)
    assert {row["id"] for row in mine["operations"]} == MINE
    assert mine["total"] == len(MINE)
    assert guarded.get("/operations?search=bob", token=ANN)["total"] == 1  # ann-below-bob
    assert guarded.get("/operations?name=both", token=ANN)["total"] == 2
    assert guarded.get("/operations?parent=of-bob", token=ANN)["total"] == 0  # nor whether such a parent exists
    assert guarded.get("/operations?parent=of-ann", token=ANN)["total"] == 1
    assert guarded.get("/operations?status=completed", token=ANN)["total"] == 1
    assert guarded.get("/health", token=ANN)["operations"] == {"running": 3, "stored": 1, "trouble": 0}
    for other in ("of-bob", "bob-below-ann", "bob-done", "of-nobody"):
        for method, path in (("GET", ""), ("GET", "/events"), ("GET", "/stream"), ("DELETE", "")):
            answer = guarded.ask(method, f"/operations/{other}{path}", token=ANN)
            assert answer.status == 404
            assert answer.json == guarded_none(other)
        with pytest.raises(InvalidStatus) as caught:
            connect(
                f"ws://{guarded.host}/operations/{other}/stream", additional_headers={"Authorization": f"Bearer {ANN}"}
            )
        assert caught.value.response.status_code == 404


def guarded_none(key: str) -> dict[str, str]:
    """The response for a missing operation is the same as for a hidden one."""
    return {"error": f"no operation {key!r} is known; `otel-progress list` shows all operations"}


def test_session_is_made_from_a_token_and_ends(guarded: Served) -> None:
    """The cookie is for this port, and not for scripts or other sites; it has the token's rights until logout."""
    opened = guarded.ask("POST", "/session", json.dumps({"token": ANN}).encode(), {"Content-Type": JSON})
    assert opened.json == {"rights": ["control", "read"]}
    cookie, *flags = [part.strip() for part in opened.headers["Set-Cookie"].split(";")]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(flags)
    assert cookie.startswith(f"otel-progress-{guarded.port}=")
    assert ANN not in cookie
    session = {"Cookie": cookie}
    assert guarded.ask("GET", "/session", headers=session).json == {
        "rights": ["control", "read"],
        "owner": "ann",
        "needs_token": True,
    }
    assert guarded.get("/operations", headers=session)["total"] == len(MINE)
    assert guarded.ask("POST", "/v1/logs", b"", {"Content-Type": PROTOBUF, **session}).status == 403
    ended = guarded.ask("DELETE", "/session", headers=session)
    assert ended.status == 204
    assert "Max-Age=0" in ended.headers["Set-Cookie"]
    assert guarded.ask("GET", "/operations", headers=session).status == 401
    tls = {"Content-Type": JSON, "Origin": f"https://{guarded.host}"}
    behind = guarded.ask("POST", "/session", json.dumps({"token": ANN}).encode(), tls)
    assert "Secure" in behind.headers["Set-Cookie"]


def test_session_needs_a_right_token(guarded: Served) -> None:
    """An invalid token makes no session, and is not repeated; another page cannot submit the form."""
    for body, status in (
        (b'{"token": "wrong-wrong-wrong"}', 401),
        (b"{}", 400),
        (b"[" * 3_000, 400),
        (b"x" * 5_000, 413),
    ):
        answer = guarded.ask("POST", "/session", body, {"Content-Type": JSON})
        assert answer.status == status
        assert "Set-Cookie" not in answer.headers
        assert b"wrong-wrong" not in answer.body
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert guarded.ask("POST", "/session", b"token=" + ADMIN.encode(), form).status == 415


def test_link_opens_one_session(guarded: Served) -> None:
    """A link works once; looking at it does not use it up; it contains no token."""
    link = guarded.monitor.auth.link(TOKENS[ANN])
    assert ANN not in link
    assert guarded.ask("HEAD", link).status == 303
    first = guarded.ask("GET", link)
    assert (first.status, first.headers["Location"]) == (303, "/")
    session = {"Cookie": first.headers["Set-Cookie"].partition(";")[0]}
    assert guarded.get("/operations", headers=session)["total"] == len(MINE)
    again = guarded.ask("GET", link)
    assert (again.status, "Set-Cookie" in again.headers) == (303, False)


def test_others_can_not_reach_it_without_a_token(tmp_path: Path) -> None:
    """Off loopback the monitor starts only with tokens."""
    with pytest.raises(InvalidArgument, match="token"):
        Monitor(Options(db=tmp_path / "m.db", host="0.0.0.0", port=0, grpc_port=None))
    with serving(tmp_path, host="0.0.0.0", tokens=TOKENS) as served:
        assert served.ask("GET", "/operations").status == 401
        assert served.ask("GET", "/operations", token=READER).status == 200


def test_abrupt_ends_leave_nothing(served: Served) -> None:
    """Clients that reset their connections leave no reader and no socket."""
    wait_until(lambda: served.get("/health")["readers"] == 0)
    before = sockets()
    for path in ("/stream", "/operations", "/health") * 20:
        with served.connect() as client:
            client.sendall(served.head(path))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until(lambda: served.get("/health")["readers"] == 0 and sockets() <= before + 1)


def told(client: socket.socket, ended: bytes) -> str:
    """Read a stream until this is in it."""
    return frames(client, ended).decode()


def test_owner_sees_nothing_of_others_in_their_own(guarded: Served) -> None:
    """Children, ancestors and figures derived from them never include those of others."""
    whole = guarded.detail("of-ann", token=ADMIN)
    assert (whole["cost"], whole["children"]) == ({"USD": 12}, 2)
    mine = guarded.detail("of-ann", token=ANN)
    assert (mine["cost"], mine["children"]) == ({"USD": 3}, 1)
    assert [row["id"] for row in mine["children_rows"]] == ["inherits"]
    (row,) = [row for row in guarded.get("/operations", token=ANN)["operations"] if row["id"] == "of-ann"]
    assert (row["cost"], row["children"]) == ({"USD": 3}, 1)
    (above,) = guarded.detail("ann-below-bob", token=ADMIN)["ancestors"]
    assert (above["id"], bool(above["name"])) == ("of-bob", True)
    assert guarded.detail("ann-below-bob", token=ANN)["ancestors"] == []
    assert "of-bob" not in json.dumps(guarded.detail("ann-below-bob", token=ANN))


def test_owner_hears_nothing_of_others(guarded: Served) -> None:
    """The same holds for streams and WebSockets, of all and of one, beside an unlimited reader."""
    mine, everybodys = {"Authorization": f"Bearer {ANN}"}, {"Authorization": f"Bearer {ADMIN}"}
    url = f"ws://{guarded.host}"
    with (
        connect(f"{url}/stream", additional_headers=mine) as all_,
        connect(f"{url}/operations/of-ann/stream", additional_headers=mine) as one,
        connect(f"{url}/operations/of-ann/stream", additional_headers=everybodys) as admins,
        guarded.connect() as events,
        guarded.connect() as few,
    ):
        events.sendall(guarded.head("/stream", **mine))
        few.sendall(guarded.head("/operations/of-ann/stream", **mine))
        heard = [frames(events, b"hello").decode(), frames(few, b"event: operation").decode()]
        said = [[str(client.recv(IN_TIME))] for client in (all_, one, admins)]
        guarded.send(
            event("of-bob", "both", sequence=2, MESSAGE="last-words", ATTRIBUTES='{"owner": "bob"}'),
            event(
                "bob-below-ann", sequence=2, OPERATION_PARENT_ID="of-ann", USAGE='{"cost.USD": 9}', MESSAGE="last-words"
            ),
            token=ADMIN,
        )
        guarded.send(event("of-ann", "both", sequence=2, USAGE='{"cost.USD": 1}', MESSAGE="last-words"), token=ADMIN)
        for client, parts in zip((all_, one, admins), said):
            while "last-words" not in parts[-1]:
                parts.append(str(client.recv(IN_TIME)))
        heard += [frames(events, b"last-words").decode(), frames(few, b"last-words").decode()]
    assert "bob" in "".join(said[2])
    for text in ("".join(said[0]), "".join(said[1]), *heard):
        assert "bob" not in text.replace("ann-below-bob", "")
        assert '"USD":12' not in text
