"""Operations that were put aside to make room: counted by reason, and told once for each sender."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, Final

from otel_progress import clock
from otel_progress.monitor.state.room import BYTES_FULL, OPERATIONS_FULL, PROCESSES_FULL

if TYPE_CHECKING:
    from otel_progress.monitor.state.ledger import Entry
    from otel_progress.monitor.state.room import Room

ASIDE: Final = (
    "this monitor holds too many operations to follow this one, and has put it aside: its next event brings it back"
)
"""The verdict on an operation that was put aside: nothing is known of it."""
SENDERS: Final = 100
"""The most senders that are told; what follows is only counted."""
TROUBLED: Final = 60.0
"""Seconds for which `/health` reports trouble after an operation was put aside."""
NAME: Final = 60
"""The most characters of the name of a service in a message."""
_FULL: Final = {
    OPERATIONS_FULL: "too many operations",
    PROCESSES_FULL: "operations of too many processes",
    BYTES_FULL: "operations with too many bytes",
}


class Aside:
    """Notes what was put aside. It belongs to the thread of the core, `health` to any.

    Attributes:
        newest: the last message, with its sender.
        tell: called with each message.
    """

    def __init__(self, room: Room) -> None:
        """Nothing was put aside."""
        self.newest: str | None = None
        self.tell: Callable[[str], object] = lambda _: None
        self._room = room
        self._told: set[Hashable] = set()
        self._at = 0.0

    def note(self, entry: Entry, why: str) -> str | None:
        """An operation is put aside; returns the words about its sender the first time."""
        self._at = clock.monotonic()
        service = None if entry.holder is None else entry.holder.above
        if service is None or service.above is None:
            return None
        sender = (service.above.name, service.name)
        if sender in self._told or len(self._told) >= SENDERS:
            return None
        self._told.add(sender)
        words = (
            f"the monitor holds {_FULL[why]}, and {service.count} of this sender, more than of any other: its oldest "
            "ones are put aside until they are heard of again"
        )
        self.newest = f"{str(service.name or 'a program')[:NAME]}: {words}"
        self.tell(f"{self.newest} (told once)")
        return words

    def health(self) -> dict[str, Any]:
        """How many were put aside, by reason, for `/health`; trouble if it was a moment ago."""
        counts = dict(self._room.counts)
        if not counts:
            return {}
        trouble = self.newest if clock.monotonic() - self._at < TROUBLED else None
        said = {"newest": self.newest, "trouble": trouble}
        return {"put_aside": counts | {key: text for key, text in said.items() if text is not None}}
