"""Events of single items, for handlers that ask for them: the ticker looks which item each loop has in hand.

The loop itself reports nothing, so this costs it nothing. A loop that takes many items between two looks has most of
them unseen; the next event of the loop says how many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_progress import clock, semconv
from otel_progress.live import hooks
from otel_progress.live.engine import labels
from otel_progress.live.guard import tell_once
from otel_progress.live.registry import registry
from otel_progress.model.snapshot import Event
from otel_progress.model.values import Attributes

if TYPE_CHECKING:
    from otel_progress.live.lane import Lane
    from otel_progress.live.state import OperationState

MOST: Final = 50
"""Events in one look; what is left over waits for the next one, or is unseen."""
LANES: Final = 16
"""The newest loops of one operation or stage that are looked at."""
_Item = tuple[str, str | None, Attributes]
"""The name of an event, the path of its stage, and what it says."""


def look_at_all(turn: int) -> None:
    """Look at all operations whose loops have labels, another one first in each turn."""
    if not hooks.item_sinks:
        return
    found = [operation for operation in registry.operations() if operation._has_labels]
    begin = turn % len(found) if found else 0
    left = MOST
    for operation in (*found[begin:], *found[:begin]):
        if left > 0:
            left -= look(operation, left)


def look(operation: OperationState, most: int = MOST) -> int:
    """Report the items that an operation began and completed since the last look; returns the number of events."""
    labels.ask(operation)
    events = _ended(operation, most)
    reported = operation._item_loops = operation._item_loops or {}
    for node in (operation, *tuple(operation._running or ())[-labels.HANDLES :]):
        for lane in tuple(node._lanes or ())[-LANES:]:
            if lane.label is not None and len(events) < most:
                started = _started(lane, node._path)
                if started:
                    reported[lane] = node._path
                    events += started
    _emit(operation, events)
    return len(events)


def tell_ends(operation: OperationState) -> None:
    """Report the items that were completed before the end of an operation, or of a stage in it, is reported."""
    if hooks.item_sinks and operation._item_loops:
        _emit(operation, _ended(operation, MOST))


def _ended(operation: OperationState, most: int) -> list[_Item]:
    events: list[_Item] = []
    reported = operation._item_loops or {}
    for lane, path in tuple(reported.items()):
        if len(events) < most:
            events += _completed(lane, path)
            if lane.told is None and lane.closed:
                del reported[lane]
    return events


def _completed(lane: Lane, path: str | None) -> list[_Item]:
    """The end of the item that was reported last; none if the loop was left with it in hand."""
    if lane.told is None:
        return []
    number, item = lane.told
    done = lane.completed
    if done >= number:
        lane.told = None
        unseen = done - number if lane.closed else 0
        return [(semconv.ITEM_COMPLETED, path, _about(item, unseen))]
    if lane.closed:
        lane.told = None
    return []


def _started(lane: Lane, path: str | None) -> list[_Item]:
    """The item in hand, if it was not reported."""
    number, item = lane.asked, lane.called
    if lane.told is not None or item is None or number <= lane.last or lane.pending is not None:
        return []
    unseen, lane.last, lane.told = number - lane.last - 1, number, (number, item)
    return [(semconv.ITEM_STARTED, path, _about(item, unseen))]


def _about(item: str, unseen: int) -> Attributes:
    about: dict[str, str | int] = {semconv.ITEM: item}
    if unseen:
        about[semconv.ITEMS_UNSEEN] = unseen
    return Attributes(about)


def _emit(operation: OperationState, events: list[_Item]) -> None:
    if not events:
        return
    when, snapshot = clock.time_ns(), operation.snapshot()
    for name, path, attributes in events:
        event = Event(name, when, snapshot, operation._sequence, path, attributes)
        for sink in tuple(hooks.item_sinks):
            try:
                sink(event, operation)
            except Exception:
                tell_once("a handler failed on the event of an item; the others get it")
