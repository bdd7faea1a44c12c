"""When rates and ETAs that were reported end, so that an update says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_progress.live.engine import outlines

if TYPE_CHECKING:
    from otel_progress.live.state import OperationState
    from otel_progress.model.fields import Progress
    from otel_progress.model.snapshot import Snapshot

ESTIMATE_ENDS: Final = 5.0
"""Seconds without a unit after which an update reports whether the rate or ETA still holds, at the latest; longer where
updates wait for longer."""
LATE_ENDS: Final = 1.0
"""The same for an ETA by a plan or by earlier runs whose end may come at any time, as it changes without any unit."""
ENDED_FOR: Final = 0.01
"""Seconds that a rate or ETA has ended for when an update reports it."""
FOREVER: Final = float("inf")


def next_end(operation: OperationState, snapshot: Snapshot, now: float, check: float = ESTIMATE_ENDS) -> float:
    """When to look whether the estimates of a snapshot still hold (s, monotonic); infinity if there is none.

    Args:
        operation: whose estimates.
        snapshot: what is reported of it.
        now: the monotonic time.
        check: seconds until then at the latest.
    """
    running = _running(snapshot)
    if not any(one.rate is not None or one.eta is not None for _, one in running):
        return FOREVER
    stages = tuple(operation._running or ())
    late = min((outlines.late_in(stage, now) for stage in stages[: outlines.MANY]), default=FOREVER)
    if any(one.eta is not None and one.eta.source != "rate" and one.eta.low <= ESTIMATE_ENDS for _, one in running):
        late = 0.0
    paces = [node._pace for node in (operation, *stages) if node._pace is not None]
    late = min((late, *(pace.late_in(now) for pace in paces)))
    ends = min((pace.ends_at(now) for pace in paces), default=FOREVER)
    return min(now + min(check, late + LATE_ENDS), ends + ENDED_FOR)


def estimated(snapshot: Snapshot) -> frozenset[str]:
    """What a snapshot has estimates of."""
    rates = (f"rate of {path}" for path, one in _running(snapshot) if one.rate is not None)
    etas = (f"eta of {path}" for path, one in _running(snapshot) if one.eta is not None)
    return frozenset((*rates, *etas))


def _running(snapshot: Snapshot) -> list[tuple[str, Progress]]:
    stages = ((stage.path, stage.progress) for stage in snapshot.stages if not stage.status.final)
    return [("", snapshot.progress), *stages]
