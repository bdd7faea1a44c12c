"""Streams over real connections: replay, reset, heartbeats, slow readers, and an end in good time."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest
from monitor_parts import event_of, request_of
from starlette.websockets import WebSocketDisconnect
from websockets.sync.client import connect

from otel_progress import semconv as s
from otel_progress.cli.query.sse import Frame, Parser
from otel_progress.model.snapshot import Snapshot
from otel_progress.model.status import Status
from otel_progress.monitor.app import Monitor, Options
from otel_progress.monitor.intake.requests import Accepted, Envelope
from otel_progress.monitor.web import stream
from otel_progress.monitor.web.stream import Hub

AT = time.time()


def snap(sequence: int = 1, status: Status = Status.RUNNING, key: str = "a", **more: Any) -> Snapshot:
    """A snapshot of an operation."""
    return Snapshot(key, "work", status, AT + sequence, sequence=sequence, **{"started_at": AT, **more})


class Server:
    """A monitor that serves, in a thread."""

    def __init__(self, path: Path, port: int = 0) -> None:
        self.monitor = Monitor(Options(path, port=port, grpc_port=None, interval=0.02))
        self.port = self.monitor.port
        ready = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self.monitor.serve(ready.set)))
        self.thread.start()
        assert ready.wait(20)

    def stop(self) -> float:
        """End; for how long it took."""
        began = time.monotonic()
        self.monitor.stop()
        self.thread.join(30)
        assert not self.thread.is_alive()
        return time.monotonic() - began

    def say(self, *snapshots: Snapshot, event: str = s.UPDATED) -> None:
        """A process says this, and it is stored."""
        answered = threading.Event()
        answers: list[Any] = []

        def done(answer: Any) -> None:
            answers.append(answer)
            answered.set()

        body = request_of(*(event_of(one, event) for one in snapshots))
        self.monitor.core.offer(Envelope("logs", body), done)
        assert answered.wait(20)
        assert answers == [Accepted()]


@contextmanager
def serving(path: Path, port: int = 0) -> Iterator[Server]:
    """A monitor that serves, and ends."""
    server = Server(path, port)
    try:
        yield server
    finally:
        server.stop()


class Reader:
    """One SSE connection."""

    def __init__(self, port: int, path: str = "/stream", last: str = "", receive_buffer: int = 0) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(20)
        self.socket.connect(("127.0.0.1", port))
        head = f"Last-Event-ID: {last}\r\n" if last else ""
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{head}\r\n".encode())
        self.raw = self.socket.recv(1)
        while b"\r\n\r\n" not in self.raw:
            self.raw += self.socket.recv(1)
        self.head = self.raw.decode().lower()
        self.raw = b""
        self.parser = Parser()
        self.frames: list[Frame] = []
        self.ended = False

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def read(self) -> None:
        """Some more; chunks of HTTP are taken apart."""
        more = self.socket.recv(65536)
        self.ended = not more
        self.raw += more
        while b"\r\n" in self.raw:
            size, _, rest = self.raw.partition(b"\r\n")
            length = int(size, 16)
            if len(rest) < length + 2:
                return
            self.ended = self.ended or length == 0
            self.comments = getattr(self, "comments", b"") + rest[:length]
            self.frames.extend(self.parser.feed(rest[:length]))
            self.raw = rest[length + 2 :]

    def until(self, found: Callable[[list[Frame]], Any]) -> list[Frame]:
        """Read until it is there."""
        while not found(self.frames):
            assert not self.ended, self.frames
            self.read()
        return self.frames


def ids(frames: list[Frame]) -> list[str]:
    """The ids of all rows."""
    return [row["id"] for frame in frames if frame.event == "changes" for row in json.loads(frame.data)["rows"]]


def ends(frames: list[Frame]) -> set[str]:
    """The ids of all rows that are over."""
    found = (json.loads(frame.data) for frame in frames if frame.event == "changes")
    return {row["id"] for data in found for row in data["rows"] if row.get("ended")}


def test_replay_after_an_id_and_reset_after_a_restart(tmp_path: Path) -> None:
    """Who comes back with an id gets what it missed, no more; with an id of another start it is told to load anew."""
    with serving(tmp_path / "m.db") as server:
        with Reader(server.port) as reader:
            assert "x-accel-buffering: no" in reader.head
            assert "text/event-stream" in reader.head
            server.say(snap(1))
            frames = reader.until(lambda frames: "a" in ids(frames))
            assert frames[0].event == "hello"
            assert json.loads(frames[0].data)["position"] == frames[0].id
            last = frames[-1].id
        server.say(snap(1, Status.COMPLETED, "b"), event=s.OPERATION_ENDED)
        with Reader(server.port, last=last) as reader:
            frames = reader.until(lambda frames: "b" in ids(frames))
            assert ([frame.event for frame in frames], ids(frames)) == (["hello", "changes"], ["b"])
            assert len({frame.id for frame in frames}) == 2
        port = server.port
    with serving(tmp_path / "m.db", port) as server, Reader(server.port, last=last) as reader:
        frames = reader.until(lambda frames: len(frames) > 1)
        assert [frame.event for frame in frames] == ["hello", "reset"]
        assert frames[0].id.partition("-")[0] != last.partition("-")[0]


@pytest.mark.parametrize("odd", ["x", "-", "ab-1", "1-²", "a" * 5000, "-1"])
def test_id_that_is_none(tmp_path: Path, odd: str) -> None:
    """It stands for a place that is not known."""
    hub = Hub(0.1, "0")
    _, frames = hub.begin("all", odd, [])
    assert [frame.name for frame in frames] == ["hello", "reset"]
    assert hub.numbers.place(f"{hub.numbers.epoch}-1") is None


def test_socket_twin(tmp_path: Path) -> None:
    """A WebSocket has the same, also after an id, and ends with a code that says to come back."""
    with serving(tmp_path / "m.db") as server:
        url = f"ws://127.0.0.1:{server.port}/stream"
        with connect(url) as peer:
            hello = json.loads(peer.recv(20))
            assert (hello["event"], hello["id"]) == ("hello", hello["data"]["position"])
            server.say(snap(1))
            change = json.loads(peer.recv(20))
            assert (change["event"], change["data"]["rows"][0]["id"]) == ("changes", "a")
        server.say(snap(1, key="b"))
        with connect(f"{url}?after={change['id']}") as peer:
            assert json.loads(peer.recv(20))["event"] == "hello"
            assert [row["id"] for row in json.loads(peer.recv(20))["data"]["rows"]] == ["b"]
            assert server.stop() < 5
            with pytest.raises(Exception, match="1012"):
                peer.recv(20)


@pytest.mark.parametrize("leaves_at", ["websocket.accept", "websocket.send", "websocket.close"])
def test_a_socket_that_leaves_while_something_is_sent_is_no_error(leaves_at: str) -> None:
    """Clients leave at any moment; nothing is raised, and the reader is gone."""
    hub = Hub(0.1, "0")

    async def receive() -> Any:
        if asyncio.current_task() is main:
            return {"type": "websocket.connect"}
        return await asyncio.Event().wait()

    async def send(message: Any) -> None:
        if message["type"] == leaves_at:
            raise WebSocketDisconnect(1006)
        if message["type"] == "websocket.send":
            hub.close()

    async def serve() -> None:
        nonlocal main
        main = asyncio.current_task()
        await stream.serve_socket(hub, "all", None, [], receive, send)
        assert not hub.topic("all").readers

    main: Any = None
    asyncio.run(asyncio.wait_for(serve(), 20))


def test_what_is_said_can_not_break_the_stream(tmp_path: Path) -> None:
    """Ends of lines of all kinds in names, ids and messages stay where they are."""
    key = "x\r\n\r\nevent: changes\ndata: {}\n\n\u2028\x85"
    with serving(tmp_path / "m.db") as server, Reader(server.port) as reader:
        server.say(snap(1, key=key, message="\n\nid: 7\n\ndata: x\r"))
        frames = reader.until(lambda frames: ids(frames))
        assert ids(frames) == [key]
        assert all("\u2028" not in frame.data for frame in frames)


def test_one_operation(tmp_path: Path) -> None:
    """Its whole state at once, then each change, and each new event once."""
    with serving(tmp_path / "m.db") as server:
        server.say(snap(1), event=s.OPERATION_STARTED)
        with Reader(server.port, "/operations/a/stream") as reader:
            frames = reader.until(lambda frames: len(frames) > 1)
            assert [frame.event for frame in frames[:2]] == ["hello", "operation"]
            for sequence in range(2, 30):
                server.say(snap(sequence), event=s.NOTE)
            server.say(snap(30, Status.COMPLETED), event=s.OPERATION_ENDED)

            def numbers(frames: list[Frame]) -> list[int]:
                told = (json.loads(frame.data)["events"] for frame in frames if frame.event == "events")
                return [event["sequence"] for events in told for event in events]

            # The store may be ahead of the state that was read a moment before, so only the end of the stream is the end.
            frames = reader.until(lambda frames: frames[-1].event == "ended")
            assert numbers(frames) == list(range(2, 31))
            last = [frame for frame in frames if frame.event == "operation"][-1]
            assert json.loads(last.data)["status"] == "completed"


def test_heartbeats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing happens a comment shows that the connection lives."""
    monkeypatch.setattr("otel_progress.monitor.web.publish.BEAT_SECONDS", 0.05)
    with serving(tmp_path / "m.db") as server, Reader(server.port) as reader:
        while getattr(reader, "comments", b"").count(b": beat\n\n") < 2:
            reader.read()
        assert [frame.event for frame in reader.frames] == ["hello"]


def test_slow_reader_is_dropped_and_misses_no_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who takes nothing loses the connection while others go on; it comes back, loads the list and has all ends."""
    monkeypatch.setattr(stream, "SLOW_SECONDS", 0.3)
    with serving(tmp_path / "m.db") as server:
        with Reader(server.port, receive_buffer=4096) as slow, Reader(server.port) as quick:
            slow.until(lambda frames: frames)
            deadline, number = time.monotonic() + 60, 0
            while not server.monitor.hub.dropped:
                assert time.monotonic() < deadline
                number += 1
                server.say(
                    *(snap(1, Status.COMPLETED, f"{number}-{n}", message="x" * 400) for n in range(100)),
                    event=s.OPERATION_ENDED,
                )
                quick.until(lambda frames, n=number: f"{n}-99" in ends(frames[-40:]))  # type: ignore[misc]
            with pytest.raises((AssertionError, ConnectionError)):
                slow.until(lambda _: False)
            all_ends = {f"{one}-{n}" for one in range(1, number + 1) for n in range(100)}
            assert ends(quick.frames) == all_ends
            had = ends(slow.frames)
        with Reader(server.port, last=slow.frames[-1].id) as again:
            again.until(lambda frames: f"{number}-99" in ends(frames) or "reset" in [one.event for one in frames])
            reset = any(frame.event == "reset" for frame in again.frames)
            assert reset or had | ends(again.frames) == all_ends


def test_streams_end_with_the_monitor(tmp_path: Path) -> None:
    """Readers are let go at once, however many; their connections are closed in order."""
    server = Server(tmp_path / "m.db")
    readers = [Reader(server.port) for _ in range(20)]
    for reader in readers:
        reader.until(lambda frames: frames)
    assert server.stop() < 2
    for reader in readers:
        while not reader.ended:
            reader.read()
        reader.socket.close()


def unpacked(port: int, path: str, until: bytes) -> tuple[bytes, str]:
    """The stream as one gets it who accepts gzip, unpacked, up to these bytes or its end; and its head."""
    unpack, got = zlib.decompressobj(31), b""
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        ask = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept-Encoding: gzip\r\n\r\n"
        connection.sendall(ask.encode())
        answer = HTTPResponse(connection)
        answer.begin()
        while until not in got and (part := answer.read1(65536)):
            got += unpack.decompress(part)
        assert until in got or unpack.eof
    return got, str(answer.headers).lower()


def test_frames_arrive_packed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who accepts gzip gets each change packed, as soon as others do; many on this machine as well."""
    monkeypatch.setattr(stream, "MANY", 1)
    with serving(tmp_path / "m.db") as server, Reader(server.port) as reader:
        reader.until(lambda frames: len(frames) > 0)
        server.say(snap(1))
        reader.until(lambda frames: ids(frames) == ["a"])
        position = reader.frames[0].id
        got, head = unpacked(server.port, "/stream", b'"interval"')
        assert "content-encoding: gzip" in head
        assert "vary: accept-encoding" in head
        assert b"event: hello" in got
        assert position


def test_one_reader_on_this_machine_gets_frames_as_they_are(tmp_path: Path) -> None:
    """Packing saves nothing over loopback."""
    with serving(tmp_path / "m.db") as server, Reader(server.port) as reader:
        reader.until(lambda frames: len(frames) > 0)
        assert "content-encoding" not in reader.head


def test_packed_stream_of_one_operation_ends_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A packed stream that ends has the checksum of all that was in it."""
    monkeypatch.setattr(stream, "MANY", 0)
    with serving(tmp_path / "m.db") as server:
        server.say(snap(1), event=s.OPERATION_STARTED)
        server.say(snap(2, Status.COMPLETED), event=s.OPERATION_ENDED)
        got, _ = unpacked(server.port, "/operations/a/stream", b"nothing that is in it")
        assert got.count(b"event: ended") == 1
