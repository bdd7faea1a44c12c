"""The outbox: events that wait for the receiver, bounded; the most important ones are dropped last.

Plain updates and notes are dropped first, then stages, then keyframes, without which the events after them can't be
read. Ends of operations are kept longest, and if the receiver knows the operation, only the size of the outbox limits
them: without its end, the operation would look lost there for ever. Dropped events are counted, and another keyframe
takes the place of one that was dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Final, NamedTuple

from otel_progress import semconv as s
from otel_progress.live.guard import drops

REQUEST_BYTES: Final = 900_000
"""The largest request; receivers accept 4 MiB by default."""
BYTES: Final = 32 * 1024 * 1024
"""The size of all waiting events."""
FULL: Final = "more waited than OTEL_PROGRESS_OUTBOX allows; run `otel-progress doctor`"
"""Why events were lost that did not fit."""
KNOWN: Final = 100_000
"""Operations that are remembered as known to the receiver."""

PLAIN, STEP, STATE, UNKNOWN_END, END = range(5)
_RANKS: Final = {
    s.UPDATED: PLAIN,
    s.NOTE: PLAIN,
    s.HEARTBEAT: PLAIN,
    s.PROCESS_HEARTBEAT: PLAIN,
    s.STAGE_STARTED: STEP,
    s.STAGE_ENDED: STEP,
    s.WAIT_STARTED: STEP,
    s.WAIT_ENDED: STEP,
}
_REPLACEABLE: Final = frozenset({s.UPDATED, s.PROCESS_HEARTBEAT})


class EncodedEvent(NamedTuple):
    """An encoded event; `owner` is the id of its operation, empty for events of the process."""

    name: str
    owner: str
    body: bytes
    is_keyframe: bool = False


@dataclass
class Unsent:
    """Events that the receiver does not have: ends of operations, and others; `why` is known if some were refused."""

    ends: int = 0
    others: int = 0
    why: str = field(default="", compare=False)

    def add(self, event: EncodedEvent) -> None:
        """Count an event."""
        if event.name == s.OPERATION_ENDED:
            self.ends += 1
        elif event.name != s.PROCESS_HEARTBEAT:  # of no use after the end of the process
            self.others += 1


class Outbox:
    """Events in order; the sender takes a batch, and acknowledges it after the delivery.

    Not thread-safe: the owner locks it.
    """

    def __init__(
        self, most: int = 10_000, most_bytes: int = BYTES, lacks: Callable[[str], object] = lambda _: None
    ) -> None:
        """Hold at most `most` events, and `most_bytes` bytes; `lacks` is called with the id of a lost keyframe."""
        self._most = most
        self._lacks = lacks
        self._most_bytes = most_bytes
        self._events: dict[int, EncodedEvent] = {}
        self._ranks: tuple[dict[int, None], ...] = tuple({} for _ in range(END + 1))
        self._updates: dict[str, int] = {}
        self._keyframes: dict[str, int] = {}
        """Those updates that are keyframes."""
        self._ends: dict[str, int] = {}
        self._known: dict[str, None] = {}
        self._in_flight: frozenset[int] = frozenset()
        self._evicted: dict[int, EncodedEvent] = {}
        self._next = 0
        self.bytes = 0
        self.lost = Unsent()
        """Events that were dropped or refused so far."""

    def __len__(self) -> int:
        return len(self._events)

    def add(self, event: EncodedEvent) -> None:
        """Add an event; a plain update replaces the last one of its owner, but only a keyframe replaces a keyframe."""
        serial = self._next
        self._next += 1
        if event.name in _REPLACEABLE:
            for newest in (self._updates, self._keyframes) if event.is_keyframe else (self._updates,):
                before = newest.get(event.owner)
                if before is not None:
                    self._remove(before)
            (self._keyframes if event.is_keyframe else self._updates)[event.owner] = serial
        self._events[serial] = event
        self._ranks[self._rank(event)][serial] = None
        if event.name == s.OPERATION_ENDED:
            self._ends[event.owner] = serial
        self.bytes += len(event.body)
        ends = self._ranks[END]
        while len(self._events) - len(ends) > self._most or (self.bytes > self._most_bytes and len(self._events) > 1):
            victim = next(serial for rank in self._ranks for serial in rank)
            if victim in self._in_flight:
                self._evicted[victim] = self._events[victim]  # it may still be delivered
            else:
                self._lose(s.DROP_OUTBOX, [self._events[victim]])
                self.lost.why = self.lost.why or FULL
            self._remove(victim)

    def _lose(self, reason: str, events: Iterable[EncodedEvent]) -> None:
        for event in events:
            drops.add(reason)
            self.lost.add(event)
            if event.is_keyframe:
                self._lacks(event.owner)

    def refused(self, batch: Mapping[int, EncodedEvent], count: int, why: str) -> None:
        """Count events that the receiver rejected from a request that it accepted; it does not say which.

        As few of them as possible count as ends. `why` is said at the end of the process.
        """
        if count > 0:
            drops.add(s.DROP_REJECTED, count)
            ends = max(0, count - sum(event.name != s.OPERATION_ENDED for event in batch.values()))
            self.lost.ends += ends
            self.lost.others += count - ends
            self.lost.why = why

    def unsent(self) -> Unsent:
        """Count what was lost so far and what waits."""
        found = replace(self.lost)
        for event in (*self._events.values(), *self._evicted.values()):
            found.add(event)
        return found

    def give_up(self) -> Unsent:
        """Drop all that waits, as nothing is sent any more; returns all that was lost, and starts counting anew."""
        self._in_flight = frozenset()
        self._lose(s.DROP_OUTBOX, [*self._events.values(), *self._evicted.values()])
        for serial in list(self._events):
            self._remove(serial)
        self._evicted.clear()
        lost, self.lost = self.lost, Unsent()
        return lost

    def _rank(self, event: EncodedEvent) -> int:
        if event.name == s.OPERATION_ENDED:
            return END if event.owner in self._known else UNKNOWN_END
        return STATE if event.is_keyframe else _RANKS.get(event.name, STATE)

    def _remove(self, serial: int) -> None:
        event = self._events.pop(serial, None)
        if event is None:
            return
        for rank in self._ranks:
            rank.pop(serial, None)
        self._release(event, serial)
        if self._ends.get(event.owner) == serial:
            del self._ends[event.owner]
        self.bytes -= len(event.body)

    def _release(self, event: EncodedEvent, serial: int) -> None:
        """A later update does not replace this one."""
        for newest in (self._updates, self._keyframes):
            if newest.get(event.owner) == serial:
                del newest[event.owner]

    def take(self, most_bytes: int = REQUEST_BYTES, *, ends_first: bool = False) -> dict[int, EncodedEvent]:
        """The oldest events that fit into one request; they stay until they are acknowledged.

        With `ends_first`, the ends of operations that the receiver knows go before everything else, as there may be no
        time for a second request.
        """
        batch: dict[int, EncodedEvent] = {}
        size = 0
        for serial in chain(self._ranks[END] if ends_first else (), self._events):
            event = self._events[serial]
            if serial in batch:
                continue
            size += len(event.body)
            if batch and size > most_bytes:
                break
            batch[serial] = event
            self._release(event, serial)
        if ends_first:
            batch = dict(sorted(batch.items()))
        self._in_flight = frozenset(batch)
        return batch

    def _settle(self, *, delivered: bool) -> None:
        """The batch is no longer in flight; what was evicted meanwhile is lost, unless it was delivered."""
        if self._evicted and not delivered:
            self._lose(s.DROP_OUTBOX, self._evicted.values())
            self.lost.why = self.lost.why or FULL
        self._in_flight = frozenset()
        self._evicted.clear()

    def acknowledge(self, batch: dict[int, EncodedEvent]) -> None:
        """Remove delivered events, and remember their operations as known to the receiver."""
        self._settle(delivered=True)
        for serial, event in batch.items():
            self._remove(serial)
            if event.name == s.OPERATION_ENDED:
                self._known.pop(event.owner, None)
                continue
            self._remember(event.owner)

    def keep(self, batch: dict[int, EncodedEvent]) -> None:
        """Keep events for a retry, except updates that a newer one replaces."""
        self._settle(delivered=False)
        for serial, event in batch.items():
            if serial in self._events and event.name in _REPLACEABLE:
                newest = self._keyframes if event.is_keyframe else self._updates
                if max(newest.get(event.owner, -1), self._keyframes.get(event.owner, -1)) > serial:
                    self._remove(serial)
                else:
                    newest[event.owner] = serial

    def assume_known(self, batch: dict[int, EncodedEvent]) -> list[str]:
        """Treat the operations of a batch as known, before it is sent; returns the new ones."""
        return [event.owner for event in batch.values() if self._remember(event.owner)]

    def _remember(self, owner: str) -> bool:
        new = owner not in self._known and len(self._known) < KNOWN
        if new:
            self._known[owner] = None
        end = self._ends.get(owner)
        if end is not None and self._ranks[UNKNOWN_END].pop(end, self) is None:
            self._ranks[END][end] = None
        return new

    def assume_unknown(self, owners: list[str]) -> None:
        """Treat operations as unknown, as the receiver surely has nothing of them."""
        for owner in owners:
            self._known.pop(owner, None)
            end = self._ends.get(owner)
            if end is not None and self._ranks[END].pop(end, self) is None:
                self._ranks[UNKNOWN_END][end] = None

    def discard(self, batch: dict[int, EncodedEvent], *, ends: bool, why: str = "") -> bool:
        """Drop refused events; without `ends`, keep the ends of known operations, and return whether there are any.

        `why` is said at the end of the process.
        """
        self._settle(delivered=False)
        kept = set() if ends else batch.keys() & self._ranks[END].keys()
        refused = (batch.keys() - kept) & self._events.keys()
        if refused:
            self._lose(s.DROP_REJECTED, [batch[serial] for serial in refused])
            self.lost.why = why
        for serial in refused:
            self._remove(serial)
            if batch[serial].name == s.OPERATION_ENDED:
                self._known.pop(batch[serial].owner, None)
        return bool(kept)
