"""The stages of an operation that run now, and how many are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_progress.live.registry import registry

if TYPE_CHECKING:
    from otel_progress.live.node import Handle
    from otel_progress.live.operation import Operation

NEAR: Final = 8
"""Handles around one that hear of its steps, beside the operation."""
STAGES: Final = 64
"""Stages that a snapshot tells one by one."""


def innermost(operation: Operation) -> Handle:
    """The stage that started last and still runs, else the operation."""
    running = operation._running
    try:
        return running[-1] if running else operation
    except IndexError:
        return operation


def around(node: Handle) -> list[Handle]:
    """A handle and what it runs in: the nearest ones, and the operation."""
    operation, found = node.operation, [node]
    while found[-1] is not operation:
        above = found[-1]._parent if len(found) < NEAR else operation
        found.append(operation if above is None else above)
    return found


def is_inside(stage: Handle, outer: Handle) -> bool:
    """Whether a stage runs below another handle, at any depth."""
    operation = stage.operation
    above = stage._parent
    while above is not None and above is not outer and above is not operation:
        above = above._parent
    return above is outer


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
