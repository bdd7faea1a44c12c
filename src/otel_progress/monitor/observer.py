"""What the monitor concludes: the verdict on each operation that is not over, and since when it can tell at all."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from otel_progress import semconv as s
from otel_progress.model.health import BEATS, Hearing, Verdict, judge
from otel_progress.model.snapshot import Snapshot
from otel_progress.model.status import Health, Status
from otel_progress.monitor.ledger import Entry, Ledger

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
        self._hears_since = self._looked_at = now

    def look(self, now: float) -> None:
        """To be called each second: a longer pause was a time in which nothing could be heard."""
        if now - self._looked_at > ASLEEP:
            self._hears_since = now
        self._looked_at = now

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
        if entry.said is not None and since < _due(entry):
            return Label(entry.head.health)
        verdict = self.verdict(entry, now)
        return Label(verdict.health, verdict.overdue)

    def missing(self, entry: Entry, now: float) -> float:
        """For how long its process was not heard of, beyond what it may be silent; 0 while it is not missed."""
        hearing = self.hearing(entry, now)
        return max(0.0, min(hearing.silence, hearing.watching) - BEATS * hearing.interval)


def _due(entry: Entry) -> float:
    """After how many seconds the verdict that its process gave may change by time alone."""
    assert entry.said is not None
    get, status = entry.said.brief.get, entry.head.status
    if status is Status.WAITING:
        limit = get(s.WAIT_REMAINING)
        return limit if type(limit) is float else math.inf
    limit, elapsed = get(s.START_WITHIN if status is Status.PENDING else s.SLOW_AFTER), get(s.ELAPSED)
    if isinstance(limit, (int, float)) and isinstance(elapsed, (int, float)):
        return float(limit - elapsed)
    return math.inf
