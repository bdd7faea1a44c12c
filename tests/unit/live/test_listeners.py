"""Listeners: callbacks that are told of every change, and can harm nobody."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import threading
from collections import Counter
from typing import Any

import pytest

import otel_progress as progress
from otel_progress import Event, Snapshot, Status, semconv
from otel_progress.live.engine import listeners
from otel_progress.live.engine.listeners import AsyncListener, Dispatcher, Listener
from otel_progress.live.guard import drops
from otel_progress.testing import Capture


class Heard:
    """A listener that keeps what it was told."""

    def __init__(self) -> None:
        self.snapshots: list[Snapshot] = []

    def __call__(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)

    @property
    def names(self) -> list[str]:
        return [snapshot.name for snapshot in self.snapshots]


class AsyncHeard(Heard):
    """One that is a coroutine function."""

    def __init__(self) -> None:
        super().__init__()
        self.loops: list[Any] = []
        self.ended = asyncio.Event()

    async def __call__(self, snapshot: Snapshot) -> None:  # type: ignore[override]
        self.loops.append(asyncio.get_running_loop())
        super().__call__(snapshot)
        if snapshot.status.final:
            self.ended.set()


def test_listener_of_all(progress_capture: Capture) -> None:
    """A listener of all is told of every operation, from its start to its end, in order."""
    heard = Heard()
    progress.add_listener(heard)
    with progress.operation("a"), progress.operation("b"):
        pass
    progress_capture.look()
    assert heard.names == ["b", "a"]
    assert heard.snapshots[-1].status is Status.COMPLETED


def test_the_end_is_told_once(progress_capture: Capture) -> None:
    """A callback of one argument sees a final status once, also where start, stages and end come in one look."""
    heard = Heard()
    progress.add_listener(heard)
    with progress.operation("short"), progress.stage("s"):
        pass
    with progress.operation("long"):
        progress_capture.look()
        with progress.stage("s"):
            progress_capture.look()
    progress_capture.look()
    assert Counter((seen.name, seen.status) for seen in heard.snapshots if seen.status.final) == {
        ("short", Status.COMPLETED): 1,
        ("long", Status.COMPLETED): 1,
    }
    assert [seen.status for seen in heard.snapshots if seen.name == "long"][:2] == [Status.RUNNING] * 2


def test_a_second_argument_is_the_event(progress_capture: Capture) -> None:
    """A callback that takes two arguments hears of every event, in order, and which one it is."""
    heard: list[Event] = []

    def listener(snapshot: Snapshot, event: Event) -> None:
        assert event.snapshot is snapshot
        heard.append(event)

    progress.add_listener(listener)
    with progress.operation("short"), progress.stage("s"):
        progress.note("x")
    progress_capture.look()
    assert [event.name for event in heard] == [
        semconv.OPERATION_STARTED,
        semconv.STAGE_STARTED,
        semconv.STAGE_ENDED,
        semconv.NOTE,
        semconv.OPERATION_ENDED,
    ]
    assert [event.sequence for event in heard] == sorted({event.sequence for event in heard})


class Methods:
    def one(self, snapshot: Snapshot) -> None: ...
    def two(self, snapshot: Snapshot, event: Event) -> None: ...
    def __call__(self, snapshot: Snapshot, event: Event, /) -> None: ...


@pytest.mark.parametrize(
    ("callback", "two"),
    [
        (lambda snapshot: None, False),
        (lambda snapshot, event: None, True),
        (lambda snapshot, mine=1: None, False),
        (lambda *all: None, False),
        (lambda snapshot, *, mine=1: None, False),
        ([].append, False),
        (print, False),
        (dict, False),
        (Methods().one, False),
        (Methods().two, True),
        (Methods(), True),
        (functools.partial(Methods.two, Methods()), True),
        (functools.partial(lambda a, snapshot: None, 1), False),
    ],
)
def test_the_signature_decides(callback: Any, two: bool) -> None:
    """Only a callback that can't do without two arguments gets the event; defaults and `*args` are its own."""
    running = progress.operation("work").snapshot()
    over = dataclasses.replace(running, status=Status.COMPLETED)
    assert Listener(callback).wants(Event(semconv.STAGE_ENDED, 0, over)) is two
    assert Listener(callback).wants(Event(semconv.OPERATION_ENDED, 0, over))


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, BaseException])
def test_no_exception_of_a_listener_stops_the_others(
    error: type[BaseException], progress_capture: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    """SystemExit and its like from a listener are logged once and counted; all go on to be told."""

    def broken(_: Snapshot) -> None:
        raise error("listener")

    heard, dispatcher = Heard(), Dispatcher()
    first, second = Listener(broken), Listener(heard)
    told = Event(semconv.UPDATED, 0, progress.operation("work").snapshot())
    with caplog.at_level(logging.WARNING, "otel_progress"):
        for _ in range(2):
            dispatcher.put(first, told)
            dispatcher.put(second, told)
        dispatcher.drain(30)
    assert len(heard.snapshots) == 2
    assert drops[semconv.DROP_LISTENER_ERROR] == 2
    assert len(caplog.records) == 1


def test_listener_of_one(progress_capture: Capture) -> None:
    """A listener of one operation is told of that one alone; a stage's listener is that of its operation."""
    heard, by_stage = Heard(), Heard()
    with progress.operation("a") as a, progress.operation("b"), a.stage("s") as stage:
        a.add_listener(heard)
        stage.add_listener(by_stage)
    progress_capture.look()
    assert set(heard.names) == set(by_stage.names) == {"a"}
    assert heard.snapshots[-1].status is Status.COMPLETED


def test_listener_is_told_of_every_kind_of_change(progress_capture: Capture) -> None:
    """Stages, waits, notes, progress and stalls are changes."""
    heard = Heard()
    with progress.operation("work", stall_after=5) as op:
        op.add_listener(heard)
        progress_capture.look()
        for act in (
            lambda: op.stage("s").start(),
            lambda: op.waiting("tea").__enter__().__exit__(None, None, None),
            lambda: op.note("x"),
            lambda: op.advance(),
            lambda: progress_capture.advance(6),
        ):
            before = len(heard.snapshots)
            act()
            progress_capture.look()
            assert len(heard.snapshots) > before


def test_listener_can_be_added_before_the_start(progress_capture: Capture) -> None:
    """A listener added before the start hears the start."""
    heard = Heard()
    op = progress.operation("work")
    op.add_listener(heard)
    with op:
        progress_capture.look()
        assert [snapshot.status for snapshot in heard.snapshots] == [Status.RUNNING]


def test_listener_taken_out(progress_capture: Capture) -> None:
    """What takes a listener out may be called twice; other listeners stay, and a new one can come."""
    heard, other = Heard(), Heard()
    remove = progress.add_listener(heard)
    progress.add_listener(other)
    with progress.operation("work") as op:
        mine = Heard()
        op.add_listener(mine)()
        again = Heard()
        op.add_listener(again)
        progress_capture.look()
        told = len(heard.snapshots)
        remove()
        remove()
    progress_capture.look()
    assert (len(heard.snapshots), mine.snapshots) == (told, [])
    assert len(other.snapshots) > told
    assert again.snapshots[-1].status is Status.COMPLETED


def test_the_same_listener_twice_is_told_twice(progress_capture: Capture) -> None:
    """Each addition counts for itself, and is taken out for itself."""
    heard = Heard()
    removes = [progress.add_listener(heard) for _ in range(2)]
    removes[0]()
    with progress.operation("work"):
        pass
    progress_capture.look()
    assert len(heard.snapshots) == 1


def test_broken_listener_is_logged_once_and_counted(
    progress_capture: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    """What a listener raises is logged once, counted each time, and never felt: not by the job, not by other listeners."""

    def broken(snapshot: Snapshot, event: Event) -> None:
        raise ValueError("listener")

    heard = Heard()
    progress.add_listener(broken)
    progress.add_listener(heard)
    with caplog.at_level(logging.WARNING), progress.operation("work") as op:
        with op.stage("s"):
            pass
    progress_capture.look()
    assert progress_capture.drops == {semconv.DROP_LISTENER_ERROR: 4}
    (record,) = caplog.records
    assert "broken" in record.getMessage()
    assert record.exc_info is not None
    assert len(heard.snapshots) == 1


@pytest.mark.parametrize("kind", ["object", "function", "partial"])
def test_async_listener_runs_on_the_loop_where_it_was_added(kind: str, progress_capture: Capture) -> None:
    """An async listener is awaited on the loop where it was added."""

    async def main() -> None:
        heard = AsyncHeard()

        async def function(snapshot: Snapshot) -> None:
            await heard(snapshot)

        async def with_more(_: int, snapshot: Snapshot) -> None:
            await heard(snapshot)

        progress.add_listener({"object": heard, "function": function, "partial": functools.partial(with_more, 1)}[kind])
        with progress.operation("work"):
            pass
        progress_capture.look()
        await heard.ended.wait()
        assert heard.names == ["work"]
        assert set(heard.loops) == {asyncio.get_running_loop()}

    asyncio.run(main())


def test_broken_async_listener_is_counted(progress_capture: Capture, caplog: pytest.LogCaptureFixture) -> None:
    """What an async listener raises is logged once and counted."""

    async def main() -> None:
        heard = AsyncHeard()

        async def broken(snapshot: Snapshot) -> None:
            raise ValueError("listener")

        progress.add_listener(broken)
        progress.add_listener(heard)
        with caplog.at_level(logging.WARNING), progress.operation("work"):
            pass
        progress_capture.look()
        await heard.ended.wait()

    asyncio.run(main())
    assert progress_capture.drops == {semconv.DROP_LISTENER_ERROR: 1}
    assert len(caplog.records) == 1


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, asyncio.CancelledError])
def test_no_exception_of_an_async_listener_ends_the_loop(
    error: type[BaseException], progress_capture: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    """SystemExit and its like from an async listener are counted; the loop, and the listener, go on."""
    seen: list[str] = []

    async def main() -> None:
        ended = asyncio.Event()

        async def broken(snapshot: Snapshot, event: Event) -> None:
            seen.append(event.name)
            if event.name == semconv.OPERATION_ENDED:
                ended.set()
            raise error

        progress.add_listener(broken)
        with progress.operation("work"):
            progress_capture.look()
        progress_capture.look()
        await ended.wait()

    asyncio.run(main())
    assert seen == [semconv.OPERATION_STARTED, semconv.OPERATION_ENDED]
    assert progress_capture.drops == {semconv.DROP_LISTENER_ERROR: 2}


def test_an_async_listener_hears_one_event_after_the_other(progress_capture: Capture) -> None:
    """The next event comes when the coroutine for the last one has ended, in the order in which they happened."""

    async def main() -> None:
        begun, done, ended = [], [], asyncio.Event()

        async def slow(snapshot: Snapshot, event: Event) -> None:
            begun.append(event.sequence)
            assert len(begun) == len(done) + 1
            for _ in range(20 - event.sequence):  # the first ones take longest
                await asyncio.sleep(0)
            done.append(event.sequence)
            if event.name == semconv.OPERATION_ENDED:
                ended.set()

        progress.add_listener(slow)
        with progress.operation("work") as op:
            for number in range(5):
                with op.stage(f"s{number}"):
                    progress_capture.look()
        progress_capture.look()
        await ended.wait()
        assert begun == done == sorted(done)
        assert len(done) == 12

    asyncio.run(main())


def test_the_queue_of_an_async_listener_is_bounded(progress_capture: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """What finds no room in the queue of an async listener is counted; an end finds room."""
    monkeypatch.setattr(listeners, "QUEUE", 3)

    async def main() -> list[str]:
        names: list[str] = []
        ended = asyncio.Event()

        async def listener(snapshot: Snapshot, event: Event) -> None:
            names.append(event.name)
            if event.name == semconv.OPERATION_ENDED:
                ended.set()

        told = AsyncListener(listener)
        snapshot = progress.operation("work").snapshot()
        for name in [semconv.UPDATED] * 5 + [semconv.OPERATION_ENDED]:
            told.tell(Event(name, 0, snapshot))
        await ended.wait()
        return names

    assert asyncio.run(main()) == [*[semconv.UPDATED] * 3, semconv.OPERATION_ENDED]
    assert drops[semconv.DROP_LISTENER] == 2


def test_async_listener_whose_loop_is_gone(progress_capture: Capture) -> None:
    """A listener whose loop was closed is counted as broken, and harms nobody."""

    async def add() -> None:
        progress.add_listener(AsyncHeard())

    asyncio.run(add())
    with progress.operation("work"):
        pass
    progress_capture.look()
    assert progress_capture.drops == {semconv.DROP_LISTENER_ERROR: 1}
    assert progress_capture.ended("work").status is Status.COMPLETED


def test_async_listener_needs_a_loop(progress_capture: Capture) -> None:
    """An async listener that is added where no loop runs is told so."""
    with pytest.raises(progress.InvalidState, match="must be added inside the loop"):

        async def listener(snapshot: Snapshot) -> None: ...

        progress.add_listener(listener)


def test_teller_drains_and_goes_on() -> None:
    """drain() waits until all that was queued is told, in order; what comes later is told, too."""
    heard = Heard()
    dispatcher, listener = Dispatcher(), Listener(heard)
    events = [Event(semconv.UPDATED, 0, progress.operation(f"o{n}").snapshot()) for n in range(100)]
    for event in events:
        dispatcher.put(listener, event)
    dispatcher.drain(30)
    assert heard.snapshots == [event.snapshot for event in events]
    dispatcher.put(listener, events[0])
    dispatcher.drain(30)
    assert len(heard.snapshots) == 101


def test_drain_gives_up_on_one_that_hangs() -> None:
    """drain() waits no longer than it is told to."""
    hanging, go_on = threading.Event(), threading.Event()

    def callback(_: Snapshot) -> None:
        hanging.set()
        go_on.wait(60)

    dispatcher = Dispatcher()
    dispatcher.put(Listener(callback), Event(semconv.UPDATED, 0, progress.operation("work").snapshot()))
    assert hanging.wait(30)
    dispatcher.drain(0)
    go_on.set()


def test_a_forked_child_tells_nothing_of_its_parent(progress_capture: Capture) -> None:
    """After a fork the queue is empty, and the thread a new one."""
    before = listeners.dispatcher
    before.put(Listener(Heard()), Event(semconv.UPDATED, 0, progress.operation("work").snapshot()))
    listeners.after_fork_in_child()
    assert listeners.dispatcher is not before
    listeners.dispatcher.drain(0)


def test_no_start_of_short_work_says_that_it_is_over(progress_capture: Capture) -> None:
    """Events of work that is over before the first look say what was true then; the end says all."""
    with progress.operation("quick", total=2) as op:
        progress_capture.clock.sleep(0.01)
        with op.stage("first", total=1) as first:
            progress_capture.clock.sleep(0.01)
            first.advance()
        progress_capture.clock.sleep(0.01)
        with op.stage("second") as second:
            with second.waiting("approval"):
                progress_capture.clock.sleep(0.01)
            progress_capture.clock.sleep(0.01)
        op.result(rows=2)
    progress_capture.look()
    told = {(event.name.removeprefix("progress."), event.stage): event.snapshot for event in progress_capture.events}
    *before, end = told.values()
    assert [one.status for one in before] == [Status.RUNNING] * len(before)
    assert [(one.status, one.result) for one in (end,)] == [(Status.COMPLETED, {"rows": 2})]
    assert len(before) >= 7
    assert told["operation.started", None].stages == ()
    assert told["operation.started", None].progress.total == 2
    assert all(not one.result and one.progress.completed is None for one in before)
    states = {
        key: [(stage.name, stage.status.value) for stage in one.stages] for key, one in told.items() if one is not end
    }
    assert states["stage.started", "first"] == [("first", "running")]
    assert states["stage.ended", "first"] == [("first", "completed")]
    assert states["stage.started", "second"] == [("first", "completed"), ("second", "running")]
    assert states["wait.started", "second"] == [("first", "completed"), ("second", "running")]
    assert states["stage.ended", "second"] == [("first", "completed"), ("second", "completed")]
    assert told["stage.ended", "first"].elapsed == pytest.approx(0.02)
