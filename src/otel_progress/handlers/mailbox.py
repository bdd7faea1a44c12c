"""Events that wait for one handler: of plain updates the newest of each operation, and all changes in order."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from otel_progress import semconv

if TYPE_CHECKING:
    from collections.abc import Hashable

    from otel_progress.model.snapshot import Event

PLAIN: Final = frozenset({semconv.UPDATED, semconv.HEARTBEAT})
"""Events that say nothing that a later one of the operation does not say."""
CHANGES: Final = 1_000
"""The most events that wait, other than plain updates and those that must arrive."""
VITAL: Final = frozenset({semconv.OPERATION_ENDED, semconv.STALLED, semconv.RECOVERED})
"""Events that must arrive: they wait whatever else is waiting."""
ITEMS: Final = 200
"""The most events of single items that wait."""
VITAL_MOST: Final = 100_000
"""The most of these that wait."""


class Mailbox:
    """A queue that a slow reader cannot fill: state is replaced by newer state, and only changes add up.

    A plain update gives way to any later event of its operation, whose
    snapshot is newer. Every other event stays in its place. It is not thread-safe.
    """

    def __init__(self) -> None:
        """Nothing waits."""
        self._waiting: OrderedDict[Hashable, Event] = OrderedDict()
        self._number = self._changes = self._vital = self._items = 0

    def __len__(self) -> int:
        """How many events wait."""
        return len(self._waiting)

    def put(self, event: Event) -> bool:
        """Add an event; false if it was dropped for want of room."""
        self._waiting.pop(event.snapshot.operation_id, None)
        if event.name in PLAIN:
            self._waiting[event.snapshot.operation_id] = event
            return True
        if event.name in VITAL:
            if self._vital >= VITAL_MOST:
                return False
            self._vital += 1
        elif event.name in semconv.ITEM_EVENTS:
            if self._items >= ITEMS:
                return False
            self._items += 1
        elif self._changes >= CHANGES:
            return False
        else:
            self._changes += 1
        self._number += 1
        self._waiting[self._number] = event
        return True

    def take(self) -> Event | None:
        """The event that has waited longest, or None."""
        if not self._waiting:
            return None
        key, event = self._waiting.popitem(last=False)
        if not isinstance(key, str):
            if event.name in VITAL:
                self._vital -= 1
            elif event.name in semconv.ITEM_EVENTS:
                self._items -= 1
            else:
                self._changes -= 1
        return event
