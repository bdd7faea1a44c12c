"""Sampling: reads what was completed since the last sample, by which branch, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_progress.live.branches import Lookup, named_stall_after, paused_since, stall_after
from otel_progress.live.counting import life
from otel_progress.live.engine import learning, progress
from otel_progress.live.nested_counts import outer_of
from otel_progress.live.registry import registry
from otel_progress.live.running import MOVES_NEAR
from otel_progress.model.status import Health

if TYPE_CHECKING:
    from otel_progress.live.state import HandleState, OperationState, StageState

STEADY = learning.STEADY
OFTEN: Final = 2.0
SELDOM: Final = 10.0
"""Seconds between two observations of a long run, if few or many operations run."""
SHARED: Final = 100.0
"""So many operations add a second to that."""
MOST: Final = 1_500.0
"""Observations in a second, of all operations together; the first one of each is not delayed."""


def counts_alone(operation: OperationState, now: float) -> bool | None:
    """Note what an operation counted of which nothing else matters; None if all of it is to be looked at.

    This is the usual look at thousands of operations that only advance: what `sample` and the checks of the ticker
    would do, in one step. Returns whether any unit was completed. `quiet` says how long it may be done.
    """
    advanced = operation._advanced
    if type(advanced) is not int or now >= operation._check_at or operation._revision != operation._sent_revision:
        return None
    units, curve = advanced + operation._uncounted, operation._curve
    if units == operation._sampled:
        if now >= operation._estimate_ends:
            return None
        if curve is not None and operation._ended is None:
            curve.stands(now - operation._started)  # type: ignore[operator]
        return False
    if now - operation._moved_at >= STEADY:
        return None
    operation._sampled = operation._sampled_done = units
    operation._counted_at = operation._moved_at = now
    operation._has_news = True
    if curve is not None:
        curve.moved = True
    return True


def only_counts(operation: OperationState) -> bool:
    """Whether an operation does nothing but `advance`, without trouble."""
    return not (
        operation._running
        or operation._lanes is not None
        or operation._extras is not None
        or operation._loops is not None
        or operation._pauses
        or operation._stuck_branches
        or operation._health is not Health.PROGRESSING
        or operation._pace is None
        or operation._only_failed
        or operation._started is None
        or operation._parent is not None
        or operation._opts.parent is not None
    )


def quiet(operation: OperationState) -> None:
    """Set until when nothing of an operation matters but its counts, after a look at all of it."""
    until = min(operation._observe_at, operation._keyframe_at)
    # First, so that of what another thread changes meanwhile either this or its own write leads to a full look.
    operation._counts_until = until if operation._by_pace else min(until, operation._estimate_ends)
    if not only_counts(operation):
        operation._counts_until = 0.0


def sample(operation: OperationState, now: float) -> bool:
    """Sample an operation: returns whether any unit was completed, and records when and by which branch."""
    running = operation._running
    if running:
        return _sample_with_stages(operation, tuple(running), now)
    moved = _counted(operation, now)
    if moved:
        before, operation._moved_at = operation._moved_at, now
        if now - before >= STEADY or operation._lanes is not None:
            _learn(operation, operation, before, now)
        if operation._loops is not None and not operation._only_failed:
            operation._loops.progressed(operation, now)
    if now >= operation._observe_at or (moved and operation._pace is None):
        _observe(operation, now)
    return moved


def _sample_with_stages(operation: OperationState, running: tuple[StageState, ...], now: float) -> bool:
    """Sample an operation with running stages."""
    if len(running) > MOVES_NEAR:
        _move_outer(operation, running)
    counted: dict[HandleState, float] = {}
    due = []
    for node in (operation, *running):
        before = node._moved_at
        if _counted(node, now):
            counted[node] = before
        if now >= node._observe_at or (node._pace is None and node in counted):
            due.append(node)
    if counted:
        operation._moved_at = now
        if len(running) == 1:
            _tell_one(operation, running[0], counted, now)
        else:
            _tell_many(operation, running, counted, now)
    if due:
        lookup = Lookup() if operation._children or operation._pauses else None
        for node in due:
            _observe(node, now, lookup)
    return bool(counted)


def _tell_one(operation: OperationState, stage: StageState, counted: dict[HandleState, float], now: float) -> None:
    """Record what an operation and its only stage counted, as `_tell_many` does."""
    done = operation in counted and not operation._only_failed
    if stage in counted:
        stage._moved_at = now
        _learn(operation, stage, counted[stage], now)
        if not stage._only_failed:
            _progressed(stage, now)
            done = True
    if operation in counted:
        if stage._sampled:
            _learn(operation, operation, counted[operation], now)
        else:
            _feed(operation, stage, now)
            if not operation._only_failed:
                _progressed(stage, now)
    if done and operation._loops is not None:
        operation._loops.progressed(operation, now)


def _tell_many(
    operation: OperationState, running: tuple[StageState, ...], counted: dict[HandleState, float], now: float
) -> None:
    """Record counts as progress of the handles around, and of stages inside that count nothing themselves.

    One pass in each direction is enough: a stage starts after the one around it.

    Args:
        operation: whose stages they are.
        running: the stages that run, in the order of their start.
        counted: those that counted since the last look, and when they had moved before.
        now: the monotonic time.
    """
    above = {stage: outer_of(stage) for stage in running}
    outer = {stage._parent for stage in running}
    moved: set[HandleState] = set()
    done: set[HandleState] = {node for node in counted if not node._only_failed}
    speaks: set[HandleState] = set()  # has a branch inside that counts nothing: what it counts is that branch's
    for stage in reversed(running):
        if stage in counted or stage in moved:
            stage._moved_at = now
            moved.add(above[stage])
        if stage in done:
            done.add(above[stage])
        if stage in speaks or not (stage._sampled or stage in outer):
            speaks.add(above[stage])
    for node, before in counted.items():
        if node not in speaks:
            _learn(operation, node, before, now)
    for node in done:
        _progressed(node, now)
    fed: set[HandleState] = set()
    fed_done: set[HandleState] = set()
    for stage in running:
        from_above = above[stage]
        if from_above not in counted and from_above not in fed:
            continue
        fed.add(stage)
        if from_above in fed_done or (from_above in counted and not from_above._only_failed):
            fed_done.add(stage)
        if not stage._sampled:
            _feed(operation, stage, now, learns=stage not in outer)
            if stage in fed_done:
                _progressed(stage, now)


def _feed(operation: OperationState, stage: StageState, now: float, *, learns: bool = True) -> None:
    """Others counted on behalf of a stage."""
    if learns:
        _learn(operation, stage, max(stage._moved_at, stage._counted_at), now)
    stage._counted_at = now


def _progressed(node: HandleState, now: float) -> None:
    if node._loops is not None:
        node._loops.progressed(node, now)


def _move_outer(operation: OperationState, running: tuple[StageState, ...]) -> None:
    """Record progress for the outer handles of deep stages; their own thread does so for the nearest ones only."""
    for stage in reversed(running):
        outer = stage._parent
        if outer is not None and outer is not operation and outer._moved_at < stage._moved_at:
            outer._moved_at = stage._moved_at


def _counted(node: HandleState, now: float) -> bool:
    """Whether a handle itself counted anything since the last sample; its `track` loops are sampled one by one."""
    advanced = node._advanced
    if type(advanced) is int and node._lanes is None and node._extras is None:
        units = advanced + node._uncounted
    else:
        units = life(node)
    if units == node._sampled or units != units:  # NaN differs from itself for ever
        return False
    done, node._sampled_done = node._sampled_done, units - node._failures
    node._only_failed = done == node._sampled_done
    node._sampled = units
    node._counted_at = now
    if node._lanes is not None:
        for lane in tuple(node._lanes):
            done = lane.completed
            if done != lane.seen:
                lane.seen, lane.before, lane.moved_at = done, lane.moved_at, now
    return True


def _learn(operation: OperationState, node: HandleState, before: float, now: float) -> None:
    """Learn the gap between the progress at `before` and now, unless it is too short to matter.

    Loops that run side by side are judged one by one, so the gaps of each are learned.
    """
    if node._lanes is None and now - before < STEADY:
        return
    if not operation._announced:
        return
    lanes = [lane for lane in node._lanes or () if not lane.closed and not lane.nested]
    befores = [lane.before for lane in lanes if lane.moved_at == now] if len(lanes) > 1 else [before]
    for since in befores:
        seconds = now - since
        if seconds < STEADY:
            continue
        learning.learning.gap(operation, node, seconds, stall_after(node))


def _observe(node: HandleState, now: float, lookup: Lookup | None = None) -> None:
    """Feed the estimate: often at first, then every 2 to 10 s, never while all of the handle waits."""
    operation = node.operation
    if lookup is not None or operation._children or operation._pauses:
        since = paused_since(node, now, lookup)
        if since is not None and since < now:
            return
    before = node._pace
    progress.observe(node, now)
    if node._pace is not before:
        operation._estimate_ends = now  # an update says that there is an estimate
    node._observe_at = now + _pause_before_next(node, now)
    if node._learned is not None and operation._announced and named_stall_after(node) is None:
        node._learned = learning.learning.limits(operation, node)  # it falls while more is seen


def _pause_before_next(node: HandleState, now: float) -> float:
    """Seconds until the next observation: longer the longer it runs, and the more operations run beside it."""
    pace, beside = node._pace, len(registry.live)
    least = beside / MOST
    if pace is not None and pace.is_unsettled:
        return least
    age = now - (node._started or now)
    return max(least, min(SELDOM, max(OFTEN, beside / SHARED), age / 5))
