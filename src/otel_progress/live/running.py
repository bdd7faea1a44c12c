"""The stages of an operation that run now, and what they wait for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_progress.live.registry import registry

if TYPE_CHECKING:
    from otel_progress.live.node import Handle
    from otel_progress.live.operation import Operation
    from otel_progress.live.stage import Stage
    from otel_progress.model.snapshot import Wait

STAGES: Final = 64
"""Stages that a snapshot tells one by one."""


def innermost(operation: Operation) -> Handle:
    """The stage that started last and still runs, else the operation."""
    running = operation._running
    try:
        return running[-1] if running else operation
    except IndexError:
        return operation


def find_wait(operation: Operation, now: float) -> Wait | None:
    """The declared pause that is on: the innermost; none while a stage runs that does not wait."""
    running = operation._running
    for node in (*reversed(running or ()), operation):
        waits = node._waits
        if waits:
            if running and len(running) > 1 and not _all_wait(operation, tuple(running)):
                return None
            return waits[-1].seen(now)
    return None


def _all_wait(operation: Operation, running: tuple[Stage, ...]) -> bool:
    """Whether each innermost running stage waits, or is inside one that does."""
    inside = {stage._parent for stage in running}
    for leaf in running:
        node: Handle | None = None if leaf in inside else leaf
        while node is not None and not node._waits:
            if node is operation:
                return False
            node = node._parent
    return True


def fold(operation: Operation) -> None:
    """Keep the stages that run, then the newest, `STAGES` in all; of the others only counts and time by status."""
    with registry.lock:
        stages = operation._stages or []
        excess = len(stages) - STAGES
        if excess <= 0:
            return
        folded = operation._folded = operation._folded or {}
        old: list[int] = []
        for position, stage in enumerate(stages):
            if len(old) >= excess:
                break
            if stage._status.final:
                old.append(position)
        for position in reversed(old):
            stage = stages[position]
            count, seconds = folded.get(stage._status.value, (0, 0.0))
            spent = (stage._ended or 0.0) - (stage._started or 0.0)
            folded[stage._status.value] = (count + 1, seconds + spent)
            del stages[position]
