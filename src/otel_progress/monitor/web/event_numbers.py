"""Event numbers for tokens that see only one owner.

The store numbers the events of all operations together, so gaps would reveal how much others do. Here the events of an
operation are counted separately. Histories lose only their oldest events, so each number is found from a known one, and
is stable; numbers may start over with the monitor if a history was cut.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from otel_progress.monitor.state.store import Store

KNOWN: Final = 10_000
"""The most operations of which a number is remembered."""
NEWEST: Final = 2**62
T = TypeVar("T")


class EventNumbers:
    """Translates between the numbers of the store and those within one operation."""

    def __init__(self, store: Store) -> None:
        """For the events in a store."""
        self._store = store
        self._known: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()

    def numbered(self, operation_id: str, rows: Sequence[tuple[int, T]]) -> list[tuple[int, T]]:
        """Events of an operation, in the order of their numbers, with the numbers within it."""
        found = []
        with self._lock:
            for number, event in rows:
                found.append((self._place(operation_id, number), event))
        return found

    def number(self, operation_id: str, place: int) -> int:
        """The store's number for a number within an operation."""
        with self._lock:
            known, at = self._known.get(operation_id, (0, 0))
        if place <= at:
            if place == at:
                return known
            return self._store.event_before(operation_id, known, at - place)
        return self._store.event_after(operation_id, known, place - at) or NEWEST

    def _place(self, operation_id: str, number: int) -> int:
        known, at = self._known.pop(operation_id, (0, 0))
        low, high = min(known, number), max(known, number)
        between = self._store.count_events(operation_id, low, high)
        place = at + between if number >= known else at - between
        self._known[operation_id] = number, place
        if len(self._known) > KNOWN:
            del self._known[next(iter(self._known))]
        return place
