"""Passing on from the disk: all that was taken arrives at last, in order, over outages and restarts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.stress.served import event, serving, wait_until

from otel_progress import clock
from otel_progress.monitor.intake.messages import response
from otel_progress.monitor.outlets import relay
from otel_progress.monitor.outlets.relay import Relay
from otel_progress.monitor.state.saved import Batch
from otel_progress.monitor.state.store import Store
from otel_progress.outbound import otlp
from otel_progress.outbound.backoff import Backoff
from otel_progress.settings import Endpoint

SECONDS = 20.0


class Receiver:
    """A real HTTP receiver; `plan` says what the next requests are answered, then all are taken."""

    def __init__(self, port: int = 0) -> None:
        self.came: list[bytes] = []
        self.taken: list[bytes] = []
        self.at: list[float] = []
        self.plan: list[tuple[int, dict[str, str]]] = []
        self.said = b""
        self.changed = threading.Condition()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, headers = outer.take(body)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(outer.said)))
                self.end_headers()
                self.wfile.write(outer.said)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def take(self, body: bytes) -> tuple[int, dict[str, str]]:
        with self.changed:
            answer = self.plan.pop(0) if self.plan else (200, {})
            self.came.append(body)
            self.at.append(clock.monotonic())
            if answer[0] == 200:
                self.taken.append(body)
            self.changed.notify_all()
        return answer

    def wait(self, holds: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(holds, SECONDS), self.came[-20:]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(SECONDS)


class Deleted:
    """What the relay asked to delete; the owner of the store would put it into its next batch."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.changed = threading.Condition()

    def __call__(self, ids: list[int]) -> None:
        with self.changed:
            self.ids += ids
            self.changed.notify_all()

    def wait(self, number: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.ids) >= number, SECONDS), self.ids


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Who takes what is passed on."""
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Where requests wait."""
    made = Store(tmp_path / "a.db")
    yield made
    made.close()


@pytest.fixture
def deleted() -> Deleted:
    """What may be deleted."""
    return Deleted()


@contextmanager
def relaying(store: Store, port: int, deleted: Deleted, most_bytes: int = relay.BYTES) -> Iterator[Relay]:
    """A relay of logs to a port of this machine."""
    made = Relay(
        {"logs": Endpoint("http/protobuf", f"http://me:secret@127.0.0.1:{port}/v1/logs")},
        store,
        deleted,
        most_bytes=most_bytes,
        backoff=Backoff(longest=0.25),
    )
    made.stuck_after = 0.0
    try:
        yield made
    finally:
        made.stop(0)


def put(store: Store, *bodies: bytes) -> None:
    """Take these requests of logs."""
    store.write(Batch(outgoing=[("logs", body) for body in bodies]))


def bodies(first: int, last: int) -> list[bytes]:
    """Requests with these numbers."""
    return [b"%05d" % number for number in range(first, last)]


def test_all_arrives_in_order_and_only_then_is_deleted(
    store: Store, receiver: Receiver, deleted: Deleted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits when the relay starts and what comes later arrives once, in order, though nothing was deleted yet."""
    monkeypatch.setattr(relay, "CHUNK", 12)
    put(store, *bodies(0, 20))
    store.write(Batch(outgoing=[("traces", b"of another signal")]))
    with relaying(store, receiver.port, deleted) as made:
        deleted.wait(20)
        for number in range(20, 40):
            put(store, *bodies(number, number + 1))
            made.queued("logs")
            made.queued("metrics")
        deleted.wait(40)
        assert made.signals == {"logs"}
        assert made.losses() == made.troubles() == []
    assert receiver.came == bodies(0, 40)
    assert deleted.ids == [id for id, _ in store.outgoing("logs", 10**6)]
    store.write(Batch(sent=deleted.ids))
    assert store.outgoing("logs", 10**6) == []
    assert store.outgoing_bytes("traces") == 17


def test_receiver_that_is_away_loses_nothing(store: Store, deleted: Deleted) -> None:
    """While nobody listens requests wait, and it is told; when somebody does, they arrive in order."""
    gone = Receiver()
    gone.close()
    put(store, *bodies(0, 5))
    with relaying(store, gone.port, deleted) as made:
        waited = threading.Event()
        while not made.troubles():
            assert not waited.wait(0.01)
        assert f"logs have not been accepted by http://127.0.0.1:{gone.port}/v1/logs for 0 s" in made.troubles()[0]
        put(store, *bodies(5, 10))
        made.queued("logs")
        back = Receiver(gone.port)
        try:
            back.wait(lambda: len(back.taken) == 10)
            deleted.wait(10)
            assert made.troubles() == made.losses() == []
        finally:
            back.close()
    assert back.came == bodies(0, 10)


def test_receiver_is_left_alone_as_long_as_it_asks(store: Store, receiver: Receiver, deleted: Deleted) -> None:
    """After a 429 or 503 with Retry-After the same request comes again, not before that time is over."""
    receiver.plan = [(429, {"Retry-After": "1"})]
    put(store, *bodies(0, 3))
    with relaying(store, receiver.port, deleted) as made:
        for _ in range(20):
            made.queued("logs")
        deleted.wait(3)
    assert receiver.came == [b"00000", *bodies(0, 3)]
    assert receiver.at[1] - receiver.at[0] >= 0.95


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_what_is_refused_for_its_data_is_given_up(
    store: Store, receiver: Receiver, deleted: Deleted, status: int
) -> None:
    """Such a request would hold up all that wait behind it for ever: it goes, and is counted."""
    receiver.plan = [(200, {}), (status, {})]
    put(store, *bodies(0, 4))
    with relaying(store, receiver.port, deleted) as made:
        deleted.wait(4)
        assert made.losses() == [
            f"1 requests of logs could not be passed on to http://127.0.0.1:{receiver.port}/v1/logs (HTTP {status})"
        ]
    assert receiver.taken == [b"00000", b"00002", b"00003"]


def test_health_names_a_receiver_that_refuses_for_long(tmp_path: Path, receiver: Receiver) -> None:
    """Forwarding is in trouble once nothing was accepted for the whole limit, and well again with the next success."""
    receiver.plan = [(500, {})] * 1000
    endpoint = Endpoint("http/protobuf", f"http://127.0.0.1:{receiver.port}/v1/logs")
    with serving(tmp_path, forward={"logs": endpoint}) as served:
        assert served.get("/health")["forward"] == {"lost": 0, "rejected": 0}
        served.send(event("a"))
        receiver.wait(lambda: len(receiver.came) > 1)
        health = served.get("/health")
        assert (health["status"], "trouble" in health["forward"]) == ("ok", False)
        served.monitor.relay.stuck_after = 0.1
        wait_until(lambda: served.get("/health")["status"] == "degraded")
        health = served.get("/health")
        assert "logs have not been accepted by" in health["trouble"] == health["forward"]["trouble"]
        assert "HTTP 500" in health["trouble"]
        receiver.plan.clear()
        wait_until(lambda: served.get("/health")["status"] == "ok")
        assert served.get("/health")["forward"] == {"lost": 0, "rejected": 0}


REFUSALS = [(400, 0), (413, 0), (200, 1), (200, 1000)]


@pytest.mark.parametrize(("status", "rejected"), REFUSALS)
def test_receiver_that_refuses_all_is_trouble(
    store: Store, receiver: Receiver, deleted: Deleted, status: int, rejected: int
) -> None:
    """A request that is given up, or of which every item is rejected, was not accepted; the next accepted one ends it."""
    body = otlp.envelope(b"", b"", [otlp.chunk(2, b"")])
    receiver.plan = [(status, {})] * 2
    receiver.said = response("logs", rejected, "no room").SerializeToString() if rejected else b""
    put(store, body, body)
    with relaying(store, receiver.port, deleted) as made:
        deleted.wait(2)
        (said,) = made.troubles()
        assert f"logs have not been accepted by http://127.0.0.1:{receiver.port}/v1/logs" in said
        assert ("no room" if rejected else f"HTTP {status}") in said
        made.stuck_after = SECONDS
        assert made.troubles() == []  # nothing waits, and the refusals did not last that long
        receiver.said = b""
        put(store, body)
        made.queued("logs")
        deleted.wait(3)
        made.stuck_after = 0.0
        assert made.troubles() == []


def test_receiver_that_rejects_a_part_is_no_trouble(store: Store, receiver: Receiver, deleted: Deleted) -> None:
    """Who accepts the rest of a request accepts data."""
    receiver.said = response("logs", 1, "one is odd").SerializeToString()
    put(store, otlp.envelope(b"", b"", [otlp.chunk(2, b"")] * 2))
    with relaying(store, receiver.port, deleted) as made:
        deleted.wait(1)
        assert made.troubles() == []
        assert made.health()["forward"]["rejected"] == 1


@pytest.mark.parametrize("status", [401, 404, 500])
def test_what_is_refused_for_the_way_waits(store: Store, receiver: Receiver, deleted: Deleted, status: int) -> None:
    """A wrong token or address can be put right; until then requests wait, and the reason is told."""
    receiver.plan = [(status, {})] * 2
    put(store, *bodies(0, 2))
    with relaying(store, receiver.port, deleted) as made:
        receiver.wait(lambda: len(receiver.came) == 2)
        assert any(f"HTTP {status}" in line for line in made.troubles())
        deleted.wait(2)
        assert made.losses() == []
    assert receiver.taken == bodies(0, 2)


def test_what_waits_outlives_the_process(tmp_path: Path, receiver: Receiver) -> None:
    """After a stop in the middle of an outage, the next relay sends all the rest, in order."""
    first, second = Deleted(), Deleted()
    store = Store(tmp_path / "b.db")
    receiver.plan = [(200, {}), (200, {}), *[(503, {"Retry-After": "60"})] * 2]
    put(store, *bodies(0, 50))
    with relaying(store, receiver.port, first) as made:
        receiver.wait(lambda: len(receiver.came) == 3)
        began = clock.monotonic()
        made.stop(0)
        assert clock.monotonic() - began < 5
        assert made.losses() == []
    assert len(first.ids) == 2
    store.write(Batch(sent=first.ids))
    store.close()
    receiver.plan = []
    store = Store(tmp_path / "b.db")
    with relaying(store, receiver.port, second):
        second.wait(48)
    store.close()
    assert receiver.taken == bodies(0, 50)


def test_stop_sends_what_it_can(store: Store, receiver: Receiver, deleted: Deleted) -> None:
    """With time to do so, a stop sends all that waits, though the receiver had asked for a minute's pause."""
    receiver.plan = [(429, {"Retry-After": "60"})]
    put(store, *bodies(0, 3))
    with relaying(store, receiver.port, deleted) as made:
        receiver.wait(lambda: len(receiver.came) == 1)
        put(store, *bodies(3, 6))
        made.queued("logs")
        made.stop(SECONDS)
        made.stop(SECONDS)
    assert receiver.taken == bodies(0, 6)
    assert len(deleted.ids) == 6


def test_when_too_much_waits_the_oldest_go(store: Store, deleted: Deleted, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is above the limit goes, the oldest first, is counted and may be deleted; the rest still arrives."""
    monkeypatch.setattr(relay, "CHUNK", 10)
    gone = Receiver()
    gone.close()
    put(store, *bodies(0, 30))
    with relaying(store, gone.port, deleted, most_bytes=100) as made:
        deleted.wait(10)
        put(store, *bodies(30, 40))
        made.queued("logs")
        deleted.wait(20)
        assert "20 requests of logs could not be passed on" in made.losses()[0]
        back = Receiver(gone.port)
        try:
            back.wait(lambda: len(back.taken) == 20)
            deleted.wait(40)
        finally:
            back.close()
    assert back.came == bodies(20, 40)
    assert deleted.ids == sorted(deleted.ids)


def test_store_that_fails_does_not_end_the_relay(store: Store, receiver: Receiver, deleted: Deleted) -> None:
    """What could not be read is read later; a stop in that state takes no time."""
    put(store, *bodies(0, 2))
    store.close()
    with relaying(store, receiver.port, deleted) as made:
        never = threading.Event()
        while "closed" not in made.lanes["logs"].reason:
            assert not never.wait(0.01)
        began = clock.monotonic()
        made.stop(0)
        assert clock.monotonic() - began < 5
    assert receiver.came == deleted.ids == []
