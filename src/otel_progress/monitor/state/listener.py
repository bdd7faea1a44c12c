"""The listener protocol of the core: how other parts of the monitor learn what was stored and concluded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_progress import semconv as s
from otel_progress.monitor.intake.records import Record
from otel_progress.monitor.state.ledger import Entry, Head

if TYPE_CHECKING:
    from otel_progress.monitor.state.faults import Faults

REMEMBERED: Final = 10_000
"""The number of alerting events that are remembered, so that none is reported twice."""
ALERTING: Final = frozenset({s.OPERATION_ENDED, s.STALLED, s.RECOVERED, s.WAIT_OVERDUE, s.SLOW})
"""Events that call for somebody's attention."""


class StoredEvent(NamedTuple):
    """An event that was stored.

    Attributes:
        record: the event.
        head: the head of its operation; None for the heartbeat of a process.
        resource: the resource attributes of its process.
        held: whether the monitor overrules what it says, so that it is for other monitors only, not for people.
    """

    record: Record
    head: Head | None
    resource: Mapping[str, Any]
    held: bool = False


class CoreListener:
    """Learns what happens in the core. By default it ignores everything.

    All methods are called in the core's thread, so they must return quickly and never block.
    """

    def wants(self, event: str) -> bool:  # noqa: ARG002
        """Whether events of this name are to be passed to `stored`; the answer must not change."""
        return False

    def stored(self, events: list[StoredEvent]) -> None:
        """These events were stored; each is passed once. It may get events that only other listeners want."""

    def concluded(self, entry: Entry, kind: str) -> None:
        """The monitor concluded what no event says: `dead`, `recovered`, `stalled` or `lost`."""

    def unmuted(self, entry: Entry) -> None:
        """The mute of an open operation, or of one above it, is over."""

    def rivalled(self, entry: Entry) -> None:
        """Two processes were found to run the same operation id."""

    def queued(self, signal: str) -> None:
        """A request of this signal was stored to be forwarded."""


class CoreListeners:
    """All listeners; an error in one of them is reported as a fault and stops nobody else."""

    def __init__(self, faults: Faults) -> None:
        """No listeners yet."""
        self._faults = faults
        self._all: list[CoreListener] = []
        self._wanted: dict[str, bool] = {}
        self._reported: dict[tuple[Any, ...], None] = {}

    def add(self, listener: CoreListener) -> None:
        """Notify this one, too."""
        self._all.append(listener)
        self._wanted.clear()

    def want(self, event: str) -> bool:
        """Whether any listener wants events of this name."""
        found = self._wanted.get(event)
        if found is None:
            found = self._wanted[event] = any(one.wants(event) for one in self._all)
        return found

    def fresh(self, events: Iterable[StoredEvent]) -> list[StoredEvent]:
        """The events without alerting ones that were reported before, as when a sender repeats them."""
        found = []
        for one in events:
            head, event = one.head, one.record.event
            if head is not None and event in ALERTING and not one.held:
                number = 0 if event == s.OPERATION_ENDED else head.sequence
                key = (head.operation_id, head.started_at, head.attempt, event, number)
                if key in self._reported:
                    continue
                if len(self._reported) >= REMEMBERED:
                    del self._reported[next(iter(self._reported))]
                self._reported[key] = None
            found.append(one)
        return found

    def stored(self, events: list[StoredEvent]) -> None:
        """These events were stored."""
        if events:
            self._call("stored", events)

    def concluded(self, entry: Entry, kind: str) -> None:
        """The monitor concluded what no event says."""
        self._call("concluded", entry, kind)

    def unmuted(self, entry: Entry) -> None:
        """The mute of an open operation, or of one above it, is over."""
        self._call("unmuted", entry)

    def rivalled(self, entry: Entry) -> None:
        """Two processes run the same operation id."""
        self._call("rivalled", entry)

    def queued(self, signals: Iterable[str]) -> None:
        """Requests of these signals were stored to be forwarded."""
        for signal in signals:
            self._call("queued", signal)

    def _call(self, method: str, *given: Any) -> None:
        for listener in self._all:
            try:
                getattr(listener, method)(*given)
            except Exception as error:  # the event is stored, whatever becomes of it elsewhere
                self._faults.current = f"an event could not be passed on ({type(error).__name__}: {error})"
