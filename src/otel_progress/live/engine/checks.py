"""Which operations are due for a verdict, and when the next one is due."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from otel_progress.live.branches import live_branches, loop_of, named_stall_after
from otel_progress.live.engine import learning, limits
from otel_progress.model.health import NOT_MOVING
from otel_progress.model.status import Health

if TYPE_CHECKING:
    from otel_progress.live.engine.branch_verdicts import Judged
    from otel_progress.live.state import OperationState


def may_loop(operation: OperationState) -> bool:
    """Whether an operation reports steps, or limits their repeats."""
    loops = operation._loops
    return loops is not None and (loops.steps is not None or operation._opts.loop_after is not None)


def may_be_released(operation: OperationState) -> bool:
    """Whether a stuck branch or child began to move again, or may have left its loop."""
    return any(
        stuck.again is not None or stuck.health is Health.LOOPING
        for stuck in (operation._stuck_branches or {}).values()
    )


def postponed(operation: OperationState, now: float) -> bool:
    """Whether no limit is reached, as the operation moved since; then this sets when it is judged next."""
    options = operation._opts
    if options.slow_after is None:
        named = named_stall_after(operation) is not None
        known = learning.learning
        operation._learned = known.slow(operation) if named else known.limits(operation, operation)
    found = live_branches(operation)
    for live in found:
        if live.child is None and (live.node is not operation or options.slow_after is not None):
            if named_stall_after(live.node) is None:
                live.node._learned = learning.learning.limits(operation, live.node)
    if operation._health is not Health.PROGRESSING or operation._stuck_branches:
        return False
    if any(live.wait is not None or live.child is not None or loop_of(live.node) is not None for live in found):
        return False
    slow_after = limits.slow_after(operation)
    started = operation._started or now
    if slow_after is not None and now >= started + slow_after:
        return False
    due = [live.moved_at + limit for live in found if (limit := live.limit) is not None]
    if slow_after is not None:
        due.append(started + slow_after)
    operation._check_at = min(*due, now + 60.0) if due else now + 60.0
    return operation._check_at > now


def next_check(operation: OperationState, found: list[Judged], health: Health, now: float) -> float:
    """When the verdict may change if nothing moves (s, monotonic)."""
    due = [now + 60.0] if health in NOT_MOVING else [math.inf]  # one that is stuck is looked at sooner when it moves
    for live, branch, verdict, _ in found:
        if verdict.health in NOT_MOVING or live.child is not None:
            continue
        wait, limit = branch.wait, branch.stall_after
        if wait is not None:
            left = 1.0 if wait.overdue_after is None else wait.overdue_after - wait.elapsed
            due.append(now + (min(left, 1.0) if left > 0 else 1.0))
        elif limit is not None:
            due.append(live.moved_at + limit)
    slow_after, started = limits.slow_after(operation), operation._started or now
    if slow_after is not None and now < started + slow_after:
        due.append(started + slow_after)
    soonest = min(due)
    return max(now, soonest) if soonest < math.inf else now + 1.0
