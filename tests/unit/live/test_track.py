"""What `track` promises: every item of every kind of source, and a count that is right at each moment."""

from __future__ import annotations

import asyncio
import gc
import io
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any

import pytest

import otel_progress as progress
from otel_progress import Operation, Stage
from otel_progress.live.lane import Lane, _Plain
from otel_progress.live.track import LANES
from otel_progress.testing import Capture


class Hinted:
    """An iterator that knows how many items are left."""

    def __init__(self, items: Iterable[Any]) -> None:
        self.items = deque(items)

    def __iter__(self) -> Hinted:
        return self

    def __next__(self) -> Any:
        if not self.items:
            raise StopIteration
        return self.items.popleft()

    def __length_hint__(self) -> int:
        return len(self.items)


class Indexed:
    """A sequence of the old kind: `__getitem__` and `__len__` alone."""

    def __init__(self, items: Iterable[Any]) -> None:
        self.items = list(items)

    def __getitem__(self, position: int) -> Any:
        return self.items[position]

    def __len__(self) -> int:
        return len(self.items)


class Broken(Hinted):
    """Its length can't be asked for."""

    def __len__(self) -> int:
        raise ValueError("no length today")


class Nonsense(Hinted):
    """Its length is not a length."""

    __len__: Any = lambda self: "three"


class Array:
    """As numpy has it: `__len__`, an iterator of its own, and no truth value."""

    def __init__(self, items: Iterable[Any]) -> None:
        self.items = list(items)

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Any]:
        return (item for item in self.items)

    def __bool__(self) -> bool:
        raise ValueError("the truth value is ambiguous")

    def __eq__(self, other: object) -> Any:
        raise ValueError("so is equality")

    __hash__ = None  # type: ignore[assignment]


class SubList(list[Any]):
    """A list that iterates in its own way."""

    def __iter__(self) -> Iterator[Any]:
        return reversed(list(super().__iter__()))


def generator(items: Iterable[Any]) -> Iterator[Any]:
    yield from items


SOURCES: dict[str, tuple[Callable[[], Any], int | None]] = {
    "list": (lambda: ["a", "b", "c"], 3),
    "tuple": (lambda: ("a", "b", "c"), 3),
    "range": (lambda: range(3), 3),
    "str": (lambda: "abc", 3),
    "bytes": (lambda: b"abc", 3),
    "bytearray": (lambda: bytearray(b"abc"), 3),
    "dict": (lambda: {"a": 1, "b": 2, "c": 3}, 3),
    "dict items": (lambda: {"a": 1, "b": 2, "c": 3}.items(), 3),
    "set": (lambda: {"a", "b", "c"}, 3),
    "frozenset": (lambda: frozenset("abc"), 3),
    "deque": (lambda: deque("abc"), 3),
    "generator": (lambda: generator("abc"), None),
    "map": (lambda: map(str, range(3)), None),
    "zip": (lambda: zip("abc", "def"), None),
    "enumerate": (lambda: enumerate("abc"), None),
    "file": (lambda: io.StringIO("a\nb\nc\n"), None),
    "list iterator": (lambda: iter(["a", "b", "c"]), 3),
    "reversed": (lambda: reversed(["a", "b", "c"]), 3),
    "length hint": (lambda: Hinted("abc"), 3),
    "getitem": (lambda: Indexed("abc"), 3),
    "broken len": (lambda: Broken("abc"), None),
    "nonsense len": (lambda: Nonsense("abc"), None),
    "array": (lambda: Array("abc"), 3),
    "list of another order": (lambda: SubList("abc"), 3),
    "iter of a callable": (lambda: iter(Hinted(["a", "b", "c", None]).__next__, None), None),
    "memoryview": (lambda: memoryview(b"abc"), 3),
}


@pytest.fixture
def step(progress_capture: Capture) -> Iterator[Stage]:
    """A running stage."""
    with progress.operation("work"), progress.stage("step") as stage:
        yield stage


def counts(node: Operation | Stage) -> tuple[Any, Any]:
    """Completed and total of the operation's first stage, or of the operation."""
    snapshot = node.operation.snapshot()
    found = snapshot.stages[0].progress if isinstance(node, Stage) else snapshot.progress
    return found.completed, found.total


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_gives_its_items_and_right_counts(name: str, step: Stage) -> None:
    """Any iterable gives the same items as without track, and the count is right before, at and after each."""
    make, total = SOURCES[name]
    expected = [item for item in make()]  # noqa: C416, RUF100 - list() would ask for the length
    tracked = progress.track(make())
    assert counts(step) == (None, None)
    got = []
    for position, item in enumerate(tracked):
        got.append(item)
        assert counts(step) == (position, total)
    assert got == expected
    assert counts(step) == (len(expected), len(expected))


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_can_be_left_early(name: str, step: Stage) -> None:
    """After a break the item in hand is not counted, and the loop is over: the next one is not nested."""
    make, total = SOURCES[name]
    for position, _ in enumerate(progress.track(make())):
        if position == 1:
            break
    assert counts(step)[0] == 1
    list(progress.track("xy"))
    assert counts(step) == (3, (1 if total is None else total) + 2)


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_can_be_empty(name: str, step: Stage) -> None:
    """What has no items makes an empty loop that counts nothing."""
    make, _ = SOURCES[name]
    spent = iter(make())
    for _ in spent:
        pass
    assert [item for item in progress.track(spent)] == []  # noqa: C416
    assert counts(step) == (0, 0)


@pytest.mark.parametrize("kind", [list, iter])
def test_return_from_the_loop(kind: Callable[[Any], Any], step: Stage) -> None:
    """Leaving the function leaves the loop."""

    def find() -> int:
        for item in progress.track(kind([1, 2, 3])):
            if item == 2:
                return item
        return 0

    assert find() == 2
    assert counts(step)[0] == 1
    list(progress.track("xy"))
    assert counts(step)[0] == 3


@pytest.mark.parametrize("kind", [list, iter])
def test_exception_in_the_loop_passes(kind: Callable[[Any], Any], step: Stage) -> None:
    """The loop's own exception passes unchanged; the item in hand is not counted."""
    error = KeyError("mine")
    with pytest.raises(KeyError) as caught:
        for item in progress.track(kind([1, 2, 3])):
            if item == 3:
                raise error
    assert caught.value is error
    assert counts(step)[0] == 2


def test_exception_in_the_source_passes(step: Stage) -> None:
    """The source's own exception passes unchanged, with the source in its traceback."""

    def failing() -> Iterator[int]:
        yield 1
        yield 2
        raise KeyError("source")

    got = []
    with pytest.raises(KeyError, match="source") as caught:
        for item in progress.track(failing()):
            got.append(item)
    assert got == [1, 2]
    assert caught.traceback[-1].name == "failing"
    assert counts(step)[0] == 1


def test_exception_in_iter_passes(step: Stage) -> None:
    """A source that can't be iterated after all says so with its own exception."""

    class Refuses:
        def __iter__(self) -> Iterator[int]:
            raise OSError("not today")

    with pytest.raises(OSError, match="not today"):
        list(progress.track(Refuses()))


def test_what_is_no_iterable_is_told_at_once(step: Stage) -> None:
    """track(5) raises the same TypeError as `for x in 5`."""
    with pytest.raises(TypeError, match="'int' object is not iterable"):
        progress.track(5)  # type: ignore[call-overload]


def test_growing_list_counts_what_it_became(step: Stage) -> None:
    """A list that grows while it is looped over: the total grows along."""
    items = [0, 1]
    seen = []
    for item in progress.track(items):
        if item < 4:
            items.append(item + 2)
        seen.append(counts(step))
    assert items == [0, 1, 2, 3, 4, 5]
    assert seen == [(0, 3), (1, 4), (2, 5), (3, 6), (4, 6), (5, 6)]
    items.append(9)
    assert counts(step) == (6, 6)


def test_dict_changed_during_the_loop(step: Stage) -> None:
    """A dict that changes during the loop raises what it would without track."""
    items = {"a": 1}
    with pytest.raises(RuntimeError, match="changed size"):
        for _ in progress.track(items):
            items["b"] = 2


def test_nested_loops_of_every_kind(step: Stage) -> None:
    """Nested loops give all pairs; only the outer one counts."""
    pairs = [(a, b) for a in progress.track(range(3)) for b in progress.track(generator("xy"))]
    assert pairs == [(a, b) for a in range(3) for b in "xy"]
    assert counts(step) == (3, 3)


def test_restarted_loop_counts_again(step: Stage) -> None:
    """A second loop over the same track is a loop of its own."""
    tracked = progress.track([1, 2, 3])
    for _ in tracked:
        break
    assert list(tracked) == [1, 2, 3]
    assert counts(step) == (3, 6)


def test_next_by_hand(step: Stage) -> None:
    """`next` takes items one by one, and a `for` goes on where it stopped; after the end it can begin again."""
    tracked = progress.track(iter(["head", 1, 2]))
    assert next(tracked) == "head"
    assert counts(step) == (0, 3)
    assert list(tracked) == [1, 2]
    assert counts(step) == (3, 3)
    again = progress.track([7])
    assert next(again) == 7
    assert next(again, None) is None
    assert list(again) == [7]


def test_len_is_that_of_the_source(step: Stage) -> None:
    """A track has the length of what it tracks, if that has one."""
    assert len(progress.track("abc")) == 3
    with pytest.raises(TypeError):
        len(progress.track(iter("abc")))


def test_source_is_let_go(step: Stage) -> None:
    """After its loop a source is no longer held by the stage."""

    class Big(list[int]):
        pass

    for kind in (Big, lambda items: generator(Big(items))):
        list(progress.track(kind([1, 2])))
    gc.collect()
    assert [item for item in gc.get_objects() if isinstance(item, Big)] == []


def test_many_loops_stay_few(step: Stage) -> None:
    """Thousands of loops one after another keep their sums, and only few lanes."""
    for _ in range(1000):
        list(progress.track("ab"))
        list(progress.track([1], unit="token"))
    assert counts(step) == (2000, 2000)
    assert step.operation.snapshot().stages[0].counters == {"token": 1000}
    assert len(step._lanes or ()) <= LANES


def test_threads_share_no_lane(step: Stage) -> None:
    """The first loops of many threads at once all count."""
    together = threading.Barrier(8)

    def work() -> int:
        together.wait()
        return sum(1 for _ in step.track(range(100)))

    with ThreadPoolExecutor(8) as pool:
        assert [task.result() for task in [pool.submit(work) for _ in range(8)]] == [100] * 8
    assert counts(step) == (800, 800)


def test_a_loop_handed_to_another_thread_goes_on(step: Stage) -> None:
    """A loop that was begun here can be finished in a thread."""
    items = iter(progress.track([1, 2, 3]))
    next(items)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(list, items).result() == [2, 3]
    assert counts(step) == (3, 3)


# -- async


class Ticks:
    """An async iterator, and nothing more."""

    def __init__(self, count: int) -> None:
        self.left = count

    def __aiter__(self) -> Ticks:
        return self

    async def __anext__(self) -> int:
        if not self.left:
            raise StopAsyncIteration
        self.left -= 1
        await asyncio.sleep(0)
        return self.left


class SizedTicks(Ticks):
    """One that knows its length."""

    def __len__(self) -> int:
        return self.left


async def agenerator(count: int) -> AsyncIterator[int]:
    for number in reversed(range(count)):
        await asyncio.sleep(0)
        yield number


@pytest.mark.parametrize(("kind", "total"), [(Ticks, None), (SizedTicks, 3), (agenerator, None)])
def test_async_sources(kind: Callable[[int], Any], total: int | None, step: Stage) -> None:
    """Any async iterable gives the same items, and the count is right at each."""

    async def main() -> None:
        got = []
        async for item in progress.track(kind(3)):
            assert counts(step) == (len(got), total)
            got.append(item)
        assert got == [2, 1, 0]
        assert counts(step) == (3, 3)

    asyncio.run(main())


def test_async_loop_left_early(step: Stage) -> None:
    """After a break the item in hand is not counted, and the next loop is not nested."""

    async def main() -> None:
        async with aclosing(agenerator(5)) as numbers:
            async for item in progress.track(numbers):
                if item == 2:
                    break
        assert counts(step)[0] == 2
        async for _ in progress.track(Ticks(2)):
            pass
        assert counts(step)[0] == 4

    asyncio.run(main())


def test_async_exceptions_pass(step: Stage) -> None:
    """The exception of an async source passes unchanged, and so does that of the loop."""
    error = KeyError("mine")

    async def failing() -> AsyncIterator[int]:
        yield 1
        raise error

    async def main() -> None:
        with pytest.raises(KeyError) as caught:
            async for _ in progress.track(failing()):
                pass
        assert caught.value is error

    asyncio.run(main())
    assert counts(step)[0] == 1


def test_async_next_by_hand(step: Stage) -> None:
    """`__anext__` takes items one by one, and an `async for` goes on where it stopped."""

    async def main() -> None:
        tracked = progress.track(agenerator(3))
        assert await tracked.__anext__() == 2
        assert [item async for item in tracked] == [1, 0]
        assert counts(step)[0] == 3
        with pytest.raises(StopAsyncIteration):
            await tracked.__anext__()

    asyncio.run(main())


def test_a_cancelled_async_loop(step: Stage) -> None:
    """A loop that is cancelled while it waits has done all it was given."""

    async def endless() -> AsyncIterator[int]:
        yield 1
        yield 2
        await asyncio.Event().wait()

    async def loop(reached: asyncio.Event) -> None:
        async for item in progress.track(endless()):
            if item == 2:
                reached.set()

    async def main() -> None:
        reached = asyncio.Event()
        task = asyncio.ensure_future(loop(reached))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert counts(step)[0] == 2


def test_what_is_both_sync_and_async(step: Stage) -> None:
    """Something that `for` and `async for` both take can be tracked both ways."""

    class Both(Ticks):
        def __iter__(self) -> Iterator[int]:
            return iter([1, 2])

    async def main() -> list[int]:
        return [item async for item in progress.track(Both(2))]  # type: ignore[attr-defined]

    assert list(progress.track(Both(2))) == [1, 2]
    assert asyncio.run(main()) == [1, 0]


# -- where itertools can't be read from outside


def test_the_plain_loop_counts_the_same() -> None:
    """The loop of other interpreters counts as the one of CPython: at each item, at the end, after a break."""
    lane = Lane(3, None, None, nested=False)
    items = _Plain("abc", lane)
    for position, _ in enumerate(items):
        assert (lane.completed, lane.closed) == (position, False)
    assert (lane.completed, lane.closed, lane.ended) == (3, True, True)
    with pytest.raises(StopIteration):
        next(items)
    assert lane.completed == 3

    left = Lane(None, None, None, nested=False)
    items = _Plain(generator("abc"), left)
    assert [next(items), next(items)] == ["a", "b"]
    del items
    gc.collect()
    assert (left.completed, left.total, left.closed) == (1, 1, True)


def test_the_plain_loop_stops_counting_when_closed() -> None:
    """A closed lane keeps its count, whatever the loop still takes."""
    lane = Lane(None, None, None, nested=False)
    items = _Plain("abcd", lane)
    next(items)
    next(items)
    lane.close()
    assert list(items) == ["c", "d"]
    assert (lane.completed, lane.ended) == (1, False)


# -- units, totals, words, counters


def test_the_first_loop_names_the_unit(progress_capture: Capture) -> None:
    """Where none was named, the unit of the first loop becomes that of the operation or stage: a bar."""
    with progress.operation("convert") as op:
        for number, _ in enumerate(progress.track(["a", "b"], unit="file")):
            found = op.snapshot()
            assert (found.progress.completed, found.progress.total, found.progress.unit) == (number, 2, "file")
            assert (found.progress.ratio, found.counters) == (number / 2, {})
        list(progress.track("abc", unit="token"))
        assert op.snapshot().counters == {"token": 3}
        assert op.snapshot().progress.completed == 2
        with progress.stage("read") as stage:
            list(progress.track("abc", unit="page"))
            assert counts(stage) == (3, 3)
            assert op.snapshot().stages[0].progress.unit == "page"


def test_a_loop_renames_nothing_that_was_named_or_counted(progress_capture: Capture) -> None:
    """A unit that was named, or in which was counted, stays; the loop is a counter beside it."""
    with progress.operation("work", unit="row") as op:
        list(progress.track("abc", unit="file"))
        assert (op.snapshot().progress.unit, op.snapshot().counters) == ("row", {"file": 3})
    with progress.operation("work") as op:
        op.advance()
        list(progress.track("abc", unit="file"))
        found = op.snapshot()
        assert (found.progress.completed, found.progress.unit, found.counters) == (1, "item", {"file": 3})


@pytest.mark.parametrize("make", [lambda: generator("abcde"), lambda: iter("abcde"), lambda: list("abcde")])
def test_a_total_that_is_given(make: Callable[[], Any], step: Stage) -> None:
    """A total makes a bar of a generator, and rules over the length of a list."""
    tracked = progress.track(make(), total=10)
    for number, _ in enumerate(tracked):
        assert counts(step) == (number, 10)
    assert counts(step) == (5, 10)


def test_len_of_a_generator_with_a_total(step: Stage) -> None:
    """The total that was given is the length of what has none."""
    assert len(progress.track(generator("abc"), total=3)) == 3


def test_desc_is_the_current_step(step: Stage) -> None:
    """What a loop does is the current step while it runs; a message said later is newer."""
    step.update(message="before")
    for letter in progress.track("ab", desc="letters"):
        if letter == "a":
            assert step.operation.snapshot().message == "letters"
            assert step.operation.snapshot().stages[0].message == "letters"
        step.update(message=letter)
        assert step.operation.snapshot().message == letter
    assert step.operation.snapshot().message == "b"
    for _ in progress.track("a", desc=5):
        assert step.operation.snapshot().message == "5"
    assert step.operation.snapshot().message == "b"


def test_async_loops_take_the_same(step: Stage) -> None:
    """`async for` has a total and a description too."""

    async def letters() -> AsyncIterator[str]:
        for letter in "ab":
            yield letter

    async def main() -> None:
        async for letter in progress.track(letters(), total=2, desc="letters"):
            assert counts(step) == ("ab".index(letter), 2)
            assert step.operation.snapshot().message == "letters"

    asyncio.run(main())


def test_advance_in_another_unit_is_a_counter(step: Stage) -> None:
    """Another unit counts beside the progress; the own unit is the progress."""
    list(progress.track("ab"))
    progress.advance(500, unit="token")
    progress.advance(unit="token")
    assert counts(step) == (2, 2)
    assert step.operation.snapshot().stages[0].counters == {"token": 501}
    with progress.stage("pages", unit="page") as pages:
        pages.advance(3, unit="page")
        found = step.operation.snapshot().stages[-1]
        assert (found.progress.completed, found.counters) == (3, {})


def test_loops_and_advance_share_a_counter(step: Stage) -> None:
    """A loop and `advance` in the same other unit add up."""
    step.advance()
    list(progress.track("abc", unit="token"))
    step.advance(4, unit="token")
    assert step.operation.snapshot().stages[0].counters == {"token": 7}


# -- records, and counts that come again


def test_records_are_the_count_where_nothing_else_counts(progress_capture: Capture) -> None:
    """Each outcome is an item done; with a loop, `advance` or `update(completed=)`, that rules."""
    with progress.operation("work", total=4) as op:
        for outcome in ("ok", "failed", "skipped"):
            progress.record(outcome)
        assert (op.snapshot().progress.completed, op.snapshot().progress.ratio) == (3, 0.75)
        op.advance()
        assert op.snapshot().progress.completed == 1
    with progress.operation("work") as op:
        for _ in progress.track("abc"):
            progress.record("ok")
        assert op.snapshot().progress.completed == 3


def test_only_what_is_above_the_highest_is_progress(progress_capture: Capture) -> None:
    """The same `update` again, or a count that goes back and forth, resets no idle time."""
    with progress.operation("work") as op:
        op.update(completed=4, ratio=0.4)
        progress_capture.look()
        for completed, ratio in ((4, 0.4), (3, 0.3), (4, 0.4), (3, 0.4), (4, 0.4)):
            progress_capture.advance(1)
            op.update(completed=completed, ratio=ratio)
            progress_capture.look()
            assert op.snapshot().progress.completed == completed
        assert op.snapshot().idle == 5
        op.update(completed=5)
        progress_capture.look()
        assert op.snapshot().idle == 0


def test_a_count_below_the_highest_is_handed_to_the_loops(progress_capture: Capture) -> None:
    """A count that was there before comes again: what repeats may be a loop."""
    seen: list[Any] = []

    class Watched(Operation):
        def _step(self, key: str) -> None:
            seen.append(key)

    with Watched("work") as op:
        for completed in (3, 4, 3, 4, 3, 3):
            op.update(completed=completed)
    assert seen == ["completed 3"] * 3
