"""`track`: the iterables it returns, and the lane that each loop over one opens in its handle."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from otel_progress import clock
from otel_progress.errors import InvalidArgument, InvalidState
from otel_progress.live import hooks, lane, misuse, redaction
from otel_progress.live.counting import counted, has_counted
from otel_progress.live.diagnosis.places import here
from otel_progress.live.diagnosis.reading import is_task
from otel_progress.live.guard import NOTHING_LEFT, drops, swallow
from otel_progress.live.lane import Lane
from otel_progress.live.misuse import accepted
from otel_progress.live.records import LoopOptions
from otel_progress.live.registry import registry
from otel_progress.model import values
from otel_progress.model.origin import of_the_job

if TYPE_CHECKING:
    from types import CodeType

    from otel_progress.live.diagnosis.places import Place
    from otel_progress.live.lane import Request
    from otel_progress.live.state import HandleState
    from otel_progress.model.values import Number

T = TypeVar("T")
POOLS: Final = frozenset(
    {"concurrent", "multiprocessing", "multiprocess", "joblib", "loky", "billiard", "asyncio", "ray"}
)
"""Packages that take all items of an iterable before the first is done."""
LANES: Final = 16
"""Lanes that a handle keeps one by one; beyond this number, closed ones are summed up by unit."""


class _Tracked:
    """An iterable that `track` returns: each loop over it opens a lane of its own."""

    __slots__ = (
        *("_begun_by", "_desc", "_initial", "_iterable", "_iterator", "_label", "_node", "_resumed"),
        "_total",
        "_unit",
    )

    def __init__(
        self,
        iterable: Any,
        node: HandleState | None,
        unit: str | None,
        total: Number | None,
        desc: object,
        initial: Number = 0,
        resumed: LoopOptions | None = None,
        label: Callable[[Any], object] | None = None,
    ) -> None:
        """An iterable for loops of a handle; without a handle nothing is counted."""
        self._iterable = iterable
        self._node = node
        self._unit = unit
        self._total = total
        self._desc = desc
        self._initial = initial
        self._iterator: Any = None
        self._resumed = resumed
        self._begun_by: tuple[int, int] | None = None
        self._label = label

    def _lane(self) -> Lane | None:
        """A lane for a new loop, or None if no running handle takes it."""
        node = self._node
        try:
            if node is not None and not node._status.final:
                initial, self._initial = self._initial, 0  # a second loop repeats the work
                return open_lane(node, self._iterable, self._unit, self._total, self._desc, int(initial), self._label)
        except BaseException as error:
            try:
                swallow(error, "track")
            except NOTHING_LEFT:
                pass
        return None

    def _check_late(self) -> None:
        """Refuse a loop that begins after the end of an operation that was asked to stop.

        Raises:
            OperationCancelled: if nobody told this thread or task so far.
        """
        request = None if self._node is None else self._node.operation._request
        if request is not None and _stops(request, here()):
            raise request.error()

    def _items(self, opened: Lane | None) -> Any:
        """What to loop over: all items, or in a resumable operation those that are not done."""
        node = self._node
        if self._resumed is None or node is None or node.operation._session is None:
            return self._iterable
        self._refuse_pools()
        try:
            return node.operation._session.loop(node, self._iterable, self._resumed, opened)
        except BaseException:
            if opened is not None:  # a loop that is refused has no items
                opened.close()
                opened.cut(0)
            raise

    def _refuse_pools(self) -> None:
        """Refuse a pool as the caller of `iter` or `len`, if items were marked when it takes them.

        Raises:
            InvalidState: if a pool is the caller.
        """
        node, resumed = self._node, self._resumed
        if resumed is None or not resumed.mark or node is None or node.operation._session is None:
            return
        frame = sys._getframe(2)
        if frame.f_globals.get("__name__") == __name__ and frame.f_back is not None:
            frame = frame.f_back
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if package in POOLS:
            raise InvalidState(
                f"{package} takes all items of track(key=...) before they are done, so each would be marked too early: "
                "use track(..., mark=False), and done(key) when an item is done"
            )

    def _look_for_list(self) -> None:
        """Notice `list`, `tuple` and `sorted`: they begin a loop and ask for its length in one call.

        Raises:
            InvalidState: in a task, as the work of the items follows.
        """
        begun, node = self._begun_by, self._node
        if begun is None or node is None or self._resumed is None or not self._resumed.mark:
            return
        self._begun_by = None
        frame = sys._getframe(2)
        if (id(frame), frame.f_lasti) == begun and node.operation._session is not None:
            node.operation._session.collected(node)

    def __len__(self) -> int:
        """The length of the iterable, else the given total."""
        self._refuse_pools()
        self._look_for_list()
        if type(self._total) is int and not hasattr(self._iterable, "__len__"):
            return self._total
        return len(self._iterable)


class Tracked(_Tracked, Generic[T]):
    """An iterable for `for` loops: each opens a lane of its own; one begun with `next` continues."""

    __slots__ = ()

    def __iter__(self) -> Iterator[T]:
        """Begin a loop over the items, or continue the one begun with `next`."""
        begun: Iterator[T] | None = self._iterator
        if begun is not None:
            return begun
        opened = self._lane()
        if opened is None:
            self._check_late()
        if self._resumed is not None:
            caller = sys._getframe(1)
            self._begun_by = id(caller), caller.f_lasti
            items = self._items(opened)
            return iter(items) if opened is None else lane.loop(items, opened)
        return iter(self._iterable) if opened is None else lane.loop(self._iterable, opened)

    def __next__(self) -> T:
        """The next item of a loop by hand."""
        if self._iterator is None:
            self._iterator = iter(self)
        try:
            item: T = next(self._iterator)
        except StopIteration:
            self._iterator = None
            raise
        return item


class AsyncTracked(_Tracked, Generic[T]):
    """An iterable for `async for` loops: each opens a lane of its own; one begun with `anext` continues."""

    __slots__ = ()

    def __aiter__(self) -> AsyncIterator[T]:
        """Begin an async loop over the items, or continue the one begun with `anext`."""
        begun: AsyncIterator[T] | None = self._iterator
        if begun is not None:
            return begun
        opened = self._lane()
        if opened is None:
            self._check_late()
        items = self._items(opened)
        if opened is None:
            plain: AsyncIterator[T] = items.__aiter__()
            return plain
        return lane.async_loop(items, opened)

    async def __anext__(self) -> T:
        """The next item of a loop by hand."""
        if self._iterator is None:
            self._iterator = self.__aiter__()
        try:
            item: T = await self._iterator.__anext__()
        except StopAsyncIteration:
            self._iterator = None
            raise
        return item


class _Both(Tracked[T], AsyncTracked[T]):
    """An iterable for both kinds of loops."""

    __slots__ = ()


def tracked(
    iterable: Any,
    node: HandleState | None,
    unit: str | None,
    total: Number | None = None,
    desc: object = None,
    initial: Number = 0,
    key: Callable[[Any], Any] | None = None,
    mark: bool | None = None,
    retry_failed: bool = True,
    label: Callable[[Any], object] | None = None,
) -> Any:
    """The iterable for loops of a handle over anything iterable.

    Raises:
        InvalidArgument: if the loop could not be resumed as it is asked for.
    """
    resumed = None
    if key is not None or mark is not None:
        resumed = _resumed(iterable, node, key, mark, retry_failed)
    if resumed is not None and initial:
        raise InvalidArgument("initial= says what was done before, and with key= or mark= the store does: leave it out")
    try:
        if label is not None and not callable(label):
            misuse.refused("track", "label", label, "a function of an item, such as str")
            label = None
        initial = accepted("track", "initial", initial) or 0
        if total is not None:
            total = accepted("track", "total", total)
        if total is not None and initial > total:
            misuse.refused("track", "initial", initial, "at most the total")
            initial = 0
        many, later = hasattr(iterable, "__iter__"), hasattr(iterable, "__aiter__")
        kind = (_Both if many else AsyncTracked) if later else Tracked
        if many or later:
            return kind(iterable, node, unit, total, desc, initial, resumed, label)
    except BaseException as error:
        try:
            swallow(error, "track")
        except NOTHING_LEFT:
            pass
        return iterable
    iter(iterable)
    return Tracked(iterable, node, unit, total, desc)


def length(iterable: object) -> int | None:
    """The length or length hint of an iterable, or None."""
    hint = getattr(type(iterable), "__len__", None) or getattr(type(iterable), "__length_hint__", None)
    try:
        result = hint(iterable) if hint else None
    except BaseException as error:
        if of_the_job(error):
            raise
        return None
    return result if isinstance(result, int) and 0 <= result <= values.INT_MAX else None


# -- lanes


def open_lane(
    node: HandleState,
    iterable: object,
    unit: str | None,
    total: Number | None = None,
    desc: object = None,
    initial: int = 0,
    label: Callable[[Any], object] | None = None,
) -> Lane:
    """Open a lane for a new loop over an iterable, of which `initial` items were done by an earlier run."""
    place = here()
    lanes = node._lanes
    known = None if unit is None else values.text(unit, drops, values.NAME_LENGTH)
    if lanes is None:
        if known is not None and not node._unit_named and not has_counted(node):
            node._unit = known  # nobody named the unit before
        lanes = vars(node).setdefault("_lanes", [])  # one step, so that two threads get the same
    nested = any(not each.closed and each.place == place for each in lanes)
    if initial and not nested:
        lanes.append(_restored(node, initial, known, place))
        total = None if total is None else total - initial
    opened = Lane(length(iterable) if total is None else int(total), known, place, nested, clock.monotonic())
    if total is not None:
        opened.named = True
    opened.over, opened.label = node._message, label
    if desc is not None:
        opened.desc = redaction.text("message", desc)
    if len(lanes) >= LANES:
        _fold_lanes(node)
    lanes.append(opened)
    operation = node.operation
    operation._revision += 1
    operation._has_tracked = True
    if label is not None:
        operation._has_labels = True
    request = operation._request
    if request is not None and _stops(request, place):
        opened.request = request
    return opened


def _resumed(iterable: Any, node: HandleState | None, key: Any, mark: Any, retry_failed: Any) -> LoopOptions | None:
    if key is not None and not callable(key):
        raise InvalidArgument(f"key is a function of an item, as in key=lambda item: item.id, not {values.shown(key)}")
    if key is None and mark is False:
        if node is not None and node.operation._session is not None:
            node.operation._session.takes_all()
        return None
    if key is None and (mark is not True or isinstance(iterable, (set, frozenset))):
        wrong = (
            f"mark is True or False, not {values.shown(mark)}" if mark is not True else "a set has no order that stays"
        )
        raise InvalidArgument(
            f"{wrong}: mark=True without a key goes by position, as in track(sorted(items), mark=True)"
        )
    return LoopOptions(key, mark is not False, retry_failed is not False, here(), _site())


def _site() -> tuple[CodeType, int]:
    """The user's code that calls this, and the index of the instruction."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("otel_progress."):
        frame = frame.f_back
    return frame.f_code, frame.f_lasti


def count_restored(node: HandleState | None, opened: Lane | None, items: int) -> None:
    """Items of a loop were left out, as an earlier attempt did them: they count as done, and are no pace."""
    lanes = None if node is None else node._lanes
    if node is None or not items or opened is None or opened.nested or lanes is None:
        return
    with registry.lock:
        opened.shorten(items)
        lanes.insert(0, _restored(node, items, opened.unit, opened.place))
        if len(lanes) > LANES:
            _fold_lanes(node)


def _restored(node: HandleState, items: int, unit: str | None, place: Place) -> Lane:
    """A closed lane with the items of an earlier run; they are no pace."""
    done = Lane(items, unit, place, False, clock.monotonic())
    done.calls = done.seen = items
    done.ended = done.closed = True
    if unit in (None, node._unit):
        node._initial += items
        more = max(0, max(node._named_before, node._initial) - node._restored)
        node._restored += more
        if node._pace is not None:
            node._pace.restore(more)
    return done


def stop_loops(node: HandleState, request: Request) -> None:
    """Make the open loops of a handle raise at their next item, but none of a program that knows no requests."""
    spares = not hooks.takes_requests(node.operation)
    for each in list(node._lanes or ()):
        if (request.tasks or not _ends_with_task(each.place)) and not (spares and each.observed):
            each.stop(request)


def _stops(request: Request, place: Place) -> bool:
    """Whether a loop that is opened here, after the request, is to raise: one that cleans up is not."""
    return not request.is_told() and (request.tasks or not _ends_with_task(place))


def _fold_lanes(node: HandleState) -> None:
    """Sum up closed lanes by unit, so that their number is bounded."""
    with registry.lock:
        sums = node._with_extras().sums
        for closed in [each for each in node._lanes or () if each.closed][:-1]:  # the last may be tried again
            key = None if closed.nested else closed.unit or node._unit
            if key not in sums and len(sums) >= values.ATTRIBUTE_COUNT:
                key = None
            done, total = sums.get(key, (0, 0))
            sums[key] = (done + closed.completed, total + (closed.total or 0))
            node._lanes.remove(closed)  # type: ignore[union-attr]


def close_lanes(node: HandleState) -> None:
    """Close the lanes of a handle that ends; warn if `advance` replaced their count by a lower one."""
    lanes = list(node._lanes or ())
    for each in lanes:
        each.close()
    if node._advanced and not node._completed_set and not (node._scope is not None and node._scope.counted):
        _check_both(node, lanes)


def _check_both(node: HandleState, lanes: list[Lane]) -> None:
    """Warn once if `advance` counted fewer units than a loop took items of what seems to be the same."""
    own = counted(node)
    for each in lanes:
        same = not each.nested and each.unit in (None, node._unit) and node._total in (None, each.total)
        if same and own < each.completed:
            misuse.warn_of(
                "both",
                f"{node.operation.name}/{node._path or ''}",
                "%s %r counts by track() and by advance(): the loop took %s items, advance() counted %s, which is "
                "shown; use one of them, or advance(n, unit=) for other units",
                node._kind,
                node.name,
                each.completed,
                values.shown(own),
            )


def _ends_with_task(place: Place) -> bool:
    """Whether a place is an asyncio task, which is cancelled itself."""
    return place.task is not None and is_task(place.task())
