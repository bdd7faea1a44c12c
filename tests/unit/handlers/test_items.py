"""Events of single items: only for handlers that ask for them, thinned, and never wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

import otel_progress as progress
from otel_progress import Event, semconv
from otel_progress.handlers.handler import CallableHandler, Handler
from otel_progress.handlers.mailbox import ITEMS, Mailbox
from otel_progress.live.engine import runtime
from otel_progress.model.sentences import sentence
from otel_progress.testing import Capture


class Items(Handler):
    """Keeps what it is told of items."""

    items = True

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.names: list[str] = []

    def handle(self, event: Event) -> None:
        self.names.append(event.name)
        if event.name in semconv.ITEM_EVENTS:
            said = event.attributes
            unseen = (said["progress.items.unseen"],) if "progress.items.unseen" in said else ()
            self.told.append((event.name.rpartition(".")[2], said["progress.item"], *unseen))


def test_slow_items_are_all_told(progress_capture: Capture) -> None:
    """Of a loop whose items last longer than a look, each start and each end is told, in order, before the end."""
    with Items() as heard, progress.operation("a") as one:
        for _ in one.track(["x", "y"], label=str):
            progress_capture.advance(1)
    progress_capture.look()
    assert heard.told == [("started", "x"), ("completed", "x"), ("started", "y"), ("completed", "y")]


def test_an_end_is_told_before_the_end_of_its_operation(progress_capture: Capture) -> None:
    """The last item's end comes before that of its operation."""
    with Items() as heard:
        with progress.operation("a") as one:
            for _ in one.track(["x"], label=str):
                progress_capture.advance(1)
        progress_capture.look()
        assert heard.names.index(semconv.ITEM_COMPLETED) < heard.names.index(semconv.OPERATION_ENDED)


def test_fast_items_are_counted(progress_capture: Capture) -> None:
    """Of a fast loop only the items in hand at a look are told, with the number of those between."""
    with Items() as heard:
        with progress.operation("a") as one:
            for item in one.track(range(1_000), label=str):
                if item in {99, 500}:
                    progress_capture.advance(0.5)
        progress_capture.look()
    assert heard.told == [
        ("started", "99", 99),
        ("completed", "99"),
        ("started", "500", 400),
        ("completed", "500", 499),
    ]


@pytest.mark.parametrize("by", ["break", "exception"])
def test_an_item_that_a_loop_left_is_not_completed(by: str, progress_capture: Capture) -> None:
    """An item is not told as completed if the loop was left with it in hand."""
    with Items() as heard:
        with pytest.raises(ValueError), progress.operation("a") as one:
            for _ in one.track(["x", "y"], label=str):
                progress_capture.advance(1)
                if by == "break":
                    break
                raise ValueError
            raise ValueError
        progress_capture.look()
    assert heard.told == [("started", "x")]


def test_stages_and_async_loops(progress_capture: Capture) -> None:
    """Items of async loops in stages are told with the path of the stage, also when the stage ends at once."""

    async def source() -> AsyncIterator[int]:
        yield 1
        yield 2

    async def main() -> None:
        with progress.operation("a"), progress.stage("load"):
            async for _ in progress.track(source(), label=lambda number: f"page {number}"):
                progress_capture.advance(1)

    events: list[Event] = []

    class Keeps(Items):
        def handle(self, event: Event) -> None:
            super().handle(event)
            events.append(event)

    with Keeps() as heard:
        asyncio.run(main())
        progress_capture.look()
    assert heard.told == [
        ("started", "page 1"),
        ("completed", "page 1"),
        ("started", "page 2"),
        ("completed", "page 2"),
    ]
    told = [event for event in events if event.name in semconv.ITEM_EVENTS]
    assert {event.stage for event in told} == {"load"}
    assert [sentence(event) for event in told[:2]] == ["a: begins page 1", "a: page 1 done"]


def test_others_hear_nothing_of_items(progress_capture: Capture) -> None:
    """Handlers and listeners that did not ask, and telemetry, get no such event; nobody looks if nobody asks."""

    class Plain(Items):
        items = False

    asked: list[int] = []
    listened: list[str] = []
    progress.add_listener(lambda _, event: listened.append(event.name))
    with Plain() as heard, progress.operation("a") as one:
        for _ in one.track([1, 2], label=lambda item: asked.append(item) or "x"):
            progress_capture.advance(1)
    progress_capture.look()
    told = {*heard.names, *listened, *(event.name for event in progress_capture.events)}
    assert told
    assert not told & semconv.ITEM_EVENTS


def test_an_object_may_ask(progress_capture: Capture) -> None:
    """Any object with `handle` asks by its attribute `items`."""
    names: list[str] = []
    target: Any = type("Target", (), {"items": True, "handle": lambda _, event: names.append(event.name)})()
    with CallableHandler(target), progress.operation("a") as one:
        for _ in one.track(["x"], label=str):
            progress_capture.advance(1)
    assert semconv.ITEM_STARTED in names


def test_ends_elsewhere_do_not_make_it_more(progress_capture: Capture) -> None:
    """Stages and operations that end make no further looks: a fast loop beside them is told as often as ever."""
    with Items() as heard, progress.operation("a") as one:
        for _ in one.track(range(200), label=str):
            with progress.operation("b"):
                one.stage("s").start().complete()
            runtime.ticker.round()
            progress_capture.advance(0.01)
    assert len(heard.told) <= 2 * (200 * 0.01 * 5 + 1)


def test_items_crowd_out_nothing(progress_capture: Capture) -> None:
    """However many items wait for a slow handler, changes of state still find room."""
    with Items(), progress.operation("a") as one:
        snapshot = one.snapshot()
    box = Mailbox()
    put = [box.put(Event(semconv.ITEM_STARTED, 1, snapshot)) for _ in range(ITEMS + 5)]
    assert put == [True] * ITEMS + [False] * 5
    assert box.put(Event(semconv.STAGE_ENDED, 1, snapshot))
    while box.take() is not None:
        pass
    assert box.put(Event(semconv.ITEM_STARTED, 1, snapshot))


def test_many_loops_share_what_may_be_told(progress_capture: Capture) -> None:
    """However many loops run, one look tells at most 50 events; further ones are told later."""
    with Items() as heard:
        operations = [progress.operation(f"o{number}").start() for number in range(80)]
        loops = [iter(one.track(["x", "y"], label=str)) for one in operations]
        for loop in loops:
            next(loop)
        progress_capture.advance(0.25)
        assert len(heard.told) <= 51
        progress_capture.advance(0.5)
        assert len(heard.told) == 80
        for one in operations:
            one.complete()
        progress_capture.look()
