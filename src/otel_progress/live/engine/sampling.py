"""Reading the counts: what was completed since the last look, by which branch, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_progress.live.branches import paused_since, stall_after
from otel_progress.live.engine import learning, progress
from otel_progress.live.running import is_inside

if TYPE_CHECKING:
    from collections.abc import Iterable

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
    """The same for an operation with running stages, the outer ones first."""
    moved = False
    outer = {stage._parent for stage in running}
    for node in (operation, *running):
        if _counted(node, now):
            moved = True
            before = node._moved_at
            operation._touch(node, now)
            _spread(operation, node, before, running if node in outer else (), now)
    nodes = [node for node in (operation, *running) if now >= node._observe_at]
    if nodes:
        may_wait = bool(operation._children) or any(node._waits for node in (operation, *running))
        for node in nodes:
            _observe(node, now, may_wait)
    return moved


def _spread(operation: Operation, node: Handle, before: float, running: Iterable[Stage], now: float) -> None:
    """What was counted counts for what is around it, and for each stage below that counts nothing of its own."""
    below = [stage for stage in running if not stage._seen and is_inside(stage, node)]
    inner = [stage for stage in below if not any(other._parent is stage for other in running)]
    for leaf in inner or (node,):
        _learn(operation, leaf, before if leaf is node else max(leaf._moved_at, leaf._counted_at), now)
    for stage in below:
        stage._counted_at = now  # by others, on its behalf
        if stage._loops is not None and not node._only_failed:
            stage._loops.progressed(stage, now)
    outer: Handle | None = None if node._only_failed else node
    while outer is not None:
        if outer._loops is not None:
            outer._loops.progressed(outer, now)
        outer = outer._parent if outer is not operation else None


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


def _observe(node: Handle, now: float, may_wait: bool = True) -> None:
    """Feed the estimate: often at first, every 10 s in a long run; never with a time in which all of it waits."""
    since = paused_since(node, now) if may_wait else None
    if since is not None and since < now:
        return
    progress.observe(node, now)
    node._observe_at = now + min(10.0, (now - (node._started or now)) / 5)
    if node._learned is not None and node.operation._seen_by_ticker:
        node._learned = learning.learning.limits(node.operation, node)  # it falls while more is seen
