"""The ratio that is shown, the rate and the ETA of an operation or a stage."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from otel_progress import clock
from otel_progress.live import standstill
from otel_progress.live.branches import paused_since
from otel_progress.live.counting import own_progress
from otel_progress.live.engine import learning, outlines
from otel_progress.live.engine.planned import NOTHING_LEFT, left_by_plan, moved_at
from otel_progress.live.running import children, host_of, innermost
from otel_progress.live.survey import Measure, Survey, by_count, says_nothing
from otel_progress.model import values
from otel_progress.model.estimate import Estimate, Pace, planned
from otel_progress.model.health import NOT_MOVING
from otel_progress.model.history import RATIO
from otel_progress.model.past import by_earlier_runs
from otel_progress.model.ratio import ALMOST, held
from otel_progress.model.snapshot import Progress
from otel_progress.model.status import Status
from otel_progress.model.units import is_beyond
from otel_progress.model.usual_waits import recurring

if TYPE_CHECKING:
    from otel_progress.live.state import HandleState, OperationState, StageState
    from otel_progress.model.closing import Closing
    from otel_progress.model.past import Record

JUMP: Final = 5.0
"""A first count that came this many times faster than the next units was completed by an earlier run."""
SAMPLE: Final = 4
"""Planned stages that must have ended before they say how long others take of which only the names are known."""
_UNLIKE: Final = 1.35
"""How much larger the error of an estimate is that goes by stages and children: those to come have another pace."""
REVIEWS: Final = 10
"""Estimates that are tested anew in a second, which takes about 0.1 ms each."""


# -- ratio


def shown_ratio(node: HandleState, raw: float | None) -> float | None:
    """The ratio to show: the raw one, which small falls do not move back (`model/ratio.py`).

    A completed handle shows 1, or its count if that stayed below the total. A handle that ended otherwise with all
    units completed shows none: 99% would say that something was left. None is shown while none is known.
    """
    if node._status is Status.COMPLETED:
        node._shown = 1.0 if raw is None else min(1.0, raw)
        return node._shown
    if raw is None:
        return None
    shown = node._shown = held(node._shown, raw)
    return None if node._status.final and shown >= ALMOST else shown


# -- progress and time


class _Reviews:
    """How many estimates are tested anew in a second; thousands of operations must not slow the ticker down."""

    def __init__(self) -> None:
        self._second = 0
        self._left = 0

    def take(self) -> bool:
        second = int(clock.monotonic())
        if second != self._second:
            self._second, self._left = second, REVIEWS
        self._left -= 1
        return self._left >= 0


_reviews: Final = _Reviews()


def observe(node: HandleState, now: float) -> None:
    """Feed the pace of a handle with its progress at a monotonic time."""
    alone = _is_alone(node)
    restored: float = node._restored
    unit: str = node._unit
    if alone:
        reached: float | None = own_progress(node)[0]
    else:
        found = _surveyed(node.operation, now).of(node)
        restored = max(restored, found.restored)
        counts = by_count(node, found)
        reached = found.reached if counts else found.raw
        unit = found.unit if counts else RATIO
    if reached is None:
        return
    if node._pace is None:
        if not reached:
            return
        worked_from = (node._started or now) + node._stood + node._slept
        node._pace = Pace(min(now, worked_from), float(restored), _course(node, unit))
        if node._completed_set and alone and not restored and reached > 1:
            node._jump = moved_at(node), float(reached)
    elif node._jump is not None:
        _judge_jump(node, now, float(reached))
    node._pace.observe(now, float(reached), moved_at(node))


def _judge_jump(node: HandleState, now: float, reached: float) -> None:
    """Decide what a first `update(completed=)` of several units was, once more units follow.

    If they come much more slowly, it named what an earlier run completed, and the time until then was no work on them.
    """
    jump = node._jump
    if jump is None or reached == jump[1]:
        return
    node._jump = None
    at, units = jump
    ran, since = at - (node._started or at), now - at
    if reached > units and since > 0 and units * since > JUMP * (reached - units) * max(ran, 0.0):
        node._restored = units
        node._pace = Pace(at, units)


def _is_alone(node: HandleState) -> bool:
    """Whether its own counts are its progress: nothing runs or ran inside it, and it has no ratio and no plan."""
    operation = node.operation
    running = operation._running
    if node._nested is not None or operation._children or node._ratio is not None:
        return False
    if node is operation:
        return operation._opts.plan is None and (not running or _runs_one_that_says_nothing(operation, running))
    return innermost(operation) is node


def _runs_one_that_says_nothing(operation: OperationState, running: Collection[StageState]) -> bool:
    return len(running) == 1 and not operation._partial_unit[1] and says_nothing(innermost(operation))


def _surveyed(operation: OperationState, now: float) -> Survey:
    """The survey of this moment, shared by stages that run side by side."""
    if not operation._running:
        return Survey(operation)
    if operation._surveyed is None or operation._surveyed[0] != now:
        operation._surveyed = (now, Survey(operation))
    survey: Survey = operation._surveyed[1]
    return survey


def eta(node: HandleState, found: Measure, now: float, survey: Survey, depth: int = 0) -> Estimate | None:
    """The time left for a handle: by its plan if that names times for all that is left, else by its pace.

    Without a count of its own it goes by the stages and children that earlier runs had.

    None if nothing is left, and while it stands still for longer than its pace explains.
    """
    operation = node.operation
    if node._status is not Status.RUNNING or (node is operation and operation._health in NOT_MOVING):
        return None
    now = min(now, paused_since(node, now, survey.lookup) or now)
    options = node._opts
    plan = options.plan
    outline = None if found.total or node._counts_itself or not _may_follow(node) else outlines.known(node)
    if outline is not None:
        known = outlines.left(node, outline, now, _ask(node, now, survey), depth)
        if known is not None or plan is None:
            return known
    if plan is not None and not node._counts_itself and not found.total:
        applies, by_plan = left_by_plan(plan, node, now, survey, _ask(node, now, survey))
        if applies:
            return by_plan if by_plan is not None and by_plan.eta > 0 else None
    reached = float(found.reached or 0)
    if max(found.completed or 0, reached) >= found.total if found.total else found.raw == 1:
        closing = _closing(node)
        return None if closing is None else closing.left(now - moved_at(node))
    pace = node._pace
    if pace is None or not pace.began:
        return _without_pace(node, found, now, survey, depth)
    if node._jump is not None and _course(node, found.unit) is None:
        return None  # nobody knows whether an earlier run completed what was named first
    if by_count(node, found):
        if not found.total:
            return _without_total(node, now, survey, depth)
        wider = _UNLIKE if node.operation._children or node._nested is not None else 1.0
        by_pace = pace.estimate(found.total - reached, now, 1.0, reached, moved_at(node), _reviews.take, wider)
        if by_pace is None:
            return _by_duration(node, now) if pace.is_overtaken else None
        return _closed(node, by_pace)
    if found.raw is None or _knows_names_only(node):
        return None
    wider = _UNLIKE if _has_stages_to_come(node) else 1.0
    by_pace = pace.estimate(1 - found.raw, now, 0.0, found.raw, moved_at(node), _reviews.take, wider)
    return None if by_pace is None else _closed(node, by_pace)


def _closing(node: HandleState) -> Closing | None:
    """What earlier runs did after their last unit; None if nothing is known, or stages tell it."""
    before = None if node._inner else learning.learning.learned(node.operation, learning.stage_of(node))
    return None if before is None else before.closing


def _closed(node: HandleState, left: Estimate) -> Estimate:
    """The time left with what earlier runs did after their last unit."""
    closing = _closing(node)
    return left if closing is None else closing.after(left)


def _course(node: HandleState, unit: str) -> Record | None:
    """How earlier runs went that counted in this unit; None if none did."""
    before = learning.learning.learned(node.operation, learning.stage_of(node))
    return None if before is None else before.course_in(unit)


def _has_stages_to_come(node: HandleState) -> bool:
    """Whether planned stages have not begun, whose pace nobody knows."""
    plan = node._opts.plan
    return plan is not None and len(getattr(node, "_weighed", None) or ()) < len(plan.stages)


def _with_waits(
    node: HandleState, found: Measure, left: Estimate | None, now: float, survey: Survey
) -> Estimate | None:
    """The time left with the declared waits to come: those that earlier runs had, else as many as so far."""
    if left is None:
        return left
    before = learning.learning.learned(node.operation, learning.stage_of(node))
    if before is not None and before.waits.seconds and not node._restored:
        waits_now = paused_since(node, now, survey.lookup) is not None
        known = before.waits.extend(left, node._stood_times + waits_now)
        if known is not None:
            return known
    done = float(found.reached or 0) - float(max(node._restored, found.restored))
    if left.source != "rate" or not node._stood_times or not found.total or done <= 0:
        return left
    return recurring(left, node._stood, node._stood_times, (found.total - float(found.reached or 0)) / done)


def _knows_names_only(node: HandleState) -> bool:
    """Whether the ratio is that of a few planned stages of which only the names are known: they may take any time."""
    plan = node._opts.plan
    if plan is None or node._ratio is not None or plan.starts is not None:
        return False
    if any(stage.weight != 1.0 or stage.expected is not None or stage.total for stage in plan.stages):
        return False
    begun = [*(getattr(node, "_weighed", None) or {}).values()]
    over = sum(stage._status.final for stage in begun)
    return over < SAMPLE and not any(stage._counted_at or stage._nested or stage._ratio for stage in begun)


def _may_follow(node: HandleState) -> bool:
    """Whether earlier runs may say which stages are to come: unless somebody named times."""
    plan = node._opts.plan
    if plan is not None and all(stage.expected is not None for stage in plan.stages):
        return False
    return node._ratio is None and getattr(node._opts, "expected", None) is None


def _ask(node: HandleState, now: float, survey: Survey) -> outlines.Ask:
    """Asks what runs inside a handle for its estimate."""

    def ask(inner: HandleState, depth: int) -> Estimate | None:
        seen = survey if inner.operation is node.operation else Survey(inner.operation, depth)
        return eta(inner, seen.of(inner), now, seen, depth)

    return ask


def _without_pace(node: HandleState, found: Measure, now: float, survey: Survey, depth: int) -> Estimate | None:
    """The time left of a handle whose pace is not known yet: by its expected duration, else by earlier runs."""
    ran = outlines.worked(node, now)
    expected = getattr(node._opts, "expected", None)
    if expected:
        return planned([(expected, ran)], 0, 0)
    course = _course(node, found.unit) if found.total else None
    if course is not None:
        left = by_earlier_runs(course, float(found.total or 0) - float(node._restored), ran)
        return None if left is None else _closed(node, _estimate(*left, course.runs))
    return _by_duration(node, now) if found.total else _without_total(node, now, survey, depth)


def _without_total(node: HandleState, now: float, survey: Survey, depth: int) -> Estimate | None:
    """The time left by the duration of earlier runs, else by the stages inside if these are all that there is."""
    ask = _ask(node, now, survey)

    def rest(inner: HandleState, depth: int) -> Estimate | None:
        known = survey.of(inner)
        done = bool(known.total) and known.completed == known.total
        return NOTHING_LEFT if done else ask(inner, depth)

    return _by_duration(node, now) or outlines.side_by_side(node, rest, depth)


def _by_duration(node: HandleState, now: float) -> Estimate | None:
    """The time left by the duration of earlier runs; None once it has run for longer than they did on average."""
    before = learning.learning.learned(node.operation, learning.stage_of(node))
    if before is None or not before.outline.runs or node._restored:
        return None
    return before.outline.by_duration(outlines.worked(node, now), outlines.tempo(node))


def _until_children_end(node: HandleState, now: float, depth: int = 0) -> Estimate | None:
    """The time left of the child operations inside, and those inside them, as far as any has an estimate."""
    inside = [child for child in children(node.operation) if node is node.operation or host_of(child) is node]
    latest = None
    for child in inside if len(inside) <= outlines.MANY and depth < outlines.DEPTH else ():
        survey = Survey(child, depth + 1)
        deeper = _until_children_end(child, now, depth + 1) if child._children else None
        for part in (eta(child, survey.of(child), now, survey, depth + 1), deeper):
            if part is not None:
                latest = part if latest is None else latest.at_least(part)
    return latest


def _estimate(left: float, width: float, runs: int) -> Estimate:
    factor = math.exp(width)
    return Estimate(left, left / factor, left * factor, "history", runs)


def progress_of(node: HandleState, now: float, survey: Survey) -> Progress:
    """The progress of a handle as a value."""
    now = max(standstill.awake(now), node._started or now)
    found = survey.of(node)
    left = _with_waits(node, found, eta(node, found, now, survey), now, survey)
    if left is not None and node.operation._children:
        inside = _until_children_end(node, now)
        left = left if inside is None else left.at_least(inside)
    rate = _rate(node, found, now, survey)
    done, total = found.completed, found.total
    if done is not None:
        done = min(done, values.INT_MAX)
    if total is not None:
        total = min(total, values.INT_MAX)
    raw = known_ratio(node, found)
    restored = 0 if done is None else min(done, max(node._restored, found.restored))
    return Progress(done, total, found.unit, shown_ratio(node, raw), raw, rate, left, restored or None)


def known_ratio(node: HandleState, found: Measure) -> float | None:
    """The raw ratio; None if the total is not the true one, exceeded or clipped, or if others may have done a part."""
    unknown = _is_beyond(node, found) or (found.total or 0) >= values.INT_MAX or _is_done_elsewhere(node, found)
    return None if unknown else found.raw


def _is_done_elsewhere(node: HandleState, found: Measure) -> bool:
    """Whether its units may be children in other processes, of which this one knows nothing: it counted none itself."""
    operation = node.operation
    return node is operation and operation._handed_over and not found.raw and not node._status.final


def _is_beyond(node: HandleState, found: Measure) -> bool:
    """Whether it runs and counted more than its total, which is wrong then: nobody knows how much is left."""
    return not node._status.final and node._ratio is None and is_beyond(found.completed, found.total)


def _reached(node: HandleState, found: Measure) -> float:
    return float((found.reached if by_count(node, found) else found.raw) or 0)


def _rate(node: HandleState, found: Measure, now: float, survey: Survey) -> float | None:
    """Units a second; None under the same conditions as the ETA. An ended handle keeps its last rate."""
    pace = node._pace
    if pace is None or node._jump is not None or not by_count(node, found):
        return None
    if node._status is not Status.RUNNING:
        return pace.rate
    reached = float(found.reached or 0)
    if found.total and reached >= found.total and not _is_beyond(node, found):
        return None
    now = min(now, paused_since(node, now, survey.lookup) or now)
    return pace.rate_at(now, reached, moved_at(node))
