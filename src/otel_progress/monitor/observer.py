"""What the monitor concludes: the verdict on each operation that is not over, and since when it can tell at all."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from otel_progress import semconv as s
from otel_progress.model.health import BEATS, Hearing, Verdict, judge
from otel_progress.model.snapshot import Snapshot
from otel_progress.model.status import Health, Status
from otel_progress.model.values import finite
from otel_progress.monitor.ledger import Entry, Ledger

GAP: Final = 2.5
"""So many heartbeats of the process that beats fastest are missed where nothing was heard at all."""
ASLEEP: Final = 3.0
"""A pause between two looks, in seconds, from which on the monitor itself was asleep, and knows nothing of it."""


class Label(NamedTuple):
    """A verdict without its evidence."""

    health: Health
    overdue: bool = False


class Observer:
    """Judges the operations of a ledger. All times are those of the monotonic clock."""

    def __init__(self, ledger: Ledger, now: float) -> None:
        """It hears from now on."""
        self._ledger = ledger
        self._hears_since = self._looked_at = self._heard_at = now
        self._usual = math.inf

    def look(self, now: float) -> None:
        """To be called each second: a longer pause was a time in which nothing could be heard."""
        if now - self._looked_at > ASLEEP:
            self._hears_since = now
        self._looked_at = now
        intervals = [
            process.interval
            for process in self._ledger.busy()
            if process.beats and now - process.heard_at < BEATS * process.interval
        ]
        if intervals:
            self._usual = min(intervals)

    def hears(self, now: float) -> None:
        """Something came in. Where nothing at all did for far longer than is usual, nothing could be heard."""
        if now - self._heard_at > GAP * self._usual:
            self._hears_since = max(self._hears_since, math.nextafter(now, 0.0))  # who is heard now is known to live
        self._heard_at = now

    def was_deaf(self, now: float) -> None:
        """What was said could not be taken until now."""
        self._hears_since = now

    def hearing(self, entry: Entry, now: float) -> Hearing:
        """What is known of the process of an operation. One that gives no heartbeats is never missed."""
        process = self._ledger.processes.get(entry.instance)
        watching = now - self._hears_since
        if process is None:
            return Hearing(now - entry.heard_at, math.inf, math.inf)
        if not process.beats:
            return Hearing(now - process.heard_at, math.inf, math.inf)
        return Hearing(now - process.heard_at, process.interval, watching)

    def verdict(self, entry: Entry, now: float, snapshot: Snapshot | None = None) -> Verdict:
        """The verdict on an operation, with its evidence."""
        seen = entry.snapshot if snapshot is None else snapshot
        return judge(seen, seen.timestamp + max(0.0, now - entry.heard_at), self.hearing(entry, now))

    def label(self, entry: Entry, now: float) -> Label:
        """The same without evidence; all but the head of an operation is read only where that decides nothing."""
        hearing, since = self.hearing(entry, now), max(0.0, now - entry.heard_at)
        if hearing.watching < hearing.allowed and (hearing.silence >= hearing.watching or since >= hearing.watching):
            return Label(Health.UNKNOWN)
        if hearing.silence >= hearing.allowed:
            return Label(Health.DEAD)
        if (entry.head.status, entry.head.health) in _PLAIN and since < _due(entry):
            return Label(entry.head.health)
        verdict = self.verdict(entry, now)
        return Label(verdict.health, verdict.overdue)

    def missing(self, entry: Entry, now: float) -> float:
        """For how long its process was not heard of, beyond what it may be silent; 0 while it is not missed.

        Of one that gives no heartbeats each event is a sign of life, and nothing says when the next one comes.
        """
        hearing = self.hearing(entry, now)
        silence = min(hearing.silence, now - self._hears_since)
        return max(0.0, silence - hearing.allowed) if math.isfinite(hearing.allowed) else max(0.0, silence)


_PLAIN: Final = frozenset(
    {
        (Status.RUNNING, Health.PROGRESSING),
        (Status.WAITING, Health.WAITING),
        (Status.PENDING, Health.WAITING),
    }
)
"""What a process says of itself that nothing but time can change; all else is judged by all that it said."""


def _due(entry: Entry) -> float:
    """After how many seconds the verdict that its process gave may change by time alone; 0 where that is not known."""
    if entry.said is None:
        return 0.0
    get = entry.said.brief.get
    elapsed = get(s.ELAPSED, 0.0)
    limits = (get(s.WAIT_REMAINING), 0.0), (get(s.SLOW_AFTER), elapsed), (get(s.START_WITHIN), elapsed)
    due = math.inf
    for limit, spent in limits:
        if limit is not None:
            due = min(due, limit - spent) if finite(limit) and finite(spent) else 0.0
    return due
