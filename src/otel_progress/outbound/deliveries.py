"""Which delivery of a webhook is sent next, and when: no thread, no clock, no network."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from otel_progress.outbound.backoff import Backoff

WAITING: Final = 1000
"""Deliveries that may wait."""
BYTES: Final = 32 * 1024 * 1024
"""The size of all waiting deliveries together."""
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
    """The waiting deliveries, bounded; dropped ones are counted by reason.

    Deliveries of one operation keep their order. One that failed waits for its own pause, which grows with each try,
    and delays only later deliveries of its operation, so one that the receiver can't handle holds up nobody else.
    After a failure nothing is sent for another pause, which grows with the failures in a row, so a receiver that is
    down does not get a request for each delivery.
    """

    def __init__(self, *, most: int = WAITING, most_bytes: int = BYTES, backoff: Backoff = PATIENT) -> None:
        """Set the limits, and the pauses between tries."""
        self.dropped: Counter[str] = Counter()
        self._most = most
        self._most_bytes = most_bytes
        self._backoff = backoff
        self._waiting: dict[str, Delivery] = {}
        self._bytes = 0
        self._failures = 0
        self._quiet_until = 0.0
        self._sending: Delivery | None = None

    def __len__(self) -> int:
        """Deliveries that wait, including the one in flight."""
        return len(self._waiting)

    def put(self, delivery: Delivery) -> None:
        """Add a delivery; without room, the oldest one is dropped, unless it is in flight."""
        self._waiting[delivery.id] = delivery
        self._bytes += len(delivery.body)
        while len(self._waiting) > self._most or self._bytes > self._most_bytes:
            oldest = next((one for one in self._waiting.values() if one is not self._sending), None)
            if oldest is None:
                return
            self._remove(oldest, "too many waited")

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
        self._over("refused")

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
        if reason is not None:
            self.dropped[reason] += 1
