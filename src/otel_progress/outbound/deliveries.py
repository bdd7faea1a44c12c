"""Which delivery of a webhook is sent next, and when: no thread, no clock, no network."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from otel_progress.outbound.backoff import Backoff
from otel_progress.outbound.delivery_kinds import ALERTS, UPDATED

WAITING: Final = 1000
"""Deliveries that may wait."""
BYTES: Final = 32 * 1024 * 1024
"""The size of all waiting deliveries together."""
REFUSED: Final = "refused"
PATIENT: Final = Backoff(first=0.5, longest=60.0, longest_asked=600.0, jitter=random.random)
"""The pauses between tries of a delivery."""


@dataclass
class Delivery:
    """A delivery that waits; `until` is when it is given up, by the monotonic clock."""

    id: str
    kind: str
    operation_id: str
    body: bytes
    until: float
    tries: int = 0
    not_before: float = 0.0


class Deliveries:
    """The waiting deliveries, bounded; dropped ones are counted by reason, and kept in `lost` until they are taken.

    A plain update that waits gives way to any later delivery about its operation. If there is no room, deliveries that
    alert nobody are dropped first.

    Deliveries of one operation keep their order. One that failed waits for its own pause, which grows with each try,
    and delays only later deliveries of its operation, so one that the receiver can't handle holds up nobody else.
    After a failure nothing is sent for another pause, which grows with the failures in a row, so a receiver that is
    down does not get a request for each delivery.
    """

    def __init__(
        self, *, most: int = WAITING, most_bytes: int = BYTES, backoff: Backoff = PATIENT, keep_lost: bool = False
    ) -> None:
        """Set the limits, the pauses between tries, and whether dropped deliveries are kept."""
        self.dropped: Counter[str] = Counter()
        self.lost: deque[tuple[Delivery, str]] = deque()
        """Dropped deliveries and why; plain updates are left out."""
        self._keep_lost = keep_lost
        self._lost_bytes = 0
        self._most = most
        self._most_bytes = most_bytes
        self._backoff = backoff
        self._waiting: dict[str, Delivery] = {}
        self._updates: dict[str, str] = {}  # by operation: the plain update that waits
        self._minor: dict[str, None] = {}  # those that alert nobody
        self._bytes = 0
        self._failures = 0
        self._quiet_until = 0.0
        self._sending: Delivery | None = None

    def __len__(self) -> int:
        """Deliveries that wait, including the one in flight."""
        return len(self._waiting)

    def put(self, delivery: Delivery) -> None:
        """Add a delivery; without room, others are dropped, the oldest first, except the one in flight."""
        older = self._waiting.get(self._updates.get(delivery.operation_id, ""))
        if older is not None and older is not self._sending:
            self._remove(older, None)
        self._waiting[delivery.id] = delivery
        self._bytes += len(delivery.body)
        if delivery.kind == UPDATED:
            self._updates[delivery.operation_id] = delivery.id
        if delivery.kind not in ALERTS:
            self._minor[delivery.id] = None
        while len(self._waiting) > self._most or self._bytes > self._most_bytes:
            oldest = self._oldest()
            if oldest is None:
                return
            self._remove(oldest, "too many waited")

    def _oldest(self) -> Delivery | None:
        """The delivery that is dropped if there is no room."""
        minor = (self._waiting[id] for id in self._minor)
        return next((one for some in (minor, self._waiting.values()) for one in some if one is not self._sending), None)

    def lose(self, delivery: Delivery, reason: str) -> None:
        """Count a delivery that is dropped, and keep it if there is room."""
        self.dropped[reason] += 1
        if self._keep_lost and delivery.kind != UPDATED and self._lost_bytes < self._most_bytes:
            self.lost.append((delivery, reason))
            self._lost_bytes += len(delivery.body)

    def take_lost(self) -> list[tuple[Delivery, str]]:
        """The dropped deliveries that were kept; they are kept no longer."""
        found = list(self.lost)
        self.lost.clear()
        self._lost_bytes = 0
        return found

    def take(self, now: float) -> Delivery | None:
        """The next delivery that may be sent now; it is in flight until `done`, `refused` or `again` is called."""
        for one in [one for one in self._waiting.values() if one.until <= now]:
            self._remove(one, "given up after a day of trying")
        if now >= self._quiet_until:
            self._sending = next((one for one in self._heads() if one.not_before <= now), None)
        return self._sending

    def wait(self, now: float) -> float | None:
        """Seconds until a delivery may be sent; None if none waits."""
        if not self._waiting:
            return None
        return max(0.0, max(self._quiet_until, min(one.not_before for one in self._heads())) - now)

    def done(self) -> None:
        """The delivery in flight arrived."""
        self._over(None)

    def refused(self) -> None:
        """The delivery in flight was refused for good."""
        self._over(REFUSED)

    def again(self, now: float, after: float | None = None) -> None:
        """The delivery in flight failed; retry it after a pause, at least the one that the receiver asked for."""
        one, self._sending = self._sending, None
        self._failures += 1
        asked = self._backoff.bounded(after)
        self._quiet_until = now + max(asked, self._backoff.pause(self._failures))
        if one is not None:
            one.tries += 1
            one.not_before = now + max(asked, self._backoff.pause(one.tries))

    def hurry(self, now: float) -> None:
        """End all pauses: the process is about to end."""
        self._failures = 0
        self._quiet_until = min(self._quiet_until, now)
        for one in self._waiting.values():
            one.tries, one.not_before = 0, min(one.not_before, now)

    def clear(self) -> None:
        """Drop all that waits."""
        for one in list(self._waiting.values()):
            self._remove(one, "not sent at the end")

    def _heads(self) -> Iterator[Delivery]:
        """The oldest delivery of each operation."""
        seen: set[str] = set()
        for one in self._waiting.values():
            if one.operation_id not in seen:
                seen.add(one.operation_id)
                yield one

    def _over(self, reason: str | None) -> None:
        one, self._sending = self._sending, None
        self._failures, self._quiet_until = 0, 0.0
        if one is not None and one.id in self._waiting:
            self._remove(one, reason)

    def _remove(self, one: Delivery, reason: str | None) -> None:
        del self._waiting[one.id]
        self._bytes -= len(one.body)
        self._minor.pop(one.id, None)
        if self._updates.get(one.operation_id) == one.id:
            del self._updates[one.operation_id]
        if reason is not None:
            self.lose(one, reason)
