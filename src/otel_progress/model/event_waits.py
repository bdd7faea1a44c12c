"""Which wait an event about a wait tells: its own, whatever else the operation waits for at that moment."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from otel_progress import semconv as s
from otel_progress.model.reported import Wait
from otel_progress.model.snapshot import Event, Snapshot
from otel_progress.model.status import Health, Status

ABOUT_WAITS: Final = frozenset({s.WAIT_STARTED, s.WAIT_OVERDUE, s.WAIT_ENDED})
"""The events that are about one wait."""


def with_its_wait(event: Event) -> Snapshot:
    """The snapshot of an event as it is sent: an event about a wait tells of that one, and after its end of none.

    It is another object than the snapshot of the event where the operation waits for something else. Then a further
    event has to tell of that.
    """
    snapshot, wait = event.snapshot, event.snapshot.wait
    if wait is None or event.name not in ABOUT_WAITS:
        return snapshot
    if event.name == s.WAIT_ENDED:
        status = Status.RUNNING if snapshot.status is Status.WAITING else snapshot.status
        health = Health.PROGRESSING if snapshot.health is Health.WAITING else snapshot.health
        return replace(snapshot, wait=None, status=status, health=health, overdue=False)
    own = event.attributes.get(s.WAIT_REASON)
    if not isinstance(own, str) or own == wait.reason:
        return snapshot
    elapsed, over = event.attributes.get(s.WAIT_DURATION), event.attributes.get(s.WAIT_OVERDUE_BY)
    lasted = float(elapsed) if isinstance(elapsed, (int, float)) else 0.0
    limit = lasted - over if isinstance(over, (int, float)) else None
    return replace(snapshot, wait=Wait(own, lasted, limit), overdue=limit is not None)
