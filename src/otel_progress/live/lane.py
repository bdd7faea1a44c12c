"""The lane of a `track` loop: counts its items without running a line of Python in the loop.

`track` gives the loop an iterator whose `__next__` is inherited from `itertools` and written in C. The ticker reads the
count from outside: the length hint of the inner iterator says how many items are left. The end is noticed because
`chain` asks the lane, its second iterable, for more items; a loop left early drops its iterator, whose `__del__`
notices that. Both hooks only set fields of the lane: a `__del__` may run at any line, even with a lock of ours held.

A loop is stopped from outside by changing the class of its iterator to one whose `__next__` raises: the interpreter
looks up `__next__` for each item, so this costs nothing while no loop is stopped.

The item in hand is read from outside, too: in a list, tuple or range by its position, else from a deque of one that
`filterfalse` fills in C. Only loops with a label have that deque; it is emptied when the loop is over.
"""

from __future__ import annotations

import itertools
import operator
import sys
import weakref
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from otel_progress.errors import OperationCancelled

if TYPE_CHECKING:
    from otel_progress.live.diagnosis.places import Place

T = TypeVar("T")
_MANY: Final = sys.maxsize
_NOTHING: Final = iter(())
_POSITIONED: Final = frozenset({list, tuple, range})
"""Types whose iterators know their position even if the loop changes them."""


class Request:
    """A request to stop the loops of an operation.

    Attributes:
        text: the text of its error.
        tasks: whether loops of asyncio tasks raise it, too; not if the tasks are cancelled.
        told: whether any loop or check has raised it.
    """

    __slots__ = ("tasks", "text", "told")

    def __init__(self, text: str, *, tasks: bool = True) -> None:
        """A request that nobody has raised."""
        self.text = text
        self.tasks = tasks
        self.told = False

    def error(self) -> OperationCancelled:
        """The error to raise; loops that the caller opens later, to clean up, are not stopped."""
        self.told = True
        _told.set(self)
        return OperationCancelled(self.text)

    def is_told(self) -> bool:
        """Whether the caller knows: it was raised in this context, or an `OperationCancelled` is being handled."""
        return _told.get() is self or isinstance(sys.exc_info()[1], OperationCancelled)


_told: Final[ContextVar[Request | None]] = ContextVar("otel_progress_told", default=None)
"""The request that was raised last in this context: the other jobs of a pool are still to be stopped."""


class Lane:
    """One loop over one iterable: how many items it took, and whether it is over.

    Attributes:
        total: the length, or None.
        unit: what it counts; None for the unit of its handle.
        place: the thread and task that run it.
        nested: whether it runs inside another lane of the same thread and task.
        named: whether the caller gave the total.
        desc: what the loop does, in words.
        over: the message of the handle when `desc` replaced it.
        calls: items taken, if the iterator can't be read from outside; of a closed lane, all of them.
        seen: items completed at the last sample.
        moved_at: when an item was last taken (s, monotonic).
        before: the value of `moved_at` before that.
        ended: whether the items are exhausted.
        closed: whether the loop is over.
        request: what the loop raises at its next item.
        label: says what an item is called; None once the loop is over.
        holder: the item in hand, of a loop with a label whose iterable has no positions.
        asked: the number of the item that was asked for its name last; 0 for none.
        called: what that item is called, or None if it said nothing.
        pending: the question that has no answer yet (`engine/labels.py`).
        longest: the greatest length of a list with a label.
        told: the number and name of the item that was reported as started (`engine/items.py`).
        last: the number of the last item that was reported.
        observed: whether its loop is not one of `track`, but one that an integration counts.
    """

    __slots__ = (
        *("_length", "_loop", "source", "before", "calls", "closed", "desc", "ended", "moved_at", "named", "nested"),
        *("over", "place", "request", "seen", "unit", "label", "holder", "asked", "called", "pending", "longest"),
        *("last", "observed", "told"),
    )

    def __init__(self, total: int | None, unit: str | None, place: Place, nested: bool, now: float = 0.0) -> None:
        """Open a lane at a place, at a monotonic time."""
        self.moved_at = self.before = now
        self.seen = 0
        self._length = total
        self.unit = unit
        self.place = place
        self.nested = nested
        self.ended = False
        self.closed = False
        self.calls = 0
        self.named = False
        self.desc: str | None = None
        self.over: str | None = None
        self.source: Any = None
        self._loop: weakref.ref[Any] | None = None
        self.request: Request | None = None
        self.label: Callable[[Any], object] | None = None
        self.holder: deque[Any] | None = None
        self.asked = self.longest = self.last = 0
        self.told: tuple[int, str] | None = None
        self.called: str | None = None
        self.observed = False
        self.pending: Any = None

    def begun(self, loop: Any) -> None:
        """Remember the iterator of the loop."""
        self._loop = weakref.ref(loop)
        if self.request is not None:
            self.stop(self.request)

    def stop(self, request: Request) -> None:
        """Make the loop raise at its next item, which stays in its source; callable from any thread."""
        self.request = request
        loop = None if self._loop is None else self._loop()
        if loop is not None and not self.closed:
            loop.__class__ = _STOPPED.get(type(loop), type(loop))

    def __iter__(self) -> Iterator[Any]:
        """Note the end: `chain` asks for more after the last item."""
        self.finish()
        return _NOTHING

    def finish(self) -> None:
        """Note that all items were taken."""
        if not self.closed:
            self.ended = True
            self.close()

    def close(self) -> None:
        """Stop counting: keep the count, and release the source."""
        if not self.closed:
            self.calls, self._length = self._handed(), self.total
            self.source = self.label = self.called = self.pending = None
            self.closed = True
            if self.holder is not None:
                self.holder.clear()

    @property
    def total(self) -> int | None:
        """The number of items, or None if unknown; an unknown one becomes the count when the lane closes."""
        source = self.source
        if type(source) is tuple and not self.named:
            return len(source[0])  # a list may grow while the loop runs
        if self._length is None and self.closed:
            return self.completed
        return self._length

    def shorten(self, items: int) -> None:
        """Take items off its length, as it leaves them out."""
        if self._length is not None:
            self._length = max(0, self._length - items)

    def cut(self, done: int) -> None:
        """Take a closed loop as one of so many items: another one takes the rest."""
        self.calls = self._length = done
        self.ended = self.named = True

    @property
    def completed(self) -> int:
        """The items taken, less the one in progress."""
        handed = self._handed()
        return handed if self.ended or not handed else handed - 1

    @property
    def words(self) -> str | None:
        """What the loop does now: its description, the item in hand, or both."""
        called = self.called
        if called is None or self.desc is None:
            return self.desc if called is None else called
        return f"{self.desc}: {called}"

    def held(self) -> tuple[int, Any]:
        """The number of the item in hand, from 1, and the item.

        Raises:
            LookupError: if there is none, or it can't be known, as a list became shorter.
        """
        source, holder = self.source, self.holder
        if holder is not None:
            item = holder[0]
            return self._handed(), item
        if type(source) is not tuple or self.closed:
            raise LookupError
        items, rest = source
        size = len(items)
        number = size - operator.length_hint(rest)
        if number < 1 or size < self.longest:
            self.longest = sys.maxsize if size < self.longest else size
            raise LookupError
        self.longest = size
        return number, items[number - 1]

    def held_back(self, iterable: Iterable[T]) -> Iterable[T]:
        """The iterable; of a loop with a label, one that puts each item into the holder as well."""
        if self.label is None:
            return iterable
        self.holder = deque(maxlen=1)
        return itertools.filterfalse(self.holder.append, iterable)  # append returns None, so nothing is left out

    def _handed(self) -> int:
        source = self.source
        if source is None:
            return self.calls
        if type(source) is tuple:
            items, rest = source
            return len(items) if self.ended else len(items) - operator.length_hint(rest)
        return _MANY - operator.length_hint(source)


if TYPE_CHECKING:
    _Compress = itertools.compress[T]
else:
    _Compress = itertools.compress


# Slots are declared in a base class: only then can the class of an iterator be changed.
class _PositionedBase(itertools.chain[T]):
    __slots__ = ("__weakref__", "lane")
    lane: Lane

    def __del__(self) -> None:
        self.lane.close()


class _Positioned(_PositionedBase[T]):
    """A loop over a list, tuple or range."""

    __slots__ = ()


class _CountedBase(_Compress):  # type: ignore[type-arg]
    __slots__ = ("__weakref__", "lane")
    lane: Lane

    def __del__(self) -> None:
        self.lane.close()


class _Counted(_CountedBase):
    """A loop over anything else."""

    __slots__ = ()


class _PlainBase(Iterator[T]):
    __slots__ = ("__weakref__", "_next", "lane")

    def __init__(self, iterable: Iterable[T], lane: Lane) -> None:
        self.lane = lane
        self._next = iter(iterable).__next__

    def __del__(self) -> None:
        self.lane.close()


class _Plain(_PlainBase[T]):
    """A loop for interpreters whose `itertools` can't be read from outside."""

    __slots__ = ()

    def __next__(self) -> T:
        try:
            item = self._next()
        except StopIteration:
            self.lane.finish()
            raise
        if not self.lane.closed:
            self.lane.calls += 1
        return item


def loop(iterable: Iterable[T], lane: Lane) -> Iterator[T]:
    """An iterator over the iterable, readable by the lane."""
    if sys.implementation.name != "cpython":
        plain = _Plain(lane.held_back(iterable), lane)
        lane.begun(plain)
        return plain
    if type(iterable) in _POSITIONED:
        rest = iter(iterable)
        lane.source = (iterable, rest)
        positioned = _Positioned(rest, lane)
        positioned.lane = lane
        lane.begun(positioned)
        return positioned
    lane.source = selectors = itertools.repeat(True, _MANY)
    counted = _Counted(itertools.chain(lane.held_back(iterable), lane), selectors)
    counted.lane = lane
    lane.begun(counted)
    return counted


class _AsyncBase(AsyncIterator[T]):
    __slots__ = ("__weakref__", "_next", "lane")

    def __init__(self, iterable: AsyncIterable[T], lane: Lane) -> None:
        self.lane = lane
        self._next = iterable.__aiter__().__anext__

    def __del__(self) -> None:
        self.lane.close()


class _AsyncLoop(_AsyncBase[T]):
    """A loop over an async iterable: counts the calls of `__anext__`, and forwards them.

    The call that finds the end is one more than the items, so the item in progress is always the last call.
    """

    __slots__ = ()

    def __anext__(self) -> Any:
        lane = self.lane
        if not lane.closed:
            lane.calls += 1
        return self._next()


class _AsyncHeld(_AsyncBase[T]):
    """The same for a loop with a label."""

    __slots__ = ()

    async def __anext__(self) -> T:
        lane = self.lane
        if not lane.closed:
            lane.calls += 1
        holder = lane.holder
        if holder is None or lane.closed:
            return await self._next()
        holder.clear()
        item: T = await self._next()
        if not lane.closed:
            holder.append(item)
        return item


def async_loop(iterable: AsyncIterable[T], lane: Lane) -> AsyncIterator[T]:
    """An async iterator over the iterable, readable by the lane."""
    counted: _AsyncBase[T]
    if lane.label is None:
        counted = _AsyncLoop(iterable, lane)
    else:
        lane.holder = deque(maxlen=1)
        counted = _AsyncHeld(iterable, lane)
    lane.begun(counted)
    return counted


# -- stopped loops


def _raise(self: Any) -> NoReturn:
    request: Request = self.lane.request
    raise request.error()


class _StoppedPositioned(_PositionedBase[T]):
    __slots__ = ()
    __next__ = _raise


class _StoppedCounted(_CountedBase):
    __slots__ = ()
    __next__ = _raise


class _StoppedPlain(_PlainBase[T]):
    __slots__ = ()
    __next__ = _raise


class _StoppedAsync(_AsyncBase[T]):
    __slots__ = ()
    __anext__ = _raise


_STOPPED: Final[dict[type, type]] = {
    _Positioned: _StoppedPositioned,
    _Counted: _StoppedCounted,
    _Plain: _StoppedPlain,
    _AsyncLoop: _StoppedAsync,
    _AsyncHeld: _StoppedAsync,
}
