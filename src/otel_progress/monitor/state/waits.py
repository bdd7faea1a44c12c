"""Declared waits of emitters without an SDK of ours: when one began, and since when its remaining time counts.

An emitter need not say for how long it has waited. One that repeats the time that remains, unchanged, in each event
means its limit: it counts from the first of these events.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple, Protocol

from otel_progress import semconv as s
from otel_progress.model.attribute_types import is_seconds, is_valid
from otel_progress.model.snapshot import Snapshot
from otel_progress.model.status import Status

SAME: Final = 1.0
"""Seconds by which the starts of one wait may differ that follow from its durations."""


class Telling(Protocol):
    """An event that may tell of a wait; named as in `ledger.ReportedEvent`."""

    @property
    def event(self) -> str:
        """Its name."""

    @property
    def is_foreign(self) -> bool:
        """Whether no SDK of ours sent it."""

    @property
    def attributes(self) -> Mapping[str, Any]:
        """All attributes."""


class Moment(Protocol):
    """When an event happened, and the status since; named as in `ledger.Head`."""

    @property
    def status(self) -> Status:
        """The status of its operation."""

    @property
    def timestamp(self) -> float:
        """When it happened, in Unix seconds."""

    @property
    def sequence(self) -> int:
        """Its number in the attempt."""


class WaitStart(NamedTuple):
    """The start of the wait of an operation.

    Attributes:
        reason: why it waits.
        at: when that began, in Unix seconds by the clock of its process.
        sequence: the lowest sequence that an event of this wait can have.
        is_told: whether an event says so: that of the start, or one with the duration.
        begins: whether the event begins a wait.
        left: the remaining time that the newest event says.
        left_at: when the first event said that; those after it said the same.
        left_from: the sequence of that event.
        other: the highest sequence below it of an event that said something else.
    """

    reason: str
    at: float
    sequence: int
    is_told: bool
    begins: bool
    left: float | None
    left_at: float
    left_from: int
    other: int = -1

    def since_left(self, timestamp: float) -> float:
        """For how long the remaining time had counted at this time, in seconds."""
        return 0.0 if self.left is None else max(0.0, timestamp - self.left_at)


def start_in(event: Telling | None, head: Moment) -> WaitStart | None:
    """The start of the wait as far as one event knows it; None if it tells of none, or an SDK of ours sent it."""
    if event is None or head.status is not Status.WAITING or not event.is_foreign:
        return None
    said = event.attributes
    reason, took = said.get(s.WAIT_REASON), said.get(s.WAIT_DURATION)
    if not isinstance(reason, str):
        return None
    begins, left = event.event == s.WAIT_STARTED, said.get(s.WAIT_REMAINING)
    left = left if is_valid(s.WAIT_REMAINING, left) else None
    took = took if is_seconds(took) else None
    at, is_told = head.timestamp - (took or 0.0), begins or took is not None
    return WaitStart(reason, at, head.sequence, is_told, begins, left, head.timestamp, head.sequence)


def after(known: WaitStart | None, found: WaitStart | None, sequence: int) -> WaitStart | None:
    """The start of the wait after a newer event; `sequence` is that of the event before, -1 if there is none."""
    if found is None:
        return None
    if known is None or not _continues(known, found):
        return found if found.is_told else found._replace(sequence=sequence + 1)
    start = found if found.is_told else known
    if found.left == known.left:
        return start._replace(left=known.left, left_at=known.left_at, left_from=known.left_from, other=known.other)
    return start._replace(left=found.left, left_at=found.left_at, left_from=found.left_from, other=sequence)


def _continues(known: WaitStart, found: WaitStart) -> bool:
    """Whether a newer event tells of the same wait."""
    same = known.reason == found.reason and not found.begins
    return same and (not found.is_told or abs(found.at - known.at) <= SAME)


def corrected(known: WaitStart, late: WaitStart | None, newest: Moment) -> WaitStart:
    """The start of the wait after a late event, which may be the one that began it; `newest` is the newest event."""
    if late is None or late.reason != known.reason or late.sequence < known.sequence:
        return known
    known = _counted(known, late, newest)
    if late.is_told:
        return known._replace(at=late.at, sequence=late.sequence, is_told=True)
    return known if known.is_told else known._replace(at=min(known.at, late.at))


def _counted(known: WaitStart, late: WaitStart, newest: Moment) -> WaitStart:
    """The start of the wait, with since when its remaining time counts after a late event."""
    if late.sequence <= known.other or late.sequence >= newest.sequence:
        return known
    if late.left == known.left:
        is_inside = late.sequence > known.left_from
        return known if is_inside else known._replace(left_at=late.left_at, left_from=late.sequence)
    if late.sequence > known.left_from:
        known = known._replace(left_at=newest.timestamp, left_from=newest.sequence)
    return known._replace(other=late.sequence)


def timed(snapshot: Snapshot, start: WaitStart | None) -> Snapshot:
    """The snapshot with the time that it has waited, and its limit."""
    wait = snapshot.wait
    if start is None or wait is None or snapshot.status is not Status.WAITING:
        return snapshot
    elapsed, limit = max(0.0, snapshot.timestamp - start.at), wait.overdue_after
    left = None if limit is None else max(0.0, elapsed + limit - wait.elapsed - start.since_left(snapshot.timestamp))
    return replace(snapshot, wait=replace(wait, elapsed=elapsed, overdue_after=left))
