"""When rates and ETAs that were reported end, so that an update says so."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeAlias

from otel_progress.live.engine import outlines
from otel_progress.live.engine.progress import progress_of
from otel_progress.live.registry import registry
from otel_progress.live.survey import Survey
from otel_progress.model.units import left, rate

if TYPE_CHECKING:
    from otel_progress.live.state import HandleState, OperationState
    from otel_progress.live.survey import Measure
    from otel_progress.model.estimate import Estimate, Pace
    from otel_progress.model.fields import Progress
    from otel_progress.model.snapshot import Snapshot

ESTIMATE_ENDS: Final = 5.0
"""Seconds without a unit after which an update reports whether the rate or ETA still holds, at the latest; longer where
updates wait for longer."""
LATE_ENDS: Final = 1.0
"""The same for an ETA by a plan or by earlier runs whose end may come at any time, as it changes without any unit."""
ENDED_FOR: Final = 0.01
"""Seconds that a rate or ETA has ended for when an update reports it."""
NEAR: Final = 1.0
"""Seconds by which an ETA that readers see may differ from the one that there is."""
CLOSE: Final = 0.05
"""The same as a share of it, where that is more; its words are the same as well."""
FOREVER: Final = float("inf")
Seen: TypeAlias = "list[tuple[str, Progress]]"
"""The progress of what runs, by its path."""
Told: TypeAlias = "tuple[tuple[str, Progress], ...]"
"""What readers were told of estimates."""


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


def left_as_told(node: HandleState, found: Measure, now: float) -> Estimate | None:
    """The ETA of what counts as its readers have it, who run it down; None if it may be another one by now.

    It is the one that they were told last, until it may end or the next update is due, while the count goes on as it
    says.

    Args:
        node: the operation or the stage.
        found: what it counted.
        now: the monotonic time.
    """
    operation = node.operation
    if not operation._by_pace or operation._revision != operation._sent_revision:
        return None
    if now >= operation._estimate_ends and now - node._counted_at >= LATE_ENDS:
        return None
    if operation._has_news and now >= operation._update_at:
        return None
    path = "" if node is operation else node._path or node.name
    told = next((one for known, one in operation._estimated if known == path), None)
    if told is None or told.eta is None or not told.total or told.total != found.total:
        return None
    before, after = told.total - (told.completed or 0), told.total - (found.completed or 0)
    eta = told.left_after(now - operation._estimated_at, operation._update_pause or None)
    if eta is None or before <= 0 or abs(eta.eta - told.eta.eta * after / before) > max(NEAR, CLOSE * eta.eta):
        return None
    return eta


def estimated(seen: Seen) -> Told:
    """That of which there are estimates."""
    return tuple((path, one) for path, one in seen if one.rate is not None or one.eta is not None)


def has_ended(told: Told, seen: Seen) -> bool:
    """Whether readers were told an estimate that there is no more."""
    now = dict(seen)
    return any(
        (found := now.get(path)) is None
        or (one.rate is not None and found.rate is None)
        or (one.eta is not None and found.eta is None)
        for path, one in told
    )


def is_as_told(told: Told, later: float, pause: float | None, seen: Seen) -> bool:
    """Whether readers see what is seen now, as they run the ETA down themselves.

    Args:
        told: the estimates that they were told.
        later: seconds since then.
        pause: for how many seconds an update was said to wait.
        seen: what there is now.
    """
    now = dict(estimated(seen))
    if now.keys() != {path for path, _ in told}:
        return False
    return all(_shows_same(one.after(later, pause), now[path]) for path, one in told)


def _shows_same(known: Progress, now: Progress) -> bool:
    """Whether both look alike: the same but for a rate and an ETA that are said in the same words."""
    if replace(known, eta=None, rate=None) != replace(now, eta=None, rate=None):
        return False
    if rate(known.rate, known.unit) != rate(now.rate, now.unit):
        return False
    if known.eta is None or now.eta is None or known.eta.source != now.eta.source:
        return known.eta is now.eta
    if abs(known.eta.eta - now.eta.eta) > max(NEAR, CLOSE * now.eta.eta):
        return False
    said = left(known.eta.eta, known.eta.low, known.eta.high)
    return left(now.eta.eta, now.eta.low, now.eta.high, said) == said
