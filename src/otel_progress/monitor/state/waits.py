"""When a declared wait began, for emitters that do not say for how long it has lasted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

from otel_progress import semconv as s
from otel_progress.model.attribute_types import is_seconds
from otel_progress.model.snapshot import Snapshot
from otel_progress.model.status import Status


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
    """

    reason: str
    at: float
    sequence: int
    is_told: bool


def start_in(event: Telling | None, head: Moment) -> WaitStart | None:
    """The start of the wait as far as one event knows it; None if it tells of none, or an SDK of ours sent it."""
    if event is None or head.status is not Status.WAITING or not event.is_foreign:
        return None
    said = event.attributes
    reason, took = said.get(s.WAIT_REASON), said.get(s.WAIT_DURATION)
    if not isinstance(reason, str):
        return None
    if took is None or not is_seconds(took):
        return WaitStart(reason, head.timestamp, head.sequence, event.event == s.WAIT_STARTED)
    return WaitStart(reason, head.timestamp - took, head.sequence, True)


def after(known: WaitStart | None, found: WaitStart | None, sequence: int) -> WaitStart | None:
    """The start of the wait after a newer event; `sequence` is that of the event before, -1 if there is none."""
    if found is None or found.is_told:
        return found
    if known is not None and known.reason == found.reason:
        return known
    return found._replace(sequence=sequence + 1)


def corrected(known: WaitStart, late: WaitStart | None) -> WaitStart:
    """The start of the wait after a late event, which may be the one that began it."""
    if late is None or late.reason != known.reason or late.sequence < known.sequence:
        return known
    if late.is_told:
        return late
    return known if known.is_told else known._replace(at=min(known.at, late.at))


def timed(snapshot: Snapshot, start: WaitStart | None) -> Snapshot:
    """The snapshot with the time that it has waited; what remains of its limit counts from its event."""
    wait = snapshot.wait
    if start is None or wait is None or snapshot.status is not Status.WAITING:
        return snapshot
    elapsed, limit = max(0.0, snapshot.timestamp - start.at), wait.overdue_after
    left = None if limit is None else max(0.0, elapsed + limit - wait.elapsed)
    return replace(snapshot, wait=replace(wait, elapsed=elapsed, overdue_after=left))
