"""`track(items, label=...)`: the item in hand is shown, costs the loop nothing, and harms nobody."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import otel_progress as progress
from otel_progress import Operation
from otel_progress.durable.sqlite import SqliteStore
from otel_progress.live.engine import labels, process
from otel_progress.live.guard import drops
from otel_progress.live.lane import Lane, loop
from otel_progress.testing import Capture


def shown(operation: Operation) -> str | None:
    return operation.snapshot().message


def generated(items: Any) -> Iterator[Any]:
    yield from items


@pytest.mark.parametrize("kind", [list, tuple, deque, generated, dict.fromkeys, iter, itertools.chain])
def test_item_in_hand(kind: Callable[[Any], Any], progress_capture: Capture) -> None:
    """The current step is the item that the loop has in hand, whatever it loops over; afterwards it is none."""
    with progress.operation("a") as one:
        assert [shown(one) for _ in one.track(kind(["x", "y", "z"]), label=str)] == ["x", "y", "z"]
        assert shown(one) is None


def test_beside_desc_and_message() -> None:
    """The item follows `desc`; a message given in the loop replaces both, one given before does not."""
    with progress.operation("a") as one:
        one.update(message="before")
        seen = []
        for item in one.track(range(2), desc="reading", label=lambda number: f"file {number}"):
            seen.append(shown(one))
            if item == 1:
                one.update(message="said")
                seen.append(shown(one))
        assert seen == ["reading: file 0", "reading: file 1", "said"]


def test_nested() -> None:
    """Of nested loops the innermost item is shown; between two inner loops, that of the outer one."""
    with progress.operation("a") as one:
        seen = []
        for _ in one.track(["x", "y"], label=str):
            seen.append(shown(one))
            seen += [shown(one) for _ in one.track([1, 2], unit="row", label=lambda row: f"row {row}")]
        assert seen == ["x", "row 1", "row 2", "y", "row 1", "row 2"]


def test_in_a_stage() -> None:
    """The item of a stage's loop is the step of that stage, and of the operation while it is in that stage."""
    with progress.operation("a") as one, progress.stage("load"):
        for _ in progress.track(["x"], label=str):
            snapshot = one.snapshot()
            assert (snapshot.message, snapshot.stages[0].message) == ("x", "x")


def test_async() -> None:
    """An async loop shows its item, and none while it waits for the next one."""

    async def source() -> AsyncIterator[str]:
        for item in ("x", "y"):
            between.append(shown(one))
            yield item

    async def main() -> None:
        async for _ in one.track(source(), label=str):
            seen.append(shown(one))

    seen: list[str | None] = []
    between: list[str | None] = []
    with progress.operation("a") as one:
        asyncio.run(main())
    assert (seen, between) == (["x", "y"], [None, None])


def test_loop_with_keys(tmp_path: Path) -> None:
    """A resumable loop shows the items that it does, not those that it leaves out."""
    store = SqliteStore(tmp_path / "work.db")
    for expected in (["0", "1"], ["2"]):
        with progress.operation("a", id="i", resume=store) as one:
            items = range(2) if expected[0] == "0" else range(3)
            assert [shown(one) for _ in one.track(items, key=str, label=str)] == expected
    store.close()


def test_asked_once_and_only_by_those_who_look(progress_capture: Capture) -> None:
    """The loop never calls the label; each item that somebody looks at is asked once."""
    asked: list[int] = []
    with progress.operation("a") as one:
        for item in one.track(range(1_000), label=lambda number: asked.append(number) or str(number)):
            if item in {3, 500}:
                one.snapshot()
                one.snapshot()
    progress_capture.look()
    assert asked == [3, 500]


def test_reported_though_nothing_was_counted(progress_capture: Capture) -> None:
    """The first item is reported when it comes, though no unit is completed and no state changes."""
    seen: list[str | None] = []
    progress.add_listener(lambda snapshot: seen.append(snapshot.message))

    def late() -> Iterator[str]:
        progress_capture.advance(3)
        yield "x"

    with progress.operation("a") as one:
        for _ in one.track(late(), label=str):
            progress_capture.advance(3)
            assert seen[-1] == "x"


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (lambda _: 1 / 0, None),
        (lambda _: None, None),
        (lambda _: exec("raise SystemExit"), None),
        (lambda _: exec("raise KeyboardInterrupt"), None),
        (lambda _: "password=hunter2", "password=[redacted]"),
        (lambda _: "x" * 10_000_000, "x" * 199 + "…"),
        (lambda _: b"\xff", "�"),
        (lambda _: type("Odd", (), {"__str__": lambda _: 1 / 0})(), "<Odd that can't be shown>"),
        (lambda _: 7, "7"),
    ],
)
def test_hostile_labels(label: Any, said: str | None, real_threads: None) -> None:
    """A label that raises or returns anything harms neither the job nor the snapshot."""
    with progress.operation("a") as one:
        taken = []
        for item in one.track(["x"], label=label):
            taken.append(item)
            assert wait_for(lambda: shown(one), said) == said
        assert taken == ["x"]


def test_a_label_that_is_no_function(caplog: pytest.LogCaptureFixture) -> None:
    """It is refused with a warning, and the loop takes its items."""
    with progress.operation("a") as one:
        assert list(one.track([1], label="name")) == [1]  # type: ignore[arg-type]
    assert "label" in caplog.text


def test_labels_that_hang(real_threads: None) -> None:
    """A snapshot does not wait for a label that hangs; plain items of other loops are still shown."""
    release = threading.Event()
    try:
        with progress.operation("a") as one, progress.operation("b") as other:
            for _ in range(labels.THREADS + 2):
                for _ in one.track(["x"], label=lambda _: release.wait()):
                    assert shown(one) is None
            for _ in other.track(["y"], label=str):
                assert shown(other) == "y"
    finally:
        release.set()


def test_late_answer(real_threads: None) -> None:
    """What a slow label says is shown once it is there, if its item is still in hand."""
    release = threading.Event()
    with progress.operation("a") as one:
        for item in one.track(["x", "y"], label=lambda item: release.wait() and f"slow {item}"):
            if item == "x":
                assert shown(one) is None
            release.set()
            assert wait_for(lambda: shown(one), f"slow {item}") == f"slow {item}"


class Thing:
    """An item whose end can be noticed."""


@pytest.mark.parametrize("fails", [False, True])
def test_items_live_no_longer_than_the_loop(fails: bool, real_threads: None) -> None:
    """An item is released when the loop takes the next one, the last one when the loop is over."""
    refs: list[weakref.ref[Thing]] = []

    def things() -> Iterator[Thing]:
        for _ in range(3):
            thing = Thing()
            refs.append(weakref.ref(thing))
            yield thing
            del thing

    def label(_: Thing) -> str:
        if fails:
            raise ValueError
        return "thing"

    with progress.operation("a") as one:
        for thing in one.track(things(), label=label):  # noqa: B007 - the variable holds the item
            wait_for(lambda: shown(one), None if fails else "thing")
            assert [ref() is None for ref in refs[:-1]] == [True] * (len(refs) - 1)
        del thing
        gc.collect()
        assert [ref() for ref in refs] == [None] * 3


def test_lists_that_change() -> None:
    """A list may grow in the loop; once it became shorter, nothing is said about what is in hand."""
    with progress.operation("a") as one:
        items = ["a", "b", "c"]
        seen = []
        for item in one.track(items, label=str):
            seen.append(shown(one))
            if item == "a":
                items.append("d")
            if item == "b":
                items.remove("a")
        assert seen == ["a", "b", None]


def test_nothing_of_python_in_the_loop() -> None:
    """A loop with a label runs no line of Python between two items, as one without."""
    lane = Lane(None, None, None, False)  # type: ignore[arg-type]
    lane.label = str
    assert type(loop(iter("ab"), lane)).__next__ is itertools.compress.__next__
    assert list(loop([1, None, 0, False], Lane(None, None, None, False))) == [1, None, 0, False]  # type: ignore[arg-type]
    assert list(loop(iter([1, None, 0, False]), lane)) == [1, None, 0, False]


def test_cancelled_loops() -> None:
    """A loop with a label can be stopped from outside, an async one, too."""

    async def source() -> AsyncIterator[int]:
        yield 1
        yield 2

    async def main() -> None:
        async for _ in one.track(source(), label=str):
            one.request_cancel("enough")

    with pytest.raises(progress.OperationCancelled), progress.operation("a") as one:
        asyncio.run(main())
    with pytest.raises(progress.OperationCancelled), progress.operation("b") as other:
        for _ in other.track(iter([1, 2]), label=str):
            other.request_cancel("enough")


def test_many_threads(real_threads: None) -> None:
    """Loops of many threads, each in a stage of its own, show their items; none waits for another."""
    start, stop = threading.Barrier(9), threading.Event()

    def work(number: int) -> None:
        with one.stage(f"s{number}") as stage:
            for _ in stage.track([number], label=lambda item: f"item {item}"):
                start.wait(10)
                stop.wait(10)

    with progress.operation("a") as one:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        start.wait(10)
        expected = {f"s{number}": f"item {number}" for number in range(8)}
        found = wait_for(lambda: {stage.name: stage.message for stage in one.snapshot().stages}, expected)
        stop.set()
        for thread in threads:
            thread.join(10)
    assert found == expected


def test_errors_are_counted(real_threads: None) -> None:
    """An error of a label is counted."""
    before = drops.get("internal_error", 0)
    with progress.operation("a") as one:
        for _ in one.track(["x"], label=lambda _: 1 / 0):
            wait_for(lambda: (shown(one), drops.get("internal_error", 0))[1], before + 1)
    assert drops.get("internal_error", 0) == before + 1


def wait_for(call: Callable[[], Any], expected: Any) -> Any:
    """Call until it returns what is expected, for at most ten seconds; returns what it returned last."""
    pause = threading.Event()
    for _ in range(1_000):
        found = call()
        if found == expected:
            return found
        pause.wait(0.01)
    return found


@pytest.fixture
def real_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Labels are called in threads of their own, whatever an earlier test left."""
    monkeypatch.setattr(process, "threads_allowed", True)
    labels.after_fork_in_child()
    yield
    labels.after_fork_in_child()
