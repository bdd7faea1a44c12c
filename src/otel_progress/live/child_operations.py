"""Child operations in the same process: when one starts its parent adopts it, when one ends its counts stay there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_progress import clock
from otel_progress.live.branches import touch_lanes
from otel_progress.live.counting import begin_in, plain_advanced
from otel_progress.live.nested_counts import add, nested_in, outer_of, take
from otel_progress.live.records import NestedCounts
from otel_progress.live.registry import registry
from otel_progress.live.running import host_of, touch
from otel_progress.live.state import ChildOperations
from otel_progress.live.survey import settled
from otel_progress.model.status import Status

if TYPE_CHECKING:
    from otel_progress.live.state import HandleState, OperationState


def adopt(parent: OperationState, child: OperationState) -> None:
    """A child started: the branch that started it waits for it."""
    if child is parent or not registry.owns(parent):
        return
    children = parent._children
    if children is None:
        # one step, so that two threads get the same
        children = vars(parent).setdefault("_children", ChildOperations())
    children.take(child)
    begin_in(child, host_of(child) or parent)
    parent._check_at = 0.0


def let_go(parent: OperationState, child: OperationState) -> None:
    """A child ended, which is progress of the branch that waited for it."""
    if parent._children is not None:
        parent._children.leave(child)
    host = host_of(child) or parent
    _leave(child, host)
    if parent._status is Status.RUNNING:
        ended = child._ended or clock.monotonic()
        touch(parent, host, ended)
        if parent._has_tracked:
            touch_lanes(host, child._place, ended)
        parent._check_at = 0.0
        for node in {host, parent}:
            if node._pace is None:
                node._observe_at = 0.0  # it may be the first unit


def _leave(child: OperationState, host: HandleState) -> None:
    """Leave the counts of a child that ended to the stage or operation it ran in."""
    kept = nested_in(host if host._status is Status.RUNNING or host.operation is host else outer_of(host))
    plan = host._opts.plan
    if plan is not None and plan.index(child.name) is not None:
        done = child._status is Status.COMPLETED
        kept.planned[child.name] = 1.0 if done else settled(child).raw or 0.0
    plain_advanced(child)
    units = NestedCounts()
    take(units, child, child._nested)
    with registry.lock:
        add(kept.child_sums, units.sums)
        kept.children += 1
        kept.ended += 1
        word = "ok" if child._status is Status.COMPLETED else child._status.value
        for node in {host, host.operation}:
            nested = nested_in(node)
            nested.failed += child._status is Status.FAILED
            nested.ends = nested.ends or {}
            nested.ends[word] = nested.ends.get(word, 0) + 1
