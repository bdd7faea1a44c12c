"""When rates and ETAs that were reported end, so that an update says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from otel_progress.live.engine import outlines
from otel_progress.live.engine.progress import progress_of
from otel_progress.live.registry import registry
from otel_progress.live.survey import Survey

if TYPE_CHECKING:
    from otel_progress.live.state import OperationState
    from otel_progress.model.estimate import Pace
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
Seen: TypeAlias = "list[tuple[str, Progress]]"
"""The progress of what runs, by its path."""


def shown(snapshot: Snapshot) -> Seen:
    """The progress of what runs, as a snapshot has it; the operation is the empty path."""
    stages = ((stage.path, stage.progress) for stage in snapshot.stages if not stage.status.final)
    return [("", snapshot.progress), *stages]


def of_now(operation: OperationState, now: float) -> Seen:
    """The same of a monotonic time, for less than a snapshot takes."""
    survey = Survey(operation)  # it may run code of the user's number, which must not hold the lock
    with registry.lock:
        stages = [(stage._path or stage.name, stage) for stage in tuple(operation._running or ())]
        return [(path, progress_of(node, now, survey)) for path, node in (("", operation), *stages)]


def next_end(operation: OperationState, seen: Seen, now: float, check: float = ESTIMATE_ENDS) -> float:
    """When to look whether estimates still hold (s, monotonic); infinity if there is none.

    Args:
        operation: whose estimates.
        seen: what is reported of it.
        now: the monotonic time.
        check: seconds until then at the latest.
    """
    if not any(one.rate is not None or one.eta is not None for _, one in seen):
        return FOREVER
    stages = tuple(operation._running or ())
    late = min((outlines.late_in(stage, now) for stage in stages[: outlines.MANY]), default=FOREVER)
    if any(one.eta is not None and one.eta.source != "rate" and one.eta.low <= ESTIMATE_ENDS for _, one in seen):
        late = 0.0
    paces = [node._pace for node in (operation, *stages) if node._pace is not None]
    late = min((late, *(pace.late_in(now) for pace in paces)))
    return _next_look(paces, now, check, late)


def _next_look(paces: list[Pace], now: float, check: float, late: float) -> float:
    """When to look: after `check` (s) at the latest, soon once an estimate is `late` (s), and when a pace ends."""
    ends = min((pace.ends_at(now) for pace in paces), default=FOREVER)
    return min(now + min(check, late + LATE_ENDS), ends + ENDED_FOR)


def by_pace(seen: Seen) -> bool:
    """Whether paces alone gave the estimates."""
    return all(one.eta is None or one.eta.source == "rate" for _, one in seen)


def still_holds(operation: OperationState, now: float, check: float) -> float | None:
    """When to look again, as all estimates hold and nothing is to be asked but the paces; None if that is not known.

    Args:
        operation: whose estimates.
        now: the monotonic time.
        check: seconds until then at the latest.
    """
    if not operation._by_pace:
        return None
    paces = [node._pace for node in (operation, *(operation._running or ())) if node._pace is not None]
    late = min((pace.late_in(now) for pace in paces), default=FOREVER)
    if late <= 0 or any(pace.is_over(now) for pace in paces):
        return None
    return _next_look(paces, now, check, late)


def estimated(seen: Seen) -> frozenset[str]:
    """What there are estimates of."""
    rates = (f"rate of {path}" for path, one in seen if one.rate is not None)
    etas = (f"eta of {path}" for path, one in seen if one.eta is not None)
    return frozenset((*rates, *etas))
