"""After a start: what ran before is brought behind what comes in, and nothing false is said until it is there."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monitor_parts import Parts, Recorder, event_of, fake_time, open_in, parts, request_of, seconds

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.cli.query.client import Client
from otel_progress.cli.query.list import write_list
from otel_progress.model.snapshot import Snapshot
from otel_progress.model.status import Health, Status
from otel_progress.model.values import Attributes
from otel_progress.monitor.app import Monitor, Options
from otel_progress.monitor.auth import RIGHTS, Identity
from otel_progress.monitor.intake.requests import Accepted, Envelope
from otel_progress.monitor.state import loading
from otel_progress.monitor.state.core import CoreLimits
from otel_progress.monitor.state.saved import StoredOperation
from otel_progress.monitor.state.store import Store, StoreError
from otel_progress.testing import FakeClock

AT = 1_700_000_000.0


@pytest.fixture
def monitor(fake: FakeClock, tmp_path: Path) -> Iterator[Parts]:
    """The inside of a monitor that brings ten at a time."""
    with parts(tmp_path / "m.db", limits=CoreLimits(slice=10)) as found:
        yield found


def snap(key: str, sequence: int = 1, status: Status = Status.RUNNING, **more: Any) -> Snapshot:
    """A snapshot of an operation."""
    return Snapshot(key, "work", status, AT + sequence, **{"sequence": sequence, "started_at": AT, **more})


def many(monitor: Parts, count: int, **more: Any) -> None:
    """Start operations in a process that sends heartbeats."""
    monitor.beat()
    monitor.say(*(snap(f"o{number:03d}", **more) for number in range(count)))


def load(monitor: Parts) -> None:
    """All slices."""
    while not monitor.core.loading.done:
        monitor.core.load_more()


class Counted(Store):
    """A store that counts the states of operations that are read."""

    read = 0

    def _read(self, sql: str, given: Any = ()) -> Any:
        rows = super()._read(sql, given)
        self.read += len(rows)
        return rows


def test_first_answer_needs_one_slice_however_many_there_are(fake: FakeClock, tmp_path: Path) -> None:
    """To start, to take a request and to answer reads as much from a file with many operations as from one with few."""
    reads = []
    for count in (300, 3000):
        with parts(tmp_path / f"{count}.db", kind=Counted) as monitor:
            many(monitor, count)
            monitor.restart()
            assert monitor.say(snap("new")) == Accepted()
            assert monitor.row("new")["status"] == "running"
            assert isinstance(monitor.store, Counted)
            reads.append(monitor.store.read)
            assert monitor.core.loading.progress() == {"loaded": loading.SLICE, "of": count}
    assert reads[1] <= reads[0] + 10


def test_all_come_in_slices_and_then_nothing_tells_it_from_before(monitor: Parts) -> None:
    """Each turn brings some; answers say how far it is, and at the end nothing any more."""
    many(monitor, 95)
    before = dict(monitor.core.ledger.operations)
    monitor.restart()
    told = [monitor.core.loading.progress()]
    while not monitor.core.loading.done:
        monitor.core.load_more()
        told.append(monitor.core.loading.progress())
    assert [one["loaded"] for one in told if one] == [10, 20, 30, 40, 50, 60, 70, 80, 90]
    assert told[-1] is None
    after = monitor.core.ledger.operations
    assert {key: entry.head for key, entry in before.items()} == {key: entry.head for key, entry in after.items()}
    assert monitor.core.labels.keys() == after.keys()


def test_nothing_is_called_dead_stuck_or_lost_while_it_is_not_there(fake: FakeClock, tmp_path: Path) -> None:
    """However long it takes, what is not there yet is unknown when somebody asks for it, and nobody is called."""
    heard = Recorder()
    with parts(tmp_path / "m.db", presume_after=30.0, listeners=(heard,)) as monitor:
        many(monitor, 1000)
        monitor.beat("p2")
        monitor.say(snap("last"), instance="p2")
        monitor.restart()
        for _ in range(60):
            monitor.beat("p1")
            seconds(fake, monitor, 1)
        assert not monitor.core.loading.done
        assert (monitor.health("o000"), monitor.health("o999"), monitor.health("last")) == ("progressing",) * 2 + (
            "unknown",
        )
        monitor.beat("p2")
        load(monitor)
        monitor.tick()
        assert (monitor.health("last"), heard.kinds) == ("progressing", [])
        seconds(fake, monitor, 16)
        assert monitor.health("last") == "dead"


def test_heartbeat_of_a_process_that_is_not_there_yet_is_heard(fake: FakeClock, monitor: Parts) -> None:
    """A sign of life before its operations are brought counts, and its heartbeats are known from before."""
    many(monitor, 95)
    monitor.restart()
    monitor.core.ledger.processes.clear()
    fake.sleep(20)
    assert monitor.take(request_of(instance="p1")) == [Accepted()]
    process = monitor.core.ledger.processes["p1"]
    assert (process.beats, process.heard_at) == (True, clock.monotonic())
    load(monitor)
    assert monitor.core.ledger.processes["p1"].heard_at == clock.monotonic()


def test_event_meets_the_stored_state_of_its_operation(monitor: Parts) -> None:
    """An older one changes nothing, a newer one is the next of the same attempt, an end ends it, a late one does not."""
    many(monitor, 95)
    monitor.say(snap("o090", 7))
    monitor.say(snap("o091", 7, Status.COMPLETED), event=s.OPERATION_ENDED)
    monitor.restart()
    assert "o090" not in monitor.core.ledger.operations
    monitor.say(snap("o090", 5), snap("o091", 8), snap("o092", 2, Status.FAILED), snap("o093", 2))
    load(monitor)
    found = {key: monitor.core.ledger.find(key) for key in ("o090", "o091", "o092", "o093")}
    assert {key: (one.head.sequence, one.head.status.value, one.number) for key, one in found.items() if one} == {
        "o090": (7, "running", 1),
        "o091": (7, "completed", 1),
        "o092": (2, "failed", 1),
        "o093": (2, "running", 1),
    }


def test_owner_is_that_of_the_operation_above_though_it_is_not_there_yet(monitor: Parts) -> None:
    """A new child of one that is not there yet belongs to whom that one belongs, in the file, too."""
    many(monitor, 50)
    monitor.say(snap("above", attributes=Attributes({s.OWNER: "ann"})))
    monitor.restart()
    assert "above" not in monitor.core.ledger.operations
    monitor.say(snap("child", parent_id="above"))
    kept = monitor.store.recall("child")
    assert kept is not None
    assert kept.owner == "ann"


def test_stall_is_held_back_for_a_child_that_is_not_there_yet(fake: FakeClock, monitor: Parts) -> None:
    """A parent in one process says that it is stuck, while its child in another one moves: nobody is called."""
    many(monitor, 50)
    monitor.beat("p2")
    monitor.say(snap("parent", stall_after=5.0))
    monitor.say(*(snap(f"q{n}") for n in range(20)), snap("child", parent_id="parent"), instance="p2")
    monitor.restart()
    assert "child" not in monitor.core.ledger.operations
    fake.sleep(20)
    monitor.beat("p2")
    silent = snap("parent", 2, health=Health.SILENT, idle=6.0, stall_after=5.0)
    monitor.say(silent, event=s.STALLED)
    assert "child" in monitor.core.ledger.operations
    assert [one.event for one in monitor.history("parent")] == [s.UPDATED]


def test_spans_of_a_process_that_is_not_there_yet_are_still_its_own(monitor: Parts) -> None:
    """The spans of a program that tells of itself by log events make no operations of their own."""
    many(monitor, 95)
    monitor.restart()
    monitor.core.ledger.processes.clear()
    assert monitor.core.is_ours(b"x" * 16, "p1")


class Broken(Store):
    """A store whose operations can't be read, while a test says so."""

    broken = False

    def open_slice(self, after: int, last: int, limit: int) -> tuple[list[StoredOperation], int]:
        """As the store does, if it can."""
        if self.broken:
            raise StoreError("it can't be read", passing=True)
        return super().open_slice(after, last, limit)


def test_slice_that_can_not_be_read_is_tried_again(fake: FakeClock, tmp_path: Path) -> None:
    """It is told, what comes in is taken meanwhile, and when it can be read all is brought."""
    with parts(tmp_path / "m.db", kind=Broken) as monitor:
        many(monitor, 600)
        monitor.restart()
        assert isinstance(monitor.store, Broken)
        monitor.store.broken = True
        monitor.core.load_more()
        assert monitor.core.faults.text == "it can't be read"
        assert monitor.say(snap("new")) == Accepted()
        monitor.store.broken = False
        load(monitor)
        assert len(monitor.core.ledger.operations) == 601


def test_readers_of_lists_load_anew_when_all_is_there(monitor: Parts) -> None:
    """Who loaded a list before has only a part of it."""
    many(monitor, 50)
    monitor.restart()
    topic = monitor.hub.topic("all")
    monitor.publisher.publish()
    assert "reset" not in [frame.name for frame in topic.frames]
    load(monitor)
    monitor.publisher.publish()
    assert "reset" in [frame.name for frame in topic.frames]


def test_the_thread_takes_requests_between_slices(tmp_path: Path) -> None:
    """A request is answered before all is brought, and all is brought behind it."""
    with parts(tmp_path / "m.db", limits=CoreLimits(slice=1)) as monitor:
        many(monitor, 300)
        monitor.restart()
        answered = threading.Event()
        left: list[Any] = []

        def done(_: Any) -> None:
            left.append(monitor.core.loading.progress())
            answered.set()

        monitor.core.offer(Envelope("logs", request_of(event_of(snap("new")))), done)
        monitor.core.start()
        assert answered.wait(30)
        assert left[0] is not None
        loaded = threading.Event()
        for _ in range(3000):
            if monitor.core.loading.done or loaded.wait(0.01):
                break
        assert monitor.core.loading.done
        monitor.core.stop()
        assert len(monitor.core.ledger.operations) == 301


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.none() | st.integers(0, 30), st.booleans()), max_size=25),
    st.integers(1, 6),
)
def test_order_does_not_matter(tmp_path_factory: pytest.TempPathFactory, said: list[Any], turns: int) -> None:
    """Whatever is said between which slices: in the end the same is known as where all was there at once."""
    results = []
    for size in (2, 1000):
        folder = tmp_path_factory.mktemp("order")
        with fake_time(), parts(folder / "m.db", limits=CoreLimits(slice=size)) as monitor:
            for number in range(20):
                parent = str(number // 2) if number else None
                status = Status.COMPLETED if number % 5 == 4 else Status.RUNNING
                monitor.say(snap(str(number), 3, status, parent_id=parent), instance=f"p{number % 3}")
            monitor.restart()
            for at, (key, parent, ends) in enumerate(said):
                if at % turns == 0 and not monitor.core.loading.done:
                    monitor.core.load_more()
                status = Status.COMPLETED if ends else Status.RUNNING
                above = None if parent is None else str(parent)
                monitor.say(snap(str(key), 1 + at % 6, status, parent_id=above), instance=f"p{key % 3}")
            load(monitor)
            monitor.tick()
            known = {k: (e.head[2:9], e.number) for k, e in monitor.core.ledger.operations.items() if e.open}
            results.append((known, dict(monitor.core.labels), sorted(one[:11] for one in open_in(monitor.store))))
    assert results[0][:2] == results[1][:2]


def ask(monitor: Monitor, path: str, token: str) -> Any:
    """What it answers."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"127.0.0.1"), (b"authorization", f"Bearer {token}".encode())]
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": headers}
    asyncio.run(monitor.application()({**scope, "raw_path": path.encode()}, receive, send))
    return json.loads(sent[1]["body"])


def test_answers_say_so_until_all_is_there(tmp_path: Path) -> None:
    """Health and lists bear how far it is; who sees what belongs to one owner gets no counts."""
    with fake_time(), parts(tmp_path / "m.db") as inside:
        many(inside, 600)
    tokens = {"a" * 20: Identity(RIGHTS), "b" * 20: Identity(RIGHTS, "ann")}
    monitor = Monitor(Options(tmp_path / "m.db", port=0, grpc_port=None, tokens=tokens))
    try:
        all_, hers = tokens
        told = {"loaded": loading.SLICE, "of": 600}
        for path in ("/health", "/operations"):
            assert [ask(monitor, path, token)["loading"] for token in (all_, hers)] == [told, {}]
        while not monitor.core.loading.done:
            monitor.core.load_more()
        assert not any("loading" in ask(monitor, path, all_) for path in ("/health", "/operations"))
    finally:
        monitor.close()


@pytest.mark.parametrize(("counts", "said"), [({"loaded": 1234, "of": 5000}, ": 1,234 of 5,000 are loaded"), ({}, "")])
def test_list_says_so_to_people(counts: dict[str, int], said: str) -> None:
    """Above what is there."""

    class Few(Client):
        def check(self) -> None:
            pass

        def operations(self, **_: Any) -> dict[str, Any]:
            return {"operations": [{"id": "a", "name": "a", "status": "running"}], "total": 1, "loading": counts}

    out = io.StringIO()
    write_list(Few(), {}, 10, out)
    assert out.getvalue().startswith(f"the monitor has just started and still loads what ran before{said}\n")
