"""Reading the counts: what was completed since the last look, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_progress.live.engine import learning, progress, watchdog
from otel_progress.live.running import find_wait

if TYPE_CHECKING:
    from otel_progress.live.node import Handle
    from otel_progress.live.operation import Operation

STEADY = learning.STEADY


def sample(operation: Operation, now: float) -> bool:
    """Whether any unit was completed since the last sample; remembers when."""
    advanced = operation._advanced
    plain = type(advanced) is int and operation._lanes is None and operation._more is None
    before = operation._moved_at
    life = advanced + operation._bumps if plain else operation._life()
    moved = life != operation._seen
    if moved:
        operation._seen = life
        moved = plain or bool(life == life)  # NaN differs from itself for ever
    running = operation._running
    if running:
        waiting = find_wait(operation, now) is not None
        for stage in tuple(running):
            life = stage._life()
            if life != stage._seen:
                stage._seen = life
                if life == life:
                    moved = True
                    operation._touch(stage, now)
            if now >= stage._observe_at and not waiting:
                _observe(stage, now)
    if moved:
        operation._moved_at = now
        if now - before >= STEADY:
            watchdog.gap(operation, before, now)
        if operation._loops is not None:
            operation._loops.progressed(operation, now)
    if now >= operation._observe_at and find_wait(operation, now) is None:
        _observe(operation, now)
    return bool(moved)


def _observe(node: Handle, now: float) -> None:
    """Feed the estimate: often at first, every 10 s in a long run."""
    progress.observe(node, now)
    node._observe_at = now + min(10.0, (now - (node._started or now)) / 5)
