"""Reading the counts: what was completed since the last look, by which branch, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_progress.live.below import around
from otel_progress.live.branches import Lookup, paused_since, stall_after
from otel_progress.live.engine import learning, progress
from otel_progress.live.operation import NEAR

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from otel_progress.live.node import Handle
    from otel_progress.live.operation import Operation
    from otel_progress.live.stage import Stage

STEADY = learning.STEADY


def sample(operation: Operation, now: float) -> bool:
    """Whether any unit was completed since the last sample; remembers when, and by which branch."""
    running = operation._running
    if running:
        return _sample_with_stages(operation, tuple(running), now)
    moved = _counted(operation, now)
    if moved:
        before, operation._moved_at = operation._moved_at, now
        _learn(operation, operation, before, now)
        if operation._loops is not None and not operation._only_failed:
            operation._loops.progressed(operation, now)
    if now >= operation._observe_at:
        _observe(operation, now)
    return moved


def _sample_with_stages(operation: Operation, running: tuple[Stage, ...], now: float) -> bool:
    """The same for an operation with running stages."""
    if len(running) > NEAR:
        _move_outer(operation, running)
    silent = frozenset(stage for stage in running if not stage._seen)
    counted = {node: node._moved_at for node in (operation, *running) if _counted(node, now)}
    if counted:
        operation._moved_at = now
        above = {stage: around(stage) for stage in running}
        _tell_outer(operation, above, counted, silent, now)
        _tell_inner(operation, above, counted, silent, now)
    nodes = [node for node in (operation, *running) if now >= node._observe_at]
    if nodes:
        lookup = Lookup(operation) if operation._children or operation._pauses else None
        for node in nodes:
            _observe(node, now, lookup)
    return bool(counted)


def _move_outer(operation: Operation, running: tuple[Stage, ...]) -> None:
    """What is around a stage moved when it did: of very deep ones its own thread tells only the nearest."""
    for stage in reversed(running):
        outer = stage._parent
        if outer is not None and outer is not operation and outer._moved_at < stage._moved_at:
            outer._moved_at = stage._moved_at


def _tell_outer(
    operation: Operation,
    above: dict[Stage, Handle],
    counted: Mapping[Handle, float],
    silent: Collection[Handle],
    now: float,
) -> None:
    """What was counted is progress of all that is around it; in one pass, as a stage starts after the one around it.

    Args:
        operation: whose stages they are.
        above: the stages that run, in the order of their start, each with what runs around it.
        counted: those that counted since the last look, and when they had moved before.
        silent: the stages that had counted nothing of their own before this look.
        now: the monotonic time.
    """
    moved: set[Handle] = set()
    done: set[Handle] = {node for node in counted if not node._only_failed}
    speaks: set[Handle] = set()
    """Those with a branch inside that counts nothing by itself: a count on them is one of that branch."""
    outer = {stage._parent for stage in above}
    for stage in reversed(above):
        if stage in counted or stage in moved:
            stage._moved_at = now
            moved.add(above[stage])
        if stage in done:
            done.add(above[stage])
        if stage in speaks or (stage in silent and stage not in outer):
            speaks.add(above[stage])
    for node, before in counted.items():
        if node not in speaks:
            _learn(operation, node, before, now)
    for node in done:
        if node._loops is not None:
            node._loops.progressed(node, now)


def _tell_inner(
    operation: Operation,
    above: dict[Stage, Handle],
    counted: Mapping[Handle, float],
    silent: Collection[Handle],
    now: float,
) -> None:
    """What was counted counts for each stage below that counts nothing of its own; the arguments are those above."""
    fed: set[Handle] = set()
    done: set[Handle] = set()
    outer = {stage._parent for stage in above}
    for stage, around_it in above.items():
        if around_it not in counted and around_it not in fed:
            continue
        fed.add(stage)
        if around_it in done or (around_it in counted and not around_it._only_failed):
            done.add(stage)
        if stage not in silent:
            continue
        if stage not in outer and stage not in counted:
            _learn(operation, stage, max(stage._moved_at, stage._counted_at), now)
        stage._counted_at = now  # by others, on its behalf
        if stage._loops is not None and stage in done:
            stage._loops.progressed(stage, now)


def _counted(node: Handle, now: float) -> bool:
    """Whether a handle itself counted anything since the last look; its loops are looked at one by one."""
    advanced = node._advanced
    plain = type(advanced) is int and node._lanes is None and node._more is None
    life = advanced + node._bumps if plain else node._life()
    if life == node._seen or life != life:  # NaN differs from itself for ever
        return False
    done, node._done = node._done, life - node._failures
    node._only_failed = done == node._done
    node._seen = life
    node._counted_at = now
    for lane in tuple(node._lanes or ()):
        done = lane.completed
        if done != lane.seen:
            lane.seen, lane.before, lane.moved_at = done, lane.moved_at, now
    return True


def _learn(operation: Operation, node: Handle, before: float, now: float) -> None:
    """Progress came, the last before it at `before`: worth to learn where it was not steady.

    Where several loops run side by side, each is judged by itself, and so the gaps of each are learned.
    """
    if not operation._seen_by_ticker:
        return
    lanes = [lane for lane in node._lanes or () if not lane.closed and not lane.nested]
    befores = [lane.before for lane in lanes if lane.moved_at == now] if len(lanes) > 1 else [before]
    for since in befores:
        seconds = now - since
        if seconds < STEADY:
            continue
        learning.learning.gap(operation, node, seconds, stall_after(node))


def _observe(node: Handle, now: float, lookup: Lookup | None = None) -> None:
    """Feed the estimate: often at first, every 10 s in a long run; never with a time in which all of it waits."""
    since = paused_since(node, now, lookup)
    if since is not None and since < now:
        return
    progress.observe(node, now)
    node._observe_at = now + min(10.0, (now - (node._started or now)) / 5)
    if node._learned is not None and node.operation._seen_by_ticker:
        node._learned = learning.learning.limits(node.operation, node)  # it falls while more is seen
