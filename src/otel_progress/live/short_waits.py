"""Short waits: after the tenth one of a reason, further ones are not told one by one.

A program that waits 10,000 times for a lock would send 20,000 events. What is told of a folded wait is that it lasts
(after `SHORT` seconds, or when it is overdue), and what updates in between show of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from otel_progress.live.records import DeclaredWait
    from otel_progress.live.state import OperationState
    from otel_progress.model.snapshot import Snapshot

SHORT: Final = 5.0
"""Seconds below which a wait is short."""
TOLD: Final = 10
"""Short waits of one reason that are told one by one, in each operation."""
REASONS: Final = 1_000
"""Reasons that are counted for an operation; beyond it all are counted anew."""


def is_folded(operation: OperationState, reason: str) -> bool:
    """Whether a wait that begins is not told before it is known to be long."""
    return operation._short_waits is not None and operation._short_waits.get(reason, 0) >= TOLD


def count(operation: OperationState, wait: DeclaredWait, seconds: float) -> None:
    """Count a wait that ended, if it was short. Called in the job's thread.

    Args:
        operation: whose wait it was.
        wait: the wait.
        seconds: how long it took.
    """
    if seconds >= SHORT:
        return
    counts = operation._short_waits
    if counts is None or len(counts) >= REASONS:
        counts = operation._short_waits = {}
    counts[wait.reason] = counts.get(wait.reason, 0) + 1


def tell_end(operation: OperationState) -> None:
    """A folded wait ended: if the last event showed it, an update says soon that it is over; any thread may call it."""
    if operation._shows_wait:
        operation._hurries, operation._update_at = True, 0.0
        operation._revision += 1


def is_told_now(wait: DeclaredWait, operation: OperationState, now: float) -> bool:
    """Whether the start of a folded wait is to be told now, as it lasts; only the first call says so."""
    if not wait.is_folded or now < min(wait.since + SHORT, wait.due):
        return False
    wait.is_folded = False  # first, so that a job that ends the wait now tells the end
    return wait in (operation._pauses or ())


def shows(snapshot: Snapshot) -> bool:
    """Whether a reader of a snapshot knows of an open wait."""
    return snapshot.wait is not None or any(branch.wait is not None for branch in snapshot.branches)
